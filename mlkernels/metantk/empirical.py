"""The MetaNTK of a finite network by its definition: the Gram of a Jacobian through the inner loop."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mlkernels.errors import bad_input
from mlkernels.inner_loop.descent import adapted
from mlkernels.inner_loop.losses import loss_of
from mlkernels.inner_loop.settings import InnerLoop
from mlkernels.inner_loop.wide_mlp import adapted_outputs, factors, network_of, split, zero_taps
from mlkernels.kernels import OUTPUTS, gram
from mlkernels.metantk.composite import check_tasks
from mlkernels.metantk.operator import check_loop
from mlkernels.networks import MLP
from mlkernels.support.arguments import one_of
from mlkernels.support.memory import require
from mlkernels.support.typed import typed
from mlkernels.tasks import TaskBatch


@partial(jax.jit, static_argnums=(0, 4, 5, 6))
def _meta_jacobian(apply, params, task: TaskBatch, rate, steps: int, adapt: str, outputs: str):
    """d F / d theta of one task (a batch of one), row by row so that one backward pass is held: leaves `[n, k, p]`."""

    def meta_output(params):
        inner = InnerLoop(0.0, steps, adapt=adapt)
        y = apply(adapted(apply, params, rate, task.support_x[0], task.support_y[0], inner), task.query_x[0])
        return y.sum(-1, keepdims=True) if outputs == "sum" else y

    y, pullback = jax.vjp(meta_output, params)
    basis = jnp.eye(y.size, dtype=y.dtype).reshape(y.size, *y.shape)
    rows = jax.lax.map(lambda cotangent: pullback(cotangent)[0], basis)
    return [leaf.reshape(*y.shape, -1) for leaf in jax.tree.leaves(rows)]


@typed
def empirical_metantk(
    apply: Callable,
    params,
    tasks: TaskBatch,
    *,
    inner_rate: float,
    inner_steps: int,
    adapt: str = "all",
    outputs: str = "sum",
) -> Float[Array, "N N"]:
    r"""The MetaNTK by its definition: the Gram of the Jacobian of the adapted outputs, through all inner steps.

    .. math:: \hat\Phi = \frac{\partial F}{\partial\theta}\frac{\partial F}{\partial\theta}^\top, \qquad
              F_\theta(X_i) = f(X_i;\ \theta_i'), \quad
              \theta \mapsto \theta_i' \text{ by gradient descent on } \tfrac12\|f(X_i') - Y_i'\|^2

    Second-order terms are in it. Tends to `analytic_metantk` with width, at about width^-1/2.

    Args:
        apply, params: as in `kernels.empirical_ntk`.
        tasks: B tasks; unlike at infinite width their support labels do enter.
        inner_rate: step size of the inner loop.
        inner_steps: a whole number of at least 0.
        adapt: "all" (MAML) or "head" (ANIL: the inner loop moves `params["head"]` alone).
        outputs: "sum", "full" or "trace" as in `kernels.empirical_ntk`.

    Returns:
        `[B*n, B*n]`, or `[B*n*k, B*n*k]` for "full"; task by task, then query, then output.

    Raises:
        InputError: a setting out of its range, or more memory needed than there is.

    Example:
        >>> import jax
        >>> from mlkernels import networks, tasks
        >>> batch = tasks.sinusoid(tasks=2, support=4, queries=3, key=jax.random.key(0))
        >>> network = networks.MLP(width=32)
        >>> params = network.init(jax.random.key(1), (1,))
        >>> empirical_metantk(network.apply, params, batch, inner_rate=0.01, inner_steps=3).shape
        (6, 6)

    Source: Wang et al. 2022, the definition of the MetaNTK; notebooks/01_derive_metantk.
    """
    check_tasks(tasks)
    one_of("outputs", outputs, OUTPUTS)
    one_of("adapt", adapt, ("all", "head"))
    if adapt == "head" and not (isinstance(params, dict) and "head" in params):
        raise bad_input("params", 'a dictionary with an entry "head"', type(params).__name__, "name the last layer so")
    if not isinstance(inner_steps, int) or inner_steps < 0:
        do = "infinity is for the analytic kernel"
        raise bad_input("inner_steps", "a whole number of at least 0", inner_steps, do)
    check_loop(inner_rate, inner_steps, 0.0, False, "inner")
    if adapt == "all" and outputs != "trace":
        network = network_of(apply, params, tasks, 2 * wide_rows(tasks, inner_steps, outputs))
        if network is not None:
            return wide_metantk(network, params, tasks, inner_rate, inner_steps, outputs)
    B, n = tasks.query_x.shape[:2]
    k = 1 if outputs == "sum" else tasks.query_y.shape[-1]
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(params))
    rows = B * n * k
    require((rows + n * k + 4) * size, f"{rows} rows of the Jacobian, {size} bytes each", "take fewer tasks or queries")
    jacobians = [
        _meta_jacobian(apply, params, tasks[i : i + 1], inner_rate, inner_steps, adapt, outputs) for i in range(B)
    ]
    blocks = [[None] * B for _ in range(B)]
    for i in range(B):
        for j in range(i, B):
            blocks[i][j] = gram(jacobians[i], jacobians[j], outputs)
            blocks[j][i] = blocks[i][j].T
    return jnp.block(blocks)


@partial(jax.jit, static_argnums=(0, 4, 5))
def wide_metantk(network: MLP, params, tasks: TaskBatch, rate, steps: int, outputs: str) -> Array:
    """The same for outputs "sum" or "full", without a Jacobian, in `wide_rows(...)` squared numbers: see `wide_mlp`."""
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


def wide_rows(tasks: TaskBatch, steps: int, outputs: str) -> int:
    """Rows of all factors together: the outputs of all tasks times the products that each has to do with."""
    B, n, k = tasks.query_y.shape
    return B * n * (1 if outputs == "sum" else k) * (2 * steps * tasks.support_x.shape[1] + n)
