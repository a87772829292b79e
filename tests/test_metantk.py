"""The MetaNTK: closed forms against brute force, analytic against wide nets, limits, properties, refusals."""

from __future__ import annotations

import math
from dataclasses import replace

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

from mlkernels import kernels, metantk, tasks
from mlkernels.errors import InputError
from mlkernels.learners import maml
from mlkernels.metantk.composite import composite, task_operators, within_tasks
from mlkernels.networks import MLP
from mlkernels.support import memory

NETWORK = MLP(1)


def ntk(x1, x2):
    return kernels.infinite_kernels(NETWORK, x1, x2).ntk


def nngp(x1, x2):
    return kernels.infinite_kernels(NETWORK, x1, x2).nngp


INNER = {"MAML": None, "ANIL": nngp}


def batch(seed=0, **sizes):
    sizes = {"tasks": 3, "support": 4, "queries": 5} | sizes
    return tasks.random_labels(**sizes, dimension=6, key=jax.random.key(seed))


def matrix(seed, eigenvalues):
    """A symmetric matrix with these eigenvalues."""
    rng = np.random.default_rng(seed)
    basis, _ = np.linalg.qr(rng.normal(size=(len(eigenvalues),) * 2))
    return basis @ np.diag(eigenvalues) @ basis.T


# --- the adaptation operator ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [0, 1, 2, 7, 50])
@pytest.mark.parametrize("largest", [1.0, 12.0])  # a rate beyond 1 / largest, where 1 - rate * K is negative
def test_discrete_operator_is_the_loop_of_gradient_descent(steps, largest):
    K, rate = matrix(0, np.linspace(0.1, largest, 5)), 0.15
    y = np.random.default_rng(1).normal(size=(5, 2))
    f = np.zeros_like(y)
    for _ in range(steps):
        f -= rate * K @ (f - y)
    T = metantk.adaptation_operator(K, inner_rate=rate, inner_steps=steps)
    np.testing.assert_allclose(K @ T @ y, f, atol=1e-10)


@pytest.mark.parametrize("ridge", [0.0, 0.3])
@pytest.mark.parametrize("time", [0.0, 0.4, 7.0, 500.0])
def test_flow_operator_is_the_matrix_exponential(time, ridge):
    K = matrix(0, np.linspace(0.1, 3.0, 5))
    T = metantk.adaptation_operator(K, inner_rate=1.0, inner_steps=time, flow=True, ridge=ridge)
    expected = np.linalg.inv(K + ridge * np.eye(5)) @ (np.eye(5) - scipy.linalg.expm(-time * K))
    np.testing.assert_allclose(T, expected, atol=1e-10)


@pytest.mark.parametrize("flow", [False, True])
def test_infinite_steps_are_the_inverse_and_the_limit_of_many(flow):
    K = matrix(0, np.linspace(0.5, 3.0, 5))
    forever = metantk.adaptation_operator(K, inner_rate=0.1, inner_steps=math.inf, flow=flow)
    np.testing.assert_allclose(forever, np.linalg.inv(K), atol=1e-10)
    many = metantk.adaptation_operator(K, inner_rate=0.1, inner_steps=5000, flow=flow)
    np.testing.assert_allclose(many, forever, atol=1e-10)


@pytest.mark.parametrize("flow", [False, True])
def test_singular_kernels_take_the_limit(flow):
    basis = np.linalg.qr(np.random.default_rng(3).normal(size=(4, 4)))[0]
    K = np.diag([0.0, 0.0, 1.0, 2.0])
    T = metantk.adaptation_operator(K, inner_rate=0.1, inner_steps=30, flow=flow)
    np.testing.assert_allclose(np.diagonal(T)[:2], 3.0, rtol=1e-12)
    inexact = metantk.adaptation_operator(basis @ K @ basis.T, inner_rate=0.1, inner_steps=30, flow=flow)
    np.testing.assert_allclose(inexact, basis @ T @ basis.T, atol=1e-10)
    forever = metantk.adaptation_operator(basis @ K @ basis.T, inner_rate=0.1, inner_steps=math.inf, flow=flow)
    np.testing.assert_allclose(forever, np.linalg.pinv(basis @ K @ basis.T, rcond=1e-8), atol=1e-10)


