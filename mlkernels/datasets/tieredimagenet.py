"""tieredImageNet: 608 classes of ImageNet under 34 superclasses, which the splits do not share (Ren et al. 2018)."""

from __future__ import annotations

import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np

from mlkernels.datasets.importing.images import FLIPPED, check_array, decode, is_blue_first, labelled, numbered
from mlkernels.datasets.importing.recipe import Expected, Part, Recipe
from mlkernels.datasets.mapped import CHUNK
from mlkernels.datasets.miniimagenet.classes import SPLITS
from mlkernels.datasets.miniimagenet.recipe import LICENCE
from mlkernels.datasets.safe_pickle import reader
from mlkernels.datasets.safe_pickle.stored import StoredArray, as_array
from mlkernels.errors import bad_input
from mlkernels.support.file_faults import fault_of

PREFIXES = ("", "tiered-imagenet-")
SIDE = 84
SHAPE = (SIDE, SIDE, 3)
FORMS = {
    "png": "the pickles of few-shot-ssl ({train,val,test}_images_png.pkl and _labels.pkl)",
    "npz": "the npz files of MetaOptNet and RFS ({train,val,test}_images.npz and _labels.pkl)",
}
IMAGES = {"png": "{}_images_png.pkl", "npz": "{}_images.npz"}
LABELS = "{}_labels.pkl"


def recognise(path: Path) -> str | None:
    """Which of `FORMS` lies at a path: a folder, or one of its files."""
    folder = path if path.is_dir() else path.parent
    for form in FORMS:
        found = _files(folder, IMAGES[form])
        if found and (path.is_dir() or path in found.values() or path in _files(folder, LABELS).values()):
            return form
    return None


def parts(path: Path, form: str) -> dict[str, Part]:
    """The splits of tieredImageNet as they lie at a path in one of `FORMS`."""
    folder = path if path.is_dir() else path.parent
    images, labels = _files(folder, IMAGES[form]), _files(folder, LABELS)
    for found, pattern in ((images, IMAGES[form]), (labels, LABELS)):
        missing = [pattern.format(split) for split in SPLITS if split not in found]
        if missing:
            do = "put the images and labels of all three splits into one folder"
            raise bad_input(str(folder), f"{pattern.format('{train,val,test}')}", f"no {missing[0]}", do)
    read_images = _png if form == "png" else _npz
    read, flip = {}, False
    for split in SPLITS:
        read[split] = read_images(images[split])
        # PNG files know their channels. In an npz they are as OpenCV left them: blue first, if nobody turned them.
        flip = is_blue_first(read[split][1]()) if split == "train" and form == "npz" else flip
    return {split: _part(split, *read[split], images[split], labels[split], flip) for split in SPLITS}


def _part(split: str, count: int, pieces: Callable, images: Path, file: Path, flip: bool) -> Part:
    content = reader.load(file, lazy=True)
    key = "label_specific" if "label_specific" in map(reader.text, content or ()) else "labels"
    labels = as_array(reader.get(content, key, file))
    if labels.shape != (count,) or labels.dtype.kind not in "iu":
        expected, got = f"{count} whole numbers, one for each image", f"{labels.dtype} {list(labels.shape)}"
        raise bad_input(str(file), expected, got, "nothing was imported; give labels and images of one copy")
    numbers, values = numbered(labels)
    names = [f"{split} class {value}" for value in values]
    if key == "label_specific":
        words = [reader.text(word) for word in reader.get(content, "label_specific_str", file)]
        if len(words) <= values.max():
            expected, got = f"a name for each of {values.max() + 1} classes", len(words)
            raise bad_input(str(file), expected, got, "nothing was imported; give another copy")
        names = [words[value] for value in values]
    return Part(
        class_names=tuple(names),
        counts=tuple(np.bincount(numbers).tolist()),
        chunks=labelled(pieces, numbers, flip),
        wnids=_wnids(names, file.parent),
        numbers=None if key == "label_specific" else tuple(values.tolist()),
        files=(images, file),
        notes=(FLIPPED,) if flip else (),
    )


