"""Tasks of teacher networks: the distribution they are drawn from, the data set that a split is, batch norm."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from _refused import assert_refused

from mlkernels import tasks
from mlkernels.errors import InputError
from mlkernels.networks import MLP

SMALL = {"tasks": 3, "support": 5, "queries": 10, "points": 40, "population": 6, "width": 4, "depth": 2}


def drawn(**change):
    return tasks.teacher_networks_with_parameters(**{**SMALL, "key": jax.random.key(0), **change})


def stacked(tree):
    """All parameters in a row, `[B, parameters]`, and which of them are the head's."""
    leaves = {name: [np.asarray(leaf).reshape(leaf.shape[0], -1) for leaf in tree[name].values()] for name in tree}
    head = np.concatenate([np.full(leaf.shape[1], name == "head") for name in tree for leaf in leaves[name]])
    return np.concatenate([leaf for name in tree for leaf in leaves[name]], 1), head


def by_hand(params, x, points=None):
    """The teacher as it is written: batch norm in each layer, its statistics those of the points."""
    h, seen = x, points
    for name in sorted(params)[1:]:
        w, b = (np.asarray(params[name][part]) for part in "wb")
        z = h @ w + b
        if points is not None:
            at = seen @ w + b
            mean, std = at.mean(0), np.sqrt(((at - at.mean(0)) ** 2).mean(0) + 1e-5)
            z, seen = (z - mean) / std, np.maximum((at - mean) / std, 0)
        h = np.maximum(z, 0)
    return h @ np.asarray(params["head"]["w"]) + np.asarray(params["head"]["b"])


# --- the distribution -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spread_is", ["variance", "deviation"])
def test_teachers_lie_around_the_centre_as_far_as_the_spread_says(spread_is):
    truth = drawn(tasks=500, population=None, spread=4.0, head_spread=0.25, spread_is=spread_is)
    own, head = stacked(truth.params)
    (centre,), _ = stacked(jax.tree.map(lambda leaf: leaf[None], truth.centre))
    away = own - centre
    expected = {"variance": (2.0, 0.5), "deviation": (4.0, 0.25)}[spread_is]
    for part, std in zip((away[:, ~head], away[:, head]), expected, strict=True):
        tolerance = 5 * std / math.sqrt(part.size)
        assert abs(part.mean()) < tolerance
        assert abs(part.std() - std) < tolerance
    # parameters are independent of each other, and the teachers too
    correlation = np.corrcoef(away.T)
    assert np.abs(correlation - np.eye(len(correlation))).max() < 6 / math.sqrt(500)
    assert abs(np.corrcoef(away[:-1].ravel(), away[1:].ravel())[0, 1]) < 5 / math.sqrt(away.size)


def test_the_centre_is_standard_normal_and_each_splits_own():
    found = [drawn(split=split, width=20, depth=3) for split in ("train", "val", "test")]
    centres = [stacked(jax.tree.map(lambda leaf: leaf[None], truth.centre))[0][0] for truth in found]
    size = 20 + 2 * 400 + 20 + 3 * 20 + 1
    for i, centre in enumerate(centres):
        assert centre.shape == (size,)
        assert abs(centre.mean()) < 5 / math.sqrt(size)
        assert abs(centre.std() - 1) < 5 / math.sqrt(size)
        for other in centres[:i]:
            assert abs(np.corrcoef(centre, other)[0, 1]) < 5 / math.sqrt(size)
    points = [np.asarray(truth.points) for truth in found]
    assert np.abs(points[0] - points[1]).max() > 0.1
    other = drawn(teacher_key=jax.random.key(1), width=20, depth=3)
    assert np.abs(other.centre["head"]["w"] - found[0].centre["head"]["w"]).max() > 0.1


def test_without_spread_all_tasks_are_the_centre():
    truth = drawn(spread=0.0, head_spread=0.0, noise=0.0, batch_norm=False)
    for leaf, centre in zip(jax.tree.leaves(truth.params), jax.tree.leaves(truth.centre), strict=True):
        np.testing.assert_array_equal(leaf, np.broadcast_to(centre, leaf.shape))
    expected = by_hand(truth.centre, np.asarray(truth.batch.query_x))
    np.testing.assert_allclose(truth.batch.query_y, expected, rtol=1e-10, atol=1e-12)
    nearer = drawn(spread=1e-16, head_spread=1e-16)  # the smallest of the published grid: deviations of 1e-8
    assert 1e-10 < np.abs(stacked(nearer.params)[0].std(0)).max() < 1e-7


