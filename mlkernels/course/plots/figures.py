"""Figures in the course's look, and the panels that the notebooks draw again and again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from jaxtyping import Num
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.colorbar import Colorbar
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from mlkernels.errors import bad_input
from mlkernels.support.intervals import half_width
from mlkernels.support.typed import typed

STYLE = matplotlib.rc_params_from_file(Path(__file__).with_name("mlkernels.mplstyle"), use_default_template=False)
# One look a method in every notebook: (colour, marker, line style). Contrast on white is 3 or more, and no two colours
# meet in the three forms of colour blindness (tests/test_plots.py); marker and line style tell them apart as well.
LOOKS: dict[str, tuple[str, str, Any]] = {
    "MAML": ("#0072B2", "o", "-"),
    "ANIL": ("#D55E00", "s", (0, (5, 1.5))),
    "MetaNTK": ("#7C1480", "D", "-"),
    "NTK": ("#5D5D5D", "^", (0, (1, 1.2))),
    "FOMAML": ("#2D99B6", "v", (0, (5, 1.5, 1, 1.5))),
    "Reptile": ("#7D5614", "P", (0, (3, 1, 1, 1, 1, 1))),
    "iMAML": ("#9C24FC", ">", (0, (1, 2.5))),
    "Meta-RKHS-I": ("#084434", "X", "-"),
    "Meta-RKHS-II": ("#F3207B", "*", (0, (7, 1.5, 2, 1.5))),
    "function space": ("#2418A8", "p", "-"),
    "nearest centroid": ("#878787", "h", (0, (2, 2))),
    "theory": ("#000000", "", "--"),
    "measured": ("#02A550", "o", "-"),
}
COLOURS = {name: look[0] for name, look in LOOKS.items()}
MARKERS = {name: look[1] for name, look in LOOKS.items()}
LINESTYLES = {name: look[2] for name, look in LOOKS.items()}


def use_style() -> None:
    """Set the course's look for every figure of this notebook, those made with pyplot too."""
    matplotlib.rcParams.update(STYLE)


def look(method: str) -> dict[str, Any]:
    """The keyword arguments of a method's line.

    Args:
        method: a name in `LOOKS`.

    Returns:
        color, marker and linestyle, for `Axes.plot`.

    Raises:
        InputError: a method that has no look.

    Example:
        >>> look("MAML")
        {'color': '#0072B2', 'marker': 'o', 'linestyle': '-'}
    """
    if method not in LOOKS:
        raise bad_input("method", f"one of {', '.join(LOOKS)}", repr(method), "choose one of these")
    return dict(zip(("color", "marker", "linestyle"), LOOKS[method], strict=True))


def figure(
    width: float = 6.5,
    height: float = 4.0,
    rows: int = 1,
    columns: int = 1,
    *,
    boxes: Sequence[Sequence[float]] | None = None,
    **subplots,
) -> tuple[Figure, Any]:
    """A figure in the course's look, outside pyplot: it belongs to no notebook state and is shown only by `show`.

    Args:
        width, height: inches.
        rows, columns: number of panels, laid out so that nothing overlaps.
        boxes: instead of rows and columns, each panel's (left, bottom, width, height) as fractions of the figure: for
            demos, where panels must stay where they are and the layout must cost no time.
        subplots: passed to `Figure.subplots` (`sharex`, `width_ratios`, ...).

    Returns:
        The figure, and its axes as `Figure.subplots` gives them; with `boxes` a list of axes.

    Example:
        >>> from mlkernels.course.plots.figures import look
        >>> fig, (left, right) = figure(8, 3, columns=2)
        >>> _ = left.plot([1, 2], [1, 2], **look("ANIL"))
    """
    with matplotlib.rc_context(STYLE):
        fig = Figure(figsize=(width, height), layout="none" if boxes else "constrained")
        FigureCanvasAgg(fig)
        if boxes:
            return fig, [fig.add_axes(box) for box in boxes]
        return fig, fig.subplots(rows, columns, **subplots)


class HeatMap(NamedTuple):
    """What `heatmap` draws."""

    image: AxesImage
    lines: LineCollection
    colorbar: Colorbar | None


