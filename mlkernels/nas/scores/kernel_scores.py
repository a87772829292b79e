"""Scores of architectures that were never trained: the MetaNTK's condition number, and what it has to beat."""

from __future__ import annotations

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from mlkernels.errors import bad_input
from mlkernels.metantk import adaptation_operator
from mlkernels.metantk.operator import check_loop, float64
from mlkernels.nas.engine.gram import Kernels, sample_kernels
from mlkernels.nas.engine.supernet import logits
from mlkernels.nas.space.layout import Layout
from mlkernels.support.arguments import one_of
from mlkernels.tasks import TaskBatch

ALGORITHMS = ("maml", "anil")


@dataclass(frozen=True)
class Score:
    """A condition number as a score: the lower the better.

    Attributes:
        value: largest over smallest eigenvalue; infinity, the worst there is, for a spectrum that has no such number.
        smallest, largest: the extreme eigenvalues.
        note: what is wrong with the spectrum; empty if nothing is.

    Example:
        >>> condition_score(np.diag([1.0, 0.0]))
        Score(value=inf, smallest=0.0, largest=1.0, note='smallest eigenvalue 0 is not positive: the worst score')
    """

    value: float
    smallest: float
    largest: float
    note: str = ""


def condition_score(kernel, *, precision=jnp.float64) -> Score:
    r"""The condition number of a kernel as a score.

    .. math:: \kappa = \lambda_{max} / \lambda_{min}

    A kernel that is not finite, or whose smallest eigenvalue is not positive, gets the worst score, infinity: divided
    blindly, a negative eigenvalue would make the best of all. An eigenvalue below what rounding leaves of the kernel's
    entries is kept, and said to be uncertain.

    Args:
        kernel: `[N, N]`, symmetric up to rounding; the eigenvalues are float64's.
        precision: the type in which the entries were computed.

    Returns:
        A `Score`.

    Raises:
        InputError: not a square matrix.

    Example:
        >>> condition_score(np.diag([1.0, 4.0])).value
        4.0
        >>> condition_score(np.diag([-1.0, 4.0])).value
        inf

    Source: Wang et al. 2022; its code gives NaN 1e5, and a negative eigenvalue a negative, so the best, score.
    """
    M = np.asarray(kernel, np.float64)
    if M.ndim != 2 or M.shape[0] != M.shape[1] or not M.size:
        raise bad_input("kernel", "a square matrix", list(M.shape), "pass a kernel of points with themselves")
    if not np.isfinite(M).all():
        return Score(math.inf, math.nan, math.nan, "the kernel is not finite: the worst score")
    eigenvalues = np.linalg.eigvalsh((M + M.T) / 2)
    smallest, largest = float(eigenvalues[0]), float(eigenvalues[-1])
    if smallest <= 0:
        note = f"smallest eigenvalue {smallest:.3g} is not positive: the worst score"
        return Score(math.inf, smallest, largest, note)
    noise = len(M) * float(jnp.finfo(precision).eps) * largest
    note = f"smallest eigenvalue {smallest:.3g} is within rounding ({noise:.1g}) of zero" if smallest < noise else ""
    return Score(largest / smallest, smallest, largest, note)


def composite(theta: Array, inner: Array, tasks: int, queries: int, *, inner_time, ridge) -> Array:
    r"""The composite MetaNTK from matrices over all points, all queries first.

    .. math:: \Phi = D\, \Theta\, D^\top, \qquad D = \big[I, -\mathrm{diag}_i\, K(X_i, X'_i)\, T_i\big]

    Args:
        theta: the NTK, `[N, N]`: `tasks * queries` rows of queries, task by task, then those of the support sets.
        inner: K, the kernel in which the inner loop moves, of the same shape: theta for MAML, the head's for ANIL.
        tasks, queries: how many tasks, and rows of queries in each (queries times outputs for a "full" kernel).
        inner_time: rate times steps of gradient flow in the inner loop; `math.inf` allowed.
        ridge: added to K in the inverse.

    Returns:
        `[tasks * queries, tasks * queries]`, float64, symmetric.

    Raises:
        InputError: as `metantk.adaptation_operator`.

    Example:
        >>> jax.config.update("jax_enable_x64", True)
        >>> K = jnp.array([[2.0, 1.0], [1.0, 1.0]])
        >>> composite(K, K, 1, 1, inner_time=math.inf, ridge=0.0)
        Array([[1.]], dtype=float64)

    Source: Wang et al. 2022; the same sandwich as `metantk.analytic_metantk`, for kernels that are matrices already.
    """
    theta, inner = float64(theta, "theta"), float64(inner, "inner")
    B, n = tasks, queries
    m = (len(theta) - B * n) // B
    own = jnp.arange(B)
    query_support = inner[: B * n, B * n :].reshape(B, n, B, m)[own, :, own]
    support = inner[B * n :, B * n :].reshape(B, m, B, m)[own, :, own]
    T = adaptation_operator(support, inner_rate=1.0, inner_steps=inner_time, flow=True, ridge=ridge)
    A = query_support @ T

    def subtract(rows):
        return rows[: B * n] - (A @ rows[B * n :].reshape(B, m, -1)).reshape(B * n, -1)

    phi = subtract(subtract(theta).T)
    return (phi + phi.T) / 2


def task_images(tasks: TaskBatch) -> Array:
    """All images of all tasks, queries first: `[B*n + B*m, height, width, colours]`."""
    if not isinstance(tasks, TaskBatch):
        raise bad_input("tasks", "a TaskBatch", type(tasks).__name__, "make one with mlkernels.tasks")
    both = (tasks.query_x, tasks.support_x)
    return jnp.concatenate([x.reshape(-1, *x.shape[2:]) for x in both])


