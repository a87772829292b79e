"""How a score moves as operations weigh more or less: one derivative for all operations on all edges.

Each edge of the super-network averages its operations; with a share for each, the score is a function of the shares.
Its derivative costs a few passes through the network, whatever the number of operations. Neither the Jacobian nor its
derivative is ever held.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from mlkernels.kernels import Kernels, gram
from mlkernels.nas.engine.operations import added, jitted, joined, pullback, run_block, scaled, split
from mlkernels.nas.engine.supernet import check_images, weightless
from mlkernels.nas.space.blocks import Bent, Operation, Relu
from mlkernels.nas.space.layout import Layout

Gate = tuple[int, int, int]  # cell type, edge, operation
Score = Callable[[Kernels], tuple[Array, Array]]  # the derivatives by the NTK and, beside it, by the NNGP


@dataclass(frozen=True)
class _Run:
    """Blocks, one after the other, are run on a value; values count from 0, the images, in the order of the list."""

    blocks: Operation
    weights: tuple
    source: int


@dataclass(frozen=True)
class _Mix:
    """A node: the sum of operations' outputs, each times its share."""

    terms: tuple[tuple[int, Gate], ...]


@dataclass(frozen=True)
class _Join:
    """A cell's output: its nodes side by side, zeros of a shape for one that nothing reaches."""

    sources: tuple[int | None, ...]
    shape: tuple[int, int, int]


def gate_gradients(
    layout: Layout, params: dict, gates, images, score: Score, *, shares=None, heads=None, width: float = 0.0
) -> tuple[Kernels, np.ndarray]:
    r"""The derivative of a function of the kernels by the share of every open operation on every edge.

    With the Jacobian J of the sum of the outputs by all weights, :math:`\Theta = J J^\top` and C the derivative of the
    function by :math:`\Theta`,

    .. math:: \frac{d}{d\alpha} F(\Theta) = 2 \frac{d}{d\alpha} \sum_i \big\langle u_i,\ \partial_W f_i \big\rangle,
              \qquad u = C J \text{ held fixed}

    and the sum on the right is differentiated backwards: through the pass that made the gradients, and then through the
    one that made the outputs. An operation's share multiplies its weights' gradients too; that is counted.

    Args:
        layout, params: as in `gram.sample_kernels`; group normalisation.
        gates: bool `[cell type, edge, operation]`.
        images: `[n, pixels, pixels, colours]`.
        score: the derivatives `[n, n]` of the function by `ntk` and by `nngp` from both (`nngp` is a part of
            `ntk`: its derivative counts what it does beside that).
        shares: float `[cell type, edge, operation]`, what operations' outputs are multiplied by; None averages those
            that are open on an edge.
        heads: a head's sum over its outputs `[n, features]` for each image, instead of that of params.

    Returns:
        The kernels, float64 `[n, n]`, and the derivative sample by sample: float64 `[n, cell type, edge, operation]`,
        of which the sum over samples is the derivative; zero where an operation is closed. Where C has blocks on its
        diagonal, one for each of several draws of images, the sum over a block's samples is that draw's derivative.

    Source: this course; the kernels are those of Wang et al. 2022.
    """
    gates = layout.space.check_gates(gates)
    shares = np.asarray(gates / np.maximum(gates.sum(-1, keepdims=True), 1) if shares is None else shares, float)
    images = check_images(layout, images).astype(params["head"][0].dtype)
    walk = _Walk(_steps(layout, params, gates), shares, images)
    features = walk.forward()
    head = params["head"][0][0, 0].sum(-1)
    heads = jnp.broadcast_to(head, (len(images), len(head))) if heads is None else jnp.asarray(heads, images.dtype)
    nngp = _head_kernel(features, float(layout.ways))
    kernels = Kernels(nngp, walk.backward(heads[:, None, None]) + nngp)
    by_ntk, by_nngp = ((matrix + matrix.T) / 2 for matrix in score(kernels))
    walk.tangents(by_ntk.astype(images.dtype), width)
    walk.backward_again(_head_bar(features, by_ntk + by_nngp, float(layout.ways)))
    found = np.zeros((len(images), *gates.shape))
    for gate, parts in walk.found.items():
        found[(slice(None), *gate)] = 2 * sum(np.asarray(part) for part in parts)
    return kernels, found


