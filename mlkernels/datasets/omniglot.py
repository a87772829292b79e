"""Omniglot: 1623 handwritten characters of 50 alphabets, 20 drawings each, 28x28 (Lake et al. 2015)."""

from __future__ import annotations

import io
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mlkernels.datasets import folders
from mlkernels.datasets.dataset import Dataset, pixel_statistics
from mlkernels.datasets.decoding import as_rgb
from mlkernels.datasets.fetch import fetch
from mlkernels.datasets.lazy_rows import Turned
from mlkernels.errors import bad_input
from mlkernels.support import checked_arrays
from mlkernels.support.arguments import one_of
from mlkernels.support.file_faults import fault_of, one_error, unreadable

PREPARED = "omniglot_28.npz"
LICENCE = "MIT (Brenden Lake)"
SPLITS = {"vinyals": ("train", "val", "test"), "lake": ("background", "evaluation")}
KEYS = ("images", "labels", "drawer", "char_id", "class_names", "class_split", "vinyals_class_split")

# The split of Vinyals et al. 2016, as Snell et al. 2017 published it, follows the sorted alphabets:
# five of the background set validate; from the 42nd character of Gurmukhi on, the evaluation set tests.
VINYALS_VAL = ("Armenian", "Bengali", "Early_Aramaic", "Hebrew", "Mkhedruli_(Georgian)")
VINYALS_TEST = "Gurmukhi/character42"

MEMBER = re.compile(r"images_(background|evaluation)/([^/]+)/(character\d+)/(\d+)_(\d+)\.png")


@dataclass(frozen=True)
class Official:
    """The official release: its address, its zips with their SHA-256, how many characters and drawings they hold."""

    url: str
    sha256: dict[str, str | None]
    characters: int
    drawings: int


OFFICIAL = Official(
    url="https://github.com/brendenlake/omniglot/raw/master/python/",
    sha256={
        "images_background.zip": "ad41ab679c8b5d90b271ef46be6987cc81211774a695c29dcc5367b2b26ee640",
        "images_evaluation.zip": "1f61a8f3366785b057fc117d9228e78a16e3d976c8953b2a10fcc74cf0609cee",
    },
    characters=1623,
    drawings=20,
)


def available() -> str | None:
    """Where `load` would read from without a download, in words; None if it would download."""
    return " + ".join(map(str, files())) or None


def files() -> list[Path]:
    """The files that `load` would read: the prepared one, or both official zips; none where it would download."""
    return folders.find(PREPARED) or folders.find(*OFFICIAL.sha256)


def load(*, splits: str = "vinyals", rotations: bool = False, download: bool = True) -> Dataset:
    """Omniglot at 28x28, ink = 255, from a prepared file, from the official zips, or downloaded.

    Looks for `omniglot_28.npz` in the folders that MLKERNELS_DATA names and in the cache, then for both official
    zips there, then downloads the zips. Zips are converted once, to `omniglot_28.npz` in the folder that is written to.

    Args:
        splits: "vinyals" (train/val/test = 1028/172/423 characters) or "lake" (background/evaluation = 964/659).
        rotations: every character turned by 90, 180 and 270 degrees is a new class, in the split of the upright one;
            class `t*1623 + c` is character c turned t times, anticlockwise. Turned when read: no memory is used.
        download: whether the zips may be downloaded.

    Returns:
        A `Dataset` of 32460 images (129840 with rotations), `[N, 28, 28, 1]`.

    Raises:
        InputError: no data and no network (it says which file to put where), a broken file (it says which, and as
            what it is kept aside), or an unknown split.

    Example:
        >>> load(splits="snell")
        Traceback (most recent call last):
        mlkernels.errors.InputError: splits: expected vinyals or lake, got 'snell'; name one of them

    Source: Lake, Salakhutdinov and Tenenbaum 2015; splits of Vinyals et al. 2016.
    """
    one_of("splits", splits, SPLITS)
    if prepared := folders.find(PREPARED):
        path, what = prepared[0], f"Omniglot's prepared file with {_size()}"
        arrays = folders.read_npz(path, KEYS, what)
        if fault := _fault(arrays):
            raise folders.reject(path, what, fault)
    else:
        arrays = convert(_archives(download))
        path = folders.claim(folders.writing_folder()) / PREPARED
        checked_arrays.save(path, arrays, compressed=True)
    return _dataset(arrays, splits, rotations, str(path))


def convert(archives: list[Path]) -> dict[str, np.ndarray]:
    """Turn the official zips of 105x105 one-bit PNG files into the arrays of the prepared file.

    White paper becomes 0 and ink 255; each of 28x28 pixels is the mean of the area that it covers (Pillow's BOX). In
    `class_split` 0 is background and 1 evaluation. An archive that is damaged or not the official one is kept aside.
    """
    drawings = []
    for path in archives:
        what = f"the official Omniglot {path.name}"
        fault = fault_of(path, OFFICIAL.sha256.get(path.name))
        if fault is None:
            try:
                with one_error():
                    drawings += _read_zip(path)
            except OSError as error:
                raise unreadable(path, error) from error
            except ValueError as error:
                fault = f"a damaged archive ({error})"
        if fault is not None:
            raise folders.reject(path, what, fault)
    drawings.sort(key=lambda drawing: drawing[0])  # background first; then by alphabet, character, drawer
    places = [place for place, _ in drawings]
    number = {character: index for index, character in enumerate(dict.fromkeys(place[:3] for place in places))}
    names = np.array([f"{alphabet}/{character}" for _, alphabet, character in number], dtype=str)
    split = np.array([evaluation for evaluation, _, _ in number], dtype=np.uint8)
    arrays = {
        "images": np.array([image for _, image in drawings], dtype=np.uint8).reshape(-1, 28, 28, 1),
        "labels": np.array([number[place[:3]] for place in places], dtype=np.int16),
        "drawer": np.array([place[3] for place in places], dtype=np.uint8),
        "char_id": np.array([place[4] for place in places], dtype=np.int16),
        "class_names": names,
        "class_split": split,
        "split_names": np.array(SPLITS["lake"]),
        "vinyals_class_split": _vinyals(names, split),
        "vinyals_split_names": np.array(SPLITS["vinyals"]),
    }
    if fault := _fault(arrays):
        raise bad_input(" + ".join(map(str, archives)), _size(), fault, "fetch the official zips again")
    return arrays