def metantk_kernel(
    kernels: Kernels, tasks: TaskBatch, *, algorithm: str = "maml", inner_time=math.inf, ridge=1e-3
) -> Array:
    """The composite MetaNTK of tasks from `sample_kernels` of `task_images(tasks)`: of queries, `[B*n, B*n]`.

    Args:
        kernels: the NTK and the head's kernel of all images.
        tasks: B tasks.
        algorithm: "maml" or "anil": which kernel the inner loop moves in.
        inner_time, ridge: as in `composite`, on the scale of these kernels.

    Raises:
        InputError: an unknown algorithm; as `composite`.

    Example:
        >>> jax.config.update("jax_enable_x64", True)
        >>> tasks = TaskBatch(*(jnp.ones((2, 3, 4)) for _ in range(4)))
        >>> metantk_kernel(Kernels(jnp.eye(12), jnp.eye(12)), tasks, algorithm="anil").shape
        (6, 6)

    Source: Wang et al. 2022, its code.
    """
    one_of("algorithm", algorithm, ALGORITHMS)
    points = tasks.tasks * (tasks.queries + tasks.support)
    rows = tasks.queries * (len(kernels.ntk) // points)
    inner = kernels.ntk if algorithm == "maml" else kernels.nngp
    check_loop(1.0, inner_time, ridge, True, "inner", called="inner_time")
    return _composite(kernels.ntk, inner, tasks.tasks, rows, inner_time=inner_time, ridge=ridge)


_composite = jax.jit(composite, static_argnames=("tasks", "queries"))


def metantk_score(
    layout: Layout,
    params: dict,
    gates,
    tasks: TaskBatch,
    *,
    algorithm: str = "maml",
    inner_time=math.inf,
    ridge=1e-3,
    outputs: str = "sum",
) -> Score:
    """The condition number of the composite MetaNTK of what gates leave of a super-network: the lower the better.

    Args:
        layout, params, gates, outputs: as in `gram.sample_kernels`. The choice of outputs changes the number.
        tasks: B tasks of images.
        algorithm: "maml" or "anil"; "none" scores the plain NTK over all images of the tasks.
        inner_time: rate times steps in the inner loop, as gradient flow; the reference takes 1000 for infinity.
        ridge: added to the inner kernel's eigenvalues in the inverse, on the scale of that kernel.

    Returns:
        A `Score`.

    Raises:
        InputError: as `sample_kernels` and `metantk_kernel`.

    Example:
        >>> jax.config.update("jax_enable_x64", True)
        >>> from mlkernels.nas.engine.weights import init
        >>> layout = Layout(channels=2, pixels=8, depth=2, ways=2)
        >>> x, y = jax.random.normal(jax.random.key(0), (2, 1, 2, 8, 8, 3)), jnp.eye(2)[None]
        >>> gates = layout.space.open_gates()
        >>> gates[..., 1:] = False
        >>> params = init(layout, key=jax.random.key(1))
        >>> metantk_score(layout, params, gates, TaskBatch(x[0], y, x[1], y)).value > 1
        True

    Source: Wang et al. 2022 (MetaNTK-NAS); Chen et al. 2021 (TE-NAS) for the plain NTK.
    """
    kernels = sample_kernels(layout, params, gates, task_images(tasks), outputs=outputs)
    precision = params["head"][0].dtype
    return score_of(kernels, tasks, algorithm=algorithm, inner_time=inner_time, ridge=ridge, precision=precision)


def score_of(
    kernels: Kernels, tasks: TaskBatch, *, algorithm: str = "maml", inner_time=math.inf, ridge=1e-3, precision
) -> Score:
    """`metantk_score` from kernels that are there already."""
    if not (np.isfinite(kernels.ntk).all() and np.isfinite(kernels.nngp).all()):
        return condition_score(np.full(kernels.ntk.shape, np.nan))
    if algorithm == "none":
        return condition_score(kernels.ntk, precision=precision)
    phi = metantk_kernel(kernels, tasks, algorithm=algorithm, inner_time=inner_time, ridge=ridge)
    return condition_score(phi, precision=precision)


def gradient_norm(layout: Layout, params: dict, gates, tasks: TaskBatch) -> float:
    r"""The norm of the gradient of the mean cross-entropy over all images of the tasks: the larger the better.

    .. math:: \Big\| \tfrac{1}{N} \sum_i \nabla_W \ell_i \Big\| = \sqrt{\mathbf{1}^\top G\, \mathbf{1}}, \qquad
              G_{ij} = \tfrac{1}{N^2} \langle \nabla_W \ell_i, \nabla_W \ell_j \rangle

    Args:
        layout, params, gates: as in `metantk_score`.
        tasks: labels one-hot, as many ways as the layout has.

    Returns:
        The norm, over weights of convolutions and head.

    Raises:
        InputError: labels of another number of ways; as `sample_kernels`.

    Source: Abdelfattah et al. 2021, for the score.
    """
    images = task_images(tasks)
    if tasks.outputs != layout.ways:
        raise bad_input("tasks", f"{layout.ways} ways", tasks.outputs, "make the Layout with as many ways")
    labels = jnp.concatenate([y.reshape(-1, layout.ways) for y in (tasks.query_y, tasks.support_y)])
    chances = jax.nn.softmax(logits(layout, params, gates, images))
    directions = (chances - labels) / len(images)
    G = sample_kernels(layout, params, gates, images, directions=directions).ntk
    return float(np.sqrt(max(float(G.sum()), 0.0)))