@typed
def heatmap(
    ax: Axes,
    matrix: Num[np.ndarray, "rows columns"],
    *,
    blocks: int | tuple[int, int] | None = None,
    limits: tuple[float, float] | None = None,
    centre: float | None = None,
    label: str = "",
    colorbar: bool = True,
) -> HeatMap:
    """A matrix as a picture, with thin lines between the blocks of its tasks and a colour bar.

    Args:
        ax: where.
        matrix: `[rows, columns]`.
        blocks: points a task, or (rows a task, columns a task).
        limits: values at the ends of the colour bar; the matrix's own where None.
        centre: a value with a meaning, as 0 for a difference: then the colours diverge around it.
        label: the colour bar's.
        colorbar: whether to draw one.

    Returns:
        `HeatMap`: the image, the block lines, the colour bar.
    """
    matrix = np.asarray(matrix)
    if matrix.ndim != 2:
        raise bad_input("matrix", "[rows, columns]", f"shape {matrix.shape}", "show one matrix at a time")
    low, high = limits or (float(np.nanmin(matrix)), float(np.nanmax(matrix)))
    cmap, ink = "cividis", "white"
    if centre is not None:
        reach = max(high - centre, centre - low)
        low, high, cmap, ink = centre - reach, centre + reach, "RdBu_r", "#333333"
    image = ax.imshow(matrix, cmap=cmap, vmin=low, vmax=high, interpolation="nearest", aspect="equal")
    ax.set(xticks=[], yticks=[])
    ax.grid(False)
    ax.spines[:].set_visible(False)
    height, width = matrix.shape
    down, across = (blocks, blocks) if isinstance(blocks, int) else blocks or (height, width)
    between = [[(-0.5, r - 0.5), (width - 0.5, r - 0.5)] for r in range(down, height, down)]
    between += [[(c - 0.5, -0.5), (c - 0.5, height - 0.5)] for c in range(across, width, across)]
    lines = ax.add_collection(LineCollection(between, colors=ink, linewidths=0.8), autolim=False)
    bar = None
    if colorbar:
        bar = ax.figure.colorbar(image, cax=ax.inset_axes([1.03, 0, 0.05, 1]), label=label)
        bar.outline.set_visible(False)
    return HeatMap(image, lines, bar)


@typed
def spectrum(ax: Axes, eigenvalues: Num[np.ndarray, " n"], *, method: str = "MetaNTK", label: str = "") -> Line2D:
    """Eigenvalues from the largest to the smallest on a log axis.

    Args:
        ax: where.
        eigenvalues: `[n]` in any order; those not above zero have no place on a log axis and leave a gap.
        method: whose look.
        label: for the legend.

    Returns:
        The line.
    """
    values = np.sort(np.asarray(eigenvalues, dtype=float))[::-1]
    ax.set_yscale("log")
    shown = np.where(values > 0, values, np.nan)
    (line,) = ax.plot(np.arange(1, len(values) + 1), shown, markersize=4, linewidth=1, label=label, **look(method))
    ax.set(xlabel="index", ylabel="eigenvalue", xlim=(0, len(values) + 1))
    return line


@typed
def band(
    ax: Axes,
    x: Num[np.ndarray, " n"],
    ys: Num[np.ndarray, "seeds n"],
    *,
    method: str,
    label: str | None = None,
    level: float = 0.95,
    log: bool = False,
) -> Line2D:
    """The mean over seeds as a line, its confidence interval as a band, and n in the label.

    Args:
        ax: where.
        x: `[n]`.
        ys: `[seeds, n]`.
        method: whose look.
        label: for the legend; the method's name where None.
        level: coverage of the band (Student t at each x).
        log: mean and interval of the logarithm, for quantities that spread by factors.

    Returns:
        The line.

    Example:
        >>> from mlkernels.course.plots.figures import figure
        >>> fig, ax = figure()
        >>> band(ax, [1, 2], [[1, 2], [2, 3], [3, 4]], method="MAML").get_label()
        'MAML, mean and 95 % interval, n = 3'
    """
    ys = np.asarray(ys, dtype=float)
    if ys.ndim != 2 or ys.shape[1] != len(x):
        raise bad_input("ys", f"[seeds, {len(x)}]", f"shape {ys.shape}", "put the seeds first")
    if log and not (ys > 0).all():
        raise bad_input("ys", "positive numbers", "some that are not", "draw with log=False")
    into, back = (np.log, np.exp) if log else (np.asarray, np.asarray)
    mean, n = into(ys).mean(axis=0), len(ys)
    name = label or method
    if n > 1:
        half = half_width(into(ys), level)
        ax.fill_between(x, back(mean - half), back(mean + half), color=COLOURS[method], alpha=0.2, linewidth=0)
        name = f"{name}, mean and {100 * level:g} % interval, n = {n}"
    else:
        name = f"{name}, n = 1"
    (line,) = ax.plot(x, back(mean), label=name, **look(method))
    return line


@typed
def loglog_width(
    ax: Axes,
    widths: Num[np.ndarray, " n"],
    errors: Num[np.ndarray, "seeds n"],
    *,
    method: str,
    label: str | None = None,
    slope: float | None = -0.5,
) -> Line2D:
    """Errors against width on log axes: each seed a dot, the mean with its band, and the theoretical slope dashed.

    Args:
        ax: where.
        widths: `[n]`.
        errors: `[seeds, n]`, positive.
        method: whose look.
        label: for the legend; the method's name where None.
        slope: exponent of the reference line, which starts at the first mean; None draws none.

    Returns:
        The line of means.
    """
    ax.set(xscale="log", yscale="log", xlabel="width", ylabel="relative error")
    line = band(ax, widths, errors, method=method, label=label, log=True)
    for row in np.asarray(errors):
        ax.plot(widths, row, ".", color=COLOURS[method], alpha=0.35, markersize=4)
    ax.set_xticks(widths, [f"{w:g}" for w in widths])
    ax.xaxis.set_minor_locator(NullLocator())
    if slope is not None:
        widths = np.asarray(widths, dtype=float)
        line_of_theory = line.get_ydata()[0] * (widths / widths[0]) ** slope
        ax.plot(widths, line_of_theory, label=f"slope {slope:g}", linewidth=1.2, **look("theory"))
    return line
