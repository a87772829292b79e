"""The first demo of notebook 04: a cell, edge by edge, and what its MetaNTK says of it before any training.

The network is two normal cells of 4 channels on glyphs of 8x8 pixels: so small that it is scored three times a change,
on other weights and images each time. Each of its blocks is compiled once, for all cells.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np

from mlkernels import datasets
from mlkernels.course import plots
from mlkernels.course.demos.demo import Demo, Stage, choice
from mlkernels.course.demos.grid import Grid
from mlkernels.course.plots.drawings import FAINT, GONE, colour_of, draw_cell, name_of
from mlkernels.kernels import Kernels
from mlkernels.metantk import all_points
from mlkernels.nas import CELL_TYPES, SPACES, Layout, flop_count, parameter_count
from mlkernels.nas.engine.gram import sample_kernels
from mlkernels.nas.engine.weights import init
from mlkernels.nas.pictures.search_images import search_tasks
from mlkernels.nas.scores.kernel_scores import Score, condition_score, metantk_kernel
from mlkernels.tasks import TaskBatch

SPACE = SPACES["darts_fewshot"]
LAYOUT = Layout(SPACE, cells=8, depth=2, channels=4, pixels=8, colours=1)  # of eight cells the first two: both normal
NONE = "none"
OPERATIONS = (*SPACE.operations, NONE)
# setting -> (node, input): the wiring of the first normal cell that the paper's code publishes, and its operations
EDGES = {"edge_1": (0, 0), "edge_2": (0, 1), "edge_3": (1, 1), "edge_4": (1, 2), "edge_5": (2, 0), "edge_6": (2, 2)}
PUBLISHED = dict.fromkeys(EDGES, "sep_conv_3x3") | {"edge_5": "conv_3x3"}
TASKS, DRAWS = 3, 3
LOWEST = 1e-6  # of the eigenvalues' axis


@lru_cache
def problem() -> tuple[tuple[TaskBatch, dict], ...]:
    """Three draws of tasks (three of five glyphs, with one support and one query image each) and of weights."""
    glyphs, found = datasets.load("glyphs"), []
    for number in range(DRAWS):
        images, weights = jax.random.split(jax.random.fold_in(jax.random.key(0), number))
        tasks = search_tasks(glyphs, key=images, pixels=LAYOUT.pixels, tasks=TASKS)
        found.append((tasks, init(LAYOUT, key=weights)))
    return tuple(found)


def gates_of(**operations: str) -> np.ndarray:
    """The gates of a cell, bool `[cell type, edge, operation]`; the reduction cell is not in this network.

    Args:
        operations: by the settings of `EDGES`.

    Example:
        >>> int(gates_of(**PUBLISHED).sum()), int(gates_of(**PUBLISHED | {"edge_1": NONE}).sum())
        (6, 5)
    """
    gates = ~SPACE.open_gates()
    for name, operation in operations.items():
        if operation != NONE:
            gates[CELL_TYPES.index("normal"), SPACE.edges.index(EDGES[name]), OPERATIONS.index(operation)] = True
    return gates


@dataclass(frozen=True)
class Numbers:
    """What one cell gives, in three draws of weights and tasks.

    Args:
        operations: setting -> operation.
        metantk, ntk: `[3, 15]` and `[3, 30]`, the eigenvalues of both kernels, ascending.
        scores, ntk_scores: their condition numbers.
        parameters, flops: of the network without its head.
    """

    operations: dict[str, str]
    metantk: np.ndarray
    ntk: np.ndarray
    scores: tuple[Score, ...]
    ntk_scores: tuple[Score, ...]
    parameters: int
    flops: int


@lru_cache(maxsize=len(OPERATIONS))
def _compiled(operation: str) -> Kernels:
    """The kernels of a cell of this operation alone, at points of zeros: what there is to compile for it."""
    points = jnp.zeros((2 * TASKS * LAYOUT.ways, LAYOUT.pixels, LAYOUT.pixels, LAYOUT.colours), jnp.float32)
    gates = gates_of(**dict.fromkeys(EDGES, operation))
    return sample_kernels(LAYOUT, init(LAYOUT, key=jax.random.key(0)), gates, points)


@lru_cache
def _ready() -> None:
    """Compile the published cell and draw the tasks, at the same time: XLA compiles without Python's lock."""
    with ThreadPoolExecutor(3) as threads:
        drawn = threads.submit(problem)
        kernels = _compiled("skip_connect")  # first what all cells have, lest it be compiled twice
        rest = threads.map(_compiled, {*PUBLISHED.values()})
        metantk_kernel(kernels, drawn.result()[0][0])
        list(rest)


