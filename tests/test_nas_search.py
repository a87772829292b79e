"""The search: against a plain loop, interrupted and killed, on many devices and in two processes, planted choices."""

from __future__ import annotations

import functools
import json
import math
import os
import random
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from _nas_search import settings, synthetic

from mlkernels.errors import InputError
from mlkernels.nas import CELL_TYPES, Genotype, Layout, SearchSettings, Space, parameter_count, replay, search
from mlkernels.nas.engine.weights import head, init
from mlkernels.nas.pictures.search_images import search_patches, search_tasks
from mlkernels.nas.scores.kernel_scores import metantk_score
from mlkernels.nas.scores.regions import linear_regions, thin
from mlkernels.nas.searching import estimate as estimating
from mlkernels.nas.searching.estimate import estimate, round_flops
from mlkernels.nas.searching.ranking import OLD_RULE, RULE, edges_left, rank_sums, relative_change, without
from mlkernels.nas.searching.scorer import Item, Scorer
from mlkernels.nas.searching.search import rule_of

HERE = Path(__file__).parent
SMALL = {"repeats": 1, "region_images": 30, "tasks": 1}


@functools.cache
def unbroken():
    return search(settings(), synthetic())


def decisions(log):
    """What went, and by which ranks; not the scores, whose last digits depend on the device."""
    return [
        (line["round"], line["cell"], line["node"], line["input"], line["pruned"],
         {name: row["rank_sum"] for name, row in line["scores"].items()})
        for line in log[:-1]
    ]  # fmt: skip


def lines(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]


def test_rounds_prune_to_one_operation_an_edge_and_two_edges_a_node():
    found, space = unbroken(), settings().layout.space
    assert [int(gates.sum()) for gates in found.gates] == [30, 20, 10, 9, 8]
    assert found.genotype == space.genotype_of(found.gates[-1])
    assert len(found.log) == 10 + 10 + 2 + 1
    assert found.log[-1] == {"genotype": repr(found.genotype), "short": str(found.genotype), "rule": RULE}
    assert rule_of(found.log) == RULE
    assert rule_of([*found.log[:-1], {"genotype": "...", "short": "..."}]) == OLD_RULE
    for ours, recorded in zip(replay(found.log, space), found.gates, strict=True):
        assert (ours == recorded).all()
    assert Genotype.parse(found.log[-1]["short"]) == found.genotype
    assert settings().candidates == (30, 20, 3, 3)
    assert settings().evaluations == (62, 42, 8, 8)
    assert SearchSettings().candidates == (126, 108, 90, 72, 54, 36, 3, 4, 3, 4)  # 500 in all


def test_scores_in_the_log_are_those_of_each_network_by_itself():
    """Weights and images by the documented keys, networks one by one, and the rank rule written out again."""
    told, found, data = settings(), unbroken(), synthetic()
    layout, space = told.layout, told.layout.space
    gates, first = space.open_gates(), [line for line in found.log[:-1] if line["round"] == 1]
    condition, regions = {}, {}
    for repeat in range(told.repeats):
        own = jax.random.fold_in(jax.random.fold_in(told.key, 1), repeat)
        weights, small = jax.random.split(jax.random.fold_in(own, 0))
        key, squares = jax.random.split(jax.random.fold_in(jax.random.fold_in(own, 1), 0))
        tasks = search_tasks(data, key=key, pixels=8, way=3, tasks=2, dtype=float)
        shown = search_patches(data, key=squares, images=40)
        params, thin_params = init(layout, key=weights, dtype=float), init(thin(layout), key=small, dtype=float)
        for candidate in [None, *map(tuple, np.argwhere(gates))]:
            left = gates if candidate is None else without(gates, candidate)
            condition[candidate, repeat] = metantk_score(layout, params, left, tasks).value
            regions[candidate, repeat] = linear_regions(thin(layout), thin_params, left, shown)
    for line in first:
        kind, edge = CELL_TYPES.index(line["cell"]), space.edges.index((line["node"], line["input"]))
        assert line["scores"].keys() == set(space.operations)
        for name, row in line["scores"].items():
            one = (kind, edge, space.operations.index(name))
            for repeat in range(told.repeats):
                assert row["condition"]["without"][repeat] == pytest.approx(condition[one, repeat], rel=1e-9)
                assert row["condition"]["with"][repeat] == pytest.approx(condition[None, repeat], rel=1e-9)
                assert row["regions"]["without"][repeat] == regions[one, repeat]
        ranked = {name: row["rank_sum"] for name, row in line["scores"].items()}
        assert ranked[line["pruned"]] == min(ranked.values())


