"""The images that the search looks at: small tasks, and patches of single images."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mlkernels.datasets import Dataset
from mlkernels.errors import bad_input
from mlkernels.metantk import all_points
from mlkernels.nas.pictures.augment import apply_crop, apply_flip
from mlkernels.support.typed import typed
from mlkernels.tasks import TaskBatch, episodes

PADDING = 1 / 8  # of the side: black pixels around an image of which a window of its own size is cut; 4 of 32
ATTEMPTS = 20  # to draw tasks without the same image twice
LOOK = "support flipped and cropped by an eighth, queries as they are"  # for files


def search_tasks(
    dataset: Dataset, *, key: Array, pixels: int = 32, way: int = 5, shot: int = 1, queries: int = 1, tasks: int = 3,
    dtype=jnp.float32,
) -> TaskBatch:  # fmt: skip
    """Episodes of the classes to train on, resized and normalised, support images flipped and cropped at random, too.

    Tasks in which one image comes twice are drawn again, a few times at most: the NTK over both has no inverse.

    Args:
        dataset: its first split is sampled.
        key: a key.
        pixels: a side of the images.
        way, shot, queries, tasks: as in `tasks.episodes`.
        dtype: of the arrays.

    Returns:
        A `TaskBatch` of images `[tasks, way*shot or way*queries, pixels, pixels, colours]` and one-hot labels.

    Raises:
        InputError: too few classes or images.

    Example:
        >>> from mlkernels import datasets
        >>> search_tasks(datasets.load("glyphs"), key=jax.random.key(0), pixels=16).query_x.shape
        (3, 5, 16, 16, 1)

    Source: Wang et al. 2022, its code: resize to 32, normalise; of the support alone flip, crop with padding 4.
    At other sizes the padding is an eighth of the side, too: with more, a small image may be cut to nothing.
    """
    split = next(iter(dataset.splits))
    for attempt in range(ATTEMPTS):
        drawn, look = jax.random.split(jax.random.fold_in(key, attempt) if attempt else key)
        batch = episodes(dataset, split, way, shot, queries, tasks, drawn, one_hot="plain", dtype=dtype)
        pair = batch.support_x, batch.query_x
        support, query = _looked_at(pair, look, np.asarray(dataset.mean), np.asarray(dataset.std), pixels, dtype)
        found = TaskBatch(support, batch.support_y, query, batch.query_y)
        rows = np.asarray(all_points(found)).reshape(tasks * (found.queries + found.support), -1)
        if len(np.unique(rows, axis=0)) == len(rows):
            break
    return found


@partial(jax.jit, static_argnames=("pixels", "dtype"))
def _looked_at(pair, key: Array, mean: Array, std: Array, pixels: int, dtype) -> list[Array]:
    images = jnp.concatenate([x.reshape(-1, *x.shape[2:]) for x in pair])
    small = jax.image.resize(images, (len(images), pixels, pixels, images.shape[-1]), "linear")
    cut = pair[0].shape[0] * pair[0].shape[1]
    where, side = jax.random.split(key)
    support = apply_flip(small[:cut], jax.random.bernoulli(side, 0.5, (cut,)))
    padding = max(1, round(PADDING * pixels))
    support = apply_crop(support, jax.random.randint(where, (cut, 2), 0, 2 * padding + 1), padding)
    small = jnp.concatenate([support, small[cut:]])
    small = ((small.astype(mean.dtype) - mean[None, None, None]) / std[None, None, None]).astype(dtype)
    return [x.reshape(*old.shape[:2], *x.shape[1:]) for x, old in zip((small[:cut], small[cut:]), pair, strict=True)]


@typed
def search_patches(
    dataset: Dataset, *, key: Array, batches: int = 3, images: int = 1000, pixels: int = 32
) -> Float[Array, "batches images 3 3 1"]:
    """Squares of 3x3 pixels of one colour from random images to train on (drawn without replacement), normalised.

    Images are resized to `pixels` before; `[batches, images, 3, 3, 1]`.

    Source: Wang et al. 2022, its code (TE-NAS, Chen et al. 2021).
    """
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    split = dataset.classes(next(iter(dataset.splits)))
    rows = np.flatnonzero(np.isin(dataset.labels, split))
    if len(rows) < batches * images:
        do = "count regions of fewer images"
        raise bad_input("images", f"at most {len(rows)} in {batches} batches", batches * images, do)
    chosen = np.sort(rng.choice(rows, batches * images, replace=False))
    found = []
    for part in np.array_split(chosen, batches):
        raw = np.asarray(dataset.images[part], np.float32) / 255
        small = jax.image.resize(raw, (len(raw), pixels, pixels, raw.shape[-1]), "linear")
        small = (np.asarray(small) - np.float32(dataset.mean)) / np.float32(dataset.std)
        found.append(patches(rng.permutation(small), rng))
    return jnp.stack(found)


def patches(images: Array, rng: np.random.Generator, pixels: int = 3) -> Array:
    """From each image a square at a random place, of one random colour: `[n, pixels, pixels, 1]`.

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
