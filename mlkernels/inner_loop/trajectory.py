"""The inner loop's points, all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import jax
from jaxtyping import Array, ArrayLike, Float, Num

from mlkernels.inner_loop.descent import gradient_step
from mlkernels.inner_loop.losses import check_labels, support_loss
from mlkernels.inner_loop.parts import split
from mlkernels.inner_loop.settings import InnerLoop, form, rates_for
from mlkernels.support.arguments import whole
from mlkernels.support.typed import typed


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
    check_labels(support_y, inner.loss, "support_y")
    steps = inner.steps if steps is None else whole("steps", steps)
    return _trajectory(apply, replace(form(inner), l2=0.0, steps=steps), params, rates, inner.l2, support_x, support_y)
