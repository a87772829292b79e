"""Writing a prepared dataset, each split chunk by chunk, and the checksums of what it came from."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

import mlkernels
from mlkernels.datasets.equal import counted, sets_of_equal
from mlkernels.datasets.folders import MANIFEST
from mlkernels.datasets.importing.recipe import Part
from mlkernels.datasets.importing.same_classes import same_classes
from mlkernels.datasets.prepared import FORMAT, file_names, opened
from mlkernels.errors import InputError, bad_input
from mlkernels.support.file_faults import sha256_of
from mlkernels.support.files import temporary_folder


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
        with_images = opened(temporary, manifest, list(splits))
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


def write_part(
    folder: Path,
    split: str,
    part: Part,
    shape: tuple[int, int, int],
    progress: Callable[[int], None] | None = None,
) -> dict:
    """Write `{split}_images.npy` and `{split}_labels.npy`, images ordered by class wherever they come in the chunks.

    Args:
        folder: where to.
        split: its name.
        part: what to write.
        shape: (H, W, C) of every image.
        progress: gets the number of images of each chunk that was written.

    Returns:
        The split's part of the manifest.

    Raises:
        InputError: the part yields other than it announced.
        OSError: the disk is full.
    """
    total, size = sum(part.counts), math.prod(shape)
    ends = np.cumsum(part.counts)
    place = ends - np.array(part.counts)  # where the next image of each class goes
    histogram = np.zeros((shape[2], 256), dtype=np.int64)
    names = file_names(split)
    with open(folder / names[0], "wb") as file:  # not through a memory map: there a full disk kills the process
        header = {"descr": "|u1", "fortran_order": False, "shape": (total, *shape)}
        np.lib.format.write_array_header_1_0(file, header)
        start = file.tell()
        for images, labels in part.chunks():
            if images.dtype != np.uint8 or images.shape != (len(labels), *shape):
                raise bad_input(f"images of {split}", f"uint8 {list(shape)}", _kind(images), "give another copy")
            histogram += [np.bincount(images[..., channel].ravel(), minlength=256) for channel in range(shape[2])]
            for label in np.unique(labels):
                own = images[labels == label]
                if place[label] + len(own) > ends[label]:
                    raise _miscounted(split, part, label)
                file.seek(start + int(place[label]) * size)
                file.write(np.ascontiguousarray(own).data)
                place[label] += len(own)
            if progress is not None:
                progress(len(labels))
        if (place != ends).any():
            raise _miscounted(split, part, int(np.argmax(place != ends)))
        file.flush()
        os.fsync(file.fileno())
    with open(folder / names[1], "wb") as file:
        np.save(file, np.repeat(np.arange(len(part.counts), dtype=np.int32), part.counts))
        file.flush()
        os.fsync(file.fileno())
    mean, std = _moments(histogram)
    return {
        "class_names": list(part.class_names),
        "wnids": None if part.wnids is None else list(part.wnids),
        "counts": [int(count) for count in part.counts],
        "mean": mean.tolist(),
        "std": std.tolist(),
        "bytes": {name: (folder / name).stat().st_size for name in names},
        "sha256": {name: sha256_of(folder / name) for name in names},
    }


def _moments(histogram: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation in [0, 1] from int `[C, 256]` counts of pixel values."""
    values, count = np.arange(256), histogram.sum(axis=1)
    mean = histogram @ values / count
    return mean / 255, np.sqrt(histogram @ (values * values) / count - mean * mean) / 255


def _kind(images: np.ndarray) -> str:
    return f"{images.dtype} {list(images.shape[1:])}"


def _miscounted(split: str, part: Part, label: int) -> InputError:
    expected = f"the {part.counts[label]} images of class {part.class_names[label]} that its labels announce"
    return bad_input(f"{split} split", expected, "another number", "nothing was imported; give another copy")


def source_checksums(files: Sequence[Path], most: int = 20) -> dict[str, str]:
    """SHA-256 of each file by name; of more than `most`, one of the list of all.

    Example:
        >>> source_checksums([])
        {}
    """
    found = {str(path): path for path in files}
    if len(found) <= most:
        return {path.name: sha256_of(path) for path in found.values()}
    total = hashlib.sha256()
    for path in sorted(found.values()):
        total.update(f"{sha256_of(path)}  {path.name}\n".encode())
    return {f"{len(found)} files, their list as sha256sum prints it": total.hexdigest()}
