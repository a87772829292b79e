"""The rank rule on tables made by hand, with ties."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mlkernels.errors import InputError
from mlkernels.nas import SPACES, Space
from mlkernels.nas.searching.ranking import (
    choose,
    dense_ranks,
    edges_left,
    operations_left,
    rank_sums,
    relative_change,
    without,
)

SPACE = Space("by hand", ("a", "b", "c"), 2)


def test_relative_changes_and_those_of_bad_scores():
    assert relative_change(4, 5) == -0.25
    assert relative_change(math.inf, 3) == 1
    assert relative_change(3, math.inf) == -math.inf
    assert relative_change(math.inf, math.inf) == 0
    assert relative_change(0, 0) == 0


@pytest.mark.parametrize(
    ("means", "descending", "expected"),
    [
        ([0.3, 0.1, 0.2], True, [0, 2, 1]),
        ([0.3, 0.1, 0.2], False, [2, 0, 1]),
        ([0.1, 0.1, 0.1], True, [0, 0, 0]),
        ([0.2, 0.1, 0.2, 0.1, 0.0], True, [0, 1, 0, 1, 2]),  # dense: no rank is left out after a tie
        ([-0.5, -math.inf, 1.0], True, [1, 2, 0]),
        ([0.0, -0.0], True, [0, 0]),
    ],
)
def test_ranks(means, descending, expected):
    assert dense_ranks([[mean] for mean in means], descending=descending).tolist() == expected


def test_each_change_is_rounded_before_the_mean():
    """0.1004 and 0.0996 are both 0.100; so are their means with what they were rounded to."""
    assert dense_ranks([[0.1004, 0.2], [0.0996, 0.2]], descending=True).tolist() == [0, 0]
    assert dense_ranks([[0.1006, 0.2], [0.0996, 0.2]], descending=True).tolist() == [0, 1]


def test_equal_significant_digits_with_other_means_keep_their_order_and_differ_in_rank():
    """Means 1.2340 and 1.2345 sort as 1.23 both: the first stays first, and yet the ranks differ."""
    table = [[1.234, 1.234], [1.235, 1.234], [1.234, 1.234]]
    assert dense_ranks(table, descending=True).tolist() == [0, 1, 2]
    assert dense_ranks(table, descending=False).tolist() == [0, 1, 2]


def test_sums_of_two_ranks():
    condition, regions = [[0.2], [0.1], [-0.1]], [[0.3], [-0.2], [-0.2]]
    sums, by_condition, by_regions = rank_sums(condition, regions)
    assert by_condition.tolist() == [0, 1, 2]
    assert by_regions.tolist() == [1, 0, 0]
    assert sums.tolist() == [1, 1, 2]
    assert rank_sums(condition, None)[0].tolist() == [0, 1, 2]
    with pytest.raises(InputError, match="scores: expected the condition number, the regions or both"):
        rank_sums(None, None)
    for bad in ([[math.nan]], [], [0.1]):
        with pytest.raises(InputError, match="changes: expected"):
            rank_sums(bad, None)


def test_one_operation_an_edge_goes_and_of_equal_ones_the_first():
    gates = SPACE.open_gates()
    gates[0, 1] = [True, False, False]  # nothing to choose there
    gates[1] = False
    gates[1, 0] = [True, True, False]
    candidates = operations_left(gates)
    assert candidates == [(0, e, o) for e in (0, 2, 3, 4) for o in range(3)] + [(1, 0, 0), (1, 0, 1)]
    sums = [5, 1, 1, 2, 2, 2, 0, 9, 0, 4, 3, 9, 7, 6]
    assert choose(SPACE, gates, candidates, sums) == [(0, 3, 0), (0, 0, 1), (0, 2, 0), (0, 4, 1), (1, 0, 1)]
    sums[6] = 3
    assert choose(SPACE, gates, candidates, sums)[0] == (0, 3, 2)


def test_each_node_keeps_the_two_edges_of_the_largest_sums():
    space = SPACES["darts_fewshot"]
    gates = space.open_gates() & (np.arange(7) == 3)
    candidates = edges_left(space, gates)
    assert candidates == [(kind, edge, None) for kind in range(2) for edge in range(2, 9)]
    sums = [3, 1, 2, 9, 8, 8, 9, 0, 0, 0, 5, 4, 3, 2]
    going = choose(space, gates, candidates, sums)
    for one in going:
        gates = without(gates, one)
    assert [edge for kind, edge, _ in going if kind == 0] == [3, 6, 7]
    assert [edge for kind, edge, _ in going if kind == 1] == [2, 8, 7]
    assert space.genotype_of(gates).nodes == 3


def test_nothing_is_left_to_choose_in_an_architecture():
    space = SPACES["darts_fewshot"]
    gates = space.open_gates() & False
    for node in range(space.nodes):
        gates[:, list(space.into(node))[-2:], 1] = True
    assert operations_left(gates) == edges_left(space, gates) == []
