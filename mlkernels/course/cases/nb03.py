"""Notebook 03: the geometry of ANIL's inner loop."""

from __future__ import annotations

import numpy as np

from mlkernels.course.cases.exercise import Exercise, by_definition
from mlkernels.course.cases.similarity import cka_by_gram


def _gradient_by_start(hessian, g, rate, steps):
    """Back through the steps, one by one."""
    for _ in range(steps):
        g = g - rate * hessian @ g
    return g


def _inner_minimum(features, y, beta):
    """Least squares with the ridge as further rows."""
    m, p = features.shape
    rows = np.vstack([np.sqrt(2 / m) * features, np.sqrt(beta) * np.eye(p)])
    return np.linalg.lstsq(rows, np.concatenate([np.sqrt(2 / m) * y, np.zeros(p)]))[0]


def _worst_growth(c, smoothness):
    """It rises with N: its value at a large one."""
    return (1 + c * smoothness / 1e8) ** 1e8


_points = np.random.default_rng(0).normal(size=(30, 3))
_turn = np.array([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
_steep, _ones = np.diag([1.0, 4.0]), np.ones(2)

EXERCISES = {
    "03.1": Exercise(
        "the gradient by the start",
        by_definition(
            _gradient_by_start,
            ((_steep, _ones, 0.25, 3), "the eigenvalue 4 dies in one step at alpha = 1/4"),
            ((_steep, _ones, 0.6, 2), "beyond 2/L = 1/2 a direction grows"),
            (
                (np.array([[2.0, 1.0], [1.0, 2.0]]), np.array([1.0, 0.0]), 0.5, 2),
                "a power of the *matrix* I - alpha H, not of its entries",
            ),
        ),
    ),
    "03.2": Exercise(
        "the inner minimum",
        by_definition(
            _inner_minimum,
            ((np.eye(2), np.array([1.0, 2.0]), 1.0), "set the gradient 2/m Phi^T (Phi w - y) + beta w to zero"),
            ((np.array([[1.0], [1.0]]), np.array([1.0, 3.0]), 2.0), "mind the 2/m"),
            (
                (np.ones((4, 1)), np.array([2.0, 2.0, 4.0, 4.0]), 1.0),
                "2/m stands before both Phi^T Phi and Phi^T y, and not before beta",
            ),
        ),
    ),
    "03.3": Exercise(
        "why 1/N",
        by_definition(
            _worst_growth,
            ((1.0, 1.0), "(1 + x/N)^N rises to a limit"),
            ((0.5, 8.0), "the limit is exp(x)"),
        ),
    ),
    "03.4": Exercise(
        "linear CKA",
        by_definition(
            cka_by_gram,
            ((_points, 2 * _points @ _turn + 1.0), "centre first; a rotation and a scale change nothing"),
            ((_points, _points**2), "square the norm of A^T B, not of the others"),
        ),
    ),
}
