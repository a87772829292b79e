"""The map of the course: its notebooks as boxes, and what to read first as arrows."""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from mlkernels.course import plots

# notebook -> (column, row, two lines of text, ready)
NOTEBOOKS = {
    "00": (0, 1, "Start here", "set-up, a first slider", True),
    "01": (1, 1, "Derive the MetaNTK", "MAML as a kernel machine", True),
    "02": (2, 0, "MAML's linear rate", "training loss against theory", True),
    "03": (2, 1, "ANIL's inner loop", "convex and nonconvex", True),
    "04": (3, 0, "MetaNTK-NAS", "search without training", True),
    "05": (2, 2, "Meta-learning in RKHS", "no inner loop in training", True),
    "06": (3, 2, "Function space", "adapt by one solve", True),
}
ARROWS = (("00", "01"), ("01", "02"), ("01", "03"), ("02", "04"), ("01", "05"), ("05", "06"))
ALT = "Map of the course. " + " ".join(
    f"Notebook {b} {NOTEBOOKS[b][2]} ({NOTEBOOKS[b][3]}{'' if NOTEBOOKS[b][4] else ', to come'}) follows {a}."
    for a, b in ARROWS
)
WIDTH, HEIGHT = 0.226, 0.22  # of a box, in fractions of the figure


def draw() -> Figure:
    """The map; notebooks that are still to be written have a dashed frame.

    Returns:
        A figure, to be shown with `ALT`.

    Example:
        >>> len(draw().axes)
        1
    """
    fig, (ax,) = plots.figure(9.5, 3.3, boxes=[(0, 0, 1, 1)])
    ax.set(xlim=(0, 1), ylim=(0, 1))
    ax.set_axis_off()
    corner = {n: (0.008 + 0.2525 * c, 0.72 - 0.335 * r) for n, (c, r, *_) in NOTEBOOKS.items()}
    for name, (_, _, title, subtitle, ready) in NOTEBOOKS.items():
        x, y = corner[name]
        ink = plots.COLOURS["MAML"] if ready else "#777777"
        box = FancyBboxPatch((x, y), WIDTH, HEIGHT, boxstyle="round,pad=0,rounding_size=0.015")
        box.set(facecolor="#EAF3FA" if ready else "white", edgecolor=ink, linestyle="-" if ready else "--")
        box.set_linewidth(1.6 if ready else 1.0)
        ax.add_patch(box)
        ax.text(x + 0.012, y + HEIGHT * 0.66, f"{name}  {title}", va="center", fontsize=9.5, fontweight="bold")
        ax.text(x + 0.012, y + HEIGHT * 0.3, subtitle, va="center", fontsize=9, color="#444444")
    for a, b in ARROWS:
        start = (corner[a][0] + WIDTH, corner[a][1] + HEIGHT / 2)
        end = (corner[b][0], corner[b][1] + HEIGHT / 2)
        ax.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=12, color="#444444", linewidth=1.1))
    return fig
