"""Figures that are shown with their alt text, and the panels that the notebooks draw again and again."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mlkernels.errors import bad_input

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
    "Meta-RKHS-I": ("#084434", "X", "-"),
    "Meta-RKHS-II": ("#F3207B", "*", (0, (7, 1.5, 2, 1.5))),
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


def to_png(fig: Figure, dpi: float = DPI) -> bytes:
    """The figure as PNG, lightly compressed (a third faster, a fifth larger than the default)."""
    file = io.BytesIO()
    fig.savefig(file, format="png", dpi=dpi, pil_kwargs={"compress_level": 1})
    return file.getvalue()


def check_alt(alt: str) -> str:
    """The alt text without space around it, or an InputError where there is none."""
    if not isinstance(alt, str) or not alt.strip():
        expected = "one or two sentences on what the picture shows"
        raise bad_input("alt", expected, repr(alt), "write them for who cannot see it")
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
