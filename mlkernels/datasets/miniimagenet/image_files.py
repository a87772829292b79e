"""miniImageNet from image files: named by class or in folders by class, with the split's CSV files or without."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from mlkernels.datasets.importing.images import decoded
from mlkernels.datasets.importing.names import named_twice, wnid_in
from mlkernels.datasets.importing.recipe import Part
from mlkernels.datasets.miniimagenet.classes import SPELLINGS, SPLITS, classes
from mlkernels.errors import bad_input

NAMED = re.compile(r"(n\d{8})\d{8}\.(jpe?g|png)", re.IGNORECASE)  # n0153282900000005.jpg
ENDS = {".jpg", ".jpeg", ".png"}
SIDE = 84


def found(path: Path) -> bool:
    """Whether images of miniImageNet's classes lie in a folder."""
    return path.is_dir() and bool(_by_class(path, first=True))


def parts(path: Path) -> dict[str, Part]:
    """Form C: `images/n0153282900000005.jpg`, or `n01532829/*.jpg`, or `train/n01532829/*.jpg`.

    The wnid in the name of the file or folder says which split an image is in. CSV files, where there are some, say
    which images are taken.
    """
    files = _by_class(path)
    chosen = read_lists(path)
    if chosen is not None:
        by_name = {wnid: {file.name: file for file in own} for wnid, own in files.items()}
        wanted = [(wnid, name) for wnid, own in chosen.items() for name in own]
        missing = [name for wnid, name in wanted if name not in by_name.get(wnid, ())]
        if missing:
            expected, got = f"the {len(wanted)} images of the CSV files", f"{len(missing)} fewer ({missing[0]} ...)"
            raise bad_input(str(path), expected, got, "complete the copy, or take the CSV files away")
        files = {wnid: [by_name[wnid][name] for name in own] for wnid, own in chosen.items()}
    return by_split({wnid: tuple(own) for wnid, own in files.items()}, _read, lambda own: own)


def by_split(
    files: Mapping[str, Sequence],
    read: Callable[[str, Sequence], Iterator[tuple[bytes, str]]],
    paths: Callable[[Sequence], Sequence[Path]],
    notes: tuple[str, ...] = (),
) -> dict[str, Part]:
    """Parts from image files by class.

    Args:
        files: wnid -> its images, in an order of their own.
        read: wnid, images -> their bytes and where they lie.
        paths: images of a class -> the files whose checksums are noted.
        notes: of every part.
    """
    found = {}
    for split in SPLITS:
        wnids = [wnid for wnid, (own, _) in classes().items() if own == split and wnid in files]

        def one_by_one(wnids=wnids) -> Iterator[tuple[bytes, int, str]]:
            for label, wnid in enumerate(wnids):
                for data, where in read(wnid, files[wnid]):
                    yield data, label, where

        found[split] = Part(
            class_names=tuple(classes()[wnid][1] for wnid in wnids),
            counts=tuple(len(files[wnid]) for wnid in wnids),
            chunks=decoded(partial(one_by_one), SIDE),
            wnids=tuple(wnids),
            files=tuple(dict.fromkeys(file for wnid in wnids for file in paths(files[wnid]))),
            notes=notes,
        )
    return found


def read_lists(path: Path) -> dict[str, list[str]] | None:
    """The images that the split's CSV files name, by wnid; None where there are no such files.

    They are looked for beside the images, in a folder `split`, `splits` or `csv_files` there, and one folder up.

    Raises:
        InputError: they are incomplete, damaged, of another split than that of Ravi and Larochelle, name an image twice
            or give it another class than its name does.
    """
    folder = path if path.is_dir() else path.parent
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
        raise bad_input(str(place), "train.csv, val.csv and test.csv", f"{' and '.join(here)} alone", do)
    named: dict[str, list[str]] = {}
    for split, file in lists.items():
        rows = _lines(file, do)
        other = next((wnid for _, wnid in rows if classes().get(wnid, ("no",))[0] != split), None)
        if other:
            got = f"{other}, which is in its {classes()[other][0]} split" if other in classes() else other
            raise bad_input(str(file), f"classes of the {split} split of Ravi and Larochelle", got, do)
        for name, wnid in rows:
            if (wnid_in(name) or wnid) != wnid:
                raise bad_input(str(file), f"the label {wnid_in(name)} of {name}, as its name says", wnid, do)
            named.setdefault(wnid, []).append(name)
        for own in named.values():
            if again := named_twice(own):
                raise bad_input(str(file), "each image once", f"{again} twice", do)
    return named


def _lines(file: Path, do: str) -> list[tuple[str, str]]:
    """The file names and labels of a CSV file, with a header or without, as any editor saves it."""
    try:
        with open(file, encoding="utf-8-sig", newline="") as lines:
            rows = [tuple(cell.strip() for cell in row) for row in csv.reader(lines)]
    except (OSError, ValueError, csv.Error) as error:
        raise bad_input(str(file), "lines `filename,label`", f"others ({error})", do) from None
    rows = [row for row in rows if any(row)]
    if odd := next((row for row in rows if len(row) != 2), None):
        raise bad_input(str(file), "lines `filename,label`", f"{','.join(odd)[:60]!r}", do)
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
            if match:
                own = [entry]
            else:
                own = sorted(file for file in entry.iterdir() if _is_image(file)) if entry.is_dir() else []
            place = spellings.get(folder.name, "") if folder != path else ""
            if own and origin.setdefault(wnid, place) != place:
                expected = "splits of different classes"
                got = f"a supervised split: {wnid} is in {origin[wnid] or path.name} and in {place or path.name}"
                raise bad_input(str(path), expected, got, "give the few-shot copy: 64, 16 and 20 classes")
            if own:
                held.setdefault(wnid, []).extend(own)
            if own and first:
                return held
    for wnid, own in held.items():
        if other := next((file for file in own if (wnid_in(file.name) or wnid) != wnid), None):
            do = "put each image into the folder of its class"
            raise bad_input(str(other), f"an image of {wnid}, as its folder says", f"one of {wnid_in(other.name)}", do)
        if again := named_twice(file.name for file in own):
            places = " and ".join(str(file) for file in own if file.stem.lower() == Path(again).stem.lower())
            raise bad_input(str(path), f"each image of {wnid} once", places, "take one of them away")
    return held


def _is_image(file: Path) -> bool:
    return file.suffix.lower() in ENDS and not file.name.startswith("._")


def _read(wnid: str, files: Sequence[Path]) -> Iterator[tuple[bytes, str]]:
    for file in files:
        try:
            yield file.read_bytes(), str(file)
        except OSError as error:
            raise bad_input(str(file), "a file that can be read", error.strerror, "nothing was imported") from None
