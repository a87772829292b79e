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
    sort_key,
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


def test_keys_are_cut_off_as_numpy_rounds():
    """By scaling, with 1e-8 added before; a format to as many digits rounds halves by their binary remainder."""
    assert [sort_key(mean, 3) for mean in (0.1235, -0.1235, 0.0125, 0.0, 12.34)] == [0.124, -0.124, 0.0125, 0.0, 12.3]
    assert sort_key(0.1225, 3) == sort_key(0.1234, 3) == 0.123
    assert (sort_key(math.inf, 3), sort_key(-math.inf, 3)) == (math.inf, -math.inf)
    rng = np.random.default_rng(0)
    for mean in np.round(rng.normal(0, 0.3, (2000, 2)), 3).mean(1):  # means of two changes: halves are frequent
        power = 10.0 ** (math.floor(math.log10(abs(mean) + 1e-8)) + 1) if mean else 1.0
        expected = np.sign(mean) * np.floor((abs(mean) + 1e-8) / power * 1000 + 0.5) / 1000 * power
        assert sort_key(mean, 3) == pytest.approx(expected, rel=1e-12)


def test_ranks_by_these_keys():
    """0.1225 and 0.123 have one key, 0.123, and stay in their order; formatted, the first were 0.122 and came after."""
    table = [[0.122, 0.123], [0.123, 0.123]]
    assert dense_ranks(table, descending=True).tolist() == [0, 1]
    assert dense_ranks(table, descending=False).tolist() == [0, 1]


def test_one_operation_an_edge_goes_and_of_equal_ones_the_first():
    gates = SPACE.open_gates()
    gates[0, 1] = [True, False, False]  # nothing to choose there
    gates[1] = False
    gates[1, 0] = [True, True, False]
    candidates = operations_left(gates)
    assert candidates == [(0, e, o) for e in (0, 2, 3, 4) for o in range(3)] + [(1, 0, 0), (1, 0, 1)]
    sums = [5, 1, 1, 2, 2, 2, 0, 9, 0, 4, 3, 9, 7, 6]
    assert choose(candidates, sums) == [(0, 3, 0), (0, 0, 1), (0, 2, 0), (0, 4, 1), (1, 0, 1)]
    by_condition = [0, 1, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]
    assert choose(candidates, sums, by_condition) == [(0, 3, 0), (0, 0, 2), (0, 2, 2), (0, 4, 1), (1, 0, 1)]
    sums[6] = 3
    assert choose(candidates, sums)[0] == (0, 3, 2)


def test_of_equal_sums_the_condition_number_decides():
    """Ranks 0 + 2, 1 + 1 and 2 + 0: three equal sums. The first of the list would be the last by condition."""
    conditions, regions = [[-0.1], [0.2], [0.5]], [[-0.3], [0.0], [0.4]]
    sums, by_condition, _ = rank_sums(conditions, regions)
    assert sums.tolist() == [2, 2, 2]
    assert choose([(0, 0, op) for op in range(3)], sums, by_condition) == [(0, 0, 2)]
    assert choose([(0, edge, None) for edge in (2, 3, 4)], sums, by_condition) == [(0, 4, None)]
    flat = rank_sums([[0.1]] * 3, [[0.0]] * 3)  # and where that is equal, too, the first candidate
    assert choose([(0, edge, None) for edge in (2, 3, 4)], *flat[:2]) == [(0, 2, None)]


def test_edges_go_node_by_node_and_the_two_of_the_largest_sums_stay():
    space = SPACES["darts_fewshot"]
    gates = space.open_gates() & (np.arange(7) == 3)
    tables = {  # of each node: sums, ranks by condition, which edges stay
        (0, 1): ([3, 1, 2], [0, 0, 0], [2, 4]),
        (0, 2): ([9, 8, 8, 9], [0, 2, 1, 3], [5, 8]),
        (1, 1): ([1, 1, 1], [1, 0, 1], [2, 4]),  # the second goes; of the others none
        (1, 2): ([2, 2, 0, 2], [1, 0, 3, 1], [5, 8]),
    }
    for (kind, node), (sums, by_condition, stay) in tables.items():
        candidates = edges_left(space, gates)
        assert candidates == [(kind, edge, None) for edge in space.into(node)]
        for one in choose(candidates, sums, by_condition):
            gates = without(gates, one)
        assert [edge for edge in space.into(node) if gates[kind, edge].any()] == stay
    assert not edges_left(space, gates)
    assert space.genotype_of(gates).nodes == 3


def test_ranks_within_a_node_keep_other_edges_than_ranks_in_one_pool():
    """Node 1 by itself: ranks 0 1 2 and 2 1 0, three equal sums, so the best by condition goes. In a pool with a node
    whose changes lie between them its ranks are 0 1 6 and 6 4 0, and another edge goes."""
    conditions, regions = [[0.9], [0.8], [-0.9]], [[0.3], [0.2], [0.1]]
    own = [(0, edge, None) for edge in (2, 3, 4)]
    sums, by_condition, _ = rank_sums(conditions, regions)
    assert sums.tolist() == [2, 2, 2]
    assert choose(own, sums, by_condition) == [(0, 2, None)]
    more = [[0.7], [0.6], [0.5], [-0.5]]
    sums, by_condition, _ = rank_sums([*conditions, *more], [*regions, *[[0.25], [0.15], [0.12], [0.11]]])
    assert choose(own, sums[:3], by_condition[:3]) == [(0, 3, None)]


def test_nothing_is_left_to_choose_in_an_architecture():
    space = SPACES["darts_fewshot"]
    gates = space.open_gates() & False
    for node in range(space.nodes):
        gates[:, list(space.into(node))[-2:], 1] = True
    assert operations_left(gates) == edges_left(space, gates) == []
