"""Internal functions, an example each: what their docstrings once showed. The tests of each room go further."""

from __future__ import annotations

import errno
import math
import os
import re
import tempfile
import threading
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest


def test_commands_options_options_of():
    from mlkernels.commands.options import options_of

    def score(*, way: int = 5, copies: tuple[int, ...] = (0, 1)):
        """Score.

        Args:
            way: classes of an episode.
            copies: of images, if any. At most nine.
        """

    assert [(each.opts, each.help, each.default) for each in options_of(score, "way", "copies=--copy", way=3)] == [
        (["--way"], "Classes of an episode.", 3),
        (["--copy"], "Of images, if any. May be repeated.", (0, 1)),
    ]


def test_commands_options_typedpath():
    from mlkernels.commands.options import TypedPath

    assert str(TypedPath().convert("~/x", None, None)) == os.path.expanduser("~/x")


def test_course_claim_records_claims_of():
    from mlkernels.course.claim_records import claims_of

    assert claims_of({"cells": []}) == []


def test_course_demos_anil_problem_hessian():
    """Written again for the demo, in a form that compiles in half of the time: it is the package's."""
    import numpy as np

    from mlkernels.course.demos import _anil_problem
    from mlkernels.inner_loop.settings import InnerLoop
    from mlkernels.learners import curvature

    params, task = _anil_problem.problem()
    inner = InnerLoop(0.1, 1, loss="mean_squares")
    H = curvature.inner_hessian(_anil_problem.NETWORK.apply, params, task.support_x[0], task.support_y[0], inner)
    np.testing.assert_allclose(_anil_problem.hessian(), H, rtol=1e-9, atol=1e-12)


def test_course_demos_anil_geometry_numbers():
    from mlkernels.course.demos.anil_geometry import numbers

    n = numbers("head", 10, 0.15, 0.1, "refused")
    assert (n.geometry, bool(n.contraction < 1), bool(n.by_w[20] < n.by_w[5] < n.by_w[0])) == (
        "strongly convex",
        True,
        True,
    )


def test_course_demos_cell_editor_numbers():
    from mlkernels.course.demos.cell_editor import EDGES, numbers

    n = numbers(**dict.fromkeys(EDGES, "skip_connect"))
    assert (n.metantk.shape, n.parameters, bool(n.scores[0].value < n.ntk_scores[0].value)) == ((3, 15), 172, True)


def test_course_demos_demo_demo():
    from mlkernels.course import plots
    from mlkernels.course.demos.demo import Demo, Stage, steps

    def stage():
        fig, (ax,) = plots.figure(4, 3, boxes=[(0.15, 0.2, 0.8, 0.7)])
        ax.set(xlim=(0, 1), ylim=(0, 1))
        return Stage(fig, line=ax.plot([], [])[0])

    x = np.linspace(0, 1, 50)
    power = Demo(
        name="power",
        question="Which power bends most?",
        controls=(steps("p", "power p", (1, 2, 4), 2),),
        compute=lambda p: x**p,
        stage=stage,
        move=lambda stage, y: stage["line"].set_data(x, y),
        describe=lambda y: f"A power function, {y[25]:.2f} at one half.",
        twin=({"p": 1}, {}, {"p": 4}),
    )
    assert power.frame(power.build(), p=2).alt == "A power function, 0.26 at one half."


def test_course_demos_derive_metantk_numbers():
    from mlkernels.course.demos.derive_metantk import numbers

    assert numbers(math.inf, 5, 0.01, 0.0, "MAML").phi.shape == (18, 18)


def test_course_demos_maml_linear_rate_numbers():
    from mlkernels.course.demos.maml_linear_rate import numbers

    n = numbers(math.inf, 5, 0.1, 0.9, 1.0, 3)
    assert (n.modes.shape, bool((n.losses <= n.bound + 1e-12).all())) == ((101, 12), True)


def test_course_demos_search_replay_unpack():
    from mlkernels.course.demos.search_replay import unpack

    log, space = unpack()
    assert (log[-1]["short"].startswith("N: "), space.name) == (True, "darts_fewshot")


def test_course_demos_start_here_numbers():
    from mlkernels.course.demos.start_here import numbers

    assert numbers(1, 5, math.inf).loss < 1e-12


def test_course_installation_check_python():
    from mlkernels.course.installation import check_python

    assert not check_python((3, 10, 1)).ok


def test_course_installation_check_packages():
    from mlkernels.course.installation import check_packages

    assert not check_packages(["no-such-package"])[0].ok


def test_course_installation_check_bridge():
    from mlkernels.course.installation import check_bridge

    assert (
        str(check_bridge({"ok": True, "neural_tangents": "0.6.5", "jax": "0.10.2"}))
        == "ok    bridge               neural-tangents 0.6.5 on JAX 0.10.2 works"
    )


