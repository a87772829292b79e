"""Which operation goes: relative changes, their ranks, and the choice on every edge and at a node."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from jaxtyping import Int

from mlkernels.errors import bad_input
from mlkernels.nas.space.genotype import CELL_TYPES
from mlkernels.nas.space.search_space import Space
from mlkernels.support.typed import typed

Candidate = tuple[int, int, int | None]  # cell type, edge, and the operation that would go; None for the whole edge
RULE = "edges node by node; of equal sums the first by the condition number"
OLD_RULE = "all edges in one pool; of equal sums the first candidate"  # of searches that name no rule


def relative_change(origin: float, without: float, *, larger: bool = False, blind: bool = False) -> float:
    r"""How much a score falls when a candidate is taken out; infinity is the worst a condition number can be.

    .. math:: \delta = (s_{origin} - s_{without}) / |s_{origin}|

    0 from infinity to infinity, 1 from infinity to a number, minus infinity the other way. Of a score of which the
    `larger` value is the better one minus infinity is the worst. With `blind` it is divided by the score, be it
    negative, as in the published code.

    Source: Wang et al. 2022, its code, for finite scores above 0.
    """
    if larger:
        return -relative_change(-origin, -without)
    if math.isinf(origin) or origin == 0:
        return 0.0 if without == origin else (1.0 if math.isinf(origin) else -math.inf)
    return (origin - without) / (origin if blind else abs(origin))


def log_change(origin: float, without: float) -> float:
    r"""How much the logarithm of a condition number falls when a candidate is taken out; 0 where one is infinite.

    .. math:: \delta = \log(s_{origin} / s_{without})

    Source: this course, for its own designs.
    """
    return 0.0 if math.isinf(origin) or math.isinf(without) else math.log(origin / without)


def sort_key(mean: float, precision: int) -> float:
    """A number in so many significant digits, as the published code cuts it; infinities stay as they are.

    1e-8 is added to the number's size, so that half a digit goes up, and digits are cut off as NumPy does it.

    Example:
        >>> sort_key(0.1235, 3), float(f"{0.1235:.3g}")
        (0.124, 0.123)

    Source: Wang et al. 2022, its code.
    """
    if mean == 0 or math.isinf(mean):
        return mean
    size = abs(mean) + 1e-8
    power = math.floor(math.log(size, 10)) + 1
    return math.copysign(float(np.round(np.float64(size * 10.0**-power), precision)) * 10.0**power, mean)


@typed
def dense_ranks(changes, *, descending: bool, precision: int = 3) -> Int[np.ndarray, " candidates"]:
    """Ranks of candidates by their mean change over repeats, equal means with equal ranks.

    Each change is rounded to `precision` decimals and averaged. Candidates are sorted by `sort_key` of that mean, ties
    in the order they have; the rank grows by one wherever neighbours' unrounded means differ.

    Args:
        changes: `[candidates, repeats]`.
        descending: whether the largest change has rank 0.
        precision: digits.

    Returns:
        int `[candidates]`, from 0.

    Raises:
        InputError: NaN, or no candidates.

    Example:
        >>> dense_ranks([[0.2], [0.5], [0.2], [-0.1]], descending=True).tolist()
        [1, 0, 1, 2]

    Source: Wang et al. 2022, its code (as in TE-NAS, Chen et al. 2021).
    """
    changes = np.asarray(changes, float)
    if changes.ndim != 2 or not changes.size or np.isnan(changes).any():
        got = f"{list(changes.shape)}{' with NaN' if np.isnan(changes).any() else ''}"
        raise bad_input("changes", "numbers [candidates, repeats]", got, "score every candidate in every repeat")
    means = np.round(changes, precision).mean(1)
    keys = [sort_key(float(mean), precision) for mean in means]
    order = sorted(range(len(keys)), key=keys.__getitem__, reverse=descending)  # stable, reversed or not
    ranks = np.zeros(len(keys), int)
    for before, now in pairwise(order):
        ranks[now] = ranks[before] + (means[now] != means[before])
    return ranks


def rank_sums(
    conditions, regions, *, precision: int = 3, larger: bool = False
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
    """The sum of both ranks of each candidate, and the ranks by condition number and by regions; the lowest goes first.

    From changes `[candidates, repeats]`, or None for one of the two: rank 0 is the candidate without which the
    condition number falls most, or the count of regions rises most. With `larger` the first score is one that should
    rise, too.

    Source: Wang et al. 2022, its code.
    """
    by_condition = None if conditions is None else dense_ranks(conditions, descending=not larger, precision=precision)
    by_regions = None if regions is None else dense_ranks(regions, descending=False, precision=precision)
    used = [ranks for ranks in (by_condition, by_regions) if ranks is not None]
    if not used:
        raise bad_input("scores", "the condition number, the regions or both", "neither", "rank by one of them")
    return sum(used), by_condition, by_regions


def operations_left(gates: np.ndarray) -> list[Candidate]:
    """Every open operation on an edge that has more than one, by cell type, edge and operation."""
    many = gates.sum(-1, keepdims=True) > 1
    return [tuple(map(int, found)) for found in np.argwhere(gates & many)]


def edges_left(space: Space, gates: np.ndarray) -> list[Candidate]:
    """Every open edge into the first node that has more than two, in the normal cell before the reduction cell."""
    for kind in range(len(CELL_TYPES)):
        for node in range(space.nodes):
            live = [edge for edge in space.into(node) if gates[kind, edge].any()]
            if len(live) > 2:
                return [(kind, edge, None) for edge in live]
    return []


def without(gates: np.ndarray, candidate: Candidate) -> np.ndarray:
    """The gates with a candidate closed."""
    kind, edge, operation = candidate
    gates = gates.copy()
    gates[kind, edge, slice(None) if operation is None else operation] = False
    return gates


def choose(candidates: Sequence[Candidate], sums, by_condition=None) -> list[Candidate]:
    """What goes, by ascending rank sum: the first operation on each edge, or all edges into the node but the last two.

    The candidates are all operations, or the edges into one node. Of equal sums the one goes first that comes first by
    the condition number, and of equal ranks there the first candidate.

    Source: Wang et al. 2022, its code: one operation an edge and round, then two inputs a node.
    """
    first = np.zeros(len(candidates)) if by_condition is None else by_condition
    order = sorted(range(len(candidates)), key=lambda number: (sums[number], first[number]))  # stable
    if candidates and candidates[0][2] is None:
        return [candidates[number] for number in order[:-2]]
    going: dict[tuple[int, int], Candidate] = {}
    for number in order:
        going.setdefault(candidates[number][:2], candidates[number])
    return list(going.values())
