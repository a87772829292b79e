"""Networks: shapes, the two parametrisations, agreement with stax, refusals."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from _refused import assert_refused

from mlkernels import tasks
from mlkernels.errors import InputError
from mlkernels.kernels import infinite_kernels
from mlkernels.kernels.neural_tangents_bridge import stax
from mlkernels.learners import maml
from mlkernels.networks import MLP, Conv4
from mlkernels.networks.conv3x3 import conv3x3


@pytest.mark.parametrize(
    ("network", "shape"), [(MLP(16, 3, 2), (5,)), (MLP(16), (4, 4, 1)), (Conv4(4, 2, 3), (9, 8, 1))]
)
def test_shapes_and_dtypes(network, shape, key):
    params = network.init(key, shape, jnp.float32)
    assert tuple(params) == network.layers
    assert network.layers[-1] == "head"
    y = network.apply(params, jnp.ones((7, *shape), jnp.float32))
    assert y.shape == (7, network.outputs)
    assert y.dtype == jnp.float32


def test_a_width_for_each_layer_and_tanh(key):
    network = MLP((6, 4), w_std=1.0, activation="tanh", parametrization="standard")
    params, x = network.init(key, (3,)), jax.random.normal(key, (5, 3))
    assert [params[name]["w"].shape for name in network.layers] == [(3, 6), (6, 4), (4, 1)]
    h = x
    for name in ("layer1", "layer2"):
        h = jnp.tanh(h @ params[name]["w"] + params[name]["b"][None])
    outputs = h @ params["head"]["w"] + params["head"]["b"][None]
    np.testing.assert_allclose(network.apply(params, x), outputs, rtol=1e-12)
    assert MLP((8, 8)).init(key, (3,))["layer2"]["w"].tolist() == MLP(8).init(key, (3,))["layer2"]["w"].tolist()


def test_both_parametrisations_are_the_same_function_at_the_start(key):
    x = jax.random.normal(key, (4, 6))
    ntk, standard = MLP(32), MLP(32, parametrization="standard")
    a, b = ntk.init(key, (6,)), standard.init(key, (6,))
    np.testing.assert_allclose(ntk.apply(a, x), standard.apply(b, x), rtol=1e-12)


def stax_outputs(apply, params, x):
    """An exception to strict promotion: neural-tangents leaves axes out and mixes types."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        return apply(params, x)


def test_mlp_is_the_stax_network(key):
    x = jax.random.normal(key, (4, 6))
    network = MLP(32, depth=1, b_std=0.3)
    params = network.init(key, (6,))
    _, apply, _ = stax.serial(stax.Dense(32, W_std=2**0.5, b_std=0.3), stax.Relu(), stax.Dense(1, W_std=1.0, b_std=0.3))
    theirs = [(params["layer1"]["w"], params["layer1"]["b"]), (), (params["head"]["w"], params["head"]["b"])]
    np.testing.assert_allclose(network.apply(params, x), stax_outputs(apply, theirs, x), rtol=1e-12)


def test_conv4_is_the_stax_network(key):
    x = jax.random.normal(key, (3, 8, 8, 2))
    network = Conv4(4, depth=1, b_std=0.3)
    params = network.init(key, (8, 8, 2))
    conv = stax.Conv(4, (3, 3), padding="SAME", W_std=2**0.5, b_std=0.3)
    pool = stax.AvgPool((2, 2), (2, 2))
    _, apply, _ = stax.serial(conv, stax.Relu(), pool, stax.Flatten(), stax.Dense(1, W_std=1.0, b_std=0.3))
    theirs = [
        (params["conv1"]["w"], params["conv1"]["b"][None, None, None]),
        (),
        (),
        (),
        tuple(params["head"].values()),
    ]
    np.testing.assert_allclose(network.apply(params, x), stax_outputs(apply, theirs, x), rtol=1e-10)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: MLP(0), "width: expected a whole number of at least 1, got 0"),
        (lambda: MLP((8, 0)), "width: expected a whole number of at least 1, got (8, 0)"),
        (lambda: MLP((8, 8, 8)), "width: expected one number or depth = 2 of them, got (8, 8, 8)"),
        (lambda: MLP(8, activation="gelu"), "activation: expected relu or tanh, got 'gelu'"),
        (lambda: infinite_kernels(MLP(8, activation="tanh"), jnp.ones((2, 3))), "network.activation: expected 'relu'"),
        (lambda: MLP(8, w_std=-1.0), "w_std: expected"),
        (lambda: MLP(8, parametrization="mup"), "'mup'"),
        (lambda: Conv4(4).init(jax.random.key(0), (8, 8, 1)), "at least 16 pixels"),
        (lambda: Conv4(4).init(jax.random.key(0), (64,)), "(height, width, channels)"),
    ],
)
def test_refusals_say_what_was_expected(make, said):
    with pytest.raises(InputError) as raised:
        make()
    assert said in str(raised.value)