def test_course_installation_check_widgets():
    from mlkernels.course.installation import check_widgets

    assert not check_widgets({"base": "2.0.0", "controls": "2.0.0"}, {"base": "^4.1.0", "controls": "^3.1.0"}).ok


def test_course_installation_check_datasets():
    from mlkernels.course.installation import check_datasets

    assert check_datasets(["omniglot"], lambda name: None)[0].value == "not found (optional)"


def test_course_installation_check_memory():
    from mlkernels.course.installation import check_memory

    assert not check_memory(0.2).ok


def test_course_pictures_two_geometries_pencil():
    from mlkernels.course.pictures.two_geometries import convex, nonconvex, pencil

    ends = [pencil(inner)[-1] for inner in (convex(), nonconvex())]
    assert [bool(np.ptp(end, axis=0).max() > 1) for end in ends] == [False, True]


def test_course_plots_drawings_colour_of():
    from mlkernels.course.plots.drawings import colour_of

    assert colour_of("sep_conv_3x3") == colour_of("sep_conv_5x5") != colour_of("7 operations")


def test_course_plots_drawings_draw_cell():
    from mlkernels.course.plots.drawings import draw_cell, figure

    _, ax = figure(6, 3)
    assert sorted(draw_cell(ax, "cell", [(0, 2, "conv_3x3"), (1, 2, "skip_connect")], 1).labels) == [(0, 2), (1, 2)]


def test_course_plots_drawings_places_of():
    from mlkernels.course.plots.drawings import places_of

    assert places_of(1) == {0: (0.0, 1.0), 1: (0.0, -1.0), 2: (2.0, -0.35)}


def test_course_ranges_within():
    from mlkernels.course.ranges import within

    assert (within("seeds", 2, (2, None)), within("rate", 0.1, (0.0, 0.16)), within("data", "a", ["a", "b"])) == (
        2,
        0.1,
        "a",
    )
    with pytest.raises(
        ValueError, match=re.escape("rate: expected a number from 0.0 to 0.16, got inf; choose such a number")
    ):
        within("rate", math.inf, (0.0, 0.16))


def test_course_ranges_ranges_of():
    from mlkernels.course.ranges import ranges_of

    source = 'presets.choose(preset, sizes, ranges={"seeds": (2, None)}, seeds=seeds)'
    assert ranges_of({"cells": [{"cell_type": "code", "source": source, "metadata": {}}]}) == {"seeds": (2, None)}


def test_course_widgets_background_background():
    from mlkernels.course.widgets.background import Background

    seen = []
    run = Background(lambda: range(3), lambda *told: seen.append(told), threading.RLock())
    assert (run.join(10), seen[-1]) == (True, (2, True, None))


def test_datasets_cifar_split_classes():
    from mlkernels.datasets.cifar import split_classes

    assert {split: len(names) for split, names in split_classes("fc100").items()} == {
        "train": 60,
        "val": 20,
        "test": 20,
    }
    assert split_classes("cifar_fs")["val"][:3] == ("beaver", "beetle", "butterfly")


def test_datasets_dataset_pixel_statistics():
    from mlkernels.datasets.dataset import pixel_statistics

    mean, std = pixel_statistics(np.array([0, 255, 7], np.uint8).reshape(3, 1, 1, 1), np.array([0, 1]))
    assert (mean.tolist(), std.tolist()) == ([0.5], [0.5])


def test_datasets_decoding_as_rgb():
    from PIL import Image

    from mlkernels.datasets.decoding import OtherPixels, as_rgb

    assert as_rgb(Image.new("CMYK", (1, 1), (255, 0, 0, 0))).getpixel((0, 0)) == (0, 255, 255)
    with pytest.raises(OtherPixels, match=re.escape("mode F, which does not say what is white")):
        as_rgb(Image.new("F", (1, 1), 0.5))


def test_datasets_equal_pixels_sets_of_equal():
    from dataclasses import replace

    from mlkernels import datasets
    from mlkernels.datasets.equal_pixels import sets_of_equal

    glyphs = datasets.load("glyphs", classes=12, drawings=4)
    assert [rows.tolist() for rows in sets_of_equal(replace(glyphs, images=glyphs.images[[*range(47), 3]]))] == [
        [3, 47]
    ]


def test_datasets_equal_pixels_in_words():
    from mlkernels.datasets.equal_pixels import in_words

    assert (
        in_words({"images": 5, "sets": 2, "sets_of_two_classes": 1, "sets_by_split": {"val": 1, "val and test": 1}})
        == "equal pixels under two names: 5 images in 2 sets (1 in val, 1 in val and test; 1 of two classes)"
    )


