"""Drawings of cells: which operations lead from where to where."""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch

from mlkernels.nas.space import CELL_TYPES, Genotype, Space
from mlkernels.plots import figure

# One colour a family of operations; the label beside the arrow tells them apart as well.
FAMILIES = {
    "skip": "#5D5D5D",
    "sep": "#0072B2",
    "dil": "#7C1480",
    "conv": "#D55E00",
    "max": "#2D8B4E",
    "avg": "#7D5614",
}
BOX = {"boxstyle": "round,pad=0.35", "facecolor": "white", "edgecolor": "black"}
NAMES = ("normal cell", "reduction cell")
HEIGHTS = (-0.35, 1.5, -1.5, 0.55)  # of the nodes: no straight arrow crosses a node


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
        InputError: gates of another shape.

    Example:
        >>> from mlkernels.nas.space import SPACES
        >>> space = SPACES["darts_fewshot"]
        >>> len(draw_gates(space, space.open_gates()).axes)
        2

    Source: notebooks/04_metantk_nas.
    """
    cells = []
    for kind in space.check_gates(gates):
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
            f"node {node} adds " + " and ".join(f"{operation} of {_name(source)}" for operation, source in chosen)
            for node, chosen in enumerate(cell, 1)
        ]
        cells.append(f"{name.capitalize()}: {'; '.join(nodes)}.")
    return f"Two cells. {' '.join(cells)}"


def _name(state: int) -> str:
    return f"input {state + 1}" if state < 2 else f"node {state - 1}"


def _colour(operation: str) -> str:
    return next((colour for start, colour in FAMILIES.items() if operation.startswith(start)), "#000000")


def _draw(cells: list[list[tuple[int, int, str]]], nodes: int) -> Figure:
    fig, axes = figure(8.5, 3.4 * len(CELL_TYPES), rows=len(CELL_TYPES))
    for ax, name, edges in zip(axes, NAMES, cells, strict=True):
        places = {0: (0.0, 1.0), 1: (0.0, -1.0)}
        places |= {2 + node: (1.6 * (node + 1), HEIGHTS[node % len(HEIGHTS)]) for node in range(nodes)}
        end = (1.6 * (nodes + 1), 0.0)
        for source, target, operation in edges:
            _arrow(ax, places[source], places[target], _colour(operation), operation)
        for state in range(2, 2 + nodes):
            _arrow(ax, places[state], end, "#BBBBBB")
        for state, place in places.items():
            ax.annotate(_name(state), place, ha="center", va="center", bbox=BOX, zorder=4)
        ax.annotate("output", end, ha="center", va="center", bbox=BOX, zorder=4)
        ax.set(title=name, xlim=(-0.6, end[0] + 0.6), ylim=(-1.9, 1.9))
        ax.set_axis_off()
    return fig


def _arrow(ax, start, stop, colour: str, label: str = "") -> None:
    style = {"arrowstyle": "-|>", "mutation_scale": 12, "shrinkA": 24, "shrinkB": 24, "linewidth": 1.5, "zorder": 1}
    ax.add_patch(FancyArrowPatch(start, stop, color=colour, **style))
    if label:
        (x1, y1), (x2, y2) = start, stop
        middle = 0.55 * x1 + 0.45 * x2, 0.55 * y1 + 0.45 * y2
        behind = {"boxstyle": "round,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.85}
        ax.annotate(label, middle, ha="center", va="center", color=colour, fontsize=8, bbox=behind, zorder=3)
