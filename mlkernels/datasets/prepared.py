"""The prepared form, the same for every imported dataset: memory-mapped uint8 images by split, and a manifest.

    NAME/manifest.json        name, version of the form, source, licence, SHA-256, class names, wnids, means, counts
    NAME/{split}_images.npy   uint8 [N, H, W, C], ordered by class
    NAME/{split}_labels.npy   int32 [N], 0..classes-1 of that split

`importing/write.py` writes it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mlkernels.datasets.dataset import Dataset
from mlkernels.datasets.equal_pixels import counted, sets_of_equal
from mlkernels.datasets.folders import MANIFEST
from mlkernels.datasets.lazy_rows import Joined, Mapped
from mlkernels.errors import InputError, bad_input
from mlkernels.support.arguments import one_of
from mlkernels.support.file_faults import sha256_of

FORMAT = 1


def file_names(split: str) -> tuple[str, str]:
    """The files of a split: images, labels."""
    return f"{split}_images.npy", f"{split}_labels.npy"


def read_manifest(folder: Path) -> dict:
    """The manifest of a prepared folder, with the files beside it of the sizes that it says."""
    path = folder / MANIFEST
    expected = "a manifest that mlkernels wrote"
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        if manifest["format"] != FORMAT:
            do = "update mlkernels, or import the dataset again"
            raise bad_input(str(path), f"version {FORMAT} of the prepared form", manifest["format"], do)
        for split, about in manifest["splits"].items():
            if not re.fullmatch(r"\w+", split) or len(about["counts"]) != len(about["class_names"]):
                raise ValueError(f"the split {split!r}")
            for file in file_names(split):
                got, wanted = (folder / file).stat().st_size, about["bytes"][file]
                if got != wanted:
                    raise broken(folder / file, f"{wanted} bytes", f"{got} bytes")
    except OSError as error:
        raise broken(Path(error.filename or path), "a file that can be read", error.strerror) from None
    except InputError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise broken(path, expected, f"a damaged one ({type(error).__name__}: {error})") from None
    return manifest


def open_prepared(folder: Path, split: str | None = None) -> Dataset:
    """Open one split of a prepared folder, its classes numbered from 0, or all; images stay on the disk until read."""
    manifest = read_manifest(folder)
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


def verify_prepared(folder: Path, progress: Callable[[int], None] | None = None) -> dict:
    """Read every byte of a prepared folder again; returns the manifest with a new count of equal images as `equal`."""
    manifest = read_manifest(folder)
    for split, about in manifest["splits"].items():
        for file in file_names(split):
            digest = sha256_of(folder / file, progress)
            if digest != about["sha256"][file]:
                raise broken(folder / file, f"SHA-256 {about['sha256'][file]}", digest)
    data = open_prepared(folder)
    return manifest | {"equal": counted(data, sets_of_equal(data))}


def broken(path: Path, expected: str, got: object) -> InputError:
    """The error for a file of a prepared folder that is not as it was written."""
    do = f"nothing was loaded; `mlkernels data get {path.parent.name}` puts a whole copy there and keeps this one aside"
    return bad_input(str(path), expected, got, do)
