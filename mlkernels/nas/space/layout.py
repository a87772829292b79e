"""How a network of cells is stacked: which blocks there are, with how many channels and pixels; and what it costs."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import cached_property

from mlkernels.errors import bad_input
from mlkernels.nas.space.blocks import NORMS, Block, Conv, Halves, Mean, Norm, Operation, Relu, operation, through
from mlkernels.nas.space.search_space import SPACES, Space
from mlkernels.support.arguments import one_of, whole


@dataclass(frozen=True)
class Cell:
    """One cell of the stack.

    Attributes:
        kind: 0 normal, 1 reduction: the gates' first axis.
        channels: of each node.
        before: `(channels, pixels a side)` of the two inputs, the older one first.
        pixels: a side, of the nodes.
        pre: the blocks that bring the two inputs to `channels` and to the size of the newer one.
        edges: `[edge][operation]`, the blocks.
    """

    kind: int
    channels: int
    before: tuple[tuple[int, int], tuple[int, int]]
    pixels: int
    pre: tuple[Block, Block]
    edges: tuple[tuple[Operation, ...], ...]


MOST_CELLS = 1000  # more tiny ones would fit, and fill the memory while they are compiled


@dataclass(frozen=True)
class Layout:
    """A NASNet-style stack of cells, in which every edge has all operations of a search space.

    A 3x3 convolution to `channels`, then the cells: number cells // 3 and number 2 * cells // 3, counted from 0, are
    reduction cells, the others normal ones. A reduction cell halves the sides (rounded up) and doubles the channels.

    Args:
        space: a search space, or its name: "darts_fewshot" or "darts".
        cells: cells of the network, from 2 to 1000 (the largest in use have some twenty).
        channels: channels of the first cell, at least 1.
        pixels: height and width of the images; others are resized.
        ways: outputs of the head.
        colours: channels of the images.
        norm: "group" (min(16, C) groups) or "batch".
        stem: whether to begin with the 3x3 convolution; else the images have `channels` channels.
        depth: build the first cells alone, so many.

    Raises:
        InputError: an unknown space or norm, a size below its least, channels that do not fall into equal groups.

    Example:
        >>> layout = Layout(channels=48)
        >>> [(cell.kind, cell.channels, cell.pixels) for cell in layout.stack]
        [(0, 48, 32), (1, 96, 16), (0, 96, 16), (1, 192, 8), (0, 192, 8)]

    Source: Zoph et al. 2018 (NASNet), for the stack; Wang et al. 2022, its code, for the places of the reduction cells
    (those of the network that it trains; the one that it searches has them there, too, for 2, 5, 8, ... cells).
    """

    space: Space | str = "darts_fewshot"
    cells: int = 5
    channels: int = 48
    pixels: int = 32
    ways: int = 5
    colours: int = 3
    norm: str = "group"
    stem: bool = True
    depth: int | None = None

    def __post_init__(self) -> None:
        if isinstance(self.space, str):
            object.__setattr__(self, "space", SPACES[one_of("space", self.space, SPACES)])
        least = {"cells": 2, "channels": 1, "pixels": 1, "ways": 1, "colours": 1, "depth": 1}
        for name, low in least.items():
            value, most = getattr(self, name), MOST_CELLS if name == "cells" else None
            if value is not None or name != "depth":
                object.__setattr__(self, name, whole(name, value, low, most, do="give the network a size"))
        if self.depth is not None and self.depth > self.cells:
            raise bad_input("depth", f"at most cells = {self.cells}", self.depth, "leave it out for all cells")
        one_of("norm", self.norm, NORMS)
        times = sorted({cell.channels // self.channels for cell in self.stack} | {self.features // self.channels})
        if self.norm == "group" and (odd := _uneven(self.channels, times)):
            expected = "widths of a multiple of 16, or below, in all cells and at the end (for group normalisation)"
            below = (count for count in range(self.channels - 1, 0, -1) if not _uneven(count, times))
            above = (count for count in itertools.count(self.channels + 1) if not _uneven(count, times))
            near = [*itertools.islice(below, 1), next(above)]  # every multiple of 16 is even
            do = f"take {' or '.join(map(str, near))} channels"
            raise bad_input("channels", expected, f"{odd[0]} channels somewhere with {self.channels}", do)

    @property
    def reductions(self) -> tuple[int, int]:
        """Which cells are reduction cells, counted from 0."""
        return self.cells // 3, 2 * self.cells // 3

    @property
    def first(self) -> Block:
        """The stem."""
        return (Conv(self.colours, self.channels, (3, 3)), Norm(self.channels, self.norm)) if self.stem else ()

    @cached_property
    def stack(self) -> tuple[Cell, ...]:
        """The cells, first to last."""
        before = ((self.channels, self.pixels), (self.channels, self.pixels))
        cells, channels = [], self.channels
        for number in range(self.cells if self.depth is None else self.depth):
            kind = int(number in self.reductions)
            channels *= 1 + kind
            (c0, p0), (c1, p1) = before
            bring = Halves if p0 != p1 or number - 1 in self.reductions else Conv
            norm = Norm(channels, self.norm)
            pre = (Relu(), bring(c0, channels), norm), (Relu(), Conv(c1, channels), norm)
            edges = tuple(
                tuple(operation(name, channels, 1 + (kind and source < 2), self.norm) for name in self.space.operations)
                for _, source in self.space.edges
            )
            pixels = -(-p1 // (1 + kind))
            cells.append(Cell(kind, channels, before, pixels, pre, edges))
            before = before[1], (self.space.nodes * channels, pixels)
        return tuple(cells)

    @property
    def features(self) -> int:
        """Channels that the head sees."""
        return self.space.nodes * self.stack[-1].channels

    @property
    def last(self) -> Block:
        """What stands between the last cell and the head."""
        return Norm(self.features, self.norm), Relu(), Mean()

    @property
    def head(self) -> Block:
        """The head, without its bias, which moves no kernel here."""
        return (Conv(self.features, self.ways),)

    def blocks_of(self, gates) -> list[tuple[Block, int]]:
        """Every block of the network that gates leave, with the pixels a side that go into it; up to the last cell.

        Args:
            gates: bool `[cell type, edge, operation]`.

        Returns:
            The blocks in the order of the network.

        Example:
            >>> layout = Layout(channels=8, depth=2)
            >>> len(layout.blocks_of(layout.space.open_gates() & False))
            5
        """
        gates = self.space.check_gates(gates)
        found = [(self.first, self.pixels)] if self.stem else []
        for cell in self.stack:
            found += [(pre, pixels) for pre, (_, pixels) in zip(cell.pre, cell.before, strict=True)]
            for (_, source), operations, live in zip(self.space.edges, cell.edges, gates[cell.kind], strict=True):
                for blocks, alive in zip(operations, live, strict=True):
                    size = cell.before[1][1] if source < 2 else cell.pixels
                    for block in blocks if alive else ():
                        found.append((block, size))
                        size = through(block, size)
        return found


def _uneven(channels: int, times: list[int]) -> list[int]:
    """Widths, among so many times the channels, that do not fall into 16 groups or into groups of one."""
    return [width for width in (channels * factor for factor in times) if width % min(16, width)]


def parameter_count(layout: Layout, gates, *, classes: int = 0, norms: bool = True) -> int:
    """Trainable parameters of the network that gates leave, as it is trained in the end.

    That network has no normalisation between its last cell and its head; the super-network has one.

    Args:
        layout: the stack.
        gates: bool `[cell type, edge, operation]`.
        classes: outputs of a head with biases (the 64 base classes of miniImageNet, say); 0 counts no head.
        norms: whether to count a scale and a shift for each normalised channel.

    Returns:
        A count.

    Example:
        >>> from mlkernels.nas.space.genotype import Genotype
        >>> genotype = "N: s3<0 s3<1 | s3<1 s3<2 | c3<0 s3<2   R: s3<0 s3<1 | f5<1 d3<2 | d3<2 d3<3"
        >>> layout = Layout(cells=5, channels=48)
        >>> f"{parameter_count(layout, layout.space.gates_of(Genotype.parse(genotype))) / 1e6:.3f} M"
        '1.724 M'

    Source: Wang et al. 2022, its published genotypes.
    """
    steps = [step for block, _ in layout.blocks_of(gates) for step in block]
    count = sum(math.prod(shape) for step in steps for shape in step.weights)
    if norms:
        count += sum(2 * step.channels for step in steps if isinstance(step, Norm))
    return count + (layout.features + 1) * classes


def flop_count(layout: Layout, gates) -> int:
    """Floating-point operations of one image's forward pass: two for every multiply-add of convolutions and head.

    Args:
        layout, gates: as in `parameter_count`.

    Returns:
        A count. Normalisation, pooling and additions are left out, as is usual.

    Example:
        >>> layout = Layout(channels=4, pixels=8)
        >>> closed = layout.space.open_gates() & False
        >>> flop_count(layout, closed) < flop_count(layout, ~closed)
        True
    """
    total = math.prod(layout.head[0].weights[0])
    for block, pixels in layout.blocks_of(gates):
        size = (pixels, pixels)
        for step in block:
            total += step.multiply_adds(size)
            size = step.out(size)
    return 2 * total
