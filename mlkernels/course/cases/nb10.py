"""Notebook 10: few iterations."""

from __future__ import annotations

import numpy as np

from mlkernels.course.cases.exercise import Exercise, by_definition


def _best_length(X, W, Y, rho, damping):
    """The lowest point of the parabola that the damped loss is along the step, from three of its points."""
    g = X.T @ (X @ W - Y) + rho**2 * W

    def loss(length):
        w = W - length * g
        return np.sum((X @ w - Y) ** 2) + rho**2 * np.sum(w**2) + damping * length**2 * np.sum(g**2)

    before, here, after = loss(-1), loss(0), loss(1)
    return (before - after) / 2 / (before - 2 * here + after)


def _start_of(a, b, high, low):
    """The shortest solution of both equations."""
    return np.linalg.lstsq(np.stack([a, b]), np.array([high, low]))[0]


def _entropy_by_scores(scores):
    """Differences of the entropy."""
    from scipy.special import entr, softmax

    half = 1e-5 * np.eye(len(scores))
    slopes = [entr(softmax(scores + one)).sum() - entr(softmax(scores - one)).sum() for one in half]
    return np.round(np.array(slopes) / 2e-5, 8) + 0.0  # no -0.


def _small_ridge(X, Y, gamma):
    """By the p x p system."""
    return np.linalg.solve(X.T @ X + gamma * np.eye(X.shape[1]), X.T @ Y)


def _ridge_of_steps(s, eta, t):
    """The steps themselves; what they reach is 1 / (s + gamma)."""
    reached = 0.0
    for _ in range(t):
        reached += eta * (1 - s * reached)
    return 1 / reached - s


_stretched = np.array([[1.0, 0.0], [0.0, 2.0]])
_nothing, _all = np.zeros((2, 1)), np.ones((2, 1))

EXERCISES = {
    "10.1": Exercise(
        "the best length",
        by_definition(
            _best_length,
            ((np.eye(2), _nothing, _all, 0.0, 0.0), "curvature 1 all around"),
            ((_stretched, _nothing, _all, 0.0, 0.0), "g = -(1, 2): 5 / (1 + 16)"),
            ((np.eye(2), _nothing, _all, 2.0, 0.05), "rho enters squared, the damping as it is"),
        ),
    ),
    "10.2": Exercise(
        "two points",
        by_definition(
            _start_of,
            (
                (np.array([1.0, 0.0]), np.array([0.0, 1.0]), 5.0, -5.0),
                "means at right angles do not mind each other",
            ),
            (
                (np.array([1.0, 0.0, 0.0]), np.array([1.0, 1.0, 0.0]), 5.0, -5.0),
                "nothing outside of their plane",
            ),
        ),
    ),
    "10.3": Exercise(
        "an entropy's gradient",
        by_definition(
            _entropy_by_scores,
            ((np.zeros(3),), "undecided: the entropy is at its highest"),
            ((np.array([np.log(3.0), 0.0]),), "-p_j (log p_j + H) with p = (3/4, 1/4)"),
            ((np.array([60.0, 0.0]),), "sure: nothing left to gain"),
        ),
    ),
    "10.4": Exercise(
        "a small system",
        by_definition(
            _small_ridge,
            ((np.array([[2.0, 0.0]]), np.array([[1.0]]), 1.0), "2 / (4 + 1)"),
            ((np.arange(6.0).reshape(2, 3), np.array([[1.0], [-1.0]]), 0.5), "the same as by the p x p system"),
        ),
    ),
    "10.5": Exercise(
        "steps as a ridge",
        by_definition(
            _ridge_of_steps,
            ((1.0, 0.5, 1), "half of the way in one step: 1 / (1 + gamma) = 1/2"),
            ((2.0, 0.25, 2), "a quarter is left after two steps"),
            ((1.0, 1.0, 3), "already there"),
        ),
    ),
}
