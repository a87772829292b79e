"""Meta-RKHS-I and II: closed forms against definitions in parameter space, derivatives against finite differences."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.linalg
from jax.flatten_util import ravel_pytree

from mlkernels import metantk
from mlkernels.errors import InputError
from mlkernels.kernels import empirical_ntk
from mlkernels.learners import anil, cost, curvature, maml
from mlkernels.learners.maml import InnerLoop
from mlkernels.learners.rkhs import ClosedForm, Regularised, adapt, flow_operator, predictor
from mlkernels.networks import MLP, Conv4
from mlkernels.tasks import TaskBatch

INF = math.inf
TIMES = (0.1, 1.0, 10.0, INF)
OUTPUTS = ("sum", "trace", "full")


def apply(params, x):
    """Smooth, without exponentials, which take long to compile."""
    z = x @ params["body"]["w"] + params["body"]["b"][None]
    h = 2 * z / (1 + z * z)
    return h @ params["head"]["w"] + params["head"]["b"][None]


def draw_params(seed=0, inputs=2, width=8, outputs=3):
    random = np.random.default_rng(seed)
    return {
        "body": {"w": jnp.asarray(random.normal(size=(inputs, width))), "b": jnp.asarray(random.normal(size=width))},
        "head": {"w": jnp.asarray(random.normal(size=(width, outputs))), "b": jnp.asarray(random.normal(size=outputs))},
    }


def draw_batch(seed=0, B=2, m=4, n=3, outputs=3):
    """Labels that are distributions, so that all losses take them."""
    random = np.random.default_rng(seed)
    x, y = random.uniform(-2, 2, (B, m + n, 2)), random.uniform(size=(B, m + n, outputs))
    y /= y.sum(-1, keepdims=True)
    return TaskBatch(*map(jnp.asarray, (x[:, :m], y[:, :m], x[:, m:], y[:, m:])))


PARAMS, BATCH = draw_params(), draw_batch()
ONE = draw_params(outputs=1)
ONE_BATCH = draw_batch(outputs=1)
ONE_BATCH = replace(ONE_BATCH, support_y=ONE_BATCH.support_x[..., :1] ** 2, query_y=ONE_BATCH.query_x[..., :1] ** 2)


def close(a, b, rtol=1e-10):
    """Leaf by leaf, beside the largest number of the leaf."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(map(np.asarray, jax.tree.leaves(a)), map(np.asarray, jax.tree.leaves(b)), strict=True):
        assert x.shape == y.shape
        np.testing.assert_allclose(x, y, rtol=0, atol=rtol * max(np.abs(y).max(initial=0), 1e-300))


def same(a, b):
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x, y), a, b)


def dot(a, b) -> float:
    return float(ravel_pytree(a)[0] @ ravel_pytree(b)[0])


def direction_like(tree, seed):
    random = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: jnp.asarray(random.normal(size=leaf.shape)), tree)


def along(value, at, direction, h=1e-4) -> float:
    """The derivative by central differences of fourth order."""

    def moved(h):
        return float(value(jax.tree.map(lambda leaf, step: leaf + h * step, at, direction)))

    return (8 * (moved(h) - moved(-h)) - (moved(2 * h) - moved(-2 * h))) / (12 * h)


# --- the operator -----------------------------------------------------------------------------------------------------


def augmented(H, t):
    """Its exponential has the integral of exp(-s H) from 0 to t as its upper right block (Van Loan 1978)."""
    zero = np.zeros_like(H)
    return np.block([[-t * H, t * np.eye(len(H))], [zero, zero]])


def integral(H, t):
    H = np.asarray(H)
    return np.linalg.pinv(H, rcond=1e-12) if t == INF else scipy.linalg.expm(augmented(H, t))[: len(H), len(H) :]


def derivative(H, direction, t):
    """Frechet derivative of the integral, of scipy's algorithm for that of expm."""
    zero = np.zeros_like(H)
    change = np.block([[-t * direction, zero], [zero, zero]])
    return scipy.linalg.expm_frechet(augmented(H, t), change, compute_expm=False)[: len(H), len(H) :]


def symmetric(seed, n=4, rank=None):
    A = np.random.default_rng(seed).normal(size=(n, rank or n))
    return A @ A.T


ROTATION = np.linalg.qr(np.random.default_rng(7).normal(size=(4, 4)))[0]
MATRICES = {
    "definite": symmetric(0),
    "identity": np.eye(4),
    "two pairs": np.diag([1.0, 1.0, 2.0, 2.0]),
    "two pairs, rotated": ROTATION @ np.diag([1.0, 1.0, 2.0, 2.0]) @ ROTATION.T,
    "identity and rank one": np.eye(4) + symmetric(1, rank=1),
    "nearly repeated": np.diag([1.0, 1.0 + 1e-9, 1.0 + 2e-9, 3.0]),
    "far apart": np.diag([1e-6, 1e-3, 1.0, 50.0]),
    "singular": symmetric(2, rank=2),
    "zero": np.zeros((4, 4)),
}
operator = jax.jit(flow_operator)


@jax.jit
def operator_and_derivatives(H, direction, t):
    value, by_kernel = jax.jvp(lambda H: flow_operator(H, t), (H,), (direction,))
    return value, by_kernel, jax.jvp(lambda t: flow_operator(H, t), (t,), (jnp.ones(()),))[1]


@pytest.mark.parametrize("t", [0.0, *TIMES])
@pytest.mark.parametrize("H", MATRICES.values(), ids=MATRICES)
def test_the_operator_is_the_integral_of_the_flow(H, t):
    found = operator(H, t)
    close(found, integral(H, t), 1e-11)
    same(found, found.T)
    if t not in (0.0, INF):
        moved = np.eye(4) - scipy.linalg.expm(-t * H)  # H G = I - exp(-t H)
        np.testing.assert_allclose(H @ found, moved, rtol=0, atol=1e-12 * max(1, np.abs(t * H).max()))


