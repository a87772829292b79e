"""Few-shot evaluation: features that must do at chance or perfectly, classifiers against their definitions."""

from __future__ import annotations

import json
import math
import os
import zlib
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from _nas_train import data, network, settings
from sklearn.linear_model import LogisticRegression

from mlkernels import datasets, metantk
from mlkernels.datasets.lazy_rows import Chosen
from mlkernels.errors import InputError
from mlkernels.nas import (
    Genotype,
    Layout,
    Network,
    SearchSettings,
    TrainSettings,
    evaluate,
    load_trained,
    pixels_of,
    search,
    train,
)
from mlkernels.nas.engine.network import features, init
from mlkernels.nas.evaluation import classifiers
from mlkernels.nas.evaluation.feature_episodes import Features, Look
from mlkernels.nas.pictures.search_images import LOOK
from mlkernels.nas.searching.search import rule_of
from mlkernels.nas.training.trained import Trained
from mlkernels.support import provenance
from mlkernels.support.files import write_atomically
from mlkernels.support.progress import Progress
from mlkernels.tasks import TaskBatch

SMALL = {"queries": 5, "episodes": 60, "copies": 0}


@pytest.fixture(scope="module")
def glyphs():
    return datasets.load("glyphs", classes=40, drawings=12)


def looks(copies=0, block=7, unit=True):
    return Look(28, (0.1,), (0.3,), {"padding": 2, "jitter": 0.2, "flip": 0.5}, copies, unit, block)


def shown(dataset, function=pixels_of, split="test", **changes):
    return Features(function, dataset, split, looks(**changes), jax.random.key(1), lambda count: None)


def noise(images):
    """Features that have nothing to do with the image."""
    rng = np.random.default_rng(zlib.crc32(np.asarray(images).tobytes()))
    return rng.normal(size=(len(images), 20))


def told_by(dataset):
    """Features that know the class: they look the image up."""
    table = {np.asarray(image).tobytes(): label for image, label in zip(dataset.images[:], dataset.labels, strict=True)}

    def function(images):
        raw = np.round((np.asarray(images) * dataset.std + dataset.mean) * 255).astype(np.uint8)
        return np.eye(len(dataset.class_names))[[table[image.tobytes()] for image in raw]] + 0.01

    return function


@pytest.mark.parametrize("method", classifiers.METHODS)
def test_features_that_know_nothing_do_at_chance_and_those_that_know_all_are_right(method, glyphs):
    found = evaluate(noise, glyphs, shots=[1], methods=[method], **SMALL | {"episodes": 150})
    assert 0.2 in found.interval(method, 1)
    found = evaluate(told_by(glyphs), glyphs, shots=[1, 3], methods=[method], **SMALL)
    for shot in (1, 3):
        assert (found.accuracies[method, shot] == 1).all()


def test_the_interval_is_scipys(glyphs):
    found = evaluate(pixels_of, glyphs, shots=[2], methods=["centroid"], **SMALL)
    values = found.accuracies["centroid", 2]
    low, high = scipy.stats.t.interval(0.95, len(values) - 1, loc=values.mean(), scale=scipy.stats.sem(values))
    mine = found.interval("centroid", 2)
    assert (mine.mean, mine.low, mine.high) == pytest.approx((values.mean(), low, high))
    (row,) = found.described()
    assert (row["shot"], row["method"], row["episodes"]) == (2, "centroid", 60)
    assert row["accuracies"] == pytest.approx(list(values), abs=1e-6)
    with pytest.raises(InputError, match="centroid at 2, got logistic at 1"):
        found.interval("logistic", 1)


def test_logistic_regression_is_scikit_learns(glyphs):
    episodes = shown(glyphs, copies=2).episodes(5, 2, 5, 4, jax.random.key(0))
    for number in range(4):
        episode = episodes[number]
        assert episode.support.shape == (5 * 2 * 2, 784)
        plain = LogisticRegression(C=1.0, solver="lbfgs", max_iter=1000)
        plain.fit(episode.support, episode.support_labels)
        np.testing.assert_array_equal(classifiers.logistic(episode), plain.predict(episode.query))


