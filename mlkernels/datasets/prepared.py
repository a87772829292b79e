"""The prepared form, the same for every imported dataset: memory-mapped uint8 images by split, and a manifest.

    NAME/manifest.json        name, source, licence, SHA-256, class names, wnids, means, counts, and its own checksum
    NAME/{split}_images.npy   uint8 [N, H, W, C], ordered by class
    NAME/{split}_labels.npy   int32 [N], 0..classes-1 of that split

`importing/write.py` writes it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from mlkernels.datasets.dataset import Dataset
from mlkernels.datasets.equal_pixels import counted, sets_of_equal
from mlkernels.datasets.folders import MANIFEST
from mlkernels.datasets.lazy_rows import CHUNK, Joined, Mapped
from mlkernels.errors import InputError, bad_input
from mlkernels.support import checked
from mlkernels.support.arguments import one_of
from mlkernels.support.checked import is_number
from mlkernels.support.file_faults import sha256_of

FORMAT = 2  # 1 had no checksum
_TEXTS = "name", "source", "licence"


def file_names(split: str) -> tuple[str, str]:
    """The files of a split: images, labels."""
    return f"{split}_images.npy", f"{split}_labels.npy"


def read_manifest(folder: Path, name: str | None = None) -> dict:
    """The manifest of a prepared folder, of the dataset `name` if given, with files of the sizes that it says."""
    path = folder / MANIFEST
    manifest = checked.read(path, replace(MANIFEST_KIND, again=_again(path), instead=_again(path)), aside=False)
    try:
        if manifest is None:
            path.stat()
        if name not in (None, manifest["name"]):
            raise broken(path, f"the manifest of {name}", f"that of {manifest['name']}")
        for about in manifest["splits"].values():
            for file, wanted in about["bytes"].items():
                if (got := (folder / file).stat().st_size) != wanted:
                    raise broken(folder / file, f"{wanted} bytes", f"{got} bytes")
    except OSError as error:
        raise broken(Path(error.filename or path), "a file that can be read", error.strerror) from None
    return manifest


def _check(manifest: dict) -> None:
    """The form of a manifest; earlier ones have no checksum, and say some things twice."""
    splits, colours = manifest["splits"], manifest["shape"][-1]
    sizes = [*manifest["shape"], *(count for about in splits.values() for count in about["counts"])]
    if len(manifest["shape"]) != 3 or not all(type(size) is int and size > 0 for size in sizes):
        raise ValueError("sizes that are none")
    if not all(isinstance(text, str) for text in [*(manifest[name] for name in _TEXTS), *manifest["notes"]]):
        raise ValueError("texts that are none")
    for split, about in splits.items():
        lists = [about["class_names"], about["counts"], about["wnids"] or about["counts"]]
        if not re.fullmatch(r"\w+", split) or len({len(each) for each in lists}) > 1:
            raise ValueError(f"the split {split!r}")
        if not all(isinstance(text, str) for text in [*about["class_names"], *(about["wnids"] or [])]):
            raise ValueError(f"names of classes in {split!r} that are none")
        for numbers in (about["mean"], about["std"]):
            if len(numbers) != colours or not all(is_number(each, 0, 1) for each in numbers):
                raise ValueError(f"means or deviations of {split!r} that are none of {colours} colours")
        if set(about["bytes"]) != set(file_names(split)) or set(about["sha256"]) != set(file_names(split)):
            raise ValueError(f"the files of {split!r}")
    if any(manifest[name] != next(iter(splits.values()))[name] for name in ("mean", "std")):
        raise ValueError("means or deviations other than those of the first split")


MANIFEST_KIND = checked.Kind("manifest of a dataset", FORMAT, _check, before=(1,))


def open_prepared(folder: Path, split: str | None = None, name: str | None = None) -> Dataset:
    """Open a folder that `write_prepared` made; images stay on the disk until an episode reads them.

    One split alone has its classes numbered from 0. Files that are missing, cut short or not what the manifest says are
    refused.
    """
    manifest = read_manifest(folder, name)
    if split is not None:
        one_of("split", split, manifest["splits"], do=f"name a split of {manifest['name']}")
    return opened(folder, manifest, list(manifest["splits"]) if split is None else [split])


def opened(folder: Path, manifest: dict, chosen: list[str]) -> Dataset:
    """The chosen splits of a folder that this manifest describes."""
    maps, labels, names, wnids, splits = [], [], [], [], {}
    for split in chosen:
        about = manifest["splits"][split]
        shape = (sum(about["counts"]), *manifest["shape"])
        maps.append(Mapped(folder / file_names(split)[0], shape, np.uint8))
        held = Mapped(folder / file_names(split)[1], shape[:1], np.int32).array
        if not np.array_equal(held, np.repeat(np.arange(len(about["counts"])), about["counts"])):
            raise broken(folder / file_names(split)[1], "the labels that the manifest counts", "others")
        splits[split] = np.arange(len(about["counts"])) + len(names)
        labels.append(held.astype(np.int64) + len(names))
        names += about["class_names"]
        wnids += about["wnids"] or []
    return Dataset(
        name=manifest["name"],
        images=Joined(maps),
        labels=np.concatenate(labels),
        class_names=tuple(names),
        splits=splits,
        mean=np.array(manifest["mean"]),
        std=np.array(manifest["std"]),
        source=str(folder),
        licence=manifest["licence"],
        wnids=tuple(wnids) if len(wnids) == len(names) else None,
    )


def verify_prepared(folder: Path, progress: Callable[[int], None] | None = None, name: str | None = None) -> dict:
    """The manifest, with a new count of equal images, after every byte was read again and held against it."""
    manifest = read_manifest(folder, name)
    for split, about in manifest["splits"].items():
        for file in file_names(split):
            digest = sha256_of(folder / file, progress)
            if digest != about["sha256"][file]:
                raise broken(folder / file, f"SHA-256 {about['sha256'][file]}", digest)
    data, start = open_prepared(folder), 0
    for split, about in manifest["splits"].items():
        stop = start + sum(about["counts"])
        pieces = (data.images[at : min(at + CHUNK, stop)] for at in range(start, stop, CHUNK))
        for name, values in zip(("mean", "std"), moments(sum(map(histogram, pieces))), strict=True):
            if not np.allclose(about[name], values, rtol=0, atol=1e-9):
                raise broken(folder / MANIFEST, f"{name} {values} of {split}, as its pixels have it", about[name])
        start = stop
    return manifest | {"equal": counted(data, sets_of_equal(data))}


def histogram(images: np.ndarray) -> np.ndarray:
    """How often each colour has each value, of images `[n, H, W, C]`: int `[C, 256]`."""
    return np.stack([np.bincount(images[..., colour].ravel(), minlength=256) for colour in range(images.shape[-1])])


def moments(counts: np.ndarray) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each colour, of pixels in [0, 1], from their `histogram`."""
    values, count = np.arange(256), counts.sum(axis=1)
    mean = counts @ values / count
    return (mean / 255).tolist(), (np.sqrt(counts @ (values * values) / count - mean * mean) / 255).tolist()


def broken(path: Path, expected: str, got: object) -> InputError:
    """The error for a file of a prepared folder that is not as it was written."""
    return bad_input(str(path), expected, got, _again(path))


def _again(path: Path) -> str:
    do = f"`mlkernels data get {path.parent.name}` puts a whole copy there and keeps this one aside"
    return f"nothing was loaded; {do}"
