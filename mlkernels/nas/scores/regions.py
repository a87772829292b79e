"""How many linear regions of a network images fall into."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import Array

from mlkernels.nas.engine.operations import jitted, observe
from mlkernels.nas.engine.supernet import check_images, run_cells
from mlkernels.nas.space.layout import Layout
from mlkernels.support.arguments import whole
from mlkernels.support.array_arguments import traced
from mlkernels.support.memory import require

BLOCK_BYTES = 2**26


class Patterns:
    """Counts distinct rows of bits that come in pieces, and holds no more than a block of them, a byte a bit.

    Each row has a number; rows with one number agree in all blocks so far. A full block is packed eight bits a byte,
    and rows with one number that differ in it get different ones. The count is exact: nothing is hashed.
    """

    def __init__(self, rows: int, block_bytes: int = BLOCK_BYTES):
        self.numbers = np.zeros(rows, np.uint32)
        self.block_bytes, self.held, self.distinct = block_bytes, [], 1

    def add(self, bits: Array, where: slice = slice(None)) -> None:
        """More bits of every row, bool `[rows, units]`; of more rows those `where` they are.

        They are cut out on the host: an array comes there once, whoever counts it, and a device is asked for no cuts.
        """
        if self.distinct == len(self.numbers):
            return  # all rows differ already
        self.held.append((bits, where))
        if len(self.numbers) * sum(each.shape[1] for each, _ in self.held) > self.block_bytes:
            self._settle()

    def _settle(self) -> None:
        packed = [np.packbits(np.concatenate([np.asarray(each)[where] for each, where in self.held], axis=1), axis=1)]
        self.held = []
        rows = np.concatenate([self.numbers.view(np.uint8).reshape(-1, 4), *packed], axis=1)
        as_one = np.ascontiguousarray(rows).view(np.dtype((np.void, rows.shape[1]))).ravel()
        found, inverse = np.unique(as_one, return_inverse=True)
        self.numbers, self.distinct = inverse.astype(np.uint32), len(found)

    def count(self) -> int:
        """How many rows differ."""
        if self.held:
            self._settle()
        return self.distinct


def linear_regions(layout: Layout, params: dict, gates, images, *, block_bytes: int = BLOCK_BYTES) -> int | list[int]:
    """How many different patterns of ReLUs, on or off, the images make: the larger the better.

    The paper's count is of a thin network without stem (1 channel, batch normalisation, the first two of five cells)
    on 3 batches of 1000 patches of 3x3 pixels of one colour. Batch normalisation is over each batch. With one channel
    two paths may cancel exactly: a ReLU whose input is zero but for rounding is off, whatever the rounding's sign.

    Images are `[batches, n, pixels, pixels, colours]`, gates `[cell type, edge, operation]` or, for several
    architectures in one pass and a list of counts, `[A, ...]`. The states of `block_bytes` ReLUs are held at once.

    Source: Wang et al. 2022, its code; Chen et al. 2021 (TE-NAS).
    """
    whole("block_bytes", block_bytes, 1, do="leave it at its default")
    gates = np.asarray(gates)
    one = gates.ndim < 4
    gates = np.stack([layout.space.check_gates(each) for each in (gates[None] if one else gates)])
    images = check_images(layout, images, axes=5).astype(params["head"][0].dtype)
    rows = images.shape[0] * images.shape[1]
    widest = max(layout.space.nodes * cell.channels * cell.pixels**2 for cell in layout.stack)
    needed = len(gates) * (16 * images.dtype.itemsize * rows * widest + block_bytes)
    require(needed, f"{len(gates) * rows} images at once", "take fewer images")
    patterns = [] if traced() else [Patterns(rows, block_bytes) for _ in gates]  # traced, for what it runs, no counts

    def run(block, weights, x, operation=None):
        y, on = jitted(observe, block)(weights, x)
        for number, each in enumerate(patterns) if on.shape[1] else ():
            if operation is None or gates[(number, *operation)]:  # an architecture that has closed it does not count it
                each.add(on, slice(number * rows, (number + 1) * rows))
        return y

    last, _ = run_cells(layout, params, gates, jnp.concatenate([images] * len(gates)), run)
    run(layout.last, (), last)
    counts = [each.count() for each in patterns]
    return counts[0] if one and counts else counts


def thin(layout: Layout) -> Layout:
    """The paper's network for linear regions, in a layout's search space.

    Example:
        >>> [(cell.kind, cell.channels, cell.pixels) for cell in thin(Layout()).stack]
        [(0, 1, 3), (1, 2, 2)]

    Source: Wang et al. 2022, its code.
    """
    return Layout(layout.space, cells=5, channels=1, pixels=3, norm="batch", stem=False, depth=2)