def test_equal_networks_compile_once(key):
    count = 0

    def traced(apply, params, x):
        nonlocal count
        count += 1
        return apply(params, x)

    compiled = jax.jit(traced, static_argnums=0)
    params = MLP(8).init(key, (3,))
    for _ in range(3):
        compiled(MLP(8).apply, params, jnp.ones((2, 3)))
    assert count == 1


def test_the_convolution_and_all_its_derivatives_are_those_of_jaxs_own():
    keys = jax.random.split(jax.random.key(0), 3)
    x, w, g = (jax.random.normal(k, s) for k, s in zip(keys, ((2, 5, 6, 3), (3, 3, 3, 4), (2, 5, 6, 4)), strict=True))

    def plain(x, w):
        return jax.lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    def of(convolution):
        def loss(x, w):
            return jnp.sum(jnp.tanh(convolution(x, w)) * g)

        def length(x, w):
            return sum(jnp.sum(leaf**2) for leaf in jax.grad(loss, (0, 1))(x, w))

        def forwards(function):
            return lambda x, w: jax.jvp(function, (x, w), (jnp.cos(x), jnp.sin(w)))

        gradient, images, networks = jax.grad(loss, (0, 1)), jnp.stack([x, -x]), jnp.stack([w, 2 * w], -1)
        found = [each(x, w) for each in (convolution, gradient, jax.grad(length, (0, 1)), forwards(gradient))]
        several = jax.vmap(jax.vmap(forwards(gradient), (0, None)), (None, 4))(images, networks)
        return found, several, jax.vmap(gradient, (0, 4))(images, networks)

    for one, other in zip(*(jax.tree.leaves(jax.jit(of, static_argnums=0)(c)) for c in (conv3x3, plain)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-9)


def test_a_meta_gradient_leaves_a_compiled_network_as_it_was(key):
    network = Conv4(48, depth=1)
    params, inner = network.init(key, (4, 4, 1)), maml.InnerLoop(0.01, 1)
    apply, x, y = jax.jit(network.apply), jax.random.normal(key, (1, 2, 4, 4, 1)), jnp.ones((1, 2, 1))
    batch = tasks.TaskBatch(x, y, x, y)

    def along(params):
        return jax.jvp(lambda params: apply(params, x[0]), (params,), (params,))

    def value(params):
        return maml.meta_gradient(apply, params, batch, inner, sequential=True)

    value(params)
    outputs, moved = along(params)
    assert outputs.shape == moved.shape == (2, 1)
    (_, gradient), (slope, curved) = jax.jvp(value, (params,), (params,))
    expected = sum(jnp.vdot(g, p) for g, p in zip(*map(jax.tree.leaves, (gradient, params)), strict=True))
    np.testing.assert_allclose(slope, expected, rtol=1e-9)
    assert jax.tree.structure(curved) == jax.tree.structure(params)


@pytest.mark.parametrize("network", [MLP(24), MLP(24, b_std=0.3, parametrization="standard"), Conv4(5, depth=2)])
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32, jnp.float64])
def test_weights_are_jaxs_own_draws_whatever_size_is_compiled(network, dtype, key):
    shape = (12, 12, 1) if isinstance(network, Conv4) else (7,)
    traced = jax.jit(lambda key: network.init(key, shape, dtype))(key)
    for drawn, plain in zip(jax.tree.leaves(network.init(key, shape, dtype)), jax.tree.leaves(traced), strict=True):
        assert drawn.dtype == plain.dtype == dtype
        np.testing.assert_allclose(drawn, plain, rtol=4 * jnp.finfo(dtype).eps)


@pytest.mark.parametrize(("network", "shape"), [(MLP(4), (7,)), (Conv4(4, depth=1), (4, 4, 1))], ids=str)
def test_no_points_have_no_outputs(network, shape, key):
    assert network.apply(network.init(key, shape), jnp.ones((0, *shape))).shape == (0, 1)


@pytest.mark.parametrize(("network", "shape"), [(MLP(3), (2,)), (Conv4(2, 1), (4, 4, 1))])
def test_what_does_not_fit_a_network_is_refused_in_one_line(network, shape, key):
    params, x = network.init(key, shape), np.ones((5, *shape))
    for bad in (None, "a", 1.0, 1j * x, np.full(x.shape, "a")):
        assert_refused(lambda bad=bad: network.apply(params, bad), "x: expected")
    assert_refused(lambda: network.apply(params, np.repeat(x, 2, -1)), "as its weights have")
    assert_refused(lambda: jax.jit(network.apply)(params, np.repeat(x, 2, -1)), "as its weights have")
    deeper = replace(network, depth=network.depth + 1).init(key, shape)
    for bad in (None, {}, {"head": params["head"]}, deeper):
        assert_refused(lambda bad=bad: network.apply(bad, x), "params: expected a dictionary of the layers")
    for layer in (None, {}, {"w": "a"}, {"w": np.ones(3)}, params["head"] | {"b": np.ones(7)}):
        assert_refused(lambda layer=layer: network.apply(params | {"head": layer}, x), "params: expected arrays w")
    assert network.apply(params | {"more": None}, x.tolist()).shape == (5, 1)
