"""Random architectures, all their scores, their trainings kept in a file, Kendall's tau; mlkernels nas compare."""

from __future__ import annotations

import itertools
import json

import jax
import numpy as np
import pytest
from _cli import status_of
from scipy.stats import bootstrap, kendalltau

from mlkernels import datasets
from mlkernels.errors import InputError
from mlkernels.nas import SPACES, Layout, Space, TrainSettings, compare, parameter_count
from mlkernels.nas.images import search_tasks
from mlkernels.nas.scores import metantk_score, ntk_score
from mlkernels.nas.training_free import SCORES, ScoreSettings, training_free_scores
from mlkernels.nas.weights import init

SPACE = Space("tiny", ("skip_connect", "max_pool_3x3BN"), 1)
GLYPHS = datasets.load("glyphs", classes=24, drawings=6)
STACK = Layout(SPACE, cells=3, channels=2, pixels=4, ways=15, colours=1, norm="batch")
BUDGET = TrainSettings(epochs=1, batch=15, padding=1)
TESTED = {"episodes": 10, "queries": 3}


def test_architectures_are_counted_and_drawn_all_different(key):
    two = Space("two", ("skip_connect", "conv_3x3"), 2)
    pairs = list(itertools.product(two.operations, repeat=2))
    cells = [(a, sources, b) for a in pairs for sources in itertools.combinations(range(3), 2) for b in pairs]
    assert two.architectures == len(cells) ** 2
    assert SPACES["darts_fewshot"].architectures == (3 * 6 * 7**6) ** 2
    drawn = compare.random_genotypes(SPACE, 8, key=key)
    assert len(set(drawn)) == 8 == SPACE.architectures / 2
    assert drawn == compare.random_genotypes(SPACE, 8, key=key)
    for genotype in compare.random_genotypes(SPACES["darts_fewshot"], 20, key=key):
        gates = SPACES["darts_fewshot"].gates_of(genotype)  # which checks it
        assert SPACES["darts_fewshot"].genotype_of(gates) == genotype
    with pytest.raises(InputError, match="count: expected at most half of the 16 there are, got 9"):
        compare.random_genotypes(SPACE, 9, key=key)


def test_scores_are_those_of_the_single_functions(key):
    layout = Layout(SPACE, cells=3, channels=2, pixels=4, ways=2, colours=1)
    genotypes = compare.random_genotypes(SPACE, 3, key=key)
    seen = []
    settings = ScoreSettings(layout, tasks=2, repeats=2, region_images=20)
    found = training_free_scores(genotypes, GLYPHS, settings, key=key, progress=lambda *at: seen.append(at))
    assert set(found) == set(SCORES)
    assert seen == [(number, 6) for number in range(1, 7)]
    weights, looks, *_ = jax.random.split(jax.random.fold_in(key, 1), 5)
    tasks = search_tasks(GLYPHS, key=looks, pixels=4, way=2, tasks=2)
    for number, genotype in enumerate(genotypes):
        gates = SPACE.gates_of(genotype)
        for name, score in (("metantk", metantk_score), ("ntk", ntk_score)):
            value = score(layout, init(layout, key=weights), gates, tasks).value
            assert found[name][number, 1] == pytest.approx(-np.log(value), rel=1e-4)
        assert (found["parameters"][number] == parameter_count(layout, gates)).all()


def test_tau_is_kendalls_with_an_interval_around_it(key):
    score = jax.random.normal(key, (30,))
    noisy = score + jax.random.normal(jax.random.fold_in(key, 1), (30,))
    tau = compare.agreement(score, noisy)
    assert tau.mean == kendalltau(score, noisy).statistic
    assert tau.low < tau.mean < tau.high
    assert compare.agreement(-score, noisy).mean == pytest.approx(-tau.mean)
    worst = np.array(score)
    worst[0] = -np.inf  # the worst score there is may be among them
    assert np.isfinite(compare.agreement(worst, noisy).mean)
    assert compare.agreement(np.ones(5), np.arange(5.0)).mean == 0
    for bad in (([1.0, 2.0], [1.0, 2.0]), ([1.0, 2.0, 3.0], [1.0, 2.0])):
        with pytest.raises(InputError, match="score and accuracy: expected one number each"):
            compare.agreement(*bad)


