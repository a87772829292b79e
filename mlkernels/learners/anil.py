"""ANIL's meta-gradient in its two parts, written out as products with second derivatives; and its implicit limit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree

from mlkernels.errors import bad_input
from mlkernels.inner_loop.descent import gradient_step
from mlkernels.inner_loop.losses import Loss, loss_of, support_loss
from mlkernels.inner_loop.minimum import check_solver, check_strongly_convex, minimum, solve
from mlkernels.inner_loop.parts import joined, split
from mlkernels.inner_loop.settings import InnerLoop
from mlkernels.learners.meta_gradient import add_up, mean_or_sum
from mlkernels.learners.problem import Problem, check_inner_loop, problem_of
from mlkernels.support.arguments import whole
from mlkernels.tasks import TaskBatch


class TwoPart(NamedTuple):
    """The outer loss and its gradient in two parts.

    Args:
        loss: a scalar.
        dw: the gradient by where the inner loop starts, a pytree like the adapted layers.
        dphi: the gradient by all other layers; empty if all adapt.
    """

    loss: Array
    dw: dict
    dphi: dict

    @property
    def gradient(self) -> dict:
        """Both parts together, like the parameters."""
        return joined(self.dw, self.dphi)


def _losses(problem: Problem, l2, task):
    """One task's inner and outer loss, functions of w and phi."""
    support = support_loss(problem.apply, problem.inner.loss, l2, task.support_x, task.support_y)

    def queries(w, phi):
        return loss_of(problem.outer_loss, problem.apply(joined(w, phi), task.query_x), task.query_y)

    return support, queries


def room(w, steps: int):
    """Room for the points of an inner loop of up to `steps` steps: zeros, leaves `[steps, ...]` (one at least)."""
    kept = max(steps, 1)  # JAX refuses to look into an array without entries, even in a loop of no steps
    return jax.tree.map(lambda leaf: jnp.zeros((kept, *leaf.shape), leaf.dtype), w)


def two_part_of_task(problem: Problem, params, rates, l2, task: TaskBatch, steps, path):
    """`two_part_gradient` of one task, without its first axis, unchecked and not compiled; and the path.

    The rates, `l2` (in place of the inner loop's) and the steps may be traced; of these there are at most as many as
    `path` has room for, `room(w, ...)` with whatever in it: who takes many gradients in a row makes it once.
    """
    w0, phi = split(params, problem.inner.layers)
    support, queries = _losses(problem, l2, task)

    def forward(m, carry):
        w, path = carry
        path = jax.tree.map(lambda kept, leaf: kept.at[m].set(leaf), path, w)
        return gradient_step(w, rates, jax.grad(support)(w, phi)), path

    w, path = jax.lax.fori_loop(0, steps, forward, (w0, path))
    loss, (v, dphi) = jax.value_and_grad(queries, (0, 1))(w, phi)

    def backward(i, carry):
        v, dphi = carry
        w = jax.tree.map(lambda kept: kept[steps - 1 - i], path)
        # A step is w - a grad L_S(w, phi): its transpose gives v less the Hessian's product with a v, and minus
        # the mixed derivatives' product with it.
        _, pullback = jax.vjp(lambda w, phi: gradient_step(w, rates, jax.grad(support)(w, phi)), w, phi)
        v, mixed = pullback(v)
        return v, jax.tree.map(jnp.add, dphi, mixed)

    if not problem.inner.first_order:
        v, dphi = jax.lax.fori_loop(0, steps, backward, (v, dphi))
    return TwoPart(loss, v, dphi), path


@partial(jax.jit, static_argnums=0)
def _two_part(problem: Problem, params, rates, l2, tasks, steps) -> TwoPart:
    path = room(split(params, problem.inner.layers)[0], problem.inner.steps)

    def one(task):
        return two_part_of_task(problem, params, rates, l2, task, steps, path)[0]

    return mean_or_sum(problem, add_up(one, tasks, problem.sequential), tasks)