def test_the_same_seed_finds_the_same_and_another_scores_other_networks():
    again = search(settings(), synthetic(), at_once=1)
    assert again.log == unbroken().log
    other = search(settings(seed=2), synthetic())
    assert other.log[0]["scores"] != again.log[0]["scores"]


def test_candidates_in_batches_get_the_same_decisions():
    assert decisions(search(settings(), synthetic(), at_once=7).log) == decisions(unbroken().log)


# --- stopped and killed -----------------------------------------------------------------------------------------------


class Stop(Exception):
    pass


@pytest.mark.parametrize("after", [1, 31, 62, 63, 108, 113, 119])
def test_a_search_that_is_stopped_goes_on_to_the_same_log(after, tmp_path):
    def stop(progress):
        if progress.done == after:
            raise Stop

    with pytest.raises(Stop):
        search(settings(), synthetic(), out=tmp_path, progress=stop)
    seen = []
    found = search(settings(), synthetic(), out=tmp_path, progress=seen.append)
    assert seen[0].done == after + 1
    assert found.log == unbroken().log == tuple(lines(tmp_path))
    assert json.loads((tmp_path / "result.json").read_text())["short"] == str(found.genotype)
    again = search(settings(), synthetic(), out=tmp_path, progress=seen.clear)  # nothing is scored a second time
    assert again.log == found.log


def run(folder, *more, flags="", die="0 never"):
    flags = f"{os.environ.get('XLA_FLAGS', '')} {flags}"
    threads = "32"  # simulated devices wait for each other, each in a thread of a pool as large as the machine
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "NPROC": threads, "DIE": die}
    command = [sys.executable, str(HERE / "_nas_search.py"), str(folder), *map(str, more)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.parametrize("seed", range(2))
def test_a_search_that_is_killed_again_and_again_finds_the_same(seed, tmp_path):
    """Around a save, where the folder is at its worst; a moment counted in saves is the same on every machine."""
    rng = random.Random(seed)
    for _ in range(3):
        process = run(tmp_path, die=f"{rng.randint(1, 3)} {rng.choice(['before', 'after'])}")
        out, _ = process.communicate(timeout=900)
        assert process.returncode == -signal.SIGKILL, out
    process = run(tmp_path)
    out, _ = process.communicate(timeout=900)
    assert process.returncode == 0, out
    assert tuple(lines(tmp_path)) == unbroken().log
    assert {path.name for path in tmp_path.iterdir()} >= {"state.json", "log.jsonl", "result.json"}


def test_a_folder_of_another_search_is_refused(tmp_path):
    told = settings(**SMALL, condition="none")
    search(told, synthetic(), out=tmp_path)
    with pytest.raises(InputError, match=r"expected a search of seed 7, got seed 1; choose another folder"):
        search(settings(**SMALL, condition="none", seed=7), synthetic(), out=tmp_path)
    with pytest.raises(InputError, match="expected a search of data synthetic: 400 images"):
        search(told, synthetic(each=50), out=tmp_path)
    (tmp_path / "state.json").write_text("{}")
    with pytest.raises(InputError, match="the state of a search, got something else; move it away"):
        search(told, synthetic(), out=tmp_path)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """The folder of a search that was stopped after five scores."""

    def stop(progress):
        if progress.done == 5:
            raise Stop

    folder = tmp_path_factory.mktemp("stopped")
    with pytest.raises(Stop):
        search(settings(**SMALL, condition="none"), synthetic(), out=folder, progress=stop)
    return folder


def of_classes(dataset, split, *classes):
    return replace(dataset, splits={split: np.array(classes)})


def swapped(dataset):
    images = np.array(dataset.images)
    images[[7, 8]] = images[[8, 7]]
    return replace(dataset, images=images)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (synthetic(seed=1), "images"),
        (swapped(synthetic()), "images"),
        (of_classes(synthetic(), "train", 0, 1, 2, 3, 4, 5, 7, 6), "images"),
        (of_classes(synthetic(), "background", 0, 1, 2, 3, 4, 5, 6), "data synthetic: 1050 images"),
        (replace(synthetic(), mean=synthetic().mean + 0.01), "mean"),
        (replace(synthetic(), std=synthetic().std + 0.01), "std"),
    ],
)
def test_a_search_does_not_go_on_on_other_images(other, said, stopped):
    before = (stopped / "state.json").read_bytes()
    with pytest.raises(InputError, match=f"expected a search of .*{said}.*, or the same settings and data"):
        search(settings(**SMALL, condition="none"), other, out=stopped)
    assert (stopped / "state.json").read_bytes() == before