def test_datasets_fingerprint_fingerprint():
    from mlkernels import datasets
    from mlkernels.datasets.fingerprint import fingerprint

    glyphs = [datasets.load("glyphs", classes=12, drawings=4, seed=seed) for seed in (0, 0, 1)]
    first, again, other = map(fingerprint, glyphs)
    assert first == again != other


def test_datasets_fingerprint_files():
    from mlkernels.datasets.fingerprint import files

    assert files()["glyphs"] == ""


def test_datasets_importing_reading_is_blue_first():
    from mlkernels.datasets.importing.reading import is_blue_first

    assert is_blue_first([np.array([[[[90, 100, 110]]]], np.uint8)])


def test_datasets_importing_reading_wnid_in():
    from mlkernels.datasets.importing.reading import wnid_in

    assert (wnid_in("images/n0153282900000005.jpg"), wnid_in("n01532829_123.JPEG"), wnid_in("5.jpg")) == (
        "n01532829",
        "n01532829",
        None,
    )


def test_datasets_importing_reading_named_twice():
    from mlkernels.datasets.importing.reading import named_twice

    assert named_twice(["1.jpg", "1.png", "2.jpg", "1.jpg"]) == "1.jpg"
    assert named_twice(["n0153282900000005.jpg", "n0153282900000005.JPEG"]) == "n0153282900000005.JPEG"


def test_datasets_importing_write_source_checksums():
    from mlkernels.datasets.importing.write import source_checksums

    assert source_checksums([]) == {}


def test_datasets_miniimagenet_classes_classes():
    from mlkernels.datasets.miniimagenet.classes import SPELLINGS, classes

    assert classes()["n01532829"] == ("train", "house finch, linnet, Carpodacus mexicanus")
    assert [sum(split == one for split, _ in classes().values()) for one in SPELLINGS] == [64, 16, 20]


def test_datasets_safe_pickle_reader_load():
    import pickle
    import tempfile

    import numpy as np

    from mlkernels.datasets.safe_pickle.reader import load

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.pkl"
        _ = path.write_bytes(pickle.dumps({"data": np.arange(3, dtype=np.uint8)}, protocol=2))
        content = load(path)
        _ = path.write_bytes(b"cos\nsystem\n(S'true'\ntR.")
        assert content["data"].tolist() == [0, 1, 2]
        said = "expected a pickle of arrays and plain containers alone, got one that asks for os.system;"
        with pytest.raises(ValueError, match=re.escape(said)):
            load(path)


def test_inner_loop_descent_gradient_step():
    from mlkernels.inner_loop.descent import gradient_step

    assert gradient_step({"head": jnp.ones(2)}, 0.5, {"head": jnp.ones(2)})["head"].tolist() == [0.5, 0.5]


def test_inner_loop_descent_descend():
    from mlkernels.inner_loop.descent import descend

    assert float(descend(lambda x: x**2 / 2, jnp.asarray(1.0), 0.5, 3)) == 0.125


def test_inner_loop_losses_loss_of():
    from mlkernels.inner_loop.losses import loss_of

    assert float(loss_of("mean_squares", jnp.ones((2, 2)), jnp.zeros((2, 2)))) == 1.0
    assert float(loss_of(lambda f, y: jnp.abs(f - y).sum(), jnp.ones((2, 2)), jnp.zeros((2, 2)))) == 4.0


def test_inner_loop_losses_support_loss():
    from mlkernels.inner_loop.losses import support_loss

    f = support_loss(lambda p, x: x @ p["head"], "half_sum_squares", 0.5, jnp.ones((1, 1)), jnp.ones((1, 1)))
    assert float(f({"head": jnp.full((1, 1), 2.0)}, {})) == 1.5


def test_inner_loop_minimum_solve():
    from mlkernels.inner_loop.minimum import solve

    assert solve(lambda u: 4 * u, jnp.ones(2), "eigh").tolist() == [0.25, 0.25]


def test_inner_loop_minimum_minimum():
    from mlkernels.inner_loop.minimum import minimum

    w = minimum(lambda w: (w["a"] - 3) ** 2, {"a": jnp.zeros(())}, "eigh")
    assert round(float(w["a"]), 5) == 3.0


def test_inner_loop_parts_split():
    from mlkernels.inner_loop.parts import split

    assert split({"body": 1.0, "head": 2.0}, ("head",)) == ({"head": 2.0}, {"body": 1.0})


def test_inner_loop_parts_joined():
    from mlkernels.inner_loop.parts import joined

    assert joined({"head": 2.0}, {"body": 1.0}) == {"body": 1.0, "head": 2.0}


def test_inner_loop_parts_spread():
    from mlkernels.inner_loop.parts import spread

    assert spread({"head": 0.5}, {"head": [jnp.ones(2), jnp.ones(3)]})["head"][1].item() == 0.5


