"""The panels that the notebooks draw again and again. Reached as `plots.heatmap`, `plots.band`, and so on."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colorbar import Colorbar
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from mlkernels.course.plots.figures import COLOURS, look
from mlkernels.errors import bad_input
from mlkernels.support.intervals import half_width


class HeatMap(NamedTuple):
    """What `heatmap` draws."""

    image: AxesImage
    lines: LineCollection
    colorbar: Colorbar | None


def heatmap(
    ax: Axes,
    matrix: np.ndarray,
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


def spectrum(ax: Axes, eigenvalues: np.ndarray, *, method: str = "MetaNTK", label: str = "") -> Line2D:
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


def band(
    ax: Axes,
    x: np.ndarray,
    ys: np.ndarray,
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


def loglog_width(
    ax: Axes,
    widths: np.ndarray,
    errors: np.ndarray,
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