def test_the_operator_is_that_of_the_metantk():
    for t in (0.0, *TIMES):
        H = MATRICES["definite"]
        close(operator(H, t), metantk.adaptation_operator(H, inner_rate=1.0, inner_steps=t, flow=True), 1e-12)


def test_the_limit_of_time_is_the_inverse_or_pseudo_inverse():
    for name in ("definite", "singular"):
        H = MATRICES[name]
        least = np.linalg.eigvalsh(H)[-np.linalg.matrix_rank(H)]
        kept = H @ np.linalg.pinv(H, rcond=1e-12)  # what the support set excites; the rest of the operator grows with t
        close(kept @ operator(H, 50 / least) @ kept, operator(H, INF), 1e-11)
    close(operator(MATRICES["definite"], INF), np.linalg.inv(MATRICES["definite"]), 1e-12)


def test_the_operator_takes_axes_of_a_batch_vmap_and_traced_times():
    kernels = jnp.asarray(np.array(list(MATRICES.values())[:6]).reshape(2, 3, 4, 4))
    one_by_one = np.array([[operator(H, 1.0) for H in row] for row in kernels])
    close(flow_operator(kernels, 1.0), one_by_one, 1e-13)
    close(jax.vmap(jax.vmap(lambda H: flow_operator(H, 1.0)))(kernels), one_by_one, 1e-13)
    times = jnp.array([0.0, 0.1, 10.0, INF])
    H = MATRICES["definite"]
    close(jax.vmap(lambda t: flow_operator(H, t))(times), np.array([operator(H, t) for t in times]), 1e-13)


def test_single_precision_stays_and_is_computed_in_double():
    for t in TIMES:
        single = flow_operator(jnp.asarray(MATRICES["definite"], jnp.float32), t)
        assert single.dtype == jnp.float32
        exact = operator(np.asarray(MATRICES["definite"], np.float32).astype(float), t)
        close(single.astype(float), exact, 1e-7)  # one rounding


def test_a_small_eigenvalue_of_a_float32_kernel_is_not_taken_for_none_at_a_finite_time():
    """What is below n eps lambda_max is left out by the pseudo-inverse alone: at a finite time it would gain t."""
    kernel = np.diag(np.r_[np.ones(24), 1e-4]).astype(np.float32)
    found = float(flow_operator(kernel, 1e6)[-1, -1])
    assert abs(found / 1e4 - 1) < 1e-6


def test_the_operator_refuses():
    for given, said in (
        ((jnp.ones((2, 3)), 1.0), r"kernel: expected a square matrix \[m, m\], got \[2, 3\]"),
        ((jnp.ones(2), 1.0), r"kernel: expected a square matrix"),
        ((jnp.eye(2), -1.0), "time: expected a number of at least 0, got -1.0"),
        ((jnp.eye(2), math.nan), "time: expected a number of at least 0, got nan"),
        ((jnp.eye(2), "long"), "time: expected a number of at least 0, got 'long'"),
        ((jnp.eye(2), jnp.ones(2)), "time: expected a number of at least 0"),
    ):
        with pytest.raises(InputError, match=said):
            flow_operator(*given)


# --- its derivative ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("t", [1e-9, 1e-3, 0.04, 0.06, 1.0, 10.0, 500.0])
@pytest.mark.parametrize("H", MATRICES.values(), ids=MATRICES)
def test_the_derivative_is_that_of_the_matrix_exponential(H, t):
    """Repeated eigenvalues, both sides of where the series ends, and times at which all has long come to rest."""
    direction = symmetric(3) - symmetric(4)
    value, by_kernel, by_time = operator_and_derivatives(H, direction, t)
    close(value, operator(H, t), 1e-14)
    close(by_kernel, derivative(H, direction, t), 1e-9)
    close(by_time, scipy.linalg.expm(-t * H), 1e-9)


@pytest.mark.parametrize("H", [np.eye(4), MATRICES["two pairs, rotated"], MATRICES["definite"]])
@pytest.mark.parametrize("t", [1.0, INF])
def test_the_derivative_is_that_of_finite_differences(H, t):
    direction, weights = symmetric(3) - symmetric(4), symmetric(5)
    by_kernel = operator_and_derivatives(H, direction, t)[1]
    least = np.linalg.eigvalsh(H)[0]
    h = 1e-3 * least / np.linalg.norm(direction, 2)
    measured = along(lambda H: (np.asarray(operator(H, t)) * weights).sum(), H, direction, h)
    # beside the sizes that are summed: rounding is 1e-15 / 1e-3 of them, the fourth order 1e-12
    assert abs(measured - (by_kernel * weights).sum()) < 1e-9 * np.abs(by_kernel).max() * np.abs(weights).sum()


def test_at_infinite_time_a_singular_kernel_has_the_derivative_of_its_pseudo_inverse():
    """Along changes that leave the rank, as those of a network are: A A' with A changed."""
    random = np.random.default_rng(3)
    A, change = random.normal(size=(2, 4, 2))
    H, direction = A @ A.T, A @ change.T + change @ A.T
    _, by_kernel, by_time = operator_and_derivatives(H, direction, INF)
    assert not np.any(by_time)

    def pinv(h):
        moved = A + h * change
        return np.linalg.pinv(moved @ moved.T, rcond=1e-10)

    h = 1e-3
    measured = (8 * (pinv(h) - pinv(-h)) - (pinv(2 * h) - pinv(-2 * h))) / (12 * h)
    close(by_kernel, measured, 1e-7)
    P = np.linalg.pinv(H, rcond=1e-10)
    E = np.eye(4) - H @ P
    golub_pereyra = -P @ direction @ P + P @ P @ direction @ E + E @ direction @ P @ P
    close(by_kernel, golub_pereyra, 1e-10)


