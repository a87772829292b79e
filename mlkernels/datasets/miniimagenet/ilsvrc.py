"""miniImageNet from the training images of ILSVRC 2012, in folders or tar files by class."""

from __future__ import annotations

import re
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from mlkernels.datasets.importing.recipe import Part, not_imported
from mlkernels.datasets.miniimagenet.classes import classes
from mlkernels.datasets.miniimagenet.image_files import NAMED, by_split, read_files, read_lists

FILE = re.compile(r"(?:.*/)?(n\d{8})_(\d+)\.jpe?g", re.IGNORECASE)  # n01532829_123.JPEG
CLASS_TAR = re.compile(r"(?:.*/)?(n\d{8})\.tar")
IMAGES = 600
ROOTS = ("", "train", "ILSVRC/Data/CLS-LOC/train", "Data/CLS-LOC/train", "ILSVRC2012_img_train")


@dataclass(frozen=True)
class Picture:
    """An image by its number in the class, and where it is."""

    number: int
    name: str
    holder: Path  # the folder of the class, or a tar file


def lies_at(path: Path) -> bool:
    """Whether ILSVRC's training images lie at a path: class folders, class tar files, or the tar of those."""
    if path.is_dir():
        return _root(path) is not None
    if not path.is_file() or not tarfile.is_tarfile(path):
        return False
    with tarfile.open(path) as archive:
        return CLASS_TAR.fullmatch(getattr(archive.next(), "name", "")) is not None


def splits_of(path: Path) -> dict[str, Part]:
    """Form F: 600 images of each of the 100 classes, each squashed to 84x84.

    The CSV files of the split name an image by its rank among the images of its class, in the order of their numbers:
    n0153282900000005.jpg is the fifth of n01532829. Without them the first 600 of each class are taken, which are not
    the published ones.
    """
    pictures = _in_tar(path) if path.is_file() else _in_folder(path)
    chosen = read_lists(path)
    notes = ()
    if chosen is None:
        pictures = {wnid: some[:IMAGES] for wnid, some in pictures.items()}
        notes = (f"the first {IMAGES} images of each class, not the published choice: no CSV files lie beside them",)
    else:
        pictures = {wnid: _ranked(wnid, pictures.get(wnid, ()), names, path) for wnid, names in chosen.items()}
    return by_split(pictures, _read, _paths, notes)


def _ranked(wnid: str, pictures: Sequence[Picture], names: Sequence[str], path: Path) -> tuple[Picture, ...]:
    """The pictures whose ranks, from 1, are the last four digits of the names."""
    do = "take the published CSV files, or take these away"
    if other := next((name for name in names if not NAMED.fullmatch(name)), None):
        raise not_imported(path, f"names with a rank in the class, as {wnid}00000005.jpg", other, do)
    ranks = [int(name.rpartition(".")[0][-4:]) for name in names]
    if again := next((rank for rank, count in Counter(ranks).items() if count > 1), None):
        raise not_imported(path, f"each image of {wnid} once in the CSV files", f"rank {again} twice", do)
    if max(ranks) > len(pictures) or min(ranks) < 1:
        expected = f"at least {max(ranks)} images of {wnid}, as the CSV files choose among them"
        raise not_imported(path, expected, len(pictures), "complete the class, or take the CSV files away")
    return tuple(pictures[rank - 1] for rank in ranks)


def _root(path: Path) -> Path | None:
    """The folder that holds each of our classes, as a folder of files named as ILSVRC names them or as a tar file."""
    for root in (path / name for name in ROOTS):
        if all((root / wnid).is_dir() or (root / f"{wnid}.tar").is_file() for wnid in classes()):
            folder = next((root / wnid for wnid in classes() if (root / wnid).is_dir()), None)
            if folder is None or any(FILE.fullmatch(file.name) for file in folder.iterdir()):
                return root
    return None


def _in_folder(path: Path) -> dict[str, tuple[Picture, ...]]:
    root, pictures = _root(path), {}
    for wnid in classes():
        folder, tar = root / wnid, root / f"{wnid}.tar"
        if folder.is_dir():
            pictures[wnid] = _sorted(wnid, (file.name for file in folder.iterdir()), folder)
        else:
            with _opened(tar) as archive:
                pictures[wnid] = _sorted(wnid, archive.getnames(), tar)
    return pictures


def _in_tar(path: Path) -> dict[str, tuple[Picture, ...]]:
    pictures = {}
    with _opened(path) as outer:
        for member in outer:
            match = CLASS_TAR.fullmatch(member.name)
            if match and match[1] in classes():
                if match[1] in pictures:
                    raise not_imported(path, "one tar file a class", f"{match[1]}.tar twice")
                with tarfile.open(fileobj=outer.extractfile(member)) as archive:
                    pictures[match[1]] = _sorted(match[1], archive.getnames(), path)
    return pictures


def _sorted(wnid: str, names: Iterable[str], holder: Path) -> tuple[Picture, ...]:
    """A class's pictures by their numbers. An `InputError` where one is of another class, or two have one number."""
    matches = [(FILE.fullmatch(name), name) for name in names]
    pictures = sorted((Picture(int(m[2]), name, holder) for m, name in matches if m), key=lambda one: one.number)
    if other := next((name for m, name in matches if m and m[1].lower() != wnid), None):
        raise not_imported(holder, f"images of {wnid}", other)
    if again := next((two.name for one, two in pairwise(pictures) if one.number == two.number), None):
        raise not_imported(holder, f"each image of {wnid} once", f"{again} twice")
    return tuple(pictures)


def _paths(pictures: Sequence[Picture]) -> Sequence[Path]:
    return [one.holder if one.holder.is_file() else one.holder / one.name for one in pictures]


def _read(wnid: str, pictures: Sequence[Picture]) -> Iterator[tuple[bytes, str]]:
    """The pictures' bytes, from their folder, their class's tar, or that tar inside of another."""
    holder = pictures[0].holder
    if holder.is_dir():
        yield from read_files(wnid, [holder / one.name for one in pictures])
        return
    with _opened(holder) as archive:
        if not CLASS_TAR.fullmatch(holder.name):
            inner = next(member for member in archive if (m := CLASS_TAR.fullmatch(member.name)) and m[1] == wnid)
            archive = tarfile.open(fileobj=archive.extractfile(inner))  # noqa: SIM115 (the outer file is closed)
        for one in pictures:
            yield archive.extractfile(one.name).read(), f"{one.name} in {holder}"


@contextmanager
def _opened(path: Path) -> Iterator[tarfile.TarFile]:
    try:
        with tarfile.open(path) as archive:
            yield archive
    except (tarfile.TarError, EOFError, KeyError, AttributeError) as error:
        got = f"a damaged or truncated one ({error})"
        raise not_imported(path, "a whole tar file", got, "get it again") from None
