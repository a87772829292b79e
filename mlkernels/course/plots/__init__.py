"""Figures in the course's style, shown with their alt text, and the panels that notebooks draw again and again."""

from mlkernels.course.plots.figures import (
    COLOURS,
    LINESTYLES,
    LOOKS,
    MARKERS,
    STYLE,
    HeatMap,
    band,
    figure,
    heatmap,
    loglog_width,
    look,
    spectrum,
    use_style,
)
from mlkernels.course.plots.shown import DPI, SCREEN, bundle, check_alt, few_colours, img, show, show_png, to_png

__all__ = [
    "COLOURS", "DPI", "LINESTYLES", "LOOKS", "MARKERS", "SCREEN", "STYLE", "HeatMap", "band", "bundle", "check_alt",
    "few_colours", "figure", "heatmap", "img", "loglog_width", "look", "show", "show_png", "spectrum", "to_png",
    "use_style",
]  # fmt: skip
