"""Notebook 07: which weights adapt."""

from __future__ import annotations

import numpy as np

from mlkernels.course.cases.exercise import Exercise, by_definition
from mlkernels.course.cases.similarity import cka_by_gram


def _mask_cost(mask, f):
    """Product by product: forward, the signal back to the first layer that moves, the gradients of those that do."""
    moved = [layer for layer in range(len(f)) if mask[layer]]
    if not moved:
        return 0.0
    products = [*range(len(f)), *range(len(f) - 1, moved[0], -1), *moved]
    return float(sum(f[layer] for layer in products))


def _on_front(costs, scores):
    """Each against each other."""
    pairs = list(zip(costs, scores, strict=True))
    return np.array([not any(c <= a and s >= b and (c, s) != (a, b) for c, s in pairs) for a, b in pairs])


def _dcca(a, b):
    """The mean cosine of the angles between both spans, from one."""
    from scipy.linalg import orth, subspace_angles

    one, two = (orth(part - part.mean(0), rcond=1e-6) for part in (a, b))
    return np.round(1 - np.cos(subspace_angles(one, two)).mean(), 8)


_ops = np.array([5.0, 3.0, 1.0])
_square = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
_line = np.linspace(-1, 1, 50)[:, None]
_lines = _line @ np.ones((1, 4))

EXERCISES = {
    "07.1": Exercise(
        "the cost of a mask",
        by_definition(
            _mask_cost,
            ((np.array([False, False, True]), _ops), "forward 9, and the head's gradient 1"),
            ((np.array([True, True, True]), _ops), "three products a layer, but two for the first"),
            (
                (np.array([True, False, False]), _ops),
                "forward 9, the signal through the two layers above 4, one gradient 5",
            ),
            ((np.array([False, False, False]), _ops), "nothing to update: no step at all"),
        ),
    ),
    "07.2": Exercise(
        "the front",
        by_definition(
            _on_front,
            (
                (np.array([1.0, 2.0, 3.0]), np.array([0.5, 0.4, 0.9])),
                "the second costs more than the first and is worse",
            ),
            ((np.array([1.0, 1.0]), np.array([0.5, 0.5])), "two that are equal do not beat each other"),
            ((np.array([1.0, 1.0]), np.array([0.5, 0.6])), "as cheap and better: that beats"),
        ),
    ),
    "07.3": Exercise(
        "linear CKA",
        by_definition(
            cka_by_gram,
            ((_square, 3 * _square[:, ::-1] + 7), "a rotation, a scale and a shift change nothing"),
            ((_square, _square[:, :1]), "one of two directions"),
            ((_square[:, :1], _square[:, 1:]), "nothing in common"),
        ),
    ),
    "07.4": Exercise(
        "dCCA",
        by_definition(
            _dcca,
            ((_lines, 3 * _lines - 1), "rank one, the same line"),
            ((_line, _line**2), "odd and even functions have nothing in common"),
            ((np.hstack([_line, _line**2]), _line), "all of the smaller span is in the larger: r is 1"),
        ),
        atol=1e-4,
    ),
}