@given(st.integers(0, 10_000), st.integers(0, 60), st.floats(0.0, 0.3))
@settings(max_examples=25, deadline=None)
def test_operator_is_symmetric_and_commutes_with_the_kernel(seed, steps, rate):
    K = matrix(seed, np.abs(np.random.default_rng(seed).normal(size=4)))
    T = np.asarray(metantk.adaptation_operator(K, inner_rate=rate, inner_steps=steps))
    np.testing.assert_allclose(T, T.T, atol=1e-10)
    np.testing.assert_allclose(K @ T, T @ K, atol=1e-9)


def test_one_step_and_two_loops_compose():
    """T after s + t steps: what s steps leave of the residual is what t more steps see."""
    K = matrix(2, [0.2, 1.0, 3.0])
    T = {n: metantk.adaptation_operator(K, inner_rate=0.2, inner_steps=n) for n in (3, 4, 7)}
    np.testing.assert_allclose(T[7], T[3] + T[4] @ (np.eye(3) - K @ T[3]), atol=1e-12)


def test_inner_steps_never_recompile():
    count = 0

    @jax.jit
    def traced(steps):
        nonlocal count
        count += 1
        return metantk.adaptation_operator(jnp.eye(3), inner_rate=0.1, inner_steps=steps)

    for steps in (0.0, 1.0, 17.0, math.inf):
        T = traced(steps)
        np.testing.assert_allclose(T, metantk.adaptation_operator(jnp.eye(3), inner_rate=0.1, inner_steps=steps))
    assert count == 1


# --- the composite of matrices -------------------------------------------------------------------------------------


def plain_operator(K, steps, rate=0.1, ridge=0.05):
    """T in numpy: some steps of gradient descent, or the end of gradient flow with a ridge."""
    if math.isinf(steps):
        return np.linalg.inv(K + ridge * np.eye(len(K)))
    T = np.zeros_like(K)
    for _ in range(steps):
        T += rate * (np.eye(len(K)) - K @ T)
    return T


def plain_composite(left, right, inner, steps):
    """The definition, pair by pair, in numpy; every block of a kernel is a call of its own."""
    theta, K = (lambda x1, x2, kernel=kernel: np.asarray(kernel(x1, x2)) for kernel in (ntk, inner))
    n, phi = right.queries, np.empty((left.tasks * left.queries, right.tasks * right.queries))
    for i in range(left.tasks):
        for j in range(right.tasks):
            X, X_, Y, Y_ = left.query_x[i], left.support_x[i], right.query_x[j], right.support_x[j]
            A = K(X, X_) @ plain_operator(K(X_, X_), steps)
            B = K(Y, Y_) @ plain_operator(K(Y_, Y_), steps)
            block = theta(X, Y) - A @ theta(X_, Y) - theta(X, Y_) @ B.T + A @ theta(X_, Y_) @ B.T
            phi[i * left.queries : (i + 1) * left.queries, j * n : (j + 1) * n] = block
    return phi


@pytest.mark.parametrize("steps", [0, 1, 7, math.inf])
@pytest.mark.parametrize("inner", [ntk, nngp], ids=["MAML", "ANIL"])
def test_the_composite_of_matrices_is_its_definition(inner, steps):
    train, held_out = batch(), batch(1, tasks=2, support=3, queries=2)
    loop = {"inner_rate": 0.1, "inner_steps": steps}
    if math.isinf(steps):
        loop |= {"flow": True, "ridge": 0.05}
    points, A = [], []
    for some in (train, held_out):
        points.append(metantk.all_points(some))
        K = within_tasks(inner(points[-1], points[-1]), some.tasks, some.queries)
        A.append(task_operators(K, **loop))
    phi = composite(ntk(points[0], points[0]), A[0])
    np.testing.assert_allclose(phi, plain_composite(train, train, inner, steps), atol=1e-12)
    np.testing.assert_array_equal(phi, phi.T)
    across = composite(ntk(points[1], points[0]), A[1], A[0])
    np.testing.assert_allclose(across, plain_composite(held_out, train, inner, steps), atol=1e-12)


