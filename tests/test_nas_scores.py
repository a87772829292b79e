"""Scores against an independent plain implementation, regions against a brute-force count, bad spectra."""

from __future__ import annotations

import functools
import math

import _plain_nas as plain
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from _nas_search import synthetic

from mlkernels.errors import InputError
from mlkernels.kernels import Kernels
from mlkernels.metantk import all_points
from mlkernels.nas.engine.gram import sample_kernels
from mlkernels.nas.engine.weights import init
from mlkernels.nas.pictures.search_images import patches, search_tasks
from mlkernels.nas.scores.kernel_scores import (
    condition_score,
    gradient_norm,
    metantk_kernel,
    metantk_score,
)
from mlkernels.nas.scores.regions import Patterns, linear_regions, thin
from mlkernels.nas.scores.zero_cost import log_determinant, relu_codes, spectral_entropy, synflow
from mlkernels.nas.space.layout import Layout
from mlkernels.tasks import TaskBatch

WAYS, TASKS = 3, 2
LAYOUT = Layout(channels=8, pixels=8, ways=WAYS, depth=3)  # normal, reduction, normal
THIN = thin(LAYOUT)


def random_gates(seed):
    """About 1.4 operations open an edge, on some edges none."""
    return np.random.default_rng(seed).random((2, 9, 7)) < 0.2


def few_gates():
    """Two operations alone, where something is compiled anew."""
    gates = random_gates(0) | random_gates(1)
    gates[..., [1, 2, 3, 4, 5]] = False
    return gates


def episodes(dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(2, TASKS, WAYS, 8, 8, 3)).astype(dtype)
    y = np.broadcast_to(np.eye(WAYS, dtype=dtype), (TASKS, WAYS, WAYS))
    return TaskBatch(*(jnp.asarray(a) for a in (x[0], y, x[1], y)))


@functools.cache
def weights(dtype):
    """The same numbers in both types."""
    return jax.tree.map(lambda w: w.astype(dtype), init(LAYOUT, key=jax.random.key(1)))


def relative(ours, theirs):
    """In the Frobenius norm: one ReLU so near its kink that float32 flips it moves one row by more than rounding."""
    return np.linalg.norm(np.asarray(ours) - theirs) / np.linalg.norm(theirs)


@pytest.mark.parametrize("seed", range(20))
def test_kernels_and_condition_numbers_equal_the_plain_implementation(seed):
    """The plain one in float64: what float32 is held against is then no rounding of its own."""
    gates, tasks = random_gates(seed), episodes()
    tasks32 = episodes(np.float32)
    network = plain.Architecture(LAYOUT, gates)
    images = jnp.moveaxis(all_points(tasks32).astype(float), -1, 1)
    same = TaskBatch(*(a.astype(float) for a in (tasks32.support_x, tasks.support_y, tasks32.query_x, tasks.query_y)))
    rows, head = plain.jacobian(network, network.weights(weights("float64")), images, jnp.ones(WAYS))
    ntk, nngp = rows @ rows.T, head @ head.T
    for batch, dtype, tolerance in ((same, "float64", 1e-10), (tasks32, "float32", 1e-4)):
        kernels = sample_kernels(LAYOUT, weights(dtype), gates, all_points(batch))
        assert kernels.ntk.dtype == np.float64
        assert relative(kernels.ntk, ntk) < tolerance
        assert relative(kernels.nngp, nngp) < tolerance
        for algorithm, inner in (("maml", ntk), ("anil", nngp)):
            for time, ridge in ((math.inf, 1e-3), (1.0, 1e-5)):
                expected = np.linalg.cond(plain.metantk(ntk, inner, TASKS, WAYS, WAYS, time, ridge))
                phi = metantk_kernel(kernels, batch, algorithm=algorithm, inner_time=time, ridge=ridge)
                assert condition_score(phi).value == pytest.approx(expected, rel=tolerance)


