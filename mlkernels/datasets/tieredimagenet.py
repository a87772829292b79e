"""tieredImageNet: 608 classes of ImageNet under 34 superclasses, which the splits do not share (Ren et al. 2018)."""

from __future__ import annotations

import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from mlkernels.datasets.importing.reading import (
    all_files,
    check_images,
    decoded,
    folder_of,
    holds,
    is_blue_first,
    whole_labels,
)
from mlkernels.datasets.importing.recipe import SPLITS, Expected, Form, Part, Recipe, not_imported
from mlkernels.datasets.lazy_rows import CHUNK
from mlkernels.datasets.miniimagenet.recipe import LICENCE
from mlkernels.datasets.safe_pickle import reader
from mlkernels.datasets.safe_pickle.stored import Stored, StoredArray, as_array
from mlkernels.support.checked_arrays import npy_header
from mlkernels.support.file_faults import fault_of, one_error

PREFIXES = ("", "tiered-imagenet-")
SHAPE = (84, 84, 3)
IMAGES = {"png": "{}_images_png.pkl", "npz": "{}_images.npz"}
LABELS = "{}_labels.pkl"


def _lies_at(form: str, path: Path) -> bool:
    images, labels = _names(IMAGES[form]), _names(LABELS)
    return holds(folder_of(path), images) and (holds(path, images) or holds(path, labels))


def _splits_of(form: str, path: Path) -> dict[str, Part]:
    images, labels = all_files(path, _names(IMAGES[form])), all_files(path, _names(LABELS))
    parts, blue_first = {}, False
    for split in SPLITS:
        count, pieces = (_png if form == "png" else _npz)(images[split])
        if split == "train" and form == "npz":  # as OpenCV left them, if nobody turned them; PNG knows its channels
            blue_first = is_blue_first(pieces())
        parts[split] = _part(split, count, pieces, blue_first, (images[split], labels[split]))
    return parts


def _part(split: str, count: int, pieces: Callable, blue_first: bool, files: tuple[Path, Path]) -> Part:
    file = files[1]
    content = reader.load(file, lazy=True)
    key = "label_specific" if "label_specific" in map(reader.text, content or ()) else "labels"
    values, labels = np.unique(whole_labels(reader.get(content, key, file), count, file), return_inverse=True)
    names, numbers = [f"{split} class {value}" for value in values], values.tolist()
    if key == "label_specific":
        words, numbers = [reader.text(word) for word in reader.get(content, "label_specific_str", file)], None
        if len(words) <= values.max():
            raise not_imported(file, f"a name for each of {values.max() + 1} classes", len(words))
        names = [words[value] for value in values]
    return Part(names, labels, pieces, blue_first, _wnids(names, file.parent), numbers, files)


def _png(path: Path) -> tuple[int, Callable[[], Iterator[np.ndarray]]]:
    """How many images, and a way to read them: the pickle is a list of PNG files, as arrays of bytes."""
    files = reader.load(path, lazy=True)
    if not isinstance(files, list):
        raise not_imported(path, "a list of PNG files", type(files).__name__, "give few-shot-ssl's pickle")

    def image_files() -> Iterator[tuple[bytes, str]]:
        for number, data in enumerate(files):
            if isinstance(data, (StoredArray, np.ndarray)):
                data = as_array(data).tobytes()
            elif isinstance(data, Stored):
                data = data.read()
            yield data if isinstance(data, bytes) else b"", f"image {number} of {path}"

    return len(files), decoded(image_files, SHAPE[0])


def _npz(path: Path) -> tuple[int, Callable[[], Iterator[np.ndarray]]]:
    """How many images, and a way to read them: `images` uint8 `[N, 84, 84, 3]` of an npz, as a stream."""
    expected, do = "an npz file with the array images", "get it again"
    if fault := fault_of(path):
        raise not_imported(path, expected, fault, do)
    try:
        with one_error(), zipfile.ZipFile(path) as archive, archive.open("images.npy") as file:
            shape, dtype = npy_header(file)
            like = np.broadcast_to(np.zeros((), dtype), shape)
    except (ValueError, OSError) as error:
        raise not_imported(path, expected, str(error).strip("'\""), do) from None
    check_images(like, SHAPE, path)

    def pieces() -> Iterator[np.ndarray]:
        size = int(np.prod(SHAPE))
        try:
            with one_error(), zipfile.ZipFile(path) as archive, archive.open("images.npy") as file:
                npy_header(file)
                for start in range(0, shape[0], CHUNK):
                    count = min(CHUNK, shape[0] - start)
                    data = file.read(count * size)
                    if len(data) < count * size:
                        raise EOFError(f"{start + len(data) // size} of {shape[0]} images")
                    yield np.frombuffer(data, np.uint8).reshape(count, *SHAPE)
                if file.read(1):  # at the end its CRC is looked at
                    raise ValueError(f"more than {shape[0]} images")
        except (ValueError, OSError) as error:
            raise not_imported(path, "a whole npz file", f"a damaged one ({error})", do) from None

    return shape[0], pieces


def _wnids(names: list[str], folder: Path) -> tuple[str, ...] | None:
    """The wnids of class names from synsets.txt and class_names.txt, where these lie there and no name means two."""
    try:
        words, wnids = (
            [line.strip() for line in (folder / file).read_text(encoding="utf-8-sig").rstrip().splitlines()]
            for file in ("class_names.txt", "synsets.txt")
        )
    except (OSError, ValueError):
        return None
    if len(words) != len(wnids):
        return None
    unique = Counter(words)
    wnid_of = {word: wnid for word, wnid in zip(words, wnids, strict=True) if unique[word] == 1}
    return tuple(wnid_of[name] for name in names) if all(name in wnid_of for name in names) else None


def _names(pattern: str) -> dict[str, list[str]]:
    return {split: [f"{prefix}{pattern.format(split)}" for prefix in PREFIXES] for split in SPLITS}


RECIPES = {
    "tieredimagenet": Recipe(
        name="tieredimagenet",
        licence=LICENCE,
        restricted=True,
        disk=779165 * 84 * 84 * 3,
        expected=Expected(
            classes={"train": 351, "val": 97, "test": 160},
            shape=SHAPE,
            totals={"train": 448695, "val": 124261, "test": 206209},
            means={"train": (0.47, 0.45, 0.40)},  # "about": the tolerance makes up for it
            tolerance=0.04,
        ),
        forms={
            form: Form(words, partial(_lies_at, form), partial(_splits_of, form))
            for form, words in (
                ("png", "the pickles of few-shot-ssl ({train,val,test}_images_png.pkl and _labels.pkl)"),
                ("npz", "the npz files of MetaOptNet and RFS ({train,val,test}_images.npz and _labels.pkl)"),
            )
        },
        where="github.com/renmengye/few-shot-ssl-public (tiered-imagenet.tar, 12.9 GB) or zenodo.org/record/7978538",
        wants=(".pkl", ".npz", ".txt"),
    )
}