def test_the_composite_of_more_tasks_than_are_taken_at_once():
    """It is D Theta D', D the operators on the diagonal; of 19 tasks, and of these against 9 others."""
    rng = np.random.default_rng(0)
    A, other = rng.normal(size=(19, 2, 3)), rng.normal(size=(9, 4, 1))

    def operator(A):
        B, n, _ = A.shape
        return np.hstack([np.eye(B * n), -scipy.linalg.block_diag(*A)])

    half = rng.normal(size=(19 * 5, 19 * 5))
    theta = half @ half.T
    phi = composite(theta, A)
    np.testing.assert_allclose(phi, operator(A) @ theta @ operator(A).T, atol=1e-10)
    np.testing.assert_array_equal(phi, phi.T)
    across = rng.normal(size=(19 * 5, 9 * 5))
    np.testing.assert_allclose(composite(across, A, other), operator(A) @ across @ operator(other).T, atol=1e-10)


# --- the analytic MetaNTK ------------------------------------------------------------------------------------------


def smooth(x1, x2):
    """A kernel without angles."""
    return x1 @ x2.T / 6 + jnp.exp(-((x1[:, None] - x2[None]) ** 2).sum(-1) / 6)


def smooth_inner(x1, x2):
    return x1 @ x2.T / 6 + 0.01


KERNELS = [
    pytest.param(smooth, None, id="smooth-MAML"),
    pytest.param(smooth, smooth_inner, id="smooth-ANIL"),
    pytest.param(ntk, None, id="ReLU-MAML"),
    pytest.param(ntk, nngp, id="ReLU-ANIL"),
]


def double_loop(left, right, theta, inner_kernel, loop):
    """The formula, block by block, as one would write it down first."""
    K = inner_kernel or theta

    def A(x, support):
        return K(x, support) @ metantk.adaptation_operator(K(support, support), **loop)

    rows = []
    for q1, s1 in zip(left.query_x, left.support_x, strict=True):
        row = []
        for q2, s2 in zip(right.query_x, right.support_x, strict=True):
            A1, A2 = A(q1, s1), A(q2, s2)
            row.append(theta(q1, q2) - A1 @ theta(s1, q2) - theta(q1, s2) @ A2.T + A1 @ theta(s1, s2) @ A2.T)
        rows.append(row)
    return jnp.block(rows)


LOOPS = [
    {"inner_rate": 0.1, "inner_steps": 1},
    {"inner_rate": 0.05, "inner_steps": 20, "ridge": 0.01},
    {"inner_rate": 0.05, "inner_steps": 20, "flow": True},
    {"inner_rate": 0.05, "inner_steps": math.inf},
]


@pytest.mark.parametrize(("theta", "inner"), KERNELS)
@pytest.mark.parametrize("loop", LOOPS)
def test_analytic_metantk_is_the_double_loop_over_pairs_of_tasks(theta, inner, loop):
    train, held_out = batch(), batch(1, tasks=2, support=3, queries=2)
    close = {"rtol": 0, "atol": 1e-10}
    whole = metantk.analytic_metantk(train, theta, inner_kernel=inner, **loop)
    np.testing.assert_allclose(whole, double_loop(train, train, theta, inner, loop), **close)
    across = metantk.analytic_metantk(train, theta, inner_kernel=inner, rows=held_out, **loop)
    np.testing.assert_allclose(across, double_loop(held_out, train, theta, inner, loop), **close)
    back = metantk.analytic_metantk(train, theta, inner_kernel=inner, columns=held_out, **loop)
    np.testing.assert_allclose(back, across.T, **close)


@pytest.mark.parametrize("algorithm", INNER)
@given(seed=st.integers(0, 1000), steps=st.sampled_from([0, 1, 5, 100, math.inf]))
@settings(max_examples=12, deadline=None)
def test_analytic_metantk_is_symmetric_and_positive_semidefinite(algorithm, seed, steps):
    phi = metantk.analytic_metantk(batch(seed), ntk, inner_kernel=INNER[algorithm], inner_rate=0.05, inner_steps=steps)
    np.testing.assert_allclose(phi, phi.T, atol=0)
    assert np.linalg.eigvalsh(phi)[0] > -1e-9 * np.linalg.norm(phi)


def test_no_inner_step_gives_the_ntk_of_the_queries():
    train = batch()
    phi = metantk.analytic_metantk(train, ntk, inner_rate=0.1, inner_steps=0)
    x = train.query_x.reshape(-1, 6)
    np.testing.assert_allclose(phi, ntk(x, x), atol=1e-12)