def test_nearest_centroid_by_distances(glyphs):
    episode = shown(glyphs).episodes(5, 3, 5, 2, jax.random.key(0))[1]
    centres = episode.support.reshape(5, 3, -1).mean(1)
    distances = ((episode.query[:, None] - centres) ** 2).sum(-1)
    np.testing.assert_array_equal(classifiers.centroid(episode), distances.argmin(1))


def test_metantk_is_the_function_space_solution(glyphs):
    """Solved in the features' dimension; against the package's kernel form on the same tasks."""
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(784, 12)) / 28
    base = shown(glyphs, lambda x: pixels_of(x).astype(float) @ mix, "train")
    train_tasks, test_tasks = base.episodes(5, 2, 4, 6, jax.random.key(0)), base.episodes(5, 2, 4, 2, jax.random.key(1))
    means = classifiers.seen_means(train_tasks, base.pictures.classes)
    classify = classifiers.metantk(train_tasks, means)

    def batch(tasks, targets):
        parts = [tasks[number] for number in range(len(tasks))]
        labels = [classifiers.class_means(each.support, each.support_labels)[each.support_labels] for each in parts]
        return TaskBatch(*(jnp.asarray(np.stack(x)) for x in (
            [each.support for each in parts], labels, [each.query for each in parts], targets(parts))))  # fmt: skip

    old = batch(train_tasks, lambda parts: [means[train_tasks.classes[n]][e.query_labels] for n, e in enumerate(parts)])
    new = batch(test_tasks, lambda parts: [np.zeros((20, 12)) for _ in parts])
    outputs = metantk.predict(
        old, new, lambda a, b: a @ b.T, inner_rate=1.0, inner_steps=math.inf, flow=True,
        ridge=classifiers.INNER_RIDGE, outer_ridge=classifiers.OUTER_RIDGE,
    )  # fmt: skip
    for number in range(2):
        episode = test_tasks[number]
        centres = classifiers.class_means(episode.support, episode.support_labels)
        expected = ((np.asarray(outputs[number])[:, None] - centres) ** 2).sum(-1).argmin(1)
        np.testing.assert_array_equal(classify(episode), expected)


def test_a_base_class_has_the_mean_of_its_images(glyphs):
    base = shown(glyphs, split="train")
    tasks = base.episodes(5, 1, 3, 8, jax.random.key(0))
    seen = {}
    for number in range(8):
        for place, label in enumerate(tasks.classes[number]):
            for row in tasks.query[number][place]:
                seen.setdefault(int(label), {})[row.tobytes()] = row
    means = classifiers.seen_means(tasks, base.pictures.classes)
    for label in range(base.pictures.classes):
        rows = list(seen.get(label, {}).values())
        np.testing.assert_allclose(means[label], np.mean(rows, axis=0) if rows else 0, atol=1e-6)


def test_episodes_are_right_and_copies_stay_the_same_whatever_the_blocks(glyphs):
    one, other = (shown(glyphs, copies=3, block=block) for block in (7, 64))
    first, second = (each.episodes(5, 2, 4, 3, jax.random.key(0)) for each in (one, other))
    for number in range(3):
        for a, b in zip(vars(first[number]).values(), vars(second[number]).values(), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(first[0].query, axis=1), 1, rtol=1e-6)
    assert len(np.unique(first[0].support.round(5), axis=0)) == 5 * 2 * 3
    plain = shown(glyphs, unit=False).episodes(5, 2, 4, 3, jax.random.key(0))
    test = glyphs.only("test")
    table = {((image / 255 - 0.1) / 0.3).ravel().astype(np.float32).round(3).tobytes(): label
             for image, label in zip(test.images[:], test.labels, strict=True)}  # fmt: skip
    for number in range(3):
        episode = plain[number]
        classes = [table[row.astype(np.float32).round(3).tobytes()] for row in episode.query]
        np.testing.assert_array_equal(plain.classes[number][episode.query_labels], classes)
        assert not {row.tobytes() for row in episode.support} & {row.tobytes() for row in episode.query}


