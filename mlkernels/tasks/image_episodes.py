"""Classification tasks from a dataset: way, shot, queries."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from mlkernels.errors import bad_input
from mlkernels.support.arguments import one_of
from mlkernels.support.array_arguments import float_type, one_key, sizes
from mlkernels.tasks.batch import TaskBatch

if TYPE_CHECKING:
    from mlkernels.datasets import Dataset

LARGE = 1 << 20  # pixel values: fewer are converted before a conversion on the device has been compiled


def episodes(
    dataset: Dataset,
    split: str,
    way: int,
    shot: int,
    queries: int,
    tasks: int,
    key: Array,
    *,
    one_hot: str = "centred",
    normalise: str = "none",
    dtype=None,
) -> TaskBatch:
    """Sample classification tasks: `way` classes of a split, `shot` support and `queries` query images of each.

    Classes and images are drawn without replacement within an episode, so support and queries share no image. (Where a
    dataset holds the same pixels under two names, which an import counts and says, these are two images.) Both are
    ordered by class, then image; which class comes first is random. The key seeds a NumPy generator, so the same
    key gives the same episodes on every device.

    Args:
        dataset: from `datasets.load`.
        split: one of its splits.
        way: classes of an episode, at least 1.
        shot: support images of a class, at least 1.
        queries: query images of a class, at least 1.
        tasks: B episodes, at least 1.
        key: JAX key.
        one_hot: "plain" labels are 0 and 1; "centred" ones have 1/way subtracted, so that they sum to 0.
        normalise: "none" leaves pixels in [0, 1]; "unit" then gives each image Euclidean norm 1 (an empty one stays 0);
            "dataset" subtracts the training split's mean and divides by its standard deviation.
        dtype: of the arrays; None is JAX's default float.

    Returns:
        A `TaskBatch`: x `[B, way*shot, H, W, C]` and `[B, way*queries, H, W, C]`, y `[..., way]`.

    Raises:
        InputError: more classes or images than there are (with the numbers), an unknown split or option.

    Example:
        >>> from mlkernels import datasets
        >>> glyphs = datasets.load("glyphs")
        >>> batch = episodes(glyphs, "test", way=5, shot=1, queries=3, tasks=2, key=jax.random.key(0))
        >>> batch.support_x.shape, batch.query_y.shape
        ((2, 5, 28, 28, 1), (2, 15, 5))
        >>> batch.query_y[0, 3:6].argmax(axis=-1).tolist()
        [1, 1, 1]
    """
    way, shot, queries, tasks = sizes(way=way, shot=shot, queries=queries, tasks=tasks)
    one_of("one_hot", one_hot, ("centred", "plain"))
    one_of("normalise", normalise, ("none", "unit", "dataset"))
    one_key(key)
    dtype = float_type(dtype)
    rows = episode_rows(dataset, split, way, shot + queries, tasks, key)

    pixels = np.asarray(dataset.images[rows.ravel()])
    if pixels.dtype != np.uint8:
        raise bad_input(f"images of {dataset.name}", "uint8", pixels.dtype, "give a dataset its pixels as 0 to 255")
    pixels = pixels.reshape(*rows.shape, *pixels.shape[1:])
    parts = [part.reshape(tasks, -1, *pixels.shape[3:]) for part in np.split(pixels, [shot], axis=2)]
    convert = (
        partial(_unit, dtype=dtype) if normalise == "unit" else partial(_look_up, _levels(dataset, normalise, dtype))
    )
    support_x, query_x = (jnp.asarray(convert(part), dtype) for part in parts)
    labels = np.eye(way, dtype=dtype) - (np.asarray(1 / way, dtype) if one_hot == "centred" else 0)
    y = [np.broadcast_to(np.repeat(labels, count, axis=0), (tasks, way * count, way)) for count in (shot, queries)]
    support_y, query_y = (jnp.asarray(part, dtype) for part in y)
    return TaskBatch(support_x, support_y, query_x, query_y)


def _look_up(levels: np.ndarray, pixels: np.ndarray) -> np.ndarray | Array:
    """Floats of uint8 pixels, by channel: the same to the bit wherever it is done, as no device rounds."""
    if pixels.size >= LARGE:
        return _look_up_there(levels, pixels)
    return np.stack([levels[:, channel].take(pixels[..., channel]) for channel in range(levels.shape[1])], axis=-1)


@jax.jit
def _look_up_there(levels: Array, pixels: Array) -> Array:
    """On the device, to which a quarter of the bytes travels or less."""
    return levels.at[pixels, jnp.arange(levels.shape[1])].get(mode="promise_in_bounds")


def _levels(dataset: Dataset, normalise: str, dtype: np.dtype) -> np.ndarray:
    """What each of the 256 values of a pixel becomes: `[256, C]`."""
    levels = np.asarray(np.arange(256, dtype=np.uint8), dtype) / np.asarray(255, dtype)
    levels = np.repeat(levels[:, None], dataset.images.shape[-1], axis=1)
    if normalise == "dataset":
        levels = (levels - dataset.mean.astype(dtype)) / dataset.std.astype(dtype)
    return levels


def _unit(pixels: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Images `[..., H, W, C]` of Euclidean norm 1, an empty one 0."""
    images = np.asarray(pixels, dtype) / np.asarray(255, dtype)
    norms = np.sqrt((images * images).sum(axis=(-3, -2, -1), keepdims=True))
    return images / np.where(norms > 0, norms, 1)


def episode_rows(dataset: Dataset, split: str, way: int, images: int, tasks: int, key: Array) -> np.ndarray:
    """Rows of `dataset.images` for each episode, int `[tasks, way, images]`; an `InputError` if there are too few."""
    classes = dataset.classes(split)
    if way > len(classes):
        do = f"ask for {len(classes)} or fewer"
        raise bad_input("way", f"at most the {len(classes)} classes of {dataset.name}'s {split} split", way, do)
    rows_of = [dataset.rows_of(class_id) for class_id in classes]
    counts = np.array([len(rows) for rows in rows_of])
    if images > counts.min():
        least = dataset.class_names[classes[counts.argmin()]]
        do = "lower shot or queries" if counts.min() > 1 else "leave out classes of fewer than two images"
        raise bad_input("shot + queries", f"at most the {counts.min()} images of class {least}", images, do)
    random = np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel().tolist())
    out = np.empty((tasks, way, images), dtype=np.int64)
    for task in range(tasks):
        for place, index in enumerate(random.permutation(len(classes))[:way]):
            out[task, place] = rows_of[index][random.permutation(counts[index])[:images]]
    return out
