"""The losses of the inner and the outer loop, and what labels they can work with."""

from __future__ import annotations

from collections.abc import Callable, Hashable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Num

from mlkernels.errors import bad_input
from mlkernels.inner_loop.parts import joined
from mlkernels.support.arguments import one_of
from mlkernels.support.array_arguments import is_real_type, real_array
from mlkernels.support.typed import typed

Loss = str | Callable[[Array, Array], Array]
LOSSES = ("half_sum_squares", "mean_squares", "cross_entropy")


def check_loss(loss: Loss, which: str) -> None:
    """Refuse what is neither the name of a loss nor a function that can be hashed; `which` says whose it is."""
    if not callable(loss):
        one_of(which, loss, LOSSES, do="name one of them, or give a function of outputs and labels")
    elif not isinstance(loss, Hashable):
        do = "use a function, a partial of one or a method of a frozen dataclass: JAX compiles once for each loss"
        raise bad_input(which, "a loss that can be hashed", type(loss).__name__, do)


@typed
def loss_of(loss: Loss, outputs: Float[Array, "N k"], labels: Num[ArrayLike, "N k"]) -> Float[Array, ""]:
    r"""The loss of one task's points: one of `LOSSES`, in this order, or a function `loss(outputs, labels) -> scalar`.

    .. math:: \tfrac12\|f - Y\|^2, \qquad \frac{1}{Nk}\|f - Y\|^2, \qquad
              -\frac1N \sum_{ic} Y_{ic} \log\mathrm{softmax}(f_i)_c

    For "cross_entropy" each row of the labels is a distribution over the classes.
    """
    shape = getattr(outputs, "shape", None)
    if shape is not None and not is_real_type(outputs.dtype):
        raise bad_input("apply", "a function that gives real numbers", outputs.dtype, "give real parts")
    if shape != labels.shape:
        do = "give the network as many outputs as the labels have, and labels two axes"
        raise bad_input("labels", f"the shape of the network's outputs {shape and list(shape)}", list(labels.shape), do)
    if callable(loss):
        value = jnp.asarray(loss(outputs, labels))
        if value.shape or not jnp.issubdtype(value.dtype, jnp.floating):
            got = f"{value.dtype} {list(value.shape)}"
            raise bad_input("loss", "a function that gives a scalar, a float", got, "sum or average in it")
        return value
    if loss == "cross_entropy":
        return -jnp.sum(labels * jax.nn.log_softmax(outputs)) / len(outputs)
    squares = jnp.sum((outputs - labels) ** 2)
    return squares / outputs.size if loss == "mean_squares" else 0.5 * squares


def curvature(loss: Loss, points: int, outputs: int) -> float:
    """The largest second derivative of a loss by the outputs; for "cross_entropy" a bound on it.

    Of a function, it is that at outputs of zero against labels of equal parts: a guess where that is not quadratic.

    Example:
        >>> curvature("mean_squares", points=10, outputs=1)
        0.2
        >>> round(curvature(lambda f, y: ((f - y) ** 2).mean(), points=10, outputs=1), 6)
        0.2
    """
    if callable(loss):
        zeros, labels = jnp.zeros((points, outputs)), jnp.full((points, outputs), 1 / outputs)
        second = jax.hessian(loss)(zeros, labels).reshape(zeros.size, zeros.size)
        return float(jnp.linalg.eigvalsh(second)[-1])
    return {"half_sum_squares": 1.0, "mean_squares": 2 / (points * outputs), "cross_entropy": 0.5 / points}[loss]


def check_labels(labels, loss: Loss, what: str) -> None:
    """Refuse labels `[..., N, k]` for the cross-entropy that are no distributions; traced ones pass."""
    if loss != "cross_entropy" or isinstance(labels, jax.core.Tracer):
        return
    labels = np.asarray(real_array(what, labels))  # a fixed array, also while JAX traces what is around it
    if not labels.size:
        return
    lowest, sums = float(labels.min()), labels.sum(-1)
    if lowest < 0 or np.abs(sums - 1).max() > 1e-3:
        expected = "rows that are distributions (one-hot labels are) for the cross-entropy"
        got = f"labels from {lowest:.4g} and rows that sum to {float(sums.min()):.4g} to {float(sums.max()):.4g}"
        raise bad_input(what, expected, got, 'sample with one_hot="plain", or choose a loss of squares')


def support_loss(apply: Callable, loss: Loss, l2, x: Array, y: Array) -> Callable:
    r"""The loss that the inner loop descends, as `f(w, phi)`; unlike `InnerLoop.l2`, `l2` may be traced.

    .. math:: L_S(w, \varphi) = \ell\big(f(X'; w, \varphi), Y'\big) + \tfrac{\beta}{2}\|w\|^2
    """

    def value(w, phi):
        fit = loss_of(loss, apply(joined(w, phi), x), y)
        if isinstance(l2, float) and l2 == 0:
            return fit
        return fit + l2 / 2 * sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(w))

    return value