def test_results_follow_from_the_seed_alone(glyphs):
    told = SMALL | {"copies": 2, "shots": [1], "methods": ["centroid", "metantk"], "augmentation": {"padding": 2}}
    one, again, other = (
        evaluate(pixels_of, glyphs, seed=seed, block=block, **told) for seed, block in ((1, 30), (1, 77), (2, 30))
    )
    for key, values in one.accuracies.items():
        np.testing.assert_array_equal(values, again.accuracies[key])
        assert (values != other.accuracies[key]).any()
    alone = evaluate(pixels_of, glyphs, seed=1, **told | {"methods": ["centroid"]})
    np.testing.assert_array_equal(alone.accuracies["centroid", 1], one.accuracies["centroid", 1])


def test_a_trained_network_is_shown_images_as_in_training(tmp_path):
    dataset = data()
    dataset = replace(dataset, splits={"train": np.arange(8), "test": np.arange(8)})
    train(network(), dataset, settings(), out=tmp_path, epochs=1)
    trained, seen = load_trained(tmp_path), []
    told = {"queries": 3, "episodes": 20, "copies": 0, "shots": [2], "methods": ["centroid"]}
    found = evaluate(trained, dataset, progress=seen.append, **told)

    def function(images):
        return features(trained.network, trained.variables, jnp.asarray(images, float))

    by_hand = evaluate(function, dataset, **told)
    np.testing.assert_array_equal(found.accuracies["centroid", 2], by_hand.accuracies["centroid", 2])
    assert seen[-1] == Progress(20, 20, "episodes of 2 shot")
    assert (seen[0].text, seen[0].total) == ("images", None)
    with pytest.raises(InputError, match="a trained network has its own"):
        evaluate(trained, dataset, pixels=8, **told)


def test_more_shots_take_no_more_passes_and_change_nothing(glyphs):
    """To the bit, though a network then sees the images in other blocks."""
    layout = Layout(cells=2, channels=4, pixels=8, ways=5, colours=1, norm="batch")
    net = Network(layout, Genotype.parse("N: c3<0 mp<1 | sk<1 c3<2 | sk<0 sk<2 R: c3<0 mp<1 | mp<1 sk<2 | sk<2 c3<3"))
    model = Trained(net, init(net, key=jax.random.key(0)), (), TrainSettings(), (0.1,), (0.3,))
    everything = {split: sum(len(glyphs.rows_of(c)) for c in glyphs.classes(split)) for split in ("test", "train")}

    def found(shots, **changes):
        at = {}
        told = SMALL | {"block": 30, "methods": ["centroid"]} | changes
        result = evaluate(model, glyphs, shots=shots, progress=lambda now: at.update({now.text: now.done}), **told)
        return result.accuracies, at["images"]

    alone, both = [found([shot], copies=2) for shot in (1, 4)], found([1, 4], copies=2)
    for accuracies, _ in alone:
        for key, values in accuracies.items():
            np.testing.assert_array_equal(values, both[0][key])
    assert alone[1][1] == both[1] == 3 * everything["test"]  # one pass of each image, one of each copy
    assert alone[0][1] < both[1]
    assert found([1, 4])[1] == everything["test"]  # queries and support are the same pictures
    assert found([1, 4], methods=["metantk"])[1] == everything["test"] + everything["train"]
    assert found([1, 4], methods=["metantk"], split="train")[1] == everything["train"]

    def function(images):
        return features(net, model.variables, images)

    told = glyphs, "test", replace(looks(copies=2), pixels=8), jax.random.key(1), lambda count: None
    kept, fresh = (Features(function, *told) for _ in range(2))
    kept.episodes(5, 1, 2, 2, jax.random.key(2))
    one, other = (each.episodes(5, 4, 5, 20, jax.random.key(3)) for each in (kept, fresh))
    for number in range(20):
        for a, b in zip(vars(one[number]).values(), vars(other[number]).values(), strict=True):
            np.testing.assert_array_equal(a, b)


