"""The images of a split as a network takes them: in its size, uint8, read when they are asked for."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import UInt8

from mlkernels.datasets import Dataset
from mlkernels.errors import bad_input
from mlkernels.support.memory import require
from mlkernels.support.typed import typed

AT_ONCE = 256  # images that are resized in one call


class Pictures:
    """The square images of a split; those of another size than asked for are resized once and held in memory.

    Attributes:
        labels: int32 `[n]`, the split's classes counted from 0.
        classes: how many.
    """

    def __init__(self, dataset: Dataset, split: str, pixels: int):
        data = dataset.only(split)
        height, width, colours = data.images.shape[1:]
        if height != width:
            raise bad_input(f"images of {dataset.name}", "square ones", f"{height}x{width}", "cut them to squares")
        if data.images.dtype != np.uint8:
            raise bad_input(f"images of {dataset.name}", "uint8", data.images.dtype, "give pixels as 0 to 255")
        self.labels, self.classes = data.labels.astype(np.int32), len(data.class_names)
        self._images = data.images
        if pixels != height:
            count = len(data.images)
            require(count * pixels**2 * colours, f"{count} images of {pixels}x{pixels}", "take fewer pixels")
            self._images = np.empty((count, pixels, pixels, colours), np.uint8)
            for start in range(0, count, AT_ONCE):
                rows = np.arange(start, min(start + AT_ONCE, count))
                self._images[rows] = resized(np.asarray(data.images[rows]), pixels)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """uint8 `[n, pixels, pixels, colours]`."""
        return np.asarray(self._images[rows])


@typed
def resized(images: UInt8[np.ndarray, "N H H C"], pixels: int) -> UInt8[np.ndarray, "N pixels pixels C"]:
    """uint8 images `[n, H, H, C]` in another size, n at most `AT_ONCE`: linear, a pixel the mean of what it covers."""
    full = padded(images, AT_ONCE)
    return np.asarray(_resized(full, pixels))[: len(images)]


def padded(rows: np.ndarray, count: int) -> np.ndarray:
    """So many rows, the last one again where there are fewer: one shape, compiled once."""
    return rows[np.minimum(np.arange(count), len(rows) - 1)]


@partial(jax.jit, static_argnums=1)
def _resized(images: Array, pixels: int) -> Array:
    shape = (len(images), pixels, pixels, images.shape[-1])
    small = jax.image.resize(images.astype(jnp.float32), shape, "linear")
    return jnp.clip(jnp.round(small), 0, 255).astype(jnp.uint8)
