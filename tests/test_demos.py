"""Every demo answers at both ends of every control, with finite numbers, and is pure."""

from __future__ import annotations

import dataclasses
import io
import math
import re

import jax
import numpy as np
import pytest
from _demos import ends_of
from PIL import Image

from mlkernels.course.demos import (
    _function_space_training,
    _maml_training,
    _rkhs_training,
    anil_geometry,
    cell_editor,
    conflicting_tasks,
    derive_metantk,
    few_iterations,
    function_space,
    layer_masks,
    maml_linear_rate,
    memory_floor,
    meta_rkhs,
    poster,
    search_replay,
    start_here,
    step_size,
    two_minima,
)
from mlkernels.course.demos.demo import RunItem
from mlkernels.learners import function_space as adaptation
from mlkernels.learners import maml, outer_weights, rkhs
from mlkernels.networks import MLP
from mlkernels.runner import site_frames

DEMOS = [
    start_here.DEMO,
    derive_metantk.DEMO,
    maml_linear_rate.DEMO,
    cell_editor.DEMO,
    search_replay.DEMO,
    meta_rkhs.DEMO,
    function_space.DEMO,
    conflicting_tasks.DEMO,
    layer_masks.DEMO,
    few_iterations.DEMO,
    two_minima.DEMO,
    step_size.DEMO,
    memory_floor.DEMO,
]
ENDS = [pytest.param(demo, values, id=f"{demo.name}-{i}") for demo in DEMOS for i, values in enumerate(ends_of(demo))]


@pytest.mark.parametrize(("demo", "values"), ENDS)
def test_every_end_of_every_control_gives_finite_numbers_and_an_alt_text(demo, values):
    numbers = demo.compute(**values)
    for field in dataclasses.fields(numbers):
        value = getattr(numbers, field.name)
        if isinstance(value, np.ndarray):
            assert np.isfinite(value).all(), field.name
    assert len(demo.describe(numbers)) > 40


@pytest.mark.parametrize("demo", DEMOS, ids=lambda demo: demo.name)
def test_same_settings_same_picture_on_a_new_and_on_a_used_stage(demo):
    used = demo.build()
    demo.frame(used, **demo.twin[0])
    assert demo.frame(used).png == demo.frame(demo.build()).png


@pytest.mark.parametrize("demo", [*DEMOS, anil_geometry.DEMO], ids=lambda demo: demo.name)
def test_the_pictures_of_the_whole_grid_are_within_the_pages_budget(demo):
    """Else stops go until they are. All pictures of a demo take about as many bytes as that of its defaults."""
    grid, stage = demo.grid, demo.build()
    assert grid.fitting(demo.controls) == grid, "too many pictures"
    frame = demo.frame(stage)
    ground = np.ascontiguousarray(stage.still()[..., :3])
    of_one = len(site_frames.webp(site_frames.moving(frame.png, ground)))
    count = sum(1 for groups in (None, grid.runs) if groups != () for _ in grid.points(demo.controls, groups))
    assert len(site_frames.webp(ground)) + count * of_one < grid.budget, f"{count} pictures of {of_one} bytes"


NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e[+-]?\d+)?")


@pytest.mark.parametrize("demo", [*DEMOS[:4], anil_geometry.DEMO, *DEMOS[5:]], ids=lambda demo: demo.name)
def test_a_poster_is_the_picture_of_today(demo):
    """After a change of a demo: `python -m tools.posters NAME`. Other machines round and draw edges otherwise."""
    old, new = poster.kept(demo), demo.frame(demo.build())
    assert old is not None
    assert old.size == pytest.approx(new.size)
    for before, now in zip(old[1:3], new[1:3], strict=True):
        assert NUMBER.sub("#", before) == NUMBER.sub("#", now)
        assert [*map(float, NUMBER.findall(before))] == pytest.approx([*map(float, NUMBER.findall(now))], rel=0.03)
    pixels = [np.asarray(Image.open(io.BytesIO(frame.png)).convert("RGB"), float) for frame in (old, new)]
    assert pixels[0].shape == pixels[1].shape
    assert np.abs(pixels[0] - pixels[1]).mean() < 2
    assert (np.abs(pixels[0] - pixels[1]).max(-1) > 64).mean() < 0.005


