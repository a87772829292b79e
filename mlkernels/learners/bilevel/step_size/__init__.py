"""Tuning the rate of gradient descent: on a quadratic, by two objectives, and on regressions, by two sets of points."""

from mlkernels.learners.bilevel.step_size.quadratic import (
    OBJECTIVES,
    Quadratic,
    backpropagated,
    draw_quadratic,
    objective,
    slope,
)
from mlkernels.learners.bilevel.step_size.regressions import (
    MEASURED_ON,
    Chosen,
    LinearTasks,
    choose_rate,
    descent_filter,
    draw_regressions,
)

__all__ = [
    "MEASURED_ON", "OBJECTIVES", "Chosen", "LinearTasks", "Quadratic", "backpropagated", "choose_rate",
    "descent_filter", "draw_quadratic", "draw_regressions", "objective", "slope",
]  # fmt: skip
