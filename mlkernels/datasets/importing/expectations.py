"""What is checked of an import: split sizes, disjoint classes, images of a class, and the order of the channels."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import numpy as np

from mlkernels.datasets.importing.reading import named_twice
from mlkernels.datasets.importing.recipe import Expected, Part, not_imported
from mlkernels.support.words import span

_NEW_CLASSES = "give another copy; few-shot learning needs new classes in val and test"


def check_labels(expected: Expected, parts: Mapping[str, Part], where: str) -> list[str]:
    """Hold labels and class names against what is expected, before an image is read; returns sentences for the user."""
    sizes = {split: len(part.class_names) for split, part in parts.items()}
    wanted, got = _in_words(expected.classes), _in_words({split: sizes.get(split, 0) for split in expected.classes})
    shared = _shared(parts)
    if shared or (len(sizes) > 1 and set(sizes.values()) == {sum(expected.classes.values())}):
        named = f" ({shared})" if shared else ""
        words = f"a supervised split, with the same classes in train and test{named}: classes {got}"
        raise not_imported(where, f"splits of different classes ({wanted})", words, _NEW_CLASSES)
    if sizes != dict(expected.classes):
        raise not_imported(where, f"classes {wanted}", got)
    notes = []
    for split, part in parts.items():
        if again := named_twice(part.wnids or ()):
            raise not_imported(where, f"different classes in {split}", f"{again} twice")
        counts = part.counts
        low, high, total = counts.min(), counts.max(), int(counts.sum())
        if low == 0:
            raise not_imported(where, "images of every class", f"none of {part.class_names[counts.argmin()]} ({split})")
        most, whole = expected.images, expected.totals.get(split)
        if most is not None and high > most:
            got = f"{high} of {part.class_names[counts.argmax()]} ({split})"
            raise not_imported(where, f"{most} images a class", got)
        if whole is not None and total > whole:
            raise not_imported(where, f"{whole} images in {split}", total)
        if most is not None and low < most:
            few = int((counts < most).sum())
            notes.append(f"{split}: {few} of {len(counts)} classes have fewer than {most} images ({span(counts)})")
        if whole is not None and total < whole:
            notes.append(f"{split}: {total} images, fewer than {whole}")
    return notes


def check_pixels(expected: Expected, manifest: dict) -> None:
    """Refuse equal classes in two splits, whatever their numbers, and channel means of other images or orders."""
    where = manifest["source"]
    for splits, pairs in manifest["same_classes"].items():
        example = " is ".join(pairs[0])
        got = f"a supervised split, with the same classes in {splits}: by their pixels {example}, {len(pairs)} such"
        raise not_imported(where, f"splits of different classes ({_in_words(expected.classes)})", got, _NEW_CLASSES)
    for split, about in manifest["splits"].items():
        mean = np.array(about["mean"])
        means = _means(mean)
        if split == "train" and mean[0] < mean[-1]:
            raise not_imported(where, "more red than blue on average, as in photographs", f"means {means}")
        known = expected.means.get(split)
        complete = expected.images is None or min(about["counts"]) == expected.images
        if known is not None and complete and np.abs(mean - known).max() > expected.tolerance:
            do = "these are other images; give another copy"
            raise not_imported(where, f"means of {split} near {_means(known)}", means, do)


def _in_words(classes: Mapping[str, int]) -> str:
    return ", ".join(f"{split} {count}" for split, count in classes.items())


def _means(values) -> str:
    return " ".join(f"{value:.3f}" for value in values)


def _shared(parts: Mapping[str, Part]) -> str:
    """A class that two splits have, or nothing. A wnid tells; a name alone does not: ImageNet has two cranes.

    Numbers say nothing at all: many copies count the classes of each split from 0.
    """
    for one, other in combinations(parts.values(), 2):
        if one.numbers is not None or other.numbers is not None:
            continue
        if one.wnids and other.wnids:
            both, few = set(one.wnids) & set(other.wnids), 1
        else:
            both = set(one.class_names) & set(other.class_names)
            few = min(len(one.class_names), len(other.class_names)) / 2
        if both and len(both) >= few:
            return min(both)
    return ""
