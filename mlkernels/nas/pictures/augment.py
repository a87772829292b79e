"""Augmentation for training: random crop with padding, colour jitter, flip, on uint8 batches on the device.

Every operation is a pure function of images and drawn numbers; `draw` makes the numbers and `augment` does it all in
one compiled call. The definitions are torchvision's for float images in [0, 1]. Its pipelines of 8-bit Pillow images,
which most few-shot code trains on, cut each step off to a whole grey level: they differ by about three levels of 255
after three steps.
"""

from __future__ import annotations

from functools import partial
from itertools import permutations
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from mlkernels.errors import bad_input
from mlkernels.nas.pictures.pixels import (
    apply_crop,
    apply_flip,
    apply_jitter,
    check_images,
    normalise,
    standardise,
    statistics,
    to_unit,
)
from mlkernels.support.arguments import whole
from mlkernels.support.array_arguments import float_type, one_key

__all__ = ["Draws", "apply_crop", "apply_drawn", "apply_flip", "apply_jitter", "augment", "draw", "normalise"]

ORDERS = tuple(permutations(range(3)))  # in which brightness, contrast and saturation can follow each other


class Draws(NamedTuple):
    """What was drawn for a batch of N images. A JAX pytree.

    Args:
        corners: int `[N, 2]`, row and column of the crop in the padded image, 0 to 2*padding.
        factors: float `[N, 3]`, of brightness, contrast and saturation; 1 changes nothing.
        order: int `[N, 3]`, the jitter's operations as they follow each other: 0 brightness, 1 contrast, 2 saturation.
        flipped: bool `[N]`.
    """

    corners: Array
    factors: Array
    order: Array
    flipped: Array


def augment(
    images: Array,
    *,
    key: Array,
    mean: Array,
    std: Array,
    padding: int = 8,
    jitter: float | tuple[float, float, float] = 0.4,
    flip: float = 0.5,
    dtype=None,
) -> Array:
    """Augment a batch for training: crop, jitter, flip, normalise, each image with its own draw.

    x -> (flip(jitter(crop(x) / 255)) - mean) / std

    The defaults are those of 84x84 images; 32x32 ones are usually padded by 4. Compiled once for each shape.

    Args:
        images: uint8 `[N, H, W, C]`, C = 1 or 3; of an array on the device nothing is copied to the host.
        key: JAX key.
        mean: float `[C]`, of pixels in [0, 1], as `Dataset.mean`.
        std: float `[C]`, above 0, as `Dataset.std`.
        padding: black pixels around the image, of which a window of its own size is cut; at least 0.
        jitter: strength b of brightness, contrast and saturation, one number or three, at least 0: each factor is
            uniform from max(0, 1 - b) to 1 + b, and the three follow each other in random order.
        flip: probability of a horizontal flip.
        dtype: of the result; None is JAX's default float.

    Returns:
        float `[N, H, W, C]`.

    Raises:
        InputError: images of another type or shape, a number out of its range.

    Example:
        >>> images = np.full((2, 84, 84, 3), 128, np.uint8)
        >>> augment(images, key=jax.random.key(0), mean=np.full(3, 0.5), std=np.full(3, 0.25)).shape
        (2, 84, 84, 3)

    Source: "transform A" of the published MetaNTK-NAS and RFS code (which pads by 8, jitters by 0.4, flips by halves).
    """
    check_images(images)
    if images.dtype != np.uint8:
        raise bad_input("images", "uint8", images.dtype, "give the dataset's pixels as they are, 0 to 255")
    one_key(key)
    dtype = float_type(dtype)
    mean, std = statistics(mean, std, images.shape[-1])
    images = jnp.asarray(images)
    return _augment(images, key, mean, std, _strengths(jitter), _probability(flip), whole("padding", padding), dtype)


