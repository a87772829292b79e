"""What a run's functions do, in a few numbers, by which a checkpoint knows them where their text does not tell."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mlkernels.tasks import TaskBatch

BLOCKS = 1024  # numbers of an array that are kept at most
_GOLDEN = (5**0.5 - 1) / 2


def sketch(tree, digits: float = 0.5) -> np.ndarray:
    """Sums of a tree's arrays, and how far those of an equal tree may lie from them: `[2, pieces of all arrays]`.

    Each array is cut into `BLOCKS` pieces or fewer, and each piece is added up with weights from 1 to 2, so that an
    exchange of two numbers shows. Floating-point numbers may differ by a share of the array's largest, whole ones not
    at all. The share is eps to the power of `digits`: another machine, which adds in another order, stays far within.
    """
    sketches = [np.zeros((2, 0))]
    for leaf in jax.tree.leaves(tree):
        array = np.asarray(leaf)
        flat, share = array.ravel(), 0.0
        if jnp.issubdtype(array.dtype, jnp.inexact):
            share = float(jnp.finfo(array.dtype).eps) ** digits
        size = max(1, -(-flat.size // BLOCKS))
        weights = 1 + np.arange(size) * _GOLDEN % 1
        pieces = [flat[start : start + size].astype(float) for start in range(0, flat.size, size)]
        largest = max((float(np.abs(piece).max()) for piece in pieces), default=0.0)
        sums = [float(piece @ weights[: len(piece)]) for piece in pieces]
        sketches.append(np.array([sums, [share * largest] * len(sums)]).reshape(2, -1))
    return np.concatenate(sketches, axis=1)


def same(then: np.ndarray, now: np.ndarray) -> bool:
    """Whether two sketches are of equal trees."""
    if then.shape != now.shape:
        return False
    with np.errstate(invalid="ignore"):  # infinities are equal, though their difference is none
        near = np.abs(then[0] - now[0]) <= np.maximum(then[1], now[1])
    return bool((near | (then[0] == now[0]) | (np.isnan(then[0]) & np.isnan(now[0]))).all())


def probe(apply, params, first: TaskBatch, optimizer, opt_state, trained) -> dict[str, np.ndarray]:
    """Sketches of what a run begins with: its first batch, the network's outputs on it, the optimiser's first update.

    The outputs need agree in a third of their digits alone, since some accelerators multiply float32 in fewer bits.
    """
    outputs = apply(params, first.support_x[0])
    gradient = jax.tree.map(lambda leaf: leaf + 1, trained)  # any will do that is the same again
    with jax.numpy_dtype_promotion("standard"):  # as in the outer loop's step
        update = optax.with_extra_args_support(optimizer).update(gradient, opt_state, trained, value=jnp.ones(()))
    return {"first batch": sketch(first), "network's outputs": sketch(outputs, 1 / 3), "first update": sketch(update)}
