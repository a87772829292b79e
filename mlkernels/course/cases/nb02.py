"""Notebook 02: the rate of MAML on a linearised network."""

from __future__ import annotations

import numpy as np

from mlkernels.course.cases.exercise import Exercise, by_definition


def _steps_needed(eigenvalue, rate, factor):
    """Where the loss of the mode, (1 - rate * eigenvalue)^(2 t), crosses 1 / factor."""
    from scipy.optimize import brentq

    return brentq(lambda t: factor * (1 - rate * eigenvalue) ** (2 * t) - 1, 0, 1e6, xtol=1e-12)


def _best_rate(smallest, largest):
    """The rate at which the slower of the extreme modes is fastest, by search."""
    from scipy.optimize import minimize_scalar

    def slower(rate):
        return max(abs(1 - rate * smallest), abs(1 - rate * largest))

    found = minimize_scalar(slower, bounds=(0, 2 / largest), method="bounded", options={"xatol": 1e-10})
    return np.round([found.x, found.fun], 8)


def _shifted_labels(labels, outputs_at_start):
    """f minus the residual of f - f_0, at any f."""
    f = np.zeros_like(labels)
    return f - ((f - outputs_at_start) - labels)


def _looseness():
    """Logarithms of what one step leaves, by (2) over by (1), at a small eta * lambda."""
    small = 1e-6
    return round(np.log1p(-small) / np.log1p(-small / 3))


EXERCISES = {
    "02.1": Exercise(
        "steps to fall by a factor",
        by_definition(
            _steps_needed,
            ((1.0, 0.5, 4.0), "with 1 - eta * lambda = 1/2 one step divides the loss by four"),
            ((0.1, 1.0, 1000.0), "take logarithms of both sides"),
        ),
    ),
    "02.2": Exercise(
        "the best rate",
        by_definition(
            _best_rate,
            ((1.0, 3.0), "the modes of both extreme eigenvalues must shrink by the same factor"),
            ((1.0, 7.0), "put the rate into |1 - rate * smallest|"),
            ((2.0, 6.0), "twice the eigenvalues, half the rate, the same factor"),
        ),
    ),
    "02.3": Exercise(
        "centred outputs",
        by_definition(
            _shifted_labels,
            ((np.array([1.0, -1.0]), np.array([0.5, 0.5])), "compare the two residuals"),
        ),
    ),
    "02.4": Exercise("how loose the bound is", by_definition(_looseness, ((), "log(1 - x) is about -x"))),
}
