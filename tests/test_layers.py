"""The empirical NTK layer by layer, for networks of every kind: against whole Jacobians, and which layers are found."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from mlkernels import kernels
from mlkernels.kernels import layers
from mlkernels.networks import MLP, Conv4

N1, N2, K = 4, 3, 3


def drawn(key, **shapes):
    """Parameters of these shapes."""
    keys = jax.random.split(jax.random.key(key), len(shapes))
    return {name: jax.random.normal(k, shape) for k, (name, shape) in zip(keys, shapes.items(), strict=True)}


def headed(h, p):
    """The outputs of a last dense layer without bias."""
    return h.reshape(len(h), -1) @ p["head"]


# Each by hand: parameters, input's shape, apply, and the names of the parameters that are no layers.
NETS = {}


def net(shape, rest=(), **shapes):
    def keep(apply):
        NETS[apply.__name__] = (apply, drawn(1, **shapes), shape, set(rest))
        return apply

    return keep


@net((5,), w=(5, 7), b=(7,), head=(7, K))
def dense(p, x):
    return headed(jnp.tanh(0.3 * x @ p["w"] + 0.1 * p["b"][None]), p)


@net((5,), w=(7, 5), b=(7, 1), head=(7 * K,))
def turned_and_reshaped(p, x):
    w = (2 * p["w"].T / jnp.sqrt(5.0)).reshape(5, 7)
    h = jnp.tanh(x @ -w + p["b"].reshape(1, 7))
    return h @ p["head"].reshape(K, 7).T


@net((5,), w=(5, 5), v=(5, 5), head=(5, K))
def residual(p, x):
    h = x + jnp.tanh(x @ p["w"])
    h = h + jax.nn.relu(h @ p["v"])
    return headed(h, p)


@net((5,), rest=["w"], w=(5, 5), b=(5,), head=(5, K))
def shared_layer(p, x):
    for _ in range(2):
        x = jnp.tanh(x @ p["w"])
    return headed(x + p["b"][None], p)


@net((5,), a=(5, 6), b=(5, 6), head=(6, K))
def shared_input(p, x):
    return headed(jnp.tanh(x @ p["a"]) * (x @ p["b"]), p)


@net((5,), rest=["w"], w=(5, 5), head=(5, K))
def tied(p, x):
    return headed(jnp.tanh(x @ p["w"]) @ p["w"].T, p)


@net((5,), rest=["w", "s", "u"], w=(5, 5), s=(), u=(1,), head=(5, K))
def other_ways(p, x):
    return headed(jnp.tanh(x @ jnp.exp(0.1 * p["w"])) * p["s"] + jnp.sum(p["u"]), p)


@net((5,), rest=["mask"], w=(5, 5), mask=(5, 5), head=(5, K))
def product_of_two(p, x):
    return headed(jnp.tanh(x @ (p["w"] * jnp.sin(p["mask"]))), p)


@net((5,), w=(5, 6), unused=(3, 3, 3), head=(6, K))
def an_unused_leaf(p, x):
    return headed(jnp.tanh(x @ p["w"]), p)


@net((5,), rest=["stopped"], w=(5, 6), stopped=(6,), head=(6, K))
def a_stopped_leaf(p, x):
    return headed(jnp.tanh(x @ p["w"] + lax.stop_gradient(p["stopped"])[None]), p)


@jax.custom_vjp
def _clipped(x):
    return jnp.clip(x, -1.0, 1.0)


_clipped.defvjp(lambda x: (_clipped(x), x), lambda x, g: (jnp.where(jnp.abs(x) < 2, 0.5 * g, 0),))


@net((5,), w=(5, 6), b=(6,), head=(6, K))
def custom_vjp(p, x):
    return headed(_clipped(x @ p["w"] + p["b"][None]), p)


@net((5,), rest=["w"], w=(5, 5), head=(5, K))
def within_a_custom_rule(p, x):
    @jax.custom_jvp
    def layer(x, w):
        return jnp.tanh(x @ w)

    layer.defjvp(lambda args, dots: (layer(*args), 2 * dots[0] @ args[1] + 3 * args[0] @ dots[1]))
    return headed(layer(x, p["w"]), p)


@net((5,), w=(5, 6), b=(6,), head=(6, K))
def jitted_and_checkpointed(p, x):
    layer = jax.jit(lambda x, w, b: jnp.tanh(x @ w + b[None]))
    return headed(jax.checkpoint(lambda x, p: layer(x, p["w"], p["b"]))(x, p), p)


@net((5,), rest=["stack"], stack=(3, 5, 5), head=(5, K))
def scanned(p, x):
    h, _ = lax.scan(lambda h, w: (jnp.tanh(h @ w), None), x, p["stack"])
    return headed(h, p)


@net((5,), w=(5, 6), scale=(6,), shift=(6,), head=(6, K))
def layer_norm(p, x):
    h = x @ p["w"]
    h = (h - h.mean(1, keepdims=True)) / jnp.sqrt(h.var(1, keepdims=True) + 1e-3)
    return headed(jnp.tanh(p["scale"][None] * h + p["shift"][None]), p)


@net((6, 5), q=(2, 5, 4), k=(2, 5, 4), v=(2, 5, 4), out=(2, 4, 5), scale=(5,), head=(30, K))
def attention(p, x):
    q, k, v = (jnp.einsum("ntd,hde->nhte", x, p[name]) for name in "qkv")
    weights = jax.nn.softmax(jnp.einsum("nhte,nhse->nhts", q, k))
    out = jnp.einsum("nhts,nhse,hed->ntd", weights, v, p["out"])
    return headed(jnp.tanh(out * p["scale"][None, None]), p)


@net((3, 4, 5), w=(3, 5, 6), b=(3, 6), head=(72, K))
def groups_of_dense(p, x):
    h = lax.dot_general(p["w"], x, (((1,), (3,)), ((0,), (1,))))  # the weight on the left: [group, out, N, place]
    return headed(jnp.tanh(h.transpose(2, 3, 0, 1) + p["b"][None, None]), p)


def convolved(x, w, dims=("NHWC", "HWIO", "NHWC"), strides=(1, 1), padding="SAME", **how):
    return lax.conv_general_dilated(x, w, strides, padding, dimension_numbers=dims, **how)


@net((7, 6, 4), w=(3, 3, 2, 6), b=(6,), v=(2, 3, 6, 4), head=(36, K))
def grouped_and_dilated(p, x):
    h = jnp.tanh(convolved(x, p["w"], feature_group_count=2) + p["b"][None, None, None])
    h = jnp.tanh(convolved(h, p["v"], strides=(2, 1), padding=((1, 0), (2, 1)), rhs_dilation=(2, 3)))
    return headed(h, p)


@net((4, 5, 3), w=(3, 2, 6, 3), v=(3, 3, 1, 6), head=(90, K))
def transposed_and_depthwise(p, x):
    w = 0.5 * p["w"].transpose(0, 1, 3, 2)[::-1]
    h = jnp.tanh(convolved(x, w, lhs_dilation=(2, 1), padding=((1, 1), (1, 0))))
    return headed(jnp.tanh(convolved(h, p["v"], feature_group_count=6, padding="VALID")), p)


@net((2, 8), w=(4, 2, 3), b=(4,), head=(32, K))
def along_a_line(p, x):
    h = lax.conv_general_dilated(x, p["w"], (1,), "SAME", dimension_numbers=("NCH", "OIH", "NCH"))
    return headed(jnp.tanh(h + p["b"][None, :, None]), p)


@net((9, 9, 2), w=(9, 9, 2, 8), head=(8, K))
def a_window_as_large_as_the_image(p, x):
    return headed(jnp.tanh(convolved(x, p["w"], padding="VALID")), p)


@net((5,), rest=["w"], w=(5, 4), head=(4, K), b=(K,))
def a_product_with_itself(p, x):
    return headed(x @ p["w"] @ p["w"].T @ p["w"], p) + p["b"][None]


@net((5,), w=(5, 6), b=(6,), v=(5, 6), c=(6,), d=(6,), head=(6, K))
def biases_of_every_kind(p, x):
    """Less its product; of a product that is used elsewhere, too; of no product."""
    z = x @ p["v"]
    h = jnp.tanh(p["b"][None] - 2 * (x @ p["w"])) + jnp.tanh(z + p["c"][None]) * z
    return headed(h + p["d"][None], p)


@net((5,), w=(5, K), b=(K,), c=(K,))
def two_biases(p, x):
    return jnp.tanh((x @ p["w"] + p["b"][None]) / 3 + p["c"][None])


@net((5,), w=(5, 1), s=(1,), v=(5, 1), t=(1, 1), u=(1,), head=(2, K))
def numbers_that_scale_a_product(p, x):
    """Of one output alone a scale has the shape of a bias."""
    h = jnp.tanh((x @ p["w"]) * p["s"][None]), jnp.tanh(p["t"] * (x @ p["v"]) + p["u"][None])
    return headed(jnp.concatenate(h, 1), p)


@net((4, 5), w=(5, 6), b=(4, 6), head=(24, K))
def a_bias_of_each_place(p, x):
    return headed(jnp.tanh(x @ p["w"] + p["b"][None]), p)


@net((5,), rest=["b"], b=(K,))
def no_input_at_all(p, x):
    return jnp.broadcast_to(p["b"], (len(x), K))


def points(shape):
    keys = jax.random.split(jax.random.key(2), 2)
    return [jax.random.normal(k, (n, *shape)) for k, n in zip(keys, (N1, N2), strict=True)]


def by_definition(apply, params, x1, x2):
    """All kinds of outputs, from the whole Jacobian of one point after the other."""

    def jacobian(x):
        rows = jax.vmap(jax.jacrev(lambda p, one: apply(p, one[None])[0]), (None, 0))(params, x)
        return jnp.concatenate([leaf.reshape(*leaf.shape[:2], -1) for leaf in jax.tree.leaves(rows)], -1)

    whole = jnp.einsum("nkp,mlp->nkml", jacobian(x1), jacobian(x2))
    n, k, m, _ = whole.shape
    return {
        "sum": whole.sum((1, 3)),
        "full": whole.reshape(n * k, m * k),
        "trace": jnp.einsum("nkmk->nm", whole) / k,
    }


def agrees(apply, params, shape, **how):
    x1, x2 = points(shape)
    for other in (None, x2):
        for outputs, wanted in by_definition(apply, params, x1, x1 if other is None else other).items():
            found = kernels.empirical_ntk(apply, params, x1, other, outputs=outputs, **how)
            np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-12 * float(np.abs(wanted).max()))


@pytest.mark.parametrize("name", NETS)
def test_it_is_the_gram_of_the_jacobian(name):
    apply, params, shape, _ = NETS[name]
    agrees(apply, params, shape)


@pytest.mark.parametrize("name", NETS)
def test_the_layers_are_found(name):
    """What is no layer is the named leaves alone; so the quick way is taken for all others."""
    apply, params, shape, rest = NETS[name]
    leaves, tree = jax.tree.flatten(params)
    found = layers.network(lambda leaves, x: apply(tree.unflatten(leaves), x), leaves, points(shape)[0])
    used = {i for i, leaf in enumerate(sorted(params)) if leaf != "unused"}
    assert {sorted(params)[i] for i in found.rest} == rest
    assert {*found.layers, *found.biases} == used - set(found.rest)


@pytest.mark.parametrize("network", [MLP(8, 2, K), MLP(8, 1, K, activation="tanh"), Conv4(4, 2, K)])
def test_of_our_networks_every_leaf_is_a_layer(network):
    shape = (8, 8, 2) if isinstance(network, Conv4) else (5,)
    params = network.init(jax.random.key(0), shape)
    leaves, tree = jax.tree.flatten(params)
    found = layers.network(lambda leaves, x: network.apply(tree.unflatten(leaves), x), leaves, points(shape)[0])
    assert len(found.biases) == len(found.layers) == len(network.layers)
    assert not found.rest
    agrees(network.apply, params, shape)
    agrees(network.apply, params, shape, batch_size=2)


def random_network(seed):
    """A dozen steps drawn at random, of few units, where shapes that differ elsewhere may be the same."""
    rng = np.random.default_rng(seed)
    params, plan, units = {}, [], int(rng.integers(1, 4))
    first = units
    for step in range(rng.integers(3, 13)):
        kind = str(rng.choice(["dense", "again", "bias", "less", "scale", "number", "tanh", "residual", "twice"]))
        name, old = f"p{step}", units
        if kind == "dense":
            units = int(rng.integers(1, 4))
            params[name] = rng.normal(size=(units, old) if step % 2 else (old, units))
        elif kind in ("bias", "less", "scale", "number"):
            params[name] = rng.normal(size=1 if kind == "number" else units)
        elif kind == "again":
            fits = [n for n, w in params.items() if w.shape == (units, units)]
            name = str(rng.choice(fits)) if fits else None
        plan.append((kind, name, float(rng.normal())))
    params["head"] = rng.normal(size=(units, 2))

    def apply(p, x):
        kept = x
        for step, (kind, name, factor) in enumerate(plan):
            if kind == "dense":
                x = factor * (x @ (p[name].T if step % 2 else p[name]))
            elif kind == "again" and name:
                x = x @ (factor * p[name])
            elif kind == "bias":
                x = x + factor * p[name][None]
            elif kind == "less":
                x = p[name].reshape(1, -1) - factor * x
            elif kind in ("scale", "number"):
                x = x * p[name][None]
            elif kind == "tanh":
                kept = x = jnp.tanh(x)
            elif kind == "residual" and kept.shape == x.shape:
                x = x + kept
            elif kind == "twice":
                x = jnp.tanh(x) * x
        return x @ p["head"]

    return apply, jax.tree.map(jnp.asarray, params), (first,)


@given(st.integers(0, 10_000))
@settings(max_examples=8, deadline=None, derandomize=True)
def test_networks_drawn_at_random(seed):
    apply, params, shape = random_network(seed)
    x1, x2 = points(shape)
    wanted = by_definition(apply, params, x1, x2)
    for outputs in ("full", "trace"):
        found = kernels.empirical_ntk(apply, params, x1, x2, outputs=outputs)
        exact = wanted[outputs]
        np.testing.assert_allclose(found, exact, rtol=1e-10, atol=1e-11 * float(np.abs(exact).max()))


def test_one_layer_alone():
    apply, params, shape, _ = NETS["dense"]
    for part in params:
        agrees_with = partial(by_definition, lambda own, x, part=part: apply({**params, part: own}, x), params[part])
        x1, x2 = points(shape)
        for outputs, wanted in agrees_with(x1, x2).items():
            found = kernels.empirical_ntk(apply, params, x1, x2, outputs=outputs, part=part)
            np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", ["dense", "shared_layer", "grouped_and_dilated", "custom_vjp"])
@pytest.mark.parametrize("outputs", kernels.OUTPUTS)
def test_it_is_differentiated_as_the_definition(name, outputs):
    apply, params, shape, _ = NETS[name]
    x1, x2 = points(shape)

    def ours(params):
        return jnp.sin(kernels.empirical_ntk(apply, params, x1, x2, outputs=outputs)).sum()

    def theirs(params):
        return jnp.sin(by_definition(apply, params, x1, x2)[outputs]).sum()

    for one, other in zip(*(jax.tree.leaves(jax.grad(f)(params)) for f in (ours, theirs)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["dense", "shared_layer", "layer_norm", "grouped_and_dilated"])
@pytest.mark.parametrize("outputs", kernels.OUTPUTS)
def test_of_many_parameters_at_once(name, outputs):
    apply, params, shape, _ = NETS[name]
    x1, x2 = points(shape)
    many = [jax.tree.map(lambda leaf, c=c: c * leaf, params) for c in (1.0, 0.5)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *many)
    ntk = partial(kernels.empirical_ntk, apply, outputs=outputs)
    found = jax.vmap(ntk, (0, None, None))(stacked, x1, x2)
    for kernel, one in zip(found, many, strict=True):
        np.testing.assert_allclose(kernel, ntk(one, x1, x2), rtol=1e-10, atol=1e-10)


def test_a_function_of_whole_batches_is_taken_point_by_point():
    """The definition is one of single points, whatever a network does to a batch."""
    params = drawn(1, w=(5, 6), head=(6, K))

    def normalised(p, x):
        h = x @ p["w"]
        return headed(jnp.tanh(h - h.mean(0, keepdims=True) + x.sum()), p)

    agrees(normalised, params, (5,))


@pytest.mark.parametrize("name", ["dense", "shared_layer", "grouped_and_dilated"])
@pytest.mark.parametrize("outputs", kernels.OUTPUTS)
def test_of_no_points_it_is_empty(name, outputs):
    apply, params, shape, _ = NETS[name]
    x1, _ = points(shape)
    k = K if outputs == "full" else 1
    assert kernels.empirical_ntk(apply, params, x1[:0], outputs=outputs).shape == (0, 0)
    assert kernels.empirical_ntk(apply, params, x1[:0], x1, outputs=outputs).shape == (0, N1 * k)


def test_whole_numbers_among_the_parameters_are_constants(key):
    params = {"w": jax.random.normal(key, (5, K)), "shift": jnp.arange(1)}

    def apply(p, x):
        return jnp.tanh(x @ p["w"]) + p["shift"].astype(x.dtype)[None]

    found = kernels.empirical_ntk(apply, params, points((5,))[0])
    alone = kernels.empirical_ntk(lambda p, x: apply({**params, **p}, x), {"w": params["w"]}, points((5,))[0])
    np.testing.assert_array_equal(found, alone)


def test_words_are_looked_up_in_a_table(key):
    params = {"table": jax.random.normal(key, (7, 5)), "head": jax.random.normal(key, (20, K))}
    x = jax.random.randint(key, (N1, 4), 0, 7)

    def apply(p, x):
        return headed(jnp.tanh(p["table"][x]), p)

    for outputs, wanted in by_definition(apply, params, x, x).items():
        found = kernels.empirical_ntk(apply, params, x, outputs=outputs)
        np.testing.assert_allclose(found, wanted, rtol=1e-12)


@pytest.mark.parametrize(
    ("weights", "inputs", "wide"),
    [("float32", "float64", "float64"), ("float64", "float32", "float64"), ("bfloat16", "float32", "float32")],
)
def test_weights_of_another_type(weights, inputs, wide):
    """The kernel has the type of the outputs."""
    params = {name: leaf.astype(weights) for name, leaf in drawn(1, w=(5, 6), head=(6, K)).items()}
    x = points((5,))[0].astype(inputs)

    def apply(p, x):
        return headed(jnp.tanh(x.astype(wide) @ p["w"].astype(wide)), {"head": p["head"].astype(wide)})

    found = kernels.empirical_ntk(apply, params, x)
    assert found.dtype == wide
    exact = {name: leaf.astype(jnp.float64) for name, leaf in params.items()}
    wanted = kernels.empirical_ntk(lambda p, x: headed(jnp.tanh(x @ p["w"]), p), exact, x.astype(jnp.float64))
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_modules_of_equinox():
    """A module's arrays are its parameters; the rest of it stays with the function."""
    import equinox as eqx

    keys = jax.random.split(jax.random.key(0), 4)
    model = eqx.nn.Sequential(
        [
            eqx.nn.Conv2d(2, 4, 3, padding=1, groups=2, key=keys[0]),
            eqx.nn.Lambda(jax.nn.relu),
            eqx.nn.Conv2d(4, 3, (3, 2), stride=2, dilation=2, padding=2, key=keys[1]),
            eqx.nn.Lambda(jnp.ravel),
            eqx.nn.Linear(36, 6, key=keys[2]),
            eqx.nn.LayerNorm(6),
            eqx.nn.Lambda(jnp.tanh),
            eqx.nn.Linear(6, K, key=keys[3]),
        ]
    )
    params, static = eqx.partition(model, eqx.is_inexact_array)

    def apply(params, x):
        return jax.vmap(eqx.combine(params, static))(x)

    leaves, tree = jax.tree.flatten(params)
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):  # its layers promote
        found = layers.network(lambda leaves, x: apply(tree.unflatten(leaves), x), leaves, points((2, 6, 5))[0])
        assert not found.rest
        agrees(apply, params, (2, 6, 5))


def test_modules_of_flax():
    nn = pytest.importorskip("flax.linen")
    model = nn.Sequential(
        [nn.Conv(4, (3, 3)), nn.relu, nn.Conv(6, (3, 3), strides=2, feature_group_count=2),
         lambda h: h.reshape(len(h), -1), nn.Dense(5), nn.LayerNorm(), nn.tanh, nn.Dense(K)]
    )  # fmt: skip
    x = points((6, 5, 2))[0]
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):  # its layers promote
        params = model.init(jax.random.key(0), x)
        params = jax.tree.map(lambda leaf: leaf.astype(x.dtype), params)
        leaves, tree = jax.tree.flatten(params)
        found = layers.network(lambda leaves, x: model.apply(tree.unflatten(leaves), x), leaves, x)
        assert not found.rest
        agrees(model.apply, params, (6, 5, 2))