@pytest.mark.parametrize("ties", [False, True])
def test_the_interval_is_that_of_kendalls_tau_resample_by_resample(ties):
    rng = np.random.default_rng(0)
    score, accuracy = rng.normal(size=(2, 12))
    accuracy = np.round(accuracy) if ties else accuracy
    one = bootstrap(
        (np.arange(12),),
        lambda rows: kendalltau(score[rows], accuracy[rows]).statistic,
        vectorized=False, n_resamples=2000, method="percentile", rng=np.random.default_rng(3),
    ).confidence_interval  # fmt: skip
    tau = compare.agreement(score, accuracy, seed=3)
    np.testing.assert_allclose((tau.low, tau.high), one, rtol=0, atol=1e-12)


def test_trainings_are_kept_and_not_done_twice(key, tmp_path, monkeypatch):
    genotypes, out = compare.random_genotypes(SPACE, 2, key=key), tmp_path / "kept.json"
    first = compare.trained_accuracies(genotypes[:1], GLYPHS, STACK, BUDGET, out=out, **TESTED)
    both = compare.trained_accuracies(genotypes, GLYPHS, STACK, BUDGET, out=out, **TESTED)
    assert first.shape == (1, 1)
    assert both[0] == first[0]
    np.testing.assert_array_equal(compare.trained_accuracies(genotypes, GLYPHS, STACK, BUDGET, **TESTED), both)
    monkeypatch.setattr(compare, "train", lambda *_, **__: pytest.fail("it was trained already"))
    np.testing.assert_array_equal(compare.trained_accuracies(genotypes, GLYPHS, STACK, BUDGET, out=out, **TESTED), both)
    with pytest.raises(InputError, match="accuracies of these settings, got others: train differ"):
        compare.trained_accuracies(genotypes, GLYPHS, STACK, TrainSettings(), out=out, **TESTED)
    out.write_text("{}")
    with pytest.raises(InputError, match="accuracies of trained architectures, got something else"):
        compare.trained_accuracies(genotypes, GLYPHS, STACK, BUDGET, out=out, **TESTED)
    assert out.read_text() == "{}"


def test_the_command_leaves_scores_accuracies_and_tau(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "load", lambda name: GLYPHS)
    monkeypatch.setattr("mlkernels.memory.keep_freed", lambda: True)  # not for the process of the tests
    accuracy = iter([0.3, 0.5, 0.4])
    monkeypatch.setattr(compare, "train", lambda *_, **__: None)
    monkeypatch.setattr(compare, "evaluate", lambda *_, **__: _Found(next(accuracy)))
    out = tmp_path / "found.json"
    small = ["--data", "glyphs", "--count", 3, "--cells", 2, "--channels", 1, "--pixels", 4, "--repeats", 1]
    monkeypatch.setattr("mlkernels.nas.training_free.search_patches", lambda *_, **__: None)  # too few images for them
    monkeypatch.setattr("mlkernels.nas.training_free.linear_regions", lambda *_: 7)
    assert status_of("nas", "compare", *small, "--out", out) == 0
    found = json.loads(out.read_text())
    assert found["accuracy"] == [[0.3], [0.5], [0.4]]
    assert set(found["scores"]) == set(found["tau"]) == set(SCORES)
    assert found["tau"]["regions"][0] == 0
    assert {"versions", "device", "command", "seed", "settings", "genotypes"} <= found.keys()
    assert "metantk        tau " in capsys.readouterr().out
    assert status_of("nas", "compare", "--data", "imagenet", "--out", out) == 2
    assert "--data: expected omniglot or glyphs" in capsys.readouterr().err


class _Found:
    def __init__(self, mean: float):
        self.mean = mean

    def interval(self, method: str, shot: int):
        return self


def test_the_recorded_comparison_is_whole():
    """data/results/nas_compare_omniglot.json: architectures enough, and its tau is that of its numbers."""
    path = compare.Path(compare.__file__).parents[2] / "data" / "results" / "nas_compare_omniglot.json"
    found = json.loads(path.read_text(encoding="utf-8"))
    accuracy = np.mean(found["accuracy"], axis=1)
    assert len(set(found["genotypes"])) == len(accuracy) >= 30
    for name in SCORES:
        tau = compare.agreement(np.mean(found["scores"][name], axis=1), accuracy)
        assert found["tau"][name] == pytest.approx([tau.mean, tau.low, tau.high])
