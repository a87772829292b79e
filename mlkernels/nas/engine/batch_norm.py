"""Blocks whose normalisation is trained: BatchNorm with scale and shift, and statistics that run along for later."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import ArrayLike, Float

from mlkernels.errors import bad_input
from mlkernels.nas.engine.lowering import EPSILON, standardised
from mlkernels.nas.engine.operations import jitted, run_step
from mlkernels.nas.space.blocks import Block, Norm
from mlkernels.support.typed import typed

MOMENTUM = 0.1  # of the running statistics, as in PyTorch


@typed
def batch_norm(
    x: Float[ArrayLike, "N H W C"], scale: Float[ArrayLike, " C"], shift: Float[ArrayLike, " C"],
    running: tuple[Array, Array], train: bool,
):  # fmt: skip
    r"""BatchNorm as in PyTorch: y in the type of x, and the running statistics.

    .. math:: y = \gamma \frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}} + \beta, \qquad
              r \leftarrow 0.9\, r + 0.1\, (\mu,\ \tfrac{N}{N - 1} \sigma^2)

    Mean and variance are those of the N pixels of the batch in training, else the running ones. An x of half precision
    is normalised in the type of `scale`. A single pixel is refused in training: one number has no variance.

    Source: Ioffe and Szegedy 2015; PyTorch's momentum, epsilon and unbiased running variance.
    """
    wide = x.astype(scale.dtype)
    scale, shift = scale[None, None, None], shift[None, None, None]
    if not train:
        mean, variance = (numbers[None, None, None] for numbers in running)
        return ((wide - mean) * (lax.rsqrt(variance + EPSILON) * scale) + shift).astype(x.dtype), running
    count = x.size // x.shape[-1]
    if count < 2:
        raise bad_input("images", "two pixels or more at each norm, in training", count, "give a larger batch")
    y, mean, variance = standardised(wide)
    now = mean, variance * (count / (count - 1))
    moved = tuple((1 - MOMENTUM) * old + MOMENTUM * new for old, new in zip(running, now, strict=True))
    return (y * scale + shift).astype(x.dtype), moved


def run(train: bool, block: Block, params, statistics, x: Array) -> tuple[Array, tuple]:
    """A block's output, and its running statistics.

    For each step there is a tuple of arrays, its weights (which convolutions use in the type of x) or a norm's scale
    and shift, and one of a norm's mean and variance, else empty. In training norms use this batch's own.
    """
    moved = []
    for step, own, running in zip(block, params, statistics, strict=True):
        if isinstance(step, Norm):
            x, running = batch_norm(x, *own, running, train)
        else:
            x = run_step(step, iter([w.astype(x.dtype) for w in own]), x)
        moved.append(running)
    return x, tuple(moved)


def forward(train: bool, block: Block, params, statistics, x: Array) -> tuple[Array, tuple]:
    """`run`, jitted: compiled once for a block and shape, whatever architecture it is of."""
    return jitted(run, train, block)(params, statistics, x)


def backward(block: Block, params, statistics, x: Array, g: Array):
    """Gradients by a block's params and by its input in training, from that by its output, g; jitted.

    The block is run again, so that its insides need no room.
    """
    return jitted(_backward, block)(params, statistics, x, g)


def _backward(block, params, statistics, x, g):
    return jax.vjp(lambda params, x: run(True, block, params, statistics, x)[0], params, x)[1](g)


def fresh(block: Block, dtype) -> tuple:
    """Statistics of a network that has seen nothing: mean 0, variance 1."""
    return tuple(
        (jnp.zeros(step.channels, dtype), jnp.ones(step.channels, dtype)) if isinstance(step, Norm) else ()
        for step in block
    )
