"""miniImageNet from pickles: the cache of few-shot-ssl and learn2learn, the category split of MetaOptNet and RFS."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from mlkernels.datasets.importing.images import FLIPPED, check_array, is_blue_first, labelled, numbered
from mlkernels.datasets.importing.recipe import Part
from mlkernels.datasets.mapped import CHUNK
from mlkernels.datasets.miniimagenet.classes import classes
from mlkernels.datasets.safe_pickle import reader
from mlkernels.datasets.safe_pickle.stored import as_array, pieces_of
from mlkernels.errors import bad_input

SHAPE = (84, 84, 3)


def cache(files: Mapping[str, Path]) -> dict[str, Part]:
    """Form A: a dict with `image_data` uint8 `[N, 84, 84, 3]` and `class_dict` {wnid: rows}.

    The wnids say which split a file holds, whatever its name: few-shot-ssl once wrote val and test the wrong way round.
    """
    found, flip = {}, None
    for split, path in files.items():
        content = reader.load(path, lazy=True)
        images, rows = reader.get(content, "image_data", path), reader.get(content, "class_dict", path)
        if not isinstance(rows, dict):
            raise bad_input(str(path), "a class_dict {wnid: rows}", type(rows).__name__, "give another copy")
        wnids = sorted(map(reader.text, rows))
        rows = {reader.text(wnid): as_array(own) for wnid, own in rows.items()}
        labels = np.full(getattr(images, "shape", (0,))[0], -1)
        for label, wnid in enumerate(wnids):
            own = rows[wnid]
            if own.dtype.kind not in "iu" or own.ndim != 1 or (own >= len(labels)).any() or (own < 0).any():
                expected = f"rows 0 to {len(labels) - 1} for {wnid}"
                raise bad_input(str(path), expected, f"{own.dtype} {own[:3].tolist()}...", "give another copy")
            if (labels[own] >= 0).any() or len(np.unique(own)) < len(own):
                raise bad_input(str(path), "one class for each image", f"a row of {wnid} twice", "give another copy")
            labels[own] = label
        flip = _blue_first(images) if flip is None else flip
        holds = _split_of(wnids) or split
        if holds in found:
            raise bad_input(
                str(path), f"the {split} split", f"classes of {holds}, as in another file", "give another copy"
            )
        notes = (f"{path.name} holds the {holds} split, by its wnids",) if holds != split else ()
        found[holds] = _part(path, images, labels, wnids, wnids, flip, notes)
    return found


def category(files: Mapping[str, Path]) -> dict[str, Part]:
    """Form B: a dict with `data` uint8 `[N, 84, 84, 3]` and `labels`; wnids only where it has `catname2label`."""
    found, flip = {}, None
    for split, path in files.items():
        content = reader.load(path, lazy=True)
        images, labels = reader.get(content, "data", path), as_array(reader.get(content, "labels", path))
        if labels.ndim != 1 or labels.dtype.kind not in "iu":
            expected, got = "whole numbers as labels", f"{labels.dtype} {list(labels.shape)}"
            raise bad_input(str(path), expected, got, "give another copy")
        numbers, values = numbered(labels)
        wnids = _wnids_of(content, values)
        names = wnids or [f"{split} class {value}" for value in values]
        flip = _blue_first(images) if flip is None else flip
        notes = () if wnids else ("it does not say which class of ImageNet a label means",)
        part = _part(path, images, numbers, names, wnids, flip, notes)
        found[split] = part if wnids else replace(part, numbers=tuple(values.tolist()))
    return found


def _part(path, images, labels, names, wnids, flip, notes) -> Part:
    check_array(images, SHAPE, len(labels), path)
    known = classes()
    return Part(
        class_names=tuple(known[name][1] if name in known else name for name in names),
        counts=tuple(np.bincount(labels[labels >= 0], minlength=len(names)).tolist()),
        chunks=labelled(partial(pieces_of, images, CHUNK), labels, flip),
        wnids=None if wnids is None else tuple(wnids),
        files=(path,),
        notes=(*notes, FLIPPED) if flip else notes,
    )


def _blue_first(images) -> bool:
    """Whether the channels of an array of images are turned round; checked on the train split, for all."""
    shape = getattr(images, "shape", ())
    return len(shape) == 4 and shape[3] == 3 and images.dtype == np.uint8 and is_blue_first(pieces_of(images, CHUNK))


def _split_of(wnids: list[str]) -> str | None:
    """The split that all of these classes belong to, if they belong to one."""
    splits = {classes()[wnid][0] if wnid in classes() else None for wnid in wnids}
    return splits.pop() if len(splits) == 1 else None


def _wnids_of(content: dict, values: np.ndarray) -> list[str] | None:
    names = content.get("catname2label") or content.get(b"catname2label")
    if not isinstance(names, dict):
        return None
    wnid_of = {label: reader.text(name) for name, label in names.items()}
    if len(wnid_of) < len(names):  # two names for one label
        return None
    found = [wnid_of.get(int(value)) for value in values]
    return found if all(wnid in classes() for wnid in found) else None
