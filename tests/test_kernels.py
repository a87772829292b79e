"""Kernels: against neural-tangents, against the definition, and their properties."""

from __future__ import annotations

import re

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest
from _refused import assert_refused

from mlkernels import kernels
from mlkernels.errors import InputError
from mlkernels.kernels.infinite import blockwise
from mlkernels.kernels.neural_tangents_bridge import nt
from mlkernels.networks import MLP, Conv4
from mlkernels.support import memory

SHAPES = {MLP(24, 2, 3): (6,), Conv4(4, 2, 3): (8, 8, 1)}
NETWORKS = list(SHAPES)


def points(network, key, n):
    return jax.random.normal(key, (n, *SHAPES[network]))


def by_definition(network, params, x1, x2):
    """The NTK from whole Jacobians, `[N1, k, N2, k]`."""
    flat, unravel = jax.flatten_util.ravel_pytree(params)
    J1, J2 = (jax.jacrev(lambda p, x=x: network.apply(unravel(p), x))(flat) for x in (x1, x2))
    return jnp.einsum("nkp,mlp->nkml", J1, J2)


@pytest.mark.parametrize("batch_size", [None, 2, 5])
def test_a_kernel_in_blocks_may_be_compiled_and_differentiated_as_a_whole_one(batch_size, key):
    network = MLP(8, activation="tanh")
    params, x = network.init(key, (6,)), points(NETWORKS[0], key, 5)

    def trace(x, batch_size):
        return kernels.empirical_ntk(network.apply, params, x, batch_size=batch_size).trace()

    found = jax.jit(jax.value_and_grad(trace), static_argnums=1)(x, batch_size)
    for one, other in zip(found, jax.value_and_grad(trace)(x, None), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("batch_size", [None, 2])
@pytest.mark.parametrize("same", [True, False])
def test_empirical_ntk_is_the_gram_of_the_jacobian(network, batch_size, same, key):
    params = network.init(key, SHAPES[network])
    x1 = points(network, key, 5)
    x2 = None if same else points(network, jax.random.key(1), 3)
    whole = by_definition(network, params, x1, x1 if same else x2)
    n2 = 5 if same else 3
    expected = {
        "sum": whole.sum((1, 3)),
        "full": whole.reshape(15, n2 * 3),
        "trace": jnp.einsum("nkmk->nm", whole) / 3,
    }
    for outputs, wanted in expected.items():
        got = kernels.empirical_ntk(network.apply, params, x1, x2, outputs=outputs, batch_size=batch_size)
        np.testing.assert_allclose(got, wanted, rtol=1e-10, atol=1e-12)


@pytest.mark.filterwarnings("ignore:size requires ndarray:DeprecationWarning")
@pytest.mark.parametrize("network", NETWORKS)
def test_empirical_ntk_is_that_of_neural_tangents(network, key):
    params = network.init(key, SHAPES[network])
    x = points(network, key, 4)
    flipped = lambda p, inputs: network.apply(p, inputs)  # noqa: E731
    for axes, outputs in (((-1,), "trace"), ((), "full")):
        theirs = nt.empirical_ntk_fn(flipped, trace_axes=axes, implementation=1)(x, None, params)
        if outputs == "full":
            theirs = theirs.transpose(0, 2, 1, 3).reshape(12, 12)
        ours = kernels.empirical_ntk(network.apply, params, x, outputs=outputs)
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)


def test_empirical_ntk_tends_to_the_infinite_one(key):
    x = jax.random.normal(key, (6, 6))
    nngp, ntk = kernels.infinite_kernels(MLP(1), x)
    errors = {}
    for width in (64, 1024):
        network = MLP(width)
        params = [network.init(k, (6,)) for k in jax.random.split(key, 4)]
        kinds = (kernels.empirical_ntk, ntk), (kernels.empirical_nngp, nngp)
        for kind, limit in kinds:
            found = [jnp.linalg.norm(kind(network.apply, p, x) - limit) / jnp.linalg.norm(limit) for p in params]
            errors[width, kind.__name__] = float(np.mean(found))
    for name in ("empirical_ntk", "empirical_nngp"):
        assert errors[1024, name] < 0.1
        assert errors[1024, name] < errors[64, name] / 2  # width^-1/2 would be a quarter


def test_empirical_nngp_is_the_inner_product_of_features(key):
    network = MLP(32)
    params = network.init(key, (6,))
    x = jax.random.normal(key, (4, 6))
    h = x
    for name in ("layer1", "layer2"):
        h = jax.nn.relu(2**0.5 / h.shape[1] ** 0.5 * h @ params[name]["w"] + 0.1 * params[name]["b"][None])
    expected = h @ h.T / 32 + 0.1**2
    np.testing.assert_allclose(kernels.empirical_nngp(network.apply, params, x), expected, rtol=1e-10)


