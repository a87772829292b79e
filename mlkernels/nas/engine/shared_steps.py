"""The super-network of one architecture as a list, in which each output of an operation is multiplied by a share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mlkernels.nas.engine.supernet import weightless
from mlkernels.nas.space.blocks import Operation
from mlkernels.nas.space.layout import Layout

Gate = tuple[int, int, int]  # cell type, edge, operation


@dataclass(frozen=True)
class Run:
    """Blocks, one after the other, are run on a value; values count from 0, the images, in the order of the list."""

    blocks: Operation
    weights: tuple
    source: int


@dataclass(frozen=True)
class Mix:
    """A node: the sum of operations' outputs, each times its share."""

    terms: tuple[tuple[int, Gate], ...]


@dataclass(frozen=True)
class Join:
    """A cell's output: its nodes side by side, zeros of a shape for one that nothing reaches."""

    sources: tuple[int | None, ...]
    shape: tuple[int, int, int]


def steps_of(layout: Layout, params: dict, gates: np.ndarray) -> list[Run | Mix | Join]:
    """The super-network as a list, up to the features; an operation without weights stands once for each source."""
    space, steps = layout.space, []

    def put(step) -> int:
        steps.append(step)
        return len(steps)

    x = put(Run((layout.first,), (params["stem"],), 0)) if layout.stem else 0
    before = x, x
    for cell, own in zip(layout.stack, params["cells"], strict=True):
        states: list[int | None] = [
            put(Run((pre,), (weights,), x)) for pre, weights, x in zip(cell.pre, own["pre"], before, strict=True)
        ]
        shared: dict = {}
        for node in range(space.nodes):
            terms = []
            for edge in space.into(node):
                source = states[space.edges[edge][1]]
                for op in np.flatnonzero(gates[cell.kind, edge]) if source is not None else ():
                    blocks = cell.edges[edge][op]
                    y = shared.get((source, blocks)) if blocks else source
                    if y is None:
                        y = put(Run(blocks, own["edges"][edge][op], source))
                        if weightless(blocks):
                            shared[source, blocks] = y
                    terms.append((y, (cell.kind, edge, int(op))))
            states.append(put(Mix(tuple(terms))) if terms else None)
        shape = (cell.pixels, cell.pixels, cell.channels)
        before = before[1], put(Join(tuple(states[2:]), shape))
    put(Run((layout.last,), ((),), before[1]))
    return steps
