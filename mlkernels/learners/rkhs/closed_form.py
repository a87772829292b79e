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
from mlkernels.kernels.empirical import OUTPUTS
from mlkernels.learners.rkhs.flow import flow_operator
from mlkernels.support.arguments import number, one_of
from mlkernels.support.typed import typed
from mlkernels.tasks import TaskBatch

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
            treat each output alike. "sum" is k times as large at infinite width: its t is to be divided by k.
        how: "gram" multiplies with H(x, X'); "linearised" takes f(x) + J(x) v with :math:`v = J(X')^\top a`, products
            with the Jacobian alone; "auto" takes what was quicker: "linearised" for "full" and for one output.

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
        directions: v, a pytree like theta, with a first axis for each output that is treated by itself; () for "gram".
    """

    params: Any
    support_x: Array
    weights: Array
    directions: Any


def _linearised(inner: ClosedForm, k: int) -> bool:
    return inner.how == "linearised" or (inner.how == "auto" and (inner.outputs == "full" or k == 1))


def _residual(outputs: Array, labels: Array) -> Array:
    if labels.shape != outputs.shape:
        do = "give the network as many outputs as the labels have, and labels two axes"
        raise bad_input(
            "support_y", f"the shape of the network's outputs {list(outputs.shape)}", list(labels.shape), do
        )
    return labels.astype(outputs.dtype) - outputs


def adapted(apply: Callable, params, numbers, support_x, support_y, inner: ClosedForm) -> Adapted:
    """`adapt` without checks."""
    outputs, pull = jax.vjp(lambda theta: apply(theta, support_x), params)
    m, k = outputs.shape
    kernel = empirical_ntk(apply, params, support_x, outputs=inner.outputs)
    kernel += numbers["ridge"].astype(kernel.dtype) * jnp.eye(len(kernel), dtype=kernel.dtype)
    operator = flow_operator(kernel, numbers["time"])
    residual = _residual(outputs, support_y)
    full = inner.outputs == "full"
    weights = (operator @ residual.reshape(len(operator), -1)).reshape(m, k)
    if not _linearised(inner, k):
        return Adapted(params, support_x, weights, ())
    if full or k == 1:
        return Adapted(params, support_x, weights, jax.tree.map(lambda leaf: leaf[None], pull(weights)[0]))
    if inner.outputs == "sum":
        cotangents = jnp.broadcast_to(weights.T[..., None], (k, m, k))
    else:  # one for each output that is predicted and each output of the mean
        cotangents = (weights.T[:, None, :, None] * jnp.eye(k, dtype=weights.dtype)[None, :, None, :] / k).reshape(
            k * k, m, k
        )
    return Adapted(params, support_x, weights, jax.vmap(lambda c: pull(c)[0])(cotangents.astype(weights.dtype)))


def predict(apply: Callable, task: Adapted, x: Array, inner: ClosedForm) -> Array:
    """The adapted predictor at inputs `[n, ...]`, `[n, k]`; unchecked, for `jit`, `grad` and attacks."""
    k = task.weights.shape[-1]
    if not _linearised(inner, k):
        outputs = apply(task.params, x)
        kernel = empirical_ntk(apply, task.params, x, task.support_x, outputs=inner.outputs)
        moved = kernel @ (task.weights.reshape(-1, 1) if inner.outputs == "full" else task.weights)
        return outputs + moved.reshape(outputs.shape)

    outputs, push = jax.linearize(lambda theta: apply(theta, x), task.params)
    if inner.outputs == "full" or k == 1:
        return outputs + push(jax.tree.map(lambda leaf: leaf[0], task.directions))
    moved = jax.vmap(push)(task.directions)
    if inner.outputs == "sum":  # the change of the sum of the outputs
        return outputs + moved.sum(-1).T
    moved = moved.reshape(k, k, *outputs.shape)
    return outputs + jnp.einsum("cdnd->nc", moved)


def outputs_of_task(apply: Callable, params, numbers, task: TaskBatch, inner: ClosedForm) -> Array:
    """What one task's predictor says of its queries."""
    k = task.support_y.shape[-1]
    if _linearised(inner, k):
        found = adapted(apply, params, numbers, task.support_x, task.support_y, inner)
        return predict(apply, found, task.query_x, inner)
    return _by_one_gram(apply, params, numbers, task, inner)


def _by_one_gram(apply, params, numbers, task, inner):
    """The same, from one kernel of all points: each point's gradients are taken once."""
    m = len(task.support_x)
    points = jnp.concatenate([task.support_x, task.query_x])
    outputs = apply(params, points)
    kernel = empirical_ntk(apply, params, points, outputs=inner.outputs)
    rows = m * (outputs.shape[-1] if inner.outputs == "full" else 1)
    support = kernel[:rows, :rows] + numbers["ridge"].astype(kernel.dtype) * jnp.eye(rows, dtype=kernel.dtype)
    residual = _residual(outputs[:m], task.support_y).reshape(rows, -1)
    moved = kernel[rows:, :rows] @ (flow_operator(support, numbers["time"]) @ residual)
    return outputs[m:] + moved.reshape(outputs[m:].shape)


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
        InputError: as `adapt`.

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
    return lambda x: _predict(apply, found, jnp.asarray(x), form)