def _png(path: Path) -> tuple[int, Callable[[], Iterator[np.ndarray]]]:
    """How many images, and a way to read them: the pickle is a list of PNG files, as arrays of bytes."""
    files = reader.load(path, lazy=True)
    if not isinstance(files, list):
        raise bad_input(str(path), "a list of PNG files", type(files).__name__, "give few-shot-ssl's pickle")

    def pieces() -> Iterator[np.ndarray]:
        for start in range(0, len(files), CHUNK):
            some = files[start : start + CHUNK]
            yield np.stack([_decoded(one, f"image {start + n} of {path}") for n, one in enumerate(some)])

    return len(files), pieces


def _decoded(one, where: str) -> np.ndarray:
    if isinstance(one, (StoredArray, np.ndarray)):
        one = as_array(one).tobytes()
    elif hasattr(one, "read"):
        one = one.read()
    return decode(one if isinstance(one, bytes) else b"", SIDE, where)


def _npz(path: Path) -> tuple[int, Callable[[], Iterator[np.ndarray]]]:
    """How many images, and a way to read them: `images` uint8 `[N, 84, 84, 3]` of an npz, as a stream."""
    do = "nothing was imported; get it again"
    if fault := fault_of(path):
        raise bad_input(str(path), "an npz file with the array images", fault, do)
    try:
        shape, dtype, _ = _header(path)
    except (KeyError, ValueError, OSError, zipfile.BadZipFile) as error:
        raise bad_input(str(path), "an npz file with the array images", str(error).strip("'\""), do) from None
    check_array(np.broadcast_to(np.zeros((), dtype), shape), SHAPE, shape[0] if shape else 0, path)

    def pieces() -> Iterator[np.ndarray]:
        size = int(np.prod(SHAPE))
        try:
            with zipfile.ZipFile(path) as archive, archive.open("images.npy") as file:
                file.read(_header(path)[2])
                for start in range(0, shape[0], CHUNK):
                    count = min(CHUNK, shape[0] - start)
                    data = file.read(count * size)
                    if len(data) < count * size:
                        raise EOFError(f"{start + len(data) // size} of {shape[0]} images")
                    yield np.frombuffer(data, np.uint8).reshape(count, *SHAPE)
        except (EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise bad_input(str(path), "a whole npz file", f"a damaged one ({error})", do) from None

    return shape[0], pieces


def _header(path: Path) -> tuple[tuple[int, ...], np.dtype, int]:
    """Shape and type of an npz's array `images`, and the bytes before its first row."""
    with zipfile.ZipFile(path) as archive, archive.open("images.npy") as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(file)
        if fortran:
            raise ValueError("an array in Fortran's order")
        return shape, dtype, file.tell()


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


def _files(folder: Path, pattern: str) -> Mapping[str, Path]:
    paths = {split: [folder / f"{prefix}{pattern.format(split)}" for prefix in PREFIXES] for split in SPLITS}
    return {split: path for split, both in paths.items() for path in reversed(both) if path.is_file()}


def _wants(member: str) -> bool:
    """Of an archive: pickles, npz files, lists of names."""
    return member.lower().endswith((".pkl", ".npz", ".txt"))


RECIPES = {
    "tieredimagenet": Recipe(
        name="tieredimagenet",
        licence=LICENCE,
        restricted=True,
        disk=779165 * SIDE * SIDE * 3,
        expected=Expected(
            classes={"train": 351, "val": 97, "test": 160},
            shape=SHAPE,
            totals={"train": 448695, "val": 124261, "test": 206209},
            means={"train": (0.47, 0.45, 0.40)},  # "about": the tolerance makes up for it
            tolerance=0.04,
        ),
        recognise=recognise,
        parts=parts,
        forms=FORMS,
        where="github.com/renmengye/few-shot-ssl-public (tiered-imagenet.tar, 12.9 GB) or zenodo.org/record/7978538",
        wants=_wants,
    )
}
