"""Curvature: Hessians and constants against their definitions, rates against where the inner loop diverges."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from test_anil import BATCH, HEAD, PARAMS, TWO, apply, features

from mlkernels.errors import InputError
from mlkernels.learners import curvature, maml
from mlkernels.learners.maml import InnerLoop

RIDGE = InnerLoop(0.1, 5, "mean_squares", l2=0.1, adapt=HEAD)


def ridge_hessian(i, l2=0.1):
    """By hand, for one output; outputs are independent and the loss is a mean over 7 points and 3 outputs."""
    A = np.concatenate([features(PARAMS, BATCH.support_x[i]), np.ones((7, 1))], 1)
    return 2 / (7 * 3) * A.T @ A + l2 * np.eye(6)


# --- the inner problem ------------------------------------------------------------------------------------------------


def test_the_hessian_of_a_linear_head_is_that_of_ridge_regression():
    H = curvature.inner_hessian(apply, PARAMS, BATCH.support_x[0], BATCH.support_y[0], RIDGE)
    assert (H.shape, H.dtype) == ((18, 18), np.float64)
    assert (H == H.T).all()
    expected = np.repeat(np.linalg.eigvalsh(ridge_hessian(0)), 3)
    np.testing.assert_allclose(np.linalg.eigvalsh(H), expected, rtol=1e-12)


def test_the_hessian_of_two_layers_is_the_difference_of_gradients():
    inner = InnerLoop(0.1, 5, "cross_entropy", l2=0.1, adapt=TWO)
    x, y = BATCH.support_x[0], BATCH.support_y[0]
    H = curvature.inner_hessian(apply, PARAMS, x, y, inner)
    z, unravel = ravel_pytree({name: PARAMS[name] for name in TWO})
    u = np.random.default_rng(0).normal(size=z.size)

    @jax.jit
    def gradient(z):
        """A step of rate 1 says what the gradient is."""
        theta = maml.adapt(apply, PARAMS | unravel(z), x, y, replace(inner, steps=1), rates=1.0)
        return z - ravel_pytree({name: theta[name] for name in TWO})[0]

    h = 1e-5
    measured = (gradient(z + h * u) - gradient(z - h * u)) / (2 * h)
    np.testing.assert_allclose(H @ u, measured, atol=1e-6 * np.abs(measured).max())


def test_the_hessian_is_computed_in_double_precision_whatever_the_parameters_are():
    single = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), PARAMS)
    arguments = np.asarray(BATCH.support_x[0], np.float32), np.asarray(BATCH.support_y[0], np.float32), RIDGE
    doubled = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), single)
    expected = curvature.inner_hessian(apply, doubled, *(np.float64(part) for part in arguments[:2]), RIDGE)
    np.testing.assert_array_equal(curvature.inner_hessian(apply, single, *arguments), expected)
    with jax.enable_x64(False):
        np.testing.assert_array_equal(curvature.inner_hessian(apply, single, *arguments), expected)


def test_constants_are_the_outermost_eigenvalues_over_tasks():
    constants = curvature.inner_constants(apply, PARAMS, BATCH, RIDGE)
    values = np.array([np.linalg.eigvalsh(ridge_hessian(i)) for i in range(2)])
    np.testing.assert_allclose(constants.smallest, values[:, 0], rtol=1e-12)
    np.testing.assert_allclose(constants.largest, values[:, -1], rtol=1e-12)
    np.testing.assert_allclose([constants.mu, constants.smoothness], [values.min(), values.max()], rtol=1e-12)
    assert (constants.convex, constants.dimension) == (True, 18)
    np.testing.assert_allclose(constants.largest_rate, 2 / values.max())
    for rate in (0.1, 2.0):
        np.testing.assert_allclose(constants.contraction(rate), np.abs(1 - rate * values).max())


@pytest.mark.parametrize("adapt", [HEAD, TWO], ids=["head", "two layers"])
def test_lanczos_finds_the_same_as_all_eigenvalues(adapt, monkeypatch):
    inner = replace(RIDGE, adapt=adapt)
    dense = curvature.inner_constants(apply, PARAMS, BATCH[:1], inner)
    monkeypatch.setattr(curvature, "DENSE", 0)
    lanczos = curvature.inner_constants(apply, PARAMS, BATCH[:1], inner)
    np.testing.assert_allclose([lanczos.mu, lanczos.smoothness], [dense.mu, dense.smoothness], rtol=1e-5)


def test_two_layers_are_not_convex_and_curve_otherwise_along_the_way():
    inner = replace(RIDGE, adapt=TWO, rate=0.5)
    here = curvature.inner_constants(apply, PARAMS, BATCH[:1], inner)
    along = curvature.inner_constants(apply, PARAMS, BATCH[:1], inner, along=True)
    assert not here.convex
    assert here.mu < 0
    path = curvature.trajectory(apply, PARAMS, BATCH.support_x[0], BATCH.support_y[0], inner).w
    points = [PARAMS | jax.tree.map(lambda leaf, m=m: leaf[m], path) for m in range(6)]
    values = [
        np.linalg.eigvalsh(curvature.inner_hessian(apply, point, BATCH.support_x[0], BATCH.support_y[0], inner))
        for point in points
    ]
    np.testing.assert_allclose([here.mu, here.smoothness], [values[0].min(), np.abs(values[0]).max()])
    np.testing.assert_allclose([along.mu, along.smoothness], [np.min(values), np.abs(values).max()])


# --- the way ----------------------------------------------------------------------------------------------------------


def test_the_trajectory_ends_where_the_inner_loop_does_and_never_compiles_anew():
    count = 0

    def counted(params, x):
        nonlocal count
        count += 1
        return apply(params, x)

    x, y = BATCH.support_x[0], BATCH.support_y[0]
    for inner in (RIDGE, replace(RIDGE, rate=0.3, l2=0.0)):
        path, losses = curvature.trajectory(counted, PARAMS, x, y, inner)
        theta = maml.adapt(apply, PARAMS, x, y, inner)
        np.testing.assert_allclose(path["head"]["w"][-1], theta["head"]["w"], rtol=1e-13)
        np.testing.assert_array_equal(path["head"]["w"][0], PARAMS["head"]["w"])
        first, head = float(((apply(PARAMS, x) - y) ** 2).mean()), PARAMS["head"].values()
        np.testing.assert_allclose(losses[0], first + inner.l2 / 2 * sum((leaf**2).sum() for leaf in head))
        assert losses.shape == (6,)
    traced = count
    curvature.trajectory(counted, PARAMS, x, y, replace(RIDGE, rate=0.01))
    assert count == traced


def contraction(share, steps=300):
    constants = curvature.inner_constants(apply, PARAMS, BATCH[:1], RIDGE)
    inner = replace(RIDGE, rate=share * constants.largest_rate)
    ratios = curvature.contraction_per_step(
        apply, PARAMS, BATCH.support_x[0], BATCH.support_y[0], inner, steps=steps
    )  # fmt: skip
    return ratios, constants.contraction(inner.rate)


def test_each_step_contracts_by_what_the_eigenvalues_say():
    ratios, bound = contraction(0.5)  # rate 1 / L
    ratios = ratios[~np.isnan(ratios)]
    assert (ratios <= bound + 1e-6).all()
    assert (np.diff(ratios) > -1e-6).all()  # what contracts least is left
    assert abs(ratios[-1] - bound) < 1e-4


@pytest.mark.parametrize("share", [0.98, 1.02])
def test_two_over_the_curvature_is_where_the_inner_loop_begins_to_diverge(share):
    ratios, bound = contraction(share)
    assert (bound < 1) == (share < 1)
    np.testing.assert_allclose(ratios[-1], bound, rtol=1e-6)


def test_the_contraction_under_the_cross_entropy():
    """The curvature changes on the way; the L2 strength is its least anywhere."""
    inner = InnerLoop(0.5, 40, "cross_entropy", l2=0.2, adapt=HEAD)
    ratios = curvature.contraction_per_step(apply, PARAMS, BATCH.support_x[0], BATCH.support_y[0], inner)
    assert (ratios <= 1 - 0.5 * 0.2 + 1e-9).all()


def test_where_the_distance_is_rounding_there_is_no_ratio():
    inner = replace(RIDGE, rate=0.5, l2=0.9)
    ratios = curvature.contraction_per_step(
        apply, PARAMS, BATCH.support_x[0], BATCH.support_y[0], inner, steps=300
    )  # fmt: skip
    assert np.isnan(ratios[-1])
    assert not np.isnan(ratios[0])


# --- the meta-loss ----------------------------------------------------------------------------------------------------


def test_the_smoothness_of_the_meta_loss_is_its_hessians_largest_eigenvalue():
    inner = replace(RIDGE, steps=2, remat=False)
    how = {"outer_loss": "mean_squares", "reduce": "mean"}
    z, unravel = ravel_pytree(PARAMS)
    H = jax.jit(jax.hessian(lambda z: maml.meta_loss(apply, unravel(z), BATCH, inner, **how)))(z)
    expected = np.abs(np.linalg.eigvalsh((H + H.T) / 2)).max()
    found = curvature.meta_smoothness(apply, PARAMS, BATCH, inner, tolerance=1e-8, **how)
    np.testing.assert_allclose(found, expected, rtol=1e-7)
    rough = curvature.meta_smoothness(apply, PARAMS, BATCH, replace(inner, first_order=True), **how)
    np.testing.assert_allclose(rough, expected, rtol=1e-2)
    broken = jax.tree.map(lambda leaf: leaf * jnp.nan, PARAMS)
    assert np.isnan(curvature.meta_smoothness(apply, broken, BATCH, inner, **how))


# --- at the door ------------------------------------------------------------------------------------------------------


def test_settings_that_cannot_do_are_refused():
    limit = curvature.inner_constants(apply, PARAMS, BATCH, RIDGE).largest_rate
    assert curvature.check_inner(apply, PARAMS, BATCH, RIDGE, strongly_convex=True).largest_rate == limit
    for change, how, said in (
        (
            {"rate": 1.01 * limit},
            {},
            rf"rate: expected at most 2 / L = {limit:.4g} \(L = .*, got {1.01 * limit:.4g}; .*force=True",
        ),
        ({"rate": {"head": 1.01 * limit}}, {}, r"rate: expected at most 0.9901 times these, got \{'head'"),
        ({"steps": 0}, {}, "steps: expected a whole number of at least 1, got 0"),
        ({"adapt": ("tail",)}, {}, r"adapt: expected layers of the network, got 'tail' beside \['head'"),
        ({"l2": 0.0}, {"strongly_convex": True}, "l2: expected a positive number for a strongly convex"),
        ({"adapt": TWO}, {"strongly_convex": True}, "adapt: expected .* for a strongly convex"),
    ):
        with pytest.raises(InputError, match=said):
            curvature.check_inner(apply, PARAMS, BATCH, replace(RIDGE, **change), **how)
    with pytest.raises(InputError, match=r"l2: expected a finite number of at least 0, got -0.1"):
        replace(RIDGE, l2=-0.1)


def test_too_large_a_rate_can_be_forced():
    limit = curvature.inner_constants(apply, PARAMS, BATCH, RIDGE).largest_rate
    for rate in (2 * limit, {"head": 2 * limit}):
        forced = curvature.check_inner(apply, PARAMS, BATCH, replace(RIDGE, rate=rate), force=True)
        assert forced.contraction(2 * limit) > 1
    curvature.check_inner(apply, PARAMS, BATCH, replace(RIDGE, rate={"head": 0.99 * limit}))


def test_a_network_of_all_layers_is_checked_too():
    curvature.check_inner(apply, PARAMS, BATCH[:1], InnerLoop(1e-3, 1))
    with pytest.raises(InputError, match="rate: expected at most 2 / L"):
        curvature.check_inner(apply, PARAMS, BATCH[:1], InnerLoop(1e3, 1))


def test_a_diverged_network_has_no_curvature(monkeypatch):
    broken = jax.tree.map(lambda leaf: leaf * jnp.nan, PARAMS)
    for dense in (curvature.DENSE, 0):
        monkeypatch.setattr(curvature, "DENSE", dense)
        with pytest.raises(InputError, match="curvature: expected finite numbers, got infinities or NaN"):
            curvature.inner_constants(apply, broken, BATCH[:1], RIDGE)
    assert curvature.check_inner(apply, PARAMS, BATCH[:1], replace(RIDGE, rate={"head": 0.0})).convex
