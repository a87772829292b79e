"""How far a search is: time spent and left, and what is best so far, for whoever is told."""

from __future__ import annotations

import time

import numpy as np

from mlkernels.nas.searching.record import Record
from mlkernels.nas.searching.scorer import Scores
from mlkernels.nas.searching.settings import SearchSettings
from mlkernels.nas.space.genotype import CELL_TYPES
from mlkernels.support.progress import Progress


class Clock:
    """Time spent and left, and who is told."""

    def __init__(self, settings: SearchSettings, record: Record, progress):
        self.settings, self.record, self.progress = settings, record, progress
        self.before, self.start = record.seconds, time.monotonic()
        self.had = sum(map(len, record.done)) + len(record.partial)

    def seconds(self) -> float:
        return self.before + time.monotonic() - self.start

    def tell(self, number: int, candidates, items: int) -> None:
        if self.progress is None:
            return
        plan = self.settings.evaluations
        done, total = sum(map(len, self.record.done)) + len(self.record.partial), sum(plan)
        costs = [n * cost for n, cost in zip(plan, self._costs(), strict=True)]
        spent = _spent(costs, plan, done) - _spent(costs, plan, self.had)
        rest = (sum(costs) - _spent(costs, plan, done)) / spent if spent else 0
        left = (time.monotonic() - self.start) * rest if spent else None
        best = _best(self.settings, self.record.partial, candidates, items)
        self.progress(Progress(done, total, f"round {number} of {len(plan)}", best, left))

    def _costs(self) -> list[float]:
        """What a network costs in each round: as its open operations, and something for the rest."""
        operations = len(self.settings.layout.space.operations)
        rounds = len(self.settings.evaluations)
        return [1 + max(operations - number, 1) for number in range(rounds)]


def _spent(costs, plan, done: int) -> float:
    total = 0.0
    for cost, count in zip(costs, plan, strict=True):
        here = min(done, count)
        total, done = total + cost * here / count, done - here
    return total


def _best(settings, partial: list[Scores], candidates, items: int) -> str:
    """In words, the best candidate of the repeat at work."""
    row = partial[(len(partial) - 1) // items * items :] if partial else []
    name = "condition" if settings.condition != "none" else "regions"
    pairs = (
        list(zip(row[::2], row[1::2], strict=False))
        if settings.reference_quirks
        else [(row[0], each) for each in row[1:]]
        if row
        else []
    )
    if not pairs:
        return ""
    sign = 1 if name == "condition" and not settings.larger else -1
    changes = [sign * settings.change(name)(getattr(a, name), getattr(b, name)) for a, b in pairs]
    top = int(np.argmax(changes))
    kind, edge, operation = candidates[top]
    space = settings.layout.space
    node, source = space.edges[edge]
    what = "edge" if operation is None else space.operations[operation]
    word = name if name == "regions" else (settings.condition if settings.larger else "condition number")
    return f"{-sign * changes[top]:+.1%} {word} without {what} {source} to node {node + 2}, {CELL_TYPES[kind]}"
