"""Episodes in feature space: which images are in which, and what a feature function makes of them.

Features of each image that occurs are computed once, however many episodes it is in and at however many shots. So are
its augmented copies, when it is a support image: a pool of a few copies an image, 60000 passes at most on
miniImageNet's 12000 test images, where fresh copies in each of 1000 episodes would take 25000 at one shot and 125000 at
five.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import jax
import numpy as np
from jax import Array

from mlkernels.datasets import Dataset
from mlkernels.errors import bad_input
from mlkernels.nas.pictures.augment import apply_drawn, draw, normalise
from mlkernels.nas.pictures.resized import Pictures, padded
from mlkernels.tasks.image_episodes import episode_rows


@dataclass(frozen=True)
class Look:
    """How images are shown to a feature function.

    Attributes:
        pixels: their side.
        mean, std: one number a colour.
        augmentation: arguments for `augment.draw`, of the copies of support images.
        copies: augmented copies of each support image; 0 shows it as it is.
        unit: whether features are divided by their Euclidean norm.
        block: images in one call.
    """

    pixels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    augmentation: dict
    copies: int
    unit: bool
    block: int


@dataclass(frozen=True)
class Episode:
    """Features and classes of one episode, float64 `[m, d]`, int `[m]` and the same of its queries."""

    support: np.ndarray
    support_labels: np.ndarray
    query: np.ndarray
    query_labels: np.ndarray


@dataclass(frozen=True)
class Gathered:
    """Features of a split's images, `[images, d]`, and which of them stand where, `[episodes, way, each]`.

    Images that stand nowhere may have zeros.
    """

    features: np.ndarray
    where: np.ndarray

    def __getitem__(self, number: int) -> np.ndarray:
        """Those of one episode, float64 `[way, each, d]`."""
        return self.features[self.where[number]].astype(np.float64)


@dataclass(frozen=True)
class Episodes:
    """Many episodes; the features of one are put together when it is asked for.

    Attributes:
        support: one a copy.
        query: likewise.
        classes: the class of the split that each of their classes is, `[episodes, way]`.
    """

    support: list[Gathered]
    query: Gathered
    classes: np.ndarray

    def __len__(self) -> int:
        return len(self.classes)

    def __getitem__(self, number: int) -> Episode:
        pair = np.concatenate([copy[number] for copy in self.support], axis=1), self.query[number]
        labels = (np.repeat(np.arange(len(x)), x.shape[1]) for x in pair)
        support, query = (x.reshape(-1, x.shape[-1]) for x in pair)
        return Episode(support, next(labels), query, next(labels))


class Features:
    """The features of a split's images.

    Args:
        function: images `[block, pixels, pixels, colours]` to features `[block, d]`.
        dataset, split: whose.
        look: how they are shown.
        key: for the copies; each image has its own draw, whatever block it is in.
        tell: is called with the number of images done.
    """

    def __init__(self, function: Callable, dataset: Dataset, split: str, look: Look, key: Array, tell: Callable):
        self.function, self.look, self.key, self.tell = function, look, key, tell
        self.dataset, self.split = dataset.only(split), split
        self.pictures = Pictures(dataset, split, look.pixels)
        self._known: dict = {}  # copy -> features float32 `[images, d]`, and which of its rows are computed
        self._width: int | None = None

    def episodes(self, way: int, shot: int, queries: int, count: int, key: Array) -> Episodes:
        """So many episodes; the same key draws the same ones, whatever the features."""
        rows = episode_rows(self.dataset, self.split, way, shot + queries, count, key)
        support, query = rows[..., :shot], rows[..., shot:]
        shown = [self._of(support, copy) for copy in range(self.look.copies) or [None]]
        return Episodes(shown, self._of(query), self.pictures.labels[rows[..., 0]])

    def _of(self, rows: np.ndarray, copy: int | None = None) -> Gathered:
        features, known = self._known.get(copy, (None, np.zeros(len(self.pictures), bool)))
        asked = np.unique(rows)
        missing = asked[~known[asked]]
        for mine, found in self._computed(missing, copy):
            if features is None:  # takes memory as it is filled
                features = np.zeros((len(self.pictures), found.shape[1]), np.float32)
                self._known[copy] = features, known
            features[mine] = found
            known[mine] = True
            self.tell(len(mine))
        return Gathered(features, rows)

    def _computed(self, rows: np.ndarray, copy: int | None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The features of distinct rows, a block of them at a time."""
        look, drawn = self.look, None
        numbers = {"mean": look.mean, "std": look.std}
        if copy is not None and len(rows):
            key = jax.random.fold_in(self.key, copy)
            drawn = jax.device_get(draw(len(self.pictures), key=key, **look.augmentation, dtype=np.float32))
        for start in range(0, len(rows), look.block):
            mine = rows[start : start + look.block]
            full = padded(mine, look.block)
            images = self.pictures[full]
            if drawn is None:
                images = normalise(images, **numbers, dtype=np.float32)
            else:
                draws, padding = jax.tree.map(lambda leaf, full=full: leaf[full], drawn), look.augmentation["padding"]
                images = apply_drawn(images, draws, **numbers, padding=padding, dtype=np.float32)
            features = self._checked(np.asarray(self.function(images), np.float32))[: len(mine)]
            if look.unit:
                norms = np.linalg.norm(features, axis=1, keepdims=True)
                features = features / np.where(norms > 0, norms, 1)
            yield mine, features

    def _checked(self, features: np.ndarray) -> np.ndarray:
        """They are finite, a row an image, and as many of each image as before."""
        flat = features.ndim == 2 and len(features) == self.look.block
        if not flat or self._width not in (None, features.shape[1]):
            expected = f"an array [{self.look.block}, {self._width or 'd'}], a row an image"
            do = "let the function make as many numbers of each image"
            raise bad_input("features", expected, list(features.shape), do)
        if not np.isfinite(features).all():
            count = int((~np.isfinite(features)).any(1).sum())
            do = "look at the function, or at the weights that it has"
            raise bad_input("features", "finite numbers", f"others for {count} of {len(features)} images", do)
        self._width = features.shape[1]
        return features