def test_noise_is_on_the_labels_alone():
    sizes = {"tasks": 6, "support": 20, "queries": 20}
    clean, noisy = drawn(**sizes, noise=0.0), drawn(**sizes, noise=0.5)
    np.testing.assert_array_equal(clean.batch.support_x, noisy.batch.support_x)
    x = jnp.concatenate([clean.batch.support_x, clean.batch.query_x], 1)
    y, labels = (jnp.concatenate([truth.batch.support_y, truth.batch.query_y], 1) for truth in (clean, noisy))
    np.testing.assert_allclose(clean.value(x), y, rtol=1e-9, atol=1e-11)
    away = np.asarray(labels - y)
    assert abs(away.std() - 0.5) < 5 * 0.5 / math.sqrt(2 * away.size)
    at = np.argsort(np.asarray(x[..., 0]))  # each teacher has its own
    sorted_away = np.take_along_axis(away[..., 0], at, 1)
    assert np.abs(np.corrcoef(sorted_away)[~np.eye(6, dtype=bool)]).max() < 5 / math.sqrt(40)


# --- a split is a data set --------------------------------------------------------------------------------------------


def test_the_published_sizes_are_the_defaults():
    truth = tasks.teacher_networks_with_parameters(tasks=2, support=5, queries=100, key=jax.random.key(0))
    assert (truth.batch.support_x.shape, truth.batch.query_y.shape) == ((2, 5, 1), (2, 100, 1))
    assert truth.network == MLP(15, 3, parametrization="standard")
    assert jax.tree.map(jnp.shape, truth.centre) == {
        "head": {"b": (1,), "w": (15, 1)},
        "layer1": {"b": (15,), "w": (1, 15)},
        "layer2": {"b": (15,), "w": (15, 15)},
        "layer3": {"b": (15,), "w": (15, 15)},
    }
    assert truth.points.shape == (1000, 1)
    assert np.abs(truth.points).max() <= 1
    assert abs(truth.points.mean()) < 5 / math.sqrt(3000)
    assert abs(np.var(truth.points) - 1 / 3) < 0.05
    assert max(truth.teacher) < 200


def test_keys_choose_and_the_splits_key_makes():
    one, again, other = drawn(), drawn(), drawn(key=jax.random.key(1))
    for leaf, same in zip(jax.tree.leaves(one), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(leaf, same)
    np.testing.assert_array_equal(one.points, other.points)
    np.testing.assert_array_equal(one.centre["layer1"]["w"], other.centre["layer1"]["w"])
    assert not np.array_equal(one.batch.query_x, other.batch.query_x)
    # the same teacher, wherever it turns up, has the same parameters; the same point the same label, noise and all
    labels, seen = {}, 0
    for seed in range(4):
        truth = drawn(key=jax.random.key(seed))
        assert len(set(truth.teacher.tolist())) == 3
        weights = np.asarray(truth.params["layer1"]["w"])
        for i, teacher in enumerate(truth.teacher.tolist()):
            x = np.concatenate([truth.batch.support_x[i], truth.batch.query_x[i]]).ravel()
            y = np.concatenate([truth.batch.support_y[i], truth.batch.query_y[i]]).ravel()
            assert len(set(x)) == 15  # support and queries are different points
            assert np.isin(x, truth.points).all()
            for point, label in zip(x, y, strict=True):
                known, weight = labels.setdefault((teacher, point), (label, weights[i]))
                np.testing.assert_allclose(label, known, rtol=1e-9, atol=1e-11)
                np.testing.assert_array_equal(weights[i], weight)
                seen += 1
    assert len({teacher for teacher, _ in labels}) > 3
    assert len(labels) < seen  # some came twice


def test_all_of_a_population_and_teachers_without_end():
    assert sorted(drawn(tasks=6).teacher.tolist()) == list(range(6))
    first, second = (drawn(tasks=50, population=None, key=jax.random.key(i)) for i in range(2))
    assert len({*first.teacher.tolist(), *second.teacher.tolist()}) == 100
    np.testing.assert_array_equal(first.centre["head"]["w"], drawn().centre["head"]["w"])


def test_every_point_comes_up():
    everything = drawn(tasks=1, support=20, queries=20).batch
    np.testing.assert_array_equal(
        np.sort(np.concatenate([everything.support_x[0], everything.query_x[0]]), 0), np.sort(drawn().points, 0)
    )


def test_it_can_be_traced_and_the_batch_is_the_truths():
    batch = jax.jit(lambda key: tasks.teacher_networks(**SMALL, key=key, dtype=jnp.float32))(jax.random.key(0))
    expected = drawn(dtype=jnp.float32).batch
    assert isinstance(batch, tasks.TaskBatch)
    assert batch.query_y.dtype == jnp.float32
    np.testing.assert_allclose(batch.query_y, expected.query_y, rtol=1e-4, atol=1e-4)


# --- batch norm -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_norm", [False, True])
def test_a_teacher_is_what_is_written(batch_norm):
    truth = drawn(noise=0.0, batch_norm=batch_norm)
    points = np.asarray(truth.points)
    for i in range(3):
        params = jax.tree.map(lambda leaf, i=i: leaf[i], truth.params)
        for x in (points, np.linspace(-2, 2, 7)[:, None]):
            expected = by_hand(params, x, points if batch_norm else None)
            np.testing.assert_allclose(truth.value(jnp.asarray(x))[i], expected, rtol=1e-8, atol=1e-10)
    assert truth.value(truth.batch.query_x).shape == (3, 10, 1)


def test_normalised_units_have_mean_zero_and_variance_one_over_the_points():
    truth = drawn()
    for i in range(3):
        plain = jax.tree.map(lambda leaf, i=i: leaf[i], truth.plain)
        h = truth.points
        for name in ("layer1", "layer2"):
            z = h @ plain[name]["w"] + plain[name]["b"][None]
            np.testing.assert_allclose(z.mean(0), 0.0, atol=1e-10)
            raw = jax.tree.map(lambda leaf, i=i: leaf[i], truth.params[name])
            variance = np.var(h @ raw["w"] + raw["b"][None], 0)
            np.testing.assert_allclose(z.var(0), variance / (variance + 1e-5), rtol=1e-8)
            h = jax.nn.relu(z)
        np.testing.assert_array_equal(plain["head"]["w"], truth.params["head"]["w"][i])


def test_batch_norm_does_not_see_biases_and_scales_below_it():
    truth = drawn(noise=0.0)
    params = jax.tree.map(lambda leaf: leaf[0], truth.params)
    changed = {name: {"b": layer["b"] + 7.0, "w": layer["w"] * 300.0} for name, layer in params.items()}
    changed["head"] = params["head"]
    x = jnp.linspace(-1, 1, 9)[:, None]
    apply = truth.network.apply
    one, other = (apply(tasks.batch_normalised(each, truth.points), x) for each in (params, changed))
    np.testing.assert_allclose(one, other, rtol=1e-2, atol=1e-3)  # but for the 1e-5 beside the variance
    assert np.abs(apply(params, x) - apply(changed, x)).max() > 100


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"tasks": 0}, "tasks: expected a whole number of at least 1"),
        ({"tasks": 7}, "tasks: expected at most population = 6, got 7"),
        ({"population": 0}, "population: expected a whole number of at least 1"),
        ({"support": 31}, r"support \+ queries: expected at most points = 40, got 31 \+ 10"),
        ({"depth": 0}, "depth"),
        ({"spread": -1.0}, "spread: expected a finite number of at least 0"),
        ({"head_spread": math.nan}, "head_spread: expected a finite number"),
        ({"spread_is": "std"}, "spread_is: expected variance or deviation, got 'std'"),
        ({"split": "valid"}, "split: expected train or val or test, got 'valid'"),
        ({"noise": -0.1}, "noise"),
        ({"x_range": (1.0, -1.0)}, "x_range: expected two finite numbers, the smaller first"),
        ({"key": 0}, "key: expected one JAX key, got int"),
        ({"teacher_key": 3}, "key: expected one JAX key, got int"),
        ({"dtype": int}, "dtype: expected a floating type"),
    ],
)
def test_bad_input_is_named(change, said):
    with pytest.raises(InputError, match=said):
        drawn(**change)


