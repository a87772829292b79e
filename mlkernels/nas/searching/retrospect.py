"""A recorded search, looked at again: how sure its decisions were, and what two searches have in common.

A decision is sure where draws that share nothing take it alike; where they are noise they agree as guesses do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from jaxtyping import Float

from mlkernels.errors import bad_input
from mlkernels.nas.searching.ranking import Candidate, choose, rank_sums
from mlkernels.nas.searching.search import replay
from mlkernels.nas.space.genotype import CELL_TYPES, Genotype
from mlkernels.nas.space.search_space import Space


@dataclass(frozen=True)
class Compared:
    """What was compared in a round.

    Attributes:
        number: of the round, from 1.
        candidates: what was tried without, in the search's order.
        changes: "condition" and "regions", where used -> float `[candidates, repeats]`, the relative changes.
        larger: whether of the first score the larger value is the better one.
    """

    number: int
    candidates: tuple[Candidate, ...]
    changes: dict[str, Float[np.ndarray, "candidates repeats"]]
    larger: bool = False

    @property
    def repeats(self) -> int:
        """Draws of weights and images."""
        return next(iter(self.changes.values())).shape[1]

    def decided(self, repeats: Sequence[int] | slice = slice(None), *, precision: int = 3) -> list[Candidate]:
        """What goes by the search's rule, from all repeats or from some alone."""
        condition, regions = (
            self.changes[name][:, repeats] if name in self.changes else None for name in ("condition", "regions")
        )
        sums, by_condition, _ = rank_sums(condition, regions, precision=precision, larger=self.larger)
        return choose(self.candidates, sums, by_condition)


@dataclass(frozen=True)
class Calls:
    """How close the decisions of a round were.

    Attributes:
        number: of the round, from 1.
        decisions: how many there were: edges that lost an operation, or edges that went.
        alike: of each repeat, what share of decisions it alone and the others would take alike, float `[repeats]`.
        chance: what share two guesses take alike.
    """

    number: int
    decisions: int
    alike: Float[np.ndarray, " repeats"]
    chance: float


def compared(log: Sequence[dict], space: Space, *, larger: bool = False) -> list[Compared]:
    """What a recorded search compared, round by round, from its log.

    Args:
        log: the lines of `log.jsonl`, as dicts, of a search that is finished or not.
        space: the search space.
        larger: whether the search's first score is one of which the larger value is the better one.

    Raises:
        InputError: what is no log of a search in this space.

    Source: `nas.search`, for what a line holds; notebooks/04_metantk_nas.
    """
    try:
        numbers = sorted({line["round"] for line in log if "round" in line})
        return [_compared([line for line in log if line.get("round") == n], space, n, larger) for n in numbers]
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        do = "take the log of nas.search, and the space that it searched"
        raise bad_input("log", f"decisions of a search in {space.name}", f"{error!r}", do) from None


def _compared(lines: list[dict], space: Space, number: int, larger: bool) -> Compared:
    rows: dict[Candidate, dict] = {}
    for line in lines:
        kind, node = CELL_TYPES.index(line["cell"]), line["node"]
        for name, row in line["scores"].items():
            if line["pruned"] == "edge":
                rows[kind, space.edges.index((node, int(name))), None] = row
            else:
                edge = space.edges.index((node, line["input"]))
                rows[kind, edge, space.operations.index(name)] = row
    candidates = tuple(sorted(rows, key=lambda each: (each[0], each[1], each[2] or 0)))  # as they were scored
    scores = [name for name in ("condition", "regions") if name in rows[candidates[0]]]
    changes = {name: np.array([_numbers(rows[each][name]["change"]) for each in candidates]) for name in scores}
    return Compared(number, candidates, changes, larger)


def _numbers(changes: Sequence) -> list[float]:
    return [-math.inf if each is None else float(each) for each in changes]  # null in old logs


def close_calls(log: Sequence[dict], space: Space, *, larger: bool = False) -> list[Calls]:
    r"""How close the decisions of each round of a recorded search were.

    The rule is applied again, to the changes of one repeat alone and to those of all others, which share no draw with
    it. Were changes nothing but noise, on an edge with k operations open both would close the same one with probability
    1 / k; of n edges into a node, of which n - 2 go, they would have the share (n - 2) / n in common. That is for noise
    that treats candidates alike: where one only scatters more than others, repeats agree on it more often. The mean
    over repeats scatters less than a single comparison, which a binomial interval is for.

    Args:
        log, space, larger: as in `compared`.

    Returns:
        A `Calls` for each round of at least two repeats; a single repeat says nothing of this.

    Raises:
        InputError: as `compared`; a single repeat.

    Example:
        >>> from mlkernels.nas import Space
        >>> one = Space("one", ("skip_connect", "conv_3x3"), 1)
        >>> peers = {"skip_connect": {"condition": {"change": [0.3, 0.2, 0.2]}},
        ...          "conv_3x3": {"condition": {"change": [-0.1, 0.4, 0.1]}}}
        >>> line = {"round": 1, "cell": "normal", "node": 0, "input": 1, "pruned": "skip_connect", "scores": peers}
        >>> [found] = close_calls([line], one)
        >>> found.alike.tolist(), found.chance
        ([0.0, 0.0, 1.0], 0.5)

    Source: notebooks/04_metantk_nas.
    """
    rounds = compared(log, space, larger=larger)
    if rounds and rounds[0].repeats < 2:
        raise bad_input("log", "two repeats or more", "one", "take a search with more repeats")
    return [_calls(each) for each in rounds]


def _calls(found: Compared) -> Calls:
    repeats, count = range(found.repeats), len(found.decided())
    pairs = [(found.decided([each]), found.decided([other for other in repeats if other != each])) for each in repeats]
    alike = np.array([len(set(one) & set(others)) / count for one, others in pairs])
    if found.candidates[0][2] is None:
        chance = count / len(found.candidates)
    else:
        edges = [each[:2] for each in found.candidates]
        chance = float(np.mean([1 / edges.count(edge) for edge in dict.fromkeys(edges)]))
    return Calls(found.number, count, alike, chance)


def survivors(log: Sequence[dict], space: Space) -> dict[tuple[int, int], str]:
    """The operation that a search has left on each edge before edges went: (cell type, edge) -> operation.

    Source: notebooks/04_metantk_nas, which asks on how many edges two searches agree; guesses do on 1 of as many as
    there are operations.
    """
    states = replay(log, space)
    single = [gates for gates in states if (gates.sum(-1) == 1).all()]
    if not single:
        do = "let the search come to its last round of operations"
        raise bad_input("log", "a search that has left one operation an edge", f"{len(states) - 1} rounds", do)
    kinds, edges = range(len(CELL_TYPES)), range(len(space.edges))
    return {each: space.operations[int(single[0][each].argmax())] for each in product(kinds, edges)}


def in_common(first: Genotype, second: Genotype) -> int:
    """How many edges with the same operation two architectures have, of two a node in both cells.

    Example:
        >>> in_common(Genotype.parse("N: sk<0 c3<1 R: c3<0 c3<1"), Genotype.parse("N: sk<0 s3<1 R: c3<0 c3<1"))
        3

    Source: notebooks/04_metantk_nas.
    """
    return sum(
        len(set(ours) & set(theirs))
        for kind in CELL_TYPES
        for ours, theirs in zip(getattr(first, kind), getattr(second, kind), strict=True)
    )
