"""Patches of images, for the count of linear regions."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import Array

from mlkernels.errors import bad_input


def patches(images: Array, rng: np.random.Generator, pixels: int = 3) -> Array:
    """From each image a square at a random place, of one random colour: `[n, pixels, pixels, 1]`.

    Args:
        images: `[n, height, width, colours]`.
        rng: a generator.
        pixels: a side of the square.

    Raises:
        InputError: images that are smaller than that.

    Example:
        >>> patches(np.ones((5, 32, 32, 3)), np.random.default_rng(0)).shape
        (5, 3, 3, 1)

    Source: Wang et al. 2022, its code (images of 32 pixels a side).
    """
    images = np.asarray(images)
    if images.ndim != 4 or min(images.shape[1:3]) < pixels:
        expected = f"[n, height, width, colours] of at least {pixels} pixels a side"
        raise bad_input("images", expected, list(images.shape), "take larger images")
    n, height, width, colours = images.shape
    rows = rng.integers(height - pixels + 1, size=n)[:, None] + np.arange(pixels)
    columns = rng.integers(width - pixels + 1, size=n)[:, None] + np.arange(pixels)
    colour = rng.integers(colours, size=n)[:, None, None]
    return jnp.asarray(images[np.arange(n)[:, None, None], rows[:, :, None], columns[:, None], colour][..., None])
