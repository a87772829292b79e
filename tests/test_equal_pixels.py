"""Equal images and classes that are the same by their pixels: what is counted, and what is evidence."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mlkernels.datasets import Dataset
from mlkernels.datasets.equal_pixels import counted, in_words, sets_of_equal
from mlkernels.datasets.importing.same_classes import same_classes

SIZES = {"train": 30, "val": 12, "test": 15}


def dataset(kinds: list[int], each: int, noise: float = 40.0) -> Dataset:
    """Noisy images of kinds, each of which has a picture of its own; the splits' classes in a row."""
    rng = np.random.default_rng(1)
    pictures = rng.uniform(60, 200, (max(kinds) + 1, 4, 4, 1))
    images = np.stack([pictures[kind] + rng.normal(0, noise, (4, 4, 1)) for kind in kinds for _ in range(each)])
    ends = np.cumsum(list(SIZES.values()))
    splits = dict(zip(SIZES, np.split(np.arange(ends[-1]), ends[:-1]), strict=True))
    names = tuple(f"{split} {number}" for split, size in SIZES.items() for number in range(size))
    statistics = np.zeros(1)
    labels = np.repeat(np.arange(ends[-1]), each)
    pixels = np.clip(images, 0, 255).astype(np.uint8)
    return Dataset("made", pixels, labels, names, splits, statistics, statistics, "", "")


FROM_0 = {split: tuple(range(size)) for split, size in SIZES.items()}
DIFFERENT = list(range(57))
SAME = [number for size in SIZES.values() for number in range(size)]  # the first kinds in each split


def found(data: Dataset, numbers=FROM_0) -> dict:
    return same_classes(data, sets_of_equal(data), numbers)


def test_equal_images_are_found_wherever_they_lie():
    data = dataset(DIFFERENT, 10)
    assert sets_of_equal(data) == []
    assert in_words(counted(data, [])) == "equal pixels under two names: none"
    images = data.images.copy()
    images[[5, 311, 569]] = images[7]
    images[300] = images[301]
    data = replace(data, images=images)
    sets = sets_of_equal(data)
    assert [rows.tolist() for rows in sets] == [[5, 7, 311, 569], [300, 301]]
    assert counted(data, sets) == {
        "images": 6,
        "sets": 2,
        "sets_of_two_classes": 1,
        "sets_by_split": {"train and val and test": 1, "val": 1},
    }
    assert found(data) == {}  # some images are not a class


def test_other_images_of_the_same_classes_are_told_by_their_means():
    assert found(dataset(DIFFERENT, 20)) == {}
    same = found(dataset(SAME, 20))
    assert set(same) == {"train and val", "train and test", "val and test"}
    assert ["train 3", "val 3"] in same["train and val"]


def test_means_say_nothing_where_numbers_differ_or_images_are_few():
    data = dataset(SAME, 20)
    assert found(data, dict.fromkeys(SIZES)) == {}
    apart = {split: tuple(100 * place + number for number in FROM_0[split]) for place, split in enumerate(SIZES)}
    assert found(data, apart) == {}
    assert found(dataset(SAME, 9)) == {}


def test_near_classes_are_not_the_same():
    """Each class of val is nearer to its namesake in train than to all others, but not as near as to itself."""
    data = dataset(SAME, 20, noise=5.0)
    images = data.images.astype(int)
    images[20 * SIZES["train"] :, :2, :2] += 12
    assert found(data)["train and val"]
    moved = found(replace(data, images=np.clip(images, 0, 255).astype(np.uint8)))
    assert set(moved) == {"val and test"}  # which were moved alike


@pytest.mark.parametrize(("each", "shared", "same"), [(4, 3, True), (4, 2, False), (1, 1, False)])
def test_classes_that_share_most_of_their_images_are_the_same(each, shared, same):
    data = dataset(DIFFERENT, each)
    images, val = data.images.copy(), each * SIZES["train"]
    images[val : val + shared] = images[:shared]
    assert found(replace(data, images=images), {}) == ({"train and val": [["train 0", "val 0"]]} if same else {})


def test_single_images_that_half_of_the_classes_share_are_a_supervised_split():
    data = dataset(DIFFERENT, 1)
    images, val = data.images.copy(), SIZES["train"]
    images[val : val + 6] = images[:6]
    assert len(found(replace(data, images=images), {})["train and val"]) == 6
