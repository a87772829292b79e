"""miniImageNet from pickles: the cache of few-shot-ssl and learn2learn, the category split of MetaOptNet and RFS."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from mlkernels.datasets.importing.reading import all_files, check_images, is_blue_first, whole_labels
from mlkernels.datasets.importing.recipe import Part, not_imported
from mlkernels.datasets.lazy_rows import CHUNK
from mlkernels.datasets.miniimagenet.classes import SPELLINGS, classes
from mlkernels.datasets.safe_pickle import reader
from mlkernels.datasets.safe_pickle.stored import as_array, pieces_of

SHAPE = (84, 84, 3)
CACHE, CATEGORY = "mini-imagenet-cache-{}.pkl", "miniImageNet_category_split_{}.pickle"
CACHE_NAMES = {split: [CACHE.format(one) for one in some] for split, some in SPELLINGS.items()}
# train_phase_val and train_phase_test hold other images of the training classes
CATEGORY_NAMES = {split: [CATEGORY.format(one) for one in some] for split, some in SPELLINGS.items()}
CATEGORY_NAMES["train"].insert(0, CATEGORY.format("train_phase_train"))


def cache(path: Path) -> dict[str, Part]:
    """Form A: a dict with `image_data` uint8 `[N, 84, 84, 3]` and `class_dict` {wnid: rows}.

    The wnids say which split a file holds, whatever its name: few-shot-ssl once wrote val and test the wrong way round.
    """
    parts, blue_first = {}, None
    for split, file in all_files(path, CACHE_NAMES).items():
        content = reader.load(file, lazy=True)
        images, rows_of = reader.get(content, "image_data", file), reader.get(content, "class_dict", file)
        if not isinstance(rows_of, dict):
            raise not_imported(file, "a class_dict {wnid: rows}", type(rows_of).__name__)
        check_images(images, SHAPE, file)
        rows_of = {reader.text(wnid): as_array(rows) for wnid, rows in rows_of.items()}
        wnids = sorted(rows_of)
        labels = np.full(len(images), -1)
        for label, wnid in enumerate(wnids):
            rows = rows_of[wnid]
            if rows.dtype.kind not in "iu" or rows.ndim != 1 or (rows >= len(labels)).any() or (rows < 0).any():
                expected = f"rows 0 to {len(labels) - 1} for {wnid}"
                raise not_imported(file, expected, f"{rows.dtype} {rows[:3].tolist()}...")
            if (labels[rows] >= 0).any() or len(np.unique(rows)) < len(rows):
                raise not_imported(file, "one class for each image", f"a row of {wnid} twice")
            labels[rows] = label
        known = {classes()[wnid][0] if wnid in classes() else None for wnid in wnids}
        holds = (known.pop() if len(known) == 1 else None) or split
        if holds in parts:
            raise not_imported(file, f"the {split} split", f"classes of {holds}, as in another file")
        notes = (f"{file.name} holds the {holds} split, by its wnids",) if holds != split else ()
        pieces = partial(pieces_of, images, CHUNK)
        blue_first = is_blue_first(pieces()) if blue_first is None else blue_first  # of the train split, for all
        names = [classes()[wnid][1] if wnid in classes() else wnid for wnid in wnids]
        parts[holds] = Part(names, labels, pieces, blue_first, wnids, files=(file,), notes=notes)
    return parts


def category(path: Path) -> dict[str, Part]:
    """Form B: a dict with `data` uint8 `[N, 84, 84, 3]` and `labels`; wnids only where it has `catname2label`."""
    parts, blue_first = {}, None
    for split, file in all_files(path, CATEGORY_NAMES).items():
        content = reader.load(file, lazy=True)
        images, labels = reader.get(content, "data", file), reader.get(content, "labels", file)
        check_images(images, SHAPE, file)
        values, labels = np.unique(whole_labels(labels, len(images), file), return_inverse=True)
        pieces = partial(pieces_of, images, CHUNK)
        blue_first = is_blue_first(pieces()) if blue_first is None else blue_first
        if wnids := _wnids_of(content, values):
            about = {"wnids": wnids}
            names = [classes()[wnid][1] for wnid in wnids]
        else:
            about = {"numbers": values.tolist(), "notes": ("it does not say which class of ImageNet a label means",)}
            names = [f"{split} class {value}" for value in values]
        parts[split] = Part(names, labels, pieces, blue_first, files=(file,), **about)
    return parts


def _wnids_of(content: dict, values: np.ndarray) -> list[str] | None:
    names = content.get("catname2label") or content.get(b"catname2label")
    if not isinstance(names, dict):
        return None
    wnid_of = {label: reader.text(name) for name, label in names.items()}
    if len(wnid_of) < len(names):  # two names for one label
        return None
    wnids = [wnid_of.get(int(value)) for value in values]
    return wnids if all(wnid in classes() for wnid in wnids) else None
