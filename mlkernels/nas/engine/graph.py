"""A derived network as a list: which block is run on what, what is added up, what is put side by side.

The same list is run block by block, traced as a whole, and gone through backwards.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

import jax
from jax import Array

from mlkernels.nas.engine.operations import added, joined, split
from mlkernels.nas.space.blocks import Block
from mlkernels.nas.space.genotype import Genotype
from mlkernels.nas.space.layout import Layout


@dataclass(frozen=True)
class Run:
    """A block is run on a value; values count from 0, the images, in the order of the list."""

    block: Block
    source: int

    @property
    def sources(self) -> tuple[int, ...]:
        return (self.source,)


@dataclass(frozen=True)
class Add:
    """A node: two values are added up, of which those of `dropped` are dropped for some samples in training."""

    sources: tuple[int, int]
    dropped: tuple[bool, bool]


@dataclass(frozen=True)
class Join:
    """A cell's output: its nodes side by side."""

    sources: tuple[int, ...]


Plan = tuple[Run | Add | Join, ...]


def plan_of(layout: Layout, genotype: Genotype) -> Plan:
    """The list for an architecture, up to the last cell's output."""
    steps: list[Run | Add | Join] = []

    def put(step) -> int:
        steps.append(step)
        return len(steps)

    x = put(Run(layout.first, 0)) if layout.stem else 0
    before = x, x
    for cell in layout.stack:
        states = [put(Run(block, x)) for block, x in zip(cell.pre, before, strict=True)]
        for node, chosen in enumerate((genotype.normal, genotype.reduce)[cell.kind]):
            ends, dropped = [], []
            for name, source in chosen:
                edge = layout.space.edges.index((node, source))
                blocks, x = cell.edges[edge][layout.space.operations.index(name)], states[source]
                for block in blocks:
                    x = put(Run(block, x))
                ends.append(x)
                dropped.append(bool(blocks))  # a skip connection as it is stays
            states.append(put(Add(tuple(ends), tuple(dropped))))
        before = before[1], put(Join(tuple(states[2:])))
    return tuple(steps)


@cache
def _no_longer_needed(plan: Plan) -> tuple[tuple[int, ...], ...]:
    """For each step, the values that no later one looks at."""
    last = {source: number for number, step in enumerate(plan) for source in step.sources}
    return tuple(tuple(v for v, end in last.items() if end == number) for number in range(len(plan)))


def forward(
    plan: Plan, params, statistics, images: Array, run: Callable, masks=None, tape: dict | None = None
) -> tuple[Array, list]:
    """Go through the list: the last value, and the new statistics; a `tape` gets what went into each `Run`.

    There is one entry of `params` and `statistics` for each `Run`, for which `run(block, params, statistics, x)` gives
    `(y, statistics)`. The masks are for each `Add`, in order, factors `[2, n, 1, 1, 1]` on the two values.
    """
    values, found, own = {0: images}, [], iter(zip(params, statistics, strict=True))
    nodes = iter(masks or ())
    for number, (step, done) in enumerate(zip(plan, _no_longer_needed(plan), strict=True)):
        match step:
            case Run(block, source):
                if tape is not None:
                    tape[number] = values[source]
                value, now = run(block, *next(own), values[source])
                found.append(now)
            case Add((a, b), dropped):
                value = _sum(dropped, values[a], values[b], next(nodes) if masks else None)
            case Join(sources):
                value = joined(*(values[source] for source in sources))
        values[number + 1] = value
        for source in done:
            del values[source]
    return values[len(plan)], found


def backward(plan: Plan, params, statistics, tape: dict, g: Array, run_back: Callable, masks=None) -> list:
    """Go through the list backwards, from the gradient by the last value: gradients by params, one for each `Run`.

    The tape of `forward` is used up; `run_back(block, params, statistics, x, g)` gives the gradients by params and by
    x. An entry is None for a block on which nothing depends.
    """
    behind, found = {len(plan): g}, []
    own = list(zip(params, statistics, strict=True))
    nodes = list(masks or ())

    def gather(source: int, g: Array) -> None:
        behind[source] = g if source not in behind else added(behind[source], g, 1.0)

    for number, step in reversed(list(enumerate(plan))):
        g = behind.pop(number + 1, None)
        match step:
            case Run(block, source):
                mine, x = own.pop(), tape.pop(number)
                by_params = None
                if g is not None:
                    by_params, by_x = run_back(block, *mine, x, g)
                    gather(source, by_x)
                found.append(by_params)
            case Add(sources, dropped):
                factors = nodes.pop() if masks else None
                if g is not None:
                    for source, part in zip(sources, _times(dropped, (g, g), factors), strict=True):
                        gather(source, part)
            case Join(sources):
                if g is not None:
                    for source, part in zip(sources, split(g, len(sources)), strict=True):
                        gather(source, part)
    return found[::-1]


@partial(jax.jit, static_argnums=0)
def _sum(dropped: tuple[bool, bool], a: Array, b: Array, factors: Array | None) -> Array:
    return sum(_times(dropped, (a, b), factors))


@partial(jax.jit, static_argnums=0)
def _times(dropped: tuple[bool, bool], pair: tuple[Array, Array], factors: Array | None) -> list[Array]:
    return [
        x * factors[place].astype(x.dtype) if drop and factors is not None else x
        for place, (drop, x) in enumerate(zip(dropped, pair, strict=True))
    ]