def test_queries_that_are_support_points_do_not_move_after_infinite_inner_steps():
    """The inner loop then fits them whatever theta is, so the meta-output's gradient is zero."""
    train = batch(queries=4)
    train = replace(train, query_x=train.support_x)
    phi = metantk.analytic_metantk(train, ntk, inner_rate=0.05, inner_steps=math.inf)
    np.testing.assert_allclose(phi, 0.0, atol=1e-9)


def test_permuting_tasks_queries_and_support_points():
    train, loop = batch(), {"inner_rate": 0.05, "inner_steps": 5}
    phi = metantk.analytic_metantk(train, ntk, **loop).reshape(3, 5, 3, 5)
    order, inside = jnp.array([2, 0, 1]), jnp.array([4, 2, 0, 1, 3])
    mixed = jax.tree.map(lambda a: a[order], train)
    mixed = replace(mixed, query_x=mixed.query_x[:, inside], support_x=mixed.support_x[:, ::-1])
    expected = phi[order][:, inside][:, :, order][:, :, :, inside].reshape(15, 15)
    np.testing.assert_allclose(metantk.analytic_metantk(mixed, ntk, **loop), expected, atol=1e-10)


def test_metantk_does_not_depend_on_labels_and_accepts_empirical_kernels(key):
    train = batch()
    network = MLP(64)
    params = network.init(key, (6,))

    def finite(x1, x2):
        return kernels.empirical_ntk(network.apply, params, x1, x2)

    loop = {"inner_rate": 0.05, "inner_steps": 5}
    phi = metantk.analytic_metantk(train, finite, **loop)
    other = metantk.analytic_metantk(replace(train, support_y=-train.support_y), finite, **loop)
    np.testing.assert_array_equal(phi, other)


# --- the empirical MetaNTK -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("adapt", ["all", "head"])
def test_empirical_metantk_is_the_gram_of_the_whole_jacobian(adapt, key):
    """Against jacobian of an unrolled Python loop over flattened parameters."""
    network = MLP(8, outputs=2)
    params = network.init(key, (6,))
    train = tasks.random_labels(tasks=2, support=3, queries=2, dimension=6, key=key)
    two = jnp.concatenate([train.support_y, -train.support_y], -1)
    train = replace(train, support_y=two, query_y=jnp.concatenate([train.query_y] * 2, -1))
    flat, unravel = jax.flatten_util.ravel_pytree(params)

    def meta_outputs(flat):
        outputs = []
        for sx, sy, qx in zip(train.support_x, train.support_y, train.query_x, strict=True):
            p = unravel(flat)
            for _ in range(3):
                g = jax.grad(lambda p, sx=sx, sy=sy: 0.5 * jnp.sum((network.apply(p, sx) - sy) ** 2))(p)
                names = p if adapt == "all" else ["head"]
                p = p | {name: jax.tree.map(lambda a, b: a - 0.1 * b, p[name], g[name]) for name in names}
            outputs.append(network.apply(p, qx))
        return jnp.stack(outputs)

    J = jax.jacrev(meta_outputs)(flat)
    whole = jnp.einsum("bnkp,cmlp->bnkcml", J, J)
    expected = {
        "full": whole.reshape(8, 8),
        "sum": whole.sum((2, 5)).reshape(4, 4),
        "trace": jnp.einsum("bnkcmk->bncm", whole).reshape(4, 4) / 2,
    }
    for outputs, wanted in expected.items():
        got = metantk.empirical_metantk(
            network.apply, params, train, inner_rate=0.1, inner_steps=3, adapt=adapt, outputs=outputs
        )
        np.testing.assert_allclose(got, wanted, rtol=1e-9, atol=1e-10)


def relative(a, b):
    return float(jnp.linalg.norm(a - b) / jnp.linalg.norm(b))


