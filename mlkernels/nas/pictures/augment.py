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
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Num, UInt8

from mlkernels.errors import bad_input
from mlkernels.support.arguments import whole
from mlkernels.support.array_arguments import float_type, one_key
from mlkernels.support.typed import typed

GREY = (0.2989, 0.587, 0.114)  # torchvision's weights of red, green and blue; they add up to 0.9999
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


@typed
def augment(
    images: UInt8[ArrayLike, "N H W C"], *, key: Array, mean: Float[ArrayLike, " C"], std: Float[ArrayLike, " C"],
    padding: int = 8, jitter: float | tuple[float, float, float] = 0.4, flip: float = 0.5, dtype=None,
) -> Float[Array, "N H W C"]:  # fmt: skip
    """Augment a batch for training: crop, jitter, flip, normalise, each image with its own draw.

    x -> (flip(jitter(crop(x) / 255)) - mean) / std

    The defaults are those of 84x84 images; 32x32 ones are usually padded by 4. Compiled once for each shape.

    Args:
        images: uint8 `[N, H, W, C]`, C = 1 or 3; of an array on the device nothing is copied to the host.
        mean, std: of pixels in [0, 1], as those of a `Dataset`.
        padding: black pixels around the image, of which a window of its own size is cut.
        jitter: strength b of brightness, contrast and saturation, one number or three, at least 0: each factor is
            uniform from max(0, 1 - b) to 1 + b, and the three follow each other in random order.
        flip: probability of a horizontal flip.

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


@typed
def apply_drawn(
    images: UInt8[ArrayLike, "N H W C"], drawn: Draws, *, mean: Float[ArrayLike, " C"], std: Float[ArrayLike, " C"],
    padding: int = 8, dtype=None,
) -> Float[Array, "N H W C"]:  # fmt: skip
    """What `augment` does with a batch once everything is drawn: so that an image looks the same in any batch."""
    check_images(images)
    mean, std = statistics(mean, std, images.shape[-1])
    return _apply_drawn(jnp.asarray(images), drawn, mean, std, whole("padding", padding), float_type(dtype))


def draw(
    count: int, *, key: Array, padding: int = 8, jitter: float | tuple[float, float, float] = 0.4, flip: float = 0.5,
    dtype=None,
) -> Draws:  # fmt: skip
    """What `augment` draws for `count` images with this key; the same in 32- and 64-bit JAX for the same `dtype`.

    Corners are uniform on 0..2*padding, factors uniform, all 6 orders equally likely, flips by coin toss.
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


@typed
def apply_crop(
    images: Num[ArrayLike, "N H W C"], corners: Int[ArrayLike, "N 2"], padding: int
) -> Num[Array, "N H W C"]:
    """Pad with black and cut out a window of the images' own size; a corner (padding, padding) changes nothing.

    Source: torchvision's RandomCrop(size, padding), `fill` 0.
    """
    check_images(images, any_channels=True)
    _check_drawn("corners", corners, (len(images), 2))
    padding = whole("padding", padding)
    padded = jnp.pad(images, ((0, 0), (padding, padding), (padding, padding), (0, 0)))

    def window(image, corner):
        start = (*corner, jnp.zeros((), corner.dtype))  # all of one type, which in 64-bit JAX a plain 0 is not
        return jax.lax.dynamic_slice(image, start, images.shape[1:])

    return jax.vmap(window)(padded, corners)


@typed
def apply_jitter(
    images: Float[ArrayLike, "N H W C"], factors: Float[ArrayLike, "N 3"], order: Int[ArrayLike, "N 3"]
) -> Float[Array, "N H W C"]:
    """Change brightness, contrast and saturation of floats in [0, 1] by given factors in a given order.

    x <- clip(f x + (1 - f) d, 0, 1)

    with d = 0 for brightness, the mean over the image of its grey g for contrast, g itself for saturation, where
    g = 0.2989 R + 0.587 G + 0.114 B of the image as the operations before have left it. One channel is its own grey:
    saturation does nothing. In `order` 0, 1, 2 are brightness, contrast, saturation, as they follow each other.

    Source: torchvision's adjust_brightness, adjust_contrast, adjust_saturation for float images; ColorJitter's order.
    """
    check_images(images)
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise bad_input("images", "floats in [0, 1]", images.dtype, "divide pixels of 0 to 255 by 255")
    _check_drawn("factors", factors, (len(images), 3))
    _check_drawn("order", order, (len(images), 3))
    return jax.vmap(_jitter_one)(images, jnp.asarray(factors, images.dtype), order)


