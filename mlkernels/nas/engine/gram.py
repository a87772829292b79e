"""Kernels of per-sample gradients of the super-network, added up block by block.

Backwards each block is run again from its input, and the Gram of its gradients is added to the kernel at once: neither
the Jacobian nor what goes on inside the blocks is ever held, only what went into each.
"""

from __future__ import annotations

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from mlkernels.errors import bad_input
from mlkernels.kernels import OUTPUTS, Kernels
from mlkernels.nas.engine.devices import placed, sharding_of
from mlkernels.nas.engine.operations import added, backward, forward, no_gradient, scaled, split
from mlkernels.nas.engine.supernet import Record, check_images, run_cells, weightless
from mlkernels.nas.space.blocks import Block
from mlkernels.nas.space.layout import Layout
from mlkernels.support.arguments import one_of
from mlkernels.support.memory import require


def sample_kernels(
    layout: Layout, params: dict, gates, images, *, outputs: str = "sum", directions=None, heads=None, sharding=None,
) -> Kernels:  # fmt: skip
    r"""Kernels of per-sample gradients over the weights of convolutions and head, added up layer by layer.

    .. math:: \Theta(x, x') = \sum_{layers\ l} \langle \partial_{W_l} F(x), \partial_{W_l} F(x') \rangle, \qquad
              F = \sum_c f_c \ \text{("sum")}

    Args:
        layout, params: as in `logits`; group normalisation, as a sample's gradient is its own only there.
        gates: bool `[cell type, edge, operation]`, or `[A, ...]` for A architectures in one pass.
        images: `[n, pixels, pixels, colours]`, or `[A, n, ...]`.
        outputs: "sum" (the reference's choice), "trace" (the mean over outputs of each output's kernel) or "full".
        directions: instead of the sum of outputs, the gradient by the outputs `[n, ways]` that goes back.
        heads: weights `[A, 1, 1, features, ways]` of a head for each architecture, instead of the one of params.
        sharding: of the first axis over devices, A a multiple of their number; params then lie on all of them.

    Returns:
        `Kernels`: the Gram of these gradients is `ntk`, the head's part of it `nngp`. Each `[n, n]`, or
        `[n*ways, n*ways]` for "full", with A before that if gates have it; float64 in 64-bit JAX.

    Raises:
        InputError: batch normalisation, gates, images or outputs that do not fit, too little memory.

    Example:
        >>> from mlkernels.nas.engine.weights import init
        >>> layout = Layout(channels=2, pixels=8, depth=2)
        >>> params = init(layout, key=jax.random.key(0))
        >>> gates = layout.space.open_gates()
        >>> gates[..., 1:] = False
        >>> sample_kernels(layout, params, gates, jax.random.normal(jax.random.key(1), (3, 8, 8, 3))).ntk.shape
        (3, 3)

    Source: Wang et al. 2022, its code, for the sum and for which weights count.
    """
    one_of("outputs", outputs, OUTPUTS)
    if layout.norm != "group":
        do = "make the Layout with norm='group'"
        raise bad_input("norm", "group normalisation for per-sample gradients", repr(layout.norm), do)
    dtype = params["head"][0].dtype
    gates = np.asarray(gates)
    one = gates.ndim < 4
    gates = np.stack([layout.space.check_gates(each) for each in (gates[None] if one else gates)])
    images = check_images(layout, images, 4 if one else 5).astype(dtype)
    if not one and len(images) != len(gates):
        do = "give each architecture its images"
        raise bad_input("images", f"those of {len(gates)} architectures", f"{len(images)}", do)
    images = images.reshape(-1, *images.shape[-3:])
    if sharding is not None:
        images = placed(np.asarray(images), sharding)
    back = 1 if outputs == "sum" or directions is not None else layout.ways
    where = sharding_of(images)
    per_device = len(images) if where is None else where.shard_shape(images.shape)[0]
    needed = bytes_needed(layout, per_device, back, dtype.itemsize)
    require(needed, f"kernels of {per_device} images", "take fewer tasks, or fewer candidates at a time")
    x, records = run_cells(layout, params, gates, images)
    features = forward(layout.last, (), x)
    g = _ways(features, layout.ways, outputs) if directions is None else jnp.asarray(directions, dtype)[None]
    rows = len(images) // len(gates) * (back if outputs == "full" else 1)
    total = placed(np.zeros((len(gates), rows, rows), jnp.zeros(0, float).dtype), where)
    ones = placed(np.ones((len(images), 1, 1, 1), dtype), where)
    tape = _Tape(outputs, back, total, ones)
    by_outputs, g = g, tape.back(layout.head, params["head"], features, g[:, :, None, None])
    nngp = tape.total  # in which a head's weights do not stand
    if heads is not None:
        g = _through(by_outputs, _own_heads(heads, len(gates), len(images), dtype, where))
    behind: list[Array | None] = [None] * (len(records) + 1)  # gradients by the stem's output and by each cell's
    behind[-1] = tape.back(layout.last, (), x, g)
    for number in reversed(range(len(records))):
        record = records.pop()
        pair = _back_cell(tape, layout, record, behind.pop())
        for place, pre, weights, before, g in zip(
            (max(number - 1, 0), number), record.cell.pre, record.weights["pre"], record.before, pair, strict=True
        ):
            if g is not None:
                behind[place] = tape.back(pre, weights, before, g, into=behind[place])
        jax.block_until_ready(tape.total)  # else what is queued up holds memory
    if layout.stem and behind[0] is not None:
        tape.back(layout.first, params["stem"], images, behind[0])
    return Kernels(nngp[0], tape.total[0]) if one else Kernels(nngp, tape.total)