@pytest.mark.parametrize("algorithm", INNER)
def test_wide_nets_have_the_analytic_metantk_and_not_the_ntk(algorithm):
    """Thresholds of the issue: below .15 at width 1024, below half of the plain NTK's error; mean over seeds."""
    train = batch(queries=4)
    loop = {"inner_rate": 0.05, "inner_steps": 5}
    phi = metantk.analytic_metantk(train, ntk, inner_kernel=INNER[algorithm], **loop)
    x = train.query_x.reshape(-1, 6)
    plain = ntk(x, x)
    network, adapt = MLP(1024), {"MAML": "all", "ANIL": "head"}[algorithm]
    errors, rejected = [], []
    for seed in range(3):
        params = network.init(jax.random.key(seed), (6,))
        found = metantk.empirical_metantk(network.apply, params, train, adapt=adapt, **loop)
        errors.append(relative(found, phi))
        rejected.append(relative(found, plain))
    assert np.mean(errors) < 0.15
    assert np.mean(errors) < np.mean(rejected) / 2


def test_anil_needs_the_nngp_inside():
    """With the NTK inside the formula is MAML's, and clearly not what ANIL's network does."""
    train = batch(queries=4)
    loop = {"inner_rate": 0.1, "inner_steps": 5}
    network = MLP(1024)
    found = sum(
        metantk.empirical_metantk(
            network.apply, network.init(jax.random.key(seed), (6,)), train, adapt="head", **loop
        )
        for seed in range(3)
    ) / 3  # fmt: skip
    right = relative(found, metantk.analytic_metantk(train, ntk, inner_kernel=nngp, **loop))
    wrong = relative(found, metantk.analytic_metantk(train, ntk, **loop))
    assert right < wrong / 2


# --- prediction ----------------------------------------------------------------------------------------------------


def test_prediction_is_gradient_descent_in_function_space():
    train, held_out = batch(), batch(1, tasks=2)
    loop = {"inner_rate": 0.05, "inner_steps": 5}
    phi = metantk.analytic_metantk(train, ntk, **loop)
    across = metantk.analytic_metantk(train, ntk, rows=held_out, **loop)
    F = metantk.adapted_outputs(train, ntk, **loop).reshape(-1, 1)
    G = metantk.adapted_outputs(held_out, ntk, **loop).reshape(-1, 1)
    y, rate = train.query_y.reshape(-1, 1), 0.05
    for _ in range(12):
        residual = F - y
        F, G = F - rate * phi @ residual, G - rate * across @ residual
    outer = {"outer_rate": rate, "outer_steps": 12, "outer_flow": False}
    np.testing.assert_allclose(metantk.predict(train, train, ntk, **loop, **outer).reshape(-1, 1), F, atol=1e-10)
    np.testing.assert_allclose(metantk.predict(train, held_out, ntk, **loop, **outer).reshape(-1, 1), G, atol=1e-10)


def test_mode_losses_sum_to_the_loss_of_gradient_descent():
    rng = np.random.default_rng(0)
    phi, residual = matrix(0, [0.1, 0.5, 2.0]), rng.normal(size=(3, 2))
    found = metantk.mode_losses(phi, residual, outer_rate=0.4, outer_steps=6)
    for losses in found:
        np.testing.assert_allclose(losses.sum(), 0.5 * np.sum(residual**2), rtol=1e-10)
        residual = residual - 0.4 * phi @ residual
    assert found.shape == (7, 3)


def test_prediction_starts_at_the_given_outputs_and_ends_at_the_labels():
    train, loop = batch(), {"inner_rate": 0.05, "inner_steps": 5}
    initial = (jnp.ones((3, 5, 1)), 2 * jnp.ones((3, 5, 1)))
    start = metantk.predict(train, train, ntk, outer_steps=0, initial=initial, **loop)
    np.testing.assert_allclose(start, 2.0, atol=1e-12)
    end = metantk.predict(train, train, ntk, **loop)
    np.testing.assert_allclose(end, train.query_y, atol=1e-8)


def test_adapted_outputs_are_the_linearised_inner_loop(key):
    """With the empirical kernel of a linear model the formula is exact at any width."""
    train = batch()
    apply = lambda p, x: x @ p["head"]  # noqa: E731
    params = {"head": jax.random.normal(key, (6, 1))}

    def kernel(x1, x2):
        return x1 @ x2.T

    initial = (jax.vmap(apply, (None, 0))(params, train.support_x), jax.vmap(apply, (None, 0))(params, train.query_x))
    loop = {"inner_rate": 0.02, "inner_steps": 9}
    F = metantk.adapted_outputs(train, kernel, initial=initial, **loop)
    for i in range(3):
        adapted = maml.adapt(apply, params, train.support_x[i], train.support_y[i], maml.InnerLoop(0.02, 9))
        np.testing.assert_allclose(apply(adapted, train.query_x[i]), F[i], atol=1e-10)
    found = metantk.empirical_metantk(apply, params, train, **loop)
    np.testing.assert_allclose(found, metantk.analytic_metantk(train, kernel, **loop), atol=1e-10)


