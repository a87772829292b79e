"""Meta-RKHS-II: a task's predictor in closed form, by the empirical NTK at the current parameters."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Num

from mlkernels.errors import bad_input
from mlkernels.kernels import empirical_ntk
from mlkernels.kernels.empirical import OUTPUTS, gradient_rows
from mlkernels.learners.hidden import of_points
from mlkernels.learners.rkhs.flow import flow_weights
from mlkernels.support.arguments import number, one_of
from mlkernels.support.typed import typed

WAYS = ("auto", "linearised", "gram")


@dataclass(frozen=True)
class ClosedForm:
    r"""The settings of Meta-RKHS-II, in the place of an inner loop. Hashable: a static argument.

    .. math:: f^t(x) = f(x) + H(x, X')\,(H + \rho I)^{-1}\big(I - e^{-t(H + \rho I)}\big)\,(Y' - f(X'))

    the gradient flow, for the time t, of the network linearised at theta, on half the SUM of squares with
    :math:`\tfrac{\rho}{2}\|\theta' - \theta\|^2`. With a mean over m points the time is t / m.

    Args:
        time: t, at least 0, `math.inf` allowed.
        ridge: rho, at least 0. At infinite time the predictor is the mean of a Gaussian process of noise rho.
        outputs: how k outputs make a kernel, as in `kernels.empirical_ntk`. "full" is the linearised network exactly,
            `[m k, m k]`; "trace", the mean over the outputs, and "sum", of the sum of the outputs, are `[m, m]` and
            treat each output alike. "sum" is k times as large at infinite width: its t is to be divided by k, its
            ridge times k.
        how: "gram" multiplies with H(x, X'); "linearised" takes f(x) + J(x) v with :math:`v = J(X')^\top a`, products
            with the Jacobian alone; "auto" takes what was quicker: "gram" for "sum" and "trace" of several outputs and
            no images.

    Raises:
        InputError: a number out of its range, an unknown name.

    Example:
        >>> ClosedForm(10.0)
        ClosedForm(time=10.0, ridge=0.0, outputs='trace', how='auto')

    Source: Zhou et al. 2021, eq. 5 to 7 (submission), for one output; the ridge, the choice for k outputs and where it
    is quick are ours; notebooks/05_meta_learning_in_rkhs.
    """

    time: float = math.inf
    ridge: float = 0.0
    outputs: str = "trace"
    how: str = "auto"

    def __post_init__(self) -> None:
        object.__setattr__(self, "time", number("time", self.time, infinite=True))
        object.__setattr__(self, "ridge", number("ridge", self.ridge))
        one_of("outputs", self.outputs, OUTPUTS)
        one_of("how", self.how, WAYS)

    loss = "half_sum_squares"  # which the flow descends; no field

    @property
    def numbers(self) -> dict[str, Any]:
        """What is passed beside the form, so that other numbers do not compile anew."""
        return {"time": np.asarray(self.time), "ridge": np.asarray(self.ridge)}

    @property
    def form(self) -> ClosedForm:
        """All but the numbers."""
        return replace(self, time=math.inf, ridge=0.0)


class Adapted(NamedTuple):
    """What a task's support set has made of the network; `predict` is a function of it. A pytree.

    Args:
        params: theta.
        support_x: `[m, ...]`.
        weights: a, `[m, k]`: G(Y' - f(X')).
        directions: v = J(X')^T a: a pytree like theta; for "sum" and "trace" of k outputs a list of `[d, size, k]`, a
            leaf's entries for each of d directions of the outputs; () for "gram".
    """

    params: Any
    support_x: Array
    weights: Array
    directions: Any


def _linearised(inner: ClosedForm, k: int, axes: int) -> bool:
    if inner.how == "auto":
        return inner.outputs == "full" or k == 1 or axes > 2
    return inner.how == "linearised"


def _directions(outputs: str, k: int, dtype) -> Array:
    """Of the outputs, whose kernels are averaged: their sum, or each by itself."""
    return jnp.ones((1, k), dtype) if outputs == "sum" else jnp.eye(k, dtype=dtype)


def _residual(outputs: Array, labels: Array) -> Array:
    if labels.shape != outputs.shape:
        expected = f"the shape of the network's outputs {list(outputs.shape)}"
        do = "give the network as many outputs as the labels have, and labels two axes"
        raise bad_input("support_y", expected, list(labels.shape), do)
    return labels.astype(outputs.dtype) - outputs


def adapted(apply: Callable, params, numbers, support_x, support_y, inner: ClosedForm) -> Adapted:
    """`adapt` without checks."""
    m, k = support_y.shape

    def weights_of(kernel, outputs):
        residual = _residual(outputs, support_y).reshape(len(kernel), -1)
        return flow_weights(kernel, residual, numbers["time"], numbers["ridge"]).reshape(m, k)

    if not _linearised(inner, k, support_x.ndim):
        kernel = empirical_ntk(apply, params, support_x, outputs=inner.outputs)
        return Adapted(params, support_x, weights_of(kernel, apply(params, support_x)), ())
    if inner.outputs == "full" or k == 1:
        outputs, pull = jax.vjp(lambda theta: apply(theta, support_x), params)
        weights = weights_of(empirical_ntk(apply, params, support_x, outputs=inner.outputs), outputs)
        return Adapted(params, support_x, weights, pull(weights)[0])
    directions = _directions(inner.outputs, k, jax.tree.leaves(params)[0].dtype)
    outputs, rows = gradient_rows(apply, params, support_x, directions)
    kernel = sum(jnp.einsum("dnp,dmp->nm", leaf, leaf, precision="highest") for leaf in rows) / len(directions)
    weights = weights_of(kernel, outputs)
    moved = [jnp.einsum("dnp,nk->dpk", leaf, weights, precision="highest") / len(directions) for leaf in rows]
    return Adapted(params, support_x, weights, moved)


def predict(apply: Callable, task: Adapted, x: Array, inner: ClosedForm) -> Array:
    """The adapted predictor at inputs `[n, ...]`, `[n, k]`; unchecked, for `jit`, `grad` and attacks."""
    k = task.weights.shape[-1]
    if not _linearised(inner, k, x.ndim):
        kernel = empirical_ntk(apply, task.params, x, task.support_x, outputs=inner.outputs)
        outputs = apply(task.params, x)
        return outputs + (kernel @ task.weights.reshape(kernel.shape[1], -1)).reshape(outputs.shape)
    if inner.outputs == "full" or k == 1:
        return sum(jax.jvp(lambda theta: apply(theta, x), (task.params,), (task.directions,)))
    outputs, rows = gradient_rows(apply, task.params, x, _directions(inner.outputs, k, task.weights.dtype))
    pairs = zip(rows, task.directions, strict=True)
    return outputs + sum(jnp.einsum("dnp,dpk->nk", leaf, v, precision="highest") for leaf, v in pairs)


_adapted = partial(jax.jit, static_argnums=(0, 5))(adapted)
_predict = partial(jax.jit, static_argnums=(0, 3))(predict)


@typed
def adapt(
    apply: Callable, params, support_x: Num[ArrayLike, "m ..."], support_y: Num[ArrayLike, "m k"], inner: ClosedForm
) -> Adapted:
    r"""Adapt to one task in closed form.

    .. math:: a = (H + \rho I)^{-1}\big(I - e^{-t(H + \rho I)}\big)(Y' - f(X')), \qquad v = J(X')^\top a

    Args:
        apply, params: as in `maml.adapt`.
        support_x: `[m, ...]`.
        support_y: `[m, k]`.
        inner: the settings; another time or ridge does not compile anew.

    Returns:
        `Adapted`, for `predictor`.

    Raises:
        InputError: labels that do not fit the outputs; more memory needed than there is.

    Example:
        >>> from mlkernels import networks
        >>> network = networks.MLP(width=32)
        >>> params = network.init(jax.random.key(0), (1,))
        >>> x, y = jnp.array([[0.0], [1.0]]), jnp.array([[1.0], [-1.0]])
        >>> say = predictor(network.apply, params, x, y, ClosedForm())
        >>> say(x).round(4).ravel().tolist()
        [1.0, -1.0]

    Source: Zhou et al. 2021, eq. 6 (submission); notebooks/05_meta_learning_in_rkhs.
    """
    if not isinstance(inner, ClosedForm):
        raise bad_input("inner", "a rkhs.ClosedForm", type(inner).__name__, "use maml.adapt for an inner loop")
    support_x, support_y = jnp.asarray(support_x), jnp.asarray(support_y)
    return _adapted(apply, params, inner.numbers, support_x, support_y, inner.form)


def predictor(
    apply: Callable, params, support_x, support_y, inner: ClosedForm
) -> Callable[[Num[ArrayLike, "n ..."]], Float[Array, "n k"]]:
    r"""One task's adapted predictor as a function of inputs: what is evaluated, drawn and attacked.

    .. math:: x \mapsto f(x) + J(x)\, v

    Args:
        apply, params, support_x, support_y, inner: as in `adapt`.

    Returns:
        `x [n, ...] -> [n, k]`, compiled, differentiable by x; the support set is held fixed.

    Raises:
        InputError: as `adapt`; the predictor itself for points of another shape than the support's.

    Example:
        >>> from mlkernels import networks
        >>> network = networks.MLP(width=32)
        >>> params = network.init(jax.random.key(0), (1,))
        >>> x, y = jnp.array([[0.0], [1.0]]), jnp.array([[1.0], [-1.0]])
        >>> predictor(network.apply, params, x, y, ClosedForm(ridge=0.1))(jnp.zeros((5, 1))).shape
        (5, 1)

    Source: Zhou et al. 2021 (submission); notebooks/05_meta_learning_in_rkhs.
    """
    found = adapt(apply, params, support_x, support_y, inner)
    form = inner.form
    return of_points(lambda x: _predict(apply, found, x, form), found.support_x.shape[1:])