def test_no_derivative_is_nan():
    for H in MATRICES.values():
        for t in (0.0, *TIMES, 1e6):
            assert all(np.isfinite(leaf).all() for leaf in operator_and_derivatives(H, symmetric(3), t))


def test_reverse_mode_is_forward_mode():
    weights = jnp.asarray(np.random.default_rng(1).normal(size=(4, 4)))
    direction = symmetric(3) - symmetric(4)

    @jax.jit
    def backwards(H, t):
        return jax.grad(lambda H, t: (flow_operator(H, t) * weights).sum(), argnums=(0, 1))(H, t)

    for H in MATRICES.values():
        for t in TIMES:
            by_kernel, by_time = backwards(H, t)
            _, forward, by_time_forward = operator_and_derivatives(H, direction, t)
            scale = np.abs(forward).max() * np.abs(weights).sum() + 1e-300
            assert abs((by_kernel * direction).sum() - (forward * weights).sum()) <= 1e-12 * scale
            assert abs(by_time - (by_time_forward * weights).sum()) <= 1e-12 * np.abs(weights).sum()


# --- the closed form --------------------------------------------------------------------------------------------------


@partial(jax.jit, static_argnums=0)
def _value_and_jacobian(apply, params, x):
    flat, unravel = ravel_pytree(params)
    return apply(params, x), jax.jacrev(lambda p: apply(unravel(p), x))(flat)


def value_and_jacobian(apply, params, x):
    """The outputs `[N, k]` and their Jacobian `[N, k, p]`, in NumPy."""
    return tuple(map(np.asarray, _value_and_jacobian(apply, params, x)))


def kernel_of(J1, J2, outputs):
    if outputs == "full":
        return J1.reshape(-1, J1.shape[-1]) @ J2.reshape(-1, J2.shape[-1]).T
    if outputs == "sum":
        return J1.sum(1) @ J2.sum(1).T
    return np.einsum("ncp,mcp->nm", J1, J2) / J1.shape[1]


def by_definition(apply, params, sx, sy, x, inner):
    """f(x) + H(x, X') G(H + rho I) (Y' - f(X')) with Jacobians as arrays."""
    (f, J), (g, K) = (value_and_jacobian(apply, params, points) for points in (sx, x))
    H = kernel_of(J, J, inner.outputs)
    residual = np.asarray(sy - f).reshape(len(H), -1)
    a = integral(H + inner.ridge * np.eye(len(H)), inner.time) @ residual
    return g + (kernel_of(K, J, inner.outputs) @ a).reshape(g.shape)


def in_parameter_space(apply, params, sx, sy, x, time, ridge):
    """The linearised network after gradient descent for so long, by the exponential of its equation of motion."""
    (f, J), (g, K) = (value_and_jacobian(apply, params, points) for points in (sx, x))
    p = J.shape[-1]
    J, residual = J.reshape(-1, p), np.asarray(sy - f).ravel()
    curvature = J.T @ J + ridge * np.eye(p)
    if time == INF:
        moved = np.linalg.solve(curvature, J.T @ residual) if ridge else np.linalg.pinv(J) @ residual
    else:
        motion = np.block([[-time * curvature, time * (J.T @ residual)[:, None]], [np.zeros((1, p + 1))]])
        moved = scipy.linalg.expm(motion)[:p, p]
    return g + (K.reshape(-1, p) @ moved).reshape(g.shape)


def task(batch, i=0):
    return batch.support_x[i], batch.support_y[i], batch.query_x[i]


@pytest.mark.parametrize("how", ["gram", "linearised"])
@pytest.mark.parametrize("outputs", OUTPUTS)
def test_the_closed_form_is_its_definition(outputs, how):
    for time, ridge in ((0.1, 0.0), (1.0, 0.3), (10.0, 0.0), (INF, 0.3), (INF, 0.0)):
        inner = ClosedForm(time, ridge, outputs, how)
        found = maml.meta_outputs(apply, PARAMS, BATCH, inner)
        for i in range(2):
            expected = by_definition(apply, PARAMS, *task(BATCH, i), inner)
            close(found[i], expected, 1e-10)
        if (outputs, how) not in (("sum", "gram"), ("full", "linearised")):  # four of six: each compiles anew
            sx, sy, x = task(BATCH)
            close(predictor(apply, PARAMS, sx, sy, inner)(x), found[0], 1e-10)


@pytest.mark.parametrize("ridge", [0.0, 0.3])
@pytest.mark.parametrize("time", [0.0, *TIMES])
def test_full_outputs_are_the_linearised_network_after_its_gradient_flow(time, ridge):
    found = maml.meta_outputs(apply, PARAMS, BATCH, ClosedForm(time, ridge, "full"))
    close(found[0], in_parameter_space(apply, PARAMS, *task(BATCH), time, ridge), 1e-10)


def linearised(params, x):
    """The network linearised at PARAMS."""
    moved = jax.tree.map(jnp.subtract, params, PARAMS)
    outputs, change = jax.jvp(lambda p: apply(p, x), (PARAMS,), (moved,))
    return outputs + change


