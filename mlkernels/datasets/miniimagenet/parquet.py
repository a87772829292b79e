"""miniImageNet from the two parquet layouts: the few-shot split, and the supervised one, which is put right."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np

from mlkernels.datasets.importing.reading import WNID, complete, decoded, folder_of, named_twice, wnid_in
from mlkernels.datasets.importing.recipe import SPLITS, Part, not_imported
from mlkernels.datasets.miniimagenet.classes import SPELLINGS, classes
from mlkernels.datasets.miniimagenet.image_files import SIDE
from mlkernels.errors import bad_input
from mlkernels.support.file_faults import fault_of
from mlkernels.support.strict_json import loads

BATCH = 64  # images that are read at a time: they may have their original size


def files_at(path: Path) -> dict[str, list[Path]]:
    """The parquet files at a path or in its folder `data`, by split."""
    if path.is_file() and path.suffix != ".parquet":
        return {}
    for folder in (folder_of(path), folder_of(path) / "data"):
        files = sorted(folder.glob("*.parquet"))
        by_split = {
            split: [file for file in files if file.name.split("-")[0].split(".")[0] in spellings]
            for split, spellings in SPELLINGS.items()
        }
        if any(by_split.values()):
            return {split: some for split, some in by_split.items() if some}
    return {}


def splits_of(path: Path) -> dict[str, Part]:
    """Forms D and E: rows of `image` (a struct with the bytes of an image file) and `label`.

    D holds 64, 16 and 20 classes. E holds all 100 classes in each of its splits; 600 images of each come from its train
    and validation files together, and its test files (images of ILSVRC's validation set) are left out.
    """
    files = complete(files_at(path), {split: [f"{split}-*.parquet"] for split in SPLITS}, path)
    labels = {split: _labels(files[split]) for split in SPLITS}
    count = len(np.unique(labels["train"]))
    if count < len(classes()):
        paths = {split: _paths(files[split], labels[split]) for split in SPLITS}
        return {split: _few_shot(split, files[split], labels[split], paths[split]) for split in SPLITS}
    paths = [name for split in ("train", "val") for name in _paths(files[split], labels[split])]
    names = _names(files["train"][0])
    if names is None or not all(WNID.fullmatch(name) for name in names):
        names = sorted(classes())  # the order of the only such layout that is published
    both, numbers = [*files["train"], *files["val"]], np.concatenate([labels["train"], labels["val"]])
    folder = both[0].parent
    if sorted(names) != sorted(classes()) or count != len(names):
        expected = "parquet files of miniImageNet: 64 training classes, or all of its 100"
        raise not_imported(folder, expected, f"{count} classes, {names[0]} to {names[-1]}")
    if numbers.max() >= len(names):
        raise not_imported(folder, f"labels 0 to {len(names) - 1}", int(numbers.max()))
    _check_wnids(folder, numbers, paths, names)
    note = "a supervised split of all 100 classes: train and validation were divided by class, test was left out"
    parts = {}
    for split in SPLITS:
        wnids = [wnid for wnid, (its_split, _) in classes().items() if its_split == split]
        place = np.full(len(names), -1)
        place[[names.index(wnid) for wnid in wnids]] = np.arange(len(wnids))
        parts[split] = _part(both, place[numbers], [classes()[wnid][1] for wnid in wnids], wnids, None, note)
    return parts


def _few_shot(split: str, files: Sequence[Path], labels: np.ndarray, paths: list[str]) -> Part:
    """One split of form D, with all of its classes."""
    values, labels = np.unique(labels, return_inverse=True)
    names = _names(files[0])
    known = names is not None and len(names) > values.max()
    names = [names[value] if known else f"{split} class {value}" for value in values]
    if all(name in classes() for name in names):
        _check_wnids(files[0].parent, labels, paths, names)
        return _part(files, labels, [classes()[name][1] for name in names], names)
    _check_wnids(files[0].parent, labels, paths, ())
    note = "it does not say which class of ImageNet a label means"
    return _part(files, labels, names, None, None if known else values.tolist(), note)


def _part(files, labels: np.ndarray, names, wnids, numbers=None, *notes: str) -> Part:
    """A split of the rows whose label is not -1: only these are decoded."""
    images = decoded(partial(_image_files, files, labels >= 0), SIDE)
    return Part(names, labels[labels >= 0], images, wnids=wnids, numbers=numbers, files=files, notes=notes)


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
                raise not_imported(path, "the columns image and label", ", ".join(names), do)
            yield file
    except (pyarrow.ArrowException, OSError) as error:
        fault = fault_of(path, kind="any") or f"a truncated or damaged one ({str(error).partition(chr(10))[0][:100]})"
        raise not_imported(path, "a parquet file", fault, "get it again") from None


def _check_wnids(folder: Path, numbers: np.ndarray, paths: list[str], names: Sequence[str]) -> None:
    """The wnids in the rows' paths, where there are some, are those of the labels, and each such path is of one row."""
    rows = [(row, wnid) for row, path in enumerate(paths) if (wnid := wnid_in(path))]
    if again := named_twice(paths[row] for row, _ in rows):
        raise not_imported(folder, "each image once", f"{again} twice")
    wnid_of = dict(enumerate(names))
    number_of = {wnid: number for number, wnid in wnid_of.items()}
    for row, wnid in rows:
        number = int(numbers[row])
        if wnid_of.setdefault(number, wnid) != wnid or number_of.setdefault(wnid, number) != number:
            means = f", which is {wnid_of[number]}" if wnid_of[number] != wnid else " besides another"
            expected = f"the label of {wnid} for {paths[row]}, as its name says"
            raise not_imported(folder, expected, f"label {number}{means}")


def _names(path: Path) -> list[str] | None:
    """The names of the labels, which the files of the datasets library carry along."""
    with _opened(path) as file:
        about = (file.schema_arrow.metadata or {}).get(b"huggingface", b"")
    try:
        return [str(name) for name in loads(about)["info"]["features"]["label"]["names"]]
    except (KeyError, TypeError, ValueError):
        return None


def _labels(files: Sequence[Path]) -> np.ndarray:
    columns = []
    for path in files:
        with _opened(path) as file:
            columns.append(file.read(columns=["label"])["label"].to_numpy())
    labels = np.concatenate(columns)
    if labels.dtype.kind not in "iu" or not len(labels) or labels.min() < 0:
        raise not_imported(files[0], "whole numbers as labels", labels.dtype, "give miniImageNet's own files")
    return labels.astype(np.int64)


def _paths(files: Sequence[Path], labels: np.ndarray) -> list[str]:
    """What the rows of a split call their images; "" where they do not say, or say the same for all."""
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
        raise not_imported(files[0].parent, "each image once", f"{name} of label {label} twice")
    return paths


def _bytes_of(image, where: str) -> bytes:
    """The image file that a row holds."""
    data, path = (image.get("bytes"), image.get("path")) if isinstance(image, dict) else (image, image)
    if isinstance(data, bytes):
        return data
    got = f"its path alone ({path[:100]})" if isinstance(path, str) else "none"
    raise not_imported(where, "the bytes of an image", got, "give a copy that holds the images, not where they lay")


def _image_files(files: Sequence[Path], taken: np.ndarray) -> Iterator[tuple[bytes, str]]:
    """The image files in the rows that are taken, and where each lies."""
    row = 0
    for path in files:
        with _opened(path) as file:
            for batch in file.iter_batches(batch_size=BATCH, columns=["image"]):
                for image in batch.column("image"):
                    row += 1
                    if taken[row - 1]:
                        where = f"row {row} of {path}"
                        yield _bytes_of(image.as_py(), where), where