def never(images):
    raise AssertionError("nothing is computed before all is checked")


def test_a_split_of_the_base_classes_that_is_too_small_is_seen_before_any_work(glyphs):
    base = np.isin(glyphs.labels, glyphs.classes("train"))
    place = np.concatenate([np.arange(len(glyphs.rows_of(c))) for c in range(len(glyphs.class_names))])
    keep = np.concatenate([glyphs.rows_of(c) for c in range(len(glyphs.class_names))])
    keep = np.sort(keep[~base[keep] | (place < 6)])
    dataset = replace(glyphs, images=Chosen(glyphs.images, keep), labels=glyphs.labels[keep])
    with pytest.raises(InputError, match=r"shot \+ queries: expected at most the 6 images"):
        evaluate(never, dataset, shots=[1, 4], methods=["centroid", "metantk"], **SMALL)


def test_metantk_regression_without_float64_is_refused_before_any_work(glyphs):
    with jax.enable_x64(False), pytest.raises(InputError, match="jax_enable_x64"):
        evaluate(never, glyphs, methods=["metantk"], **SMALL)


def test_images_of_other_colours_than_those_trained_on(glyphs):
    net = network()
    model = Trained(net, init(net, key=jax.random.key(0)), (), settings(), (0.1,) * 3, (0.3,) * 3)
    for name, words in (("", "trained on, got 1 in glyphs"), ("toys", r"trained on \(toys\), got 1 in glyphs")):
        with pytest.raises(InputError, match=f"dataset: expected images of 3 colours, as the network was {words}"):
            evaluate(replace(model, data=name), glyphs, methods=["centroid"], **SMALL)


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda images: images, r"features: expected an array \[10, d\], a row an image, got \[10, 28, 28, 1\]"),
        (
            lambda images: pixels_of(images)[1:],
            r"features: expected an array \[10, d\], a row an image, got \[9, 784\]",
        ),
        (lambda images: pixels_of(images) * np.nan, "features: expected finite numbers, got others for 10 of 10"),
    ],
)
def test_features_that_are_none_are_named(function, said, glyphs):
    with pytest.raises(InputError, match=said):
        evaluate(function, glyphs, methods=["centroid"], block=10, **SMALL)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"methods": ["svm"]}, "methods: expected logistic or centroid or metantk, got 'svm'"),
        ({"shots": [0]}, "expected a whole number of at least 1, got 0"),
        ({"shots": []}, "evaluation: expected two episodes"),
        ({"episodes": 1}, "evaluation: expected two episodes"),
        ({"copies": -1}, "copies: expected a whole number of at least 0, got -1"),
        ({"copies": 1.5}, "copies: expected a whole number of at least 0, got 1.5"),
        ({"copies": "5"}, "copies: expected a whole number of at least 0, got '5'"),
        ({"way": 1}, "way: expected a whole number of at least 2, got 1"),
        ({"shots": 5}, r"shots: expected several, as \(1, 5\), got 5"),
        ({"shots": [1, 8]}, r"shot \+ queries: expected at most the 12 images"),
        ({"methods": "logistic"}, "methods: expected several"),
        ({"pixels": 0}, "pixels: expected a whole number of at least 1, got 0"),
        ({"pixels": "a"}, "pixels: expected a whole number of at least 1, got 'a'"),
        ({"augmentation": {"pad": 3}}, "augmentation: expected some of padding, jitter, flip, got"),
        ({"augmentation": 3}, "augmentation: expected some of padding, jitter, flip, got 3"),
        ({"seed": 1.5}, "seed: expected a whole number of at least 0, got 1.5"),
        ({"model": None}, "model: expected a trained network or a function of images, got None"),
        ({"split": "valid"}, "split: expected"),
        ({"queries": 50}, "lower shot or queries"),
        ({"way": 99}, "way: expected at most"),
    ],
)
def test_bad_input_is_named(changes, said, glyphs):
    told = SMALL | {"model": never, "methods": ["centroid"]} | changes
    with pytest.raises(InputError, match=said):
        evaluate(told.pop("model"), glyphs, **told)


