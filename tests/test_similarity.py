"""Similarity of features: CKA against its definition and its invariances."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlkernels.errors import InputError
from mlkernels.learners.similarity import layer_features, linear_cka
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
