"""What recipes share: which files lie in a folder, checks of labels, images and their names, the order of channels."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import TypeVar

import numpy as np
from jaxtyping import Int

from mlkernels.datasets.decoding import decode
from mlkernels.datasets.importing.recipe import not_imported
from mlkernels.datasets.lazy_rows import CHUNK
from mlkernels.datasets.safe_pickle.stored import as_array
from mlkernels.support.typed import typed

T = TypeVar("T")
WNID = re.compile(r"n\d{8}")  # of WordNet, which names the classes of ImageNet
Names = Mapping[str, Sequence[str]]  # split -> the names that its file may have, the usual one first


def folder_of(path: Path) -> Path:
    """The folder that lies at a path, or that holds the file there."""
    return path if path.is_dir() else path.parent


def files_by_split(path: Path, names: Names) -> dict[str, Path]:
    """The files by split in the folder at a path, or of the file there; splits without one are left out."""
    paths = ((split, folder_of(path) / name) for split, some in names.items() for name in reversed(some))
    return {split: file for split, file in paths if file.is_file()}


def holds(path: Path, names: Names) -> bool:
    """Whether a path is one of these files, or a folder with one of them."""
    files = files_by_split(path, names).values()
    return path in files or (path.is_dir() and bool(files))


def complete(files: Mapping[str, T], names: Names, path: Path) -> Mapping[str, T]:
    """These files of a path, or an `InputError` names the first that is missing."""
    if missing := next((some[0] for split, some in names.items() if split not in files), None):
        expected, do = ", ".join(some[0] for some in names.values()), "put all of these files into one folder"
        raise not_imported(folder_of(path), expected, f"no {missing}", do)
    return files


def all_files(path: Path, names: Names) -> Mapping[str, Path]:
    """The files by split in the folder at a path, all of them."""
    return complete(files_by_split(path, names), names, path)


def check_images(images, shape: tuple[int, ...], path: Path) -> None:
    """It is an array uint8 `[N, *shape]`, or an `InputError` says what it is."""
    held = tuple(getattr(images, "shape", ()))
    if held[1:] != shape or not held[0] or images.dtype != np.uint8:
        got = f"{images.dtype} {list(held)}" if held else type(images).__name__
        raise not_imported(path, f"images uint8 [N, {', '.join(map(str, shape))}]", got)


@typed
def whole_labels(labels, count: int, path: Path) -> Int[np.ndarray, " count"]:
    """Labels as whole numbers, or an `InputError` says what they are."""
    try:
        labels = as_array(labels)
    except ValueError:  # lists of different lengths
        labels = np.array(None)
    if labels.shape != (count,) or labels.dtype.kind not in "iu":
        expected = f"{count} whole numbers as labels, one for each image"
        raise not_imported(path, expected, f"{labels.dtype} {list(labels.shape)}")
    return labels.astype(np.int64)


def is_blue_first(pieces: Iterable[np.ndarray]) -> bool:
    """Whether images have the channels blue, green, red: photographs are red, so the first is the smallest."""
    total = np.zeros(3, dtype=np.int64)
    for images in pieces:
        total += images[::10].sum(axis=(0, 1, 2), dtype=np.int64)
    return bool(total[0] < total[1] < total[2])


def decoded(files: Callable[[], Iterator[tuple[bytes, str]]], side: int) -> Callable[[], Iterator[np.ndarray]]:
    """Images for a `Part` from image files: `files` gives an iterator over (bytes, where they lie)."""

    def pieces() -> Iterator[np.ndarray]:
        images = []
        for data, where in files():
            images.append(decode(data, side, where))
            if len(images) == CHUNK:
                yield np.stack(images)
                images = []
        if images:
            yield np.stack(images)

    return pieces


def wnid_in(name: str) -> str | None:
    """The wnid that a file's name begins with."""
    match = WNID.match(PurePath(name).name)
    return match and match[0]


def named_twice(names: Iterable[str]) -> str | None:
    """The first name of an image that another has had. Names with a wnid mean one image whatever they end in."""
    seen = set()
    for name in names:
        key = PurePath(name).stem.lower() if wnid_in(name) else name
        if key in seen:
            return name
        seen.add(key)
    return None
