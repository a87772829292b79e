"""Similarity of features: CKA and CCA against their definitions and their invariances."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from _refused import assert_refused
from scipy.linalg import eigh, subspace_angles

from mlkernels.errors import InputError
from mlkernels.learners.maml import InnerLoop, adapt
from mlkernels.learners.similarity import (
    canonical_correlations,
    cca,
    cca_distance,
    layer_features,
    layer_similarities,
    linear_cka,
)
from mlkernels.networks import MLP, Conv4


def draw(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


def test_it_is_its_definition():
    for p, q in ((3, 4), (40, 30)):  # fewer and more units than points
        a, b = draw(0, 20, p), draw(1, 20, q)
        A, B = a - a.mean(0), b - b.mean(0)
        expected = np.linalg.norm(A.T @ B, "fro") ** 2 / np.linalg.norm(A.T @ A, "fro") / np.linalg.norm(B.T @ B, "fro")
        np.testing.assert_allclose(linear_cka(a, b), expected, rtol=1e-12)
        np.testing.assert_allclose(linear_cka(b, a), expected, rtol=1e-12)


def test_it_does_not_see_rotation_scale_and_shift_but_sees_other_linear_maps():
    a, b = draw(0, 20, 5), draw(1, 20, 4)
    rotation = np.linalg.qr(draw(2, 5, 5))[0]
    np.testing.assert_allclose(linear_cka(a, a), 1.0)
    np.testing.assert_allclose(linear_cka(-3 * a @ rotation + 2.0, a), 1.0)
    np.testing.assert_allclose(linear_cka(-3 * a @ rotation + 2.0, b), linear_cka(a, b))
    assert linear_cka(a * np.array([10, 1, 1, 1, 1]), a) < 0.9


def test_features_that_have_nothing_in_common_give_zero():
    a = np.array([[1.0], [-1.0], [1.0], [-1.0]])
    b = np.array([[1.0], [1.0], [-1.0], [-1.0]])
    assert linear_cka(a, b) == 0.0
    assert 0 < linear_cka(draw(0, 2000, 3), draw(1, 2000, 3)) < 0.01


@pytest.mark.parametrize(
    ("a", "b", "said"),
    [
        (draw(0, 5, 3), draw(1, 6, 3), r"the same n >= 2 points, got \[5, 3\] and \[6, 3\]"),
        (draw(0, 5), draw(1, 5), "linear_cka: expected features"),
        (draw(0, 1, 3), draw(1, 1, 3), "linear_cka: expected features"),
        (draw(0, 5, 3), draw(1, 5, 3) * np.nan, "b: expected finite features"),
        (np.full((5, 3), 0.1), draw(1, 5, 3), "a: expected features that differ between points"),
    ],
)
def test_bad_features_are_named(a, b, said):
    with pytest.raises(InputError, match=said):
        linear_cka(a, b)


# --- canonical correlations -------------------------------------------------------------------------------------------


def related(seed, n, p, q):
    """Features that share something."""
    a = draw(seed, n, p)
    return a + 3.0, np.tanh(a @ draw(seed + 1, p, q)) + draw(seed + 2, n, q)


@pytest.mark.parametrize(("n", "p", "q"), [(60, 5, 5), (60, 7, 3), (40, 2, 9)])
def test_they_are_those_of_the_generalised_eigenproblem(n, p, q):
    """C_ab C_bb^-1 C_ba v = rho^2 C_aa v; and the cosines of the angles between the spans."""
    a, b = related(0, n, p, q)
    A, B = a - a.mean(0), b - b.mean(0)
    squares = eigh(A.T @ B @ np.linalg.solve(B.T @ B, B.T @ A), A.T @ A, eigvals_only=True)[::-1]
    found = canonical_correlations(a, b)
    assert found.shape == (min(p, q),)
    np.testing.assert_allclose(found, np.sqrt(squares[: min(p, q)]), rtol=1e-9)
    np.testing.assert_allclose(found, np.sort(np.cos(subspace_angles(A, B)))[::-1], rtol=1e-9)
    np.testing.assert_allclose(canonical_correlations(b, a), found, rtol=1e-9)
    np.testing.assert_allclose(cca(a, b), found.mean(), rtol=1e-12)
    np.testing.assert_allclose(cca_distance(a, b), 1 - found.mean(), rtol=1e-9)


def test_the_first_is_the_largest_correlation_of_any_two_directions():
    a, b = related(3, 50, 3, 2)
    first = canonical_correlations(a, b)[0]
    for seed in range(50):
        assert abs(np.corrcoef(a @ draw(seed, 3), b @ draw(seed + 100, 2))[0, 1]) <= first + 1e-12
    x = draw(0, 30, 1)
    y = x + draw(1, 30, 1)
    np.testing.assert_allclose(canonical_correlations(x, -y), [np.corrcoef(x[:, 0], y[:, 0])[0, 1]], rtol=1e-12)


def test_they_do_not_see_any_invertible_linear_map():
    a, b = related(0, 60, 5, 4)
    map_a, map_b = draw(7, 5, 5), draw(8, 4, 4)
    for weights in ("mean", "projection"):
        np.testing.assert_allclose(cca(a, a @ map_a + 2.0, weights=weights), 1.0, rtol=1e-12)
    expected = canonical_correlations(a, b)
    np.testing.assert_allclose(canonical_correlations(a @ map_a - 1.0, 1e-3 * b @ map_b), expected, rtol=1e-9)
    assert linear_cka(a @ map_a, a) < 0.9
    assert cca(a, np.hstack([b, a])) == pytest.approx(1.0, rel=1e-12)  # the smaller span lies in the larger one


def test_independent_features_of_many_points_have_next_to_none():
    assert 0 < cca(draw(0, 20_000, 4), draw(1, 20_000, 4)) < 0.03
    assert 0.9 < cca(draw(0, 12, 10), draw(1, 12, 10)) <= 1.0  # of few points any have
    few = canonical_correlations(draw(0, 12, 8), draw(1, 12, 7))
    np.testing.assert_allclose(few[: 8 + 7 - 11], 1.0, rtol=1e-12)
    assert few[8 + 7 - 11] < 1 - 1e-6


def test_dead_repeated_and_dependent_units_change_nothing():
    a, b = related(0, 60, 5, 4)
    more = np.hstack([a, np.full((60, 2), 0.7), a[:, :2], a @ draw(5, 5, 3)])
    for one, other in ((more, b), (b, more)):
        np.testing.assert_allclose(canonical_correlations(one, other), canonical_correlations(a, b), rtol=1e-9)
    single = np.hstack([a[:, :1], 2 * a[:, :1]])
    assert canonical_correlations(single, b).shape == (1,)
    # what float32 leaves of a sum is no direction
    one, other = a.astype(np.float32), b.astype(np.float32)
    wide = jnp.hstack([jnp.asarray(one), jnp.asarray(one @ draw(5, 5, 3).astype(np.float32))])
    assert canonical_correlations(wide, wide).shape == (5,)
    np.testing.assert_allclose(canonical_correlations(wide, other), canonical_correlations(one, other), rtol=1e-5)


def test_rounding_is_no_feature():
    """Fifteen units that are linear in one input, before and after: one function of it, but for rounding."""
    x = np.random.default_rng(0).uniform(-1, 1, (100, 1)).astype(np.float32)
    before, after = (x * draw(seed, 15).astype(np.float32) + np.float32(seed) for seed in (1, 2))
    assert before.dtype == np.float32
    np.testing.assert_allclose(canonical_correlations(before, after), [1.0], rtol=1e-9)
    assert canonical_correlations(before.astype(float), after.astype(float)).shape == (15,)
    assert cca_distance(before.astype(float), after.astype(float)) > 0.3


def test_projection_weights_say_how_much_the_features_use_each_direction():
    a, b = related(0, 60, 3, 3)
    A, B = a - a.mean(0), b - b.mean(0)
    squares, v = eigh(A.T @ B @ np.linalg.solve(B.T @ B, B.T @ A), A.T @ A)
    alpha = np.abs((A @ v).T @ A).sum(1)
    expected = alpha @ np.sqrt(squares) / alpha.sum()
    np.testing.assert_allclose(cca(a, b, weights="projection"), expected, rtol=1e-9)
    # a large direction that is kept, and a small one that is lost
    x, z, lost = np.linalg.qr(draw(4, 400, 4) - draw(4, 400, 4).mean(0))[0].T[:3]
    kept = np.stack([x, 1e-3 * z], 1)
    assert cca(kept, np.stack([x, lost], 1)) == pytest.approx(0.5, abs=1e-12)
    assert cca(kept, np.stack([x, lost], 1), weights="projection") > 0.99
    assert cca(a, b, weights="projection") != pytest.approx(cca(b, a, weights="projection"), rel=1e-6)


@pytest.mark.parametrize("measure", [canonical_correlations, cca, cca_distance])
def test_bad_features_for_cca_are_named(measure):
    with pytest.raises(InputError, match=r"expected features \[n, ...\] of the same n >= 2 points"):
        measure(draw(0, 5, 3), draw(1, 6, 3))
    with pytest.raises(InputError, match="b: expected finite features"):
        measure(draw(0, 5, 3), draw(1, 5, 3) * np.inf)
    with pytest.raises(InputError, match="a: expected features that differ between points"):
        measure(np.ones((5, 3)), draw(1, 5, 3))


def test_unknown_weights_are_named():
    with pytest.raises(InputError, match="weights: expected mean or projection, got 'svd'"):
        cca(draw(0, 5, 3), draw(1, 5, 3), weights="svd")


def test_anil_changes_the_head_alone(key):
    network = MLP(6, activation="tanh")
    params, x = network.init(key, (2,)), jax.random.normal(key, (40, 2))
    adapted = adapt(network.apply, params, x, jnp.sin(3 * x[:, :1]), InnerLoop(0.5, 3, adapt=("head",)))
    for measure, same in ((linear_cka, 1.0), (cca, 1.0), (cca_distance, 0.0)):
        found = layer_similarities(network, params, adapted, x, measure)
        assert list(found) == ["layer1", "layer2", "head"]
        np.testing.assert_allclose([found["layer1"], found["layer2"]], same, atol=1e-12)
        assert abs(found["head"] - same) > 1e-4
    assert found["head"] == cca_distance(network.apply(params, x), network.apply(adapted, x))


# --- layers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("network", "shape", "units"),
    [(MLP((6, 4), activation="tanh"), (3,), (6, 4, 1)), (Conv4(4, 2, 3), (9, 8, 1), (64, 16, 3))],
)
def test_features_of_each_layer(network, shape, units, key):
    @jax.jit
    def everything(key):
        params, x = network.init(key, shape), jax.random.normal(key, (7, *shape))
        return params, layer_features(network, params, x), network.apply(params, x)

    params, found, outputs = everything(key)
    assert [found[name].shape for name in network.layers] == [(7, count) for count in units]
    np.testing.assert_array_equal(found["head"], outputs)
    below, head = np.asarray(found[network.layers[-2]]), jax.tree.map(np.asarray, params["head"])
    by_hand = network.last_w_std / np.sqrt(below.shape[1]) * below @ head["w"] + network.b_std * head["b"]
    np.testing.assert_allclose(by_hand, outputs, rtol=1e-12)


def test_a_network_is_needed():
    with pytest.raises(InputError, match=r"network: expected a network of mlkernels.networks, got Apply"):
        layer_features(MLP(4).apply, {}, jnp.ones((2, 3)))


@pytest.mark.parametrize("bad", [None, "a", [[1.0], [1.0, 2.0]], np.full((8, 2), "a"), 1j * np.ones((8, 2))], ids=str)
def test_features_that_are_none_are_refused_in_one_line(bad):
    for measure in (linear_cka, canonical_correlations, cca, cca_distance):
        assert_refused(lambda measure=measure: measure(draw(0, 8, 2), bad), "b: expected an array of real numbers")


def test_layers_of_something_else_are_refused_in_one_line():
    network, x = MLP(4), draw(0, 8, 2)
    params = network.init(jax.random.key(0), (2,))
    for other in (None, MLP, network.apply):
        assert_refused(lambda other=other: layer_features(other, params, x), "network: expected a network")
    assert_refused(lambda: layer_features(network, None, x), "params: expected a pytree of floats")
    assert_refused(lambda: layer_features(MLP(4, 3), params, x), "params: expected a dictionary of the layers")
    assert_refused(lambda: layer_features(network, params, draw(0, 8, 3)), "inputs of width 2, as its weights have")
    assert_refused(lambda: layer_features(network, params, "a"), "x: expected an array of real numbers")
    assert_refused(lambda: layer_similarities(network, params, params, x, "cka"), "measure: expected a function")