def test_many_small_steps_on_the_linearised_network_come_to_the_closed_form():
    """The error of Euler's method halves with the step; extrapolated, little is left."""
    sx, sy, x = task(BATCH)
    time = 0.5
    flow = predictor(apply, PARAMS, sx, sy, ClosedForm(time, outputs="full"))(x)
    errors = []
    for steps in (2000, 4000):
        theta = maml.adapt(linearised, PARAMS, sx, sy, InnerLoop(time / steps, 1), steps=steps)
        errors.append(np.asarray(linearised(theta, x) - flow))
    coarse, fine = errors
    size = np.abs(fine).max()
    assert 1e-8 < size < 1e-2
    assert abs(np.linalg.norm(coarse) / np.linalg.norm(fine) - 2) < 0.02
    assert np.abs(2 * fine - coarse).max() < 0.02 * size


@pytest.mark.parametrize(
    ("images", "outputs"), [(False, "sum"), (False, "trace"), (True, "sum"), (True, "trace"), (True, "full")]
)
def test_both_ways_agree_on_the_networks_of_the_course(images, outputs):
    k = 3 if images else 2
    network = Conv4(3, depth=1, outputs=k) if images else MLP(9, depth=1, outputs=k)
    shape = (4, 4, 1) if images else (6,)
    params = network.init(jax.random.key(0), shape)
    x = jax.random.normal(jax.random.key(1), (2, 5, *shape))
    y = jnp.tile(jnp.eye(k)[np.arange(5) % k], (2, 1, 1))
    batch = TaskBatch(x[:, :3], y[:, :3], x[:, 3:], y[:, 3:])
    gram, product = (ClosedForm(2.0, 0.05, outputs, how) for how in ("gram", "linearised"))
    found = maml.meta_outputs(network.apply, params, batch, gram)
    close(found, maml.meta_outputs(network.apply, params, batch, product), 1e-11)


def test_for_one_output_all_settings_agree():
    expected = by_definition(apply, ONE, *task(ONE_BATCH), ClosedForm(2.0, 0.1, "trace"))
    for outputs, how in (("sum", "auto"), ("trace", "gram"), ("trace", "auto"), ("full", "gram"), ("full", "auto")):
        close(maml.meta_outputs(apply, ONE, ONE_BATCH, ClosedForm(2.0, 0.1, outputs, how))[0], expected)


def test_at_infinite_time_without_ridge_the_support_set_is_interpolated():
    sx, sy, _ = task(BATCH)
    for outputs in OUTPUTS:
        np.testing.assert_allclose(predictor(apply, PARAMS, sx, sy, ClosedForm(outputs=outputs))(sx), sy, atol=1e-9)


def test_at_infinite_time_with_ridge_it_is_the_mean_of_a_gaussian_process():
    sx, sy, x = task(BATCH)
    K = np.asarray(empirical_ntk(apply, PARAMS, jnp.concatenate([sx, x]), outputs="trace"))
    m, noise = len(sx), 0.2
    weights = scipy.linalg.cho_solve(
        scipy.linalg.cho_factor(K[:m, :m] + noise * np.eye(m)), np.asarray(sy - apply(PARAMS, sx))
    )
    close(predictor(apply, PARAMS, sx, sy, ClosedForm(INF, noise))(x), apply(PARAMS, x) + K[m:, :m] @ weights, 1e-11)


def test_at_time_0_nothing_has_moved():
    for outputs in OUTPUTS:
        found = maml.meta_outputs(apply, PARAMS, BATCH, ClosedForm(0.0, outputs=outputs))
        close(found, jax.vmap(partial(apply, PARAMS))(BATCH.query_x), 1e-14)


def test_a_constant_added_to_all_labels_moves_all_scores_alike_where_outputs_are_treated_alike():
    """With "full" outputs mix: each score moves by its own row of the kernel, and the largest may be another."""
    sx, sy, x = task(BATCH)
    for outputs in OUTPUTS:
        inner = ClosedForm(1.0, 0.1, outputs)
        plain, shifted = (predictor(apply, PARAMS, sx, labels, inner)(x) for labels in (sy, sy + 0.7))
        moved = np.asarray(shifted - plain)
        (_, J), (_, K) = (value_and_jacobian(apply, PARAMS, points) for points in (sx, x))
        H = kernel_of(J, J, outputs)
        gain = kernel_of(K, J, outputs) @ integral(H + 0.1 * np.eye(len(H)), 1.0) @ np.full(len(H), 0.7)
        if outputs == "full":
            close(moved, gain.reshape(moved.shape), 1e-10)
            assert np.ptp(moved, axis=1).max() > 1e-2  # not alike
        else:
            close(moved, np.repeat(gain[:, None], 3, 1), 1e-10)
            same(plain.argmax(-1), shifted.argmax(-1))


def test_wide_networks_come_near_their_closed_form():
    """The distance falls as one over the root of the width at least: by 4 from 64 to 1024."""
    random = np.random.default_rng(0)
    sx, x = jnp.asarray(random.normal(size=(4, 3))), jnp.asarray(random.normal(size=(5, 3)))
    sy = jnp.asarray(random.normal(size=(4, 1)))
    steps = 1000  # of 1 / 1000: Euler's error is below that of the width

    def apart(width):
        network = MLP(width, depth=1, activation="tanh", w_std=1.0)
        squares = []
        for seed in range(4):
            params = network.init(jax.random.key(seed), (3,))
            theta = maml.adapt(network.apply, params, sx, sy, InnerLoop(1 / steps, 1), steps=steps)
            closed = predictor(network.apply, params, sx, sy, ClosedForm(1.0))(x)
            squares.append(float(jnp.mean((network.apply(theta, x) - closed) ** 2)))
        return math.sqrt(np.mean(squares))

    narrow, wide = apart(64), apart(1024)
    assert wide < narrow / 2
    assert wide < 0.02