def test_scores_are_these_numbers_and_outputs_are_a_choice():
    gates, tasks, params = few_gates(), episodes(), weights("float64")
    images = all_points(tasks)
    network = plain.Architecture(LAYOUT, gates)
    each = [
        plain.jacobian(network, network.weights(params), jnp.moveaxis(images, -1, 1), jnp.eye(WAYS)[way])[0]
        for way in range(WAYS)
    ]
    full = np.stack(each, 1).reshape(-1, each[0].shape[1])
    trace = sum(rows @ rows.T for rows in each) / WAYS
    kernels = sample_kernels(LAYOUT, params, gates, images, outputs="full")
    assert relative(kernels.ntk, full @ full.T) < 1e-10
    traced = sample_kernels(LAYOUT, params, gates, images, outputs="trace")
    assert relative(traced.ntk, trace) < 1e-10
    assert relative(np.kron(traced.nngp, np.eye(WAYS)), kernels.nngp) < 1e-12
    assert metantk_kernel(kernels, tasks, algorithm="anil").shape == (TASKS * WAYS * WAYS,) * 2
    summed = metantk_score(LAYOUT, params, gates, tasks, algorithm="none")
    total = sum(each)
    assert summed.value == pytest.approx(np.linalg.cond(total @ total.T), rel=1e-9)
    values = {np.linalg.cond(matrix) for matrix in (full @ full.T, trace, total @ total.T)}
    assert len({round(value, 3) for value in values}) == 3
    expected = np.linalg.cond(plain.metantk(total @ total.T, total @ total.T, TASKS, WAYS, WAYS, math.inf, 1e-3))
    assert metantk_score(LAYOUT, params, gates, tasks).value == pytest.approx(expected, rel=1e-9)


def test_the_norm_of_the_gradient():
    gates, tasks, params = random_gates(0), episodes(), weights("float64")
    images = jnp.moveaxis(all_points(tasks), -1, 1)
    labels = jnp.concatenate([tasks.query_y.reshape(-1, WAYS), tasks.support_y.reshape(-1, WAYS)])
    network = plain.Architecture(LAYOUT, gates)

    def one(weights, image, label):
        return -(jax.nn.log_softmax(network(weights, image[None])[0]) * label).sum()

    found = jax.vmap(jax.grad(one), (None, 0, 0))(network.weights(params), images, labels)
    expected = math.sqrt(sum(float((leaf.mean(0) ** 2).sum()) for leaf in jax.tree.leaves(found)))
    assert gradient_norm(LAYOUT, params, gates, tasks) == pytest.approx(expected, rel=1e-9)


def test_a_bad_spectrum_is_the_worst_score_and_says_so():
    good = np.diag([1.0, 2.0, 3.0])
    assert condition_score(good).value == 3
    assert condition_score(good).note == ""
    for bad, said in (
        (np.diag([0.0, 1.0, 2.0]), "not positive"),
        (np.diag([-1e-9, 1.0, 2.0]), "not positive"),  # divided blindly: -2e9, the best of all
        (np.full((3, 3), np.nan), "not finite"),
        (np.diag([1.0, np.inf, 1.0]), "not finite"),
        (np.zeros((3, 3)), "not positive"),
    ):
        score = condition_score(bad)
        assert score.value == math.inf > condition_score(good).value
        assert said in score.note
    doubtful = condition_score(np.diag([1e-8, 1.0]), precision=np.float32)
    assert doubtful.value == pytest.approx(1e8)
    assert "within rounding" in doubtful.note
    with pytest.raises(InputError, match="kernel: expected a square matrix"):
        condition_score(np.ones((2, 3)))


def test_a_network_that_lets_nothing_through_gets_the_worst_score():
    closed = LAYOUT.space.open_gates() & False
    score = metantk_score(LAYOUT, weights("float64"), closed, episodes())
    assert score.value == math.inf


def test_two_images_alike_are_seen():
    tasks = episodes()
    twice = TaskBatch(tasks.support_x, tasks.support_y, tasks.query_x.at[0, 1].set(tasks.query_x[0, 0]), tasks.query_y)
    score = metantk_score(LAYOUT, weights("float64"), random_gates(1), twice, algorithm="none")
    assert score.value > 1e12


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"algorithm": "reptile"}, "algorithm: expected maml or anil"),
        ({"outputs": "mean"}, "outputs: expected"),
        ({"inner_time": -1}, "inner_time: expected a number of at least 0"),
        ({"ridge": -1}, "ridge: expected"),
        ({"tasks": "none"}, "tasks: expected a TaskBatch"),
        ({"layout": Layout(channels=8, pixels=8, ways=WAYS, depth=3, norm="batch")}, "group normalisation"),
        ({"layout": Layout(channels=8, pixels=16, ways=WAYS, depth=3)}, r"images: expected \[n, 16, 16, 3\]"),
        ({"gates": np.ones((2, 9, 8), bool)}, "gates: expected"),
    ],
)
def test_input_that_makes_no_score(change, said):
    given = {"layout": LAYOUT, "params": weights("float64"), "gates": random_gates(1), "tasks": episodes()} | change
    with pytest.raises(InputError, match=said):
        metantk_score(**given)