def numbers(**operations: str) -> Numbers:
    """Spectra and condition numbers of both kernels, and the cost, of a network of two such cells.

    Source: Wang et al. 2022 (MetaNTK-NAS); notebooks/04_metantk_nas.
    """
    gates, found = gates_of(**operations), []
    _ready()
    for tasks, params in problem():
        kernels = sample_kernels(LAYOUT, params, gates, all_points(tasks))
        found.append((np.asarray(metantk_kernel(kernels, tasks)), np.asarray(kernels.ntk)))
    phis, ntks = zip(*found, strict=True)
    return Numbers(
        operations=operations,
        metantk=np.linalg.eigvalsh(phis),
        ntk=np.linalg.eigvalsh(ntks),
        scores=tuple(condition_score(phi, precision=jnp.float32) for phi in phis),
        ntk_scores=tuple(condition_score(ntk, precision=jnp.float32) for ntk in ntks),
        parameters=parameter_count(LAYOUT, gates),
        flops=flop_count(LAYOUT, gates),
    )


# --- drawn ------------------------------------------------------------------------------------------------------------


def _stage() -> Stage:
    fig, (left, right) = plots.figure(10.5, 3.6, boxes=[(0.005, 0.01, 0.61, 0.89), (0.69, 0.16, 0.295, 0.68)])
    edges = [(source, 2 + node, NONE) for node, source in EDGES.values()]
    cell = draw_cell(left, "the normal cell", edges, SPACE.nodes)
    images = TASKS * 2 * LAYOUT.ways
    lines = {}
    for name, count, label in (("NTK", images, "NTK Θ"), ("MetaNTK", images // 2, "MetaNTK Φ")):
        lines[name] = [plots.spectrum(right, np.ones(count), method=name) for _ in range(DRAWS)]
        lines[name][0].set_label(label)
        for line in lines[name]:
            line.set(alpha=0.8, markersize=4)
    right.set(xlim=(0, images + 1), ylim=(LOWEST, 2), ylabel="eigenvalue / the largest")
    right.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, fontsize=10)
    notes = [
        right.text(0.03, 0.04 + 0.08 * row, "", transform=right.transAxes, color=plots.COLOURS[name], fontsize=10)
        for row, name in enumerate(("NTK", "MetaNTK"))
    ]
    return Stage(fig, arrows=[*cell.arrows.values()], labels=[*cell.labels.values()], **lines, notes=notes)


def _move(stage: Stage, n: Numbers) -> None:
    for arrow, label, operation in zip(stage["arrows"], stage["labels"], n.operations.values(), strict=True):
        colour = colour_of(operation)
        arrow.set(color=FAINT if operation == NONE else colour, linestyle=":" if operation == NONE else "-")
        label.set(text=operation, color=GONE if operation == NONE else colour)
    for name, spectra in (("MetaNTK", n.metantk), ("NTK", n.ntk)):
        for line, values in zip(stage[name], spectra, strict=True):
            line.set_ydata(np.where(values > 0, values / max(values[-1], 1e-300), np.nan)[::-1])
    for note, symbol, scores in zip(stage["notes"], "ΘΦ", (n.ntk_scores, n.scores), strict=True):
        note.set_text(f"κ({symbol}) = {_spread(scores)}")


def _spread(scores: tuple[Score, ...]) -> str:
    """The median over the draws, and from where to where they go if they differ."""
    low, middle, high = map(_rounded, np.sort([score.value for score in scores]))
    return middle if low == high else f"{middle} ({low} to {high})"


def _rounded(value: float) -> str:
    return "∞" if np.isinf(value) else f"{value:.3g}" if value < 1000 else f"{value:.2g}"


def _readout(n: Numbers) -> str:
    wrong = next((f" · {score.note}" for score in (*n.scores, *n.ntk_scores) if score.note), "")
    return (
        f"score κ(Φ), the lower the better: {_spread(n.scores)} over {DRAWS} draws · plain NTK κ(Θ) "
        f"{_spread(n.ntk_scores)} · {n.parameters} parameters · {n.flops / 1e3:.0f} thousand FLOPs{wrong}"
    )


def _describe(n: Numbers) -> str:
    cell = ", ".join(
        f"{operation} from {name_of(EDGES[name][1])} to {name_of(2 + EDGES[name][0])}"
        for name, operation in n.operations.items()
    )
    return (
        f"A normal cell of six edges: {cell}. Beside it the eigenvalues of its MetaNTK and of its NTK, on a log axis: "
        f"condition numbers {_spread(n.scores)} and {_spread(n.ntk_scores)}."
    )


DEMO = Demo(
    name="cell_editor",
    question="Which operation makes a cell's score worse on every edge, and which differences are smaller than those "
    "between draws?",
    controls=tuple(
        choice(name, f"{name_of(source)} → {node + 1}", OPERATIONS, PUBLISHED[name],
               f"the operation on the edge from {name_of(source)} to node {node + 1}")
        for name, (node, source) in EDGES.items()
    ),
    compute=numbers,
    stage=_stage,
    move=_move,
    describe=_describe,
    readout=_readout,
    twin=(
        {},
        dict.fromkeys(EDGES, "conv_1x5_5x1"),
        dict.fromkeys(EDGES, "skip_connect"),
        dict.fromkeys(EDGES, "max_pool_3x3BN"),
        {"edge_1": NONE},
    ),
    warm=lambda: map(_compiled, OPERATIONS),
    grid=Grid(together=tuple((name,) for name in EDGES)),
)  # fmt: skip
