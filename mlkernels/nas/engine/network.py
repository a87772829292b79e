"""The derived network: an architecture as it is trained in the end, with BatchNorm and a classifier of base classes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from mlkernels.errors import bad_input
from mlkernels.nas.engine.batch_norm import forward as forward_block
from mlkernels.nas.engine.batch_norm import fresh
from mlkernels.nas.engine.graph import Plan, Run, forward, plan_of
from mlkernels.nas.engine.supernet import check_images
from mlkernels.nas.engine.weights import init as init_supernet
from mlkernels.nas.space.blocks import Block, Norm
from mlkernels.nas.space.genotype import CELL_TYPES, Genotype
from mlkernels.nas.space.layout import Layout
from mlkernels.support.array_arguments import one_key
from mlkernels.support.typed import typed


class Variables(NamedTuple):
    """What a network consists of. A JAX pytree.

    Attributes:
        params: what is trained: `{"blocks": [...], "head": (weights [features, classes], biases [classes])}`; a block
            is a tuple with an entry a step: a convolution's weights, or scale and shift of a norm.
        statistics: what runs along: for each block a tuple with an entry a step, a norm's mean and variance.
    """

    params: dict
    statistics: list


@dataclass(frozen=True)
class Network:
    """An architecture on a stack of cells, its head for the base classes.

    As the super-network, but each edge has one operation; BatchNorm has scale, shift and running statistics; nothing
    stands between the last cell and the mean over its pixels, which are the features; the head has a bias.

    Args:
        layout: the stack, with `norm="batch"` and as many `ways` as there are base classes.
        genotype: an architecture of the layout's space, or its text in either notation.

    Raises:
        InputError: another norm, a genotype of another space.

    Example:
        >>> text = "N: s3<0 s3<1 | s3<1 s3<2 | c3<0 s3<2   R: s3<0 s3<1 | f5<1 d3<2 | d3<2 d3<3"
        >>> network = Network(Layout(pixels=84, ways=64, norm="batch"), text)
        >>> network.features, network.classes
        (576, 64)

    Source: Wang et al. 2022, its code (AugmentCNN); notebooks/04_metantk_nas.
    """

    layout: Layout
    genotype: Genotype

    def __post_init__(self) -> None:
        if not isinstance(self.layout, Layout) or self.layout.norm != "batch" or self.layout.depth is not None:
            raise bad_input("layout", "a whole Layout with norm='batch'", self.layout, "make one: nas.Layout()")
        if isinstance(self.genotype, str):
            object.__setattr__(self, "genotype", Genotype.parse(self.genotype))
        if not isinstance(self.genotype, Genotype):
            raise bad_input("genotype", "a Genotype or its text", repr(self.genotype), "give what a search has found")
        _ = self.gates  # which refuses what is not of the layout's space

    @cached_property
    def gates(self) -> np.ndarray:
        """The gates that leave this architecture: bool `[cell type, edge, operation]`."""
        return self.layout.space.gates_of(self.genotype)

    @property
    def features(self) -> int:
        """Numbers that the network makes of an image."""
        return self.layout.features

    @property
    def classes(self) -> int:
        """Outputs of the head."""
        return self.layout.ways

    @cached_property
    def plan(self) -> Plan:
        """The list of what is done."""
        return plan_of(self.layout, self.genotype)

    @property
    def blocks(self) -> list[Block]:
        """The blocks in the order of `Variables`."""
        return [step.block for step in self.plan if isinstance(step, Run)]

    @property
    def nodes(self) -> int:
        """Nodes of all cells together."""
        return len(self.layout.stack) * self.layout.space.nodes


def init(network: Network, *, key: Array, initialisation: str = "uniform", dtype=jnp.float32) -> Variables:
    """Draw the weights of a network.

    They are those that `weights.init` draws for the super-network of this layout with this key, so that two
    architectures have the same weights where they have the same operation on an edge. The head and its bias are uniform
    always. Scales are 1, shifts 0.

    Source: PyTorch's defaults, with which the reference trains.
    """
    one_key(key)
    body, bias = jax.random.split(key)
    drawn = init_supernet(network.layout, key=body, initialisation=initialisation, dtype=dtype)
    left, blocks = iter(_in_order(network, drawn)), []
    for block in network.blocks:
        weights = iter(next(left))
        blocks.append(
            tuple(
                (jnp.ones(step.channels, dtype), jnp.zeros(step.channels, dtype))
                if isinstance(step, Norm)
                else tuple(next(weights) for _ in step.weights)
                for step in block
            )
        )
    bound = 1 / math.sqrt(network.features)
    head = drawn["head"][0][0, 0], jax.random.uniform(bias, (network.classes,), dtype, -bound, bound)
    statistics = [fresh(block, dtype) for block in network.blocks]
    return Variables({"blocks": blocks, "head": head}, statistics)


def _in_order(network: Network, drawn: dict) -> list:
    """A super-network's weights, of the blocks that the architecture has, in the plan's order."""
    found, space = [drawn["stem"]] if network.layout.stem else [], network.layout.space
    for cell, weights in zip(network.layout.stack, drawn["cells"], strict=True):
        found += weights["pre"]
        for node, chosen in enumerate(getattr(network.genotype, CELL_TYPES[cell.kind])):
            for name, source in chosen:
                found += weights["edges"][space.edges.index((node, source))][space.operations.index(name)]
    return found


def apply(
    network: Network, variables: Variables, images: Array, *, drop: float = 0.0, key: Array | None = None,
    train: bool = False,
):  # fmt: skip
    r"""The network's outputs `[n, classes]`, block by block; under `jax.jit` it is one piece.

    .. math:: f(x) = W^\top \overline{h}(x) + b

    with h the last cell's output and the mean taken over its pixels. The type of the images, which are normalised, is
    what blocks compute in. In training this batch's mean and variance are used, the new statistics come back, too, and
    with the probability `drop` an operation's output is dropped for a sample (identity skips stay); what is kept is
    divided by 1 - drop.
    """
    images = check_images(network.layout, images)
    if isinstance(drop, bool) or not isinstance(drop, (int, float)) or not 0 <= drop < 1:
        raise bad_input("drop", "a probability of at least 0 and below 1", drop, "choose such a number")
    masks = None
    if train and drop:
        one_key(key)
        masks = drop_masks(key, drop, network.nodes, len(images), images.dtype)
    params, statistics = variables
    x, moved = forward(network.plan, params["blocks"], statistics, images, partial(forward_block, train), masks)
    outputs = head(params["head"], x)
    return (outputs, moved) if train else outputs


@typed
def features(network: Network, variables: Variables, images: Float[ArrayLike, "N H H C"]) -> Float[Array, "N d"]:
    """The features of images, `[n, features]`: the last cell's output, its mean over pixels."""
    params, statistics = variables
    images = check_images(network.layout, images)
    x, _ = forward(network.plan, params["blocks"], statistics, images, partial(forward_block, False))
    return pooled(x, params["head"][0].dtype)


@partial(jax.jit, static_argnums=1)
def pooled(x: Array, dtype) -> Array:
    """The mean over pixels of `[n, height, width, channels]`."""
    return x.astype(dtype).mean((1, 2))


@jax.jit
def head(params: tuple[Array, Array], x: Array) -> Array:
    """Outputs `[n, classes]` of the last cell's output."""
    weights, bias = params
    return pooled(x, weights.dtype) @ weights + bias[None]


@partial(jax.jit, static_argnums=(2, 3, 4))
def drop_masks(key: Array, drop, nodes: int, images: int, dtype) -> tuple[Array, ...]:
    """For each node `[2, n, 1, 1, 1]`, the factors on its two edges: 0 with probability `drop`, else 1 / (1 - drop)."""
    keep = 1 - jnp.asarray(drop, jnp.float32)  # else 64-bit JAX would draw other numbers
    kept = jax.random.bernoulli(key, keep, (nodes, 2, images, 1, 1, 1))
    return tuple((kept.astype(keep.dtype) / keep).astype(dtype))
