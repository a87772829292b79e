"""The course's look: its style sheet, and one colour, marker and line style a method, the same in every notebook."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

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
