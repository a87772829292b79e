"""The benchmarks compare equal things, and write what they promise. Nothing here is timed against a limit."""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import re
import subprocess
import sys
import tomllib
import types
from dataclasses import replace

import jax
import numpy as np
import pytest

from benchmarks import (
    _measure,
    _one_build,
    before,
    datasets,
    empirical_ntk,
    function_space,
    maml,
    meta_rkhs,
    metantk,
    methods,
    nas,
    nas_before,
    nas_designs,
    nas_found,
    run,
    sliders,
)
from mlkernels.errors import InputError
from mlkernels.metantk import predict as metantk_predict
from mlkernels.nas import Layout, SearchSettings
from mlkernels.networks import MLP, Conv4
from mlkernels.tasks import sinusoid

TINY = {"mlp": empirical_ntk.Case(MLP(8, outputs=3), (4,), 3), "conv": empirical_ntk.Case(Conv4(4, 2, 2), (8, 8, 1), 3)}


def test_all_ways_to_the_analytic_metantk_agree(key):
    tasks = sinusoid(tasks=3, support=4, queries=2, key=key)
    assert metantk.double_loop(tasks).shape == (6, 6)
    assert metantk.difference(tasks) < 1e-10


@pytest.mark.parametrize("case", TINY)
@pytest.mark.parametrize("outputs", empirical_ntk.OUTPUTS)
def test_our_empirical_ntk_is_theirs(case, outputs):
    params, x = TINY[case].data(0)
    size = 3 if outputs == "trace" else 3 * TINY[case].network.outputs
    for name in (empirical_ntk.OURS, *empirical_ntk.THEIRS):
        kernel = empirical_ntk.variant(TINY[case], outputs, name)(params, x)
        assert (kernel.shape, kernel.dtype) == ((size, size), np.float32)
    assert empirical_ntk.difference(TINY[case], outputs) < 1e-5


