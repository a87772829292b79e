"""CIFAR-FS and FC100: the 100 classes of CIFAR-100 divided for few-shot learning, 32x32 (Krizhevsky 2009)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np

from mlkernels.datasets import folders
from mlkernels.datasets.cifar_classes import CLASSES, SPLITS, SUPERCLASS_OF, SUPERCLASSES, split_classes
from mlkernels.datasets.dataset import Dataset, pixel_statistics
from mlkernels.datasets.importing.recipe import Download, Expected, Part, Recipe
from mlkernels.datasets.mapped import CHUNK
from mlkernels.datasets.safe_pickle import reader
from mlkernels.datasets.safe_pickle.allowed import text
from mlkernels.datasets.safe_pickle.stored import StoredArray
from mlkernels.errors import bad_input

LICENCE = "none stated by its authors (Krizhevsky 2009): research use"
SMALL = "cifar100_120percls.npz"  # 120 images of each class, lossless
OFFICIAL = ("train", "test", "meta")
FOLDER = "cifar-100-python"
READY = {"cifar_fs": "CIFAR_FS_{}.pickle", "fc100": "FC100_{}.pickle"}
FORMS = {
    "official": f"the official CIFAR-100 ({FOLDER})",
    "ready": "one pickle a split, as MetaOptNet gives them",
    "small": f"120 images a class of CIFAR-100 ({SMALL})",
}
AGAIN = "nothing was imported; get that file again"

File = tuple[np.ndarray, Iterator[np.ndarray]]  # the labels of a file, int [N], and its images in pieces


def recognise(name: str, path: Path) -> str | None:
    """The form that lies at a path, which is a folder or one of its files: one of `FORMS`, or None."""
    folder = path if path.is_dir() else path.parent
    if _official(path) is not None:
        return "official"
    own = [READY[name].format(split) for split in SPLITS]
    if (path.is_dir() or path.name in own) and any((folder / file).is_file() for file in own):
        return "ready"
    return (
        "small" if path.name == SMALL and path.is_file() else None
    )  # a part, and so never taken from a folder unasked


def parts(name: str, path: Path, form: str) -> dict[str, Part]:
    """The splits as a form has them, each class with all of its images: CIFAR-100's own train and test set together."""
    if form == "ready":
        folder = path if path.is_dir() else path.parent
        return {split: _ready(name, split, _present(folder / READY[name].format(split))) for split in SPLITS}
    if form == "small":
        files, notes = (path,), ("This copy holds a part of CIFAR-100.",)
        reads = [partial(_read_small, path)]
    else:
        files, notes = tuple(_present(_official(path) / file) for file in OFFICIAL), ()
        _check_meta(files[2])
        reads = [partial(_read_official, file) for file in files[:2]]
    counts = sum(np.bincount(read()[0], minlength=len(CLASSES)) for read in reads)
    if form == "official":
        _check_names(files[:2])
    found = {}
    for split, names in split_classes(name).items():
        ids = [CLASSES.index(one) for one in names]
        chunks = partial(_chunks, reads, ids)
        found[split] = Part(names, tuple(counts[ids].tolist()), chunks, files=files, notes=notes)
    return found


def small() -> Path | None:
    """The npz with 120 images a class, where it lies in a folder that is read; `load_small` opens it as it is."""
    found = folders.find(SMALL)
    return found[0] if found else None


