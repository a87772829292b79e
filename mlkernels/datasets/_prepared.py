"""The prepared form, the same for every imported dataset: memory-mapped uint8 images by split, and a manifest.

    NAME/manifest.json        name, version of the form, source, licence, SHA-256, class names, wnids, means, counts
    NAME/{split}_images.npy   uint8 [N, H, W, C], ordered by class
    NAME/{split}_labels.npy   int32 [N], 0..classes-1 of that split

`_recipe.py` says what a module gives to be written in this form.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

import mlkernels
from mlkernels.datasets._checksums import sha256_of, source_checksums
from mlkernels.datasets._dataset import Dataset
from mlkernels.datasets._equal import counted, sets_of_equal
from mlkernels.datasets._maps import Joined, Mapped
from mlkernels.datasets._parts import file_names, write_part
from mlkernels.datasets._recipe import Part
from mlkernels.datasets._same_classes import same_classes
from mlkernels.datasets._store import MANIFEST
from mlkernels.errors import InputError, bad_input
from mlkernels.files import temporary_folder

FORMAT = 1


def write_prepared(
    folder: Path,
    *,
    name: str,
    parts: Mapping[str, Part],
    shape: tuple[int, int, int],
    source: str,
    licence: str,
    sources: tuple[Path, ...] = (),
    form: str = "",
    accepted: bool = False,
    notes: tuple[str, ...] = (),
    check: Callable[[dict], None] | None = None,
    progress: Callable[[int], None] | None = None,
) -> dict:
    """Write a dataset in the prepared form: `folder` is there whole at the end, or as it was.

    At most one chunk of images is held in memory, or those of one class where classes have no names. A folder that is
    cut off (SIGKILL) keeps its temporary name and is removed by the next call for the same dataset. What lay at
    `folder` before is kept as `NAME.broken-N`.

    Args:
        folder: to make.
        name: of the dataset.
        parts: split -> `Part`, the training split first.
        shape: (H, W, C) of every image.
        source: where it came from, in words.
        licence: its terms.
        sources: the files whose checksums are noted, if not those of the parts.
        form: of the source, in words.
        accepted: whether the user accepted the terms.
        notes: what the user should know of this copy.
        check: gets the manifest, with what the pixels say of equal images and classes, before the folder gets its name;
            raises what is wrong with it.
        progress: gets the number of images of each chunk that was written.

    Returns:
        The manifest.

    Raises:
        InputError: the disk is full, the folder cannot be written to, or a part yields other than it announced.
    """
    with temporary_folder(folder) as temporary:
        splits = {split: write_part(temporary, split, part, shape, progress) for split, part in parts.items()}
        first = next(iter(splits.values()))
        manifest = {
            "format": FORMAT,
            "name": name,
            "made_by": f"mlkernels {mlkernels.__version__}",
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "source": source,
            "form": form,
            "source_sha256": source_checksums(sources or [file for part in parts.values() for file in part.files]),
            "licence": licence,
            "licence_accepted": accepted,
            "notes": [*notes, *dict.fromkeys(note for part in parts.values() for note in part.notes)],
            "shape": list(shape),
            "mean": first["mean"],
            "std": first["std"],
            "splits": splits,
        }
        with_images = _opened(temporary, manifest, list(splits))
        sets = sets_of_equal(with_images)
        manifest["equal"] = counted(with_images, sets)
        manifest["same_classes"] = same_classes(with_images, sets, {name: part.numbers for name, part in parts.items()})
        del with_images  # some systems rename no folder of open files
        if check is not None:
            check(manifest)
        with open(temporary / MANIFEST, "w", encoding="utf-8") as file:
            json.dump(manifest, file, indent=1, ensure_ascii=False)
            file.flush()
            os.fsync(file.fileno())
    return manifest


def read_manifest(folder: Path) -> dict:
    """The manifest of a prepared folder, with the files beside it of the sizes that it says.

    Raises:
        InputError: what is missing or damaged, and what to do.
    """
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
    """Open a prepared folder; images stay on the disk until an episode reads them.

    Args:
        folder: that `write_prepared` made.
        split: open this one alone, with its classes numbered from 0; None opens all.

    Returns:
        A `Dataset` whose images are memory-mapped.

    Raises:
        InputError: an unknown split, or files that are missing, cut short or not what the manifest says.
    """
    manifest = read_manifest(folder)
    chosen = list(manifest["splits"]) if split is None else [split]
    if split is not None and split not in manifest["splits"]:
        raise bad_input("split", " or ".join(manifest["splits"]), split, f"name a split of {manifest['name']}")
    return _opened(folder, manifest, chosen)


def _opened(folder: Path, manifest: dict, chosen: list[str]) -> Dataset:
    """The chosen splits of a folder that this manifest describes."""
    maps, labels, names, wnids, splits = [], [], [], [], {}
    for part in chosen:
        about = manifest["splits"][part]
        shape = (sum(about["counts"]), *manifest["shape"])
        maps.append(Mapped(folder / file_names(part)[0], shape, np.uint8))
        own = Mapped(folder / file_names(part)[1], shape[:1], np.int32).array
        if not np.array_equal(own, np.repeat(np.arange(len(about["counts"])), about["counts"])):
            raise broken(folder / file_names(part)[1], "the labels that the manifest counts", "others")
        splits[part] = np.arange(len(about["counts"])) + len(names)
        labels.append(own.astype(np.int64) + len(names))
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
    """Read every byte of a prepared folder again and hold it against the manifest.

    Returns:
        The manifest, with a new count of equal images as `equal`.

    Raises:
        InputError: the first file that differs.
    """
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