def test_a_poster_of_other_defaults_or_damaged_is_none(tmp_path):
    demo, path = start_here.DEMO, tmp_path / "poster.png"
    poster.keep(demo, path)
    assert poster.kept(demo, path).alt == demo.frame(demo.build()).alt
    assert poster.kept(dataclasses.replace(demo, question="Another?"), path) is None
    control = dataclasses.replace(demo.controls[0], default=demo.controls[0].values[-1])
    assert poster.kept(dataclasses.replace(demo, controls=(control, *demo.controls[1:])), path) is None
    path.write_bytes(path.read_bytes()[:-2000])
    assert poster.kept(demo, path) is None
    Image.new("RGB", (4, 4)).save(path)
    assert poster.kept(demo, path) is None
    path.unlink()
    assert poster.kept(demo, path) is None


def test_an_inner_rate_that_diverges_is_refused():
    from mlkernels.errors import InputError

    with pytest.raises(InputError, match="below 2 / lambda_max"):
        derive_metantk.numbers(64, 10, 1.0, 0.0, "MAML")


@pytest.mark.parametrize("inner_steps", start_here.STEPS)
def test_the_marker_of_notebook_00_is_on_the_axes_and_points_down_where_the_loss_is_below(inner_steps):
    demo = start_here.DEMO
    stage, n = demo.build(), demo.compute(**demo.settings(inner_steps=inner_steps))
    demo.move(stage, n)
    axes = stage["now"].axes
    least, most = np.transpose([axes.get_xlim(), axes.get_ylim()])
    marks = {name: np.ravel(stage[name].get_data()) for name in ("now", "below")}
    ((name, point),) = [(name, at) for name, at in marks.items() if ((least <= at) & (at < most)).all()]
    assert (name == "below") == (n.loss < start_here.LEAST) == ("below the axis" in demo.readout(n))
    if math.isinf(inner_steps):
        assert (name, point[0]) == ("below", start_here.HORIZON[-1]), "at the end of the line"
    else:
        assert point[0] == inner_steps


LINEAR = maml_linear_rate.DEMO


def test_a_run_is_full_batch_maml_of_the_centred_network():
    network, start, batch = _maml_training.network(16), _maml_training.start(16, 6), maml_linear_rate.problem()[:2]
    settings = {"tasks": 2, "inner_steps": 3, "inner_rate": 0.1, "outer_rate": 0.2, "outer_steps": 4}
    *_, losses = _maml_training.losses(network, start, batch, **settings, most_inner_steps=20)

    def centred(params, x):
        return network.apply(params, x) - network.apply(start, x)

    params, expected = start, []
    for _ in range(5):
        loss, gradient = maml.meta_gradient(centred, params, batch, maml.InnerLoop(0.1, 3))
        expected.append(float(loss))
        params = jax.tree.map(lambda p, g: p - 0.2 * g, params, gradient)
    np.testing.assert_allclose(losses, expected, rtol=1e-9)


def test_the_prediction_forgets_the_scale_of_the_labels_and_the_bound_holds_below_its_rate():
    small, large = (LINEAR.compute(**LINEAR.settings(label_scale=scale)) for scale in (0.1, 10.0))
    np.testing.assert_allclose(small.losses, large.losses, rtol=1e-9, atol=1e-300)
    assert (small.losses <= small.bound * (1 + 1e-12)).all()
    assert LINEAR.compute(**LINEAR.settings(outer_rate=1.2)).diverging == 1