@pytest.mark.parametrize("network", NETWORKS)
def test_infinite_kernels_are_symmetric_and_positive_semidefinite(network, key):
    """With near and equal points, too, whose eigenvalues are next to zero: to rounding, not to half of the digits."""
    x = points(network, key, 3)
    x = jnp.concatenate([x, x[:1], x[:1] + (1e-9 if isinstance(network, MLP) else 0.1)])
    for kernel in kernels.infinite_kernels(network, x):
        np.testing.assert_allclose(kernel, kernel.T, rtol=1e-12)
        eigenvalues = np.linalg.eigvalsh(kernel)
        assert eigenvalues[0] > -1e-13 * eigenvalues[-1]


def test_infinite_kernels_do_not_depend_on_width_and_work_across_sets(key):
    x1, x2 = jax.random.normal(key, (3, 6)), jax.random.normal(jax.random.key(1), (4, 6))
    wide = kernels.infinite_kernels(MLP(4096), jnp.concatenate([x1, x2])).ntk
    np.testing.assert_allclose(kernels.infinite_kernels(MLP(1), x1, x2).ntk, wide[:3, 3:], rtol=1e-10)


ARCHITECTURES = {
    MLP(1, depth=1): (1,),
    MLP(1, depth=10, b_std=0.0): (6,),
    MLP(1, w_std=1.1, b_std=0.5, last_w_std=1.3): (2, 3),
    Conv4(1, depth=1): (3, 2, 2),
    Conv4(1, depth=2, b_std=0.0): (5, 4, 1),
    Conv4(1, depth=2, w_std=1.1, b_std=0.5, last_w_std=1.3): (4, 4, 3),
}


@pytest.mark.parametrize("network", ARCHITECTURES)
def test_infinite_kernels_are_those_of_neural_tangents(network, key):
    x = jax.random.normal(key, (4, *ARCHITECTURES[network]))
    x1, x2 = x[:3], x.at[0].set(0)
    for ours, theirs in zip(
        kernels.infinite_kernels(network, x1, x2), kernels.by_neural_tangents(network, x1, x2), strict=True
    ):
        scale = float(jnp.abs(theirs).max())
        np.testing.assert_allclose(
            ours, theirs, rtol=0, atol=1e-7 * scale
        )  # where a point meets itself, theirs are off
        meets = np.eye(3, 4, dtype=bool)
        np.testing.assert_allclose(ours[~meets], theirs[~meets], rtol=0, atol=1e-13 * scale)


def diagonal(network, x):
    """NNGP and NTK of each point with itself: no angle enters."""
    nngp = ntk = network.w_std**2 * (x * x).mean(-1) + network.b_std**2
    for w_std in [network.w_std] * (network.depth - 1) + [network.last_w_std]:
        nngp = w_std**2 * nngp / 2 + network.b_std**2
        ntk = nngp + w_std**2 * ntk / 2
    return nngp, ntk


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("depth", [1, 2, 10])
def test_a_point_with_itself_keeps_all_digits(depth, dtype, key):
    network = MLP(1, depth=depth)
    x = jax.random.normal(key, (8, 6), dtype)
    for kernel, exact in zip(
        kernels.infinite_kernels(network, x), diagonal(network, np.asarray(x, np.float64)), strict=True
    ):
        assert kernel.dtype == dtype
        np.testing.assert_allclose(kernel.diagonal(), exact, rtol=20 * np.finfo(dtype).eps)


@pytest.mark.parametrize("network", NETWORKS)
def test_equal_points_are_one_point(network, key):
    x = points(network, key, 3)
    for kernel in kernels.infinite_kernels(network, x[jnp.array([0, 1, 0, 2])], jnp.array(x)):
        np.testing.assert_allclose(kernel[0], kernel[2], rtol=1e-14)
        np.testing.assert_allclose(kernel[0, 0], kernel[2, 0], rtol=1e-14)
    for kernel in kernels.infinite_kernels(network, jnp.concatenate([x, x])):
        np.testing.assert_allclose(kernel[:3, 3:].diagonal(), kernel.diagonal()[:3], rtol=1e-13)


@pytest.mark.parametrize("angle", [0.0, 1e-14, 1e-9, 1e-6, 1e-3, 1.0, np.pi - 1e-9, np.pi])
def test_the_kernels_of_a_known_angle(angle):
    """One hidden layer without biases at points of the plane, whose angle no arc cosine has touched."""
    x = jnp.array([[1.0, 0.0], [3 * np.cos(angle), 3 * np.sin(angle)]])
    nngp, ntk = kernels.infinite_kernels(MLP(1, depth=1, b_std=0.0), x)
    expected = 3 * (np.sin(angle) + (np.pi - angle) * np.cos(angle)) / (2 * np.pi)
    np.testing.assert_allclose(nngp[0, 1], expected, atol=1e-14)
    np.testing.assert_allclose(ntk[0, 1], expected + 3 * np.cos(angle) * (np.pi - angle) / (2 * np.pi), atol=1e-14)