def test_single_precision_stays():
    params, batch = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), (PARAMS, BATCH))
    for outputs, how in (("trace", "linearised"), ("sum", "linearised"), ("full", "gram")):
        inner = ClosedForm(1.0, 0.1, outputs, how)
        found = maml.meta_outputs(apply, params, batch, inner)
        assert found.dtype == jnp.float32
        close(found.astype(float), maml.meta_outputs(apply, PARAMS, BATCH, inner), 1e-4)


# --- the meta-gradient ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("outputs", OUTPUTS)
def test_the_meta_gradient_of_the_closed_form(outputs):
    """Against finite differences; and both ways, all at once and one by one, agree."""
    for time in TIMES:
        gram, product = (ClosedForm(time, 0.0, outputs, how) for how in ("gram", "linearised"))
        loss, gradient = maml.meta_gradient(apply, PARAMS, BATCH, gram, sequential=False)
        close(maml.meta_gradient(apply, PARAMS, BATCH, product, sequential=True), (loss, gradient), 1e-8)
        for seed in range(2):
            direction = direction_like(PARAMS, seed)
            measured = along(lambda p: maml.meta_gradient(apply, p, BATCH, gram)[0], PARAMS, direction)  # noqa: B023
            size = max(abs(dot(gradient, direction)), 0.1 * math.sqrt(dot(gradient, gradient)))
            assert abs(measured - dot(gradient, direction)) < 1e-5 * size


def test_other_losses_reduction_and_tasks_in_sequence():
    inner = ClosedForm(1.0, 0.1)
    how = {"outer_loss": "cross_entropy", "reduce": "mean"}
    loss, gradient = maml.meta_gradient(apply, PARAMS, BATCH, inner, sequential=True, **how)
    close(maml.meta_gradient(apply, PARAMS, BATCH, inner, sequential=False, **how), (loss, gradient), 1e-12)
    logits = maml.meta_outputs(apply, PARAMS, BATCH, inner)
    close(loss, -(BATCH.query_y * jax.nn.log_softmax(logits)).sum(-1).mean(), 1e-12)
    alone = [maml.task_loss(apply, PARAMS, one, inner, outer_loss="cross_entropy") for one in BATCH]
    close(sum(alone) / 2, loss, 1e-12)


def repeated(batch, copies=2):
    """Each support point so many times."""
    return replace(
        batch, support_x=jnp.repeat(batch.support_x, copies, 1), support_y=jnp.repeat(batch.support_y, copies, 1)
    )


@pytest.mark.parametrize("outputs", OUTPUTS)
def test_repeated_images(outputs):
    """At infinite time they change nothing, neither the outputs nor the gradient; at time t they are twice the time."""
    twice = repeated(BATCH)
    limit = ClosedForm(INF, 0.0, outputs, "gram")
    once, again = (maml.meta_gradient(apply, PARAMS, batch, limit) for batch in (BATCH, twice))
    close(again, once, 1e-7)
    flow = maml.meta_gradient(apply, PARAMS, twice, replace(limit, time=1.0))
    close(flow, maml.meta_gradient(apply, PARAMS, BATCH, replace(limit, time=2.0)), 1e-8)


@pytest.mark.parametrize("time", [1.0, INF])
def test_more_support_points_than_parameters(time):
    """The kernel has the rank of the parameters; the flow still is that of the parameters, and its gradient is."""
    params = draw_params(1, width=2, outputs=1)
    batch = draw_batch(3, B=1, m=14, outputs=1)
    batch = replace(batch, support_y=batch.support_x[..., :1], query_y=batch.query_x[..., 1:])
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 9
    inner = ClosedForm(time)
    found = maml.meta_outputs(apply, params, batch, inner)
    close(found[0], in_parameter_space(apply, params, *task(batch), time, 0.0), 1e-7)
    _, gradient = maml.meta_gradient(apply, params, batch, inner)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    direction = direction_like(params, 0)
    measured = along(lambda p: maml.meta_gradient(apply, p, batch, inner)[0], params, direction)
    assert abs(measured - dot(gradient, direction)) < 1e-5 * max(abs(measured), 1e-2)


# --- the predictor's inputs -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("outputs", "how"), [("full", "gram"), ("trace", "linearised")])
def test_the_gradient_by_query_and_support_inputs(outputs, how):
    """What white-box attacks climb."""
    sx, sy, x = task(BATCH)
    inner = ClosedForm(1.0, 0.1, outputs, how)
    say = predictor(apply, PARAMS, sx, sy, inner)
    gradient = jax.grad(lambda x: jnp.sum(say(x)[:, 0] ** 2))(x)
    direction = direction_like(x, 0)
    measured = along(lambda x: jnp.sum(say(x)[:, 0] ** 2), x, direction)
    assert abs(measured - dot(gradient, direction)) < 1e-8 * math.sqrt(dot(gradient, gradient))

    def of_support(sx):
        return jnp.sum(predictor(apply, PARAMS, sx, sy, inner)(x)[:, 0] ** 2)

    gradient, direction = jax.grad(of_support)(sx), direction_like(sx, 1)
    measured = along(of_support, sx, direction)
    assert abs(measured - dot(gradient, direction)) < 1e-8 * math.sqrt(dot(gradient, gradient))


# --- Meta-RKHS-I ------------------------------------------------------------------------------------------------------


def half_mean(outputs, labels):
    """1 / (2 n) times the sum of squares, the paper's loss."""
    return jnp.sum((outputs - labels) ** 2) / (2 * len(outputs))


def points_of(batch, i=0):
    return (
        jnp.concatenate([batch.support_x[i], batch.query_x[i]]),
        jnp.concatenate([batch.support_y[i], batch.query_y[i]]),
    )


