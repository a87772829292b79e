"""Random architectures, all their scores, their trainings kept in a file, Kendall's tau; mlkernels nas compare."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from functools import partial

import jax
import numpy as np
import pytest
from _cli import status_of
from scipy.stats import bootstrap, kendalltau

from mlkernels import datasets, nas
from mlkernels.commands import main
from mlkernels.errors import InputError, bad_input
from mlkernels.nas import SPACES, Layout, Space, TrainSettings, parameter_count
from mlkernels.nas.engine.weights import init
from mlkernels.nas.evaluation import compare
from mlkernels.nas.pictures.search_images import search_tasks
from mlkernels.nas.scores import registry, training_free
from mlkernels.nas.scores.kernel_scores import metantk_score
from mlkernels.nas.scores.registry import SCORES
from mlkernels.nas.scores.training_free import ScoreSettings, training_free_scores
from mlkernels.nas.searching.settings import SearchSettings
from mlkernels.support.checked import signed
from mlkernels.support.kept_rows import Kept
from mlkernels.support.progress import Progress

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
    drawn = nas.random_genotypes(SPACE, 8, key=key)
    assert len(set(drawn)) == 8 == SPACE.architectures / 2
    assert drawn == nas.random_genotypes(SPACE, 8, key=key)
    for genotype in nas.random_genotypes(SPACES["darts_fewshot"], 20, key=key):
        gates = SPACES["darts_fewshot"].gates_of(genotype)  # which checks it
        assert SPACES["darts_fewshot"].genotype_of(gates) == genotype
    with pytest.raises(InputError, match="count: expected at most half of the 16 there are, got 9"):
        nas.random_genotypes(SPACE, 9, key=key)


def test_scores_are_those_of_the_single_functions(key):
    layout = Layout(SPACE, cells=3, channels=2, pixels=4, ways=2, colours=1)
    genotypes = nas.random_genotypes(SPACE, 3, key=key)
    seen = []
    settings = ScoreSettings(layout, tasks=2, repeats=2, region_images=20)
    found = training_free_scores(genotypes, GLYPHS, settings, key=key, progress=seen.append)
    assert set(found) == set(SCORES)
    assert seen == [Progress(number, 6, "scored") for number in range(1, 7)]
    weights, looks, *_ = jax.random.split(jax.random.fold_in(key, 1), 5)
    tasks = search_tasks(GLYPHS, key=looks, pixels=4, way=2, tasks=2)
    for number, genotype in enumerate(genotypes):
        gates = SPACE.gates_of(genotype)
        for name, algorithm in (("metantk", "maml"), ("ntk", "none")):
            value = metantk_score(layout, init(layout, key=weights), gates, tasks, algorithm=algorithm).value
            assert found[name][number, 1] == pytest.approx(-np.log(value), rel=1e-4)
        assert (found["parameters"][number] == parameter_count(layout, gates)).all()


@pytest.mark.parametrize(("name", "other"), [("algorithm", "anil"), ("inner_time", 2.0), ("ridge", 0.1)])
def test_architectures_are_scored_as_they_are_searched(key, name, other):
    layout = Layout(SPACE, cells=3, channels=2, pixels=4, ways=2, colours=1)
    genotypes, settings = nas.random_genotypes(SPACE, 1, key=key), ScoreSettings(layout, 2, 1, region_images=20)
    assert getattr(settings, name) == getattr(SearchSettings(), name)
    weights, looks, *_ = jax.random.split(jax.random.fold_in(key, 0), 5)
    params, tasks = init(layout, key=weights), search_tasks(GLYPHS, key=looks, pixels=4, way=2, tasks=2)
    value = metantk_score(layout, params, SPACE.gates_of(genotypes[0]), tasks, **{name: other}).value
    found = training_free_scores(genotypes, GLYPHS, replace(settings, **{name: other}), key=key)
    assert found["metantk"] == pytest.approx(-np.log(value), rel=1e-4)
    with pytest.raises(InputError, match="algorithm: expected maml or anil, got 'sgd'"):
        replace(settings, algorithm="sgd")


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
    for bad, name in ((([np.nan, 2.0, 3.0], [1.0, 2.0, 3.0]), "score"), (([1.0, 2.0, 3.0], [np.nan] * 3), "accuracy")):
        with pytest.raises(InputError, match=f"^{name}: expected numbers or infinities, got NaN for [13] of 3"):
            compare.agreement(*bad)


def test_the_interval_is_the_same_in_batches_of_resamples(monkeypatch):
    score, accuracy = np.random.default_rng(0).normal(size=(2, 12))
    found = []
    for pairs in (1, 100 * 12**2, 2**40):  # resamples one at a time, by hundreds, all at once
        monkeypatch.setattr(compare, "_AT_ONCE", pairs)
        found.append(compare.agreement(score, accuracy, seed=3))
    assert found[0] == found[1] == found[2]


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


@pytest.mark.parametrize("ties", [False, True])
def test_a_gain_is_the_difference_of_two_taus_on_the_same_resamples(ties):
    score, other, accuracy = np.random.default_rng(0).normal(size=(3, 12))
    accuracy = np.round(accuracy) if ties else accuracy
    picks = np.random.default_rng(3).integers(12, size=(1000, 12))
    each = np.nan_to_num([[kendalltau(one[p], accuracy[p]).statistic for p in picks] for one in (score, other)])
    gain = compare.agreement_gain(score, other, accuracy, seed=3)
    assert gain.mean == compare.agreement(score, accuracy).mean - compare.agreement(other, accuracy).mean
    np.testing.assert_allclose((gain.low, gain.high), np.percentile(np.subtract(*each), (2.5, 97.5)), atol=1e-12)
    assert gain.n == 12
    assert compare.agreement_gain(score, score, accuracy).high == 0
    with pytest.raises(InputError, match="score and accuracy: expected one number each"):
        compare.agreement_gain(score, other[1:], accuracy)


def test_a_spread_is_that_of_the_draws_and_that_of_the_architectures():
    rng = np.random.default_rng(0)
    scores = 3 * rng.normal(size=(4000, 1)) + 2 * rng.normal(size=(4000, 5))
    found = compare.score_spread(scores)
    np.testing.assert_allclose(found, (4, 9), rtol=0.05)
    assert found.share == found.between / (found.between + found.within)
    np.testing.assert_allclose(found.within, scores.var(1, ddof=1).mean())
    noise = compare.score_spread([[1.0, 9.0], [9.0, 1.0]])
    assert (noise.between, noise.share) == (0, 0)  # and not below
    for bad in (np.ones(3), np.ones((1, 3)), np.ones((3, 1))):
        with pytest.raises(InputError, match=r"scores: expected \[architectures, draws\], two of each at least"):
            compare.score_spread(bad)


def test_repeatability_is_tau_between_all_disjoint_sets_of_draws():
    scores = np.random.default_rng(0).normal(size=(8, 6))
    ones = [kendalltau(scores[:, a], scores[:, b]).statistic for a, b in itertools.combinations(range(6), 2)]
    np.testing.assert_allclose(compare.repeatability(scores), ones)
    halves = [(a, sorted({*range(6)} - {*a})) for a in itertools.combinations(range(6), 3) if 0 in a]
    expected = [kendalltau(scores[:, list(a)].mean(1), scores[:, b].mean(1)).statistic for a, b in halves]
    np.testing.assert_allclose(compare.repeatability(scores, 3), expected)
    assert len(compare.repeatability(scores, 2)) == 15 * 6 / 2
    with pytest.raises(InputError, match="size: expected a whole number from 1 to 3, got 4"):
        compare.repeatability(scores, 4)


def test_trainings_are_kept_and_not_done_twice(key, tmp_path, monkeypatch):
    genotypes, out = nas.random_genotypes(SPACE, 2, key=key), tmp_path / "kept.json"
    first = compare.trained_accuracies(genotypes[:1], GLYPHS, STACK, BUDGET, out=out, **TESTED)
    both = compare.trained_accuracies(genotypes, GLYPHS, STACK, BUDGET, out=out, **TESTED)
    assert first.shape == (1, 1)
    assert both[0] == first[0]
    np.testing.assert_array_equal(compare.trained_accuracies(genotypes, GLYPHS, STACK, BUDGET, **TESTED), both)
    monkeypatch.setattr(compare, "train", lambda *_, **__: pytest.fail("it was trained already"))
    np.testing.assert_array_equal(compare.trained_accuracies(genotypes, GLYPHS, STACK, BUDGET, out=out, **TESTED), both)
    with pytest.raises(InputError, match="under these settings, got others: train differ"):
        compare.trained_accuracies(genotypes, GLYPHS, STACK, TrainSettings(), out=out, **TESTED)
    out.write_text("{}")
    with pytest.raises(InputError, match="accuracy of architectures, got something else"):
        compare.trained_accuracies(genotypes, GLYPHS, STACK, BUDGET, out=out, **TESTED)
    assert out.read_text() == "{}"


def but_for_one_image(dataset):
    images = np.array(dataset.images)
    images[[7, 8]] = images[[8, 7]]
    return replace(dataset, images=images)


def but_for_one_class(dataset):
    train = np.array(dataset.classes("train"))
    train[7], spare = dataset.classes("val")[0], train[7]
    return replace(dataset, splits=dataset.splits | {"train": train, "val": np.array([spare])})


@pytest.mark.parametrize(
    "change",
    [but_for_one_image, but_for_one_class, lambda data: replace(data, std=2 * data.std)],
    ids=["image", "class", "std"],
)
def test_rows_of_data_that_differ_a_little_are_refused(key, tmp_path, monkeypatch, change):
    layout = Layout(SPACE, cells=3, channels=2, pixels=4, ways=2, colours=1)
    genotypes, out = nas.random_genotypes(SPACE, 1, key=key), tmp_path / "kept.json"
    settings = ScoreSettings(layout, tasks=1, repeats=1, region_images=20)
    monkeypatch.setattr(training_free, "_scorer", lambda *_, **__: lambda *_: dict.fromkeys(SCORES, 1.0))
    training_free_scores(genotypes, GLYPHS, settings, key=key, out=out)
    with pytest.raises(InputError, match="under these settings, got others: data differ"):
        training_free_scores(genotypes, change(GLYPHS), settings, key=key, out=out)


def test_scores_of_a_space_of_the_same_name_are_refused(key, tmp_path, monkeypatch):
    genotypes, out = nas.random_genotypes(SPACE, 1, key=key), tmp_path / "kept.json"
    monkeypatch.setattr(training_free, "_scorer", lambda *_, **__: lambda *_: dict.fromkeys(SCORES, 1.0))

    def score(space):
        layout = Layout(space, cells=3, channels=2, pixels=4, ways=2, colours=1)
        training_free_scores(genotypes, GLYPHS, ScoreSettings(layout, tasks=1, repeats=1), key=key, out=out)

    score(SPACE)
    with pytest.raises(InputError, match="got others: layout differ"):
        score(replace(SPACE, operations=(*SPACE.operations, "conv_3x3")))


def test_rows_of_another_version_are_refused_and_kept(tmp_path):
    out = tmp_path / "kept.json"
    Kept(out, "accuracy", {}).add("one", 0.5)
    found = json.loads(out.read_text())
    assert Kept(out, "accuracy", {}).rows == {"one": 0.5}
    out.write_text(json.dumps({name: found[name] for name in ("settings", "accuracy")}))
    with pytest.raises(InputError, match="got those of another version, which looked at fewer images; move it away"):
        Kept(out, "accuracy", {})
    assert json.loads(out.read_text())["accuracy"] == {"one": 0.5}


@pytest.mark.parametrize("other", [{"drawings": 7}, {"seed": 1}])
def test_results_of_other_data_are_refused(key, tmp_path, monkeypatch, other):
    genotypes, out = nas.random_genotypes(SPACE, 1, key=key), tmp_path / "kept.json"
    monkeypatch.setattr(compare, "train", lambda *_, **__: None)
    monkeypatch.setattr(compare, "evaluate", lambda *_, **__: _Found(0.5))
    compare.trained_accuracies(genotypes, GLYPHS, STACK, BUDGET, out=out, **TESTED)
    again = datasets.load("glyphs", classes=24, drawings=6)
    assert compare.trained_accuracies(genotypes, again, STACK, BUDGET, out=out, **TESTED) == 0.5
    changed = datasets.load("glyphs", **({"classes": 24, "drawings": 6} | other))
    with pytest.raises(InputError, match="under these settings, got others: data differ"):
        compare.trained_accuracies(genotypes, changed, STACK, BUDGET, out=out, **TESTED)


@pytest.mark.parametrize("fault", ["loss", "parameters and statistics", "features"])
def test_a_training_that_diverges_is_the_worst_and_stops_nothing(key, tmp_path, monkeypatch, fault):
    genotypes, out, calls = nas.random_genotypes(SPACE, 3, key=key), tmp_path / "kept.json", []

    def train(network, *_, **__):
        calls.append(network.genotype)
        if network.genotype == genotypes[1]:
            raise bad_input(fault, "a finite number" if fault == "loss" else "finite numbers", "others", "lower it")

    monkeypatch.setattr(compare, "train", train)
    monkeypatch.setattr(compare, "evaluate", lambda *_, **__: _Found(0.5))
    for _ in range(2):  # a second call trains none again
        found = compare.trained_accuracies(genotypes, GLYPHS, STACK, BUDGET, out=out, **TESTED)
        assert found.ravel().tolist() == [0.5, 1 / 5, 0.5]  # five ways
    assert calls == genotypes
    kept = json.loads(out.read_text())
    assert list(kept["diverged"]) == [f"{genotypes[1]} seed 0"]
    assert kept["diverged"][f"{genotypes[1]} seed 0"].startswith(f"{fault}: ")

    monkeypatch.setattr(compare, "train", lambda *_, **__: _refuse())
    with pytest.raises(InputError, match="batch: expected"):  # other faults are no divergence
        compare.trained_accuracies(genotypes, GLYPHS, STACK, BUDGET, **TESTED)


def test_a_rate_that_is_far_too_large_counts_as_chance(key):
    genotypes = nas.random_genotypes(SPACE, 1, key=key)
    settings = replace(BUDGET, rate=1e30, epochs=2)
    assert compare.trained_accuracies(genotypes, GLYPHS, STACK, settings, **TESTED) == 1 / 5


def test_scores_are_kept_and_not_computed_twice(key, tmp_path, monkeypatch):
    layout = Layout(SPACE, cells=3, channels=2, pixels=4, ways=2, colours=1)
    genotypes, out, seen = nas.random_genotypes(SPACE, 3, key=key), tmp_path / "kept.json", []
    settings = ScoreSettings(layout, tasks=1, repeats=2, region_images=20)
    norms = iter([1.0, np.nan, np.inf, 4.0])
    monkeypatch.setattr(registry, "gradient_norm", lambda *_: next(norms))
    scores = partial(training_free_scores, genotypes, GLYPHS, key=key, out=out)

    with pytest.raises(StopIteration):  # at the fifth of six
        scores(settings)
    monkeypatch.setattr(registry, "gradient_norm", lambda *_: seen.append(1) or 9.0)
    found = scores(settings)
    assert len(seen) == 2
    np.testing.assert_array_equal(found["gradient norm"], [[1, 4], [-np.inf, 9], [-np.inf, 9]])  # not finite: the worst
    json.loads(out.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))

    fresh = training_free_scores(genotypes, GLYPHS, settings, key=key)
    for name in set(SCORES) - {"gradient norm"}:
        np.testing.assert_array_equal(found[name], fresh[name])
    scores(replace(settings, repeats=1))  # of which all is there
    assert len(seen) == 2 + 6
    kept = json.loads(out.read_text())
    del next(iter(kept["scores"].values()))["naswot"]  # as of a version without it
    out.write_text(json.dumps(signed(kept)))
    np.testing.assert_array_equal(scores(replace(settings, repeats=1))["naswot"], fresh["naswot"][:, :1])
    assert len(seen) == 2 + 6 + 1
    with pytest.raises(InputError, match="scores of architectures under these settings, got others: algorithm differ"):
        scores(replace(settings, algorithm="anil"))
    with pytest.raises(InputError, match="got others: key differ"):
        scores(settings, key=jax.random.key(99))
    out.write_text("[]")
    with pytest.raises(InputError, match="scores of architectures, got something else"):
        scores(settings)


def test_the_command_leaves_scores_accuracies_and_tau(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "load", lambda name: GLYPHS)
    monkeypatch.setattr("mlkernels.support.memory.keep_freed", lambda: True)  # not for the process of the tests
    accuracy = iter([0.3, 0.5, 0.4])
    monkeypatch.setattr(compare, "train", lambda *_, **__: None)
    monkeypatch.setattr(compare, "evaluate", lambda *_, **__: _Found(next(accuracy)))
    monkeypatch.setattr(compare, "check_trainings", lambda *_: None)  # too few images for a real evaluation
    out = tmp_path / "found.json"
    small = ["--data", "glyphs", "--count", 3, "--cells", 2, "--channels", 1, "--pixels", 4, "--repeats", 1]
    monkeypatch.setattr(
        "mlkernels.nas.scores.training_free.search_patches", lambda *_, **__: None
    )  # too few images for them
    monkeypatch.setattr("mlkernels.nas.scores.registry.linear_regions", lambda *_: 7)
    assert status_of("nas", "compare", *small, "--out", out) == 0
    found = json.loads(out.read_text())
    assert found["accuracy"] == [[0.3], [0.5], [0.4]]
    assert found["diverged"] == {}
    assert set(found["scores"]) == set(found["tau"]) == set(SCORES)
    assert {"repeats", "seeds", "batch", "padding", "jitter", "flip", "rate", "pixels"} <= found["settings"].keys()
    assert found["tau"]["regions"][0] == 0
    assert {"versions", "device", "command", "seed", "settings", "genotypes"} <= found.keys()
    assert "metantk        tau " in capsys.readouterr().out
    assert status_of("nas", "compare", "--data", "imagenet", "--out", out) == 2
    assert "--data: expected omniglot or glyphs" in capsys.readouterr().err

    before = json.loads(out.read_text())
    monkeypatch.setattr("mlkernels.nas.scores.registry.linear_regions", lambda *_: pytest.fail("it is kept"))
    assert status_of("nas", "compare", *small, "--out", out) == 0  # goes on from what is kept: trains and scores none
    own = {name: before[name] for name in ("created", "sha256")}  # of which one follows from the other
    assert json.loads(out.read_text()) | own == before
    monkeypatch.setattr(compare, "agreement", lambda *_: {}["no tau"])
    out.unlink()
    with pytest.raises(KeyError):
        main.main(["nas", "compare", *map(str, small), "--out", str(out)])
    found.pop("tau")
    left = json.loads(out.read_text())
    assert left == found | {name: left[name] for name in own}  # all the work is kept, whatever becomes of the taus
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(datasets, "load", lambda name: pytest.fail("work was begun"))
    assert status_of("nas", "compare", *small, "--out", tmp_path / "file" / "found.json") == 2
    assert "file: expected a folder, got a file; name another place" in " ".join(capsys.readouterr().err.split())


def _refuse():
    raise bad_input("batch", "at most the 90 images", 100, "take a smaller one")


class _Found:
    def __init__(self, mean: float):
        self.mean = mean

    def interval(self, method: str, shot: int):
        return self


def test_the_recorded_comparison_is_whole():
    """data/results/nas_compare_omniglot.json: architectures enough, and its tau is that of its numbers."""
    path = compare.Path(compare.__file__).parents[3] / "data" / "results" / "nas_compare_omniglot.json"
    found = json.loads(path.read_text(encoding="utf-8"))
    accuracy = np.mean(found["accuracy"], axis=1)
    assert len(set(found["genotypes"])) == len(accuracy) >= 30
    assert {"metantk", "ntk", "regions", "parameters"} <= found["scores"].keys() <= SCORES.keys()  # some are newer
    for name in found["scores"]:
        tau = compare.agreement(np.mean(found["scores"][name], axis=1), accuracy)
        assert found["tau"][name] == pytest.approx([tau.mean, tau.low, tau.high])
