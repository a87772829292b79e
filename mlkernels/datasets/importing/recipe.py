"""What a module says about a dataset that is imported: a `Recipe`. The importer does all the rest.

A module of such datasets (miniimagenet.py, tieredimagenet.py, cifar.py) holds `RECIPES: dict[str, Recipe]`, by name,
and the functions that its recipes name:

    recognise(path) -> form or None      looks at names and first bytes only; reads no images
    parts(path, form) -> {split: Part}   reads labels and class names; images only once `Part.chunks` is called

`path` is what the user gave. If it is an archive that `recognise` does not know as it is, then what `wants` says of its
members is unpacked into a folder of its own, and `recognise` is asked about that folder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Part:
    """One split of a dataset, before it is read.

    Args:
        class_names: one name a class.
        counts: images of each class, in the order of `class_names`.
        chunks: gives an iterator over `(uint8 images [n, H, W, C], int labels [n] in 0..classes-1)`, each chunk of
            about `CHUNK` images, in any order of classes. It may be called more than once.
        wnids: one WordNet id a class, or None where the source does not say.
        numbers: the source's own number of each class where it has no names for them, else None. Other splits may use
            the same numbers for other classes: whether they mean the same is decided by pixels.
        files: the files that it is read from, for their SHA-256.
        notes: what the user should know, a sentence each.
    """

    class_names: tuple[str, ...]
    counts: tuple[int, ...]
    chunks: Callable[[], Iterator[tuple[np.ndarray, np.ndarray]]]
    wnids: tuple[str, ...] | None = None
    numbers: tuple[int, ...] | None = None
    files: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Expected:
    """What a complete copy has; `_checks` holds an import against it.

    Args:
        classes: split -> number of classes.
        shape: (H, W, C) of an image.
        images: of each class, or None where classes differ. Fewer is said, more is an error.
        totals: split -> number of images, where that is known instead. Fewer is said.
        means: split -> channel means in [0, 1], or empty. Further off than `tolerance` is an error.
        tolerance: of the means.
        red_first: whether the train split's red mean is the largest and its blue the smallest, as in photographs.
    """

    classes: Mapping[str, int]
    shape: tuple[int, int, int]
    images: int | None = None
    totals: Mapping[str, int] = field(default_factory=dict)
    means: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    tolerance: float = 0.02
    red_first: bool = True


@dataclass(frozen=True)
class Download:
    """A file that `mlkernels data get` may fetch; `sha256` is None where nobody has published it."""

    url: str
    name: str
    sha256: str | None = None


@dataclass(frozen=True)
class Recipe:
    """A dataset that is imported.

    Args:
        name: what `datasets.load` calls it.
        licence: its terms in a line.
        restricted: whether they must be accepted before it is imported.
        disk: bytes of its prepared form, about.
        expected: of a complete copy.
        recognise: path -> the form that lies there, or None.
        parts: path, form -> split -> `Part`. Raises an `InputError` for what is damaged or incomplete.
        forms: form -> what it is in words, for messages.
        downloads: files to fetch where the user gives no copy; empty where no trusted address is known.
        where: where to get a copy, for the error where there is no download.
        wants: name of an archive's member -> whether it is unpacked.
    """

    name: str
    licence: str
    restricted: bool
    disk: int
    expected: Expected
    recognise: Callable[[Path], str | None]
    parts: Callable[[Path, str], Mapping[str, Part]]
    forms: Mapping[str, str]
    downloads: tuple[Download, ...] = ()
    where: str = ""
    wants: Callable[[str], bool] = lambda member: True