def test_peak_memory_counts_what_a_call_holds():
    size = 64 * 2**20  # in a fresh process: one that has freed so much takes it from what it still holds
    script = f"""if True:
        import json, numpy as np
        from benchmarks._measure import peak_of
        print(json.dumps(peak_of(lambda: np.ones({size} // 8).sum())))"""
    done = subprocess.run([sys.executable, "-c", script], cwd=_measure.ROOT, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["peak_bytes"] > size / 2 or found["at_most"]
    here = empirical_ntk.peak_here(TINY["mlp"], "trace", empirical_ntk.OURS)
    assert here["peak_bytes"] >= 0
    assert set(here) == {"peak_bytes", "at_most", "xla_temporary_bytes"}


def test_demos_are_found_by_their_attribute(tmp_path, monkeypatch):
    (tmp_path / "coursedemos").mkdir()
    for name, text in {"__init__": "", "_base": "DEMO = 1", "a": "DEMO = 2", "b": "DEMOS = (3, 4)", "c": ""}.items():
        (tmp_path / "coursedemos" / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    import coursedemos

    assert sliders.demos(coursedemos) == [2, 3, 4]
    assert sliders.report({"demos": []}) == "no demos found"


def test_variants_take_turns():
    calls = []
    _measure.alternate({name: lambda name=name: calls.append(name) for name in "ab"}, {"a": 2, "b": 1})
    assert calls == ["a", "a", "b", "b", "a", "a"]  # once to warm up, once timed


def fields(result):
    for name in ("created", "command", "seed", "versions", "device", "load_before", "load_after", "commit", "machine"):
        assert name in result
    assert {"python", "jax", "jaxlib", "neural-tangents", "numpy"} <= set(result["versions"])
    assert result["device"]["cores"] >= 1


def test_a_run_writes_its_numbers_with_provenance(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(_measure, "ROOT", tmp_path)
    whole = metantk.measure
    small = {"sizes": (2, 3), "points": 2, "runs": 2, "loop_runs": lambda tasks: 1}
    monkeypatch.setattr(metantk, "measure", lambda seed: whole(seed, **small))
    monkeypatch.setattr(sliders, "demos", list)
    run.main(["metantk", "sliders"])
    result = json.loads((tmp_path / "build" / "bench" / "bench_metantk.json").read_text())
    fields(result)
    for count in ("2", "3"):
        found = result["by_tasks"][count]
        assert {"min_s", "median_s", "runs"} == set(found["times"][metantk.OURS])
        assert found["max_relative_difference"] < 1e-10
        assert {"min", "median"} == set(found["times_faster"][f"{metantk.OURS} against {metantk.LOOPED}"])
    assert "goal" in result
    fields(json.loads((tmp_path / "build" / "bench" / "bench_sliders.json").read_text()))
    assert not list(tmp_path.rglob("*.partial"))
    assert "times faster" in capsys.readouterr().out


def test_the_empirical_ntk_result_has_its_ratios(monkeypatch):
    monkeypatch.setattr(empirical_ntk, "CASES", {"tiny": TINY["mlp"]})
    monkeypatch.setattr(empirical_ntk, "GOALS", {"tiny, trace": 1e9})
    monkeypatch.setattr(empirical_ntk, "GROWTH", {"points": (2, 3, 4), "outputs": (1, 2, 3)})
    monkeypatch.setattr(empirical_ntk, "MIDDLE", {"points": 3, "width": 8, "outputs": 2})
    memory = {"peak_bytes": 4096, "at_most": False, "xla_temporary_bytes": 100}
    monkeypatch.setattr(empirical_ntk, "peak", lambda *which: memory)
    result = empirical_ntk.measure(runs=1)
    for found in result["cases"].values():
        assert set(found["times"]) == {empirical_ntk.OURS, *empirical_ntk.THEIRS} == set(found["memory"])
        assert {"than", "min", "median"} == set(found["times_faster"])
        assert found["times_leaner"]["peak_bytes"]["ratio"] == 1.0
    assert result["cases"]["tiny, trace"]["goal"] == {"times_faster": 1e9, "met": False}
    assert set(result["growth"]) == {"points", "outputs"}
    assert set(result["growth"]["points"]["times"]) == {"2", "3", "4"}
    report = empirical_ntk.report(result)
    assert "times our memory" in report
    assert "NOT met" in report
    assert "exponent" in report


def test_a_convolution_written_by_others_is_the_same_network():
    ours, theirs = TINY["conv"], empirical_ntk.Case(empirical_ntk.LaxConv4(TINY["conv"].network), (8, 8, 1), 3)
    params, x = ours.data(0)
    with jax.numpy_rank_promotion("allow"):
        np.testing.assert_allclose(ours.network.apply(params, x), theirs.network.apply(params, x), rtol=1e-5)
        kernels = [empirical_ntk.variant(case, "trace", empirical_ntk.OURS)(params, x) for case in (ours, theirs)]
    np.testing.assert_allclose(*kernels, rtol=1e-5)


def test_this_build_stands_beside_an_earlier_one(monkeypatch, tmp_path):
    """Without the minutes that it takes: the processes are stood in for."""
    times = {before.NOW: 2.0, before.THEN: 10.0}
    monkeypatch.setattr(before, "worktree", lambda commit: contextlib.nullcontext(tmp_path))
    monkeypatch.setattr(before, "DEMOS", ("start_here",))

    def one(root, what, *names, cache=None):
        ms = times[before.THEN if root == tmp_path else before.NOW]
        if what == "first_picture":
            assert cache.is_dir()
            return {"ms": 300 * ms, "computed_ms": 400 * ms}
        if what == "sliders":
            return {"width": ms}
        return {"MLP, trace": {"min_ms": ms, "median_ms": ms, "temporary_bytes": 2**20}}

    monkeypatch.setattr(before, "one", one)
    result = before.measure(turns=2)
    assert result["kernels"]["MLP, trace"]["times_faster"] == {"min": 5.0, "median": 5.0}
    assert result["kernels"]["MLP, trace"]["goal"] == {"times_faster": 40, "met": False}
    assert result["first_pictures"]["start_here"]["met"] == {"cold": True, "warm": False}
    assert result["first_pictures"]["start_here"][before.NOW]["warm, computed"] == 800
    assert result["sliders"] == {"start_here": {"width": {before.THEN: 10.0, before.NOW: 2.0}}}
    assert "NO" in before.report(result)


def test_a_commit_that_is_not_there_is_refused():
    with pytest.raises(InputError, match="commit: expected one of"), before.worktree("no-such-commit"):
        pass


def test_what_a_build_measures_are_public_names():
    """An earlier build must have them, too; so none of them begins with an underscore."""
    text = inspect.getsource(_one_build)
    assert not re.search(r"(import |\.)_[a-z]", text.replace("__future__", ""))
    assert _one_build.timed(lambda: 1).keys() == {"min_ms", "median_ms"}


@pytest.fixture
def tiny_set(tmp_path, monkeypatch):
    """A set of five training classes, and no miniImageNet of the user's."""
    from mlkernels.datasets import folders

    monkeypatch.delenv(folders.VARIABLE, raising=False)
    monkeypatch.setattr(folders, "cache", lambda: tmp_path / "cache")
    monkeypatch.setattr(datasets, "CLASSES", {"train": 5, "val": 1, "test": 1})


def test_every_way_to_read_a_dataset_gives_the_same_episodes(tiny_set, tmp_path, monkeypatch):
    datasets.make_set(tmp_path, 0, 16)
    monkeypatch.setenv(datasets.VARIABLE, str(tmp_path))
    with datasets._found_in(tmp_path / "elsewhere") as where:
        assert where == str(tmp_path / datasets.NAME)
    datasets.write_others(datasets.opened(datasets.OURS, tmp_path, 16), tmp_path, 16)
    opened = {way: datasets.opened(way, tmp_path, 16) for way in (datasets.OURS, datasets.PICKLE, *datasets.SIZES)}
    rows = np.array([3, 0, 79])
    images = {way: np.asarray(data.images[rows], dtype=int) for way, data in opened.items()}
    assert len(np.unique(images[datasets.OURS].reshape(3, -1), axis=0)) == 3
    assert np.array_equal(images[datasets.OURS], images[datasets.PICKLE])
    for way in datasets.SIZES:
        assert np.abs(images[way] - images[datasets.OURS]).mean() < 6  # what JPEG loses
    shapes = {datasets.sample(data, 0, 1).shape for data in opened.values()}
    assert shapes == {(1, 75, 84, 84, 3)}


def test_the_datasets_result_has_its_ratios(tiny_set, monkeypatch):
    monkeypatch.setattr(datasets, "in_fresh_process", datasets.fresh)
    result = datasets.measure(runs=1, per_class=16, jpegs=16, episodes=1, opens=1)
    assert result["settings"]["images"] == 80
    assert result["settings"]["source"] == "synthetic"
    for way in (datasets.PICKLE, *datasets.SIZES):
        assert {"min", "median"} == set(result["times_faster"][way])
    for found in result["fresh"].values():
        assert found["open"]["runs"] == 1
        assert min(found["peak_bytes"], found["peak_after_opening_bytes"]) > 0
    assert set(result["goal"]["met"]) == {"times_faster", "peak_bytes"}
    assert "goal, peak below 500 MB" in datasets.report(result)
    assert datasets.VARIABLE not in os.environ


def test_a_demo_below_the_goal_is_said_so(monkeypatch):
    answer = {"demo": "d", "median_ms": 9.0, "min_ms": 1.0, "max_ms": 200.0, "first_ms": 500.0, "by_control_ms": {},
              "while_warming_ms": [5.0, 120.0]}  # fmt: skip
    monkeypatch.setattr(sliders, "demos", lambda: [types.SimpleNamespace(), types.SimpleNamespace()])
    controls = iter(({"width": 99.0}, {"width": 101.0}))
    monkeypatch.setattr(sliders, "latency", lambda demo, repeats: {**answer, "by_control_ms": next(controls)})
    result = sliders.measure()
    assert [found["met"] for found in result["demos"]] == [True, False]
    assert "NO" in sliders.report(result)
    controls = iter(({"edge": 101.0}, {"edge": 1001.0}))
    monkeypatch.setattr(
        sliders, "latency", lambda demo, repeats: {**answer, "demo": "cell_editor", "by_control_ms": next(controls)}
    )
    assert [found["met"] for found in sliders.measure()["demos"]] == [True, False]


def test_an_unknown_benchmark_is_refused(capsys):
    with pytest.raises(SystemExit):
        run.main(["kernel"])
    assert "metantk, sliders, empirical_ntk" in capsys.readouterr().err


SMALL_MAML = {
    "mlp": maml.Case(MLP(8, parametrization="standard"), (1,), 0.01, 1, 1),
    "conv": maml.Case(Conv4(4, depth=2, outputs=5, parametrization="standard"), (8, 8, 1), 0.01, 1, 1),
}


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch", reason="torch is not installed; the benchmark is then without its peer")


@pytest.mark.parametrize("name", SMALL_MAML)
def test_the_maml_step_is_pytorchs(name, torch):
    result = maml.measure(cases={name: SMALL_MAML[name]})
    found = result["by_case"][name]
    assert len(found["times"]) == 5
    assert found["times"].keys() - {maml.OURS} == found["times_faster"].keys()
    assert found["max_relative_difference"] < 1e-10
    assert found["fastest"]["min"]["ratio"] == min(ratio["min"] for ratio in found["times_faster"].values())
    assert found["goal"]["met"] in (True, False)
    assert "largest difference" in maml.report(result)


def test_another_gradient_is_not_timed(monkeypatch, torch):
    from benchmarks import _maml_torch

    def other(network, inner, loss):
        return lambda p, tasks: (torch.tensor(1.0), [torch.zeros_like(leaf) for leaf in p])

    monkeypatch.setattr(_maml_torch, "WAYS", {"other": other})
    with pytest.raises(RuntimeError, match="differ"):
        maml.measure(cases={"mlp": SMALL_MAML["mlp"]})


def test_without_pytorch_the_maml_step_is_timed_alone(monkeypatch):
    monkeypatch.setattr(maml, "find_spec", lambda name: None)
    result = maml.measure(cases={"mlp": SMALL_MAML["mlp"]})
    found = result["by_case"]["mlp"]
    assert list(found["times"]) == [maml.OURS]
    assert found["goal"]["met"] is None
    assert f"pip install {maml.TORCH}" in maml.report(result)


def test_the_peer_is_the_version_that_the_project_names():
    text = (_measure.ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert tomllib.loads(text)["dependency-groups"]["bench"] == [maml.TORCH]
    assert "torch" not in (_measure.ROOT / "requirements.txt").read_text(encoding="utf-8")


TINY_NAS = {"channels": 4, "pixels": 8, "cells": 3, "tasks": 1}


def test_the_candidates_kernel_is_the_plain_one():
    ours, theirs = (np.array(nas.measured(side, 1, 0, **TINY_NAS)["kernel"]) for side in (nas.OURS, nas.PLAIN))
    assert np.linalg.norm(ours - theirs) < 1e-4 * np.linalg.norm(ours)


def test_the_candidates_kernel_is_pytorchs(torch):
    ours, theirs = (np.array(nas.measured(side, 2, 0, **TINY_NAS)["kernel"]) for side in (nas.OURS, nas.TORCH))
    assert np.linalg.norm(ours - theirs) < 1e-4 * np.linalg.norm(ours)


def test_regions_are_those_of_all_pairs():
    found = nas.regions_measured(2, 0, images=60)
    assert found["counts"][0] == found["counts"][1]


def test_a_whole_search_is_the_sum_of_its_rounds():
    """A second each, whatever is open: as many seconds as networks, and what was compiled.

    Six rounds of operations and four of edges, a node each, and in each round the network as it is.
    """
    flat = {name: {"min_s": 1.0, "first_s": 6.0} for name in nas.OPEN}
    none = {name: {"ours_s": 0.0, "pairs_s": 1.0} for name in nas.OPEN}
    assert nas.whole_search(flat, none, reference=False) == 5 + 3 * (6 + 486 + 4 + 14)
    assert nas.whole_search(flat, none, reference=True) == 5 + 2 * 3 * 2 * 500


def test_meta_rkhs_stands_beside_maml():
    """On a small network; that each side is what it is called."""
    small = {"small": replace(next(iter(meta_rkhs.CASES.values())), network=MLP(8), tasks=2, runs=2)}
    small["images"] = replace(meta_rkhs._conv(5, 5), network=Conv4(2, outputs=5), tasks=1, shape=(16, 16, 1), runs=1)
    result = meta_rkhs.measure(cases=small)
    for name, found in result["by_case"].items():
        assert found["times"].keys() == found["temporary_bytes"].keys() == small[name].sides().keys()
        assert found["goal"]["by"].startswith("Meta-RKHS-II")
        assert min(time["min_s"] for time in found["times"].values()) > 0
    assert "Meta-RKHS-II, sum" in meta_rkhs.report(result)


def test_function_space_stands_beside_maml():
    """On small networks; that each side is what it is called, and that both parts of the goal are looked at."""
    sine, *_, images = function_space.CASES.values()
    few = {"tasks": 2, "runs": 1}
    small = {
        "sines": replace(sine, network=MLP(8, b_std=1.0), seeds=1, steps=2, held_out=3, **few),
        "images": replace(images, network=Conv4(2, outputs=5), shape=(16, 16, 1), **few),
    }
    result = function_space.measure(cases=small)
    for name, found in result["by_case"].items():
        sides = small[name].sides().keys()
        for what in (function_space.ALONE, function_space.WITH_ANSWERS):
            ways = {*sides, *(peer + function_space.ONE_BY_ONE for peer in function_space.PEERS)}
            assert found["times"][what].keys() == found["temporary_bytes"][what].keys() == ways
            for peer in function_space.PEERS:
                assert found["times_faster"][what][peer].keys() == sides - set(function_space.PEERS)
        assert set(found["goal"]) == set(found["most"]) == set(function_space.PEERS)
        assert min(time["min_s"] for time in found["pieces"].values()) > 0
    assert result["by_case"]["sines"]["test_error"].keys() == small["sines"].sides().keys()
    assert not result["by_case"]["images"]["test_error"]
    report = function_space.report(result)
    assert "ridge-regression head" in report
    assert "nothing but the forward pass" in report


@pytest.mark.parametrize(
    ("ratio", "error", "met"), [(10.0, 1.0, True), (9.9, 1.0, False), (11.0, 1.1, False), (11.0, None, True)]
)
def test_the_goal_of_function_space_is_of_time_and_loss(ratio, error, met):
    errors = {} if error is None else {"peer": [1.0], "side": [error]}
    assert function_space.met({"peer": {"side": {"median": ratio}}}, errors)["peer"]["side"]["met"] == met


def test_adapted_states_are_counted_without_what_all_tasks_share(key):
    """What `own` keeps, for one task of two outputs."""
    x, y, network = np.ones((1, 3, 1), np.float32), np.zeros((1, 3, 2), np.float32), MLP(8, outputs=2)
    params = network.init(key, (1,), np.float32)
    sides = replace(next(iter(function_space.CASES.values())), network=network).sides()
    sizes = {}
    for side, inner in sides.items():
        form, rates = function_space.form_and_rates(params, inner, None)
        problem = function_space.Problem(network.apply, form, "mean_squares")
        state = function_space.adapted(problem, params, rates, function_space.TaskBatch(x, y, x, y))
        sizes[side] = sum(leaf.size for leaf in jax.tree.leaves(state))
    everything = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert sizes["MAML, 5 steps"] == sizes["MAML, 10 steps"] == everything
    assert sizes["function space, Cosine"] == sizes["ridge-regression head"] == 3 * 8 + 3 * 2
    assert sizes["function space, NTK"] == 3 * 2


def test_the_methods_of_the_course_stand_in_one_table():
    tiny = methods.Sizes(2, 2, 2, held_out=3, runs=1, adapted=2, network=MLP(8, b_std=1.0))
    result = methods.measure(presets=("quick",), sizes={"quick": tiny})
    found = result["by_preset"]["quick"]
    assert found["settings"]["outer_steps"] == 2
    assert found["rows"].keys() == methods.METHODS.keys() | {methods.METANTK}
    for name, row in found["rows"].items():
        assert len(row["test_error"]) == 2
        assert row["interval"]["low"] <= np.mean(row["test_error"]) <= row["interval"]["high"]
        assert row["adapt"]["min_s"] > 0
        assert (row["step"] is None) == (row["training"] is not None) == (name == methods.METANTK)
    numbers = {name: row["numbers"] for name, row in found["rows"].items()}
    assert numbers["MAML"] == numbers["Reptile"] == 2 * 8 + 8 * 8 + 8 + 8 + 1
    assert numbers["ANIL"] == 8 + 1
    assert numbers["ridge-regression head"] == 10 * 8 + 10
    json.dumps(result, allow_nan=False)
    report = methods.report(result)
    assert all(name in report for name in found["rows"])


def test_the_regression_with_the_metantk_is_the_packages(key):
    train, new = (sinusoid(tasks=3, support=4, queries=5, key=key) for key in jax.random.split(key))
    network = MLP(8, b_std=1.0)
    outer = {"outer_steps": np.inf, "outer_ridge": methods.OUTER["ridge"]}
    theirs = metantk_predict(train, new, lambda *x: methods._ntk(network, *x), **methods.LOOP, **outer)
    ours = methods.predicted(network, train, methods.regression(network, train), new)
    np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9)


def test_presets_are_asked_for_by_name(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(_measure, "ROOT", tmp_path)
    asked = []

    def measure(seed, presets=("quick",)):
        asked.append(presets)
        return {"by_preset": {}}

    monkeypatch.setattr(methods, "measure", measure)
    run.main(["methods"])
    run.main(["methods", "--presets", "class", "full"])
    assert asked == [("quick",), ("class", "full")]
    written = json.loads((tmp_path / "build" / "bench" / "bench_methods.json").read_text())
    assert written["command"] == "python -m benchmarks.run methods --presets class full"
    with pytest.raises(SystemExit):
        run.main(["methods", "--presets", "huge"])
    with pytest.raises(SystemExit):
        run.main(["maml", "--presets", "quick"])
    assert "no presets" in capsys.readouterr().err


def test_crossed_draws_take_all_combinations():
    """Eight have two draws of each cause; the next eight share none with them."""
    first, second = (np.array([nas_designs.levels(number) for number in range(at, at + 8)]) for at in (0, 8))
    for eight in (first, second):
        assert len({tuple(each) for each in eight}) == 8
        assert all(len(np.unique(column)) == 2 for column in eight.T)
    assert not set(first.ravel()) & set(second.ravel())


def test_a_crossed_draw_shares_what_it_says(monkeypatch):
    """Weights, head and tasks are the same in two draws just where their levels are."""
    monkeypatch.setattr(nas_designs, "exact", lambda layout, data, keys, every, head: (keys, head))
    drawn = [nas_designs.crossed(None, None, 3, number) for number in range(16)]
    rows = [[jax.random.key_data(key).tolist() for key in (keys[0], head, keys[1])] for keys, head in drawn]
    for a, one in enumerate(rows):
        for b, other in enumerate(rows):
            same = [x == y for x, y in zip(nas_designs.levels(a), nas_designs.levels(b), strict=True)]
            assert [x == y for x, y in zip(one, other, strict=True)] == same
    assert len({str(keys[4]) for keys, _ in drawn}) == 1  # which roles


def test_what_designs_find_is_trained_alike(monkeypatch, tmp_path):
    """Each seed's architecture has its accuracies, on one budget; edges are compared between seeds."""
    texts = iter(nas_found.nas.random_genotypes(nas_found.nas.SPACES["darts_fewshot"], 4, key=jax.random.key(0)))
    asked = []

    def search(settings, dataset, *, out):
        asked.append((settings.design, settings.seed, out.name))
        return types.SimpleNamespace(genotype=next(texts))

    def accuracies(found, dataset, layout, settings, *, seeds, episodes, out):
        classes = len(dataset.classes(next(iter(dataset.splits))))
        assert (layout.norm, layout.ways, layout.channels) == ("batch", classes, nas_found.SIZE["channels"])
        return np.full((len(found), seeds), 0.5)

    monkeypatch.setattr(nas_found.nas, "search", search)
    monkeypatch.setattr(nas_found.nas, "trained_accuracies", accuracies)
    found = nas_found.measure("glyphs", seeds=2, trainings=3, folder=tmp_path)
    assert asked == [(each, seed, f"{each}_{seed}") for each in nas_found.DESIGNS for seed in (0, 1)]
    for row in found["designs"].values():
        assert np.shape(row["accuracy"]) == (2, 3)
        assert len(row["in_common"]) == 1
        assert len(row["genotypes"]) == 2


def test_builds_of_the_search_are_compared_by_their_quickest_calls():
    """A build that needs half of the seconds is twice as fast, candidate by candidate and for a whole search."""

    def process(factor):
        one = {"first_wall_s": 9.0, "first_processor_s": 8.0, "kernel": (factor * np.diag([1.0, 4.0])).tolist()}
        times = {"wall_s": [6 * factor, 4 * factor], "processor_s": [3 * factor, 5 * factor]}
        return {"candidates": {str(count): one | times for count in (7, 3, 1)}, "peak_bytes": 10}

    found = nas_before._compared({before.THEN: [process(2.0)] * 2, before.NOW: [process(1.0)] * 2})
    assert found["candidates"][before.NOW]["7"]["processor_s"] == {"min": 3.0, "median": 4.0}
    assert {tuple(each.items()) for each in found["times_faster"].values()} == {(("wall_s", 2.0), ("processor_s", 2.0))}
    assert found["relative_difference"]["3"] == {"kernel": 0.5, "condition_number": 0.0}
    networks = sum(SearchSettings(Layout()).evaluations)
    assert found["search_s"][before.NOW]["wall_s"] == 4.0 * networks  # as all candidates take equally long
    assert "a whole search" in nas_before.report({"by_channels": {"16": found}})