@partial(jax.jit, static_argnums=(1, 2))
def _ways(features: Array, ways: int, outputs: str) -> Array:
    """The gradients by the outputs that go back, `[k, n, ways]`."""
    directions = jnp.ones((1, ways)) if outputs == "sum" else jnp.eye(ways)
    shape = (len(directions), len(features), ways)
    return jnp.broadcast_to(directions[:, None], shape).astype(features.dtype)


def _own_heads(heads, architectures: int, images: int, dtype, sharding) -> Array:
    """The head of each image's architecture, `[n, features, ways]`."""
    heads = np.asarray(heads, dtype)
    if heads.ndim != 5 or len(heads) != architectures:
        expected = f"[{architectures}, 1, 1, features, ways]"
        raise bad_input("heads", expected, list(heads.shape), "give each architecture a head")
    return placed(np.repeat(heads[:, 0, 0], images // architectures, axis=0), sharding)


@jax.jit
def _through(g: Array, heads: Array) -> Array:
    """The gradients by the features, `[k, n, 1, 1, features]`, from those by the outputs, `[k, n, ways]`."""
    return jnp.einsum("knw,nfw->knf", g, heads)[:, :, None, None]


class _Tape:
    """Goes back block by block and gathers the kernel."""

    def __init__(self, outputs: str, k: int, total: Array, ones: Array):
        self.outputs, self.k, self.total = outputs, k, total
        self.ones = ones  # as factors are: a number would have the blocks compiled anew
        self.zeros: dict = {}

    def zero(self, x: Array) -> Array:
        if x.shape not in self.zeros:
            self.zeros[x.shape] = no_gradient(x, self.k)
        return self.zeros[x.shape]

    def back(self, block: Block, weights, x: Array, g: Array, factor=1.0, into: Array | None = None) -> Array:
        into = self.zero(x) if into is None else into
        g, self.total = backward(block, self.outputs, weights, x, g, factor, into, self.total)
        return g

    def back_operation(self, blocks, weights, inputs: list[Array], g: Array, factor, into: Array | None) -> Array:
        """Back through an operation."""
        if not blocks:
            return scaled(g, factor) if into is None else added(into, g, factor)
        for place in reversed(range(len(blocks))):
            g = self.back(blocks[place], weights[place], inputs[place], g, factor, into if place == 0 else None)
            factor = self.ones
        return g


def _back_cell(tape: _Tape, layout: Layout, record: Record, g: Array | None) -> list[Array | None]:
    """The gradients by a cell's two preprocessed inputs; None where nothing comes back."""
    if g is None:
        return [None, None]
    cell, nodes = record.cell, layout.space.nodes
    by_state: list[Array | None] = [None, None, *split(g, nodes)]
    waiting: dict = {}  # gradients behind operations without weights, gathered over the edges from one source

    def settle(source: int) -> None:
        for start, blocks in [each for each in waiting if each[0] == source]:
            g = waiting.pop((start, blocks))
            inputs = [record.states[source]]
            by_state[source] = tape.back_operation(blocks, [()] * len(blocks), inputs, g, tape.ones, by_state[source])

    for node in reversed(range(nodes)):
        settle(2 + node)
        g = by_state[2 + node]
        by_state[2 + node] = None
        for edge, source, op, factor, inputs in record.live[node]:
            blocks = cell.edges[edge][op]
            if weightless(blocks):
                held = waiting.get((source, blocks))
                waiting[source, blocks] = scaled(g, factor) if held is None else added(held, g, factor)
                continue
            weights = record.weights["edges"][edge][op]
            by_state[source] = tape.back_operation(blocks, weights, inputs, g, factor, by_state[source])
    settle(0)
    settle(1)
    return by_state[:2]


def bytes_needed(layout: Layout, images: int, outputs: int = 1, itemsize: int = 4) -> int:
    """About how much memory `sample_kernels` needs: weights, what stays on the tape, and room for one block."""
    weights, tape, largest = 0, 0, 0
    for cell in layout.stack:
        steps = [step for edge in cell.edges for blocks in edge for block in blocks for step in block]
        weights += sum(math.prod(shape) for step in steps for shape in step.weights)
        pre = [cell.channels * cell.before[1][1] ** 2] * 2
        node = cell.channels * cell.pixels**2
        inner = sum(len(blocks) - 1 for edge in cell.edges for blocks in edge if blocks)
        tape += sum(pre) + (2 * layout.space.nodes + inner) * node
        largest = max(largest, *pre, node, *(channels * pixels**2 for channels, pixels in cell.before))
    return itemsize * (weights + images * (tape + (8 + 8 * outputs) * largest))
