"""Whether two splits hold the same classes, told by pixels: what a source calls its classes may say nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np

from mlkernels.datasets.dataset import Dataset

FEWEST = 10  # images of a class below which its mean says too little
CHANCE = 1e-5  # that classes of the same number are nearest to each other by accident


def same_classes(
    dataset: Dataset, sets: list[np.ndarray], numbers: Mapping[str, Sequence[int] | None]
) -> dict[str, list[list[str]]]:
    """The classes of two splits that are the same by their pixels: "train and val" -> pairs of class names.

    Two classes are the same where more than half of the images of one are in the other, pixel for pixel; of classes
    with one such image, half of a split's classes must be so. Splits whose classes have mere numbers (`numbers`, else
    None) may hold different images of one class: there the nearest class by mean image has the same number too often.
    """
    equal = _by_equal_images(dataset, sets)
    shared = {}
    for one, other in combinations(dataset.splits, 2):
        pairs = [pair for pair in equal if pair[0] in dataset.splits[one] and pair[1] in dataset.splits[other]]
        fewest = min(len(dataset.splits[one]), len(dataset.splits[other]))
        same = [pair for pair in pairs if equal[pair] > 1 or 2 * len(pairs) >= fewest]
        if not same and numbers.get(one) and numbers.get(other):
            same = _by_means(dataset, one, other, numbers)
        if same:
            shared[f"{one} and {other}"] = [[dataset.class_names[class_id] for class_id in pair] for pair in same]
    return shared


def _by_equal_images(dataset: Dataset, sets: list[np.ndarray]) -> dict[tuple[int, int], int]:
    """Pairs of classes, ascending, of which one has more than half of its images in the other, and how many."""
    shared = Counter()
    for rows in sets:
        count = Counter(dataset.labels[rows].tolist())
        for one, other in combinations(sorted(count), 2):
            shared[one, other] += min(count[one], count[other])
    size = np.bincount(dataset.labels, minlength=len(dataset.class_names))
    return {pair: count for pair, count in shared.items() if 2 * count > min(size[pair[0]], size[pair[1]])}


def _by_means(dataset: Dataset, one: str, other: str, numbers: Mapping[str, Sequence[int]]) -> list[tuple[int, int]]:
    """Pairs of classes of the same number whose mean images are nearest to each other, if chance does not explain them.

    The distance of the two means must also be one that two sets of images of one class can have: with the variance s of
    a class's images, summed over pixels, its square is s1/n1 + s2/n2 on average.
    """
    place = dict(zip(numbers[one], dataset.splits[one].tolist(), strict=True))
    pairs = [
        (place[number], class_id)
        for number, class_id in zip(numbers[other], dataset.splits[other].tolist(), strict=True)
        if number in place
    ]
    ids = [*place.values(), *(pair[1] for pair in pairs)]
    if not pairs or min(len(dataset.rows_of(class_id)) for class_id in ids) < FEWEST:
        return []
    means, errors = zip(*(_mean(dataset, class_id) for class_id in ids), strict=True)
    others, means = np.stack(means[len(place) :]), np.stack(means[: len(place)])
    same = []
    for pair, mean, error in zip(pairs, others, errors[len(place) :], strict=True):
        distances = ((means - mean) ** 2).sum(axis=1)
        nearest = int(distances.argmin())
        if ids[nearest] == pair[0] and distances[nearest] <= 2 * (error + errors[nearest]):
            same.append(pair)
    from scipy.stats import binom  # half a second to import

    so_many_or_more = binom.sf(len(same) - 1, len(pairs), 1 / len(place))
    return same if so_many_or_more < CHANCE else []


def _mean(dataset: Dataset, class_id: int) -> tuple[np.ndarray, float]:
    """A class's mean image, and the square of that mean's standard error, summed over pixels."""
    images = dataset.images_of(class_id).reshape(len(dataset.rows_of(class_id)), -1)
    mean = images.mean(axis=0)
    squares = sum(float(((one - mean) ** 2).sum()) for one in images)
    return mean, squares / (len(images) - 1) / len(images)
