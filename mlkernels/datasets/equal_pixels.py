"""Images that are the same, pixel for pixel, under two names: real copies have some, and a reader should know how many.

Where they are of one class, one may be in an episode's support and the other among its queries.
"""

from __future__ import annotations

import hashlib
from collections import Counter

import numpy as np
from jaxtyping import Int

from mlkernels.datasets.dataset import Dataset
from mlkernels.datasets.lazy_rows import CHUNK
from mlkernels.support.typed import typed


def sets_of_equal(dataset: Dataset) -> list[np.ndarray]:
    """The rows of images whose pixels are equal: int `[n]` each, n at least 2; all of the dataset is read once."""
    digests = np.empty((len(dataset.images), 2), np.uint64)
    for start in range(0, len(digests), CHUNK):
        images = np.asarray(dataset.images[start : start + CHUNK])
        joined = b"".join(hashlib.blake2b(np.ascontiguousarray(one), digest_size=16).digest() for one in images)
        digests[start : start + len(images)] = np.frombuffer(joined, np.uint64).reshape(-1, 2)
    order = np.lexsort(digests.T)
    others = np.flatnonzero((np.diff(digests[order], axis=0) != 0).any(axis=1)) + 1
    return sorted((np.sort(rows) for rows in np.split(order, others) if len(rows) > 1), key=lambda rows: rows[0])


@typed
def counted(dataset: Dataset, sets: list[Int[np.ndarray, " _"]]) -> dict:
    """How many images and sets of equal ones there are, how many of these of two classes, and how many by splits."""
    split_of = {class_id: name for name, ids in dataset.splits.items() for class_id in ids.tolist()}
    classes = [set(dataset.labels[rows].tolist()) for rows in sets]
    splits = [{split_of[class_id] for class_id in ids} for ids in classes]
    return {
        "images": sum(map(len, sets)),
        "sets": len(sets),
        "sets_of_two_classes": sum(len(ids) > 1 for ids in classes),
        "sets_by_split": dict(
            Counter(" and ".join(name for name in dataset.splits if name in names) for names in splits)
        ),
    }


def in_words(equal: dict) -> str:
    """What `counted` found, as a line for the user."""
    if not equal["sets"]:
        return "equal pixels under two names: none"
    splits = ", ".join(f"{count} in {names}" for names, count in equal["sets_by_split"].items())
    classes = f"; {equal['sets_of_two_classes']} of two classes" if equal["sets_of_two_classes"] else ""
    sets = "1 set" if equal["sets"] == 1 else f"{equal['sets']} sets"
    return f"equal pixels under two names: {equal['images']} images in {sets} ({splits}{classes})"