@pytest.mark.parametrize("params", [3, {"layer1": {"w": 1, "b": 1}}, {"layer1": {"w": 1}, "head": {"w": 1, "b": 1}}])
def test_what_is_no_network_cannot_be_normalised(params):
    with pytest.raises(InputError, match="params: expected layers with w and b, the last one the head"):
        tasks.batch_normalised(params, jnp.ones((3, 1)))


@pytest.mark.parametrize("x_range", [None, 1.0, (1.0,), (0, 1, 2), ("a", "b"), (2.0, 1.0), (None, 1.0)])
def test_ranges_that_are_none_are_refused_in_one_line(x_range):
    assert_refused(lambda: drawn(x_range=x_range), "x_range: expected two finite numbers, the smaller first")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"split": np.ones(2)}, "split: expected train or val or test"),
        ({"batch_norm": "no"}, "batch_norm: expected True or False"),
        ({"dtype": "float33"}, "dtype: expected a floating type"),
        ({"key": jnp.zeros(3, jnp.uint32)}, "key: expected one JAX key"),
        ({"tasks": "a"}, "tasks: expected a whole number"),
    ],
)
def test_settings_of_something_else_are_refused_in_one_line(change, said):
    assert_refused(lambda: drawn(**change), said)


def test_points_and_parameters_that_are_none_are_refused_in_one_line():
    truth = drawn()
    for x in (None, "a", jnp.ones(3), jnp.ones((2, 2)), jnp.ones((7, 3, 1))):
        assert_refused(lambda x=x: truth.value(x), "x: expected")
    params = jax.tree.map(lambda leaf: leaf[0], truth.plain)
    for points in (None, "a", 1.0, jnp.ones(3), jnp.ones((0, 1)), jnp.ones((3, 2))):
        assert_refused(lambda points=points: tasks.batch_normalised(params, points), "points: expected")
    for bad in (None, {}, {"head": 1, "layer1": 2}, params | {"layer2": params["layer1"]}, {**params, "more": 1}):
        assert_refused(lambda bad=bad: tasks.batch_normalised(bad, jnp.ones((3, 1))), "params: expected")
