"""The gradient step, the inner loop that repeats it, and the points that it goes through."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Num

from mlkernels.errors import bad_input
from mlkernels.inner_loop.implicit import ImplicitLoop, solved
from mlkernels.inner_loop.losses import check_labels, support_loss
from mlkernels.inner_loop.parts import joined, split, spread
from mlkernels.inner_loop.settings import InnerLoop, form, rates_for
from mlkernels.support.arguments import whole
from mlkernels.support.array_arguments import real_arrays
from mlkernels.support.network_arguments import check_apply
from mlkernels.support.typed import typed


def gradient_step(w, rates, gradient):
    r"""One step of gradient descent; the rates are a scalar or a tree that is a prefix of w's, and may be traced.

    .. math:: w \leftarrow w - \lambda \odot g
    """
    return jax.tree.map(lambda p, rate, g: p - rate * g, w, spread(rates, w), gradient)


def descend(loss: Callable, start, rates, steps, *, first_order: bool = False, remat: bool = True):
    r"""Gradient descent of `loss(theta) -> scalar` from any pytree.

    .. math:: \theta \leftarrow \theta - \lambda \odot \nabla\ell(\theta)

    An int of steps can be differentiated in reverse, a traced one not. `first_order` treats the gradients as constants
    then; `remat` holds one step's computation at a time and computes it anew: less memory, more work.
    """

    def step(theta, _):
        gradient = jax.grad(loss)(theta)
        return gradient_step(theta, rates, jax.lax.stop_gradient(gradient) if first_order else gradient), None

    if not isinstance(steps, int):
        return jax.lax.fori_loop(0, steps, lambda _, theta: step(theta, None)[0], start)
    body = jax.checkpoint(step, prevent_cse=False) if remat else step  # inside scan nothing is merged anyway
    return jax.lax.scan(body, start, length=steps)[0]


def adapted(apply, params, rates, support_x, support_y, inner: InnerLoop, steps=None):
    """The inner loop without checks: what `adapt` and the losses of the outer loop share."""
    w, phi = split(params, inner.layers)
    loss = support_loss(apply, inner.loss, inner.l2, support_x, support_y)
    steps = inner.steps if steps is None else steps
    if isinstance(inner, ImplicitLoop):
        return joined(solved(lambda w: loss(w, phi), w, inner, lambda f, w: descend(f, w, rates, steps)), phi)
    how = {"first_order": inner.first_order, "remat": inner.remat}
    return joined(descend(lambda w: loss(w, phi), w, rates, steps, **how), phi)


_adapted = partial(jax.jit, static_argnums=(0, 5))(adapted)


@typed
def adapt(
    apply: Callable, params, support_x: Num[ArrayLike, "m ..."], support_y: Num[ArrayLike, "m k"], inner: InnerLoop, *,
    rates=None, steps=None,
):  # fmt: skip
    r"""One task's parameters after the inner loop.

    .. math:: \theta' = \theta_\tau, \qquad \theta_{s+1} = \theta_s - \lambda\,\nabla\mathcal{L}'(\theta_s)

    Compiled once for an `apply` and the shapes: neither rates nor `steps` compile anew.

    Args:
        apply: `apply(params, x) -> [N, k]`; hashable (a function, or a method of a frozen dataclass).
        params: the parameters: a dictionary of layers, or any pytree for `adapt="all"`.
        support_x: `[m, ...]`.
        support_y: `[m, k]`.
        inner: the settings.
        rates: instead of `inner.rate`: a scalar, or a dictionary with one scalar for each adapted layer (or a tree as
            the layer's, down to one rate for each parameter). May be traced, differentiated, learned.
        steps: instead of `inner.steps`: a number that may be traced, as a slider's. For forward use alone: a loop of
            unknown length has no reverse-mode derivative.

    Returns:
        The adapted parameters, a pytree like `params`.

    Raises:
        InputError: a layer that does not exist (the message lists those that do), rates that do not fit, labels that
            the loss cannot work with.

    Example:
        >>> from mlkernels import networks
        >>> network = networks.MLP(width=8)
        >>> params = network.init(jax.random.key(0), (1,))
        >>> x, y = jnp.ones((2, 1)), jnp.zeros((2, 1))
        >>> theta = adapt(network.apply, params, x, y, InnerLoop(0.1, 5), steps=200)
        >>> bool(abs(network.apply(theta, x)).max() < 1e-3)
        True

    Source: Finn et al. 2017 (MAML), Raghu et al. 2020 (ANIL), Li et al. 2017 (Meta-SGD: learned rates).
    """
    check_apply(apply)
    rates = rates_for(params, inner, rates)
    support_x, support_y = real_arrays(support_x=(support_x, "m *d"), support_y=(support_y, "m k"))
    check_labels(support_y, inner.loss, "support_y")
    if steps is not None and not isinstance(steps, jax.core.Tracer):
        steps = jnp.asarray(whole("steps", steps))
    static = form(inner) if steps is None else replace(form(inner), steps=0)
    return _adapted(apply, params, rates, support_x, support_y, static, steps)


class Trajectory(NamedTuple):
    """The inner loop's way.

    Args:
        w: the adapted layers at w^0, ..., w^N: leaves `[N + 1, ...]`.
        loss: `[N + 1]`, the inner loss (with its L2 term) there.
    """

    w: dict
    loss: Float[Array, " steps+1"]


@partial(jax.jit, static_argnums=(0, 1))
def _trajectory(apply, inner, params, rates, l2, x, y) -> Trajectory:
    w, phi = split(params, inner.layers)
    value = jax.value_and_grad(support_loss(apply, inner.loss, l2, x, y))

    def step(w, _):
        loss, gradient = value(w, phi)
        return gradient_step(w, rates, gradient), (w, loss)

    _, (path, losses) = jax.lax.scan(step, w, length=inner.steps + 1)
    return Trajectory(path, losses)


@typed
def trajectory(
    apply: Callable, params, support_x: Num[ArrayLike, "m ..."], support_y: Num[ArrayLike, "m k"], inner: InnerLoop, *,
    rates=None, steps=None,
) -> Trajectory:  # fmt: skip
    r"""The points that the inner loop goes through on one task, and its loss there.

    .. math:: w^{m+1} = w^m - \alpha\, \nabla_w L_S(w^m, \varphi)

    Neither rates nor the L2 strength compile anew; another number of steps does: take many and look at the first few.

    Args:
        apply, params, support_x, support_y, inner, rates: as in `maml.adapt`.
        steps: N, instead of `inner.steps`.

    Returns:
        `Trajectory`: w with leaves `[N + 1, ...]`, loss `[N + 1]`.

    Raises:
        InputError: as `maml.adapt`.

    Example:
        >>> import jax.numpy as jnp
        >>> from mlkernels import networks
        >>> network = networks.MLP(width=8)
        >>> params = network.init(jax.random.key(0), (1,))
        >>> x, y = jnp.ones((2, 1)), jnp.zeros((2, 1))
        >>> way = trajectory(network.apply, params, x, y, InnerLoop(0.1, 5, adapt=("head",)))
        >>> way.w["head"]["w"].shape, bool(way.loss[5] < way.loss[0])
        ((6, 8, 1), True)

    Source: notebooks/03_anil_inner_loop_geometry.
    """
    rates = rates_for(params, inner, rates)
    if isinstance(inner, ImplicitLoop):
        do = "its way is none of the settings: give an InnerLoop"
        raise bad_input("inner", "an InnerLoop", type(inner).__name__, do)
    check_apply(apply)
    support_x, support_y = real_arrays(support_x=(support_x, "m *d"), support_y=(support_y, "m k"))
    check_labels(support_y, inner.loss, "support_y")
    steps = inner.steps if steps is None else whole("steps", steps)
    return _trajectory(apply, replace(form(inner), l2=0.0, steps=steps), params, rates, inner.l2, support_x, support_y)