def load_small(name: str, path: Path) -> Dataset:
    """The dataset from the npz: enough to try things on, with fewer images a class than its published form.

    Args:
        name: "cifar_fs" or "fc100".
        path: the npz, with arrays `images` uint8 `[N, 32, 32, 3]`, `labels` int `[N]`, and CIFAR-100's `class_names`.

    Returns:
        A `Dataset` in memory. Its source says how many images a class has.

    Raises:
        InputError: the file is damaged, or its classes are not those of CIFAR-100.

    Source: Krizhevsky 2009, divided as `split_classes` does.
    """
    fine, (images,) = _read_small(path)
    names = [one for some in split_classes(name).values() for one in some]
    ends = np.cumsum([len(some) for some in split_classes(name).values()])
    splits = dict(zip(SPLITS, np.split(np.arange(len(names)), ends[:-1]), strict=True))
    labels = np.argsort([CLASSES.index(one) for one in names])[fine]
    mean, std = pixel_statistics(images, np.flatnonzero(labels < ends[0]))
    images.flags.writeable = False
    counts = np.bincount(labels)
    each = f"{counts.min()}" if counts.min() == counts.max() else f"{counts.min()} to {counts.max()}"
    source = f"{path} ({each} images a class instead of 600)"
    return Dataset(name, images, labels, tuple(names), splits, mean, std, source, LICENCE)


def _official(path: Path) -> Path | None:
    """Where the official files are: at the path, in the folder that the archive unpacks to, or beside one of them."""
    places = (path, path / FOLDER) if path.is_dir() else (path.parent,) if path.name in OFFICIAL else ()
    return next((one for one in places if sum((one / file).is_file() for file in OFFICIAL) >= 2), None)


def _present(file: Path) -> Path:
    if not file.is_file():
        raise bad_input(str(file), "a file of the dataset", "none there", "nothing was imported; add the missing file")
    return file


def _read_official(file: Path) -> File:
    """Classes and images of the file `train` or `test`; only their labels are in memory."""
    content = reader.load(file, lazy=True)
    data, fine, coarse = (reader.get(content, key, file) for key in ("data", "fine_labels", "coarse_labels"))
    _check_images(file, data, (3072,))
    fine = _labels(file, fine, len(data))
    if fine.min() < 0 or fine.max() >= len(CLASSES):
        raise bad_input(str(file), "fine labels 0 to 99", f"{fine.min()} to {fine.max()}", AGAIN)
    if not np.array_equal(np.array(SUPERCLASS_OF)[fine], _labels(file, coarse, len(data))):
        raise bad_input(str(file), "the superclasses of CIFAR-100", "others", AGAIN)
    return fine, (piece.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1) for piece in _pieces(data))


def _read_small(file: Path) -> File:
    what = "uint8 images [N, 32, 32, 3] of the 100 classes of CIFAR-100"
    arrays = folders.read_npz(file, ("images", "labels", "class_names"), what)
    if tuple(arrays["class_names"].tolist()) != CLASSES:
        raise folders.reject(file, what, "other class names")
    _check_images(file, arrays["images"], (32, 32, 3))
    labels = _labels(file, arrays["labels"], len(arrays["images"]))
    if not np.array_equal(np.unique(labels), np.arange(len(CLASSES))):
        raise folders.reject(file, what, "labels that are not 0 to 99")
    return labels, iter((arrays["images"],))


def _ready(name: str, split: str, file: Path) -> Part:
    """A split from its own pickle, whose labels are any numbers: CIFAR-100's, where they are those of the split."""

    def read() -> File:
        content = reader.load(file, lazy=True)
        data, labels = (reader.get(content, key, file) for key in ("data", "labels"))
        _check_images(file, data, (32, 32, 3))
        return _labels(file, labels, len(data)), _pieces(data)

    ids, counts = np.unique(read()[0], return_counts=True)
    names = split_classes(name)[split]
    if ids.tolist() == [CLASSES.index(one) for one in names]:
        numbers, notes = None, ()
    else:
        names, numbers = tuple(f"class {one}" for one in ids), tuple(ids.tolist())
        notes = ("The pickles do not name their classes, which are called by their numbers.",)
    chunks = partial(_chunks, [read], ids.tolist())
    return Part(names, tuple(counts.tolist()), chunks, numbers=numbers, files=(file,), notes=notes)


