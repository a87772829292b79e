"""Explorers of demos: with sliders, and as pictures where no kernel runs."""

from mlkernels.course.widgets.explorer import Explorer, explore
from mlkernels.course.widgets.static_twin import twin

__all__ = ["Explorer", "explore", "twin"]