def test_inner_loop_settings_rates_for():
    from mlkernels.inner_loop.settings import InnerLoop, rates_for

    assert float(rates_for({"head": jnp.ones(2)}, InnerLoop(0.5, 1), None)) == 0.5


def test_inner_loop_wide_mlp_network_of():
    from mlkernels.inner_loop.wide_mlp import MLP, network_of
    from mlkernels.tasks import sinusoid

    batch = sinusoid(tasks=2, support=4, queries=3, key=jax.random.key(0))
    networks = MLP(64), MLP(1024)
    params = [network.init(jax.random.key(1), (1,)) for network in networks]
    assert [network_of(n.apply, p, batch, 20) is not None for n, p in zip(networks, params, strict=True)] == [
        False,
        True,
    ]


def test_inner_loop_wide_mlp_split():
    from mlkernels.inner_loop.wide_mlp import MLP, split

    weights, rest = split(MLP(4), MLP(4).init(jax.random.key(0), (2,)))
    assert (weights["layer1"].shape, sorted(rest["head"])) == ((2, 4), ["b"])


def test_kernels_empirical_gram():
    import jax.numpy as jnp

    from mlkernels.kernels.empirical import gram

    assert gram([jnp.ones((2, 1, 3))], [jnp.ones((4, 1, 3))], "sum").shape == (2, 4)


def test_kernels_half_angles_joined():
    from mlkernels.kernels.half_angles import joined

    x = jnp.array([[1.0, 0.0], [1.0, 1.0], [3.0, 3.0]])
    assert bool(jnp.allclose(joined(x, x).cos[0], jnp.array([1.0, 0.5**0.5, 0.5**0.5])))
    assert float(joined(x, x).sin2[1, 2]) < 1e-14


def test_kernels_half_angles_relu():
    from mlkernels.kernels.half_angles import Half, relu

    sin2, slope = relu(Half(jnp.array(0.0), jnp.array(1.0)))
    assert (float(sin2), float(slope)) == (0.0, 0.5)


def test_kernels_neural_tangents_bridge_status():
    from mlkernels.kernels.neural_tangents_bridge import status

    assert status()["ok"]


def test_learners_curvature_lanczos():
    from mlkernels.learners.curvature import LinearOperator, lanczos

    matrix = np.diag([-3.0, 0.0, 1.0, 2.0])
    operator = LinearOperator((4, 4), matvec=lambda v: matrix @ v, dtype=np.float64)
    assert round(lanczos(operator, "LM", 1e-6), 6) == -3.0


def test_learners_meta_gradient_at_once():
    from mlkernels.learners.meta_gradient import at_once
    from mlkernels.networks import MLP, Conv4

    conv = Conv4(8).apply
    assert (at_once(conv, 75, (28, 28, 1)), at_once(conv, 75, (84, 84, 3)), at_once(MLP(8).apply, 75, (6,))) == (
        5,
        1,
        75,
    )


def test_learners_outer_loop_divergence_divergence():
    from mlkernels.learners.outer_loop.divergence import Divergence

    assert Divergence(3, float("nan"), "outer rate", "the outer rate is too large", 8.0, 9.0).step == 3


def test_metantk_composite_within_tasks():
    from mlkernels.metantk.composite import within_tasks

    assert within_tasks(jnp.arange(16.0).reshape(4, 4), 2, 1).tolist() == [[[2.0], [10.0]], [[7.0], [15.0]]]


def test_metantk_composite_task_operators():
    from mlkernels.metantk.composite import task_operators

    assert task_operators(jnp.array([[[1.0], [2.0]]]), inner_rate=0.1, inner_steps=1).tolist() == [[[0.1]]]


def test_metantk_composite_composite():
    from mlkernels.metantk.composite import composite

    theta = jnp.array([[2.0, 1.0], [1.0, 1.0]])
    assert composite(theta, jnp.ones((1, 1, 1))).tolist() == [[1.0]]


def test_nas_engine_batch_norm_batch_norm():
    from mlkernels.nas.engine.batch_norm import batch_norm

    x = jnp.array([1.0, 3.0]).reshape(2, 1, 1, 1)
    _, (mean, variance) = batch_norm(x, jnp.ones(1), jnp.zeros(1), (jnp.zeros(1), jnp.ones(1)), True)
    assert str(f"{mean.item():.2f} {variance.item():.2f}") == "0.20 1.10"


def test_nas_engine_batch_norm_run():
    from mlkernels.nas.engine.batch_norm import Norm, run

    block = (Norm(2, "batch"),)
    params, statistics = ((jnp.ones(2), jnp.zeros(2)),), ((jnp.zeros(2), jnp.ones(2)),)
    assert run(False, block, params, statistics, jnp.ones((1, 1, 1, 2)))[0].round(3).ravel().tolist() == [1.0, 1.0]