def _chunks(reads: list[Callable[[], File]], ids: list[int]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The images of some classes in the order of their files, labelled by their place in the sorted `ids`."""
    for read in reads:
        labels, pieces = read()
        place = np.minimum(np.searchsorted(ids, labels), len(ids) - 1)
        labels, start = np.where(np.array(ids)[place] == labels, place, -1), 0
        for images in pieces:
            own = labels[start : start + len(images)]
            start += len(images)
            chosen = np.flatnonzero(own >= 0)
            for begin in range(0, len(chosen), CHUNK):
                rows = chosen[begin : begin + CHUNK]
                yield images[rows], own[rows]


def _pieces(data: np.ndarray | StoredArray) -> Iterator[np.ndarray]:
    return data.chunks(4 * CHUNK) if isinstance(data, StoredArray) else iter((data,))


def _check_images(file: Path, data: object, shape: tuple[int, ...]) -> None:
    found = getattr(data, "shape", ())
    if len(found) != 1 + len(shape) or found[1:] != shape or not found[0] or data.dtype != np.uint8:
        got = f"{data.dtype} {list(found)}" if found else type(data).__name__
        raise bad_input(str(file), f"images uint8 [N, {', '.join(map(str, shape))}]", got, AGAIN)


def _labels(file: Path, labels: object, count: int) -> np.ndarray:
    labels = labels.read() if isinstance(labels, StoredArray) else labels
    try:
        labels = np.asarray(labels)
    except ValueError:  # lists of different lengths
        labels = np.array(None)
    if labels.shape != (count,) or labels.dtype.kind not in "iu":
        raise bad_input(str(file), f"{count} whole numbers as labels", f"{labels.dtype} {list(labels.shape)}", AGAIN)
    return labels.astype(np.int64)


def _check_meta(file: Path) -> None:
    content = reader.load(file)
    for key, names in (("fine_label_names", CLASSES), ("coarse_label_names", tuple(SUPERCLASSES))):
        found = reader.get(content, key, file)
        found = tuple(map(text, found)) if isinstance(found, list) else (type(found).__name__,)
        if found != names:
            raise bad_input(str(file), f"the {key} of CIFAR-100", f"{', '.join(found[:3])} ...", AGAIN)


def _check_names(files: Sequence[Path]) -> None:
    """No image is there twice under one name; that a name comes twice with different pixels proves nothing."""
    contents = [reader.load(file, lazy=True) for file in files]
    names = [content.get("filenames", content.get(b"filenames")) for content in contents]
    names = [list(map(text, own)) if isinstance(own, list) else [] for own in names]
    twice = {name for name, count in Counter(chain(*names)).items() if count > 1}
    seen = set()
    for file, content, own in zip(files, contents, names, strict=True):
        rows = {row: name for row, name in enumerate(own) if name in twice}
        pieces = _pieces(reader.get(content, "data", file)) if rows else ()
        for row, image in enumerate(chain.from_iterable(pieces)):
            if row in rows:
                if (one := (rows[row], image.tobytes())) in seen:
                    raise bad_input(str(file), "each image once", f"{one[0]} twice", AGAIN)
                seen.add(one)


def _wants(member: str) -> bool:
    """Of an archive: the official files, or the pickles."""
    name = Path(member).name
    return name in OFFICIAL or name.endswith(".pickle")


def _recipe(name: str, classes: tuple[int, int, int], mean: tuple[float, float, float]) -> Recipe:
    return Recipe(
        name=name,
        licence=LICENCE,
        restricted=False,
        disk=60000 * 3072,
        expected=Expected(dict(zip(SPLITS, classes, strict=True)), (32, 32, 3), images=600, means={"train": mean}),
        recognise=partial(recognise, name),
        parts=partial(parts, name),
        forms=FORMS,
        downloads=(
            Download(
                "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
                "cifar-100-python.tar.gz",
                "85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
            ),
        ),
        where="https://www.cs.toronto.edu/~kriz/cifar.html",
        wants=_wants,
    )


RECIPES = {  # the means are those of 120 images of each training class
    "cifar_fs": _recipe("cifar_fs", (64, 16, 20), (0.508, 0.494, 0.445)),
    "fc100": _recipe("fc100", (60, 20, 20), (0.518, 0.501, 0.461)),
}
