"""TaskBatch as a pytree, and the samplers."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlkernels import tasks
from mlkernels.datasets import Dataset, load
from mlkernels.errors import InputError
from mlkernels.tasks import TaskBatch, image_episodes


def batch_of(count: int = 4, support: int = 3, queries: int = 5) -> TaskBatch:
    return tasks.sinusoid(tasks=count, support=support, queries=queries, key=jax.random.key(0), dimension=2)


def numbered(counts: list[int]) -> Dataset:
    """A dataset whose two pixels spell the row number, one split "all"."""
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    rows = np.arange(len(labels))
    images = np.stack([rows // 256, rows % 256], axis=1).astype(np.uint8).reshape(-1, 1, 2, 1)
    names = tuple(map(str, range(len(counts))))
    return Dataset("numbered", images, labels, names, {"all": np.arange(len(counts))}, np.ones(1), np.ones(1), "", "")


# TaskBatch


def test_sizes():
    batch = batch_of()
    assert (batch.tasks, batch.support, batch.queries, batch.outputs, len(batch)) == (4, 3, 5, 1, 4)
    assert repr(batch) == "TaskBatch(4 tasks: 3 support and 5 query points of shape (2,), 1 outputs)"


@pytest.mark.parametrize(
    "shapes",
    [
        [(4, 3, 2), (4, 3, 1), (4, 5, 2), (4, 5)],
        [(4, 3), (4, 3, 1), (4, 5), (4, 5, 1)],
        [(4, 3, 2), (4, 2, 1), (4, 5, 2), (4, 5, 1)],
        [(4, 3, 2), (4, 3, 1), (3, 5, 2), (3, 5, 1)],
        [(4, 3, 2), (4, 3, 1), (4, 5, 3), (4, 5, 1)],
        [(4, 3, 2), (4, 3, 1), (4, 5, 2), (4, 5, 2)],
    ],
)
def test_shapes_that_do_not_fit_are_refused(shapes):
    with pytest.raises(InputError, match=r"TaskBatch: expected support_x \[B, m, \.\.\.\]") as caught:
        TaskBatch(*[jnp.zeros(shape) for shape in shapes])
    assert str(list(shapes[0])) in str(caught.value)
    with pytest.raises(InputError):
        jax.jit(lambda leaves: TaskBatch(*leaves).tasks)([jnp.zeros(shape) for shape in shapes])


def test_lists_are_refused():
    with pytest.raises(InputError, match="expected four arrays, got lists"):
        TaskBatch([[[1.0]]], [[[1.0]]], [[[1.0]]], [[[1.0]]])


def test_transforms_rebuild_batches_without_the_check():
    batch = batch_of()
    doubled = jax.tree.map(lambda leaf: 2 * leaf, batch)
    assert isinstance(doubled, TaskBatch)
    assert jax.tree.map(lambda leaf: None, batch).support_x is None
    one_by_one = jax.vmap(lambda task: task.query_y.mean() + task.support_x.sum())(batch)
    axes = TaskBatch(0, 0, 0, 0)
    mapped = jax.jit(jax.vmap(lambda task: jax.tree.map(jnp.sin, task), in_axes=(axes,)))(batch)
    assert one_by_one.shape == (4,)
    assert mapped.query_x.shape == batch.query_x.shape
    gradient = jax.grad(lambda batch: sum(leaf.sum() for leaf in jax.tree.leaves(batch)))(batch)
    assert isinstance(gradient, TaskBatch)
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(batch)]
    assert paths == [".support_x", ".support_y", ".query_x", ".query_y"]
    assert "None" in repr(jax.tree.map(lambda leaf: None, batch))


def test_replacing_a_leaf_is_checked():
    batch = batch_of()
    assert dataclasses.replace(batch, query_y=batch.query_y + 1).tasks == 4
    with pytest.raises(InputError):
        dataclasses.replace(batch, query_y=batch.query_y[:2])


def test_indexing_gives_tasks():
    batch = batch_of(6)
    assert batch[2:5].tasks == 3
    assert np.array_equal(batch[2:5].query_y, batch.query_y[2:5])
    assert np.array_equal(batch[-1].support_x, batch.support_x[5:])
    assert np.array_equal(batch[np.array([4, 0])].support_x, batch.support_x[np.array([4, 0])])
    assert batch[[True, False, False, True, False, False]].tasks == 2
    assert [task.tasks for task in batch] == [1] * 6
    assert jax.jit(lambda batch: batch[1:3])(batch).tasks == 2
    for wrong in (6, -7, [7]):
        with pytest.raises(IndexError):
            batch[wrong]


def test_concatenate_undoes_slicing():
    batch = batch_of(6)
    joined = tasks.concatenate([batch[:1], batch[1:4], batch[4:]])
    assert all(map(np.array_equal, jax.tree.leaves(joined), jax.tree.leaves(batch)))
    with pytest.raises(InputError, match="at least one TaskBatch"):
        tasks.concatenate([])
    with pytest.raises(InputError, match="make them with the same support"):
        tasks.concatenate([batch, batch_of(6, support=4)])


# Sinusoids


def test_centred_tasks_have_the_residual_of_the_centred_network(key):
    batch = tasks.sinusoid(tasks=2, support=3, queries=4, key=key)

    def apply(params, x):
        return jnp.tanh(params * x)

    shifted = tasks.centred(batch, apply, 2.0)
    for now in (2.0, 3.0):
        for part in ("support", "query"):
            x, y, centred = (
                getattr(one, f"{part}_{which}") for one, which in ((batch, "x"), (batch, "y"), (shifted, "y"))
            )
            np.testing.assert_allclose(apply(now, x) - centred, apply(now, x) - apply(2.0, x) - y, atol=1e-6)
    assert shifted.query_x is batch.query_x


@pytest.mark.parametrize("dimension", [1, 4])
def test_sinusoids_are_the_formula(key, dimension):
    truth = tasks.sinusoid_with_parameters(tasks=50, support=5, queries=7, key=key, dimension=dimension)
    batch = truth.batch
    assert batch.support_x.shape == (50, 5, dimension)
    assert batch.query_y.shape == (50, 7, 1)
    np.testing.assert_allclose(np.linalg.norm(truth.direction), 1.0)
    along = np.asarray(batch.query_x) @ np.asarray(truth.direction)
    expected = np.asarray(truth.amplitude)[:, None] * np.sin(along + np.asarray(truth.phase)[:, None])
    np.testing.assert_allclose(batch.query_y[..., 0], expected, atol=1e-12)
    np.testing.assert_allclose(truth.value(batch.support_x), batch.support_y, atol=1e-12)
    same = tasks.sinusoid(tasks=50, support=5, queries=7, key=key, dimension=dimension)
    assert all(map(np.array_equal, jax.tree.leaves(same), jax.tree.leaves(batch)))


def test_sinusoid_ranges(key):
    truth = tasks.sinusoid_with_parameters(
        tasks=300, support=10, queries=10, key=key, amplitude=(1.0, 2.0), phase=(0.5, 0.5), x_range=(-1.0, 3.0)
    )
    assert truth.amplitude.min() >= 1.0
    assert truth.amplitude.max() <= 2.0
    assert np.unique(truth.phase).tolist() == [0.5]
    assert truth.batch.query_x.min() >= -1.0
    assert 2.9 < truth.batch.query_x.max() <= 3.0


def test_sinusoid_noise_has_its_size(key):
    options = {"tasks": 200, "support": 20, "queries": 20, "key": key}
    noisy = tasks.sinusoid_with_parameters(**options, noise=0.3)
    clean = tasks.sinusoid(**options)
    assert np.array_equal(noisy.batch.query_x, clean.query_x)
    for got, true in ((noisy.batch.support_y, clean.support_y), (noisy.batch.query_y, clean.query_y)):
        np.testing.assert_allclose(np.std(got - true), 0.3, rtol=0.05)


def test_sinusoid_value_takes_shared_points():
    x = jnp.linspace(-1, 1, 9)[:, None]
    assert tasks.sinusoid_value(x, jnp.ones(3), jnp.zeros(3)).shape == (3, 9, 1)
    for wrong in (x[:, 0], jnp.zeros((2, 9, 1))):
        with pytest.raises(InputError, match="sinusoid_value"):
            tasks.sinusoid_value(wrong, jnp.ones(3), jnp.zeros(3))
    with pytest.raises(InputError, match="sinusoid_value"):
        tasks.sinusoid_value(x, jnp.ones(3), jnp.zeros(2))


def test_keys_and_dtypes(key):
    options = {"tasks": 2, "support": 3, "queries": 3}
    assert tasks.sinusoid(**options, key=key).query_x.dtype == jnp.float64  # x64 is on in these tests
    assert tasks.sinusoid(**options, key=key, dtype=jnp.float32).query_y.dtype == jnp.float32
    assert tasks.random_labels(**options, key=key, dtype="float32").support_y.dtype == jnp.float32
    old, new = (tasks.sinusoid(**options, key=made) for made in (jax.random.PRNGKey(0), key))
    assert np.array_equal(old.query_x, new.query_x)
    other = tasks.sinusoid(**options, key=jax.random.key(1))
    assert not np.array_equal(other.query_x, new.query_x)
    with jax.enable_x64(False):
        assert tasks.sinusoid(**options, key=key).query_x.dtype == jnp.float32
        with pytest.raises(InputError, match="dtype: expected float32 or less while x64 is off, got float64"):
            tasks.sinusoid(**options, key=key, dtype=jnp.float64)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"tasks": 0}, "tasks: expected a whole number of at least 1, got 0"),
        ({"support": 2.5}, "support"),
        ({"queries": True}, "queries"),
        ({"dimension": 0}, "dimension"),
        ({"amplitude": (2.0, 1.0)}, "amplitude: expected two finite numbers, the smaller first"),
        ({"phase": (0.0, math.inf)}, "phase"),
        ({"noise": -1.0}, "noise"),
        ({"noise": math.nan}, "noise"),
        ({"dtype": int}, "dtype: expected a floating type, got int64"),
        ({"key": 0}, "key: expected one JAX key, got int"),
        ({"key": jax.random.split(jax.random.key(0), 2)}, r"got keys of shape \[2\]"),
        ({"key": jnp.zeros(2)}, r"got float64 of shape \[2\]"),
    ],
)
def test_bad_sinusoids(key, change, words):
    with pytest.raises(InputError, match=words):
        tasks.sinusoid(**{"tasks": 2, "support": 3, "queries": 3, "key": key, **change})


def test_random_labels_lie_on_the_sphere(key):
    batch = tasks.random_labels(tasks=100, support=4, queries=6, key=key, dimension=3, label_scale=0.5)
    np.testing.assert_allclose((batch.query_x**2).sum(axis=-1), 3.0)
    assert np.unique(batch.support_y).tolist() == [-0.5, 0.5]
    assert abs(batch.query_y.mean()) < 0.1
    with pytest.raises(InputError, match="label_scale"):
        tasks.random_labels(tasks=1, support=1, queries=1, key=key, label_scale=math.inf)


# A teacher


def test_a_teachers_tasks_share_its_features(key):
    options = {"tasks": 3, "support": 30, "queries": 10, "key": key, "dimension": 4, "features": 6}
    batch = tasks.teacher_student(**options)
    assert (batch.support_x.shape, batch.query_y.shape) == ((3, 30, 4), (3, 10, 1))
    features = np.tanh(2 * np.asarray(batch.support_x) @ np.asarray(jax.random.normal(jax.random.key(0), (4, 6))) / 2)
    queries = np.tanh(2 * np.asarray(batch.query_x) @ np.asarray(jax.random.normal(jax.random.key(0), (4, 6))) / 2)
    heads = [np.linalg.lstsq(features[i], batch.support_y[i], rcond=None)[0] for i in range(3)]
    for i in range(3):  # the head that fits the support set is that of the queries
        np.testing.assert_allclose(queries[i] @ heads[i], batch.query_y[i], atol=1e-10)
    assert np.abs(heads[0] - heads[1]).max() > 0.1
    other = tasks.teacher_student(**options, teacher_key=jax.random.key(1))
    assert np.array_equal(other.support_x, batch.support_x)
    assert not np.allclose(other.support_y, batch.support_y)
    noisy = tasks.teacher_student(**options, noise=0.5)
    spread = np.asarray(noisy.support_y - batch.support_y)
    assert 0.35 < spread.std() < 0.65


def test_a_teachers_heads_and_keys(key):
    many = tasks.teacher_student(tasks=2000, support=1, queries=1, key=key, dtype=jnp.float32)
    assert many.query_y.dtype == jnp.float32
    power = float((many.query_y**2).mean())  # 16 features of mean square s, heads of variance 1/4
    x = np.asarray(many.query_x[:, 0])
    s = (np.tanh(2 * x @ np.asarray(jax.random.normal(jax.random.key(0), (10, 16), jnp.float32)) / 10**0.5) ** 2).mean()
    assert abs(power / (16 * s / 4) - 1) < 0.15
    for change, words in (
        ({"features": 0}, "features: expected a whole number"),
        ({"noise": -1.0}, "noise: expected"),
        ({"teacher_key": 3}, "key: expected one JAX key"),
        ({"dimension": 0}, "dimension"),
    ):
        with pytest.raises(InputError, match=words):
            tasks.teacher_student(**{"tasks": 1, "support": 1, "queries": 1, "key": key, **change})


# Episodes


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_episodes_share_no_image_and_count_labels(data):
    counts = data.draw(st.lists(st.integers(2, 40), min_size=1, max_size=12))
    dataset = numbered(counts)
    way = data.draw(st.integers(1, len(counts)))
    shot = data.draw(st.integers(1, min(counts) - 1))
    queries = data.draw(st.integers(1, min(counts) - shot))
    count = data.draw(st.integers(1, 3))
    key = jax.random.key(data.draw(st.integers(0, 1000)))
    batch = tasks.episodes(dataset, "all", way, shot, queries, count, key, one_hot="plain")
    assert batch.support_x.shape == (count, way * shot, 1, 2, 1)
    assert batch.query_y.shape == (count, way * queries, way)
    for task in batch:
        rows = []
        places = {}
        for x, y, images in ((task.support_x, task.support_y, shot), (task.query_x, task.query_y, queries)):
            pixels = np.rint(np.asarray(x[0], np.float64) * 255).astype(int).reshape(-1, 2)
            chosen = pixels[:, 0] * 256 + pixels[:, 1]
            rows += chosen.tolist()
            assert np.array_equal(y[0], np.repeat(np.eye(way), images, axis=0))  # ordered by class
            for row, place in zip(chosen, np.asarray(y[0]).argmax(axis=-1), strict=True):
                places.setdefault(place, set()).add(dataset.labels[row])
        assert len(set(rows)) == len(rows) == way * (shot + queries)
        assert all(len(classes) == 1 for classes in places.values())  # a label is one class of the dataset
        assert len(set.union(*places.values())) == way


def test_episodes_repeat_for_a_key_and_differ_between_tasks():
    glyphs = load("glyphs")
    one, again, other = (tasks.episodes(glyphs, "train", 5, 1, 2, 3, jax.random.key(seed)) for seed in (0, 0, 1))
    assert all(map(np.array_equal, jax.tree.leaves(one), jax.tree.leaves(again)))
    assert not np.array_equal(one.support_x, other.support_x)
    assert not np.array_equal(one.support_x[0], one.support_x[1])
    old = tasks.episodes(glyphs, "train", 5, 1, 2, 3, jax.random.PRNGKey(0))
    assert np.array_equal(old.support_x, one.support_x)


def test_episodes_come_from_their_split_and_use_all_of_it():
    dataset = numbered([4] * 8)
    dataset = dataclasses.replace(dataset, splits={"train": np.array([1, 3, 4, 6]), "test": np.array([0, 2, 5, 7])})
    batch = tasks.episodes(dataset, "test", 2, 1, 3, 60, jax.random.key(0))
    pixels = np.rint(np.asarray(batch.query_x) * 255).astype(int).reshape(-1, 2)
    classes = dataset.labels[pixels[:, 0] * 256 + pixels[:, 1]]
    assert sorted(set(classes)) == [0, 2, 5, 7]
    first = classes.reshape(60, 2, 3)[:, 0, 0]
    assert sorted(set(first)) == [0, 2, 5, 7]  # which class comes first is random
    assert (classes.reshape(60, 2, 3) == classes.reshape(60, 2, 3)[..., :1]).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("normalise", ["none", "dataset", "unit"])
@pytest.mark.parametrize("large", [0, 1 << 20], ids=["on the device", "on the host"])
def test_pixels_are_to_the_bit_what_numpy_makes_of_them(normalise, dtype, large, monkeypatch):
    monkeypatch.setattr(image_episodes, "LARGE", large)
    images = np.random.default_rng(0).integers(0, 256, (8, 6, 5, 3)).astype(np.uint8)
    mean, std = np.array([0.47, 0.45, 0.40]), np.array([0.28, 0.27, 0.29])
    names, splits = ("a", "b"), {"all": np.arange(2)}
    dataset = Dataset("colours", images, np.repeat([0, 1], 4), names, splits, mean, std, "", "")
    plain = tasks.episodes(dataset, "all", 2, 1, 3, 1, jax.random.key(0), dtype=dtype)
    batch = tasks.episodes(dataset, "all", 2, 1, 3, 1, jax.random.key(0), dtype=dtype, normalise=normalise)
    for pixels, found in ((plain.support_x, batch.support_x), (plain.query_x, batch.query_x)):
        expected = np.rint(np.asarray(pixels) * 255).astype(np.uint8).astype(dtype) / dtype(255)
        if normalise == "dataset":
            expected = (expected - mean.astype(dtype)) / std.astype(dtype)
        elif normalise == "unit":
            expected = expected / np.sqrt((expected * expected).sum(axis=(2, 3, 4), keepdims=True))
        assert found.dtype == dtype
        assert np.array_equal(found, expected)
    with pytest.raises(InputError, match="images of colours: expected uint8, got float64"):
        tasks.episodes(dataclasses.replace(dataset, images=images / 255), "all", 2, 1, 3, 1, jax.random.key(0))


def test_labels_and_normalisations():
    glyphs = load("glyphs")

    def make(**options) -> TaskBatch:
        return tasks.episodes(glyphs, "val", 4, 2, 3, 5, jax.random.key(3), **options)

    plain = make(one_hot="plain")
    centred = make()
    np.testing.assert_allclose(centred.query_y, plain.query_y - 0.25)
    np.testing.assert_allclose(centred.support_y.sum(axis=-1), 0, atol=1e-12)
    assert plain.support_x.min() == 0.0
    assert plain.support_x.max() == 1.0
    np.testing.assert_allclose((make(normalise="unit").query_x ** 2).sum(axis=(2, 3, 4)), 1.0)
    expected = (np.asarray(plain.query_x) - glyphs.mean) / glyphs.std
    np.testing.assert_allclose(make(normalise="dataset").query_x, expected)
    for leaf in jax.tree.leaves(make(dtype=jnp.float32, normalise="dataset")):
        assert leaf.dtype == jnp.float32
        assert isinstance(leaf, jax.Array)


def test_what_to_do_is_never_what_was_given():
    data = numbered([2, 1])
    with pytest.raises(InputError, match="got 2; leave out classes of fewer than two images"):
        tasks.episodes(data, "all", 2, 1, 1, 1, jax.random.key(0))


def test_an_empty_image_stays_empty_at_unit_norm():
    dataset = dataclasses.replace(numbered([2, 2]), images=np.zeros((4, 2, 2, 1), np.uint8))
    batch = tasks.episodes(dataset, "all", 2, 1, 1, 1, jax.random.key(0), normalise="unit")
    assert (batch.support_x == 0).all()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"way": 51}, "way: expected at most the 50 classes of glyphs's test split, got 51; ask for 50 or fewer"),
        ({"shot": 6, "queries": 15}, r"shot \+ queries: expected at most the 20 images of class glyph190, got 21"),
        ({"split": "evaluation"}, "split: expected train or val or test, got 'evaluation'"),
        ({"way": 0}, "way: expected a whole number of at least 1"),
        ({"shot": 0}, "shot"),
        ({"queries": 0}, "queries"),
        ({"tasks": 0}, "tasks"),
        ({"one_hot": "yes"}, "one_hot: expected centred or plain, got 'yes'"),
        ({"normalise": "mean"}, "normalise: expected none or unit or dataset, got 'mean'"),
        ({"key": np.random.default_rng(0)}, "key: expected one JAX key, got Generator"),
    ],
)
def test_bad_episodes(change, words):
    options = {"split": "test", "way": 5, "shot": 1, "queries": 1, "tasks": 1, "key": jax.random.key(0), **change}
    with pytest.raises(InputError, match=words):
        tasks.episodes(load("glyphs"), **options)
