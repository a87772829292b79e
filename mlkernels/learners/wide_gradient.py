"""The meta-gradient of a wide multilayer perceptron, by the thin products of `inner_loop.wide_mlp`."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp

from mlkernels.inner_loop import wide_mlp
from mlkernels.inner_loop.losses import loss_of
from mlkernels.inner_loop.settings import InnerLoop
from mlkernels.learners.problem import Problem
from mlkernels.tasks import TaskBatch


def fits(problem: Problem, params, rates, tasks: TaskBatch) -> bool:
    """Whether `value_and_gradient` below can do it, and is worth it: few inner updates beside the width."""
    inner = problem.inner
    if type(inner) is not InnerLoop:
        return False
    plain = inner.adapt == "all" and not inner.first_order and not inner.l2 and not problem.learn_rates
    if not (plain and jax.tree_util.all_leaves([rates]) and jnp.ndim(rates) == 0):  # one rate for all layers
        return False
    return wide_mlp.network_of(problem.apply, params, tasks, 4 * inner.steps * tasks.support_y.shape[-2]) is not None


def value_and_gradient(problem: Problem, params, rate, tasks: TaskBatch):
    """The outer loss, summed over tasks, and its gradient, as `meta_gradient.value_and_gradient`, for what `fits`."""
    network, inner = problem.apply.network, problem.inner
    weights, rest = wide_mlp.split(network, params)
    taps = jax.vmap(lambda task: wide_mlp.zero_taps(network, weights, task, inner.steps))(tasks)

    def total(rest, taps):
        def one(task, taps):
            loss = partial(loss_of, inner.loss)
            outputs, uses = wide_mlp.adapted_outputs(network, weights, rest, rate, task, taps, inner.steps, loss)
            return loss_of(problem.outer_loss, outputs, task.query_y), uses

        losses, uses = jax.vmap(one)(tasks, taps)
        return losses.sum(), uses

    (loss, uses), (by_rest, by_taps) = jax.value_and_grad(total, (0, 1), has_aux=True)(rest, taps)
    flat = jax.tree.map(lambda a: a.reshape(-1, a.shape[-1]), wide_mlp.factors(uses, by_taps))
    return loss, {name: {"w": left.T @ right, **by_rest[name]} for name, (left, right) in flat.items()}
