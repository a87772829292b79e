"""The weights of a super-network, drawn all at once."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mlkernels.errors import bad_input
from mlkernels.nas.space.blocks import Block, Conv
from mlkernels.nas.space.layout import Layout
from mlkernels.support.arguments import one_of
from mlkernels.support.typed import typed

INITIALISATIONS = ("uniform", "fan_in", "fan_out")


def init(layout: Layout, *, key: Array, initialisation: str = "uniform", dtype=jnp.float32) -> dict:
    """Draw all weights of the super-network, those of every operation on every edge.

    Args:
        layout: the stack.
        key: a key.
        initialisation: "uniform" within 1 / sqrt(fan in) of zero, or normal with the variance 2 / "fan_in" or
            2 / "fan_out" (where, as in PyTorch, a depthwise convolution's fan out counts all channels). The head is
            uniform always.
        dtype: float32 or float64.

    Returns:
        `{"stem": ..., "cells": [...], "head": ...}`; each block's weights are a tuple of arrays.

    Raises:
        InputError: an unknown initialisation or dtype.

    Example:
        >>> layout = Layout(channels=2, pixels=8, depth=2)
        >>> [w.shape for w in init(layout, key=jax.random.key(0))["head"]]
        [(1, 1, 12, 5)]

    Source: PyTorch's defaults, with which the reference's search runs (it asks for another, by a name that it does not
    know); He et al. 2015.
    """
    one_of("initialisation", initialisation, INITIALISATIONS)
    dtype = np.dtype(dtype)
    if dtype not in (np.float32, np.float64) or (dtype == np.float64 and not jax.config.jax_enable_x64):
        raise bad_input("dtype", "float32, or float64 in 64-bit JAX", dtype, "take float32")
    blocks = [layout.first, layout.head]
    for cell in layout.stack:
        blocks += [*cell.pre, *(block for edge in cell.edges for blocks in edge for block in blocks)]
    total = sum(math.prod(shape) for block in blocks for step in block for shape in step.weights)
    # One draw, cut up on the host: a draw a weight would be compiled for each shape.
    body, last = jax.random.split(key)
    draw = jax.random.normal if initialisation != "uniform" else _uniform
    numbers, taken = np.asarray(draw(body, (total,), dtype)), 0

    def weights(block: Block) -> tuple[Array, ...]:
        nonlocal taken
        found = []
        for step in block:
            for shape in step.weights:
                count = math.prod(shape)
                scale = _scale(step, shape, initialisation)
                found.append(jnp.asarray((numbers[taken : taken + count] * scale).astype(dtype).reshape(shape)))
                taken += count
        return tuple(found)

    cells = [
        {
            "pre": tuple(map(weights, cell.pre)),
            "edges": [[tuple(map(weights, blocks)) for blocks in edge] for edge in cell.edges],
        }
        for cell in layout.stack
    ]
    return {"stem": weights(layout.first), "cells": cells, "head": (head(layout, last, dtype),)}


@typed
def head(layout: Layout, key: Array, dtype=jnp.float32) -> Float[Array, "1 1 features ways"]:
    """Draw the weights of a head alone, uniform within 1 / sqrt(features) of zero.

    Args:
        layout: the stack.
        key: a key.
        dtype: float32 or float64.

    Returns:
        `[1, 1, features, ways]`.

    Example:
        >>> layout = Layout(channels=2, pixels=8, depth=2)
        >>> (head(layout, jax.random.key(0)) == init(layout, key=jax.random.key(0))["head"][0]).all().item()
        False

    Source: PyTorch's default.
    """
    return _uniform(key, layout.head[0].weights[0], dtype) / math.sqrt(layout.features)


def _uniform(key: Array, shape, dtype) -> Array:
    return jax.random.uniform(key, shape, dtype, -1.0, 1.0)


def _scale(step, shape: tuple[int, ...], initialisation: str) -> float:
    depthwise = isinstance(step, Conv) and step.depthwise
    taps = math.prod(shape[:2])
    fan_in = taps if depthwise else taps * shape[2]
    if initialisation == "uniform":
        return 1 / math.sqrt(max(fan_in, 1))
    return math.sqrt(2 / max(fan_in if initialisation == "fan_in" else taps * shape[-1], 1))
