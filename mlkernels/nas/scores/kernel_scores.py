"""Scores of architectures that were never trained: the MetaNTK's condition number, and what it has to beat."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from mlkernels.errors import bad_input
from mlkernels.kernels import Kernels
from mlkernels.metantk import all_points
from mlkernels.metantk.composite import composite, task_operators, within_tasks
from mlkernels.metantk.operator import check_loop
from mlkernels.nas.engine.gram import sample_kernels
from mlkernels.nas.engine.supernet import logits
from mlkernels.nas.space.layout import Layout
from mlkernels.support.arguments import one_of
from mlkernels.support.typed import typed
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


@typed
def condition_score(kernel: Float[ArrayLike, "N N"], *, precision=jnp.float64) -> Score:
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


@typed
def metantk_kernel(
    kernels: Kernels, tasks: TaskBatch, *, algorithm: str = "maml", inner_time=math.inf, ridge=1e-3
) -> Float[Array, "N N"]:
    """The composite MetaNTK of tasks from `sample_kernels` of `metantk.all_points(tasks)`: of queries, `[B*n, B*n]`.

    The ridge is added to the inner kernel's eigenvalues in the inverse, on the scale of these kernels.

    Source: Wang et al. 2022, its code.
    """
    one_of("algorithm", algorithm, ALGORITHMS)
    points = tasks.tasks * (tasks.queries + tasks.support)
    rows = tasks.queries * (len(kernels.ntk) // points)
    inner = kernels.ntk if algorithm == "maml" else kernels.nngp
    check_loop(1.0, inner_time, ridge, True, "inner", called="inner_time")
    return _metantk(kernels.ntk, inner, tasks.tasks, rows, inner_time, ridge)


@partial(jax.jit, static_argnames=("tasks", "queries"))
def _metantk(theta: Array, inner: Array, tasks: int, queries: int, inner_time, ridge) -> Array:
    K = within_tasks(inner, tasks, queries)
    return composite(theta, task_operators(K, inner_rate=1.0, inner_steps=inner_time, flow=True, ridge=ridge))


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
    kernels = sample_kernels(layout, params, gates, all_points(tasks), outputs=outputs)
    precision = params["head"][0].dtype
    return score_of(kernels, tasks, algorithm=algorithm, inner_time=inner_time, ridge=ridge, precision=precision)


def score_of(
    kernels: Kernels, tasks: TaskBatch, *, algorithm: str = "maml", inner_time=math.inf, ridge=1e-3, precision
) -> Score:
    """`metantk_score` from kernels that are there already.

    For `algorithm` "none" it is the condition number of the plain NTK over all images (Chen et al. 2021, TE-NAS).
    """
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

    over weights of convolutions and head. Labels are one-hot, of as many ways as the layout has.

    Source: Abdelfattah et al. 2021, for the score.
    """
    images = all_points(tasks)
    if tasks.outputs != layout.ways:
        raise bad_input("tasks", f"{layout.ways} ways", tasks.outputs, "make the Layout with as many ways")
    labels = jnp.concatenate([y.reshape(-1, layout.ways) for y in (tasks.query_y, tasks.support_y)])
    chances = jax.nn.softmax(logits(layout, params, gates, images))
    directions = (chances - labels) / len(images)
    G = sample_kernels(layout, params, gates, images, directions=directions).ntk
    return float(np.sqrt(max(float(G.sum()), 0.0)))