@pytest.mark.parametrize("scale", maml_linear_rate.LABELS)
def test_the_scale_of_the_labels_moves_the_loss_at_the_start_of_prediction_and_run(scale):
    settings = LINEAR.settings(width=16, inner_steps=2, tasks=2, label_scale=scale)
    n, one = LINEAR.compute(**settings), LINEAR.compute(**settings | {"label_scale": 1.0})
    assert n.start == pytest.approx(scale**2 * one.start, rel=1e-9)
    assert f"loss {n.start:.2g} at t = 0" in LINEAR.readout(n)
    network, start, batch = _maml_training.network(16), _maml_training.start(16, 6), maml_linear_rate.problem()[:2]
    assert np.abs(batch.query_y).max() == 1
    batch = dataclasses.replace(batch, support_y=scale * batch.support_y, query_y=scale * batch.query_y)
    loss = maml.meta_loss(
        lambda params, x: network.apply(params, x) - network.apply(start, x), start, batch, maml.InnerLoop(0.1, 2)
    )
    run = LINEAR.run(**settings)
    first = next(item for item in run if len(item.data))
    assert first.data[0] == pytest.approx(float(loss) / n.start, rel=1e-9)
    run.close()


def test_a_run_follows_the_prediction_where_labels_are_small_and_its_parts_do_not_matter():
    settings = LINEAR.settings(width=64, label_scale=0.1)
    items = list(LINEAR.run(**settings))
    assert items[0].done == 0
    assert "compiling" in items[0].text
    assert items[-1].done == 1
    losses, predicted = items[-1].data, LINEAR.compute(**settings).losses
    assert len(losses) == maml_linear_rate.OUTER + 1
    assert (np.diff(losses[:40]) < 0).all()
    early = predicted > 1e-2  # then width 64 shows
    np.testing.assert_allclose(losses[early], predicted[early], rtol=0.1)
    for item in items:
        np.testing.assert_array_equal(item.data, losses[: len(item.data)])  # the pace changes no number
    np.testing.assert_array_equal(LINEAR.finished(**settings).data, losses)


def test_a_run_left_in_the_middle_leaves_nothing_behind():
    run = LINEAR.run(**LINEAR.settings(width=16))
    assert next(run).done == next(run).done == 0
    run.close()
    assert LINEAR.finished(width=16).done == 1


def test_a_run_that_diverges_says_at_which_step():
    last = LINEAR.finished(width=16, outer_rate=1.2, inner_steps=0, label_scale=10.0)
    assert last.failed
    assert last.text == f"diverged at step {len(last.data)}"
    assert np.isfinite(last.data).all()


def test_a_run_over_the_prediction_goes_without_a_trace():
    used = LINEAR.build()
    before = LINEAR.frame(used)
    with_run = LINEAR.frame(used, RunItem(0.5, "half", np.geomspace(1, 1e-5, 50)))
    assert with_run.png != before.png
    assert with_run.alt == before.alt + " Run: half."
    assert LINEAR.frame(used).png == before.png


def test_infinite_width_says_what_stands_for_it():
    assert "width 1024 stands for" in next(LINEAR.run(**LINEAR.settings(width=math.inf))).text


def _small(network, width):
    """A network of the demo of notebook 05 without its dead units: the MLP and its parameters."""
    params = jax.tree.map(lambda leaf: leaf[tuple(slice(1 if n == 1 else width) for n in leaf.shape)], network.params)
    return MLP(width, b_std=1.0).apply, params