def test_the_composite_kernel_is_the_analytic_one():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(12, 20))
    ntk, inner = rows @ rows.T, rows[:, :9] @ rows[:, :9].T
    tasks = TaskBatch(*(jnp.ones((2, points, 1)) for points in (4, 4, 2, 2)))  # support, then queries
    for algorithm, inside in (("maml", ntk), ("anil", inner)):
        for time, ridge in ((math.inf, 0.1), (0.3, 0.0)):
            ours = metantk_kernel(Kernels(inner, ntk), tasks, algorithm=algorithm, inner_time=time, ridge=ridge)
            assert relative(ours, plain.metantk(ntk, inside, 2, 2, 4, time, ridge)) < 1e-12


# --- other scores -----------------------------------------------------------------------------------------------------


def test_the_entropy_is_that_of_the_jacobian_s_squared_singular_values():
    J = np.random.default_rng(0).normal(size=(7, 30))
    p = np.linalg.svd(J, compute_uv=False) ** 2
    p = p / p.sum()
    assert spectral_entropy(J @ J.T) == pytest.approx(-(p * np.log(p)).sum())
    assert spectral_entropy(3 * J @ J.T) == pytest.approx(spectral_entropy(J @ J.T))  # of no scale
    assert spectral_entropy(np.eye(5)) == pytest.approx(np.log(5))
    assert spectral_entropy(np.diag([2.0, 0.0, -1e-9])) == 0.0
    for bad in (np.zeros((3, 3)), np.full((2, 2), np.nan)):
        assert spectral_entropy(bad) == -math.inf
    with pytest.raises(InputError, match="kernel: expected a square matrix"):
        spectral_entropy(np.ones((2, 3)))


@pytest.mark.parametrize("seed", range(2))
def test_relu_codes_are_a_plain_count(seed):
    gates, images = random_gates(seed), np.random.default_rng(seed).normal(size=(6, 8, 8, 3))
    images[5] = images[4]
    network, seen = plain.Architecture(LAYOUT, gates), []
    network(network.weights(weights("float64")), jnp.moveaxis(jnp.asarray(images), -1, 1), seen)
    bits = np.concatenate([np.asarray(on).reshape(6, -1) for on in seen], axis=1)
    codes = np.asarray(relu_codes(LAYOUT, weights("float64"), gates, images))
    np.testing.assert_array_equal(codes, (bits[:, None] == bits[None]).sum(-1))
    assert log_determinant(codes) == -math.inf  # two images alike
    assert log_determinant(codes[:5, :5]) == pytest.approx(np.log(np.linalg.det(codes[:5, :5])))


@pytest.mark.parametrize("seed", range(2))
def test_synflow_is_the_sum_over_weights(seed):
    gates = random_gates(seed)
    network = plain.Architecture(LAYOUT, gates)
    network.norm = lambda x: x
    sizes = jax.tree.map(jnp.abs, network.weights(weights("float64")))
    slopes = jax.grad(lambda sizes: network(sizes, jnp.ones((1, 3, 8, 8))).sum())(sizes)
    total = sum((size * slope).sum() for size, slope in zip(*map(jax.tree.leaves, (sizes, slopes)), strict=True))
    assert synflow(LAYOUT, weights("float64"), gates) == pytest.approx(float(jnp.log(total)), rel=1e-9)
    assert synflow(LAYOUT, weights("float64"), gates & False) == -math.inf


# --- linear regions ---------------------------------------------------------------------------------------------------


@functools.cache
def thin_weights():
    return init(THIN, key=jax.random.key(2), dtype=np.float64)


