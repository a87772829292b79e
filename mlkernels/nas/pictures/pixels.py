"""The operations of augmentation, as pure functions of a batch of images and of what was drawn for each of them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from mlkernels.errors import bad_input
from mlkernels.support.arguments import whole
from mlkernels.support.array_arguments import float_type

GREY = (0.2989, 0.587, 0.114)  # torchvision's weights of red, green and blue; they add up to 0.9999


def apply_crop(images: Array, corners: Array, padding: int) -> Array:
    """Pad with black and cut out a window of the images' own size.

    Args:
        images: `[N, H, W, C]`, any type.
        corners: int `[N, 2]`, row and column of the window in the padded image; (padding, padding) changes nothing.
        padding: at least 0.

    Returns:
        `[N, H, W, C]`, of the same type.

    Raises:
        InputError: images that are no batch, corners of another shape.

    Example:
        >>> image = jnp.arange(1, 5, dtype=jnp.uint8).reshape(1, 2, 2, 1)
        >>> apply_crop(image, jnp.array([[2, 1]]), 1)[0, ..., 0].tolist()  # one down: the lower row moves up
        [[3, 4], [0, 0]]

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


def apply_jitter(images: Array, factors: Array, order: Array) -> Array:
    """Change brightness, contrast and saturation by given factors in a given order.

    x <- clip(f x + (1 - f) d, 0, 1)

    with d = 0 for brightness, the mean over the image of its grey g for contrast, g itself for saturation, where
    g = 0.2989 R + 0.587 G + 0.114 B of the image as the operations before have left it.

    Args:
        images: float `[N, H, W, C]` in [0, 1], C = 1 or 3. One channel is its own grey: saturation does nothing.
        factors: float `[N, 3]`, at least 0, of brightness, contrast, saturation.
        order: int `[N, 3]`, a permutation of 0, 1, 2 for each image: which operation comes first, second, third.

    Returns:
        float `[N, H, W, C]` in [0, 1].

    Raises:
        InputError: images of another type or shape, factors or order of another shape.

    Example:
        >>> grey = jnp.full((1, 2, 2, 3), 0.5)
        >>> apply_jitter(grey, jnp.array([[1.5, 1.0, 1.0]]), jnp.array([[0, 1, 2]])).max().item()
        0.75

    Source: torchvision's adjust_brightness, adjust_contrast, adjust_saturation for float images; ColorJitter's order.
    """
    check_images(images)
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise bad_input("images", "floats in [0, 1]", images.dtype, "divide pixels of 0 to 255 by 255")
    _check_drawn("factors", factors, (len(images), 3))
    _check_drawn("order", order, (len(images), 3))
    return jax.vmap(_jitter_one)(images, jnp.asarray(factors, images.dtype), order)


def apply_flip(images: Array, flipped: Array) -> Array:
    """Mirror some of the images, left to right.

    Args:
        images: `[N, H, W, C]`, any type.
        flipped: bool `[N]`.

    Returns:
        `[N, H, W, C]`, of the same type.

    Raises:
        InputError: images that are no batch, another number of flips.

    Example:
        >>> apply_flip(jnp.array([1, 2]).reshape(1, 1, 2, 1), jnp.array([True])).ravel().tolist()
        [2, 1]

    Source: torchvision's RandomHorizontalFlip.
    """
    check_images(images, any_channels=True)
    _check_drawn("flipped", flipped, (len(images),))
    return jnp.where(flipped[:, None, None, None], images[:, :, ::-1], images)


def normalise(images: Array, *, mean: Array, std: Array, dtype=None) -> Array:
    """Pixels to what a network is given in evaluation: not augmented.

    x -> (x / 255 - mean) / std

    Args:
        images: uint8 `[N, H, W, C]`, or float in [0, 1], which is not divided by 255.
        mean: float `[C]`, of pixels in [0, 1].
        std: float `[C]`, above 0.
        dtype: of the result; None is JAX's default float.

    Returns:
        float `[N, H, W, C]`.

    Raises:
        InputError: images of another type or shape, mean or std that do not fit.

    Example:
        >>> normalise(np.full((1, 2, 2, 1), 255, np.uint8), mean=[0.5], std=[0.25]).max().item()
        2.0

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
