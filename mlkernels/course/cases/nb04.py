"""Notebook 04: architectures scored by the MetaNTK."""

from __future__ import annotations

import math
from itertools import combinations, product

import numpy as np

from mlkernels.course.cases.exercise import Exercise, by_definition


def _architectures(m, k):
    """Every choice of a node written down; the nodes and the cells choose each for itself."""
    choices = [
        sum(1 for _ in combinations(range(2 + node), 2) for _ in product(range(m), repeat=2)) for node in range(k)
    ]
    return math.prod(choices) ** 2


def _goes(condition, regions):
    """Dense ranks, counted in sorted lists of the values that occur."""
    falls, rises = sorted(set(-condition)), sorted(set(regions))
    return int(np.argmin([falls.index(-c) + rises.index(r) for c, r in zip(condition, regions, strict=True)]))


def _networks(m, edges, repeats):
    """Round by round."""
    scored = 0
    for _ in range(repeats):
        left = m
        while left > 1:
            scored += 1 + edges * left
            left -= 1
    return scored


_changes = [  # changes of the condition number, changes of the regions, hint
    ((0.5, 0.1, -0.2), (-0.3, 0.0, 0.2), "without 0 kappa falls and regions rise"),
    ((0.3, 0.3, 0.1), (0.4, -0.2, 0.4), "ranks 0, 0, 1 and 1, 0, 1: sums 1, 0, 2"),
    ((0.3, 0.1, -0.2), (0.0, 0.1, -0.1), "ranks 0, 1, 2 and 1, 2, 0: sums 1, 3, 2"),
    ((5.0, 0.1, 0.0), (0.02, -0.01, 0.0), "ranks, not sizes: sums 2, 1, 3"),
]

EXERCISES = {
    "04.1": Exercise(
        "the size of the space",
        by_definition(
            _architectures,
            ((1, 1), "one node has two inputs: nothing to choose"),
            ((2, 1), "two edges in each of two cells: 2^4"),
            ((7, 3), "choose inputs at each node, then operations; square the number"),
        ),
    ),
    "04.2": Exercise(
        "an honest condition number",
        (
            ((np.array([2.0, 8.0, 4.0]),), 4.0, "largest over smallest"),
            ((np.array([1.0, -0.5]),), np.inf, "-2 would be the best score of all"),
            ((np.array([1.0, np.nan]),), np.inf, "a spectrum with NaN has no condition number"),
        ),
    ),
    "04.3": Exercise(
        "the rank rule",
        by_definition(_goes, *(((np.array(a), np.array(b)), hint) for a, b, hint in _changes)),
    ),
    "04.4": Exercise(
        "how many networks",
        by_definition(
            _networks,
            ((2, 1, 1), "one round: two candidates and the network itself"),
            ((7, 18, 3), "rounds with 7, 6, ..., 2 operations an edge"),
        ),
    ),
}
