"""The MetaNTK of a finite network by its definition: the Gram of a Jacobian through the inner loop."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

from mlkernels.errors import bad_input
from mlkernels.inner_loop import wide_mlp
from mlkernels.inner_loop.descent import adapted
from mlkernels.inner_loop.settings import InnerLoop
from mlkernels.kernels import check_outputs, gram
from mlkernels.metantk import wide
from mlkernels.metantk.composite import check_tasks
from mlkernels.metantk.operator import check_loop
from mlkernels.support.memory import require
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


def empirical_metantk(
    apply: Callable,
    params,
    tasks: TaskBatch,
    *,
    inner_rate: float,
    inner_steps: int,
    adapt: str = "all",
    outputs: str = "sum",
) -> Array:
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
    check_outputs(outputs)
    if adapt not in ("all", "head"):
        raise bad_input("adapt", "'all' or 'head'", repr(adapt), "name one of them")
    if adapt == "head" and not (isinstance(params, dict) and "head" in params):
        raise bad_input("params", 'a dictionary with an entry "head"', type(params).__name__, "name the last layer so")
    if not isinstance(inner_steps, int) or inner_steps < 0:
        raise bad_input(
            "inner_steps", "a whole number of at least 0", inner_steps, "infinity is for the analytic kernel"
        )
    check_loop(inner_rate, inner_steps, 0.0, False, "inner")
    if adapt == "all" and outputs != "trace":
        network = wide_mlp.network_of(apply, params, tasks, 2 * wide.rows(tasks, inner_steps, outputs))
        if network is not None:
            return wide.metantk(network, params, tasks, inner_rate, inner_steps, outputs)
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
