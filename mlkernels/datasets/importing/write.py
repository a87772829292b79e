"""Writing a prepared dataset, each split chunk by chunk, and the checksums of what it came from."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

import mlkernels
from mlkernels.datasets.equal_pixels import counted, sets_of_equal
from mlkernels.datasets.folders import MANIFEST
from mlkernels.datasets.importing.recipe import FLIPPED, Part, not_imported
from mlkernels.datasets.importing.same_classes import same_classes
from mlkernels.datasets.prepared import MANIFEST_KIND, file_names, histogram, moments, opened
from mlkernels.support.checked import signed
from mlkernels.support.file_faults import sha256_of
from mlkernels.support.files import temporary_folder
from mlkernels.support.strict_json import dumps


def write_prepared(
    folder: Path, parts: Mapping[str, Part], shape: tuple[int, int, int], *, sources: Sequence[Path] = (),
    notes: Sequence[str] = (), check: Callable[[dict], None] = lambda manifest: None,
    progress: Callable[[int], None] | None = None, **about,
) -> dict:  # fmt: skip
    """Write a dataset in the prepared form, and its manifest: `folder` is there whole at the end, or as it was.

    At most one chunk of images is held in memory, or those of one class where classes have no names. A folder that is
    cut off (SIGKILL) keeps its temporary name and is removed by the next call for the same dataset. What lay at
    `folder` before is kept as `NAME.broken-N`. The training split comes first in `parts`.

    Args:
        parts: split -> `Part`, the training split first.
        shape: (H, W, C) of every image.
        sources: the files whose checksums are noted, if not those of the parts.
        check: gets the manifest, pixels counted, before the folder gets its name; raises what is wrong with it.
        progress: gets the number of images of each chunk that was written.
        **about: what else the manifest says: `name`, `source` and `licence`, where known `form`, `licence_accepted`.
    """
    with temporary_folder(folder) as temporary:
        splits = {split: _write_part(temporary, split, part, shape, progress) for split, part in parts.items()}
        first = next(iter(splits.values()))
        said = (note for part in parts.values() for note in (*part.notes, *[FLIPPED][: part.blue_first]))
        manifest = {
            "kind": MANIFEST_KIND.name,
            "format": MANIFEST_KIND.format,
            "made_by": f"mlkernels {mlkernels.__version__}",
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            **about,
            "source_sha256": source_checksums(sources or [file for part in parts.values() for file in part.files]),
            "notes": [*notes, *dict.fromkeys(said)],
            "shape": list(shape),
            "mean": first["mean"],
            "std": first["std"],
            "splits": splits,
        }
        with_images = opened(temporary, manifest, list(splits))
        sets = sets_of_equal(with_images)
        manifest["equal"] = counted(with_images, sets)
        manifest["same_classes"] = same_classes(with_images, sets, {name: part.numbers for name, part in parts.items()})
        del with_images  # some systems rename no folder of open files
        manifest = signed(manifest)
        check(manifest)
        with open(temporary / MANIFEST, "w", encoding="utf-8") as file:
            file.write(dumps(manifest, indent=1))
            file.flush()
            os.fsync(file.fileno())
    return manifest


def _write_part(folder: Path, split: str, part: Part, shape: tuple[int, int, int], progress) -> dict:
    """Write a split's two files, images ordered by class wherever they come; returns its part of the manifest."""
    size, ends = math.prod(shape), np.cumsum(part.counts)
    place = ends - part.counts  # where the next image of each class goes
    seen = np.zeros((shape[2], 256), dtype=np.int64)
    names = file_names(split)
    with open(folder / names[0], "wb") as file:  # not through a memory map: there a full disk kills the process
        header = {"descr": "|u1", "fortran_order": False, "shape": (int(part.counts.sum()), *shape)}
        np.lib.format.write_array_header_1_0(file, header)
        start = file.tell()
        for images, labels in part.chunks():
            if images.dtype != np.uint8 or images.shape[1:] != shape:
                got = f"{images.dtype} {list(images.shape[1:])}"
                raise not_imported(f"images of {split}", f"uint8 {list(shape)}", got)
            seen += histogram(images)
            for label in np.unique(labels):
                of_class = images[labels == label]
                file.seek(start + int(place[label]) * size)
                file.write(np.ascontiguousarray(of_class).data)
                place[label] += len(of_class)
            if progress is not None:
                progress(len(labels))
        file.flush()
        os.fsync(file.fileno())
    with open(folder / names[1], "wb") as file:
        np.save(file, np.repeat(np.arange(len(part.counts), dtype=np.int32), part.counts))
        file.flush()
        os.fsync(file.fileno())
    mean, std = moments(seen)
    return {
        "class_names": list(part.class_names),
        "wnids": None if part.wnids is None else list(part.wnids),
        "counts": part.counts.tolist(),
        "mean": mean,
        "std": std,
        "bytes": {name: (folder / name).stat().st_size for name in names},
        "sha256": {name: sha256_of(folder / name) for name in names},
    }


def source_checksums(files: Sequence[Path], most: int = 20) -> dict[str, str]:
    """SHA-256 of each file by name; of more than `most`, one of the list of all."""
    files = sorted(set(files))
    if len(files) <= most:
        return {path.name: sha256_of(path) for path in files}
    lines = "".join(f"{sha256_of(path)}  {path.name}\n" for path in files)
    return {f"{len(files)} files, their list as sha256sum prints it": hashlib.sha256(lines.encode()).hexdigest()}
