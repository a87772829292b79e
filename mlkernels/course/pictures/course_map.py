"""The map of the course: its notebooks as boxes, and what to read first as arrows."""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from mlkernels.course import plots

# notebook -> (column, row, two lines of text)
NOTEBOOKS = {
    "00": (0, 2.5, "Start here", "set-up, a first slider"),
    "01": (1, 2.5, "Derive the MetaNTK", "MAML as a kernel machine"),
    "02": (2, 0.5, "MAML's linear rate", "training loss against theory"),
    "03": (2, 2.5, "ANIL's inner loop", "convex and nonconvex"),
    "04": (3, 0, "MetaNTK-NAS", "search without training"),
    "05": (2, 4.5, "Meta-learning in RKHS", "no inner loop in training"),
    "06": (3, 4, "Function space", "adapt by one solve"),
    "07": (3, 2, "Which weights adapt?", "masks of layers, re-used features"),
    "08": (3, 1, "More inner steps", "moments, memories of tasks"),
    "09": (3, 3, "One bilevel problem", "five hypergradients, noise, steps"),
    "10": (3, 5, "Few iterations", "a head in a handful of steps"),
}
ARROWS = (
    *(("00", "01"), ("01", "02"), ("01", "03"), ("01", "05"), ("02", "04"), ("02", "08")),
    *(("03", "07"), ("03", "09"), ("05", "06"), ("05", "10")),
)
ALT = "Map of the course. " + " ".join(
    f"Notebook {b} {NOTEBOOKS[b][2]} ({NOTEBOOKS[b][3]}) follows {a}." for a, b in ARROWS
)
WIDTH, HEIGHT = 0.226, 0.125  # of a box, in fractions of the figure


def draw() -> Figure:
    """The map of the course.

    Returns:
        A figure, to be shown with `ALT`.

    Example:
        >>> len(draw().axes)
        1
    """
    fig, (ax,) = plots.figure(10, 4.4, boxes=[(0, 0, 1, 1)])
    ax.set(xlim=(0, 1), ylim=(0, 1))
    ax.set_axis_off()
    corner = {n: (0.006 + 0.254 * c, 0.855 - 0.169 * r) for n, (c, r, *_) in NOTEBOOKS.items()}
    for name, (_, _, title, subtitle) in NOTEBOOKS.items():
        x, y = corner[name]
        box = FancyBboxPatch((x, y), WIDTH, HEIGHT, boxstyle="round,pad=0,rounding_size=0.015")
        box.set(facecolor="#EAF3FA", edgecolor=plots.COLOURS["MAML"], linewidth=1.6)
        ax.add_patch(box)
        ax.text(x + 0.012, y + HEIGHT * 0.66, f"{name}  {title}", va="center", fontsize=9.5, fontweight="bold")
        ax.text(x + 0.012, y + HEIGHT * 0.3, subtitle, va="center", fontsize=9, color="#444444")
    for a, b in ARROWS:
        start = (corner[a][0] + WIDTH, corner[a][1] + HEIGHT / 2)
        end = (corner[b][0], corner[b][1] + HEIGHT / 2)
        ax.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=12, color="#444444", linewidth=1.1))
    return fig
