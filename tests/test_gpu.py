"""What a GPU would run, as far as one can know without: all of it lowers for CUDA, how often and in how much memory.

Nothing is computed at the paper's sizes: programs are traced on shapes, with the branches that a GPU takes.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace

import _nas_search
import jax
import numpy as np
import pytest

from benchmarks import _gpu_known, _gpu_tools, _measure, gpu, run
from benchmarks._gpu_known import as_on_a_gpu, feature_pass, kernel_pass, network_of, regions_pass, training_step
from mlkernels.datasets import glyphs
from mlkernels.kernels import Kernels
from mlkernels.nas import Layout, SearchSettings, Space, TrainSettings, init
from mlkernels.nas.engine import gram
from mlkernels.nas.engine.devices import mesh_of
from mlkernels.nas.scores.kernel_scores import metantk_kernel
from mlkernels.nas.searching import scorer
from mlkernels.nas.searching.scorer import MOST_AT_ONCE, Item, Scorer, candidate_bytes
from mlkernels.nas.training import train
from mlkernels.tasks import TaskBatch

PAPER = SearchSettings()  # five cells, 48 channels, 32 pixels
COMPUTE = ("float32", "bfloat16")
SMALLEST = SearchSettings(
    Layout(Space("one", ("skip_connect",), 1), cells=2, channels=2, pixels=4, ways=2),
    repeats=1, tasks=1, region_batches=1, region_images=20,
)  # fmt: skip


@pytest.fixture(scope="module")
def first_pass():
    """The kernels and the regions of as many open networks as a GPU takes at once."""
    gates = PAPER.layout.space.open_gates()
    with as_on_a_gpu():
        return kernel_pass(PAPER, gates, MOST_AT_ONCE), regions_pass(PAPER, gates, MOST_AT_ONCE)


@pytest.fixture(scope="module")
def texts(first_pass):
    """The same as CUDA would be given them."""
    return [one.lowered() for one in first_pass]


def functions(text: str) -> Counter:
    """How many functions of each name a lowered text has."""
    return Counter(re.sub(r"_\d+$", "", name) for name in re.findall(r"func\.func private @(\w+)\(", text))


def test_every_program_of_the_search_lowers_for_cuda(first_pass, texts):
    for one, text, blocks in zip(first_pass, texts, (("run_block", "_backward"), ("observe",)), strict=True):
        assert "stablehlo.convolution" in text  # as a GPU has them: on a CPU they are shifted images
        programs = Counter(launch.name for launch in one.programs().values())
        assert {name: functions(text)[name] for name in blocks} == {name: programs[name] for name in blocks}


def test_no_convolution_of_the_search_has_more_groups_than_channels(texts):
    """`vmap` makes a group a sample and channel of a gradient by weights: 46080 at the paper's sizes."""
    channels = max(cell.channels for cell in PAPER.layout.stack)
    groups = [int(number) for number in re.findall(r"_group_count = (\d+)", texts[0])]
    assert max(groups) == channels


def test_a_program_that_does_not_lower_is_found():
    """The test above, of a block that runs what CUDA does not know."""
    only_cpu = jax.extend.core.Primitive("only_cpu")
    only_cpu.def_abstract_eval(lambda x: x)
    jax.interpreters.mlir.register_lowering(only_cpu, lambda context, x: [x], platform="cpu")
    found = _gpu_known.traced(jax.jit(lambda x: only_cpu.bind(x) + 1), jax.ShapeDtypeStruct((2,), np.float32))
    assert "add" in found.lowered("cpu")
    with pytest.raises(NotImplementedError, match="only_cpu"):
        found.lowered()


def test_the_first_pass_compiles_all_that_a_search_runs(first_pass):
    """Whatever has been pruned since: random gates, and an architecture in the end."""
    known = {key for one in first_pass for key in one.programs()}
    space, rng = PAPER.layout.space, np.random.default_rng(0)
    some = space.open_gates() & (rng.random(space.open_gates().shape) < 0.3)
    with as_on_a_gpu():
        for gates in (some, space.gates_of(network_of().genotype)):
            for one in (kernel_pass, regions_pass):
                found = one(PAPER, gates, MOST_AT_ONCE)
                named = {key: each.name for key, each in found.programs().items() if key not in known}
                assert set(named.values()) <= {"nothing"}  # zeros of a node that no edge reaches