@pytest.mark.parametrize("values", [{}, {"points": 5, "ridge": 0.1, "time": math.inf, "width": 20}])
def test_the_curve_of_meta_rkhs_ii_is_its_predictor_and_that_of_maml_its_inner_loop(values):
    settings = meta_rkhs.DEMO.settings(**values)
    n, points, width = meta_rkhs.numbers(**settings), settings["points"], settings["width"]
    x, y = (part[:points] for part in _rkhs_training.support())
    network = _rkhs_training.trained("Meta-RKHS-II", width)
    apply, params = _small(network, width)
    np.testing.assert_allclose(network(x), apply(params, x), rtol=1e-10)
    say = rkhs.predictor(apply, params, x, y, rkhs.ClosedForm(settings["time"], settings["ridge"]))
    np.testing.assert_allclose(n.after[2], say(_rkhs_training.GRID)[:, 0], rtol=1e-6, atol=1e-6)
    for row, method in enumerate(("MAML", "Meta-RKHS-I")):
        alpha = settings["alpha"] if row else 0.0
        apply, params = _small(_rkhs_training.trained(method, width, alpha), width)
        rate, count = _rkhs_training.TUNED[method]
        theta = maml.adapt(apply, params, x, y, maml.InnerLoop(rate, count, loss="mean_squares"))
        np.testing.assert_allclose(n.after[row], apply(theta, _rkhs_training.GRID)[:, 0], rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(n.before[row], apply(params, _rkhs_training.GRID)[:, 0], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("time", [0.1, 10.0, math.inf])
@pytest.mark.parametrize("ridge", [0.0, 0.1])
def test_the_learned_shares_are_those_of_the_flow_operator(time, ridge):
    _, ntk = _rkhs_training.kernel(40)
    H = ntk[meta_rkhs.GRID :][:10, :10]
    learned = np.linalg.eigvals(H @ rkhs.flow_operator(H + ridge * np.eye(10), time))
    n = meta_rkhs.numbers(**meta_rkhs.DEMO.settings(time=time, ridge=ridge))
    np.testing.assert_allclose(np.sort(learned.real), np.sort(n.learned), atol=1e-8)


def test_networks_of_all_widths_train_as_parts_of_the_widest():
    """The dead units stay dead, and the living ones do as in the small network."""
    network = _rkhs_training.trained("MAML", 20)
    alive = sum(leaf.size for leaf in jax.tree.leaves(_small(network, 20)[1]))
    assert sum((np.asarray(leaf) != 0).sum() for leaf in jax.tree.leaves(network.params)) == alive
    begun, batch = _rkhs_training.start(20), _rkhs_training.problem().batch
    inner = _rkhs_training.TRAINED["MAML"]
    apply, params = _small(begun, 20)
    expected = maml.meta_gradient(apply, params, batch, inner)[1]
    found = maml.meta_gradient(jax.tree_util.Partial(begun.apply), begun.params, batch, inner)[1]
    for a, b in zip(
        jax.tree.leaves(expected), jax.tree.leaves(_small(begun._replace(params=found), 20)[1]), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-8)


def test_every_method_learns_from_ten_points():
    errors = meta_rkhs.numbers(**meta_rkhs.DEMO.settings()).errors
    assert (errors[:, 1] < [0.1 * errors[0, 0], 0.7 * errors[1, 0], 0.1 * errors[2, 0]]).all()


@pytest.mark.parametrize("kernel", function_space.KERNELS)
@pytest.mark.parametrize("values", [{}, {"points": 2, "gamma": 1.0, "scale": 4.0}, {"points": 20, "gamma": 0.001}])
def test_the_curve_and_the_bars_of_function_space_are_those_of_the_package(kernel, values):
    settings = function_space.DEMO.settings(kernel=kernel, **values)
    n, points = function_space.numbers(**settings), settings.pop("points")
    apply, (params, _) = _function_space_training.NETWORK.apply, _function_space_training.trained()
    x, y = (part[:points] for part in _function_space_training.support())
    inner = function_space.settings(**settings)
    say = adaptation.predictor(apply, params, x, y, inner)
    np.testing.assert_allclose(n.after, say(_function_space_training.GRID)[:, 0], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(n.before, apply(params, _function_space_training.GRID)[:, 0], rtol=1e-9, atol=1e-9)
    missed = np.asarray(adaptation.leave_one_out(apply, params, x, y, inner))[:, 0]
    np.testing.assert_allclose(y[:, 0] - n.held_out, missed, rtol=1e-6, atol=1e-6)
    assert n.missed == pytest.approx(np.sqrt((missed**2).mean()), rel=1e-6)
    truth = _function_space_training.truth()
    assert n.errors == pytest.approx([np.sqrt(((f - truth) ** 2).mean()) for f in (n.before, n.after)])


@pytest.mark.parametrize("kernel", function_space.KERNELS)
def test_the_errors_against_gamma_are_those_of_their_gammas_and_all_kernels_are_of_one_size(kernel):
    n = function_space.numbers(**function_space.DEMO.settings(kernel=kernel))
    for at in (0, 50, -1):
        there = function_space.numbers(kernel, 1.0, function_space.CURVE[at], 10)
        assert n.by_gamma[:, at] == pytest.approx([there.missed, there.errors[1]], rel=1e-9)
    inner = function_space.settings(kernel, 1.0, 1.0)
    network, (params, learned) = _function_space_training.NETWORK, _function_space_training.trained()
    x = jax.numpy.asarray(_function_space_training.GRID)
    features = x if inner.features == "inputs" else network.features(params, x)[network.layers[-2]]
    points = adaptation.kernel.Points(x, features)
    gram = inner.kernel.gram(inner.kernel.numbers, network.apply, params, points)
    assert np.diag(gram).mean() == pytest.approx(learned.kernel.amplitude**2, rel=1e-6)


def test_the_leave_one_out_error_chooses_well_with_ten_points_and_not_with_two():
    ten, two = (function_space.numbers(**function_space.DEMO.settings(points=points)) for points in (10, 2))
    assert ten.errors[1] < 0.25 * ten.errors[0]
    chosen = ten.by_gamma[1][ten.by_gamma[0].argmin()]
    assert chosen < 1.3 * ten.by_gamma[1].min()
    assert two.best[0] == function_space.CURVE[-1]
    assert "least at the largest γ" in function_space.DEMO.readout(two)


@pytest.mark.parametrize("values", [{}, {"angle": 0, "smaller": 1}, {"angle": 135, "temperature": 0.01, "ratio": 4.0}])
def test_the_weights_of_conflicting_tasks_are_those_of_the_rules(values):
    settings = conflicting_tasks.DEMO.settings(**values)
    n = conflicting_tasks.numbers(**settings)
    soft = outer_weights.SoftmaxCosine(settings["temperature"])
    rules = (outer_weights.Uniform(), soft, outer_weights.InverseLoss(), outer_weights.MinNorm())
    losses = (n.gradients**2).sum(1) / 2
    for i, rule in enumerate(rules):
        assert type(rule).__name__ == conflicting_tasks.RULES[i]
        w, d = outer_weights.combine(rule, *map(jax.numpy.asarray, (losses, n.gradients)))
        np.testing.assert_allclose(n.weights[i], w, rtol=1e-8, atol=1e-10)
        np.testing.assert_allclose(n.directions[i], d, rtol=1e-8, atol=1e-10)
        step = 1e-6 * n.directions[i]  # after it, a task's gradient is g - step and its loss half the square of that
        falls = (((n.gradients - step) ** 2).sum(1) / 2 < losses).all()
        assert n.fates[i] == ("all losses fall" if falls else "a loss rises")


def test_min_norm_raises_no_loss_at_any_stop_and_the_mean_does_where_groups_oppose():
    for angle in conflicting_tasks.ANGLES:
        n = conflicting_tasks.numbers(**conflicting_tasks.DEMO.settings(angle=angle))
        assert n.fates[3] == ("d = 0" if n.still[3] else "all losses fall")
        assert n.fates[0] == ("a loss rises" if angle >= 105 else "all losses fall")
    opposed = conflicting_tasks.numbers(**conflicting_tasks.DEMO.settings(angle=180))
    assert opposed.still.tolist() == [False, False, False, True]
    lower, higher = (conflicting_tasks.numbers(120, T, 2, 1.0).minority[1] for T in (0.1, 10.0))
    assert lower < 0.01 < 0.2 < higher