@typed
def apply_flip(images: Num[ArrayLike, "N H W C"], flipped: Bool[ArrayLike, " N"]) -> Num[Array, "N H W C"]:
    """Mirror some of the images, left to right, as torchvision's RandomHorizontalFlip."""
    check_images(images, any_channels=True)
    _check_drawn("flipped", flipped, (len(images),))
    return jnp.where(flipped[:, None, None, None], images[:, :, ::-1], images)


@typed
def normalise(
    images: Num[ArrayLike, "N H W C"], *, mean: Float[ArrayLike, " C"], std: Float[ArrayLike, " C"], dtype=None
) -> Float[Array, "N H W C"]:
    """Pixels to what a network is given in evaluation, not augmented: x -> (x / 255 - mean) / std.

    Floats are taken as in [0, 1] and not divided by 255.

    Source: torchvision's ToTensor and Normalize.
    """
    check_images(images, any_channels=True)
    if images.dtype != np.uint8 and not jnp.issubdtype(images.dtype, jnp.floating):
        raise bad_input("images", "uint8, or floats in [0, 1]", images.dtype, "give pixels of one of these types")
    mean, std = statistics(mean, std, images.shape[-1])
    return standardise(to_unit(images, float_type(dtype)), mean, std)


def _jitter_one(image: Array, factors: Array, order: Array) -> Array:
    """All three are blends with something, so that under `vmap` the order chooses what, not which function runs."""
    weights = jnp.asarray(GREY, image.dtype)[None, None]
    for place in range(3):
        operation = order[place]
        grey = (image * weights).sum(axis=-1, keepdims=True) if image.shape[-1] == 3 else image
        other = jnp.where(operation == 1, grey.mean(), grey) * (operation > 0).astype(grey.dtype)
        image = jnp.clip(factors[operation] * image + (1 - factors[operation]) * other, 0, 1)
    return image


def to_unit(images: Array, dtype) -> Array:
    """Floats in [0, 1] of uint8 pixels; floats stay what they are."""
    images = jnp.asarray(images)
    return images.astype(dtype) / 255 if images.dtype == jnp.uint8 else images.astype(dtype)


def standardise(images: Array, mean: Array, std: Array) -> Array:
    """(x - mean) / std, by channel, in the type of the images."""
    mean, std = (jnp.asarray(numbers, images.dtype)[None, None, None] for numbers in (mean, std))
    return (images - mean) / std


def check_images(images: Array, any_channels: bool = False) -> None:
    """It is a batch `[N, H, W, C]`, or an `InputError` says what it is."""
    shape = getattr(images, "shape", None)
    if shape is None or len(shape) != 4 or (shape[-1] not in (1, 3) and not any_channels):
        expected = f"an array [N, H, W, C]{'' if any_channels else ' of 1 or 3 channels'}"
        got = type(images).__name__ if shape is None else list(shape)
        raise bad_input("images", expected, got, "give a batch, channels last")


def _check_drawn(name: str, drawn: Array, shape: tuple[int, ...]) -> None:
    if getattr(drawn, "shape", None) != shape:
        got = list(drawn.shape) if hasattr(drawn, "shape") else type(drawn).__name__
        raise bad_input(name, f"an array {list(shape)}, one draw an image", got, "draw for every image of the batch")


def statistics(mean: Array, std: Array, channels: int) -> tuple[Array, Array]:
    """Mean and standard deviation `[C]`, checked."""
    for name, values in (("mean", mean), ("std", std)):
        if np.shape(values) != (channels,):
            do = "give one number a channel, as Dataset.mean and Dataset.std"
            raise bad_input(name, f"[{channels}], one number a channel", list(np.shape(values)), do)
    if not isinstance(std, jax.core.Tracer) and not (np.asarray(std) > 0).all():
        raise bad_input("std", "numbers above 0", np.asarray(std).tolist(), "give each channel's standard deviation")
    return jnp.asarray(mean), jnp.asarray(std)
