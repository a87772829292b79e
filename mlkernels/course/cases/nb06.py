"""Notebook 06: adaptation in function space."""

from __future__ import annotations

import numpy as np

from mlkernels.course.cases.exercise import Exercise, by_definition


def _left_out_residuals(K, gamma, residual):
    """One fit for each point that is left out."""
    left = []
    for i in range(len(K)):
        rest = np.arange(len(K)) != i
        weights = np.linalg.solve(K[np.ix_(rest, rest)] + gamma * np.eye(rest.sum()), residual[rest])
        left.append(residual[i] - K[i, rest] @ weights)
    return np.array(left)


def _weight_of_first(one, two):
    """The best of many weights."""
    weights = np.linspace(0, 1, 40_001)
    lengths = np.linalg.norm(weights[:, None] * one + (1 - weights[:, None]) * two, axis=1)
    return float(weights[np.argmin(lengths)])


def _by_log_length(square, length):
    """A difference of the kernel between two lengths."""
    half = 1e-5

    def kernel(log_length):
        return np.exp(-square / (2 * np.exp(log_length) ** 2))

    return (kernel(np.log(length) + half) - kernel(np.log(length) - half)) / (2 * half)


def _ridge_head(features, y, new, gamma):
    """Through the kernel."""
    return new @ features.T @ np.linalg.solve(features @ features.T + gamma * np.eye(len(features)), y)


_support, _labels = np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 2.0]]), np.array([1.0, 2.0, 3.0])

EXERCISES = {
    "06.1": Exercise(
        "leave one out",
        by_definition(
            _left_out_residuals,
            ((np.eye(2), 1.0, np.array([1.0, 3.0])), "no kernel between them"),
            (
                (np.array([[2.0, 1.0], [1.0, 2.0]]), 1.0, np.array([3.0, 0.0])),
                "the first predicts 1 / (2 + 1) * 3 = 1 for the second",
            ),
        ),
    ),
    "06.2": Exercise(
        "two gradients",
        by_definition(
            _weight_of_first,
            ((np.array([1.0, 0.0]), np.array([0.0, 1.0])), "equal lengths, right angle: halves"),
            ((np.array([1.0, 0.0]), np.array([-3.0, 0.0])), "opposite: the short one counts more"),
            ((np.array([1.0, 0.0]), np.array([2.0, 1.0])), "the shorter one: w stays within [0, 1]"),
        ),
    ),
    "06.3": Exercise(
        "a length scale",
        by_definition(
            _by_log_length,
            ((0.0, 1.0), "equal points do not care"),
            ((2.0, 1.0), "k times square / l^2"),
            ((2.0, 2.0), "the chain rule takes one l away"),
        ),
    ),
    "06.4": Exercise(
        "the ridge head",
        by_definition(
            _ridge_head,
            ((_support, _labels, np.array([[1.0, 1.0]]), 0.5), "the same as through the kernel, `[m, m]`"),
        ),
    ),
}