def test_the_squared_gradient_is_a_form_of_the_residual_by_the_kernel():
    """|grad L|^2 = r' H r / n^2."""
    x, y = points_of(ONE_BATCH)
    gradient = jax.grad(lambda p: half_mean(apply(p, x), y))(ONE)
    r = np.asarray(apply(ONE, x) - y)[:, 0]
    H = np.asarray(empirical_ntk(apply, ONE, x))
    form = r @ H @ r / len(x) ** 2
    assert abs(dot(gradient, gradient) / form - 1) < 1e-12
    found = maml.meta_loss(apply, ONE, ONE_BATCH[0], Regularised(0.3, half_mean))
    assert abs(found - (half_mean(apply(ONE, x), y) - 0.3 * form)) < 1e-12 * abs(form)


def on_all_points(batch):
    """Tasks whose support set, queries and whole have the same mean loss: that of all points."""
    x, y = map(jnp.stack, zip(*(points_of(batch, i) for i in range(len(batch))), strict=True))
    return TaskBatch(x, y, x, y)


def test_it_is_one_step_of_maml_to_first_order():
    batch = on_all_points(ONE_BATCH[0])
    params = jax.tree.map(lambda leaf: leaf / 4, ONE)  # of little curvature: 0.1 is a small step
    errors = []
    for alpha in (1e-1, 1e-2, 1e-3):
        maml_ = maml.meta_loss(apply, params, batch, InnerLoop(alpha, 1, half_mean), outer_loss=half_mean)
        errors.append(abs(float(maml_ - maml.meta_loss(apply, params, batch, Regularised(alpha, half_mean)))))
    assert errors[-1] > 1e-12  # above rounding
    assert 50 < errors[0] / errors[1] < 200
    assert 90 < errors[1] / errors[2] < 110


def test_it_is_reptile_to_first_order():
    """k steps at rate a go along g - a (k - 1) / 2 H g, which is the gradient for alpha = a (k - 1) / 4."""
    batch, k = on_all_points(BATCH), 5
    apart = []
    for a in (4e-3, 4e-4):
        reptile = maml.reptile_direction(apply, PARAMS, batch, InnerLoop(a, k, "mean_squares"))
        _, gradient = maml.meta_gradient(
            apply, PARAMS, batch, Regularised(a * (k - 1) / 4, "mean_squares"), reduce="mean"
        )
        difference = jax.tree.map(lambda d, g, a=a: d / (k * a) - g, reptile, gradient)
        apart.append(math.sqrt(dot(difference, difference)))
        if a == 4e-3:
            _, plain = maml.meta_gradient(apply, PARAMS, batch, Regularised(0.0, "mean_squares"), reduce="mean")
            first = jax.tree.map(lambda d, g, a=a: d / (k * a) - g, reptile, plain)
            assert apart[0] < 0.3 * math.sqrt(dot(first, first))
    assert 80 < apart[0] / apart[1] < 125


def by_hand(params, one, inner):
    """The objective of one task, with its gradients written out."""
    (sx, sy), (qx, qy) = (one.support_x, one.support_y), (one.query_x, one.query_y)

    def loss(params, x, y):
        f = apply(params, x)
        if inner.loss == "half_sum_squares":
            return ((f - y) ** 2).sum() / 2
        if inner.loss == "mean_squares":
            return ((f - y) ** 2).mean()
        return -(y * jax.nn.log_softmax(f)).sum(-1).mean()

    x, y = jnp.concatenate([sx, qx]), jnp.concatenate([sy, qy])
    pairs = [(x, y), (x, y)] if inner.batches == "one" else [(sx, sy), (qx, qy)]
    one, two = (ravel_pytree(jax.grad(loss)(params, *pair))[0] for pair in pairs)
    return loss(params, x, y) - inner.alpha * one @ two


@pytest.mark.parametrize("batches", ["one", "two"])
@pytest.mark.parametrize("loss", maml.LOSSES)
def test_the_gradient_of_the_regularised_loss(loss, batches):
    inner = Regularised(0.05, loss, batches)
    value, gradient = jax.jit(
        jax.value_and_grad(lambda p: sum(jax.vmap(lambda one: by_hand(p, one, inner))(BATCH)))
    )(PARAMS)  # fmt: skip
    close(maml.meta_gradient(apply, PARAMS, BATCH, inner, sequential=loss == "mean_squares"), (value, gradient), 1e-11)
    if (loss, batches) != ("half_sum_squares", "two"):
        return
    close(maml.meta_gradient(apply, PARAMS, BATCH, inner, sequential=True), (value, gradient), 1e-11)
    mean = maml.meta_gradient(apply, PARAMS, BATCH, inner, reduce="mean", outer_loss="mean_squares")
    close(jax.tree.map(lambda leaf: 2 * leaf, mean), (value, gradient), 1e-11)  # the outer loss does not enter


def test_with_alpha_0_it_is_joint_training():
    x, y = (jnp.concatenate(parts) for parts in zip(points_of(BATCH, 0), points_of(BATCH, 1), strict=True))
    expected = jax.value_and_grad(lambda p: jnp.sum((apply(p, x) - y) ** 2) / 2)(PARAMS)
    for batches in ("one", "two"):
        close(maml.meta_gradient(apply, PARAMS, BATCH, Regularised(0.0, batches=batches)), expected, 1e-12)


def linear(params, x):
    return x @ params["w"]