@pytest.mark.parametrize("network", NETWORKS)
def test_infinite_kernels_have_gradients_where_points_meet(network, key):
    x = points(network, key, 2)
    total = lambda x: sum(kernel.sum() for kernel in kernels.infinite_kernels(network, x))  # noqa: E731
    assert jnp.isfinite(jax.grad(total)(x.at[1].set(0))).all()
    direction = points(network, jax.random.key(1), 2)
    ahead, behind = (total(x + step * direction) for step in (1e-5, -1e-5))
    np.testing.assert_allclose((jax.grad(total)(x) * direction).sum(), (ahead - behind) / 2e-5, rtol=1e-7)


def test_infinite_kernels_take_whole_numbers_and_no_point_at_all():
    whole = jnp.array([[1, -2], [0, 3]])
    for kernel, real in zip(*(kernels.infinite_kernels(MLP(1), x) for x in (whole, whole.astype(float))), strict=True):
        np.testing.assert_array_equal(kernel, real)
    assert kernels.infinite_kernels(MLP(1), jnp.ones((0, 2)), whole).ntk.shape == (0, 2)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda a, p, x: kernels.infinite_kernels(Conv4(1), jnp.ones((2, 8, 8, 1))), "at least 16 pixels a side"),
        (lambda a, p, x: kernels.infinite_kernels(Conv4(1), jnp.ones((2, 28, 28))), "[2, 28, 28]"),
        (lambda a, p, x: kernels.empirical_ntk(a, p, x, outputs="all"), "outputs: expected sum or full or trace"),
        (lambda a, p, x: kernels.empirical_ntk(a, p, x, part="hed"), "['head', 'layer1', 'layer2']"),
        (
            lambda a, p, x: kernels.empirical_ntk(a, p, x, batch_size=0),
            "batch_size: expected a whole number of at least 1",
        ),
        (lambda a, p, x: kernels.empirical_ntk(lambda p, x: a(p, x)[:, 0], p, x), "outputs [N, k], got float64 [1]"),
        (
            lambda a, p, x: kernels.empirical_ntk(lambda p, x: a(p, x).astype(complex), p, x),
            "real outputs [N, k], got complex128",
        ),
        (lambda a, p, x: kernels.infinite_kernels(MLP(8, parametrization="standard"), x), "'standard'"),
        (lambda a, p, x: kernels.infinite_kernels("mlp", x), "MLP or a Conv4"),
        (lambda a, p, x: kernels.infinite_kernels(MLP(8), x, x[:, :2]), "points of shape (6,)"),
    ],
)
def test_refusals_say_what_was_expected(call, said, key):
    network = MLP(8)
    params = network.init(key, (6,))
    with pytest.raises(InputError) as raised:
        call(network.apply, params, jnp.ones((2, 6)))
    assert said in str(raised.value)


@pytest.mark.parametrize(("network", "shape"), [(Conv4(8, depth=1), (8, 8, 1)), (MLP(64), (6,))])
def test_a_kernel_that_would_not_fit_says_its_bytes(network, shape, monkeypatch, key):
    """The bytes that it names are enough, one less is not, and blocks of fewer points need fewer."""
    params, x = network.init(key, shape), jnp.ones((4, *shape))
    monkeypatch.setattr(memory, "available_bytes", lambda: 0)

    def needed(batch_size):
        with pytest.raises(InputError, match=r"gradients of \d+ points") as raised:
            kernels.empirical_ntk(network.apply, params, x, batch_size=batch_size)
        assert ("smaller batch_size" if batch_size != 1 else "narrower network") in str(raised.value)
        return int(re.search(r"\((\d+) bytes\)", str(raised.value))[1])

    bytes_of = {size: needed(size) for size in (None, 4, 2, 1)}
    assert bytes_of[4] > bytes_of[2] > bytes_of[1]
    assert bytes_of[4] > bytes_of[None]  # two blocks of four points, or all four once
    monkeypatch.setattr(memory, "available_bytes", lambda: bytes_of[1])
    kernels.empirical_ntk(network.apply, params, x, batch_size=1)
    monkeypatch.setattr(memory, "available_bytes", lambda: bytes_of[1] - 1)
    with pytest.raises(InputError, match=f"{bytes_of[1]} bytes"):
        kernels.empirical_ntk(network.apply, params, x, batch_size=1)


