"""Attacks: gradients against finite differences, PGD against exact maximisers, the black box against a plain loop."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlkernels.errors import InputError
from mlkernels.learners import attacks, maml
from mlkernels.networks import MLP

NETWORK = MLP(8, outputs=3, activation="tanh")
PARAMS = NETWORK.init(jax.random.key(1), (6,))
X = np.random.default_rng(0).uniform(size=(4, 6))  # four points of six pixels
LABELS = np.eye(3)[[0, 1, 2, 0]]
BALL = 0.1


def loss(x):
    return -jnp.sum(LABELS * jax.nn.log_softmax(NETWORK.apply(PARAMS, x)))


def probability(x):
    """Of class 0, for one point of six pixels."""
    return jax.nn.softmax(NETWORK.apply(PARAMS, x.reshape(1, 6)))[0, 0]


# --- the gradient's sign ----------------------------------------------------------------------------------------------


def test_fgsm_goes_where_finite_differences_say():
    value, h = jax.jit(loss), 1e-6
    slopes = np.zeros(X.shape)
    for i in np.ndindex(X.shape):
        bump = np.zeros(X.shape)
        bump[i] = h
        slopes[i] = (value(X + bump) - value(X - bump)) / (2 * h)
    np.testing.assert_allclose(jax.grad(loss)(jnp.asarray(X)), slopes, atol=1e-8)
    assert np.abs(slopes).min() > 1e-6  # no sign hangs on rounding
    found = attacks.fgsm(loss, X, radius=BALL)
    np.testing.assert_array_equal(found, np.clip(X + BALL * np.sign(slopes), 0, 1))
    assert value(found) > value(X)


def test_one_step_of_pgd_as_long_as_the_radius_is_fgsm():
    one = attacks.pgd(loss, X, radius=BALL, step=BALL, steps=1)
    np.testing.assert_allclose(one, attacks.fgsm(loss, X, radius=BALL), rtol=0, atol=1e-15)
    assert loss(attacks.pgd(loss, X, radius=BALL, step=BALL / 4)) >= loss(one)
    np.testing.assert_array_equal(attacks.pgd(loss, X, radius=BALL, steps=0), X)
    np.testing.assert_array_equal(attacks.pgd(loss, X, radius=0.0), X)


@pytest.mark.parametrize("key", [None, jax.random.key(3)], ids=["from x", "from a random point"])
def test_on_a_linear_function_pgd_finds_the_corner_of_ball_and_box(key):
    slopes = np.random.default_rng(1).normal(size=X.shape)
    found = attacks.pgd(lambda x: jnp.sum(slopes * x), X, radius=0.3, step=0.07, steps=10, key=key)
    best = np.where(slopes > 0, np.minimum(X + 0.3, 1), np.maximum(X - 0.3, 0))
    assert (best == 1).any()
    assert (best == 0).any()
    np.testing.assert_allclose(found, best, rtol=0, atol=1e-15)


def test_ball_and_box_are_never_left():
    low, high = 0.05, 0.9
    x = np.clip(X, low, high)

    @jax.jit
    def end(radius, step, key):
        return attacks.pgd(loss, x, radius=radius, step=step, steps=5, key=key, low=low, high=high)

    for seed, (radius, step) in enumerate([(0.0, 0.1), (0.01, 0.5), (0.1, 0.03), (0.5, 0.4), (3.0, 1.0), (9.0, 1e-3)]):
        found = np.asarray(end(radius, step, jax.random.key(seed)))
        assert np.abs(found - x).max() <= radius + 1e-15
        assert low <= found.min() <= found.max() <= high


def test_an_infinite_box_is_none():
    x = 5 * X - 10
    found = attacks.pgd(lambda x: jnp.sum(x), x, radius=2.0, step=1.0, low=-np.inf, high=np.inf)
    np.testing.assert_allclose(found, x + 2, rtol=1e-15)


def test_the_random_start_is_the_keys_and_in_the_whole_ball():
    def start(seed):
        return attacks.pgd(jnp.sum, np.full(2000, 0.05), radius=0.1, steps=0, key=jax.random.key(seed))

    np.testing.assert_array_equal(start(0), start(0))
    assert (start(0) != start(1)).any()
    found = np.asarray(start(0))
    np.testing.assert_allclose((found == 0).mean(), 0.25, atol=0.04)  # a quarter of the ball is outside of the box
    np.testing.assert_allclose((found > 0.1).mean(), 0.25, atol=0.04)
    assert found.max() > 0.149


def test_support_and_query_are_attacked_together_through_the_inner_loop():
    inner = maml.InnerLoop(0.1, 2, "cross_entropy")
    x = {"support": X[:2], "query": X[2:]}

    def query_loss(support, query):
        theta = maml.adapt(NETWORK.apply, PARAMS, support, LABELS[:2], inner)
        return -jnp.sum(LABELS[2:] * jax.nn.log_softmax(NETWORK.apply(theta, query)))

    def value(x):
        return query_loss(x["support"], x["query"])

    def both(key):
        return attacks.pgd(value, x, radius=BALL, step=BALL / 2, steps=4, key=key)

    found = jax.jit(both)(jax.random.key(0))
    assert jax.tree.structure(found) == jax.tree.structure(x)
    assert all(0 < np.abs(found[part] - x[part]).max() <= BALL + 1e-15 for part in x)
    alone = attacks.pgd(lambda query: query_loss(X[:2], query), X[2:], radius=BALL, step=BALL / 2, steps=4)
    assert value(found) > query_loss(X[:2], alone) > value(x)
    signs = jax.grad(value)(jax.tree.map(jnp.asarray, x))
    for part, moved in attacks.fgsm(value, x, radius=BALL).items():
        np.testing.assert_array_equal(moved, np.clip(x[part] + BALL * np.sign(signs[part]), 0, 1))


def test_leaves_start_at_points_of_their_own():
    x = {"a": np.full(3, 0.5), "b": np.full(3, 0.5)}
    found = attacks.pgd(lambda x: jnp.sum(x["a"]), x, radius=0.1, steps=0, key=jax.random.key(0))
    assert (found["a"] != found["b"]).all()


def test_another_radius_or_step_compiles_nothing_anew():
    traced = []

    def value(x):
        traced.append(1)
        return loss(x)

    attack = jax.jit(lambda radius, step: attacks.pgd(value, X, radius=radius, step=step, steps=3))
    attack(0.1, 0.05)
    before = len(traced)
    found = attack(0.2, 0.1)
    assert len(traced) == before
    np.testing.assert_allclose(found, attacks.pgd(loss, X, radius=0.2, step=0.1, steps=3), rtol=0, atol=1e-14)


def test_vmap_over_radii_points_and_keys():
    radii, keys = jnp.array([0.05, 0.1]), jax.random.split(jax.random.key(0), 2)

    def one(x, label, radius, key):
        def value(x):
            return -jnp.sum(label * jax.nn.log_softmax(NETWORK.apply(PARAMS, x[None]))[0])

        return attacks.pgd(value, x, radius=radius, step=0.03, steps=3, key=key)

    found = jax.vmap(one)(X[:2], LABELS[:2], radii, keys)
    for i in range(2):
        np.testing.assert_allclose(found[i], one(X[i], LABELS[i], radii[i], keys[i]), rtol=0, atol=1e-14)


def test_single_precision_stays_and_bounds_are_those_of_single_precision():
    x = np.full(3, 0.3, np.float32)  # as a double, it lies above 0.3
    for found in (
        attacks.fgsm(lambda x: -jnp.sum(x), x, radius=0.1, high=0.3),
        attacks.pgd(lambda x: -jnp.sum(x), x, radius=np.float64(0.1), high=0.3, key=jax.random.key(0)),
        attacks.random_pixels(jnp.sum, x, key=jax.random.key(0), step=jnp.asarray(0.1), high=0.3).x,
        jax.jit(lambda radius: attacks.pgd(lambda x: -jnp.sum(x), x, radius=radius, high=0.31))(np.float64(0.1)),
    ):
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, 0.2, rtol=1e-6)


def test_a_gradient_of_zero_moves_nothing_and_one_of_nan_is_seen():
    np.testing.assert_array_equal(attacks.fgsm(lambda x: 1.0, X, radius=BALL), X)
    for attack in (attacks.fgsm, attacks.pgd):
        found = attack(lambda x: jnp.sqrt(x[0] - 1) + x[1], np.array([0.5, 0.5]), radius=BALL)
        assert np.isnan(found[0])


# --- the black box ----------------------------------------------------------------------------------------------------


def plain_loop(probability, x, order, step):
    """The attack as its authors wrote it: one image, one pixel after another."""
    x, last, accepted, calls = x.copy(), float(probability(x)), 0, 1
    history = [last]
    for i in order:
        diff = np.zeros(x.size)
        diff[i] = step
        for sign in (-1, 1):
            moved = np.clip(x + sign * diff.reshape(x.shape), 0, 1)
            now, calls = float(probability(moved)), calls + 1
            if now < last:
                x, last, accepted = moved, now, accepted + 1
                break
        history.append(last)
    return x, history, accepted, calls


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("queries", [None, 4, 0, 100])
def test_the_black_box_is_the_plain_loop(seed, queries):
    x, key = X[seed].reshape(3, 2), jax.random.key(seed)
    found = attacks.random_pixels(probability, x, key=key, queries=queries)
    order = np.asarray(jax.random.permutation(key, 6))[:queries]
    expected, history, accepted, calls = plain_loop(jax.jit(probability), x, order, 0.2)
    np.testing.assert_allclose(found.x, expected, rtol=0, atol=1e-15)
    np.testing.assert_allclose(found.probability, history, rtol=1e-12)
    assert (int(found.accepted), int(found.calls)) == (accepted, calls)


def wide(x):
    """A probability that falls with some pixels and rises with others."""
    return jax.nn.sigmoid(jnp.sum(jnp.cos(jnp.arange(40.0)) * x))


@pytest.mark.parametrize(("step", "queries"), [(0.2, None), (0.5, 25), (3.0, None)])
def test_the_probability_never_rises_and_the_distance_is_bounded(step, queries):
    x = np.random.default_rng(2).uniform(size=40)
    found = attacks.random_pixels(wide, x, key=jax.random.key(0), step=step, queries=queries)
    history = np.asarray(found.probability)
    moved = np.abs(found.x - x)
    assert history.shape == (1 + (queries or 40),)
    assert (np.diff(history) <= 0).all()
    np.testing.assert_allclose(history[[0, -1]], [wide(x), wide(found.x)], rtol=1e-12)
    assert (moved > 0).sum() == int(found.accepted) <= len(history) - 1
    assert moved.max() <= step + 1e-15
    assert np.linalg.norm(moved) <= step * np.sqrt(int(found.accepted)) + 1e-12
    assert 0 <= found.x.min() <= found.x.max() <= 1
    assert len(history) <= int(found.calls) <= 2 * len(history) - 1


def test_the_order_is_the_keys_alone():
    """One pixel after another is found out by how far few queries get, for two functions and two points."""

    def touched(probability, x, seed):
        found = [attacks.random_pixels(probability, x, key=jax.random.key(seed), queries=n).x for n in range(1, 6)]
        ways = np.diff(np.stack([x, *found]), axis=0)
        return np.abs(ways).argmax(1).tolist()

    first = touched(jnp.sum, np.full(20, 0.5), 0)
    assert len(set(first)) == 5
    assert touched(lambda x: -jnp.sum(x**3), np.full(20, 0.3), 0) == first
    assert touched(jnp.sum, np.full(20, 0.5), 1) != first


@pytest.mark.parametrize("constant", [0.5, np.nan])
def test_a_constant_accepts_nothing(constant):
    found = attacks.random_pixels(lambda x: constant, X[0], key=jax.random.key(0))
    np.testing.assert_array_equal(found.x, X[0])
    assert (int(found.accepted), int(found.calls)) == (0, 13)
    np.testing.assert_array_equal(found.probability, np.full(7, constant))


def test_a_move_to_nan_is_not_made():
    found = attacks.random_pixels(
        lambda x: jnp.where(x[0] < 0.5, jnp.nan, 1 - x[0]), np.array([0.5]), key=jax.random.key(0)
    )
    np.testing.assert_allclose([found.x[0], found.probability[-1]], [0.7, 0.3])


def test_many_points_under_vmap_and_jit():
    keys = jax.random.split(jax.random.key(0), 4)

    @jax.jit
    def together(x, step):
        return jax.vmap(lambda x, key: attacks.random_pixels(probability, x, key=key, step=step))(x, keys)

    found = together(X, 0.2)
    assert found.x.shape == X.shape
    for i in range(4):
        alone = attacks.random_pixels(probability, X[i], key=keys[i])
        for many, one in zip(found, alone, strict=True):
            np.testing.assert_allclose(many[i], one, rtol=1e-12)


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"radius": -0.1}, "radius: expected a finite number of at least 0, got -0.1"),
        ({"radius": np.inf}, "radius: expected a finite number"),
        ({"radius": "0.1"}, "radius: expected a finite number of at least 0, got '0.1'"),
        ({"radius": True}, "radius: expected a finite number"),
        ({"radius": np.ones(2)}, r"radius: .* got an array \[2\]"),
        ({"low": 1.0}, "low: expected a number below high = 1.0, got 1.0"),
        ({"low": np.nan}, "low: expected a number, got nan"),
        ({"high": 0.5}, "x: expected values from low = 0 to high = 0.5"),
        ({"x": np.array([0.5, np.nan])}, "x: expected values from low = 0 to high = 1, got nan to nan"),
        ({"x": {"a": X, "b": X + 1}}, "x: expected values"),
        ({"x": np.array([0, 1])}, "x: expected floats, got int64"),
        ({"x": {}}, "x: expected an array or a pytree of arrays"),
        ({"value": lambda x: x}, r"value: expected a function that gives a scalar of floats, got float64\[4, 6\]"),
        ({"value": lambda x: 1}, r"value: .* got int64\[\]"),
    ],
)
@pytest.mark.parametrize("attack", [attacks.fgsm, attacks.pgd])
def test_bad_input_is_refused(attack, change, said):
    with pytest.raises(InputError, match=said):
        attack(**({"value": loss, "x": X, "radius": BALL} | change))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"step": 0}, "step: expected a finite number above 0, got 0"),
        ({"step": np.nan}, "step: expected a finite number above 0, got nan"),
        ({"steps": 2.0}, "steps: expected a whole number of at least 0, got 2.0"),
        ({"steps": -1}, "steps: expected a whole number"),
    ],
)
def test_bad_steps_are_refused(change, said):
    with pytest.raises(InputError, match=said):
        attacks.pgd(loss, X, radius=BALL, **change)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"x": {"a": X[0]}}, "x: expected one point as an array, got dict"),
        ({"x": X[0] + 1}, "x: expected values from low = 0"),
        ({"x": np.arange(6)}, "x: expected floats"),
        ({"step": -0.2}, "step: expected a finite number above 0"),
        ({"queries": -1}, "queries: expected a whole number of at least 0, got -1"),
        ({"queries": 2.5}, "queries: expected a whole number"),
        ({"low": 2.0}, "low: expected a number below high"),
        ({"probability": lambda x: x}, r"probability: expected a function that gives a scalar of floats, got float64"),
    ],
)
def test_a_bad_black_box_is_refused(change, said):
    with pytest.raises(InputError, match=said):
        attacks.random_pixels(**({"probability": probability, "x": X[0], "key": jax.random.key(0)} | change))


def test_a_traced_array_of_radii_is_refused_by_its_shape():
    with pytest.raises(InputError, match=r"radius: .* got an array \[2\]"):
        jax.jit(lambda radius: attacks.fgsm(loss, X, radius=radius))(jnp.ones(2))
