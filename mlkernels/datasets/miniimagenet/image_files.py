"""miniImageNet from image files: named by class or in folders by class, with the split's CSV files or without."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from mlkernels.datasets.importing.reading import decoded, folder_of, named_twice, wnid_in
from mlkernels.datasets.importing.recipe import SPLITS, Part, not_imported
from mlkernels.datasets.miniimagenet.classes import SPELLINGS, classes

NAMED = re.compile(r"(n\d{8})\d{8}\.(jpe?g|png)", re.IGNORECASE)  # n0153282900000005.jpg
ENDS = {".jpg", ".jpeg", ".png"}
SIDE = 84


def lie_at(path: Path) -> bool:
    """Whether images of miniImageNet's classes lie in a folder."""
    return path.is_dir() and bool(_by_class(path, first=True))


def splits_of(path: Path) -> dict[str, Part]:
    """Form C: `images/n0153282900000005.jpg`, or `n01532829/*.jpg`, or `train/n01532829/*.jpg`.

    The wnid in the name of the file or folder says which split an image is in. CSV files, where there are some, say
    which images are taken.
    """
    files = _by_class(path)
    chosen = read_lists(path)
    if chosen is not None:
        by_name = {wnid: {file.name: file for file in some} for wnid, some in files.items()}
        wanted = [(wnid, name) for wnid, names in chosen.items() for name in names]
        missing = [name for wnid, name in wanted if name not in by_name.get(wnid, ())]
        if missing:
            expected, got = f"the {len(wanted)} images of the CSV files", f"{len(missing)} fewer ({missing[0]} ...)"
            raise not_imported(path, expected, got, "complete the copy, or take the CSV files away")
        files = {wnid: [by_name[wnid][name] for name in names] for wnid, names in chosen.items()}
    return by_split(files, read_files, lambda some: some)


def by_split(
    files: Mapping[str, Sequence],
    read: Callable[[str, Sequence], Iterator[tuple[bytes, str]]],
    paths: Callable[[Sequence], Sequence[Path]],
    notes: tuple[str, ...] = (),
) -> dict[str, Part]:
    """Parts from image files by wnid: `read` gives bytes and their places, `paths` the files whose checksums count."""
    parts = {}
    for split in SPLITS:
        wnids = [wnid for wnid, (its_split, _) in classes().items() if its_split == split and wnid in files]

        def image_files(wnids=wnids) -> Iterator[tuple[bytes, str]]:
            for wnid in wnids:
                yield from read(wnid, files[wnid])

        parts[split] = Part(
            class_names=[classes()[wnid][1] for wnid in wnids],
            labels=np.repeat(np.arange(len(wnids)), np.array([len(files[wnid]) for wnid in wnids], int)),
            images=decoded(image_files, SIDE),
            wnids=wnids,
            files=list(dict.fromkeys(file for wnid in wnids for file in paths(files[wnid]))),
            notes=notes,
        )
    return parts


def read_lists(path: Path) -> dict[str, list[str]] | None:
    """The images that the split's CSV files name, by wnid; None where there are no such files.

    They are looked for beside the images, in a folder `split`, `splits` or `csv_files` there, and one folder up.
    """
    folder = folder_of(path)
    places = [folder, *(folder / name for name in ("split", "splits", "csv_files")), folder.parent]
    for place in places:
        lists = {split: place / f"{split}.csv" for split in SPLITS}
        here = [split for split, file in lists.items() if file.is_file()]
        if here:
            break
    else:
        return None
    do = "take them from github.com/twitter-research/meta-learning-lstm (data/miniImagenet), or take them away"
    if len(here) < len(SPLITS):
        raise not_imported(place, "train.csv, val.csv and test.csv", f"{' and '.join(here)} alone", do)
    named: dict[str, list[str]] = {}
    for split, file in lists.items():
        rows = _lines(file, do)
        other = next((wnid for _, wnid in rows if classes().get(wnid, ("no",))[0] != split), None)
        if other:
            got = f"{other}, which is in its {classes()[other][0]} split" if other in classes() else other
            raise not_imported(file, f"classes of the {split} split of Ravi and Larochelle", got, do)
        for name, wnid in rows:
            if (wnid_in(name) or wnid) != wnid:
                raise not_imported(file, f"the label {wnid_in(name)} of {name}, as its name says", wnid, do)
            named.setdefault(wnid, []).append(name)
        for names in named.values():
            if again := named_twice(names):
                raise not_imported(file, "each image once", f"{again} twice", do)
    return named


def _lines(file: Path, do: str) -> list[tuple[str, str]]:
    """The file names and labels of a CSV file, with a header or without, as any editor saves it."""
    try:
        with open(file, encoding="utf-8-sig", newline="") as lines:
            rows = [tuple(cell.strip() for cell in row) for row in csv.reader(lines)]
    except (OSError, ValueError, csv.Error) as error:
        raise not_imported(file, "lines `filename,label`", f"others ({error})", do) from None
    rows = [row for row in rows if any(row)]
    if odd := next((row for row in rows if len(row) != 2), None):
        raise not_imported(file, "lines `filename,label`", f"{','.join(odd)[:60]!r}", do)
    return [row for row in rows if row[1].lower() != "label"]


def _by_class(path: Path, first: bool = False) -> dict[str, list[Path]]:
    """The image files of our classes in a folder, by wnid; with `first`, of one class alone."""
    held: dict[str, list[Path]] = {}
    origin: dict[str, str] = {}
    spellings = {name: split for split, names in SPELLINGS.items() for name in names}
    for folder in (path, path / "images", *(path / name for name in spellings)):
        if not folder.is_dir():
            continue
        for entry in sorted(folder.iterdir()):
            match = NAMED.fullmatch(entry.name)
            wnid = match[1] if match else entry.name
            if wnid not in classes():
                continue
            inside = entry.iterdir() if entry.is_dir() else ()
            images = [file for file in inside if file.suffix.lower() in ENDS and not file.name.startswith("._")]
            files = [entry] if match else sorted(images)
            place = spellings.get(folder.name, "") if folder != path else ""
            if files and origin.setdefault(wnid, place) != place:
                expected = "splits of different classes"
                got = f"a supervised split: {wnid} is in {origin[wnid] or path.name} and in {place or path.name}"
                raise not_imported(path, expected, got, "give the few-shot copy: 64, 16 and 20 classes")
            if files:
                held.setdefault(wnid, []).extend(files)
            if files and first:
                return held
    for wnid, files in held.items():
        if other := next((file for file in files if (wnid_in(file.name) or wnid) != wnid), None):
            do = "put each image into the folder of its class"
            raise not_imported(other, f"an image of {wnid}, as its folder says", f"one of {wnid_in(other.name)}", do)
        if again := named_twice(file.name for file in files):
            places = " and ".join(str(file) for file in files if file.stem.lower() == Path(again).stem.lower())
            raise not_imported(path, f"each image of {wnid} once", places, "take one of them away")
    return held


def read_files(wnid: str, files: Sequence[Path]) -> Iterator[tuple[bytes, str]]:
    """The bytes of each file, and where it lies."""
    for file in files:
        try:
            yield file.read_bytes(), str(file)
        except OSError as error:
            raise not_imported(file, "a file that can be read", error.strerror, "get it again") from None
