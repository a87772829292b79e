"""miniImageNet from the two parquet layouts: the few-shot split, and the supervised one, which is put right."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np

from mlkernels.datasets.importing.images import decoded, numbered
from mlkernels.datasets.importing.names import WNID, named_twice, wnid_in
from mlkernels.datasets.importing.recipe import Part
from mlkernels.datasets.miniimagenet.classes import SPLITS, classes
from mlkernels.datasets.miniimagenet.image_files import SIDE
from mlkernels.errors import bad_input

_DO = "nothing was imported; give another copy"
BATCH = 64  # images that are read at a time: they may have their original size


def parts(files: Mapping[str, Sequence[Path]]) -> dict[str, Part]:
    """Forms D and E: rows of `image` (a struct with the bytes of an image file) and `label`.

    D holds 64, 16 and 20 classes. E holds all 100 classes in each of its splits; 600 images of each come from its train
    and validation files together, and its test files (images of ILSVRC's validation set) are left out.
    """
    labels = {split: _labels(own) for split, own in files.items()}
    values = {split: np.unique(own) for split, own in labels.items()}
    names = _names(files["train"][0])
    few_shot = len(values["train"]) < len(classes())
    paths = {split: _paths(files[split], labels[split]) for split in (SPLITS if few_shot else ("train", "val"))}
    if few_shot:
        return {split: _part(files[split], labels[split], paths[split], split) for split in SPLITS}
    if names is None or not all(WNID.fullmatch(name) for name in names):
        names = sorted(classes())  # the order of the only such layout that is published
    if sorted(names) != sorted(classes()) or len(values["train"]) != len(names):
        expected = "parquet files of miniImageNet: 64 training classes, or all of its 100"
        got = f"{len(values['train'])} classes, {names[0]} to {names[-1]}"
        raise bad_input(str(files["train"][0].parent), expected, got, "give another copy")
    both = [*files["train"], *files["val"]]
    numbers = np.concatenate([labels["train"], labels["val"]])
    if numbers.max() >= len(names):
        raise bad_input(str(both[0].parent), f"labels 0 to {len(names) - 1}", int(numbers.max()), "give another copy")
    _check_wnids(both, numbers, paths["train"] + paths["val"], names)
    note = "a supervised split of all 100 classes: train and validation were divided by class, test was left out"
    wanted = {split: [wnid for wnid, (own, _) in classes().items() if own == split] for split in SPLITS}
    return {split: _chosen(both, numbers, names, wnids, note) for split, wnids in wanted.items()}


def _part(files: Sequence[Path], labels: np.ndarray, paths: list[str], split: str) -> Part:
    """One split of form D, with all of its classes."""
    numbers, values = numbered(labels)
    names = _names(files[0])
    known = names is not None and len(names) > values.max()
    own = [names[value] if known else f"{split} class {value}" for value in values]
    are_wnids = all(name in classes() for name in own)
    _check_wnids(files, numbers, paths, own if are_wnids else None)
    return Part(
        class_names=tuple(classes()[name][1] if are_wnids else name for name in own),
        counts=tuple(np.bincount(numbers).tolist()),
        chunks=decoded(partial(_rows, files, numbers), SIDE),
        wnids=tuple(own) if are_wnids else None,
        numbers=None if known else tuple(values.tolist()),
        files=tuple(files),
        notes=() if are_wnids else ("it does not say which class of ImageNet a label means",),
    )


def _chosen(files: Sequence[Path], labels: np.ndarray, names: list[str], wnids: list[str], note: str) -> Part:
    """One split of form E: the classes of these wnids."""
    place = np.full(len(names), -1)
    place[[names.index(wnid) for wnid in wnids]] = np.arange(len(wnids))
    numbers = place[labels]
    return Part(
        class_names=tuple(classes()[wnid][1] for wnid in wnids),
        counts=tuple(np.bincount(numbers[numbers >= 0], minlength=len(wnids)).tolist()),
        chunks=decoded(partial(_rows, files, numbers), SIDE),
        wnids=tuple(wnids),
        files=tuple(files),
        notes=(note,),
    )


@contextmanager
def _opened(path: Path) -> Iterator:
    """The file as a `pyarrow.parquet.ParquetFile`; what goes wrong while it is read is said in our words."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        do = "install it: python -m pip install 'mlkernels[parquet]'"
        raise bad_input(str(path), "the package pyarrow, which reads parquet files", "none", do) from None
    try:
        with parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if not {"image", "label"} <= set(names):
                do = "give miniImageNet's own files"
                raise bad_input(str(path), "the columns image and label", ", ".join(names), do)
            yield file
    except (pyarrow.ArrowException, OSError) as error:
        with open(path, "rb") as start:
            page = start.read(100).lstrip().startswith(b"<")
        reason = str(error).partition("\n")[0][:100]
        got = f"a truncated or damaged one ({reason})"
        got = "an HTML page (a server's notice saved in its place)" if page else got
        raise bad_input(str(path), "a parquet file", got, "nothing was imported; get it again") from None


def _check_wnids(files: Sequence[Path], numbers: np.ndarray, paths: list[str], names: Sequence[str] | None) -> None:
    """The wnids in the rows' paths, where there are some, are those of the labels, and each such path is of one row."""
    rows = [(row, wnid) for row, path in enumerate(paths) if (wnid := wnid_in(path))]
    if again := named_twice(paths[row] for row, _ in rows):
        raise bad_input(str(files[0].parent), "each image once", f"{again} twice", _DO)
    wnid_of = dict(enumerate(names or ()))
    number_of = {wnid: number for number, wnid in wnid_of.items()}
    for row, wnid in rows:
        number = int(numbers[row])
        if wnid_of.setdefault(number, wnid) != wnid or number_of.setdefault(wnid, number) != number:
            means = f", which is {wnid_of[number]}" if wnid_of[number] != wnid else " besides another"
            expected, got = f"the label of {wnid} for {paths[row]}, as its name says", f"label {number}{means}"
            raise bad_input(str(files[0].parent), expected, got, _DO)


def _names(path: Path) -> list[str] | None:
    """The names of the labels, which the files of the datasets library carry along."""
    with _opened(path) as file:
        about = (file.schema_arrow.metadata or {}).get(b"huggingface", b"")
    try:
        return [str(name) for name in json.loads(about)["info"]["features"]["label"]["names"]]
    except (KeyError, TypeError, ValueError):
        return None


def _labels(files: Sequence[Path]) -> np.ndarray:
    columns = []
    for path in files:
        with _opened(path) as file:
            columns.append(file.read(columns=["label"])["label"].to_numpy())
    labels = np.concatenate(columns)
    if labels.dtype.kind not in "iu" or not len(labels) or labels.min() < 0:
        raise bad_input(str(files[0]), "whole numbers as labels", str(labels.dtype), "give miniImageNet's own files")
    return labels.astype(np.int64)


def _paths(files: Sequence[Path], labels: np.ndarray) -> list[str]:
    """What the rows of a split call their images; "" where they do not say, or say the same for all.

    Raises:
        InputError: files that hold no images, or a class with a name that comes twice.
    """
    paths = []
    for path in files:
        with _opened(path) as file:
            for batch in file.iter_batches(batch_size=1, columns=["image"]):
                _bytes_of(batch.column("image")[0].as_py(), f"row 1 of {path}")
                break
            if "image.path" in (file.schema.column(place).path for place in range(len(file.schema))):
                column = file.read(columns=["image.path"])["image"]
                paths += [(row or {}).get("path") or "" for row in column.to_pylist()]
            else:
                paths += [""] * file.metadata.num_rows
    if len(set(paths)) <= 1:
        return [""] * len(paths)
    if again := named_twice(f"{label}/{path}" for label, path in zip(labels.tolist(), paths, strict=True) if path):
        label, _, name = again.partition("/")
        raise bad_input(str(files[0].parent), "each image once", f"{name} of label {label} twice", _DO)
    return paths


def _bytes_of(image, where: str) -> bytes:
    """The image file that a row holds."""
    data = image.get("bytes") if isinstance(image, dict) else image
    if isinstance(data, bytes):
        return data
    path = image.get("path") if isinstance(image, dict) else image
    got = f"its path alone ({path[:100]})" if isinstance(path, str) else "none"
    raise bad_input(where, "the bytes of an image", got, "give a copy that holds the images, not where they lay")


def _rows(files: Sequence[Path], numbers: np.ndarray) -> Iterator[tuple[bytes, int, str]]:
    """The image files in the rows whose number is not -1."""
    row = 0
    for path in files:
        with _opened(path) as file:
            for batch in file.iter_batches(batch_size=BATCH, columns=["image"]):
                for image in batch.column("image"):
                    number = int(numbers[row])
                    row += 1
                    if number >= 0:
                        where = f"row {row} of {path}"
                        yield _bytes_of(image.as_py(), where), number, where