def _size() -> str:
    return f"{OFFICIAL.characters} characters of {OFFICIAL.drawings} drawings"


def _archives(download: bool) -> list[Path]:
    """Both official zips, downloaded to the cache where they are missing and may be."""
    for name, sha256 in OFFICIAL.sha256.items():
        if folders.find(name):
            continue
        if not download:
            do = (
                f"put {PREPARED}, or {' and '.join(OFFICIAL.sha256)} from {OFFICIAL.url}, into "
                f"{folders.writing_folder()} or into a folder that {folders.VARIABLE} names, or allow the download"
            )
            raise bad_input("omniglot", f"{PREPARED} or the official zips", f"none in {folders.where_looked()}", do)
        fetch(OFFICIAL.url + name, folders.claim(folders.writing_folder()) / name, sha256)
    return folders.find(*OFFICIAL.sha256)


def _read_zip(path: Path) -> list[tuple[tuple, np.ndarray]]:
    """Each drawing of one zip with its place: (evaluation?, alphabet, character, drawer, number of the character)."""
    from PIL import Image

    drawings = []
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            match = MEMBER.fullmatch(name)  # which skips the folders and __MACOSX
            if match is None:
                continue
            folder, alphabet, character, number, drawer = match.groups()
            with Image.open(io.BytesIO(archive.read(name))) as image:
                if image.size != (105, 105):
                    raise ValueError(f"{name} is {image.size[0]}x{image.size[1]}, not 105x105")
                ink = 255 - np.asarray(as_rgb(image).convert("L"))
            small = np.asarray(Image.fromarray(ink).resize((28, 28), Image.Resampling.BOX))
            place = (int(folder == "evaluation"), alphabet, character, int(drawer), int(number))
            drawings.append((place, small))
    return drawings


def _vinyals(names: np.ndarray, split: np.ndarray) -> np.ndarray:
    """0 train, 1 val, 2 test for each class; the rule is written at the top."""
    alphabets = [name.split("/")[0] for name in names]
    test = (split == 1) & (names >= VINYALS_TEST)
    return np.where(test, 2, np.where(np.isin(alphabets, VINYALS_VAL), 1, 0)).astype(np.uint8)


def _fault(arrays: dict[str, np.ndarray]) -> str | None:
    """What is wrong with the arrays of a prepared file, in words."""
    images, labels, names = arrays["images"], arrays["labels"], arrays["class_names"]
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (28, 28, 1):
        return f"images {images.dtype} {list(images.shape)}"
    if labels.shape != images.shape[:1] or labels.dtype.kind not in "iu":
        return f"{len(images)} images with labels {labels.dtype} {list(labels.shape)}"
    if len(names) != OFFICIAL.characters:
        return f"{len(names)} characters"
    if not np.array_equal(np.unique(labels), np.arange(len(names))):
        return f"labels that are not 0 to {len(names) - 1}"
    counts = np.bincount(labels)
    if (counts != OFFICIAL.drawings).any():
        return f"{counts.min()} to {counts.max()} drawings of a character"
    if len(np.unique(names)) < len(names):
        return "a character's name twice"
    if arrays["drawer"].shape != labels.shape:
        return f"drawers {list(arrays['drawer'].shape)} of {len(images)} drawings"
    if np.unique(np.stack([labels, arrays["drawer"]]), axis=1).shape[1] < len(labels):
        return "two drawings of a character by one drawer"
    for key, choices in (("class_split", 2), ("vinyals_class_split", 3)):
        if arrays[key].shape != names.shape or not np.isin(arrays[key], range(choices)).all():
            return f"a {key} that is not one number below {choices} for each character"
    return None


def _dataset(arrays: dict[str, np.ndarray], splits: str, rotations: bool, source: str) -> Dataset:
    images, labels = arrays["images"], arrays["labels"].astype(np.int64)
    names = [str(name) for name in arrays["class_names"]]
    number = arrays["vinyals_class_split" if splits == "vinyals" else "class_split"]
    ids = {name: np.flatnonzero(number == index) for index, name in enumerate(SPLITS[splits])}
    mean, std = pixel_statistics(images, np.flatnonzero(number[labels] == 0))
    if rotations:  # which change neither mean nor standard deviation
        turns = range(4)
        images = Turned(images)
        labels = np.concatenate([labels + turn * len(names) for turn in turns])
        ids = {name: np.concatenate([chosen + turn * len(names) for turn in turns]) for name, chosen in ids.items()}
        names = [f"{name} turned {90 * turn}" if turn else name for turn in turns for name in names]
    else:
        images.flags.writeable = False
    return Dataset("omniglot", images, labels, tuple(names), ids, mean, std, source, LICENCE)
