"""What is checked of an import: split sizes, disjoint classes, images of a class, and the order of the channels."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import numpy as np

from mlkernels.datasets.importing.names import named_twice
from mlkernels.datasets.importing.recipe import Part, Recipe
from mlkernels.errors import bad_input

_DO = "nothing was imported; give another copy"


def check_parts(recipe: Recipe, parts: Mapping[str, Part], where: str) -> tuple[str, ...]:
    """Hold labels and class names against what is expected, before an image is read.

    Args:
        recipe: of the dataset.
        parts: split -> `Part`.
        where: the source, for messages.

    Returns:
        What the user should know: sentences, such as that a class has fewer images than it should.

    Raises:
        InputError: split sizes, shared classes or a class's number of images are wrong; a supervised split has its own
            words.
    """
    expected = recipe.expected
    sizes = {split: len(part.class_names) for split, part in parts.items()}
    wanted = ", ".join(f"{split} {count}" for split, count in expected.classes.items())
    got = ", ".join(f"{split} {sizes.get(split, 0)}" for split in expected.classes)
    shared = _shared(parts)
    total = sum(expected.classes.values())
    if shared or (len(sizes) > 1 and set(sizes.values()) == {total}):
        named = f" ({shared})" if shared else ""
        do = f"{_DO}; few-shot learning needs new classes in val and test"
        words = f"a supervised split, with the same classes in train and test{named}: classes {got}"
        raise bad_input(where, f"splits of different classes ({wanted})", words, do)
    if sizes != dict(expected.classes):
        raise bad_input(where, f"classes {wanted}", got, _DO)
    notes = []
    for split, part in parts.items():
        if again := named_twice(part.wnids or ()):
            raise bad_input(where, f"different classes in {split}", f"{again} twice", _DO)
        counts = np.array(part.counts)
        if (counts == 0).any():
            name = part.class_names[int(counts.argmin())]
            raise bad_input(where, "images of every class", f"none of {name} ({split})", _DO)
        most, whole = expected.images, expected.totals.get(split)
        if most is not None and (counts > most).any():
            name = part.class_names[int(counts.argmax())]
            raise bad_input(where, f"{most} images a class", f"{counts.max()} of {name} ({split})", _DO)
        if whole is not None and counts.sum() > whole:
            raise bad_input(where, f"{whole} images in {split}", int(counts.sum()), _DO)
        if most is not None and (few := int((counts < most).sum())):
            span = f"{counts.min()}" if counts.min() == counts.max() else f"{counts.min()} to {counts.max()}"
            notes.append(f"{split}: {few} of {len(counts)} classes have fewer than {most} images ({span})")
        if whole is not None and counts.sum() < whole:
            notes.append(f"{split}: {counts.sum()} images, fewer than {whole}")
    return tuple(notes)


def check_classes(recipe: Recipe, manifest: dict) -> None:
    """Refuse what was written where the pixels of two splits show the same classes.

    Args:
        recipe: of the dataset.
        manifest: of the folder that is about to get its name.

    Raises:
        InputError: a supervised split, whatever numbers its classes have.
    """
    for splits, pairs in manifest["same_classes"].items():
        wanted = ", ".join(f"{split} {count}" for split, count in recipe.expected.classes.items())
        example = " is ".join(pairs[0])
        got = f"a supervised split, with the same classes in {splits}: by their pixels {example}, {len(pairs)} such"
        do = f"{_DO}; few-shot learning needs new classes in val and test"
        raise bad_input(manifest["source"], f"splits of different classes ({wanted})", got, do)


def check_means(recipe: Recipe, manifest: dict) -> None:
    """Hold the channel means of what was written against the known ones, which shows a wrong order of channels.

    Args:
        recipe: of the dataset.
        manifest: of the folder that is about to get its name.

    Raises:
        InputError: channels in another order, or other images.
    """
    expected, where = recipe.expected, manifest["source"]
    for split, about in manifest["splits"].items():
        mean = np.array(about["mean"])
        said = " ".join(f"{value:.3f}" for value in mean)
        if expected.red_first and split == "train" and mean[0] < mean[-1]:
            raise bad_input(where, "more red than blue on average, as in photographs", f"means {said}", _DO)
        known = expected.means.get(split)
        complete = expected.images is None or min(about["counts"]) == expected.images
        if known is not None and complete and np.abs(mean - known).max() > expected.tolerance:
            wanted = " ".join(f"{value:.3f}" for value in known)
            raise bad_input(where, f"means of {split} near {wanted}", said, f"these are other images; {_DO}")


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
            both, few = set(one.class_names) & set(other.class_names), min(map(len, (one.counts, other.counts))) / 2
        if both and len(both) >= few:
            return min(both)
    return ""