def test_the_composite_lowers_for_cuda():
    count = PAPER.tasks * PAPER.layout.ways
    labels = np.zeros((PAPER.tasks, PAPER.layout.ways, PAPER.layout.ways))
    tasks = TaskBatch(labels, labels, labels, labels)
    kernel = jax.ShapeDtypeStruct((2 * count, 2 * count), np.float64)
    with as_on_a_gpu():
        found = _gpu_known.traced(lambda a, b: metantk_kernel(Kernels(a, b), tasks), kernel, kernel)
    assert found.jaxpr.out_avals[0].shape == (count, count)
    assert "f64" in found.lowered()


@pytest.mark.parametrize("compute", COMPUTE)
def test_the_training_step_lowers_for_cuda(compute):
    """The step as `train` calls it, with the optimiser's; its loss and gradients are one program."""
    network, settings = network_of(), TrainSettings(compute_dtype=compute)
    variables = _gpu_known.variables_of(network, np.float32)
    moving = jax.eval_shape(
        lambda blocks: [train._optimiser().init(b) for b in blocks], train._by_block(variables.params)
    )
    data = glyphs.load(classes=12, drawings=1)
    data = replace(data, mean=np.repeat(data.mean, 3), std=np.repeat(data.std, 3))
    with as_on_a_gpu():
        step = train._Run(network, None, settings, mesh_of(1, "batch"), "auto", data, None)._step
        found = _gpu_known.traced(
            lambda state, images, labels, key: step(state, images, labels, key, 0.02, 0.1),
            {"variables": variables, "moving": moving},
            jax.ShapeDtypeStruct((64, 84, 84, 3), np.uint8),
            jax.ShapeDtypeStruct((64,), np.int32),
            jax.eval_shape(lambda: jax.random.key(0)),
        )
        loss = training_step(network, settings)
    text = found.lowered()
    assert "stablehlo.convolution" in text
    assert ("bf16" in text) == (compute == "bfloat16")
    assert [launch.name for launch in found.launches].count("_whole") == 1
    assert {launch.name for launch in loss.launches} - {launch.name for launch in found.launches} <= {
        "_augment", "drop_masks", "convert_element_type",
    }  # fmt: skip
    assert loss.inside < _gpu_known.CARD


@pytest.mark.parametrize("compute", COMPUTE)
def test_the_features_lower_for_cuda(compute):
    with as_on_a_gpu():
        found = feature_pass(network_of(), TrainSettings(compute_dtype=compute))
    text = found.lowered()
    assert "stablehlo.convolution" in text
    assert ("bf16" in text) == (compute == "bfloat16")
    assert found.jaxpr.out_avals[0].shape == (_gpu_known.FEATURES, 576)
    assert found.inside < _gpu_known.CARD


def test_a_gpu_takes_several_candidates_that_fit(first_pass):
    """As many as the scorer takes on 80 GB; what they hold, by shapes, is within what is reckoned."""
    with as_on_a_gpu(), pytest.MonkeyPatch.context() as patch:
        for free, expected in ((_gpu_known.CARD, MOST_AT_ONCE), (5 * candidate_bytes(PAPER), 2)):
            patch.setattr(scorer, "available_bytes", lambda free=free: free)
            assert Scorer(PAPER, _nas_search.synthetic()).batch == expected
    reckoned = MOST_AT_ONCE * candidate_bytes(PAPER)
    assert first_pass[0].held < first_pass[0].inside < reckoned
    assert 2 * reckoned < _gpu_known.CARD


def test_what_is_held_is_what_lies_in_memory(monkeypatch):
    """Of a pass that is run here: its arrays, at their most, are no less than shapes say, and no more than reckoned."""
    settings = _gpu_tools.small().search
    layout, gates = settings.layout, settings.layout.space.open_gates()
    images = np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype(np.float32)
    params, most = init(layout, key=jax.random.key(0)), 0
    before = {id(array): array for array in jax.live_arrays()}
    real = gram.backward

    def watched(*given):
        nonlocal most
        found = real(*given)  # what went in is still held by whoever calls, as what has come out is
        most = max(most, sum(array.nbytes for array in jax.live_arrays() if id(array) not in before))
        return found

    monkeypatch.setattr(gram, "backward", watched)
    gram.sample_kernels(layout, params, gates[None], images[None])
    assert kernel_pass(settings, gates, 1).held <= most
    assert most <= candidate_bytes(settings)


@pytest.fixture
def compilations():
    """The names of what is compiled while the list is asked for."""
    names, listening = [], [True]

    def told(event, seconds, fun_name="", **_):
        if listening and event.endswith("backend_compile_duration"):
            names.append(fun_name)

    jax.monitoring.register_event_duration_secs_listener(told)
    yield names
    listening.clear()