@pytest.mark.parametrize("version", [1, 2])
def test_a_search_of_an_older_rule_is_refused_and_kept(version, stopped, tmp_path):
    state = json.loads((stopped / "state.json").read_text())
    old = {name: state[name] for name in ("about", "seconds", "done", "partial")} | {"format": version}
    (tmp_path / "state.json").write_text(json.dumps(old))
    said = r"ranks edges node by node, got one of an older version, which .*ranked all edges in one pool; move it away"
    with pytest.raises(InputError, match=said):
        search(settings(**SMALL, condition="none"), synthetic(), out=tmp_path)
    assert json.loads((tmp_path / "state.json").read_text())["format"] == version


# --- many devices -----------------------------------------------------------------------------------------------------


def test_eight_devices_find_what_one_does(tmp_path):
    process = run(tmp_path, flags="--xla_force_host_platform_device_count=8")
    out, _ = process.communicate(timeout=900)
    assert process.returncode == 0, out
    assert out.splitlines()[-1].startswith("8 devices")
    assert decisions(lines(tmp_path)) == decisions(unbroken().log)
    assert json.loads((tmp_path / "result.json").read_text())["devices"] == 8


def test_two_processes_find_what_one_does(tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    both = [run(tmp_path, port, number) for number in range(2)]
    outs = [process.communicate(timeout=900)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], outs
    assert outs[0].splitlines()[-1] == outs[1].splitlines()[-1]
    assert outs[0].splitlines()[-1].startswith("2 devices")
    assert decisions(lines(tmp_path)) == decisions(unbroken().log)


def test_a_mesh_that_does_not_fit():
    for devices in (0, 2, 1.0, True):
        with pytest.raises(InputError, match="devices: expected a whole number from 1 to 1"):
            search(settings(), synthetic(), devices=devices)


# --- planted choices --------------------------------------------------------------------------------------------------


def planted(seed, operations, nodes, **changes):
    layout = Layout(Space("planted", operations, nodes), cells=3, channels=8, pixels=8, ways=5)
    told = {"repeats": 1, "region_images": 100, "seed": seed} | changes
    genotype = search(SearchSettings(layout, **told), synthetic(seed)).genotype
    return {name for cell in (genotype.normal, genotype.reduce) for node in cell for name, _ in node}


@pytest.mark.parametrize("seed", range(10))
def test_an_operation_that_makes_all_images_alike_goes(seed):
    assert planted(seed, ("ones", "conv_3x3"), 2) == {"conv_3x3"}


@pytest.mark.parametrize("seed", range(10))
def test_an_operation_that_lets_nothing_through_goes(seed):
    """By the regions: the condition number does not miss an edge. Both of them together keep it on some edges."""
    changes = {"condition": "none", "repeats": 5, "region_images": 300}
    assert planted(seed, ("zeros", "sep_conv_3x3"), 1, **changes) == {"sep_conv_3x3"}


# --- choices ----------------------------------------------------------------------------------------------------------


def test_as_the_published_code_does_it():
    told = settings(reference_quirks=True, **SMALL | {"repeats": 2})
    found = search(told, synthetic())
    assert told.evaluations[0] == 2 * 2 * 30
    rows = [row for line in found.log[:-1] if line["round"] == 1 for row in line["scores"].values()]
    assert len({row["condition"]["with"][0] for row in rows}) > 20  # each on images of its own
    scorer = Scorer(told, synthetic())
    stems = []
    for round_, repeat in ((1, 0), (1, 1), (2, 0), (3, 0), (4, 1)):  # the last two are of edges
        scorer.begin(round_, repeat)
        stems.append(np.asarray(scorer.params["stem"][0]))
    same = [[bool((one == other).all()) for other in stems] for one in stems]
    assert same == [[1, 1, 0, 0, 0]] * 2 + [[0, 0, 1, 0, 0]] + [[0, 0, 0, 1, 1]] * 2  # and the weights stay
    closed = Item(told.layout.space.open_gates() & False, 1)
    assert scorer([closed])[0].condition == 1e5


def test_quirks_pair_by_pair_as_the_published_code_scores_them():
    """A round of edges written out: the shared weights, a head each, thin weights a candidate, the stale origin."""
    told, data = settings(reference_quirks=True, **SMALL | {"repeats": 2}), synthetic()
    found, layout = search(told, data), told.layout
    number, start = 4, told.edge_round
    stale, now = found.gates[start - 1], found.gates[number - 1]
    assert (start, stale.sum(), now.sum()) == (3, 10, 9)
    line = next(line for line in found.log if line["round"] == number)
    weights = jax.random.fold_in(jax.random.fold_in(told.key, start), told.repeats)
    params = init(layout, key=jax.random.split(jax.random.fold_in(weights, 0))[0], dtype=float)
    thin_key = jax.random.fold_in(jax.random.fold_in(told.key, number), told.repeats)
    thin_key = jax.random.split(jax.random.fold_in(thin_key, 0))[1]
    for place, candidate in enumerate(edges_left(layout.space, now), start=1):
        row = line["scores"][str(layout.space.edges[candidate[1]][1])]
        small = init(thin(layout), key=jax.random.fold_in(thin_key, place), dtype=float)
        for repeat in range(told.repeats):
            own = jax.random.fold_in(jax.random.fold_in(told.key, number), repeat)
            key, squares = jax.random.split(jax.random.fold_in(jax.random.fold_in(own, 1), place))
            tasks = search_tasks(data, key=key, pixels=8, way=3, tasks=1, dtype=float)
            shown = search_patches(data, key=squares, images=30)
            pair = {"with": (stale, now, 2 * place), "without": (*[without(now, candidate)] * 2, 2 * place + 1)}
            for which, (gates, thin_gates, name) in pair.items():
                one = params | {"head": (head(layout, jax.random.fold_in(jax.random.fold_in(own, 2), name), float),)}
                kappa = metantk_score(layout, one, gates, tasks).value
                assert row["condition"][which][repeat] == pytest.approx(kappa, rel=1e-9)
                assert row["regions"][which][repeat] == linear_regions(thin(layout), small, thin_gates, shown)


def test_a_bad_spectrum_goes_to_the_end_and_is_noted():
    scorer = Scorer(settings(**SMALL), synthetic())
    scorer.begin(1, 0)
    found = scorer([Item(settings().layout.space.open_gates() & False)])[0]
    assert found.condition == math.inf
    assert "worst score" in found.note


def test_other_rankings_leave_a_score_out():
    for changes, kept in (({"condition": "none"}, {"regions"}), ({"regions": False}, {"condition"})):
        found = search(settings(**SMALL, **changes), synthetic())
        row = next(iter(found.log[0]["scores"].values()))
        assert row.keys() == kept | {"rank_sum"}
    plain = search(settings(**SMALL, condition="ntk", regions=False), synthetic()).log[0]["scores"]
    assert plain != found.log[0]["scores"]


@pytest.mark.parametrize("quirks", [False, True])
def test_any_score_of_the_registry_ranks_candidates_and_the_largest_is_the_best(quirks):
    told = settings(**SMALL, condition="parameters", regions=False, reference_quirks=quirks)
    found = search(told, synthetic())
    gates, space = told.layout.space.open_gates(), told.layout.space
    for line in found.log[:10]:
        edge = space.edges.index((line["node"], line["input"]))
        for name, row in line["scores"].items():
            one = (CELL_TYPES.index(line["cell"]), edge, space.operations.index(name))
            full, left = (parameter_count(told.layout, each) for each in (gates, without(gates, one)))
            assert row["condition"]["with"] == [full]
            assert row["condition"]["without"] == [left]
            assert row["condition"]["change"] == [(full - left) / full]
    names = {name for cell in (found.genotype.normal, found.genotype.reduce) for node in cell for name, _ in node}
    assert names == {"conv_3x3"}  # what has parameters stays


def test_a_search_by_a_score_that_may_be_negative_or_worst():
    assert relative_change(-4.0, -5.0) == 0.25
    assert relative_change(-4.0, -5.0, blind=True) == -0.25  # as the published code divides
    told = settings(condition="naswot")
    changes = [(10.0, 8.0), (-4.0, -5.0), (-math.inf, 3.0), (3.0, -math.inf), (-math.inf, -math.inf)]
    found = [told.change("condition")(*pair) for pair in changes]
    assert found == [0.2, 0.25, -1.0, math.inf, 0.0]
    assert rank_sums([[each] for each in found], None, larger=True)[0].tolist() == [2, 3, 0, 4, 1]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"algorithm": "reptile"}, "algorithm: expected maml or anil"),
        ({"condition": "none", "regions": False}, "condition: expected a score to rank by"),
        ({"repeats": 0}, "repeats: expected a whole number of at least 1"),
        ({"inner_time": -1.0}, "inner_time: expected a number of at least 0"),
        ({"inner_time": math.nan}, "inner_time: expected"),
        ({"ridge": math.inf}, "ridge: expected"),
        ({"outputs": "mean"}, "outputs: expected"),
        ({"initialisation": "kaiming_normal_fanout"}, "initialisation: expected uniform or fan_in or fan_out"),
        ({"layout": Layout(norm="batch")}, "layout: expected a whole Layout with group normalisation"),
        ({"seed": -1}, "seed: expected"),
    ],
)
def test_settings_out_of_their_range(changes, said):
    with pytest.raises(InputError, match=said):
        settings(**changes)


