"""Figures that are shown with their alt text, and the panels that the notebooks draw again and again."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mlkernels.course.plots.style import STYLE
from mlkernels.errors import bad_input

DPI = 160  # of the PNG; it is shown at 96 pixels an inch, so it is sharp on a projector and on a fine screen
SCREEN = 96


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
        >>> from mlkernels.course.plots.style import look
        >>> fig, (left, right) = figure(8, 3, columns=2)
        >>> _ = left.plot([1, 2], [1, 2], **look("ANIL"))
    """
    with matplotlib.rc_context(STYLE):
        fig = Figure(figsize=(width, height), layout="none" if boxes else "constrained")
        FigureCanvasAgg(fig)
        if boxes:
            return fig, [fig.add_axes(box) for box in boxes]
        return fig, fig.subplots(rows, columns, **subplots)


def to_png(fig: Figure, dpi: float = DPI) -> bytes:
    """The figure as PNG, lightly compressed (a third faster, a fifth larger than the default)."""
    file = io.BytesIO()
    fig.savefig(file, format="png", dpi=dpi, pil_kwargs={"compress_level": 1})
    return file.getvalue()


def check_alt(alt: str) -> str:
    """The alt text without space around it, or an InputError where there is none."""
    if not isinstance(alt, str) or not alt.strip():
        raise bad_input(
            "alt", "one or two sentences on what the picture shows", repr(alt), "write them for who cannot see it"
        )
    return " ".join(alt.split())


def show_png(png: bytes, alt: str, width: float) -> None:
    """Show a PNG with its alt text, `width` inches wide."""
    from IPython.display import display

    alt = check_alt(alt)
    size = {"alt": alt, "width": round(width * SCREEN)}
    display({"image/png": png, "text/plain": f"[picture: {alt}]"}, metadata={"image/png": size}, raw=True)


def show(fig: Figure, alt: str, dpi: float = DPI) -> None:
    """Show a figure with its alt text and close it.

    Args:
        fig: any matplotlib figure.
        alt: what the picture shows, for who cannot see it; say the finding, not the colours.
        dpi: pixels an inch of the stored PNG; on the screen it is as wide as the figure's inches.

    Raises:
        InputError: an empty alt text.

    Source: every figure of every notebook.
    """
    check_alt(alt)
    show_png(to_png(fig, dpi), alt, fig.get_figwidth())
    if pyplot := sys.modules.get("matplotlib.pyplot"):
        pyplot.close(fig)  # else the inline backend shows a pyplot figure a second time