def test_what_is_compiled_ahead_is_not_compiled_again(compilations):
    """On an accelerator all blocks of a search are compiled before its first pass; here, made to do it."""
    settings = SMALLEST
    items, data = [Item(settings.layout.space.open_gates())] * 2, _gpu_tools.data_of("glyphs", little=True)[0]
    first = Scorer(settings, data, at_once=2)
    assert not first.ahead
    with as_on_a_gpu():
        assert Scorer(settings, data, at_once=2).ahead == {"kernels", "regions"}
    first.ahead, after, real = {"kernels", "regions"}, [], scorer.compile_ahead

    def ahead(*given):
        programs = real(*given)
        after.append((programs, len(compilations)))
        return programs

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scorer, "compile_ahead", ahead)
        first.begin(1, 0)
        found = first(items)
    blocks = {"run_block", "_backward", "observe"}
    (kernels, start), (regions, then) = after
    assert kernels + regions == sum(any(name in each for name in blocks) for each in compilations)
    assert not [each for each in compilations[start:then] if "_backward" in each or "run_block" in each]
    assert not [each for each in compilations[then:] if "observe" in each]
    assert not first.ahead
    second = Scorer(settings, data, at_once=2)
    second.begin(1, 0)
    assert second(items) == found


def small_reckoning() -> dict:
    return {"search": _gpu_known.known_of_the_search(SMALLEST, 2)}


def test_without_a_gpu_it_runs_small_and_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(_measure, "ROOT", tmp_path)
    whole, kept = gpu.measure, []

    def measure(seed, keep, **options):
        return whole(
            seed, keep=lambda result: (kept.append(list(result)), keep(result)), reckon=small_reckoning, **options
        )

    monkeypatch.setattr(gpu, "measure", measure)
    run.main(["gpu", "--data", "glyphs", "--limit", "900"])
    result = json.loads((tmp_path / "build" / "bench" / "bench_gpu.json").read_text())
    assert result["command"] == "python -m benchmarks.run gpu --limit 900 --data glyphs"
    assert not result["gpu"]
    assert not [part for part in gpu.PARTS if result[part].keys() & {"failed", "stopped", "left_out"}]
    assert [part for part in gpu.PARTS if any(keys[-1] == part for keys in kept)] == list(gpu.PARTS)  # after each
    assert result["search"]["met"] is None
    assert result["search"]["genotype"].startswith("N: ")
    assert set(result["training"]["by_type"]) == {"float32, auto", "bfloat16, auto"}
    assert result["training"]["epochs"] == 3
    assert {"logistic at 1", "centroid at 5"} <= set(result["evaluation"]["accuracy"])
    assert [each["tflops_of_the_data_sheet"] for each in result["peak"]["by_kind"].values()] == [None] * 3
    out = capsys.readouterr().out
    assert "NO GPU" in out
    assert "in three equal colours" in out


def test_a_part_that_fails_or_finds_no_time_stops_no_other(monkeypatch):
    def fails(run):
        raise ValueError("a fault")

    def slow(run):
        watch = run.watch("slow", 0.0)
        watch(gpu.Progress(3, 9, "round 1"))

    def last(run):
        run.end = 0.0
        return {"done": True}

    parts = {"peak": fails, "search": slow, "training": last, "evaluation": fails, "ways": fails}
    monkeypatch.setattr(gpu, "PARTS", parts)
    result = gpu.measure(data="glyphs", reckon=lambda: fails(None))
    assert result["peak"]["failed"] == result["known_without_a_gpu"]["failed"] == "ValueError: a fault"
    assert result["search"]["stopped"] == "3 of 9 round 1"
    assert result["training"]["done"]
    assert result["evaluation"]["left_out"] == result["ways"]["left_out"] == "no time was left"
    report = gpu.report(result)
    assert "peak: failed: ValueError: a fault" in report
    assert "search: stopped: 3 of 9 round 1" in report


def test_a_search_that_is_stopped_says_how_far_it_came():
    dataset, _ = _gpu_tools.data_of("glyphs", little=True)
    told = _gpu_tools.Run(_gpu_tools.small(), dataset, 0, 0.0, lambda result: None, {"gpu": True})
    found = gpu.search(told)
    assert re.fullmatch(r"1 of 9 round 1 of 1.*", found["stopped"])
    assert found["genotype"] is None
    assert "met" not in found


def test_the_gpu_benchmark_is_run_by_name_alone(capsys):
    for wrong in (["maml", "--limit", "3"], ["--data", "glyphs"], ["gpu", "maml", "--limit", "3"]):
        with pytest.raises(SystemExit):
            run.main(wrong)
        assert "name it alone" in capsys.readouterr().err
    assert "gpu" not in run.NAMES
