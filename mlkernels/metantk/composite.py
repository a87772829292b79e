"""The composite MetaNTK of many tasks as algebra of matrices.

Rows and columns of a kernel over all points are in the order of `all_points`: the queries of all tasks, task by task,
then the support points of all tasks, task by task.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Num

from mlkernels.errors import bad_input
from mlkernels.metantk.operator import adaptation_operator, float64
from mlkernels.support.typed import typed
from mlkernels.tasks import TaskBatch


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
    left = _less_support(float64(theta, "theta"), A_rows)
    if A_columns is not None:
        return _less_support(left.T, A_columns).T
    phi = _less_support(left.T, A_rows).T
    return (phi + phi.T) / 2


def _less_support(theta: Array, A: Array) -> Array:
    """The rows of queries minus `A_i` times the rows of support points of task i."""
    B, n, m = A.shape
    return theta[: B * n] - (A @ theta[B * n :].reshape(B, m, -1)).reshape(B * n, -1)
