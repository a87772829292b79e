"""The MetaNTK of a wide multilayer perceptron without a Jacobian: `mlkernels.inner_loop.wide_mlp` says how."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

from mlkernels.inner_loop.losses import loss_of
from mlkernels.inner_loop.wide_mlp import adapted_outputs, factors, split, zero_taps
from mlkernels.networks import MLP
from mlkernels.tasks import TaskBatch


@partial(jax.jit, static_argnums=(0, 4, 5))
def metantk(network: MLP, params, tasks: TaskBatch, rate, steps: int, outputs: str) -> Array:
    """The Gram of `empirical.empirical_metantk` for outputs "sum" or "full"; needs `rows(...)` squared numbers."""
    weights, rest = split(network, params)

    def one(task):
        taps = zero_taps(network, weights, task, steps)

        def meta_output(rest, taps):
            y, uses = adapted_outputs(
                network, weights, rest, rate, task, taps, steps, partial(loss_of, "half_sum_squares")
            )
            return (y.sum(-1) if outputs == "sum" else y).reshape(-1), uses

        y, pullback, uses = jax.vjp(meta_output, rest, taps, has_aux=True)
        by_rest, by_taps = jax.vmap(pullback)(jnp.eye(len(y), dtype=y.dtype))
        return by_rest, factors(jax.tree.map(lambda use: use[None], uses), by_taps)

    by_rest, by_weights = jax.lax.map(one, tasks)
    total = 0.0
    for leaf in jax.tree.leaves(by_rest):  # [B, n*k, p]
        rows = leaf.reshape(-1, leaf.shape[-1])
        total = total + rows @ rows.T
    for left, right in by_weights.values():  # [B, n*k, r, in] and [B, n*k, r, out]
        size, r = left.shape[0] * left.shape[1], left.shape[2]
        products = [flat @ flat.T for flat in (left.reshape(size * r, -1), right.reshape(size * r, -1))]
        total = total + (products[0] * products[1]).reshape(size, r, size, r).sum((1, 3))
    return total


def rows(tasks: TaskBatch, steps: int, outputs: str) -> int:
    """Rows of all factors together: the outputs of all tasks times the products that each has to do with.

    Example:
        >>> from mlkernels.tasks import sinusoid
        >>> rows(sinusoid(tasks=2, support=4, queries=3, key=jax.random.key(0)), 5, "sum")
        258
    """
    B, n, k = tasks.query_y.shape
    return B * n * (1 if outputs == "sum" else k) * (2 * steps * tasks.support_x.shape[1] + n)
