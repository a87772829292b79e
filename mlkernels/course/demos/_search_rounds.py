"""A search's log, as what is left and what was tried in each of its rounds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import numpy as np

from mlkernels.errors import bad_input
from mlkernels.nas import CELL_TYPES, Space, replay
from mlkernels.nas.searching.ranking import Candidate

EDGE = "a whole edge"
BOTH = "both"
RATIOS = 0.02, 50.0  # of scores without and with; what lies beyond is drawn there


@dataclass(frozen=True)
class Round:
    """A search after one of its rounds."""

    number: int  # 0 for the start
    rounds: int  # how many there are
    space: Space
    before: np.ndarray  # what is open before it, bool [cell type, edge, operation]
    gates: np.ndarray  # and after it
    candidates: tuple[Candidate, ...]  # what was tried without
    gone: np.ndarray  # bool [candidates], which of them went
    condition: np.ndarray  # [candidates], the condition number without each over that with it; 1 where not used
    regions: np.ndarray  # [candidates], the same of the linear regions

    @property
    def pruned(self) -> tuple[Candidate, ...]:
        """What went in this round."""
        return tuple(each for each, went in zip(self.candidates, self.gone, strict=True) if went)

    def name(self, candidate: Candidate) -> str:
        """What a candidate is."""
        return EDGE if candidate[2] is None else self.space.operations[candidate[2]]


def rounds_of(log: Sequence[dict], space: Space) -> tuple[Round, ...]:
    """A search after each of its rounds, the open super-network first; an InputError for what is no log of one."""
    try:
        states = replay(log, space)
        found = [_round(log, space, states, number) for number in range(len(states))]
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        do = "take the log of nas.search, and the space that it searched"
        raise bad_input("log", f"decisions of a search in {space.name}", f"{error!r}", do) from None
    if len(found) < 2:
        raise bad_input("log", "one round or more", "none", "take the log of nas.search")
    return tuple(found)


def _round(log, space: Space, states: list[np.ndarray], number: int) -> Round:
    rows, pruned = {}, set()
    for line in log:
        if number and line.get("round") == number:
            kind, node = CELL_TYPES.index(line["cell"]), line["node"]
            own = space.edges.index((node, line["input"]))
            whole = line["pruned"] == "edge"
            pruned.add((kind, own, None if whole else space.operations.index(line["pruned"])))
            for name, row in line["scores"].items():
                if whole:
                    rows[kind, space.edges.index((node, int(name))), None] = row
                else:
                    rows[kind, own, space.operations.index(name)] = row
    ratios = {score: np.array([_ratio(row, score) for row in rows.values()]) for score in ("condition", "regions")}
    gone = np.array([candidate in pruned for candidate in rows], bool)
    before = states[max(number - 1, 0)]
    return Round(number, len(states) - 1, space, before, states[number], tuple(rows), gone, **ratios)


def _ratio(row: dict, score: str) -> float:
    """A score without over the score with a candidate, as ranked: by the mean change over repeats."""
    if score not in row:
        return 1.0
    (least, most), changes = RATIOS, row[score]["change"]
    infinite = None, "-inf", -math.inf  # null in old logs, text in new ones, a number before they are written
    return float(np.clip(1 - fmean(1 - most if each in infinite else each for each in changes), least, most))


def numbers(rounds: Sequence[Round], round: int, cell: str) -> Round:
    """One round, with the candidates of one cell type alone or of both."""
    found = rounds[round]
    seen = np.array([cell in (BOTH, CELL_TYPES[kind]) for kind, *_ in found.candidates], bool)
    kept = tuple(each for each, shown in zip(found.candidates, seen, strict=True) if shown)
    rest = {name: getattr(found, name)[seen] for name in ("gone", "condition", "regions")}
    return replace(found, candidates=kept, **rest)