def test_of_dense_layers_no_gradient_is_formed(monkeypatch, key):
    """A kernel of many points fits where the gradient of a single one would not."""
    network = MLP(1024, outputs=2)
    params = network.init(key, (6,), jnp.float32)
    gradient = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    monkeypatch.setattr(memory, "available_bytes", lambda: gradient)
    for outputs in kernels.OUTPUTS:
        assert kernels.empirical_ntk(network.apply, params, jnp.ones((32, 6), jnp.float32), outputs=outputs).shape


def plainly(x1, x2):
    """Two kernels of points, of which the second is not symmetric in what it does."""
    return x1 @ x2.T, jnp.exp(x1 @ x2.T - (x1**2).sum(1)[:, None] - (x2**2).sum(1)[None])


@pytest.mark.parametrize("count", [1, 4, 5, 9, 10, 11, 16])
@pytest.mark.parametrize("other", [None, 1, 7, 12])
def test_a_kernel_in_blocks_is_the_whole_one(count, other, key):
    """Of every number of points, a multiple of the block's side or not; of one set by its upper half alone."""
    x1 = jax.random.normal(key, (count, 3))
    x2 = None if other is None else jax.random.normal(jax.random.key(1), (other, 3))
    found = blockwise(plainly, x1, x2, 5)
    for block, whole in zip(found, plainly(x1, x1 if x2 is None else x2), strict=True):
        assert block.shape == whole.shape
        np.testing.assert_allclose(block, whole, rtol=1e-12)


def test_blocks_may_be_compiled_differentiated_and_taken_side_by_side(key):
    x = jax.random.normal(key, (2, 11, 3))

    def total(x, side):
        return sum(jnp.sin(kernel).sum() for kernel in blockwise(plainly, x, None, side))

    found, whole = (jax.vmap(jax.jit(jax.grad(total), static_argnums=1), (0, None))(x, side) for side in (4, 11))
    np.testing.assert_allclose(found, whole, rtol=1e-12)


@pytest.mark.parametrize(("network", "count", "shape"), [(MLP(1), 333, (6,)), (Conv4(1, depth=2), 12, (8, 8, 1))])
def test_infinite_kernels_of_many_points_are_those_of_pairs(network, count, shape, key):
    """More points than a block has; a second set that is the first one saves half of the work and changes nothing."""
    x = jax.random.normal(key, (count, *shape))
    pairs = [(0, 0), (3, count - 1), (count - 1, 3), (count // 2, 1)]
    both = {"alone": kernels.infinite_kernels(network, x), "itself": kernels.infinite_kernels(network, x, x)}
    for found in (*both.values(), kernels.infinite_kernels(network, x, jnp.array(x))):
        for i, j in pairs:
            for kernel, one in zip(found, kernels.infinite_kernels(network, x[i : i + 1], x[j : j + 1]), strict=True):
                np.testing.assert_allclose(kernel[i, j], one[0, 0], rtol=1e-12)
    for kernel in both["alone"]:
        np.testing.assert_allclose(kernel, kernel.T, rtol=1e-14)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"x1": None}, "x1: expected points [N, ...]"),
        ({"x1": "a"}, "x1: expected an array of real numbers"),
        ({"x1": 1.0}, "x1: expected points [N, ...]"),
        ({"x1": 1j * np.ones((3, 2))}, "x1: expected an array of real numbers"),
        ({"x2": np.ones((3, 4))}, "x2: expected points of shape (2,) as in x1, got (4,)"),
        ({"x2": np.full((3, 2), "a")}, "x2: expected an array of real numbers"),
    ],
)
def test_points_of_no_kernel_are_refused_in_one_line(change, said):
    network, given = MLP(3), {"x1": np.ones((3, 2))} | change
    params = network.init(jax.random.key(0), (2,))
    assert_refused(lambda: kernels.infinite_kernels(network, **given), said)
    assert_refused(lambda: kernels.empirical_ntk(network.apply, params, **given), said)
    assert_refused(lambda: kernels.empirical_nngp(network.apply, params, **given), said)


def test_networks_of_no_kernel_are_refused_in_one_line():
    network, x = MLP(3), np.ones((3, 2))
    params = network.init(jax.random.key(0), (2,))
    assert_refused(lambda: kernels.empirical_ntk(network, params, x), "apply: expected a function")
    assert_refused(lambda: kernels.empirical_ntk(network.apply, None, x), "params: expected a pytree of floats")
    assert_refused(
        lambda: kernels.empirical_ntk(network.apply, params, np.ones((3, 5))), "inputs of width 2, as its weights"
    )
    for size in ("a", 0, 1.5, np.ones(2)):
        assert_refused(
            lambda size=size: kernels.empirical_ntk(network.apply, params, x, batch_size=size), "batch_size: exp"
        )
