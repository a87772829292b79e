"""What tells a dataset from others of its size: a checksum of pixels and labels, by which a long run knows its own."""

from __future__ import annotations

import zlib
from functools import cache
from pathlib import Path

import numpy as np

from mlkernels.datasets import available, folders, names, omniglot
from mlkernels.datasets.dataset import Dataset
from mlkernels.errors import InputError
from mlkernels.support.file_faults import sha256_of

MOST = 2**27  # bytes of a split's images that are read: all of a small one, of a large one some of each class
_AT_ONCE = 1000  # images


def fingerprint(dataset: Dataset) -> str:
    """A checksum of the first split: of its labels, and of its images as far as `MOST` goes; 8 hexadecimal digits.

    All images are read where they are fewer bytes than that. Of more, the first of each class is, and as many others
    at equal distances. Names of classes and of files are not looked at: nothing follows from them.
    """
    data = dataset.only(next(iter(dataset.splits)))
    images, labels = data.images, np.asarray(data.labels, "<i8")
    checksum = zlib.crc32(f"{images.dtype}{list(images.shape)}".encode())
    checksum = zlib.crc32(labels.tobytes(), checksum)
    rows = np.arange(len(labels))
    most = max(1, MOST // max(1, int(np.prod(images.shape[1:])) * images.dtype.itemsize))
    if len(rows) > most:
        spread = np.linspace(0, len(rows) - 1, most).astype(int)
        rows = np.union1d(spread, np.unique(labels, return_index=True)[1])
    for start in range(0, len(rows), _AT_ONCE):
        checksum = zlib.crc32(np.ascontiguousarray(images[rows[start : start + _AT_ONCE]]).data, checksum)
    return f"{checksum:08x}"


def described(dataset: Dataset) -> dict:
    """All of a dataset that results follow from, as plain values for a file.

    Returns:
        `name`, `mean` and `std` (lists of numbers), `splits`: name -> `[images, classes, fingerprint]`.

    Example:
        >>> from mlkernels import datasets
        >>> described(datasets.load("glyphs", "test"))["splits"]["test"][:2]
        [1000, 50]
    """
    splits = {name: dataset.only(name) for name in dataset.splits}
    sizes = {name: [len(data.labels), len(data.class_names), fingerprint(data)] for name, data in splits.items()}
    numbers = {name: np.asarray(getattr(dataset, name), float).tolist() for name in ("mean", "std")}
    return {"name": dataset.name, **numbers, "splits": sizes}


def files() -> dict[str, str]:
    """What `datasets.load` would read from the disk now: a checksum of each dataset's files, empty where none are.

    Of a prepared folder it is that of the manifest, which has the checksums of all others; of one that cannot be looked
    at, why.
    """
    return {name: _files_of(name) for name in names()}


def _files_of(name: str) -> str:
    try:
        if name == "omniglot":
            paths = omniglot.files()
        elif name == "glyphs" or (place := available(name)) is None:
            return ""
        else:
            paths = [Path(place) / folders.MANIFEST if Path(place).is_dir() else Path(place)]
        return " ".join(_sum(path, path.stat().st_size, path.stat().st_mtime_ns) for path in paths)
    except (InputError, OSError) as error:
        return str(error)


@cache
def _sum(path: Path, size: int, changed: int) -> str:
    """Of a file, as it was when it had this size and this time."""
    return sha256_of(path)
