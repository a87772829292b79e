"""Drawings of cells: which operations lead from where to where."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch
from matplotlib.text import Annotation

from mlkernels.course.plots.figures import figure
from mlkernels.nas.space.genotype import CELL_TYPES, Genotype
from mlkernels.nas.space.search_space import Space, check_space

# One colour a family of operations; the label beside the arrow tells them apart as well.
FAMILIES = {
    "skip": "#5D5D5D",
    "sep": "#0072B2",
    "dil": "#7C1480",
    "conv": "#D55E00",
    "max": "#2D8B4E",
    "avg": "#7D5614",
}
BEHIND = {"boxstyle": "round,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.85}
LABEL = {"ha": "center", "va": "center", "fontsize": 8, "bbox": BEHIND, "zorder": 3}
FAINT = "#BBBBBB"
GONE = "#767676"  # a text as faint as can still be read
BOX = {"boxstyle": "round,pad=0.35", "facecolor": "white", "edgecolor": "black"}
NAMES = ("normal cell", "reduction cell")
HEIGHTS = (-0.35, 1.5, -1.5, 0.55)  # of the nodes: no straight arrow crosses a node
MIDDLE = 0.45  # where on its way an edge has its label, but for edges (source, target) that meet others there
ELSEWHERE = {(1, 3): 0.27, (0, 4): 0.6, (3, 4): 0.35, (1, 5): 0.5}


def draw_genotype(genotype: Genotype) -> Figure:
    """Both cells of an architecture: inputs on the left, nodes in the middle, what they make on the right.

    Args:
        genotype: the architecture.

    Returns:
        A figure, one panel a cell; show it with `plots.show(fig, describe(genotype))`.

    Example:
        >>> genotype = Genotype.parse("N: s3<0 s3<1 | s3<1 mp<2 R: sk<0 s3<1 | f5<1 d3<2")
        >>> len(draw_genotype(genotype).axes)
        2

    Source: notebooks/04_metantk_nas.
    """
    cells = [
        [(source, 2 + node, operation) for node, chosen in enumerate(cell) for operation, source in chosen]
        for cell in (genotype.normal, genotype.reduce)
    ]
    return _draw(cells, genotype.nodes)


def draw_gates(space: Space, gates) -> Figure:
    """Both cells of a super-network: on each edge the operation that is left, or how many are.

    Args:
        space: the search space.
        gates: bool `[cell type, edge, operation]`.

    Returns:
        A figure, one panel a cell; edges without operations are left out.

    Raises:
        InputError: gates of another shape; what is no `Space`.

    Example:
        >>> from mlkernels.nas.space.search_space import SPACES
        >>> space = SPACES["darts_fewshot"]
        >>> len(draw_gates(space, space.open_gates()).axes)
        2

    Source: notebooks/04_metantk_nas.
    """
    cells = []
    for kind in check_space(space).check_gates(gates):
        live = [(edge, [space.operations[op] for op in row.nonzero()[0]]) for edge, row in enumerate(kind) if row.any()]
        labels = [(edge, names[0] if len(names) == 1 else f"{len(names)} operations") for edge, names in live]
        cells.append([(space.edges[edge][1], 2 + space.edges[edge][0], label) for edge, label in labels])
    return _draw(cells, space.nodes)


def describe(genotype: Genotype) -> str:
    """An architecture in words, as alt text of its drawing.

    Example:
        >>> describe(Genotype.parse("N: s3<0 s3<1 R: sk<0 s3<1"))
        'Two cells. Normal cell: node 1 adds sep_conv_3x3 of input 1 and sep_conv_3x3 of input 2. Reduction cell: node 1
        adds skip_connect of input 1 and sep_conv_3x3 of input 2.'
    """
    cells = []
    for name, cell in zip(NAMES, (genotype.normal, genotype.reduce), strict=True):
        nodes = [
            f"node {node} adds " + " and ".join(f"{operation} of {name_of(source)}" for operation, source in chosen)
            for node, chosen in enumerate(cell, 1)
        ]
        cells.append(f"{name.capitalize()}: {'; '.join(nodes)}.")
    return f"Two cells. {' '.join(cells)}"


def name_of(state: int) -> str:
    """A cell's input or node in words.

    Example:
        >>> name_of(1), name_of(2)
        ('input 2', 'node 1')
    """
    return f"input {state + 1}" if state < 2 else f"node {state - 1}"


def colour_of(operation: str) -> str:
    """The colour of an operation's family; black for what is none."""
    return next((colour for start, colour in FAMILIES.items() if operation.startswith(start)), "#000000")


class CellDrawing(NamedTuple):
    """The arrows and the labels that `draw_cell` draws, each under its (source, target)."""

    arrows: dict[tuple[int, int], FancyArrowPatch]
    labels: dict[tuple[int, int], Annotation]


def draw_cell(ax: Axes, name: str, edges: Iterable[tuple[int, int, str]], nodes: int) -> CellDrawing:
    """A cell: inputs on the left, nodes in the middle, what they make on the right, its name for a title.

    Edges are `(source, target, operation)`; states 0 and 1 are the cell's inputs, 2 and up its nodes.
    """
    places, end = places_of(nodes), (2.0 + 1.6 * nodes, 0.0)
    arrows, labels = {}, {}
    for source, target, operation in edges:
        ends = places[source], places[target]
        arrows[source, target] = _arrow(ax, *ends, colour_of(operation))
        middle = along(source, target, nodes)
        labels[source, target] = ax.annotate(operation, middle, color=colour_of(operation), **LABEL)
    for state in range(2, 2 + nodes):
        _arrow(ax, places[state], end, FAINT)
    for state, place in places.items():
        ax.annotate(name_of(state), place, ha="center", va="center", bbox=BOX, zorder=4)
    ax.annotate("output", end, ha="center", va="center", bbox=BOX, zorder=4)
    ax.set(title=name, xlim=(-0.6, end[0] + 0.6), ylim=(-1.9, 1.9))
    ax.set_axis_off()
    return CellDrawing(arrows, labels)


def places_of(nodes: int) -> dict[int, tuple[float, float]]:
    """Where a cell's states are drawn, the inputs first."""
    return {0: (0.0, 1.0), 1: (0.0, -1.0)} | {
        2 + node: (2.0 + 1.6 * node, HEIGHTS[node % len(HEIGHTS)]) for node in range(nodes)
    }


def along(source: int, target: int, nodes: int, ahead: float = 0.0) -> tuple[float, float]:
    """Where an edge has its label, or a place so far ahead of it on the edge.

    Example:
        >>> along(0, 2, 1)[0], along(0, 2, 1, ahead=0.5)[0] > 1.3
        (0.9, True)
    """
    places = places_of(nodes)
    (x, y), stop = places[source], places[target]
    across, up = stop[0] - x, stop[1] - y
    share = ELSEWHERE.get((source, target), MIDDLE) + ahead / math.hypot(across, up)
    return x + share * across, y + share * up


def _draw(cells: list[list[tuple[int, int, str]]], nodes: int) -> Figure:
    fig, axes = figure(8.5, 3.4 * len(CELL_TYPES), rows=len(CELL_TYPES))
    for ax, name, edges in zip(axes, NAMES, cells, strict=True):
        draw_cell(ax, name, edges, nodes)
    return fig


def _arrow(ax, start, stop, colour: str) -> FancyArrowPatch:
    style = {"arrowstyle": "-|>", "mutation_scale": 12, "shrinkA": 24, "shrinkB": 24, "linewidth": 1.5, "zorder": 1}
    return ax.add_patch(FancyArrowPatch(start, stop, color=colour, **style))
