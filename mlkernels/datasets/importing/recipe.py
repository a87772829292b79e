"""What a module says about a dataset that is imported: a `Recipe`. The importer does all the rest.

It lists the forms in which the dataset is passed on; each says whether it lies at a path and reads its splits there:
labels and class names at once, images when `Part.chunks` is called. The path is what the user gave, or where the
members that the recipe wants of it were unpacked to, if it is an archive that is no form as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Int, UInt8

from mlkernels.errors import InputError, bad_input

SPLITS = ("train", "val", "test")
FLIPPED = "its channels were blue, green, red; they were turned round"


@dataclass(frozen=True, eq=False)
class Part:
    """One split of a dataset, before its images are read.

    Args:
        labels: the class of each image in the order of the source; -1 if it is left out.
        images: gives an iterator over these images, about `CHUNK` at a time. It may be called more than once.
        wnids: one WordNet id a class, or None where the source does not say.
        numbers: the source's own number of each class where it has no names for them, else None. Other splits may use
            the same numbers for other classes: whether they mean the same is decided by pixels.
        files: the files that it is read from, for their SHA-256.
        notes: what the user should know, a sentence each.
    """

    class_names: Sequence[str]
    labels: Int[np.ndarray, " N"]
    images: Callable[[], Iterator[UInt8[np.ndarray, "_ H W C"]]]
    blue_first: bool = False
    wnids: Sequence[str] | None = None
    numbers: Sequence[int] | None = None
    files: Sequence[Path] = ()
    notes: tuple[str, ...] = ()

    @cached_property
    def counts(self) -> Int[np.ndarray, " classes"]:
        """Images of each class."""
        return np.bincount(self.labels[self.labels >= 0], minlength=len(self.class_names))

    def chunks(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The images that are taken, red first, and their labels; refuses more images than labels, or fewer."""
        read = 0
        for images in self.images():
            labels = self.labels[read : read + len(images)]
            read += len(images)
            taken = np.flatnonzero(labels >= 0)
            images = images if len(taken) == len(images) else images[taken]
            yield images[..., ::-1] if self.blue_first else images, labels[taken]
        if read != len(self.labels):
            where = self.files[0] if self.files else f"images of {self.class_names[0]} and others"
            raise not_imported(where, f"the {len(self.labels)} images that its labels announce", read)


@dataclass(frozen=True)
class Expected:
    """What a complete copy has by split; `expectations.py` holds an import against it.

    `images` counts those of each class, where all have as many, else `totals` those of a split. Fewer is said, more is
    an error, and so are channel `means` (in [0, 1]) further off than `tolerance`.
    """

    classes: Mapping[str, int]
    shape: tuple[int, int, int]
    images: int | None = None
    totals: Mapping[str, int] = field(default_factory=dict)
    means: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    tolerance: float = 0.02


@dataclass(frozen=True)
class Download:
    """A file that `mlkernels data get` may fetch; `sha256` is None where nobody has published it."""

    url: str
    name: str
    sha256: str | None = None


@dataclass(frozen=True)
class Form:
    """A form in which a dataset is passed on, in `words`; `splits_of` refuses what is damaged or incomplete.

    `lies_at` says whether it lies at a path; it looks at names and first bytes only.
    """

    words: str
    lies_at: Callable[[Path], object]
    splits_of: Callable[[Path], Mapping[str, Part]]


@dataclass(frozen=True)
class Recipe:
    """A dataset that is imported.

    Args:
        restricted: whether its licence must be accepted before it is imported.
        disk: bytes of its prepared form, about.
        forms: name -> `Form`; the first that lies at a path is taken.
        downloads: files to fetch where the user gives no copy; empty where no trusted address is known.
        where: where to get a copy, for the error where there is no download.
        wants: how names of an archive's members end that are unpacked, in small letters; "/" stands before each name.
    """

    name: str
    licence: str
    restricted: bool
    disk: int
    expected: Expected
    forms: Mapping[str, Form]
    downloads: tuple[Download, ...] = ()
    where: str = ""
    wants: tuple[str, ...] = ("",)

    def forms_in_words(self) -> str:
        """All forms, for messages."""
        return "; ".join(form.words for form in self.forms.values())

    def recognise(self, path: Path) -> str | None:
        """The name of the form that lies at a path, or None."""
        return next((name for name, form in self.forms.items() if form.lies_at(path)), None)

    def splits_of(self, path: Path, form: str) -> dict[str, Part]:
        """The splits that lie at a path in a form, the training split first."""
        parts = self.forms[form].splits_of(path)
        return {split: parts[split] for split in SPLITS if split in parts}


def not_imported(where: object, expected: object, got: object, do: str = "give another copy") -> InputError:
    """The error, to raise, for a copy that is refused."""
    return bad_input(str(where), expected, got, f"nothing was imported; {do}")
