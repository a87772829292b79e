"""The super-network forwards, block by block: each is compiled once for a whole search, pruned operations never run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import jax.numpy as jnp
import numpy as np
from jax import Array

from mlkernels.errors import bad_input
from mlkernels.nas.engine.devices import placed
from mlkernels.nas.engine.operations import added, forward, joined, nothing, scaled
from mlkernels.nas.space.layout import Cell, Layout
from mlkernels.support.array_arguments import traced


def check_images(layout: Layout, images, axes: int = 4) -> Array:
    """Images as the network takes them, `[n, pixels, pixels, colours]`, or an `InputError`."""
    images = jnp.asarray(images)
    shape = (layout.pixels, layout.pixels, layout.colours if layout.stem else layout.channels)
    if images.ndim != axes or images.shape[-3:] != shape or not images.size:
        expected = f"[{'batches, ' * (axes - 4)}n, {', '.join(map(str, shape))}]"
        raise bad_input("images", expected, list(images.shape), "resize them, or make a Layout of their size")
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise bad_input("images", "real numbers", images.dtype, "convert them to float")
    return images


@dataclass
class Record:
    """What one cell leaves on the tape.

    Attributes:
        cell: the cell.
        weights: its weights.
        before: its two inputs, as they came.
        states: the same, preprocessed, and its nodes; None for a node that nothing reaches.
        live: by node, `[(edge, source, operation, factor, inputs)]`, what is open, and what went into its blocks.
    """

    cell: Cell
    weights: dict
    before: tuple[Array, Array]
    states: list[Array | None]
    live: list[list[tuple[int, int, int, Array, list[Array]]]]


def _factors(gates: np.ndarray, images: Array) -> Callable[[int, int, int], Array]:
    """What an operation's output is multiplied by, by cell type, edge and operation: `[samples, 1, ...]`.

    On each edge an architecture's open operations are averaged; one that it has closed counts as nothing.
    """
    shares = gates / np.maximum(gates.sum(-1, keepdims=True), 1)

    @cache
    def column(*shares: float) -> Array:
        values = np.repeat(shares, images.shape[0] // len(gates)).astype(images.dtype)
        values = values.reshape(-1, *[1] * (images.ndim - 1))
        return placed(values, None if traced() else images.sharding)

    return lambda kind, edge, operation: column(*shares[:, kind, edge, operation])


def run_cells(
    layout: Layout, params: dict, gates: np.ndarray, images: Array, run: Callable | None = None
) -> tuple[Array, list[Record]]:
    """The forward pass up to the last cell's output, for several architectures at once: the output, one record a cell.

    An edge without open operations counts as zero; an operation without weights is run once for all edges from one
    source; what all gates `[architectures, cell type, edge, operation]` have closed is never run. Images are those of
    the first architecture first. Instead of `forward` it may be `run(block, weights, x, operation=None) -> y`, where an
    operation on an edge is `(cell type, edge, operation)`.
    """
    run = run or (lambda block, weights, x, _=None: forward(block, weights, x))
    space, factors, live_gates = layout.space, _factors(gates, images), gates.any(0)
    x = run(layout.first, params["stem"], images) if layout.stem else images
    before, records = (x, x), []
    for cell, cell_weights in zip(layout.stack, params["cells"], strict=True):
        states = [run(*each) for each in zip(cell.pre, cell_weights["pre"], before, strict=True)]
        shared, live = {}, []
        for node in range(space.nodes):
            total, opened = None, []
            for edge in space.into(node):
                source = space.edges[edge][1]
                for op in np.flatnonzero(live_gates[cell.kind, edge]) if states[source] is not None else ():
                    opened.append((edge, source, int(op), factors(cell.kind, edge, op), [states[source]]))
            for edge, source, op, factor, passed in opened:
                blocks = cell.edges[edge][op]
                y = shared.get((source, blocks))
                if y is None:
                    for block, weights in zip(blocks, cell_weights["edges"][edge][op], strict=True):
                        passed.append(run(block, weights, passed[-1], (cell.kind, edge, op)))
                    y = passed[-1]
                    del passed[max(len(blocks), 1) :]  # the output itself is not needed again
                    if weightless(blocks):
                        shared[source, blocks] = y
                total = scaled(y, factor) if total is None else added(total, y, factor)
            states.append(total)
            live.append(opened)
        shape = (cell.pixels, cell.pixels, cell.channels)
        nodes = [nothing(images, shape) if state is None else state for state in states[2:]]
        records.append(Record(cell, cell_weights, before, states, live))
        before = before[1], joined(*nodes)
    return before[1], records


def weightless(blocks) -> bool:
    """Whether an operation has no weights, so that it is the same on every edge."""
    return not any(step.weights for block in blocks for step in block)


def logits(layout: Layout, params: dict, gates, images) -> Array:
    """Outputs `[n, ways]` of the network that gates `[cell type, edge, operation]` leave (the head has no bias)."""
    images = check_images(layout, images).astype(params["head"][0].dtype)
    gates = layout.space.check_gates(gates)[None]
    x, _ = run_cells(layout, params, gates, images)
    features = forward(layout.last, (), x)
    return forward(layout.head, params["head"], features)[:, 0, 0]