def test_random_weights_are_evaluated_too(glyphs):
    layout = Layout(cells=2, channels=2, pixels=8, ways=5, colours=1, norm="batch")
    net = Network(layout, Genotype.parse("N: sk<0 mp<1 | sk<1 mp<2 | sk<0 sk<2 R: mp<0 mp<1 | mp<1 sk<2 | sk<2 sk<3"))
    untrained = Trained(net, init(net, key=jax.random.key(0)), (), TrainSettings(), (0.1,), (0.3,))
    found = evaluate(untrained, glyphs, shots=[3], methods=["centroid"], **SMALL)
    assert found.interval("centroid", 3).low > 0.2


@pytest.mark.slow
@pytest.mark.once
def test_search_training_and_evaluation_on_the_real_images_are_above_their_pixels(miniimagenet, tmp_path):
    """The whole way at a small size: 100 base images a class of 28x28 pixels, 4 epochs; figures to NAS_FIGURES."""
    base = set(miniimagenet.classes("train").tolist())
    rows = [miniimagenet.rows_of(c)[: 100 if c in base else 200] for c in range(100)]
    keep = np.sort(np.concatenate(rows))
    dataset = replace(miniimagenet, images=Chosen(miniimagenet.images, keep), labels=miniimagenet.labels[keep])
    searched = SearchSettings(Layout(cells=3, channels=4, pixels=16), repeats=1, region_images=300)
    result = search(searched, dataset, out=tmp_path / "search")
    net = Network(Layout(cells=3, channels=8, pixels=28, ways=64, norm="batch"), result.genotype)
    told = TrainSettings(epochs=4, rate=0.1, milestones=(3,), drop_path=0.0, padding=3)
    trained = train(net, dataset, told)
    assert trained.history[-1]["accuracy"] > 4 / 64
    asked = {"queries": 15, "episodes": 300, "copies": 0}
    found = evaluate(trained, dataset, methods=["logistic", "centroid", "metantk"], **asked)
    pixels = evaluate(pixels_of, dataset, unit=False, methods=["centroid"], **asked)
    if path := os.environ.get("NAS_FIGURES"):
        figures = {
            **provenance.here(), "command": "NAS_FIGURES=... make test ARGS='-m once tests/test_nas_evaluate.py'",
            "data": "miniImageNet, re-compressed copy; 100 images of each base class, 200 of each other", "seed": 0,
            "search": {**searched.described(), "seconds": result.seconds}, "genotype": str(result.genotype),
            "rule": rule_of(result.log), "images": LOOK, "reductions": net.layout.reductions,
            "train": told.described(), "layout": "3 cells, 8 channels, 28 pixels", "history": list(trained.history),
            "network": found.described(), "pixels": pixels.described(),
        }  # fmt: skip
        for row in (*figures["network"], *figures["pixels"]):
            del row["accuracies"]
        write_atomically(Path(path), json.dumps(figures, indent=1) + "\n")
    for shot, margin in ((1, 0.02), (5, 0.03)):
        ours, baseline = found.interval("logistic", shot), pixels.interval("centroid", shot)
        print(f"{shot} shot: {ours:.1%}, pixels {baseline:.1%}")
        assert ours.low > baseline.high + margin / 2
        assert ours.mean > baseline.mean + margin