def test_two_batches_are_free_of_the_bias_that_one_has():
    """One batch of n points has alpha tr Cov / n too much in its square, Cov that of one point's gradient."""
    random = np.random.default_rng(0)
    X, noise = random.normal(size=(1000, 2)), random.normal(size=(1000, 1))
    Y = X @ np.array([[1.0], [-0.5]]) + noise
    params, alpha, draws, m, n = {"w": jnp.array([[0.8], [0.1]])}, 0.3, 20000, 2, 3
    error = X @ np.asarray(params["w"]) - Y
    each = 2 * error * X  # gradients of a point's square
    g, bias = each.mean(0), alpha * each.var(0).sum() / (m + n)
    exact = (error**2).mean() - alpha * g @ g
    index = random.integers(1000, size=(draws, m + n))
    x, y = jnp.asarray(X[index]), jnp.asarray(Y[index])
    batch = TaskBatch(x[:, :m], y[:, :m], x[:, m:], y[:, m:])
    for batches, off in (("one", -bias), ("two", 0.0)):
        inner = Regularised(alpha, "mean_squares", batches)
        values = np.asarray(jax.vmap(lambda one: maml.task_loss(linear, params, one, inner))(batch))  # noqa: B023
        standard_error = values.std() / math.sqrt(draws)
        assert abs(values.mean() - exact - off) < 4 * standard_error
        assert bias > 10 * standard_error


def test_of_a_parabola_the_objective_is_bounded_up_to_half_its_inverse_curvature():
    """L = s x^2 / 2 has s - 2 alpha s^2 for a second derivative."""
    s = 3.0
    ones = jnp.ones((1, 1, 1))
    batch = TaskBatch(ones, 0 * ones, ones, 0 * ones)  # two points, each with s / 2

    def parabola(x, points):
        return jnp.sqrt(s / 2) * x * points

    for alpha in (0.0, 0.9 / (2 * s), 1 / (2 * s), 1.1 / (2 * s)):
        inner = Regularised(alpha)
        second = jax.hessian(lambda x: maml.meta_loss(parabola, x, batch, inner))(jnp.asarray(0.4))  # noqa: B023
        assert abs(second - (s - 2 * alpha * s**2)) < 1e-12


# --- the outer loop ---------------------------------------------------------------------------------------------------

ADAM = optax.adam(1e-2)


@pytest.mark.parametrize("inner", [ClosedForm(1.0, 0.1), Regularised(0.01, "mean_squares")], ids=["II", "I"])
def test_fit_trains_resumes_and_refuses_other_settings(inner, tmp_path):
    given = (apply, PARAMS, BATCH)
    whole = maml.fit(*given, inner, ADAM, steps=40)
    assert whole.losses[-1] < 0.8 * whole.losses[0]
    close(whole.losses[0], np.asarray(maml.meta_loss(*given, inner)), 1e-12)
    path = tmp_path / "run.npz"
    maml.fit(*given, inner, ADAM, steps=15, checkpoint=path)
    resumed = maml.fit(*given, inner, ADAM, steps=40, checkpoint=path)
    same((resumed.params, resumed.opt_state), (whole.params, whole.opt_state))
    same(resumed.losses, whole.losses)
    same(resumed.rates, inner.numbers)
    changes = [{"alpha": 0.02}, {"batches": "two"}, {"loss": "half_sum_squares"}]
    if isinstance(inner, ClosedForm):
        changes = [{"time": 2.0}, {"time": INF}, {"ridge": 0.2}, {"outputs": "full"}, {"how": "gram"}]
    for change in changes:
        with pytest.raises(InputError, match="made with"):
            maml.fit(*given, replace(inner, **change), ADAM, steps=40, checkpoint=path)
    with pytest.raises(InputError, match="made with"):
        maml.fit(*given, InnerLoop(0.1, 1), ADAM, steps=40, checkpoint=path)


def test_other_times_ridges_and_alphas_do_not_compile_anew():
    count = 0

    def counted(params, x):
        nonlocal count
        count += 1
        return apply(params, x)

    sx, sy, x = task(BATCH)
    for inner, others in (
        (ClosedForm(1.0), (ClosedForm(INF), ClosedForm(3.0, 0.2))),
        (Regularised(0.1), (Regularised(0.2),)),
    ):

        def run(inner):
            maml.meta_gradient(counted, PARAMS, BATCH, inner)
            maml.fit(counted, PARAMS, BATCH, inner, ADAM, steps=2)
            if isinstance(inner, ClosedForm):
                predictor(counted, PARAMS, sx, sy, inner)(x)

        run(inner)
        first = count
        for other in others:
            run(other)
            assert count == first


def test_a_huge_alpha_is_named_where_it_diverges():
    given = (apply, PARAMS, BATCH, Regularised(100.0), optax.sgd(1.0))
    result = maml.fit(*given, steps=50, on_divergence="return")
    assert result.diverged.culprit == "alpha"
    assert "alpha = 100" in result.diverged.cause
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(result.params))


def test_without_an_alpha_the_outer_rate_is_named():
    given = (apply, PARAMS, BATCH, Regularised(0.0), optax.sgd(1e6))
    result = maml.fit(*given, steps=200, on_divergence="return")
    assert result.diverged.culprit == "outer rate"
    assert "alpha" not in result.diverged.cause


@pytest.mark.parametrize("inner", [ClosedForm(1.0), Regularised(0.1)], ids=lambda inner: type(inner).__name__)
def test_the_curvature_of_the_meta_loss_is_that_of_an_inner_loop(inner):
    with pytest.raises(InputError, match="inner: expected an InnerLoop"):
        curvature.meta_smoothness(apply, PARAMS, BATCH, inner)