def two_part_gradient(
    apply: Callable,
    params,
    tasks: TaskBatch,
    inner: InnerLoop,
    *,
    rates=None,
    steps=None,
    outer_loss: Loss = "half_sum_squares",
    reduce: str = "sum",
) -> TwoPart:
    r"""The gradient of `maml.meta_loss` in two parts, without automatic differentiation through the inner loop.

    .. math:: \frac{\partial\mathcal{L}}{\partial w} = \prod_{m=0}^{N-1} (I - \alpha H_m)\, g_N, \qquad
              \frac{\partial\mathcal{L}}{\partial\varphi} = \nabla_\varphi L_D(w^N, \varphi)
              - \alpha \sum_{m=0}^{N-1} \nabla_\varphi\nabla_w L_S(w^m, \varphi)
              \prod_{j=m+1}^{N-1} (I - \alpha H_j)\, g_N

    with w the adapted layers, phi the others, :math:`H_m = \nabla_w^2 L_S(w^m, \varphi)` and
    :math:`g_N = \nabla_w L_D(w^N, \varphi)`; L_S is the inner loss with its L2 term on the support set, L_D the outer
    loss on the queries. The inner loop runs forward and its points are kept; then back from :math:`g_N`, one
    Hessian-vector product and one mixed product a step.

    Args:
        apply, params, inner, rates: as in `maml.adapt`. With `adapt="all"` (MAML), phi is empty.
        tasks: B tasks.
        steps: instead of `inner.steps`: a number from 0 to `inner.steps`, which may be traced, as a slider's.
        outer_loss, reduce: as in `maml.meta_loss`.

    Returns:
        `TwoPart`: loss, dw, dphi; and `.gradient`, both together, which is that of `maml.meta_gradient`.

    Raises:
        InputError: as `maml.meta_gradient`; or `steps` out of range.

    Example:
        >>> from mlkernels import networks, tasks
        >>> batch = tasks.sinusoid(tasks=3, support=4, queries=5, key=jax.random.key(0))
        >>> network = networks.MLP(width=16)
        >>> params = network.init(jax.random.key(1), (1,))
        >>> two = two_part_gradient(network.apply, params, batch, InnerLoop(0.01, 3, adapt=("head",)))
        >>> sorted(two.dw), sorted(two.dphi)
        (['head'], ['layer1', 'layer2'])

    Source: Ji et al. 2020, the meta-gradient of ANIL; notebooks/03_anil_inner_loop_geometry.
    """
    check_inner_loop(inner)
    # another L2 strength does not compile anew: it is passed beside the problem, as the rates are
    problem, rates = problem_of(apply, params, tasks, replace(inner, l2=0.0), rates, outer_loss, reduce)
    if steps is None:
        steps = inner.steps
    elif not isinstance(steps, jax.core.Tracer):
        steps = whole("steps", steps.item() if hasattr(steps, "item") else steps)
        if steps > inner.steps:
            raise bad_input("steps", f"at most inner.steps = {inner.steps}", steps, "give inner more steps")
    return _two_part(problem, params, rates, inner.l2, tasks, jnp.asarray(steps))


@partial(jax.jit, static_argnums=(0, 1))
def _implicit(problem: Problem, solver, params, l2, tasks) -> TwoPart:
    w0, phi = split(params, problem.inner.layers)

    def one(task):
        support, queries = _losses(problem, l2, task)
        w = minimum(lambda w: support(w, phi), w0, solver)
        loss, (g, dphi) = jax.value_and_grad(queries, (0, 1))(w, phi)
        g, unravel = ravel_pytree(g)

        def products(u):
            """With the Hessian, and with the mixed derivatives."""
            return jax.jvp(lambda w: jax.grad(support, (0, 1))(w, phi), (w,), (unravel(u),))[1]

        v = solve(lambda u: ravel_pytree(products(u)[0])[0], g, solver)
        dphi = jax.tree.map(jnp.subtract, dphi, products(v)[1])
        return TwoPart(loss, jax.tree.map(jnp.zeros_like, w), dphi)

    return mean_or_sum(problem, add_up(one, tasks, problem.sequential), tasks)


def implicit_gradient(
    apply: Callable,
    params,
    tasks: TaskBatch,
    inner: InnerLoop,
    *,
    outer_loss: Loss = "half_sum_squares",
    reduce: str = "sum",
    solver: str = "eigh",
) -> TwoPart:
    r"""The meta-gradient of infinitely many inner steps, for a strongly convex inner problem: no loop at all.

    .. math:: w^* = \arg\min_w L_S(w, \varphi), \qquad
              \frac{\partial\mathcal{L}}{\partial\varphi} = \nabla_\varphi L_D(w^*, \varphi)
              - \nabla_\varphi\nabla_w L_S(w^*, \varphi)\, H_*^{-1}\, \nabla_w L_D(w^*, \varphi), \qquad
              \frac{\partial\mathcal{L}}{\partial w} = 0

    w* comes from Newton's method: for the squared losses that is ridge regression, solved by one step. The gradient of
    `two_part_gradient` comes as near to it as :math:`(1 - \alpha\mu)^N`, mu the least curvature.

    Args:
        apply, params, tasks, outer_loss, reduce: as in `two_part_gradient`.
        inner: its `adapt` must be `("head",)`, its `l2` positive; rate and steps do not enter.
        solver: for the linear systems of the size of w: "eigh", or "cg" (conjugate gradients, where w is large).

    Returns:
        `TwoPart`, with zeros for dw.

    Raises:
        InputError: as `two_part_gradient`; or an inner problem that is not strongly convex by its form.

    Example:
        >>> from mlkernels import networks, tasks
        >>> batch = tasks.sinusoid(tasks=3, support=4, queries=5, key=jax.random.key(0))
        >>> network = networks.MLP(width=16)
        >>> params = network.init(jax.random.key(1), (1,))
        >>> limit = implicit_gradient(network.apply, params, batch, InnerLoop(0.1, 1, l2=0.1, adapt=("head",)))
        >>> float(jnp.abs(limit.dw["head"]["w"]).max())
        0.0

    Source: Rajeswaran et al. 2019 (implicit gradients in meta-learning); notebooks/03_anil_inner_loop_geometry.
    """
    check_inner_loop(inner)
    problem, _ = problem_of(apply, params, tasks, replace(inner, l2=0.0, steps=0), None, outer_loss, reduce)
    check_solver(solver)
    check_strongly_convex(inner)
    return _implicit(problem, solver, params, inner.l2, tasks)
