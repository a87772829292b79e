"""The composite MetaNTK of many tasks, from kernels alone."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mlkernels.metantk.composite import all_points, check_tasks, composite, task_operators
from mlkernels.metantk.operator import float64
from mlkernels.support.memory import require
from mlkernels.support.typed import typed
from mlkernels.tasks import TaskBatch

KernelFn = Callable[[Array, Array], Array]


def _operators(tasks: TaskBatch, inner_kernel: KernelFn, loop: dict) -> Array:
    """`A_i` of every task, from one kernel matrix a task."""
    points = jnp.concatenate([tasks.query_x, tasks.support_x], axis=1)
    K = jax.vmap(lambda x: inner_kernel(x, x))(points)
    return task_operators(K[:, :, tasks.queries :], **loop)


@typed
def analytic_metantk(
    tasks: TaskBatch,
    ntk: KernelFn,
    *,
    inner_kernel: KernelFn | None = None,
    inner_rate,
    inner_steps,
    flow: bool = False,
    ridge=0.0,
    rows: TaskBatch | None = None,
    columns: TaskBatch | None = None,
) -> Float[Array, "P Q"]:
    r"""The composite MetaNTK of many tasks: the kernel in which the meta-output moves, at infinite width.

    .. math:: \Phi_{ij} = \Theta(X_i, X_j) - A_i \Theta(X'_i, X_j) - \Theta(X_i, X'_j) A_j^\top
              + A_i \Theta(X'_i, X'_j) A_j^\top, \qquad A_i = K(X_i, X'_i)\, T_i

    One kernel call over all points, then block algebra over all pairs of tasks at once. The blocks of different tasks
    are not zero. Labels do not enter.

    Args:
        tasks: B tasks of n query and m support points.
        ntk: Theta, a function `(x1 [N1, ...], x2 [N2, ...]) -> [N1, N2]`.
        inner_kernel: K, the kernel in which the inner loop moves: None is `ntk` itself (MAML), the NNGP is ANIL. A
            function as `ntk`; it is called under `jax.vmap`, over tasks.
        inner_rate, inner_steps, flow, ridge: the inner loop, as in `adaptation_operator`.
        rows, columns: tasks of the rows and of the columns where they differ (held-out against training); each is
            `tasks` by default.

    Returns:
        `[B*n, B*n]` (rows' B*n by columns' B*n), float64: task by task, in each its queries in order. Symmetric and
        positive semidefinite where rows and columns are the same.

    Raises:
        InputError: no TaskBatch, a bad inner loop, or more memory needed than there is.

    Example:
        >>> import jax
        >>> jax.config.update("jax_enable_x64", True)
        >>> from mlkernels import kernels, networks, tasks
        >>> batch = tasks.sinusoid(tasks=3, support=4, queries=5, key=jax.random.key(0))
        >>> ntk = lambda x1, x2: kernels.infinite_kernels(networks.MLP(1), x1, x2).ntk
        >>> analytic_metantk(batch, ntk, inner_rate=0.01, inner_steps=10).shape
        (15, 15)

    Source: Wang et al. 2022, the analytic MetaNTK; notebooks/01_derive_metantk.
    """
    left, right = (tasks if rows is None else rows), (tasks if columns is None else columns)
    check_tasks(left)
    check_tasks(right, "columns")
    loop = {"inner_rate": inner_rate, "inner_steps": inner_steps, "flow": flow, "ridge": ridge}
    points1 = all_points(left)
    points2 = points1 if left is right else all_points(right)
    require(
        4 * 8 * len(points1) * len(points2), f"kernels of {len(points1)} by {len(points2)} points", "take fewer tasks"
    )
    theta = float64(ntk(points1, points2), "ntk")
    A1 = _operators(left, inner_kernel or ntk, loop)
    return composite(theta, A1, None if left is right else _operators(right, inner_kernel or ntk, loop))


@typed
def adapted_outputs(
    tasks: TaskBatch,
    inner_kernel: KernelFn,
    *,
    inner_rate,
    inner_steps,
    flow: bool = False,
    ridge=0.0,
    initial: tuple[Array, Array] | None = None,
) -> Float[Array, "B n k"]:
    r"""The meta-output of every task before any outer step: the inner loop in function space.

    .. math:: F_0(X) = f_0(X) + K(X, X')\, T\, (Y' - f_0(X'))

    Args:
        tasks: B tasks.
        inner_kernel: K, as in `analytic_metantk` (for MAML the NTK).
        inner_rate, inner_steps, flow, ridge: the inner loop, as in `adaptation_operator`.
        initial: `(f_0(X') [B, m, k], f_0(X) [B, n, k])`; None means an initial function that is zero, or its mean.

    Returns:
        `[B, n, k]`, float64.

    Raises:
        InputError: as `adaptation_operator`.

    Example:
        >>> import jax, math
        >>> jax.config.update("jax_enable_x64", True)
        >>> from mlkernels import kernels, networks, tasks
        >>> batch = tasks.sinusoid(tasks=3, support=4, queries=5, key=jax.random.key(0))
        >>> ntk = lambda x1, x2: kernels.infinite_kernels(networks.MLP(1), x1, x2).ntk
        >>> adapted_outputs(batch, ntk, inner_rate=0.01, inner_steps=10).shape
        (3, 5, 1)

    Source: Wang et al. 2022; the linearised inner loop; notebooks/01_derive_metantk.
    """
    check_tasks(tasks)
    loop = {"inner_rate": inner_rate, "inner_steps": inner_steps, "flow": flow, "ridge": ridge}
    A = _operators(tasks, inner_kernel, loop)
    support, query = (0.0, 0.0) if initial is None else initial
    return query + A @ (float64(tasks.support_y, "support_y") - support)
