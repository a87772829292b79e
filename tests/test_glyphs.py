"""Glyphs: the same everywhere, plausible, and about as hard as Omniglot."""

from __future__ import annotations

import hashlib

import jax
import numpy as np
import pytest

from mlkernels import datasets, tasks
from mlkernels.datasets import glyphs
from mlkernels.errors import InputError


def test_shapes_splits_and_range():
    data = datasets.load("glyphs")
    assert data.images.shape == (4800, 28, 28, 1)
    assert data.images.dtype == np.uint8
    assert {name: len(ids) for name, ids in data.splits.items()} == {"train": 150, "val": 40, "test": 50}
    assert np.array_equal(np.concatenate(list(data.splits.values())), np.arange(240))
    assert data.images.max() == 255  # ink on paper of 0
    assert np.median(data.images) == 0
    assert len(set(data.class_names)) == 240


def test_no_drawing_is_empty_or_a_copy():
    images = datasets.load("glyphs").images.reshape(4800, -1)
    assert (images > 127).sum(axis=1).min() >= 5
    assert len(np.unique(images, axis=0)) == 4800


def test_the_pixels_of_a_seed_are_fixed():
    # A changed number here means other pixels, so other results of every notebook that draws glyphs.
    digest = hashlib.sha256(datasets.load("glyphs").images.tobytes()).hexdigest()
    assert digest == "fc36340fc025131d0c8e4123a68d0df8fcbb1c84664478f149fb6a40c43e239d"


def test_seeds_differ_and_loading_again_is_free():
    one, again, other = (datasets.load("glyphs", seed=seed, classes=24) for seed in (1, 1, 2))
    assert one is again
    assert not np.array_equal(one.images, other.images)
    assert not one.images.flags.writeable


@pytest.mark.parametrize(("classes", "drawings"), [(12, 1), (25, 3), (100, 7)])
def test_other_sizes(classes, drawings):
    data = datasets.load("glyphs", classes=classes, drawings=drawings)
    assert len(data.images) == classes * drawings
    assert all(len(ids) > 0 for ids in data.splits.values())
    assert sum(len(ids) for ids in data.splits.values()) == classes
    assert len(data.images_of(classes - 1)) == drawings


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"classes": 11}, "classes: expected a whole number of at least 12, got 11"),
        ({"drawings": 0}, "drawings: expected"),
        ({"seed": -1}, "seed: expected"),
        ({"seed": 0.5}, "seed: expected"),
        ({"splits": "lake"}, "options of glyphs: expected split or seed or classes or drawings, got splits"),
    ],
)
def test_bad_options(options, words):
    with pytest.raises(InputError, match=words):
        datasets.load("glyphs", **options)


def test_a_pen_that_leaves_the_paper_draws_only_what_is_on_it():
    strokes = np.full((1, 4, 4, 2), 14.0)
    strokes[0, 0] = [[14, -60], [14, -10], [14, 20], [14, 90]]
    image = glyphs.ink(strokes, np.array([[True, False, False, False]]), np.array([2.0]))[0, :, :, 0]
    assert image[14, 14] > 0
    assert image[:12].max() == image[17:].max() == 0


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(("shot", "omniglot"), [(1, 0.422), (5, 0.689)])
def test_nearest_centroid_finds_them_as_hard_as_omniglot(shot, omniglot, seed):
    data = datasets.load("glyphs", seed=seed)
    for split in ("train", "test"):
        batch = tasks.episodes(data, split, 5, shot, 15, 400, jax.random.key(0), one_hot="plain")
        support, query = (np.asarray(x).reshape(*x.shape[:2], -1) for x in (batch.support_x, batch.query_x))
        centroids = support.reshape(400, 5, shot, -1).mean(axis=2)
        scores = np.einsum("bnd,bkd->bnk", query, centroids) - (centroids**2).sum(axis=-1)[:, None] / 2
        accuracy = (scores.argmax(axis=-1) == np.asarray(batch.query_y).argmax(axis=-1)).mean()
        assert abs(accuracy - omniglot) < 0.08