def test_nas_engine_gram_bytes_needed():
    from mlkernels.nas.engine.gram import Layout, bytes_needed

    assert 2**28 < bytes_needed(Layout(), 30) < 2**31


def test_nas_engine_graph_plan_of():
    from mlkernels.nas.engine.graph import Add, Genotype, Join, Layout, Run, plan_of

    layout = Layout(cells=2, channels=4, norm="batch")
    text = "N: sk<0 s3<1 | c3<1 mp<2 | c3<0 c3<2 R: sk<0 s3<1 | f5<1 d3<2 | d3<2 d3<3"
    plan = plan_of(layout, Genotype.parse(text))
    assert [sum(isinstance(step, kind) for step in plan) for kind in (Run, Add, Join)] == [21, 6, 2]


def test_nas_engine_devices_sharding_of():
    from mlkernels.nas.engine.devices import sharding_of

    seen = []
    jax.jit(lambda x: seen.append(sharding_of(x)))(jnp.ones(2))
    assert seen == [None]
    assert sharding_of(jnp.ones(2)) == jnp.ones(2).sharding


def test_nas_engine_operations_asked_for():
    from mlkernels.nas.engine.operations import asked_for, forward
    from mlkernels.nas.space.blocks import Relu

    with asked_for() as programs:
        for number in (1, 2, 1):
            forward((Relu(),), (), jnp.ones((number, 2, 2, 1)))
    assert [given[-1].shape[0] for _, given in programs.values()] == [1, 2]


def test_nas_engine_lowering_lowering():
    from mlkernels.nas.engine.lowering import current_lowering, lowering

    with lowering("lax"):
        assert current_lowering() == "lax"


def test_nas_engine_lowering_conv():
    from mlkernels.nas.engine.lowering import Conv, conv

    step = Conv(2, 2, (3, 3), depthwise=True)
    assert conv(step, jnp.ones((3, 3, 2)), jnp.ones((1, 4, 4, 2)))[0, :, :, 0].tolist() == [
        [4.0, 6.0, 6.0, 4.0],
        [6.0, 9.0, 9.0, 6.0],
        [6.0, 9.0, 9.0, 6.0],
        [4.0, 6.0, 6.0, 4.0],
    ]


def test_nas_engine_lowering_sample_gradients():
    from mlkernels.nas.engine.lowering import Conv, sample_gradients

    step, x = Conv(2, 3), jnp.ones((4, 5, 5, 2))
    assert sample_gradients(step, jnp.ones((1, 1, 2, 3)), x, jnp.ones((4, 5, 5, 3))).shape == (4, 1, 1, 2, 3)


def test_nas_engine_lowering_tap_gradients():
    from mlkernels.nas.engine.lowering import Conv, tap_gradients

    step, x = Conv(2, 3, (1, 5)), jnp.ones((4, 5, 5, 2))
    assert [tap.shape for tap in tap_gradients(step, x, jnp.ones((4, 5, 5, 3)))] == 5 * [(4, 2, 3)]


def test_nas_engine_lowering_standardised():
    from mlkernels.nas.engine.lowering import standardised

    y, mean, variance = standardised(jnp.array([1.0, 3.0]).reshape(2, 1, 1, 1))
    assert (y.round(3).ravel().tolist(), mean.item(), variance.item()) == ([-1.0, 1.0], 2.0, 1.0)


def test_nas_engine_network_init():
    from mlkernels.nas.engine.network import Layout, Network, init

    text = "N: sk<0 s3<1 | c3<1 mp<2 | c3<0 c3<2 R: sk<0 s3<1 | f5<1 d3<2 | d3<2 d3<3"
    network = Network(Layout(cells=2, channels=4, pixels=8, norm="batch"), text)
    assert sum(leaf.size for leaf in jax.tree.leaves(init(network, key=jax.random.key(0)).params)) == 7505


def test_nas_engine_network_apply():
    from mlkernels.nas.engine.network import Layout, Network, apply, init

    text = "N: sk<0 mp<1 | sk<1 mp<2 | sk<0 sk<2 R: mp<0 mp<1 | mp<1 sk<2 | sk<2 sk<3"
    network = Network(Layout(cells=2, channels=2, pixels=8, norm="batch"), text)
    assert apply(network, init(network, key=jax.random.key(0)), jnp.ones((3, 8, 8, 3))).shape == (3, 5)


def test_nas_engine_network_features():
    from mlkernels.nas.engine.network import Layout, Network, features, init

    text = "N: sk<0 mp<1 | sk<1 mp<2 | sk<0 sk<2 R: mp<0 mp<1 | mp<1 sk<2 | sk<2 sk<3"
    network = Network(Layout(cells=2, channels=2, pixels=8, norm="batch"), text)
    assert features(network, init(network, key=jax.random.key(0)), jnp.ones((3, 8, 8, 3))).shape == (3, 24)


