"""Which operation goes: relative changes, their ranks, and the choice on every edge and at every node."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from jaxtyping import Int

from mlkernels.errors import bad_input
from mlkernels.nas.space.search_space import CELL_TYPES, Space
from mlkernels.support.typed import typed

Candidate = tuple[int, int, int | None]  # cell type, edge, and the operation that would go; None for the whole edge


def relative_change(origin: float, without: float) -> float:
    r"""How much a score falls when a candidate is taken out; infinity is the worst a condition number can be.

    .. math:: \delta = (s_{origin} - s_{without}) / s_{origin}

    0 from infinity to infinity, 1 from infinity to a number, minus infinity the other way.

    Source: Wang et al. 2022, its code, for finite scores.
    """
    if math.isinf(origin) or origin == 0:
        return 0.0 if without == origin else (1.0 if math.isinf(origin) else -math.inf)
    return (origin - without) / origin


@typed
def dense_ranks(changes, *, descending: bool, precision: int = 3) -> Int[np.ndarray, " candidates"]:
    """Ranks of candidates by their mean change over repeats, equal means with equal ranks.

    Each change is rounded to `precision` decimals and averaged. Candidates are sorted by that mean in `precision`
    significant digits, ties in the order they have; the rank grows by one wherever neighbours' unrounded means differ.

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
    keys = [float(f"{mean:.{precision}g}") for mean in means]
    order = sorted(range(len(keys)), key=keys.__getitem__, reverse=descending)  # stable, reversed or not
    ranks = np.zeros(len(keys), int)
    for before, now in pairwise(order):
        ranks[now] = ranks[before] + (means[now] != means[before])
    return ranks


def rank_sums(conditions, regions, *, precision: int = 3) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
    """The sum of both ranks of each candidate, and the ranks by condition number and by regions; the lowest goes first.

    From changes `[candidates, repeats]`, or None for one of the two: rank 0 is the candidate without which the
    condition number falls most, or the count of regions rises most.

    Source: Wang et al. 2022, its code.
    """
    by_condition = None if conditions is None else dense_ranks(conditions, descending=True, precision=precision)
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
    """Every open edge into a node that has more than two."""
    found: list[Candidate] = []
    for kind in range(len(CELL_TYPES)):
        for node in range(space.nodes):
            live = [edge for edge in space.into(node) if gates[kind, edge].any()]
            found += [(kind, edge, None) for edge in live] if len(live) > 2 else []
    return found


def without(gates: np.ndarray, candidate: Candidate) -> np.ndarray:
    """The gates with a candidate closed."""
    kind, edge, operation = candidate
    gates = gates.copy()
    gates[kind, edge, slice(None) if operation is None else operation] = False
    return gates


def choose(space: Space, gates: np.ndarray, candidates: Sequence[Candidate], sums) -> list[Candidate]:
    """What goes: on each edge the first operation, at each node the first edges but two, by ascending rank sum.

    The candidates are all of one kind, operations or edges; of equal sums the first goes.

    Source: Wang et al. 2022, its code: one operation an edge and round, then two inputs a node.
    """
    going: list[Candidate] = []
    for number in sorted(range(len(candidates)), key=lambda number: sums[number]):
        kind, edge, operation = candidates[number]
        if operation is None:
            node = space.edges[edge][0]
            live = [e for e in space.into(node) if gates[kind, e].any()]
            gone = [e for k, e, _ in going if k == kind and e in live]
            if len(live) - len(gone) > 2:
                going.append(candidates[number])
        elif (kind, edge) not in [each[:2] for each in going]:
            going.append(candidates[number])
    return going
