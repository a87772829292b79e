"""Notebook 05: meta-learning in an RKHS."""

from __future__ import annotations

import numpy as np

from mlkernels.course.cases.exercise import Exercise, by_definition


def _learned(eigenvalue, t, rho):
    """The flow's speed along the mode, added up over time."""
    from scipy.integrate import quad

    return quad(lambda s: eigenvalue * np.exp(-s * (eigenvalue + rho)), 0, t)[0]


def _largest_alpha(curvatures):
    """Where the first direction's curvature of L - alpha |grad L|^2 turns negative."""
    from scipy.optimize import brentq

    return brentq(lambda alpha: np.min(curvatures / 2 - alpha * curvatures**2), 0, 1 / np.min(curvatures))


def _linearised(J, j, f_support, f_query, y):
    """The smallest change of the parameters that fits the support."""
    return f_query + j @ np.linalg.lstsq(J, y - f_support)[0]


_J, _j = np.eye(2, 3), np.array([[1.0, 1.0, 1.0], [0.0, 0.0, 5.0]])

EXERCISES = {
    "05.1": Exercise(
        "what a mode learns",
        by_definition(
            _learned,
            ((2.0, 0.5, 0.0), "without a ridge: 1 - exp(-t lambda)"),
            ((2.0, np.inf, 2.0), "at infinite time: lambda / (lambda + rho)"),
            ((1.0, 1.0, 1.0), "the ridge is in the exponent as well"),
        ),
    ),
    "05.2": Exercise(
        "the largest alpha",
        by_definition(
            _largest_alpha,
            ((np.array([1.0]),), "s/2 - alpha s^2 must not be negative"),
            ((np.array([0.1, 4.0]),), "the steepest direction decides"),
        ),
    ),
    "05.3": Exercise(
        "the linearised network",
        by_definition(
            _linearised,
            (
                (_J, _j, np.zeros(2), np.zeros(2), np.array([1.0, 2.0])),
                "what the support does not excite does not move",
            ),
            (
                (2 * _J, _j, np.ones(2), np.array([1.0, 2.0]), np.array([1.0, 3.0])),
                "the residual is y - f(X), and H = J J^T; it is added to f(x)",
            ),
        ),
    ),
    "05.4": Exercise(
        "the same time",
        (
            ((10, 1), 10.0, "the mean loss is n times slower"),
            ((10, 5), 2.0, "the sum kernel is k times as large"),
        ),
    ),
}