def test_too_little_data():
    with pytest.raises(InputError, match="at most 80 in 3 batches"):
        search(settings(), synthetic(each=10))
    with pytest.raises(InputError, match="way"):
        search(settings(regions=False), synthetic(classes=2))


def test_the_estimate_counts_what_will_be_done():
    told = settings()
    cost = estimate(told, synthetic())
    assert cost.evaluations == sum(told.evaluations) == 120
    each = round_flops(told)
    assert each == sorted(each, reverse=True)
    assert cost.flops == pytest.approx(sum(n * f for n, f in zip(told.evaluations, each, strict=True)))
    assert cost.bytes > 0


@pytest.mark.parametrize(("first", "compiling"), [(5.0, 3.0), (1.5, 0.0)])
def test_the_estimate_puts_its_three_calls_together(monkeypatch, first, compiling):
    """Whatever the machine's load: what the first call took beside the second is compiling, and never below 0."""
    calls = iter([first, 2.0, 1.0])
    monkeypatch.setattr(estimating, "_timed", lambda scorer, gates: next(calls))
    told = settings()
    cost = estimate(told, synthetic(), at_once=1)
    each, passes = np.array(round_flops(told)), np.array(told.evaluations)
    full = told.layout.space.open_gates()
    ends = [
        estimating.flops_of(told, gates) for gates in (full, full & (np.arange(full.shape[-1]) == full.shape[-1] - 1))
    ]
    by_call = 1.0 + (each - ends[1]) / (ends[0] - ends[1])
    assert cost.compile_seconds == compiling
    assert cost.seconds == pytest.approx(compiling + (passes * by_call).sum())
