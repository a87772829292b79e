"""Figures in the course's style, shown with their alt text, and the panels that notebooks draw again and again."""

from mlkernels.course.plots.figures import (
    COLOURS,
    DPI,
    LINESTYLES,
    LOOKS,
    MARKERS,
    SCREEN,
    STYLE,
    HeatMap,
    band,
    check_alt,
    figure,
    heatmap,
    loglog_width,
    look,
    show,
    show_png,
    spectrum,
    to_png,
    use_style,
)

__all__ = [
    "COLOURS", "DPI", "LINESTYLES", "LOOKS", "MARKERS", "SCREEN", "STYLE", "HeatMap", "band", "check_alt",
    "figure", "heatmap", "loglog_width", "look", "show", "show_png", "spectrum", "to_png", "use_style",
]  # fmt: skip
