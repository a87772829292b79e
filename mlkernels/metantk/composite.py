"""The composite MetaNTK of many tasks: of kernels as functions, and as algebra of matrices.

Rows and columns of a kernel over all points are in the order of `all_points`: the queries of all tasks, task by task,
then the support points of all tasks, task by task.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Num

from mlkernels.errors import bad_input
from mlkernels.metantk.operator import adaptation_operator, float64
from mlkernels.support.memory import require
from mlkernels.support.typed import typed
from mlkernels.tasks import TaskBatch

KernelFn = Callable[[Array, Array], Array]


def check_tasks(tasks, name: str = "tasks") -> None:
    if not isinstance(tasks, TaskBatch):
        raise bad_input(name, "a TaskBatch", type(tasks).__name__, "make one with mlkernels.tasks")


@typed
def all_points(tasks: TaskBatch) -> Num[Array, "P ..."]:
    """The inputs of all tasks in the order in which kernels have them here: all queries, then all support points.

    Args:
        tasks: B tasks of n query and m support points.

    Returns:
        `[B*n + B*m, ...]`.

    Raises:
        InputError: no TaskBatch.

    Example:
        >>> x, y = jnp.array([[[1.0], [2.0]], [[3.0], [4.0]]]), jnp.zeros((2, 2, 1))
        >>> all_points(TaskBatch(support_x=10 * x, support_y=y, query_x=x, query_y=y))[:, 0].tolist()
        [1.0, 2.0, 3.0, 4.0, 10.0, 20.0, 30.0, 40.0]
    """
    check_tasks(tasks)
    return jnp.concatenate([x.reshape(-1, *x.shape[2:]) for x in (tasks.query_x, tasks.support_x)])


@typed
def within_tasks(kernel: Float[ArrayLike, "P P"], tasks: int, queries: int) -> Float[Array, "B _ m"]:
    """The blocks of a kernel over all points that inner loops use: each task's n queries, then its m support points,
    against its support points. For a "full" kernel `queries` are times the outputs.
    """
    B, support = tasks, kernel[:, tasks * queries :]
    points = (rows.reshape(B, -1, B, support.shape[1] // B) for rows in jnp.split(support, [B * queries]))
    return jnp.concatenate(list(points), axis=1)[jnp.arange(B), :, jnp.arange(B)]


@typed
def task_operators(
    inner_kernel: Float[ArrayLike, "B P m"], *, inner_rate, inner_steps, flow: bool = False, ridge=0.0
) -> Float[Array, "B n m"]:
    r"""How the inner loop of each task carries a change of its support outputs over to its queries.

    .. math:: A_i = K(X_i, X'_i)\, T_i

    K is of each task's points, queries first, against its support points, as `within_tasks` gives it.
    """
    K = float64(inner_kernel, "inner_kernel")
    m = K.shape[-1]
    T = adaptation_operator(K[:, -m:], inner_rate=inner_rate, inner_steps=inner_steps, flow=flow, ridge=ridge)
    return K[:, :-m] @ T


@jax.jit
@typed
def composite(
    theta: Float[ArrayLike, "P Q"], A_rows: Float[ArrayLike, "B1 n1 m1"],
    A_columns: Float[ArrayLike, "B2 n2 m2"] | None = None,
) -> Float[Array, "N1 N2"]:  # fmt: skip
    r"""The composite MetaNTK: all pairs of tasks at once.

    .. math:: \Phi_{ij} = \Theta(X_i, X_j) - A_i \Theta(X'_i, X_j) - \Theta(X_i, X'_j) A_j^\top
              + A_i \Theta(X'_i, X'_j) A_j^\top

    Theta is over all points, or between the points of two batches of tasks, with the operators A of each. Without those
    of the columns the tasks are the same ones, and the kernel is made symmetric to the last bit.
    """
    theta = float64(theta, "theta")
    A1, A2 = A_rows, A_rows if A_columns is None else A_columns
    (B1, n1, m1), (B2, n2, m2) = A1.shape, A2.shape

    def rows(task):  # of one task, against all: what it takes stays in the cache
        query, support, A = task
        left = query - A @ support
        right = left[:, B2 * n2 :].reshape(n1, B2, m2)
        return left[:, : B2 * n2] - jnp.einsum("nbm,bkm->nbk", right, A2).reshape(n1, -1)

    points = theta[: B1 * n1].reshape(B1, n1, -1), theta[B1 * n1 :].reshape(B1, m1, -1)
    phi = jax.lax.map(rows, (*points, A1), batch_size=min(B1, 8)).reshape(B1 * n1, -1)
    return (phi + phi.T) / 2 if A_columns is None else phi


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
