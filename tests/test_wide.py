"""MAML of wide networks without copies of their weights, held against plain differentiation."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mlkernels import tasks
from mlkernels.inner_loop.wide_mlp import WIDE, network_of
from mlkernels.learners import maml, meta_gradient, wide_gradient
from mlkernels.learners.problem import Problem
from mlkernels.metantk import empirical_metantk
from mlkernels.metantk.empirical import wide_metantk, wide_rows
from mlkernels.networks import MLP, Conv4

BATCH = tasks.random_labels(tasks=3, support=4, queries=5, dimension=6, key=jax.random.key(0))


def one_hot(batch):
    """The same tasks with three classes."""
    return tasks.TaskBatch(
        batch.support_x, jnp.eye(3)[jnp.arange(12).reshape(3, 4) % 3], batch.query_x,
        jnp.eye(3)[jnp.arange(15).reshape(3, 5) % 3],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("network", "loss"),
    [
        (MLP(16), "half_sum_squares"),
        (MLP(16, depth=1, b_std=0.0), "mean_squares"),
        (MLP((12, 9, 7), depth=3, activation="tanh", parametrization="standard"), "half_sum_squares"),
        (MLP(16, outputs=3, w_std=1.1, last_w_std=0.7), "cross_entropy"),
    ],
    ids=str,
)
def test_it_is_the_gradient_by_plain_differentiation(network, loss):
    batch = one_hot(BATCH) if network.outputs == 3 else BATCH
    params = network.init(jax.random.key(1), (6,), jnp.float64)
    inner = maml.InnerLoop(0.07, 3, loss=loss)
    outer = "cross_entropy" if loss == "cross_entropy" else "half_sum_squares"
    problem = Problem(network.apply, inner, outer)
    found = jax.jit(wide_gradient.value_and_gradient, static_argnums=0)(problem, params, 0.07, batch)
    expected = maml.meta_gradient(network.apply, params, batch, inner, outer_loss=outer)
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-13), found, expected)


def test_wide_networks_take_it_and_nothing_changes():
    network, inner = MLP(WIDE, depth=1), maml.InnerLoop(0.05, 2)
    params = network.init(jax.random.key(2), (6,), jnp.float64)
    problem = Problem(network.apply, inner, "half_sum_squares", "mean")
    assert wide_gradient.fits(problem, params, 0.05, BATCH)
    found = maml.meta_gradient(network.apply, params, BATCH, inner, reduce="mean")
    expected = jax.value_and_grad(lambda params: meta_gradient.value(problem, params, 0.05, BATCH))(params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12), found, expected)


@pytest.mark.parametrize("outputs", ["sum", "full"])
def test_it_is_the_metantk_by_the_jacobian(outputs):
    network = MLP((12, 9), outputs=2, activation="tanh")
    params = network.init(jax.random.key(3), (6,), jnp.float64)
    batch = tasks.TaskBatch(*(jnp.concatenate([y, -2 * y], -1) if y.shape[-1] == 1 else y
                              for y in (BATCH.support_x, BATCH.support_y, BATCH.query_x, BATCH.query_y)))  # fmt: skip
    found = wide_metantk(network, params, batch, 0.07, 3, outputs)
    expected = empirical_metantk(network.apply, params, batch, inner_rate=0.07, inner_steps=3, outputs=outputs)
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)


def test_a_wide_network_takes_the_thin_metantk():
    network = MLP(WIDE, depth=1)
    params = network.init(jax.random.key(4), (6,), jnp.float64)
    one = tasks.TaskBatch(*(leaf[:1, :2] for leaf in jax.tree.leaves(BATCH)))
    assert network_of(network.apply, params, one, 2 * wide_rows(one, 2, "sum")) is not None
    found = empirical_metantk(network.apply, params, one, inner_rate=0.05, inner_steps=2)
    plain = empirical_metantk(lambda p, x: network.apply(p, x), params, one, inner_rate=0.05, inner_steps=2)
    np.testing.assert_allclose(found, plain, rtol=1e-10)


EDGES = {
    "no steps": {"steps": 0},
    "no steps, no biases, one output of one layer": {"steps": 0, "b_std": 0.0},
    "no steps of first order": {"steps": 0, "first_order": True},
    "one point, one task": {"points": 1, "tasks": 1},
    "no support points": {"points": 0},
    "three outputs": {"outputs": 3},
    "first order": {"first_order": True},
    "float32": {"dtype": jnp.float32, "inputs": jnp.float32},
    "parameters of 32 bits, inputs of 64": {"dtype": jnp.float32},
    "parameters of 64 bits, inputs of 32": {"inputs": jnp.float32},
    "whole numbers for inputs": {"inputs": jnp.int32},
    "images": {"shape": (1, 3, 2)},
    "a layer that nobody uses": {"more": {"spare": {"w": jnp.ones(2)}}},
}


@pytest.mark.parametrize("edge", EDGES.values(), ids=EDGES)
def test_a_wide_network_has_every_edge_that_a_narrow_one_has(edge):
    s = {"steps": 2, "points": 2, "tasks": 2, "outputs": 1, "b_std": 0.1, "first_order": False, "shape": (6,),
         "dtype": jnp.float64, "inputs": jnp.float64, "more": {}} | edge  # fmt: skip
    network = MLP(WIDE, depth=1, outputs=s["outputs"], b_std=s["b_std"])
    params = network.init(jax.random.key(5), s["shape"], s["dtype"]) | s["more"]
    keys = jax.random.split(jax.random.key(6), 4)
    sizes = [(s["tasks"], count, *last) for count in (s["points"], 2) for last in (s["shape"], (s["outputs"],))]
    batch = tasks.TaskBatch(*map(jax.random.normal, keys, sizes))
    as_asked = (5 * batch.support_x).astype(s["inputs"]), batch.support_y, (5 * batch.query_x).astype(s["inputs"])
    batch = tasks.TaskBatch(*as_asked, batch.query_y)
    inner = maml.InnerLoop(0.003, s["steps"], first_order=s["first_order"])

    def plain(params, x):
        return network.apply(params, x)

    kernel = {"inner_rate": np.float64(0.003), "inner_steps": s["steps"]}
    # An exception to strict promotion: inputs and parameters of different types are some of the edges.
    with jax.numpy_dtype_promotion("standard"):
        by = [
            (maml.meta_gradient(apply, params, batch, inner), empirical_metantk(apply, params, batch, **kernel))
            for apply in (network.apply, plain)
        ]
    near = 1e-4 if s["dtype"] == jnp.float32 else 1e-9
    assert jax.tree.structure(by[0]) == jax.tree.structure(by[1])
    for one, other in zip(*map(jax.tree.leaves, by), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_allclose(one, other, rtol=near, atol=near)


def test_a_wide_network_is_fitted_without_inner_steps():
    network = MLP(WIDE, depth=1)
    params = network.init(jax.random.key(7), (6,), jnp.float64)
    found = maml.fit(network.apply, params, BATCH, maml.InnerLoop(0.01, 0), optax.sgd(1e-3), steps=2)
    assert found.losses[1] < found.losses[0]


def test_what_it_cannot_do_is_left_to_plain_differentiation():
    wide = MLP(1024)

    def params_of(network):
        shape = (16, 16, 1) if isinstance(network, Conv4) else (6,)
        return jax.eval_shape(lambda: network.init(jax.random.key(0), shape, jnp.float64))

    def fits(network=wide, rates=0.05, with_rates=False, **settings):
        inner = maml.InnerLoop(**{"rate": 0.05, "steps": 2} | settings)
        problem = Problem(network.apply, inner, "half_sum_squares", learn_rates=with_rates)
        return wide_gradient.fits(problem, params_of(network), rates, BATCH)

    assert fits()
    assert not fits(network=MLP(64))
    assert not fits(network=MLP((1024, 64)))
    assert not fits(network=Conv4(1024))
    assert not fits(rates={"head": 0.05})
    assert not fits(with_rates=True)
    for setting in ({"adapt": ("head",)}, {"first_order": True}, {"l2": 0.1}, {"steps": 1000}):
        assert not fits(**setting), setting
    other = Problem(lambda params, x: x, maml.InnerLoop(0.05, 2), "half_sum_squares")
    assert not wide_gradient.fits(other, params_of(wide), 0.05, BATCH)
