"""A drawing of a whole search at once: what went on each edge in each round, and what is left."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from mlkernels.course.plots.drawings import GONE, NAMES, colour_of
from mlkernels.course.plots.figures import figure
from mlkernels.nas import CELL_TYPES, SHORT, Space, compared, replay


def draw_pruning(log: Sequence[dict], space: Space) -> Figure:
    """What went on each edge in each round of a recorded search, finished or not: a panel a cell, a row an edge.

    Framed are the decisions that every repeat alone would take; the last column has what is left, grey where the edge
    went in the end.

    Args:
        log: the lines of `log.jsonl`, as dicts.
        space: the search space.

    Returns:
        A figure; show it with `plots.show(fig, description)`.

    Raises:
        InputError: as `nas.compared`.

    Source: notebooks/04_metantk_nas.
    """
    rounds, states = compared(log, space), replay(log, space)
    of_operations = [each for each in rounds if each.candidates[0][2] is not None]
    last = len(space.operations)  # the column of what is left
    fig, axes = figure(1.6 + 1.15 * last, 1.1 + 0.3 * len(space.edges), columns=len(CELL_TYPES))
    for kind, (ax, title) in enumerate(zip(axes, NAMES, strict=True)):
        ax.set(xlim=(0.5, last + 0.5), ylim=(len(space.edges) - 0.5, -0.5), title=title, xlabel="round")
        ax.set_xticks(range(1, last + 1), [*map(str, range(1, last)), "left"])
        names = [f"{source} to {2 + node}" for node, source in space.edges]
        ax.set_yticks(range(len(names)), names)
        ax.tick_params(length=0)
        ax.grid(False)
        for side in ax.spines.values():
            side.set_visible(False)
        for found in of_operations:
            alone = [set(found.decided([repeat])) for repeat in range(found.repeats)]
            for candidate in found.decided():
                if candidate[0] == kind:
                    sure = found.repeats > 1 and all(candidate in each for each in alone)
                    _box(ax, found.number, candidate[1], space.operations[candidate[2]], sure=sure)
        for edge in range(len(space.edges)):
            single = [gates[kind, edge] for gates in states if gates[kind, edge].sum() == 1]
            if single and len(of_operations) == last - 1:
                stays = states[-1][kind, edge].any()
                _box(ax, last, edge, space.operations[int(single[0].argmax())], gone=not stays)
    axes[0].set_ylabel("edge: from, to node")
    return fig


def _box(ax, column: int, row: int, operation: str, *, sure: bool = False, gone: bool = False) -> None:
    frame = {"edgecolor": "black", "linewidth": 1.4} if sure else {"edgecolor": "white", "linewidth": 1}
    inside, colour = ("none", GONE) if gone else (f"{colour_of(operation)}33", "black")
    ax.add_patch(Rectangle((column - 0.46, row - 0.42), 0.92, 0.84, facecolor=inside, **frame))
    ax.text(column, row, SHORT[operation], ha="center", va="center", color=colour, fontsize=9)