# --- condition numbers ---------------------------------------------------------------------------------------------


def test_condition_number_of_known_spectra():
    found = metantk.condition_number(matrix(0, [0.5, 1.0, 4.0]))
    assert found.value == pytest.approx(8.0)
    assert (found.smallest, found.largest) == (pytest.approx(0.5), pytest.approx(4.0))
    assert (found.clipped, found.lower_bound) == (0, False)


@pytest.mark.parametrize("tiny", [0.0, 1e-9, -5e-9])
def test_eigenvalues_in_the_zero_band_make_a_lower_bound(tiny):
    found = metantk.condition_number(np.diag([tiny, 1.0, 2.0]))
    assert (found.clipped, found.lower_bound) == (1, True)
    assert found.value == pytest.approx(1 / np.sqrt(np.finfo(float).eps))
    assert str(found).startswith("at least")


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (np.ones((2, 3)), "square"),
        (np.diag([np.nan, 1.0]), "1 NaN or infinite"),
        (np.array([[1.0, 0.5], [0.0, 1.0]]), "symmetric"),
        (np.diag([-0.1, 1.0]), "eigenvalues from -0.1 to 1"),
        (np.zeros((2, 2)), "positive semidefinite"),
    ],
)
def test_matrices_without_a_condition_number_are_refused(bad, said):
    with pytest.raises(InputError, match="matrix: expected") as raised:
        metantk.condition_number(bad)
    assert said in str(raised.value)


# --- refusals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"inner_rate": "fast"}, "inner_rate: expected a number, got 'fast'; give one number"),
        ({"inner_steps": [1, 2]}, "inner_steps: expected a number, got [1, 2]; give one number"),
        ({"inner_rate": -0.1}, "inner_rate: expected a finite number of at least 0, got -0.1"),
        ({"inner_steps": 1.5}, "for a fraction of a step use flow=True"),
        ({"inner_steps": -1}, "inner_steps: expected a whole number of at least 0, or math.inf, got -1.0; use 0"),
        ({"ridge": -1.0}, "ridge"),
        ({"inner_rate": 5.0, "inner_steps": math.inf}, "below 2 / largest eigenvalue"),
    ],
)
def test_bad_inner_loops_are_refused(change, said):
    loop = {"inner_rate": 0.1, "inner_steps": 3} | change
    with pytest.raises(InputError) as raised:
        metantk.analytic_metantk(batch(), ntk, **loop)
    assert said in str(raised.value)


def test_single_precision_jax_is_refused():
    with jax.enable_x64(False), pytest.raises(InputError, match="jax_enable_x64"):
        metantk.adaptation_operator(np.eye(2), inner_rate=0.1, inner_steps=1)


def test_what_would_not_fit_says_its_bytes(monkeypatch, key):
    monkeypatch.setattr(memory, "available_bytes", lambda: 1000)
    with pytest.raises(InputError, match=r"memory for kernels of 27 by 27 points.*23328 bytes"):
        metantk.analytic_metantk(batch(), ntk, inner_rate=0.1, inner_steps=1)
    network = MLP(16)
    with pytest.raises(InputError, match="memory for 15 rows of the Jacobian"):
        metantk.empirical_metantk(
            network.apply, network.init(key, (6,)), batch(), inner_rate=0.1, inner_steps=1
        )  # fmt: skip


def test_something_else_than_tasks_is_refused():
    loop = {"inner_rate": 0.1, "inner_steps": 1}
    with pytest.raises(InputError, match="tasks: expected a TaskBatch, got tuple"):
        metantk.analytic_metantk((1, 2), ntk, **loop)
    with pytest.raises(InputError, match="columns: expected a TaskBatch, got tuple"):
        metantk.analytic_metantk(batch(), ntk, columns=(1, 2), **loop)
