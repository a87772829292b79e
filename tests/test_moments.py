"""Moments of the meta-gradient of several inner steps: against MAML, against brute force, against the bound."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from _refused import assert_refused
from jax.flatten_util import ravel_pytree

from mlkernels import tasks
from mlkernels.errors import InputError
from mlkernels.learners import maml, moments
from mlkernels.networks import MLP

NETWORK = MLP(8, activation="tanh")


def one_task():
    batch = tasks.sinusoid(tasks=1, support=4, queries=5, key=jax.random.key(0))
    return NETWORK.init(jax.random.key(1), (1,)), batch


def test_with_the_same_points_in_each_step_it_is_maml():
    params, batch = one_task()
    inner = maml.InnerLoop(0.05, 3, loss="mean_squares")
    loss, gradient = maml.meta_gradient(NETWORK.apply, params, batch, inner, outer_loss="mean_squares")
    same = [jnp.repeat(a, 5, 0) for a in (batch.support_x, batch.support_y)]
    rates = jnp.array([0.05, 0.05, 0.0, 0.05, 0.0])  # a step of rate 0 is none
    got, other = moments.fresh_meta_gradient(NETWORK.apply, params, *same, batch.query_x[0], batch.query_y[0], rates)
    assert float(got) == pytest.approx(float(loss), rel=1e-5)
    np.testing.assert_allclose(ravel_pytree(other)[0], ravel_pytree(gradient)[0], rtol=1e-3, atol=1e-5)


def test_each_step_sees_its_own_points():
    params, _ = one_task()
    steps = tasks.sinusoid(tasks=2, support=3, queries=4, key=jax.random.key(2))
    query, rates = (steps.query_x[0], steps.query_y[0]), np.array([0.1, 0.03])
    _, gradient = moments.fresh_meta_gradient(NETWORK.apply, params, steps.support_x, steps.support_y, *query, rates)

    def loss(params, x, y):
        return ((NETWORK.apply(params, x) - y) ** 2).mean()

    def after(params):
        for x, y, rate in zip(steps.support_x, steps.support_y, rates, strict=True):
            slope = jax.grad(loss)(params, x, y)
            params = jax.tree.map(lambda w, g, rate=float(rate): w - rate * g, params, slope)
        return loss(params, *query)

    expected = ravel_pytree(jax.grad(after)(params))[0]
    np.testing.assert_allclose(ravel_pytree(gradient)[0], expected, rtol=1e-3, atol=1e-5)


def test_moments_are_unbiased():
    rng = np.random.default_rng(0)
    exact, shift, spread = np.array([1.0, -2.0, 0.5]), np.array([0.3, 0.0, 0.0]), np.array([1.0, 2.0, 0.1])
    found = [moments.of(exact + shift + spread * rng.normal(size=(4, 3)), exact) for _ in range(20000)]
    for name, expected in {
        "variance": spread @ spread,
        "bias": 0.09,
        "mean": (exact + shift) @ (exact + shift),
    }.items():
        values = np.array([getattr(m, name) for m in found])
        assert abs(values.mean() - expected) < 5 * values.std() / math.sqrt(len(values)), name
    one = found[0]
    assert one.second == one.mean + one.variance
    assert one.exact == exact @ exact


def test_without_an_exact_gradient_there_is_no_bias_to_tell():
    samples = np.array([[1.0, 2.0], [3.0, 2.0]])
    with_it, without = moments.of(samples, np.zeros(2)), moments.of(samples)
    assert math.isnan(without.bias)
    assert (without.mean, without.variance) == (with_it.mean, with_it.variance)
    with pytest.raises(InputError, match="two draws"):
        moments.of(samples[:1])


def test_the_factor_bounds_every_product_and_the_safe_rate_bounds_the_factor():
    rng = np.random.default_rng(1)
    for steps in (1, 3, 10):
        rate, product = 0.7, np.eye(4)
        for _ in range(steps):
            half = rng.normal(size=(4, 4))
            values, vectors = np.linalg.eigh(half + half.T)
            H = vectors * (values / np.abs(values).max() * 2.0) @ vectors.T  # indefinite, L = 2
            product = (np.eye(4) - rate * H) @ product
        assert np.linalg.norm(product, 2) ** 2 <= moments.factor(rate, 2.0, steps) * (1 + 1e-12)
    attained = np.linalg.norm(np.linalg.matrix_power(np.eye(2) + 0.7 * np.diag([2.0, -2.0]), 3), 2) ** 2
    assert attained == pytest.approx(moments.factor(0.7, 2.0, 3))
    factors = [moments.factor(moments.safe_rate(3.0, n), 3.0, n) for n in (1, 2, 10, 1000, 100000)]
    assert factors == sorted(factors)
    assert factors[-1] < math.exp(0.25)
    assert moments.factor(1.0, 1e3, 1000) == math.inf
    with pytest.raises(InputError, match="above 0"):
        moments.safe_rate(0.0, 1)


def test_below_two_over_l_a_convex_product_does_not_grow():
    rng = np.random.default_rng(2)
    h = 4.0 * rng.binomial(1, 0.25, size=(1000, 20))
    for rate, grows in ((0.49, False), (0.8, True)):
        second = (np.cumprod(1 - rate * h, 1) ** 2).mean(0)
        assert (second[-1] > 1) == grows


def given(**change):
    x, y = jnp.ones((3, 2, 1)), jnp.ones((3, 2, 1))
    common = {"apply": NETWORK.apply, "params": NETWORK.init(jax.random.key(1), (1,)), "support_x": x, "support_y": y}
    return common | {"query_x": x[0], "query_y": y[0], "rates": jnp.full(3, 0.1)} | change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"apply": NETWORK}, "apply: expected a function"),
        ({"params": None}, "params: expected a pytree of floats"),
        ({"params": MLP(8, 3).init(jax.random.key(0), (1,))}, "params: expected a dictionary of the layers"),
        ({"support_x": None}, "support_x: expected an array [N, m, *d] of real numbers"),
        ({"support_x": jnp.ones((3, 2, 2)), "query_x": jnp.ones((2, 2))}, "inputs of width 1, as its weights have"),
        ({"support_y": jnp.ones((3, 4, 1))}, "support_y: expected an array [N, m, k] with m = 2"),
        ({"support_y": 1j * np.ones((3, 2, 1))}, "support_y: expected an array [N, m, k] of real numbers"),
        ({"query_x": jnp.ones((2, 2))}, "query_x: expected an array [n, *d] with d = [1]"),
        ({"query_y": np.full((2, 1), "a")}, "query_y: expected an array [n, k] of real numbers"),
        ({"rates": jnp.full(2, 0.1)}, "rates: expected an array [N] with N = 3"),
        ({"rates": 0.1}, "give it 1 axes"),
        ({"loss": "huber"}, "loss: expected"),
    ],
)
def test_points_that_do_not_fit_together_are_refused(change, said):
    assert_refused(lambda: moments.fresh_meta_gradient(**given(**change)), said)


@pytest.mark.parametrize(
    ("samples", "exact"),
    [(None, None), ("a", None), (np.ones(4), None), ([[1.0], [1.0, 2.0]], None), (np.ones((3, 2)), np.ones(3)),
     (np.ones((3, 2)), 1.0), (1j * np.ones((3, 2)), None), (np.ones((3, 2)), ["a", "b"])],
)  # fmt: skip
def test_samples_that_are_none_are_refused(samples, exact):
    assert_refused(lambda: moments.of(samples, exact), ": expected an array [")