def test_nas_engine_operations_jitted():
    from mlkernels.nas.engine.operations import jitted

    assert jax.jit(lambda x: jitted(lambda a, b, x: a * x + b, 2, 1)(x))(jnp.ones(())).item() == 3.0


def test_nas_engine_supernet_logits():
    import jax

    from mlkernels.nas.engine.supernet import Layout, logits
    from mlkernels.nas.engine.weights import init

    layout = Layout(channels=2, pixels=8, depth=2)
    params = init(layout, key=jax.random.key(0))
    gates = layout.space.open_gates()
    gates[..., 1:] = False
    assert logits(layout, params, gates, jnp.ones((3, 8, 8, 3))).shape == (3, 5)


def test_nas_evaluation_classifiers_logistic():
    from mlkernels.nas.evaluation.classifiers import Episode, logistic

    x, y = np.eye(2), np.arange(2)
    assert logistic(Episode(x, y, 2 * x, y)).tolist() == [0, 1]


def test_nas_evaluation_classifiers_centroid():
    from mlkernels.nas.evaluation.classifiers import Episode, centroid

    x, y = np.eye(2), np.arange(2)
    assert centroid(Episode(x, y, 2 * x, y)).tolist() == [0, 1]


def test_nas_evaluation_classifiers_class_means():
    from mlkernels.nas.evaluation.classifiers import class_means

    assert class_means(np.array([[1.0], [3.0], [5.0]]), np.array([0, 0, 1])).ravel().tolist() == [2.0, 5.0]


def test_nas_pictures_augment_augment():
    from mlkernels.nas.pictures.augment import augment

    images = np.full((2, 84, 84, 3), 128, np.uint8)
    assert augment(images, key=jax.random.key(0), mean=np.full(3, 0.5), std=np.full(3, 0.25)).shape == (2, 84, 84, 3)


def test_nas_pictures_augment_apply_drawn():
    from mlkernels.nas.pictures.augment import apply_drawn, augment, draw

    images, numbers = np.full((2, 84, 84, 3), 128, np.uint8), {"mean": np.full(3, 0.5), "std": np.full(3, 0.25)}
    drawn = draw(2, key=jax.random.key(0))
    assert bool((apply_drawn(images, drawn, **numbers) == augment(images, key=jax.random.key(0), **numbers)).all())


def test_nas_pictures_augment_draw():
    from mlkernels.nas.pictures.augment import draw

    drawn = draw(1000, key=jax.random.key(0))
    assert (drawn.corners.max().item(), drawn.factors.shape, sorted(drawn.order[0].tolist())) == (
        16,
        (1000, 3),
        [0, 1, 2],
    )


def test_nas_pictures_augment_apply_crop():
    from mlkernels.nas.pictures.augment import apply_crop

    image = jnp.arange(1, 5, dtype=jnp.uint8).reshape(1, 2, 2, 1)
    assert apply_crop(image, jnp.array([[2, 1]]), 1)[0, ..., 0].tolist() == [[3, 4], [0, 0]]


def test_nas_pictures_augment_apply_jitter():
    from mlkernels.nas.pictures.augment import apply_jitter

    grey = jnp.full((1, 2, 2, 3), 0.5)
    assert apply_jitter(grey, jnp.array([[1.5, 1.0, 1.0]]), jnp.array([[0, 1, 2]])).max().item() == 0.75


def test_nas_pictures_augment_apply_flip():
    from mlkernels.nas.pictures.augment import apply_flip

    assert apply_flip(jnp.array([1, 2]).reshape(1, 1, 2, 1), jnp.array([True])).ravel().tolist() == [2, 1]


def test_nas_pictures_augment_normalise():
    from mlkernels.nas.pictures.augment import normalise

    assert normalise(np.full((1, 2, 2, 1), 255, np.uint8), mean=[0.5], std=[0.25]).max().item() == 2.0


def test_nas_pictures_resized_pictures():
    from mlkernels import datasets
    from mlkernels.nas.pictures.resized import Pictures

    pictures = Pictures(datasets.load("glyphs", classes=24, drawings=5), "train", 14)
    assert (pictures[np.array([3, 1])].shape, pictures.classes) == ((2, 14, 14, 1), 15)


def test_nas_pictures_resized_resized():
    from mlkernels.nas.pictures.resized import resized

    assert resized(np.arange(4, dtype=np.uint8).reshape(1, 2, 2, 1), 1).ravel().tolist() == [2]


