"""Writing one split of a prepared dataset, chunk by chunk."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mlkernels.datasets._checksums import sha256_of
from mlkernels.datasets._recipe import Part
from mlkernels.errors import InputError, bad_input


def file_names(split: str) -> tuple[str, str]:
    """The files of a split: images, labels."""
    return f"{split}_images.npy", f"{split}_labels.npy"


def write_part(
    folder: Path,
    split: str,
    part: Part,
    shape: tuple[int, int, int],
    progress: Callable[[int], None] | None = None,
) -> dict:
    """Write `{split}_images.npy` and `{split}_labels.npy`, images ordered by class wherever they come in the chunks.

    Args:
        folder: where to.
        split: its name.
        part: what to write.
        shape: (H, W, C) of every image.
        progress: gets the number of images of each chunk that was written.

    Returns:
        The split's part of the manifest.

    Raises:
        InputError: the part yields other than it announced.
        OSError: the disk is full.
    """
    total, size = sum(part.counts), math.prod(shape)
    ends = np.cumsum(part.counts)
    place = ends - np.array(part.counts)  # where the next image of each class goes
    histogram = np.zeros((shape[2], 256), dtype=np.int64)
    names = file_names(split)
    with open(folder / names[0], "wb") as file:  # not through a memory map: there a full disk kills the process
        header = {"descr": "|u1", "fortran_order": False, "shape": (total, *shape)}
        np.lib.format.write_array_header_1_0(file, header)
        start = file.tell()
        for images, labels in part.chunks():
            if images.dtype != np.uint8 or images.shape != (len(labels), *shape):
                raise bad_input(f"images of {split}", f"uint8 {list(shape)}", _kind(images), "give another copy")
            histogram += [np.bincount(images[..., channel].ravel(), minlength=256) for channel in range(shape[2])]
            for label in np.unique(labels):
                own = images[labels == label]
                if place[label] + len(own) > ends[label]:
                    raise _miscounted(split, part, label)
                file.seek(start + int(place[label]) * size)
                file.write(np.ascontiguousarray(own).data)
                place[label] += len(own)
            if progress is not None:
                progress(len(labels))
        if (place != ends).any():
            raise _miscounted(split, part, int(np.argmax(place != ends)))
        file.flush()
        os.fsync(file.fileno())
    with open(folder / names[1], "wb") as file:
        np.save(file, np.repeat(np.arange(len(part.counts), dtype=np.int32), part.counts))
        file.flush()
        os.fsync(file.fileno())
    mean, std = _moments(histogram)
    return {
        "class_names": list(part.class_names),
        "wnids": None if part.wnids is None else list(part.wnids),
        "counts": [int(count) for count in part.counts],
        "mean": mean.tolist(),
        "std": std.tolist(),
        "bytes": {name: (folder / name).stat().st_size for name in names},
        "sha256": {name: sha256_of(folder / name) for name in names},
    }


def _moments(histogram: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation in [0, 1] from int `[C, 256]` counts of pixel values."""
    values, count = np.arange(256), histogram.sum(axis=1)
    mean = histogram @ values / count
    return mean / 255, np.sqrt(histogram @ (values * values) / count - mean * mean) / 255


def _kind(images: np.ndarray) -> str:
    return f"{images.dtype} {list(images.shape[1:])}"


def _miscounted(split: str, part: Part, label: int) -> InputError:
    expected = f"the {part.counts[label]} images of class {part.class_names[label]} that its labels announce"
    return bad_input(f"{split} split", expected, "another number", "nothing was imported; give another copy")