def test_the_outer_rate_is_named_where_a_closed_form_diverges():
    result = maml.fit(apply, PARAMS, BATCH, ClosedForm(1.0), optax.sgd(1e6), steps=200, on_divergence="return")
    assert result.diverged.culprit == "outer rate"


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: ClosedForm(-1.0), "time: expected a number of at least 0, got -1.0"),
        (lambda: ClosedForm(math.nan), "time: expected a number"),
        (lambda: ClosedForm(1.0, INF), "ridge: expected a finite number of at least 0, got inf"),
        (lambda: ClosedForm(1.0, -0.1), "ridge: expected a finite number"),
        (lambda: ClosedForm(outputs="mean"), "outputs: expected sum or full or trace, got 'mean'"),
        (lambda: ClosedForm(how="fast"), "how: expected auto or linearised or gram, got 'fast'"),
        (lambda: Regularised(-0.1), "alpha: expected a finite number of at least 0, got -0.1"),
        (lambda: Regularised(INF), "alpha: expected a finite number"),
        (lambda: Regularised(0.1, "hinge"), "loss: expected half_sum_squares or .* got 'hinge'"),
        (lambda: Regularised(0.1, batches="three"), "batches: expected one or two, got 'three'"),
    ],
)
def test_bad_settings_are_named(make, said):
    with pytest.raises(InputError, match=said):
        make()


BOTH = (ClosedForm(1.0), Regularised(0.1))
USUAL = (apply, PARAMS, BATCH)


@pytest.mark.parametrize("inner", BOTH, ids=["II", "I"])
def test_where_there_is_no_inner_loop_nothing_of_one_is_taken(inner):
    name = type(inner).__name__
    for call, said in (
        (lambda: maml.meta_gradient(*USUAL, inner, rates=0.1), f"rates: expected nothing with {name}"),
        (lambda: maml.meta_gradient(*USUAL, inner, with_rates=True), f"learn_rates: expected nothing with {name}"),
        (lambda: maml.fit(*USUAL, inner, ADAM, steps=1, rates=0.1), f"rates: expected nothing with {name}"),
        (lambda: maml.fit(*USUAL, inner, ADAM, steps=1, learn_rates=True), "learn_rates: expected nothing"),
        (lambda: maml.fit(*USUAL, inner, ADAM, steps=1, method="reptile"), f"method: expected None with {name}"),
        (lambda: maml.reptile_direction(*USUAL, inner), f"inner: expected an InnerLoop, got {name}"),
        (lambda: maml.adapt(apply, PARAMS, *task(BATCH)[:2], inner), f"inner: expected an InnerLoop, got {name}"),
        (lambda: anil.two_part_gradient(*USUAL, inner), f"inner: expected an InnerLoop, got {name}"),
        (lambda: anil.implicit_gradient(*USUAL, inner), f"inner: expected an InnerLoop, got {name}"),
        (lambda: cost.cost_formula(MLP(4), PARAMS, BATCH, inner), f"inner: expected an InnerLoop, got {name}"),
    ):
        with pytest.raises(InputError, match=said):
            call()


def test_what_does_not_fit_is_named():
    sx, sy, _ = task(BATCH)
    fewer = replace(BATCH, support_y=BATCH.support_y[..., :1], query_y=BATCH.query_y[..., :1])
    bad = replace(BATCH, query_y=2 * BATCH.query_y)
    for call, said in (
        (lambda: maml.meta_outputs(*USUAL, Regularised(0.1)), "inner: expected an InnerLoop, rkhs.ClosedForm, fun"),
        (lambda: maml.meta_loss(*USUAL, "rkhs"), "inner: expected an InnerLoop, rkhs.ClosedForm, rkhs"),
        (lambda: adapt(apply, PARAMS, sx, sy, InnerLoop(0.1, 1)), "inner: expected a rkhs.ClosedForm, got InnerLoop"),
        (lambda: predictor(apply, PARAMS, sx, sy[:, :2], ClosedForm()), r"support_y: .* \[4, 3\], got \[4, 2\]"),
        (lambda: maml.meta_outputs(apply, PARAMS, fewer, ClosedForm(how="gram")), r"support_y: .* got \[4, 1\]"),
        (lambda: maml.meta_outputs(apply, PARAMS, fewer, ClosedForm(how="linearised")), r"support_y: .* got \[4, 1\]"),
        (lambda: maml.meta_loss(apply, PARAMS, bad, Regularised(0.1, "cross_entropy")), "query_y: expected rows"),
    ):
        with pytest.raises(InputError, match=said):
            call()


def test_a_small_ridge_is_not_rounded_away_in_single_precision():
    """At infinite time the mean of the Gaussian process, as at a very long one."""
    x = jnp.linspace(-5, 5, 10, dtype=jnp.float32)[:, None]
    network = MLP(40, w_std=1.0, b_std=1.0)
    params = network.init(jax.random.key(0), (1,), jnp.float32)
    y = jnp.sin(x)
    kernel = np.asarray(empirical_ntk(network.apply, params, x), np.float64)
    residual = np.asarray(y - network.apply(params, x), np.float64)
    wanted = np.asarray(network.apply(params, x)) + kernel @ np.linalg.solve(kernel + 1e-3 * np.eye(10), residual)
    said = predictor(network.apply, params, x, y, ClosedForm(math.inf, ridge=1e-3))(x)
    np.testing.assert_allclose(said, wanted, atol=2e-3)


def test_points_of_another_shape_are_refused_by_the_predictor():
    network = MLP(8)
    params = network.init(jax.random.key(0), (1,))
    say = predictor(network.apply, params, jnp.ones((2, 1)), jnp.ones((2, 1)), ClosedForm())
    for x in (jnp.ones(5), jnp.ones((5, 2))):
        with pytest.raises(InputError, match="x: expected points"):
            say(x)