def test_nas_pictures_search_images_search_patches():
    from mlkernels import datasets
    from mlkernels.nas.pictures.search_images import search_patches

    assert search_patches(datasets.load("glyphs"), key=jax.random.key(0), batches=2, images=50).shape == (
        2,
        50,
        3,
        3,
        1,
    )


def test_nas_pictures_search_images_patches():
    from mlkernels.nas.pictures.search_images import patches

    assert patches(np.ones((5, 32, 32, 3)), np.random.default_rng(0)).shape == (5, 3, 3, 1)


def test_nas_scores_kernel_scores_metantk_kernel():
    from mlkernels.nas.scores.kernel_scores import Kernels, TaskBatch, metantk_kernel

    tasks = TaskBatch(*(jnp.ones((2, 3, 4)) for _ in range(4)))
    assert metantk_kernel(Kernels(jnp.eye(12), jnp.eye(12)), tasks, algorithm="anil").shape == (6, 6)


def test_nas_scores_regions_patterns():
    from mlkernels.nas.scores.regions import Patterns

    patterns = Patterns(3)
    patterns.add(np.array([[True, False], [True, True], [True, False]]))
    assert patterns.count() == 2


def test_nas_scores_regions_linear_regions():
    import jax

    from mlkernels.nas.engine.weights import init
    from mlkernels.nas.scores.regions import Layout, linear_regions

    layout = Layout(channels=1, pixels=3, norm="batch", stem=False, depth=2)
    gates = layout.space.open_gates()
    gates[..., 1:] = False
    images = jax.random.normal(jax.random.key(1), (2, 20, 3, 3, 1))
    assert linear_regions(layout, init(layout, key=jax.random.key(0)), gates, images) <= 40


def test_nas_searching_estimate_flops_of():
    from mlkernels.nas.searching.estimate import SearchSettings, flops_of

    settings = SearchSettings(regions=False)
    assert f"{flops_of(settings, settings.layout.space.open_gates()):.1e}" == "3.9e+11"


def test_nas_searching_ranking_relative_change():
    from mlkernels.nas.searching.ranking import relative_change

    pairs = (4.0, 3.0), (4.0, math.inf), (math.inf, 9.0)
    assert [relative_change(*pair) for pair in pairs] == [0.25, -math.inf, 1.0]


def test_nas_searching_ranking_rank_sums():
    from mlkernels.nas.searching.ranking import rank_sums

    assert rank_sums([[0.2], [0.1]], [[0.5], [-0.5]])[0].tolist() == [1, 1]


def test_nas_searching_ranking_choose():
    from mlkernels.nas.searching.ranking import choose, operations_left
    from mlkernels.nas.space.search_space import SPACES

    space = SPACES["darts_fewshot"]
    gates = space.open_gates()
    candidates = operations_left(gates)
    assert choose(candidates, range(len(candidates)))[:2] == [(0, 0, 0), (0, 1, 0)]


def test_nas_searching_scorer_candidate_bytes():
    from mlkernels.nas.searching.scorer import SearchSettings, candidate_bytes

    assert 2**28 < candidate_bytes(SearchSettings()) < 2**31


def test_nas_searching_scorer_blind():
    from mlkernels.nas.searching.scorer import Kernels, blind

    assert (
        blind(Kernels(np.eye(2), np.eye(2)), 1.0, 2.0),
        blind(Kernels(nngp=np.eye(2), ntk=2 * np.eye(2)), -1.0, 2.0),
    ) == (100000.0, -2.0)


def test_nas_space_blocks_operation():
    from mlkernels.nas.space.blocks import operation

    assert [len(operation(name, 16)) for name in ("skip_connect", "conv_3x3", "sep_conv_3x3")] == [0, 1, 2]


def test_nas_training_train_compiled_as():
    from mlkernels.nas.training.train import compiled_as

    assert compiled_as("whole") == "whole"


def test_runner_execute_config_of():
    from mlkernels.runner.execute import config_of

    assert config_of({"cells": []}) == {}


def test_runner_jobs_package_hash():
    from mlkernels.runner.jobs import package_hash

    assert len(package_hash()) == 64


def test_runner_jobs_fingerprint():
    from mlkernels.runner.jobs import fingerprint

    cell = {"cell_type": "code", "source": "1 + 1", "metadata": {}}
    one = fingerprint({"cells": [cell]}, {"seed": 0})
    assert one != fingerprint({"cells": [cell]}, {"seed": 1})


def test_runner_notebooks_choose_notebooks():
    from mlkernels.runner.notebooks import choose_notebooks

    found = {"00_start": Path("00_start.ipynb"), "01_derive": Path("01_derive.ipynb")}
    assert list(choose_notebooks(found, ["01"])) == ["01_derive"]