def _steps(layout: Layout, params: dict, gates: np.ndarray) -> list[_Run | _Mix | _Join]:
    """The super-network as a list, up to the features; an operation without weights stands once for each source."""
    space, steps = layout.space, []

    def put(step) -> int:
        steps.append(step)
        return len(steps)

    x = put(_Run((layout.first,), (params["stem"],), 0)) if layout.stem else 0
    before = x, x
    for cell, own in zip(layout.stack, params["cells"], strict=True):
        states: list[int | None] = [
            put(_Run((pre,), (weights,), x)) for pre, weights, x in zip(cell.pre, own["pre"], before, strict=True)
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
                        y = put(_Run(blocks, own["edges"][edge][op], source))
                        if weightless(blocks):
                            shared[source, blocks] = y
                    terms.append((y, (cell.kind, edge, int(op))))
            states.append(put(_Mix(tuple(terms))) if terms else None)
        shape = (cell.pixels, cell.pixels, cell.channels)
        before = before[1], put(_Join(tuple(states[2:]), shape))
    put(_Run((layout.last,), ((),), before[1]))
    return steps


class _Walk:
    """Four times through the list: forwards, backwards, forwards with tangents, and backwards with theirs.

    Of an operation's output nothing is kept: it is computed again where it is needed, and so is what comes back to it.

    Attributes:
        found: by gate, what its share's derivative is the sum of, `[n]` each.
    """

    def __init__(self, steps, shares: np.ndarray, images: Array):
        self.steps, self.values = list(enumerate(steps, 1)), {0: images}
        self.share = {}
        self.found: dict[Gate, list[Array]] = {}
        self.uses: dict[int, list[tuple[int, Gate]]] = {}  # of what nodes alone take: which ones
        elsewhere = {0}
        for number, step in self.steps:
            if isinstance(step, _Mix):
                elsewhere.add(number)
                for y, gate in step.terms:
                    self.uses.setdefault(y, []).append((number, gate))
                    self.share[gate] = jnp.asarray(shares[gate], images.dtype)
            elif isinstance(step, _Join):
                elsewhere |= {number, *step.sources}
            else:
                elsewhere.add(step.source)
        self.kept = elsewhere | {len(steps)}
        self.uses = {y: uses for y, uses in self.uses.items() if y not in self.kept}
        self.zero = partial(_zeros, images)

    def forward(self) -> Array:
        passing: dict[int, Array] = {}
        for number, step in self.steps:
            match step:
                case _Run(blocks, weights, source):
                    value = jitted(_run, blocks)(weights, self.values[source])
                case _Mix(terms):
                    value = self._mixed(terms, self.values | passing)
                    passing = {y: x for y, x in passing.items() if self._last(y) > number}
                case _Join(sources, shape):
                    value = joined(*(self.zero(shape) if each is None else self.values[each] for each in sources))
            (self.values if number in self.kept else passing)[number] = value
        return self.values[len(self.steps)]

    def _last(self, y: int) -> int:
        """The last node that takes an operation's output."""
        return self.uses[y][-1][0] if y in self.uses else 0

    def _mixed(self, terms, values) -> Array:
        total = None
        for y, gate in terms:
            share = self.share[gate]
            total = scaled(values[y], share) if total is None else added(total, values[y], share)
        return total

    def backward(self, g: Array) -> Array:
        """The kernel, from the gradient by the features; `behind` keeps those by all that is kept."""
        n = len(g)
        total, self.behind = jnp.zeros((n, n), jnp.zeros(0, float).dtype), {len(self.steps): g}
        for number, step in reversed(self.steps):
            match step:
                case _Run(blocks, weights, source):
                    if (g := self._behind(number)) is not None:
                        by_input, total = jitted(_back, blocks)(weights, self.values[source], g, total)
                        _gather(self.behind, source, by_input)
                case _:
                    self._spread(self.behind, number, step)
        return total

    def _behind(self, number: int) -> Array | None:
        """The gradient by a value; that by an operation's output from those by the nodes that it goes into."""
        if number in self.kept:
            return self.behind.get(number)
        return self._mixed([(mix, gate) for mix, gate in self.uses.get(number, ()) if mix in self.behind], self.behind)

    def _spread(self, behind: dict, number: int, step) -> None:
        """From what comes back to a node or to a cell's output to what it is made of and is kept."""
        if number not in behind:
            return
        if isinstance(step, _Mix):
            for y, gate in step.terms:
                if y in self.kept:
                    _gather(behind, y, scaled(behind[number], self.share[gate]))
        else:
            for source, part in zip(step.sources, split(behind[number], len(step.sources)), strict=True):
                if source is not None:
                    _gather(behind, source, part)

    def tangents(self, C: Array, width: float) -> None:
        """Forwards: how the values move as the weights move along u; and what moves with the shares on the way back."""
        moved, self.bars = {0: jnp.zeros_like(self.values[0])}, {}
        for number, step in self.steps:
            if (g := self._behind(number)) is None:
                continue
            match step:
                case _Run(blocks, weights, source):
                    bar, value = jitted(_second, _bent(blocks, width))(
                        weights, self.values[source], g, moved[source], C
                    )
                    _gather(self.bars, source, bar)
                case _Mix(terms):
                    value = self._mixed(terms, moved)
                    for y, gate in terms:
                        self.found.setdefault(gate, []).append(_dot(moved[y], g))
                    for y in [y for y, _ in terms if y not in self.kept and self._last(y) == number]:
                        del moved[y]
                case _Join(sources, shape):
                    value = joined(*(self.zero(shape) if each is None else moved[each] for each in sources))
            moved[number] = value

    def backward_again(self, bar: Array) -> None:
        """Backwards: the rest, from the derivative by the features of what the head has to do with it."""
        _gather(self.bars, len(self.steps), bar)
        for number, step in reversed(self.steps):
            if isinstance(step, _Run):
                uses = [(mix, gate) for mix, gate in self.uses.get(number, ()) if mix in self.bars]
                bar = self.bars.get(number) if number in self.kept else self._mixed(uses, self.bars)
                if bar is None:
                    continue
                y, by_input = jitted(_again, step.blocks)(step.weights, self.values[step.source], bar)
                for mix, gate in uses:
                    self.found[gate].append(_dot(y, self.bars[mix]))
                _gather(self.bars, step.source, by_input)
            else:
                for y, gate in step.terms if isinstance(step, _Mix) and number in self.bars else ():
                    if y in self.kept:
                        self.found[gate].append(_dot(self.values[y], self.bars[number]))
                self._spread(self.bars, number, step)


def _gather(into: dict, number: int, x: Array) -> None:
    into[number] = added(into[number], x, 1.0) if number in into else x


@partial(jax.jit, static_argnums=1)
def _zeros(images: Array, shape: tuple[int, ...]) -> Array:
    return jnp.zeros((len(images), *shape), images.dtype)


@jax.jit
def _dot(a: Array, b: Array) -> Array:
    """Sample by sample."""
    return (a * b).reshape(len(a), -1).sum(1).astype(jnp.zeros(0, float).dtype)


@jax.jit
def _head_kernel(features: Array, ways) -> Array:
    """The head's part of the kernel: by each output's weights the gradient of the sum of outputs is the features."""
    rows = features.reshape(len(features), -1)
    return ways * jnp.matmul(rows, rows.T, precision="highest").astype(jnp.zeros(0, float).dtype)


@jax.jit
def _head_bar(features: Array, C: Array, ways) -> Array:
    rows = features.reshape(len(features), -1)
    return (ways * (C @ rows.astype(C.dtype))).astype(features.dtype).reshape(features.shape)


def _bent(blocks: Operation, width: float) -> Operation:
    if not width:
        return blocks
    return tuple(tuple(Bent(width) if type(step) is Relu else step for step in block) for block in blocks)


def _run(blocks, weights, x):
    for block, own in zip(blocks, weights, strict=True):
        x = run_block(block, own, x)
    return x


def _gradients(blocks, weights, x, g):
    """Sample by sample the gradients by the weights of all blocks, and that by the input."""
    inputs, found = [], []
    for block, own in zip(blocks, weights, strict=True):
        inputs.append(x)
        x = run_block(block, own, x)
    for block, own, x in zip(reversed(blocks), reversed(weights), reversed(inputs), strict=True):
        more, g = pullback(block, own, x)(g)
        found += [leaf.reshape(len(leaf), -1) for leaf in more]
    return found, g


def _back(blocks, weights, x, g, total):
    found, by_input = _gradients(blocks, weights, x, g)
    if found:
        rows = [leaf[:, None] for leaf in found]
        total = total + gram(rows, rows, "sum").astype(total.dtype)
    return by_input, total


def _second(blocks, weights, x, g, moved, C, width=0.0):
    """Backwards through `_gradients`: u = C J goes into those by the weights, what moved into that by the input.

    What comes out at x is a part of the derivative by it, and what comes out at g is how the output moves.
    """
    from mlkernels.nas.engine import operations

    operations.WIDTH[0] = width
    (found, _), pull = jax.vjp(partial(_gradients, blocks, weights), x, g)
    return pull(([C @ leaf for leaf in found], moved))


def _again(blocks, weights, x, bar):
    y, pull = jax.vjp(partial(_run, blocks, weights), x)
    return y, pull(bar)[0]
