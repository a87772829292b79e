"""One derivative for all operations: against differences of the score, and the changes that it stands for."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlkernels.nas import Layout, Space, init, sample_kernels
from mlkernels.nas.engine import operations
from mlkernels.nas.engine.gate_gradients import gate_gradients
from mlkernels.nas.scores.first_order import change_without, first_order, mean_log_condition, role_orders
from mlkernels.nas.searching.ranking import operations_left, without
from mlkernels.tasks import TaskBatch

# a separable convolution and one of two blocks; pools and skips, whose outputs are shared or no output at all
SPACE = Space("few", ("skip_connect", "conv_1x5_5x1", "max_pool_3x3BN"), 2)
LAYOUT = Layout(SPACE, cells=8, depth=3, channels=4, pixels=8, ways=3)  # two normal cells, which share gates, and one
TASKS, WAYS = 2, 3


@pytest.fixture(scope="module")
def problem():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, TASKS, WAYS, 8, 8, 3)), np.broadcast_to(np.eye(WAYS), (TASKS, WAYS, WAYS))
    gates = SPACE.open_gates()
    gates[0, 1, 1] = gates[1, 0, 1:] = False
    gates[0, 4] = False  # an edge that is gone
    return init(LAYOUT, key=jax.random.key(0), dtype=jnp.float64), gates, TaskBatch(x[0], y, x[1], y)


def images_of(tasks):
    return np.concatenate([x.reshape(-1, 8, 8, 3) for x in (tasks.query_x, tasks.support_x)])


def thinned(gates):
    """The reduction cell with one operation an edge, each of them somewhere: less to compile."""
    return np.stack([gates[0], np.eye(3, dtype=bool)[np.arange(5) % 3]])


def shares_of(gates):
    return gates / np.maximum(gates.sum(-1, keepdims=True), 1)


@pytest.mark.parametrize(("algorithm", "time"), [("maml", math.inf), ("anil", 1.0), ("none", math.inf)])
def test_the_derivative_is_that_of_differences(problem, algorithm, time):
    params, gates, tasks = problem
    orders = role_orders(tasks, 3, key=jax.random.key(4))
    loop = {"algorithm": algorithm, "inner_time": time, "ridge": 1e-2}
    found = first_order(LAYOUT, params, gates, tasks, orders=orders, **loop)
    nothing = lambda kernels: (jnp.zeros_like(kernels.ntk),) * 2  # noqa: E731

    def value(shares):
        kernels, _ = gate_gradients(LAYOUT, params, gates, images_of(tasks), nothing, shares=shares)
        return mean_log_condition(kernels, tasks, orders=orders, **loop)

    shares, slopes = shares_of(gates), found.slopes
    assert found.value == pytest.approx(value(shares), rel=1e-9)
    assert (slopes[~gates] == 0).all()
    assert (slopes[gates] != 0).all()
    typical = np.median(np.abs(slopes[gates]))  # steps that make of all slopes about the same, so that none hides
    step = 1e-7 * gates * typical / np.maximum(np.abs(slopes), typical / 10) * np.sign(slopes)
    step *= np.random.default_rng(1).uniform(0.5, 1, gates.shape)
    assert value(shares + step) - value(shares - step) == pytest.approx(2 * (slopes * step).sum(), rel=1e-5)


def test_the_kernels_are_those_of_the_search(problem):
    params, gates, tasks = problem
    images, gates = images_of(tasks), thinned(gates)
    mine, parts = gate_gradients(LAYOUT, params, gates, images, lambda kernels: (kernels.ntk, kernels.nngp))
    theirs = sample_kernels(LAYOUT, params, gates, images)
    np.testing.assert_allclose(mine.ntk, theirs.ntk, rtol=1e-9)
    np.testing.assert_allclose(mine.nngp, theirs.nngp, rtol=1e-9)
    assert parts.shape == (len(images), *gates.shape)


def test_draws_side_by_side_have_their_own_derivatives(problem):
    """Where C has a block for each draw, a block's samples know of no other draw's images, nor of its part of C."""
    params, gates, tasks = problem
    images, first = images_of(tasks), np.arange(2 * TASKS * WAYS) < 5

    def parts_of(images, others):
        mask = jnp.asarray((first[:, None] & first) | (others & ~first[:, None] & ~first))
        score = lambda kernels: tuple(jnp.where(mask, kernel, 0) for kernel in (kernels.ntk, kernels.nngp))  # noqa: E731
        return gate_gradients(LAYOUT, params, gates, images, score)[1]

    both, one = parts_of(images, True), parts_of(images, False)
    changed = parts_of(np.where(first[:, None, None, None], images, images[::-1]), True)
    np.testing.assert_allclose(both[first].sum(0), one.sum(0), rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(both[first], changed[first], rtol=1e-7, atol=1e-9)
    assert (one[~first] == 0).all()
    assert (both[~first] != changed[~first])[:, gates].all()


def test_a_candidate_is_the_step_that_takes_it_out(problem):
    """The change along the whole step, if the slopes stayed as they are: from the shares with it to those without."""
    _, gates, _ = problem
    slopes = np.random.default_rng(2).normal(size=gates.shape) * gates
    for candidate in operations_left(gates):
        step = shares_of(without(gates, candidate)) - shares_of(gates)
        assert change_without(slopes, gates, candidate) == pytest.approx((slopes * step).sum())


def test_roles_change_within_each_class_alone():
    rng = np.random.default_rng(3)
    way, shot, queries = 3, 2, 1
    support, query = (np.tile(np.repeat(np.eye(way), n, 0), (2, 1, 1)) for n in (shot, queries))
    tasks = TaskBatch(rng.normal(size=(2, way * shot, 2)), support, rng.normal(size=(2, way * queries, 2)), query)
    labels = np.concatenate([query.argmax(-1).ravel(), support.argmax(-1).ravel()])
    owners = np.concatenate([np.repeat([0, 1], way * queries), np.repeat([0, 1], way * shot)])
    orders = role_orders(tasks, 40, key=jax.random.key(0))
    assert (orders[0] == np.arange(len(labels))).all()
    assert (np.sort(orders, 1) == np.arange(len(labels))).all()
    assert (labels[orders] == labels).all()
    assert (owners[orders] == owners).all()
    assert len(np.unique(orders, axis=0)) > 20


def test_a_bent_relu_is_a_relu_whose_state_changes_by_one_in_all():
    x = jnp.asarray(np.linspace(-3, 3, 6001))[:, None, None, None]
    width = jnp.full((6001, 1, 1, 1), 0.4)
    state = jax.grad(lambda x: operations._bent_relu(x, width).sum())
    np.testing.assert_array_equal(operations._bent_relu(x, width), jax.nn.relu(x))
    np.testing.assert_array_equal(state(x), x > 0)
    slope = jax.grad(lambda x: state(x).sum())(x).ravel()
    assert slope.sum() * 1e-3 == pytest.approx(1, rel=1e-2)
    assert (slope[np.abs(x.ravel()) > 0.4] == 0).all()


def test_a_width_moves_the_derivative_and_not_the_kernels(problem):
    params, gates, tasks = problem
    gates = thinned(gates)
    sharp, bent = (first_order(LAYOUT, params, gates, tasks, ridge=1e-2, width=width) for width in (0.0, 0.3))
    assert bent.value == pytest.approx(sharp.value, rel=1e-12)
    assert (bent.slopes != sharp.slopes)[gates].all()


def test_a_spectrum_without_a_condition_number_says_nothing(problem):
    params, gates, tasks = problem
    twice = TaskBatch(tasks.support_x, tasks.support_y, tasks.support_x, tasks.query_y)  # each image comes twice
    found = first_order(LAYOUT, params, gates, twice, algorithm="none")
    assert found.value == math.inf or found.value > 20  # zero but for rounding, of either sign
    params = params | {"head": (jnp.zeros_like(params["head"][0]),), "stem": (jnp.zeros_like(params["stem"][0]),)}
    found = first_order(LAYOUT, params, gates, tasks)
    assert found.value == math.inf
    assert (found.slopes == 0).all()
