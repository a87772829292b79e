"""Notebook 01: the MetaNTK derived."""

from __future__ import annotations

import numpy as np

from mlkernels.course.cases.exercise import Exercise, by_definition


def _gain(mu, rate, steps):
    """Descent on half the squared residual in one direction, from 0 to a label of 1: what is reached is mu T."""
    reached = np.zeros_like(mu)
    for _ in range(steps):
        reached = reached + rate * mu * (1 - reached)
    return reached / mu


def _equivalent_rate(rate, m):
    """The ratio of both losses' slopes by one residual."""
    residuals, one = np.ones(m), np.eye(m)[0]

    def slope(loss):  # exact, since the losses are quadratic
        return (loss(residuals + one) - loss(residuals - one)) / 2

    return rate * slope(lambda r: np.mean(r**2)) / slope(lambda r: np.sum(r**2) / 2)


def _one_task(qq, qs, ss, A):
    """The kernel of f(x) - A f(X), of queries and support points together."""
    combine = np.hstack([np.eye(len(qq)), -A])
    return combine @ np.block([[qq, qs], [qs.T, ss]]) @ combine.T


def _contraction(kappa):
    """Of all modes between 1 and kappa."""
    rate = 2 / (1 + kappa)
    return np.abs(1 - rate * np.array([1.0, kappa])).max()


_draw = np.random.default_rng(0)
_features, _drawn_A = _draw.normal(size=(9, 12)), _draw.normal(size=(4, 5))
_kernel = _features @ _features.T
_blocks = _kernel[:4, :4], _kernel[:4, 4:], _kernel[4:, 4:]
_first, _two = np.eye(2)[:1], np.array([[1.0, 2.0]])

EXERCISES = {
    "01.1": Exercise(
        "the eigenvalue of T",
        by_definition(
            _gain,
            ((np.array([1.0]), 0.1, 1), "one step moves the output by rate * mu * residual, and T lacks the mu"),
            ((np.array([2.0]), 0.1, 1), "after one step T is the rate, whatever mu is: divide by mu"),
            ((np.array([0.5, 2.0]), 0.1, 3), "each further step sees the residual that is left"),
        ),
    ),
    "01.2": Exercise(
        "the rate of an averaged loss",
        by_definition(
            _equivalent_rate,
            ((0.1, 5), "compare the two gradients"),
            ((1.0, 2), "for two points the losses are the same"),
        ),
    ),
    "01.3": Exercise(
        "the MetaNTK of one task",
        by_definition(
            _one_task,
            ((np.eye(1), 0 * _two, np.eye(2), _first), "the last term is added"),
            (
                (np.zeros((2, 2)), np.eye(2), 0 * np.eye(2), np.array([[0.0, 1.0], [0.0, 0.0]])),
                "both cross terms are subtracted; one is the other's transpose",
            ),
            ((*_blocks, _drawn_A), "four terms, as in (5) with i = j"),
        ),
    ),
    "01.4": Exercise(
        "the best contraction",
        by_definition(
            _contraction,
            ((1.0,), "all modes alike: one step is enough"),
            ((3.0,), "put eta into |1 - eta * lambda|"),
            ((9.0,), "of both extreme eigenvalues, divided by the smaller one"),
        ),
    ),
}
