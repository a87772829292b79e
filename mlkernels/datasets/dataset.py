"""What every dataset is once loaded: images by class, and which classes belong to which split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int, Num, UInt8

from mlkernels.datasets.lazy_rows import Chosen, LazyRows
from mlkernels.errors import bad_input
from mlkernels.support.arguments import one_of
from mlkernels.support.typed import typed


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Labelled images whose splits are disjoint sets of classes, as few-shot learning wants them.

    Args:
        name: what `datasets.load` calls it.
        images: uint8 `[N, H, W, C]`, an array, a memory map or anything that `images[rows]` reads rows from.
        labels: int `[N]`, the class of each image, `0..classes-1` over all splits.
        class_names: one name a class.
        splits: split name -> int array of class ids, disjoint; the first is the one to train on.
        mean: float `[C]`, of the training split's pixels in [0, 1].
        std: float `[C]`, likewise.
        source: where it came from: a path, or words.
        licence: under what terms.
        wnids: one WordNet id a class, where they are known.

    Example:
        >>> from mlkernels import datasets
        >>> data = datasets.load("glyphs", classes=24, drawings=5)
        >>> data
        Dataset(glyphs: 24 classes, 120 images 28x28x1)
        >>> data.images_of(3).shape, [len(data.classes(split)) for split in data.splits]
        ((5, 28, 28, 1), [15, 4, 5])
    """

    name: str
    images: UInt8[np.ndarray, "N H W C"] | LazyRows
    labels: Int[np.ndarray, " N"]
    class_names: tuple[str, ...]
    splits: Mapping[str, Int[np.ndarray, " classes"]]
    mean: Float[np.ndarray, " C"]
    std: Float[np.ndarray, " C"]
    source: str
    licence: str
    wnids: tuple[str, ...] | None = None

    @cached_property
    def _rows(self) -> list[np.ndarray]:
        order = np.argsort(self.labels, kind="stable")
        ends = np.cumsum(np.bincount(self.labels, minlength=len(self.class_names)))
        return np.split(order, ends[:-1])

    @typed
    def rows_of(self, class_id: int) -> Int[np.ndarray, " n"]:
        """Which rows of `images` show one class: int `[n]`, ascending."""
        if not (isinstance(class_id, (int, np.integer)) and 0 <= class_id < len(self.class_names)):
            do = "ask for a class that exists (`classes(split)` lists a split's)"
            raise bad_input("class_id", f"a whole number from 0 to {len(self.class_names) - 1}", class_id, do)
        return self._rows[class_id]

    @typed
    def images_of(self, class_id: int) -> Num[np.ndarray, "n H W C"]:
        """All images of one class: uint8 `[n, H, W, C]`."""
        return np.asarray(self.images[self.rows_of(class_id)])

    @typed
    def classes(self, split: str) -> Int[np.ndarray, " k"]:
        """The class ids of a split: int `[classes]`. An `InputError` lists the splits if there is no such split."""
        return self.splits[one_of("split", split, self.splits, do=f"name a split of {self.name}")]

    def only(self, split: str) -> Dataset:
        """One split as a dataset of its own, its classes numbered from 0; `mean` and `std` stay as they are."""
        ids = self.classes(split)
        number = np.full(len(self.class_names), -1)
        number[ids] = np.arange(len(ids))
        rows = np.flatnonzero(number[self.labels] >= 0)
        return replace(
            self,
            images=Chosen(self.images, rows),
            labels=number[self.labels[rows]],
            class_names=tuple(self.class_names[class_id] for class_id in ids),
            splits={split: np.arange(len(ids))},
            wnids=None if self.wnids is None else tuple(self.wnids[class_id] for class_id in ids),
        )

    def summary(self) -> str:
        """A few lines for a reader: sizes, splits, pixel statistics, source and licence."""
        shape = "x".join(map(str, self.images.shape[1:]))
        sizes = ", ".join(f"{name} {len(ids)}" for name, ids in self.splits.items())
        mean, std = (" ".join(f"{value:.4f}" for value in values) for values in (self.mean, self.std))
        return (
            f"{self.name}: {len(self.images)} images {shape} of {len(self.class_names)} classes ({sizes})\n"
            f"pixels in [0, 1]: mean {mean}, standard deviation {std} (training split)\n"
            f"source: {self.source}\n"
            f"licence: {self.licence}"
        )

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.images.shape[1:]))
        return f"Dataset({self.name}: {len(self.class_names)} classes, {len(self.images)} images {shape})"


@typed
def pixel_statistics(
    images: UInt8[np.ndarray, "N H W C"], rows: Int[np.ndarray, " n"]
) -> tuple[Float[np.ndarray, " C"], Float[np.ndarray, " C"]]:
    """Mean and standard deviation `[C]` of each channel of uint8 `images[rows]`, in [0, 1], from exact integer sums."""
    total, squares, count = 0, 0, 0
    for chunk in np.array_split(rows, max(1, len(rows) // 1000)):
        pixels = images[chunk].reshape(-1, images.shape[-1]).astype(np.uint32)
        total = total + pixels.sum(axis=0, dtype=np.uint64)
        squares = squares + (pixels * pixels).sum(axis=0, dtype=np.uint64)
        count += len(pixels)
    mean = total / count
    return mean / 255, np.sqrt(squares / count - mean * mean) / 255