def test_runner_pages_without_widgets():
    from mlkernels.runner.pages import WIDGET, without_widgets

    output = {"output_type": "display_data", "data": {WIDGET: {}, "text/plain": "IntSlider()"}, "metadata": {}}
    cell = {"cell_type": "code", "source": "", "metadata": {}, "outputs": [output]}
    assert without_widgets({"cells": [cell], "metadata": {}}, "01")["cells"][0]["outputs"][0]["data"] == {
        "text/html": '<p class="widget-note">Interactive in JupyterLab: <code>mlkernels lab 01</code></p>'
    }


def test_runner_pages_heading():
    from mlkernels.runner.pages import heading

    cell = {"cell_type": "markdown", "source": "# Derive it\n\nFrom *one* task to many. And on."}
    assert heading({"cells": [cell]}) == ("Derive it", "From one task to many.")


def test_runner_parameters_parameters_of():
    from mlkernels.runner.parameters import parameters_of

    source = "width: int | None = None  # units in a layer"
    cell = {"cell_type": "code", "source": source, "metadata": {"tags": ["parameters"]}}
    assert str(parameters_of({"cells": [cell]})["width"]) == "width: int | None = None"


def test_runner_parameters_convert():
    from mlkernels.runner.parameters import Parameter, convert

    assert convert(Parameter("rate", ("float",), ".1"), "inf") == math.inf


def test_runner_report_device_line():
    from mlkernels.runner.report import device_line

    assert (
        device_line({"platform": "cpu", "kind": "cpu", "count": 1, "cores": 2, "x64": True}) == "CPU, 2 cores, float64"
    )


def test_support_arguments_one_of():
    from mlkernels.support.arguments import one_of

    assert one_of("algorithm", "anil", ("maml", "anil")) == "anil"
    with pytest.raises(ValueError, match=re.escape("algorithm: expected maml or anil, got 'sgd'; name one of them")):
        one_of("algorithm", "sgd", ("maml", "anil"))


def test_support_file_faults_kind_of():
    from mlkernels.support.file_faults import kind_of

    assert (kind_of("a.tar.gz"), kind_of("a.npz"), kind_of("a.pickle"), kind_of("a.csv")) == (
        "tar",
        "zip",
        "pickle",
        "any",
    )


def test_support_files_not_written():
    from mlkernels.support.files import not_written

    assert (
        str(not_written(Path("a"), OSError(errno.ENOSPC, "No space left on device")))
        == "a: expected to write it, got No space left on device; make room; what was there before is unchanged"
    )


def test_support_files_is_of_a_place():
    from mlkernels.support.files import is_of_a_place

    assert (is_of_a_place(NotADirectoryError(errno.ENOTDIR, "Not a directory")), is_of_a_place(TimeoutError())) == (
        True,
        False,
    )


def test_support_files_alone():
    from mlkernels.support.files import alone

    with tempfile.TemporaryDirectory() as folder, alone(Path(folder)):
        assert os.listdir(folder) == [".lock"]


def test_support_memory_available_bytes():
    from mlkernels.support.memory import available_bytes

    assert available_bytes() > 0


def test_support_memory_keep_freed():
    import subprocess
    import sys

    code = "from mlkernels.support.memory import keep_freed; print(keep_freed() in (True, False))"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "True\n"


def test_support_progress_progress():
    from mlkernels.support.progress import Progress

    assert str(Progress(3, 8, "epoch 1 of 2", "loss 0.7", 75.0)) == "epoch 1 of 2, 1 min 15 s left; loss 0.7"


def test_support_provenance_version():
    from mlkernels.support.provenance import version

    assert version("no-such-package") == "not installed"


def test_support_provenance_versions():
    from mlkernels.support.provenance import versions

    assert sorted(versions()) == ["jax", "jaxlib", "mlkernels", "neural-tangents", "numpy", "python"]


def test_support_provenance_device():
    from mlkernels.support.provenance import device

    assert device()["cores"] >= 1


def test_support_provenance_here():
    from mlkernels.support.provenance import here, versions

    assert here()["versions"] == versions()


def test_support_strict_json_to_json():
    from mlkernels.support.strict_json import to_json

    assert to_json({"steps": math.inf, "widths": (64, 256)}) == {"steps": "inf", "widths": [64, 256]}


def test_support_strict_json_dumps():
    from mlkernels.support.strict_json import dumps

    assert dumps({"rate": math.inf, "steps": (1, 2)}) == '{"rate": "inf", "steps": [1, 2]}'


def test_support_typed_typed():
    from mlkernels.support.typed import typed

    @typed
    def double(x):
        return 2 * x

    assert double(2) == 4


def test_support_arguments_whole_and_number():
    from mlkernels.support.arguments import number, whole

    assert whole("cells", 5, 2) == 5
    assert repr(number("ridge", 1)) == "1.0"