@pytest.mark.parametrize("seed", range(5))
def test_regions_are_a_brute_force_count(seed):
    gates = random_gates(seed)
    images = np.random.default_rng(seed).normal(size=(2, 60, 3, 3, 1))
    images[1, :20] = images[0, :20] * 1.0001  # some that fall into one region, or nearly
    network, bits = plain.Architecture(THIN, gates), []
    for batch in images:
        seen = []
        network(network.weights(thin_weights()), jnp.moveaxis(jnp.asarray(batch), -1, 1), seen)
        bits.append(np.concatenate([np.asarray(on).reshape(len(batch), -1) for on in seen], axis=1))
    bits = np.concatenate(bits)
    same = (bits[:, None] == bits[None]).all(-1)
    expected = (1 / same.sum(1)).sum()
    for block_bytes in (2**26, 3000, 1):
        count = linear_regions(THIN, thin_weights(), gates, images, block_bytes=block_bytes)
        assert count == round(expected)
    assert count <= 120


def test_patterns_are_counted_exactly_over_blocks():
    rng = np.random.default_rng(0)
    for _ in range(20):
        bits = rng.random((200, 11)) < 0.2
        patterns = Patterns(200, block_bytes=int(rng.integers(1, 3000)))
        for column in range(11):
            patterns.add(bits[:, column : column + 1])
        assert patterns.count() == len(np.unique(bits, axis=0))
    assert Patterns(5).count() == 1


def test_patches_come_from_their_images():
    images = np.random.default_rng(0).random((50, 8, 9, 3))
    found = np.asarray(patches(images, np.random.default_rng(1)))
    assert found.shape == (50, 3, 3, 1)
    for image, patch in zip(images, found, strict=True):
        windows = np.lib.stride_tricks.sliding_window_view(image, (3, 3), axis=(0, 1))
        assert (windows == patch[..., 0].astype(float)).all((-1, -2)).sum() == 1
    with pytest.raises(InputError, match="at least 3 pixels a side"):
        patches(images[:, :2], np.random.default_rng(0))
    with pytest.raises(InputError, match="images: expected"):
        linear_regions(THIN, thin_weights(), random_gates(0), np.zeros((20, 3, 3, 1)))
    with pytest.raises(InputError, match="block_bytes"):
        linear_regions(THIN, thin_weights(), random_gates(0), np.zeros((1, 20, 3, 3, 1)), block_bytes=0)


def test_of_the_search_s_images_support_alone_is_flipped_and_cropped():
    data = synthetic(classes=4, each=30)
    tasks = search_tasks(data, key=jax.random.key(0), pixels=8, way=3, tasks=20, dtype=np.float64)
    known = (np.asarray(data.images) / 255 - data.mean) / data.std

    def as_they_are(images):
        images = np.asarray(images).reshape(-1, 1, 8, 8, 3)
        return np.concatenate([(abs(known[None] - one) < 1e-5).all((2, 3, 4)).any(1) for one in images])

    assert as_they_are(tasks.query_x).all()
    assert as_they_are(tasks.support_x).sum() < 15  # of 60: the middle of 9 windows, not flipped
    assert (np.asarray(tasks.support_x).reshape(60, -1).std(1) > 0.1).all()  # and none is cut to nothing


def test_no_image_comes_twice_in_the_search_s_tasks_where_that_can_be():
    """Six queries of 24 images: most draws have one twice. Where images are too few they are taken as they come."""
    data = synthetic(classes=4, each=6)
    for seed in range(5):
        tasks = search_tasks(data, key=jax.random.key(seed), pixels=8, way=3, tasks=2)
        assert len(np.unique(np.asarray(all_points(tasks)).reshape(12, -1), axis=0)) == 12
    few = search_tasks(synthetic(classes=3, each=2), key=jax.random.key(0), pixels=8, way=3, tasks=5)
    assert few.query_x.shape == (5, 3, 8, 8, 3)


@pytest.mark.parametrize("time", ["fast", -1.0, np.nan])
def test_a_bad_inner_time_is_refused_by_its_name(time):
    tasks = TaskBatch(*(jnp.ones((2, 3, 4)) for _ in range(4)))
    with pytest.raises(InputError, match="inner_time: expected a number"):
        metantk_kernel(Kernels(jnp.eye(12), jnp.eye(12)), tasks, inner_time=time)
