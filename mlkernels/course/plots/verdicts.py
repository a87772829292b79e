"""A map of verdicts: which claims hold at which points of a grid of parameters."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath
from matplotlib.transforms import Affine2D

from mlkernels.course.claim_records import VERDICTS
from mlkernels.course.plots.figures import figure
from mlkernels.errors import bad_input

# Verdict -> (sign, colour of the cell, colour of the sign). The sign says all that the colour says.
SIGNS = {
    "holds": (VERDICTS["holds"], "#0072B2", "white"),
    "does not hold": (VERDICTS["does not hold"], "#D55E00", "white"),
    "not tested here": (VERDICTS["not tested here"], "#e4e4e4", "#444444"),
    "failed": ("!", "#222222", "white"),
    "not finished": ("…", "white", "#444444"),
}
BLOCK = 40  # points side by side
MOST = 400  # points that are drawn
_CELL = 0.3  # inches
_LETTER = 0.085  # of a label, about
_LONGEST = 20  # letters of a value
_SIGN_FONT = FontProperties(family="DejaVu Sans", weight="bold")


def verdict_map(columns: Mapping[str, Sequence[str]], rows: Mapping[str, Sequence[str]], *, title: str = "") -> Figure:
    """Claims as rows, points as columns: the verdict as a colour and as a sign, the parameters above.

    Args:
        columns: parameter -> its value at each point, as text; those that change slowest first.
        rows: claim -> its verdict at each point: a name in `SIGNS`, or "" where there is none.
        title: of the figure.

    Returns:
        The figure; many points stand in several blocks, and more than `MOST` are left out, which the title says.

    Raises:
        InputError: no row, no point, or as many verdicts as there are no points.

    Example:
        >>> fig = verdict_map({"seed": ["0", "1"]}, {"demo.one": ["holds", "failed"]})
        >>> [text.get_text() for text in fig.axes[0].texts]
        ['seed', '0', '1', 'demo.one']
    """
    count = len(next(iter(columns.values()), ()))
    lengths = {len(each) for each in (*columns.values(), *rows.values())}
    if not count or not rows or lengths != {count}:
        raise bad_input("rows", "as many verdicts as points, at least one", f"{sorted(lengths)}", "give one a point")
    drawn = min(count, MOST)
    blocks = [(start, min(start + BLOCK, drawn)) for start in range(0, drawn, BLOCK)]
    heads = [_head(columns, *block) for block in blocks]
    labels = _LETTER * max(map(len, (*rows, *columns))) + 0.2
    most = max(stop - start for start, stop in blocks)
    said = title + (f": the first {drawn} of {count} points" if drawn < count else "")
    width = max(labels + _CELL * most, _LETTER * 1.3 * len(said), 6.2) + 0.3
    tall = [_CELL * len(rows) + sum(height for height, _ in head) for head in heads]
    height = sum(tall) + 0.35 * len(blocks) + 0.9
    boxes, top = [], height - 0.55
    for (start, stop), inches in zip(blocks, tall, strict=True):
        boxes.append((labels / width, (top - inches) / height, _CELL * (stop - start) / width, inches / height))
        top -= inches + 0.35
    boxes.append((0.15 / width, 0.1 / height, 1 - 0.3 / width, _CELL / height))
    with rc_context({"text.parse_math": False}):  # a value with two dollars is no formula
        fig, axes = figure(width, height, boxes=boxes)
        fig.text(0.15 / width, 1 - 0.15 / height, said, va="top", fontsize=12)
        for ax, (start, stop), head in zip(axes, blocks, heads, strict=False):
            _draw(ax, columns, rows, start, stop, head)
        _legend(axes[-1], {verdict for row in rows.values() for verdict in row[:drawn]}, width - 0.3)
    return fig


def _runs(columns: Mapping[str, Sequence[str]], name: str, start: int, stop: int) -> list[tuple[int, int]]:
    """From where to where the points have the same value of a parameter and of those before it."""
    before = list(columns)[: list(columns).index(name) + 1]
    ends = [start]
    for _, group in itertools.groupby(range(start, stop), key=lambda i: [columns[each][i] for each in before]):
        ends.append(ends[-1] + len(list(group)))
    return list(itertools.pairwise(ends))


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _head(columns: Mapping[str, Sequence[str]], start: int, stop: int) -> list[tuple[float, int]]:
    """For each parameter the height of its line in inches, and the angle of its values: upright where too long."""
    lines = []
    for name, values in columns.items():
        runs = _runs(columns, name, start, stop)
        fits = all(_LETTER * len(_short(values[a])) + 0.05 <= _CELL * (b - a) for a, b in runs)
        longest = max(len(_short(values[a])) for a, _ in runs)
        lines.append((0.25, 0) if fits else (_LETTER * longest + 0.15, 90))
    return lines


def _draw(ax: Axes, columns, rows, start: int, stop: int, head: list[tuple[float, int]]) -> None:
    """One block. In its axes a cell is 1 by 1, rows go down from 0, and the parameters stand above 0."""
    above = sum(height for height, _ in head) / _CELL
    ax.set(xlim=(start, stop), ylim=(len(rows), -above))
    ax.axis("off")
    y, size = -above, 9
    for (name, values), (height, angle) in zip(columns.items(), head, strict=True):
        middle = y + height / _CELL / 2
        ax.text(start - 0.3, middle, name, ha="right", va="center", fontsize=size, color="#444444")
        for a, b in _runs(columns, name, start, stop):
            where = {"ha": "center", "va": "center", "rotation": angle, "fontsize": size}
            ax.text((a + b) / 2, middle, _short(values[a]), **where)
            if b - a > 1:
                ax.plot([a + 0.15, b - 0.15], [y + height / _CELL] * 2, color="#444444", linewidth=0.8)
        y += height / _CELL
    for line, name in enumerate(rows):
        ax.text(start - 0.3, line + 0.5, name, ha="right", va="center", fontsize=size)
    places = [(i, line, row[i]) for line, row in enumerate(rows.values()) for i in range(start, stop)]
    _cells(ax, places)


def _cells(ax: Axes, places: Sequence[tuple[float, float, str]]) -> None:
    """Cells by their left upper corner and their verdict: a collection for each verdict, quick for thousands."""
    for verdict, (sign, colour, ink) in SIGNS.items():
        if here := [(x, y) for x, y, found in places if found == verdict]:
            corners = [
                [(x + a, y + b) for a, b in ((0.04, 0.04), (0.96, 0.04), (0.96, 0.96), (0.04, 0.96))] for x, y in here
            ]
            edge = "#878787" if colour == "white" else "none"
            ax.add_collection(
                PolyCollection(corners, facecolors=colour, edgecolors=edge, linewidths=0.8), autolim=False
            )
            marker = TextPath((0, 0), sign, prop=_SIGN_FONT)
            box = marker.get_extents()
            marker = marker.transformed(Affine2D().translate(-(box.x0 + box.x1) / 2, -(box.y0 + box.y1) / 2))
            x, y = zip(*((x + 0.5, y + 0.5) for x, y in here), strict=True)
            ax.scatter(x, y, s=70 if sign != "…" else 40, marker=marker, color=ink, linewidths=0, zorder=3)


def _legend(ax: Axes, found: set[str], width: float) -> None:
    """The verdicts that occur, in words."""
    ax.set(xlim=(0, width / _CELL), ylim=(1, 0))
    ax.axis("off")
    x = 0.0
    for verdict in SIGNS:
        if verdict in found:
            _cells(ax, [(x, 0, verdict)])
            ax.text(x + 1.2, 0.5, verdict, va="center", fontsize=9)
            x += 1.8 + len(verdict) * _LETTER / _CELL