def apply_drawn(images: Array, drawn: Draws, *, mean: Array, std: Array, padding: int = 8, dtype=None) -> Array:
    """What `augment` does with a batch once everything is drawn: so that an image looks the same in any batch.

    Args:
        images: uint8 `[N, H, W, C]`, C = 1 or 3.
        drawn: from `draw` with this padding, one draw an image.
        mean, std, padding, dtype: as in `augment`.

    Returns:
        float `[N, H, W, C]`.

    Raises:
        InputError: images of another shape, another number of draws.

    Example:
        >>> images, told = np.full((2, 84, 84, 3), 128, np.uint8), {"mean": np.full(3, 0.5), "std": np.full(3, 0.25)}
        >>> drawn = draw(2, key=jax.random.key(0))
        >>> bool((apply_drawn(images, drawn, **told) == augment(images, key=jax.random.key(0), **told)).all())
        True

    Source: as `augment`; the support images of few-shot evaluation.
    """
    check_images(images)
    mean, std = statistics(mean, std, images.shape[-1])
    return _apply_drawn(jnp.asarray(images), drawn, mean, std, whole("padding", padding), float_type(dtype))


def draw(
    count: int,
    *,
    key: Array,
    padding: int = 8,
    jitter: float | tuple[float, float, float] = 0.4,
    flip: float = 0.5,
    dtype=None,
) -> Draws:
    """What `augment` draws for `count` images with this key.

    Args:
        count: N, at least 1.
        key: JAX key.
        padding: as in `augment`; likewise `jitter` and `flip`.
        dtype: of the factors; None is JAX's default float.

    Returns:
        `Draws`: corners uniform on 0..2*padding, factors uniform, all 6 orders equally likely, flips by coin toss. The
        same in 32- and 64-bit JAX, the factors for the same `dtype`.

    Raises:
        InputError: a number out of its range.

    Example:
        >>> drawn = draw(1000, key=jax.random.key(0))
        >>> drawn.corners.max().item(), drawn.factors.shape, sorted(drawn.order[0].tolist())
        (16, (1000, 3), [0, 1, 2])
    """
    whole("count", count, 1)
    one_key(key)
    return _draw(key, _strengths(jitter), _probability(flip), count, whole("padding", padding), float_type(dtype))


@partial(jax.jit, static_argnames=("padding", "dtype"))
def _augment(images, key, mean, std, strengths, probability, padding, dtype) -> Array:
    drawn = _draw(key, strengths, probability, len(images), padding, dtype)
    return _by(images, drawn, mean, std, padding, dtype)


def _by(images, drawn: Draws, mean, std, padding: int, dtype) -> Array:
    cut = apply_crop(images, drawn.corners, padding)  # first, as its black counts in the mean of the contrast
    coloured = apply_jitter(to_unit(cut, dtype), drawn.factors, drawn.order)
    return standardise(apply_flip(coloured, drawn.flipped), mean, std)


_apply_drawn = jax.jit(_by, static_argnums=(4, 5))


@partial(jax.jit, static_argnames=("count", "padding", "dtype"))
def _draw(key, strengths, probability, count, padding, dtype) -> Draws:
    corner_key, factor_key, order_key, flip_key = jax.random.split(key, 4)
    strengths, probability = jnp.asarray(strengths, dtype), jnp.asarray(probability, jnp.float32)
    return Draws(  # drawn in named types: 64-bit JAX would draw other numbers
        corners=jax.random.randint(corner_key, (count, 2), 0, 2 * padding + 1, jnp.int32),
        factors=jax.random.uniform(factor_key, (count, 3), dtype, jnp.maximum(0, 1 - strengths), 1 + strengths),
        order=jnp.asarray(ORDERS)[jax.random.randint(order_key, (count,), 0, len(ORDERS), jnp.int32)],
        flipped=jax.random.bernoulli(flip_key, probability, (count,)),
    )


def _strengths(jitter: float | tuple[float, float, float]) -> np.ndarray:
    """One a property, `[3]`."""
    strengths = np.asarray(jitter, np.float64)
    if strengths.shape not in ((), (3,)) or not (np.isfinite(strengths).all() and (strengths >= 0).all()):
        expected = "one strength of at least 0, or three: brightness, contrast, saturation"
        raise bad_input("jitter", expected, jitter, "choose such numbers; 0 leaves a property alone")
    return np.broadcast_to(strengths, (3,))


def _probability(flip: float) -> float:
    if isinstance(flip, bool) or not isinstance(flip, (int, float)) or not 0 <= flip <= 1:
        raise bad_input("flip", "a probability from 0 to 1", flip, "choose such a number; 0 never flips")
    return float(flip)
