"""Adaptation in function space: the closed form against its problem, kernels against formulas, what is learned."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_rkhs import INF, along, close, direction_like, dot, draw_batch, same, task

from mlkernels.errors import InputError
from mlkernels.kernels import empirical_ntk
from mlkernels.learners import anil, cost, curvature, maml, rkhs
from mlkernels.learners.function_space import (
    NTK,
    RBF,
    Cosine,
    FunctionSpace,
    Linear,
    adapt,
    leave_one_out,
    predictor,
)
from mlkernels.learners.function_space.kernel import Points, Product, Sum
from mlkernels.learners.maml import InnerLoop
from mlkernels.networks import MLP, Conv4
from mlkernels.tasks import TaskBatch

NETWORK = MLP(6, outputs=3, w_std=1.0, activation="tanh")
PARAMS = NETWORK.init(jax.random.key(0), (2,))
BATCH = draw_batch()
GIVEN = (NETWORK.apply, PARAMS, BATCH)
KERNELS = {
    "rbf": RBF(1.3, 0.8),
    "linear": Linear(0.7),
    "cosine": Cosine(1.2),
    "ntk": NTK(0.5),
    "sum": RBF(0.6) + Linear(0.4) + NTK(),
    "product": RBF(2.0) * NTK(0.5) + Cosine() * Linear(0.8) * RBF(),
}
every_kernel = pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)


def hidden(x, network=NETWORK, params=PARAMS):
    layers = network.features(params, x)
    return np.asarray(layers[network.layers[-2]]).reshape(len(x), -1)


def by_formula(kernel, a, b, ntk):
    """A kernel of features, and of the NTK's block, in NumPy."""
    if isinstance(kernel, Sum | Product):
        blocks = [by_formula(part, a, b, ntk) for part in kernel.parts]
        return sum(blocks) if isinstance(kernel, Sum) else np.prod(blocks, axis=0)
    squared = kernel.amplitude**2
    if isinstance(kernel, NTK):
        return squared * np.asarray(ntk)
    if isinstance(kernel, RBF):
        distances = np.array([[np.linalg.norm(p - q) for q in b] for p in a])
        return squared * np.exp(-(distances**2) / (2 * kernel.length_scale**2))
    inner = np.array([[p @ q for q in b] for p in a])
    if isinstance(kernel, Linear):
        return squared * inner
    return squared * inner / np.linalg.norm(a, axis=1)[:, None] / np.linalg.norm(b, axis=1)


def blocks(kernel, x1, x2, network=NETWORK, params=PARAMS, look=None):
    """The kernel's block between two sets of inputs."""
    look = partial(hidden, network=network, params=params) if look is None else look
    ntk = empirical_ntk(network.apply, params, x1, x2, outputs="trace")
    return by_formula(kernel, look(x1), look(x2), ntk)


def by_definition(inner, sx, sy, x, network=NETWORK, params=PARAMS, look=None):
    """f(x) + k(x, X') (K + gamma I)^-1 (Y' - f(X')), by a dense solve."""
    f, g = (np.asarray(network.apply(params, points)) for points in (sx, x))
    if inner.mean == "zero":
        f, g = np.zeros(sy.shape), np.zeros((len(x), sy.shape[1]))
    K = blocks(inner.kernel, sx, sx, network, params, look) + inner.gamma * np.eye(len(sx))
    return g + blocks(inner.kernel, x, sx, network, params, look) @ np.linalg.solve(K, np.asarray(sy) - f)


def gram(kernel, a, b=None, numbers=None):
    points = [None if each is None else Points(jnp.asarray(each), jnp.asarray(each)) for each in (a, b)]
    return kernel.gram(kernel.numbers if numbers is None else numbers, NETWORK.apply, PARAMS, *points)


# --- kernels ----------------------------------------------------------------------------------------------------------


@every_kernel
def test_a_kernel_is_its_formula(kernel):
    a, b = np.random.default_rng(0).normal(size=(2, 5, 2))
    b = b[:3]
    found = gram(kernel, a, b)
    close(found, by_formula(kernel, a, b, empirical_ntk(NETWORK.apply, PARAMS, a, b, outputs="trace")), 1e-12)
    close(gram(kernel, b, a), found.T, 1e-12)


@every_kernel
def test_a_kernel_is_symmetric_and_positive_semidefinite(kernel):
    a = np.random.default_rng(1).normal(size=(7, 2))
    a[-1] = a[0]  # singular too
    K = np.asarray(gram(kernel, a))
    close(K, K.T, 1e-14)
    close(K, gram(kernel, a, a), 1e-12)
    assert np.linalg.eigvalsh((K + K.T) / 2)[0] > -1e-13 * np.trace(K)
    np.testing.assert_allclose(K[-1], K[0], rtol=0, atol=1e-12 * np.abs(K).max())


def test_kernels_add_up_and_multiply():
    a, b, c = RBF(2.0), Linear(0.3), Cosine()
    x = np.random.default_rng(2).normal(size=(4, 2))
    A, B, C = (np.asarray(gram(kernel, x)) for kernel in (a, b, c))
    close(gram(a + b * c, x), A + B * C, 1e-14)
    close(gram((a + b) * c, x), A * C + B * C, 1e-14)
    assert (a + b) + c == a + (b + c) == Sum((a, b, c))
    assert (a * b) * c == a * (b * c) == Product((a, b, c))
    assert hash(a + b * c) == hash(RBF(2.0) + Linear(0.3) * Cosine())
    assert (a + b * c).form == RBF() + Linear() * Cosine()
    assert [*map(type, (a + b * c).numbers)] == [dict, tuple]
    assert not (NTK() + NTK()).of_features
    assert (NTK() + a * b).of_features
    assert (NTK() * a).of_network
    assert not (a + b).of_network


@every_kernel
def test_numbers_are_logarithms_and_come_back(kernel):
    numbers = kernel.numbers
    back = kernel.at(numbers)
    assert back.form == kernel.form
    np.testing.assert_allclose(*(jax.tree.leaves(each.numbers) for each in (back, kernel)), rtol=0, atol=1e-14)
    x = np.random.default_rng(3).normal(size=(4, 2))
    other = jax.tree.map(lambda leaf: leaf + 0.3, numbers)
    close(gram(kernel.form, x, numbers=other), gram(kernel.at(other), x), 1e-13)
    assert all(leaf == 0 for leaf in jax.tree.leaves(kernel.form.numbers))


@every_kernel
def test_the_derivative_by_features_is_right_at_equal_points(kernel):
    """Where two points are one, and where a block is that of points with themselves."""
    random = np.random.default_rng(4)
    a, weights = random.normal(size=(4, 2)), random.normal(size=(4, 4))
    a[3] = a[0]
    for second in (lambda a: None, lambda a: a, lambda a: np.asarray(a)[::-1].copy()):
        fixed = second(a)

        def value(a, second=second, fixed=fixed):
            b = fixed if second(np.ones((4, 2))) is not None and fixed is not a else second(a)
            return (gram(kernel, a, b) * weights).sum()

        gradient = jax.grad(value)(jnp.asarray(a))
        direction = direction_like(a, 0)
        measured = along(value, a, direction, 1e-3)
        assert abs(measured - dot(gradient, direction)) < 1e-8 * np.abs(gradient).max()


def test_the_rbf_is_flat_where_points_are_equal_and_its_distances_are_exact():
    far = np.full((2, 3), 1e8)
    far[1, 0] += 1.0  # differences, not squares that cancel
    close(gram(RBF(), far), np.exp([[0, -0.5], [-0.5, 0]]), 1e-15)
    gradient = jax.grad(lambda a: gram(RBF(0.1), a, far).diagonal().sum())(jnp.asarray(far))
    assert not np.any(gradient)


@pytest.mark.parametrize("kernel", [RBF(0.7, 1.3), Cosine(1.3), Linear(1.3)], ids=lambda kernel: type(kernel).__name__)
@pytest.mark.parametrize("same", [True, False])
def test_kernels_of_float32_features_are_those_of_the_same_features_in_float64(kernel, same):
    """By products, not by differences: also far from zero, at equal points and at zero; and so are their gradients."""
    random = np.random.default_rng(5)
    a, b = (random.normal(size=(5, 3)).astype(np.float32) for _ in range(2))
    a[3], b[0], a[4] = a[0], a[0], 0
    far = 0 if isinstance(kernel, Cosine) else 1e3
    for shift in (0, far):
        given = [(each + shift).astype(np.float32) for each in ((a,) if same else (a, b))]
        weights = random.normal(size=(5, 5))

        def value(*points, weights=weights):
            return (gram(kernel, *points) * weights).sum()

        twice = [each.astype(np.float64) for each in given]
        found, exact = gram(kernel, *given), gram(kernel, *twice)
        assert found.dtype == np.float64
        close(found, exact, 1e-12)
        for narrow, broad in zip(*(jax.grad(value, range(len(g)))(*map(jnp.asarray, g)) for g in (given, twice)),
                                 strict=True):  # fmt: skip
            assert narrow.dtype == np.float32
            np.testing.assert_allclose(narrow, broad, rtol=1e-5, atol=1e-5 * float(np.abs(broad).max()))
    if isinstance(kernel, RBF):
        equal = found.diagonal() if same else found[0, :1]
        np.testing.assert_allclose(equal, kernel.amplitude**2, rtol=1e-9)


def test_the_cosine_of_a_zero_vector_is_zero_with_a_derivative_of_zero():
    a = np.array([[0.0, 0.0], [1.0, 2.0], [1e-200, 0.0]])  # the last has a direction, though no square
    K = gram(Cosine(), a)
    close(K, np.array([[0, 0, 0], [0, 1, 5**-0.5], [0, 5**-0.5, 1]]), 1e-15)
    gradient = jax.grad(lambda a: gram(Cosine(), a, a).sum())(jnp.asarray(a))
    assert np.isfinite(gradient).all()
    assert not np.any(gradient[0])


# --- the closed form --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mean", ["network", "zero"])
@every_kernel
def test_the_closed_form_is_a_dense_solve(kernel, mean):
    inner = FunctionSpace(kernel, 0.3, mean=mean)
    found = maml.meta_outputs(*GIVEN, inner)
    for i in range(2):
        close(found[i], by_definition(inner, *task(BATCH, i)), 1e-10)
    sx, sy, x = task(BATCH)
    close(predictor(NETWORK.apply, PARAMS, sx, sy, inner)(x), found[0], 1e-12)


def square(params, x):
    """A feature map of nobody's network."""
    return jnp.concatenate([x, x**2], axis=-1)


@pytest.mark.parametrize(("features", "look"), [("inputs", np.asarray), (square, lambda x: np.hstack([x, x**2]))])
def test_other_features(features, look):
    inner = FunctionSpace(RBF(1.5) + Linear(), 0.2, features)
    found = maml.meta_outputs(*GIVEN, inner)
    close(found[1], by_definition(inner, *task(BATCH, 1), look=look), 1e-10)


@pytest.mark.parametrize("mean", ["network", "zero"])
@every_kernel
def test_it_is_at_rest_where_the_regularised_problem_is(kernel, mean):
    """Over h = k(., Z) w with Z the support set and other points: there w is (a, 0), and nothing near it does better.

    The gradient by w is small beside what its parts are.
    """
    inner = FunctionSpace(kernel, 0.3, mean=mean)
    sx, sy, x = task(BATCH)
    found = adapt(NETWORK.apply, PARAMS, sx, sy, inner)
    Z = np.concatenate([sx, x])
    K, m = blocks(kernel, Z, Z), len(sx)
    residual = np.asarray(sy - (NETWORK.apply(PARAMS, sx) if mean == "network" else 0))

    def objective(w):
        return ((K[:m] @ w - residual) ** 2).sum() / 2 + inner.gamma / 2 * (w * (K @ w)).sum()

    w = np.concatenate([found.weights, np.zeros((len(x), 3))])
    gradient = jax.grad(objective)(jnp.asarray(w))
    assert np.abs(gradient).max() < 1e-10 * np.abs(K).max() * np.abs(residual).max()
    least = objective(w)
    random = np.random.default_rng(0)
    for size in (1e-3, 1e-1, 1.0):
        for _ in range(10):
            moved = objective(w + size * random.normal(size=w.shape))
            assert moved >= least - 1e-14 * least


def test_the_ntk_is_meta_rkhs_ii_with_a_ridge():
    for gamma in (1e-3, 0.3, 10.0):
        expected = maml.meta_outputs(*GIVEN, rkhs.ClosedForm(INF, gamma))
        close(maml.meta_outputs(*GIVEN, FunctionSpace(NTK(), gamma)), expected, 1e-10)
    scaled = maml.meta_outputs(*GIVEN, FunctionSpace(NTK(2.0), 0.4))  # an amplitude is a smaller gamma
    close(scaled, maml.meta_outputs(*GIVEN, rkhs.ClosedForm(INF, 0.1)), 1e-10)


def test_as_gamma_vanishes_it_is_the_flow_at_infinite_time():
    limit = np.asarray(maml.meta_outputs(*GIVEN, rkhs.ClosedForm(INF)))
    apart = [
        np.abs(maml.meta_outputs(*GIVEN, FunctionSpace(NTK(), gamma)) - limit).max() for gamma in (1e-5, 1e-6, 1e-7)
    ]
    assert apart[-1] < 1e-4 * np.abs(limit).max()
    for more, less in pairwise(apart):
        assert 9 < more / less < 11
    sx, sy, _ = task(BATCH)
    fitted = predictor(NETWORK.apply, PARAMS, sx, sy, FunctionSpace(RBF(0.5), 1e-9))(sx)
    np.testing.assert_allclose(fitted, sy, atol=1e-6)


def test_as_gamma_grows_it_is_the_network():
    inner = FunctionSpace(gamma=1e14)
    close(maml.meta_outputs(*GIVEN, inner), jax.vmap(partial(NETWORK.apply, PARAMS))(BATCH.query_x), 1e-12)


@pytest.mark.parametrize("features", ["hidden", "inputs"])
def test_linear_without_the_network_is_ridge_regression(features):
    sx, sy, x = task(BATCH)
    a, b = (hidden(points) if features == "hidden" else np.asarray(points) for points in (sx, x))
    inner = FunctionSpace(Linear(1.5), 0.2, features, "zero")
    primal = np.linalg.solve(1.5**2 * a.T @ a + 0.2 * np.eye(a.shape[1]), 1.5 * a.T @ np.asarray(sy))
    found = maml.meta_outputs(*GIVEN, inner)
    close(found[0], 1.5 * b @ primal, 1e-10)
    changed = {**PARAMS, "head": jax.tree.map(lambda leaf: leaf + 1, PARAMS["head"])}
    same(maml.meta_outputs(NETWORK.apply, changed, BATCH, inner), found)


def test_without_the_network_labels_need_not_be_as_many_as_its_outputs():
    fewer = replace(BATCH, support_y=BATCH.support_y[..., :1], query_y=BATCH.query_y[..., :1])
    found = maml.meta_outputs(NETWORK.apply, PARAMS, fewer, FunctionSpace(mean="zero"))
    close(found, maml.meta_outputs(*GIVEN, FunctionSpace(mean="zero"))[..., :1], 1e-12)


def test_images_go_by_the_flattened_output_of_the_last_convolution():
    network = Conv4(3, depth=2, outputs=3)
    params = network.init(jax.random.key(0), (8, 8, 1))
    x = jax.random.normal(jax.random.key(1), (2, 5, 8, 8, 1))
    y = jnp.tile(jnp.eye(3), (2, 1, 1))
    batch = TaskBatch(x[:, :3], y, x[:, 3:], y[:, :2])
    assert hidden(x[0], network, params).shape == (5, 2 * 2 * 3)
    for inner in (FunctionSpace(RBF(3.0), 0.2), FunctionSpace(Cosine() + NTK(), 0.2, mean="zero")):
        found = maml.meta_outputs(network.apply, params, batch, inner)
        for i in range(2):
            close(found[i], by_definition(inner, *task(batch, i), network, params), 1e-10)
    loss, gradient = maml.meta_gradient(network.apply, params, batch, inner, sequential=True)
    close(maml.meta_gradient(network.apply, params, batch, inner, sequential=False), (loss, gradient), 1e-9)
    inputs = FunctionSpace(RBF(3.0), features="inputs")
    flat = by_definition(inputs, *task(batch), network, params, lambda x: np.asarray(x).reshape(len(x), -1))
    close(maml.meta_outputs(network.apply, params, batch, inputs)[0], flat, 1e-10)


def test_a_batch_is_its_tasks_one_by_one():
    inner = FunctionSpace(KERNELS["product"], 0.3)
    each = [predictor(NETWORK.apply, PARAMS, *task(BATCH, i)[:2], inner)(BATCH.query_x[i]) for i in range(2)]
    close(maml.meta_outputs(*GIVEN, inner), np.array(each), 1e-12)
    alone = [maml.task_loss(NETWORK.apply, PARAMS, one, inner) for one in BATCH]
    for sequential in (True, False):
        close(maml.meta_loss(*GIVEN, inner, sequential=sequential), np.array(sum(alone)), 1e-12)
    at_once = jax.vmap(lambda x, y: adapt(NETWORK.apply, PARAMS, x, y, inner).weights)(BATCH.support_x, BATCH.support_y)
    for i in range(2):
        close(at_once[i], adapt(NETWORK.apply, PARAMS, *task(BATCH, i)[:2], inner).weights, 1e-10)


def test_single_precision_stays():
    params, batch = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), (PARAMS, BATCH))
    for kernel, mean in ((RBF(1.3), "network"), (Linear() + Cosine() + NTK(), "zero")):
        inner = FunctionSpace(kernel, 0.3, mean=mean)
        found = maml.meta_outputs(NETWORK.apply, params, batch, inner)
        left = leave_one_out(NETWORK.apply, params, *task(batch)[:2], inner)
        loss, (gradient, by_numbers) = maml.meta_gradient(NETWORK.apply, params, batch, inner, with_rates=True)
        assert {leaf.dtype for leaf in (found, left, loss, *jax.tree.leaves(gradient))} == {np.dtype(np.float32)}
        assert {leaf.dtype for leaf in jax.tree.leaves(by_numbers)} == {np.dtype(np.float64)}
        close(found.astype(float), maml.meta_outputs(*GIVEN, inner), 1e-4)
    result = maml.fit(NETWORK.apply, params, batch, inner, ADAM, steps=3, learn_rates=True)
    assert {leaf.dtype for leaf in jax.tree.leaves(result.params)} == {np.dtype(np.float32)}


def test_no_support_set_leaves_the_network():
    none = replace(BATCH, support_x=BATCH.support_x[:, :0], support_y=BATCH.support_y[:, :0])
    found = maml.meta_outputs(NETWORK.apply, PARAMS, none, FunctionSpace())
    close(found, jax.vmap(partial(NETWORK.apply, PARAMS))(BATCH.query_x), 1e-14)


# --- leave one out ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mean", ["network", "zero"])
@every_kernel
def test_leave_one_out_is_that_of_as_many_adaptations(kernel, mean):
    inner = FunctionSpace(kernel, 0.3, mean=mean)
    sx, sy, _ = task(BATCH)
    found = leave_one_out(NETWORK.apply, PARAMS, sx, sy, inner)
    for i in range(len(sx)):
        others = np.delete(np.arange(len(sx)), i)
        said = predictor(NETWORK.apply, PARAMS, sx[others], sy[others], inner)(sx[i : i + 1])
        np.testing.assert_allclose(found[i], sy[i] - said[0], rtol=0, atol=1e-10)


def test_leave_one_out_of_one_point_is_what_the_network_misses():
    sx, sy, _ = task(BATCH)
    alone = leave_one_out(NETWORK.apply, PARAMS, sx[:1], sy[:1], FunctionSpace())
    close(alone, sy[:1] - NETWORK.apply(PARAMS, sx[:1]), 1e-12)


def test_leave_one_out_can_be_descended():
    sx, sy, _ = task(BATCH)
    inner = FunctionSpace(KERNELS["sum"], 0.3)

    def missed(numbers):
        return (leave_one_out(NETWORK.apply, PARAMS, sx, sy, inner, rates=numbers) ** 2).sum()

    gradient, direction = jax.grad(missed)(inner.numbers), direction_like(inner.numbers, 0)
    assert abs(along(missed, inner.numbers, direction) - dot(gradient, direction)) < 1e-7 * abs(missed(inner.numbers))


# --- the meta-gradient ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mean", ["network", "zero"])
@every_kernel
def test_the_meta_gradient_is_that_of_finite_differences(kernel, mean):
    """By the parameters and by the logarithms of the hyperparameters; all at once and one by one."""
    inner = FunctionSpace(kernel, 0.3, mean=mean)
    loss, gradient = maml.meta_gradient(*GIVEN, inner, with_rates=True, sequential=False)
    close(maml.meta_gradient(*GIVEN, inner, with_rates=True, sequential=True), (loss, gradient), 1e-9)
    assert jax.tree.structure(gradient[1]) == jax.tree.structure(inner.numbers)
    at = (PARAMS, inner.numbers)

    def value(both):
        return maml.meta_loss(NETWORK.apply, both[0], BATCH, inner, rates=both[1])

    close(np.asarray(value(at)), np.asarray(loss), 1e-12)
    numbers_alone = (jax.tree.map(jnp.zeros_like, PARAMS), direction_like(inner.numbers, 0))
    for direction in (direction_like(at, 1), direction_like(at, 2), numbers_alone):
        measured = along(value, at, direction)
        size = max(abs(dot(gradient, direction)), 0.1 * math.sqrt(dot(gradient, gradient)))
        assert abs(measured - dot(gradient, direction)) < 1e-5 * size
    for i, leaf in enumerate(jax.tree.leaves(gradient[1])):  # each number by itself
        zeros = jax.tree.map(np.zeros_like, inner.numbers)
        leaves, tree = jax.tree.flatten(zeros)
        leaves[i] = np.ones(())
        measured = along(value, at, (numbers_alone[0], tree.unflatten(leaves)))
        assert abs(measured - leaf) < 1e-5 * math.sqrt(dot(gradient[1], gradient[1]))


def test_other_losses_and_reductions():
    inner = FunctionSpace(gamma=0.3)
    how = {"outer_loss": "cross_entropy", "reduce": "mean"}
    loss, gradient = maml.meta_gradient(*GIVEN, inner, sequential=True, **how)
    close(maml.meta_gradient(*GIVEN, inner, sequential=False, **how), (loss, gradient), 1e-10)
    logits = maml.meta_outputs(*GIVEN, inner)
    close(loss, -(BATCH.query_y * jax.nn.log_softmax(logits)).sum(-1).mean(), 1e-12)


def test_given_numbers_are_those_of_settings_that_have_them():
    inner, other = FunctionSpace(RBF() * Linear(), 1.0), FunctionSpace(RBF(2.0, 0.7) * Linear(1.4), 0.05)
    numbers = other.numbers
    close(maml.meta_outputs(*GIVEN, inner, rates=numbers), maml.meta_outputs(*GIVEN, other), 1e-12)
    close(maml.meta_loss(*GIVEN, inner, rates=numbers), maml.meta_loss(*GIVEN, other), 1e-12)
    close(maml.meta_gradient(*GIVEN, inner, rates=numbers), maml.meta_gradient(*GIVEN, other), 1e-12)
    sx, sy, x = task(BATCH)
    given = (NETWORK.apply, PARAMS, sx, sy)
    close(predictor(*given, inner, rates=numbers)(x), predictor(*given, other)(x), 1e-12)
    close(leave_one_out(*given, inner, rates=numbers), leave_one_out(*given, other), 1e-12)
    shown = inner.at(numbers)
    assert shown.form == other.form
    assert abs(shown.gamma / 0.05 - 1) < 1e-14
    assert all(isinstance(each, float) for each in (shown.gamma, shown.kernel.parts[0].length_scale))


@pytest.mark.parametrize("kernel", [RBF(0.9), NTK(0.5)], ids=["rbf", "ntk"])
def test_the_gradient_by_query_and_support_inputs(kernel):
    """What white-box attacks climb."""
    sx, sy, x = task(BATCH)
    inner = FunctionSpace(kernel, 0.3)
    say = predictor(NETWORK.apply, PARAMS, sx, sy, inner)

    def of_queries(x):
        return jnp.sum(say(x)[:, 0] ** 2)

    def of_support(sx):
        return jnp.sum(predictor(NETWORK.apply, PARAMS, sx, sy, inner)(x)[:, 0] ** 2)

    for value, at in ((of_queries, x), (of_support, sx)):
        gradient, direction = jax.grad(value)(at), direction_like(at, 0)
        measured = along(value, at, direction)
        assert abs(measured - dot(gradient, direction)) < 1e-8 * math.sqrt(dot(gradient, gradient))


# --- the outer loop ---------------------------------------------------------------------------------------------------

ADAM = optax.adam(1e-2)


@every_kernel
def test_fit_learns_the_numbers_with_the_parameters(kernel):
    inner = FunctionSpace(kernel, 0.3)
    result = maml.fit(*GIVEN, inner, ADAM, steps=40, learn_rates=True)
    assert result.losses[-1] < 0.9 * result.losses[0]
    close(result.losses[0], np.asarray(maml.meta_loss(*GIVEN, inner)), 1e-12)
    moved = [*map(abs, jax.tree.leaves(jax.tree.map(np.subtract, result.rates, inner.numbers)))]
    assert min(moved) > 0  # all, and some far: Adam goes up to 0.01 a step
    assert max(moved) > 0.05
    after = maml.meta_loss(NETWORK.apply, result.params, BATCH, inner, rates=result.rates)
    assert after < result.losses[-1]
    shown = inner.at(result.rates)
    close(maml.meta_loss(NETWORK.apply, result.params, BATCH, shown), np.asarray(after), 1e-10)


def test_without_learning_the_numbers_stay():
    inner = FunctionSpace(gamma=0.3)
    result = maml.fit(*GIVEN, inner, ADAM, steps=40)
    assert result.losses[-1] < 0.9 * result.losses[0]
    same(result.rates, inner.numbers)
    given = FunctionSpace(RBF(2.0), 0.5).numbers
    same(maml.fit(*GIVEN, inner, ADAM, steps=1, rates=given).rates, given)


def test_numbers_alone_can_be_learned():
    """The parameters held by the optimiser."""
    inner = FunctionSpace(RBF(), 0.3)
    optimizer = optax.multi_transform(
        {"learn": optax.adam(0.05), "hold": optax.set_to_zero()}, {"params": "hold", "rates": "learn"}
    )
    result = maml.fit(*GIVEN, inner, optimizer, steps=40, learn_rates=True)
    same(result.params, PARAMS)
    assert result.losses[-1] < result.losses[0]


@pytest.mark.parametrize("learn_rates", [True, False])
def test_a_checkpoint_resumes_bit_for_bit_and_refuses_other_settings(learn_rates, tmp_path):
    inner = FunctionSpace(RBF(1.3) + Linear(), 0.3)
    run = partial(maml.fit, learn_rates=learn_rates)
    whole = run(*GIVEN, inner, ADAM, steps=40)
    path = tmp_path / "run.npz"
    run(*GIVEN, inner, ADAM, steps=15, checkpoint=path)
    resumed = run(*GIVEN, inner, ADAM, steps=40, checkpoint=path)
    same((resumed.params, resumed.opt_state, resumed.rates), (whole.params, whole.opt_state, whole.rates))
    same(resumed.losses, whole.losses)
    for change in (
        {"gamma": 0.2},
        {"kernel": RBF(1.4) + Linear()},
        {"kernel": RBF(1.3) + Cosine()},
        {"kernel": RBF(1.3) * Linear()},
        {"features": "inputs"},
        {"features": square},
        {"mean": "zero"},
    ):
        with pytest.raises(InputError, match="made with"):
            run(*GIVEN, replace(inner, **change), ADAM, steps=40, checkpoint=path)
    for other in (InnerLoop(0.1, 1), rkhs.ClosedForm(1.0)):
        with pytest.raises(InputError, match="made with"):
            maml.fit(*GIVEN, other, ADAM, steps=40, checkpoint=path)
    with pytest.raises(InputError, match="made with"):
        maml.fit(*GIVEN, inner, ADAM, steps=40, checkpoint=path, learn_rates=not learn_rates)


def test_tasks_drawn_anew_resume_too(tmp_path):
    def draw(key):
        x = jax.random.uniform(key, (2, 7, 2), minval=-1)
        y = jnp.concatenate([x, x.sum(-1, keepdims=True)], -1)
        return TaskBatch(x[:, :4], y[:, :4], x[:, 4:], y[:, 4:])

    given = (NETWORK.apply, PARAMS, draw, FunctionSpace(gamma=0.3), ADAM)
    how = {"key": jax.random.key(3), "learn_rates": True}
    whole = maml.fit(*given, steps=12, **how)
    path = tmp_path / "run.npz"
    maml.fit(*given, steps=5, checkpoint=path, **how)
    resumed = maml.fit(*given, steps=12, checkpoint=path, **how)
    same((resumed.params, resumed.rates, resumed.losses), (whole.params, whole.rates, whole.losses))


def test_other_numbers_do_not_compile_anew():
    count = 0

    def counted(params, x):
        nonlocal count
        count += 1
        return NETWORK.apply(params, x)

    sx, sy, x = task(BATCH)

    def run(inner):
        maml.meta_gradient(counted, PARAMS, BATCH, inner)
        maml.meta_outputs(counted, PARAMS, BATCH, inner)
        maml.fit(counted, PARAMS, BATCH, inner, ADAM, steps=2, learn_rates=True)
        predictor(counted, PARAMS, sx, sy, inner)(x)
        leave_one_out(counted, PARAMS, sx, sy, inner)

    run(FunctionSpace(RBF() + NTK(), 0.1, "inputs"))
    first = count
    for other in (FunctionSpace(RBF(2.0, 3.0) + NTK(0.2), 0.1, "inputs"), FunctionSpace(RBF() + NTK(), 4.0, "inputs")):
        run(other)
        assert count == first
    run(FunctionSpace(RBF() * NTK(), 0.1, "inputs"))
    assert count > first


def test_the_outer_rate_is_named_where_it_diverges():
    result = maml.fit(*GIVEN, FunctionSpace(), optax.sgd(1e8), steps=200, on_divergence="return")
    assert result.diverged.culprit == "outer rate"
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(result.params))


# --- singular kernels -------------------------------------------------------------------------------------------------


def singular(dtype=float):
    """Each support point twice, with labels that differ; more points than features, too."""
    random = np.random.default_rng(5)
    x, y = np.repeat(random.uniform(-2, 2, (1, 5, 2)), 2, 1), random.normal(size=(1, 10, 3))
    return TaskBatch(*(jnp.asarray(each, dtype) for each in (x, y, x[:, :3] + 0.5, y[:, :3])))


@every_kernel
def test_a_singular_kernel_is_solved_for_with_a_gamma(kernel):
    batch = singular()
    inner = FunctionSpace(kernel, 1e-2)
    assert np.linalg.matrix_rank(blocks(kernel, *[batch.support_x[0]] * 2)) <= 5
    found = maml.meta_outputs(NETWORK.apply, PARAMS, batch, inner)
    close(found[0], by_definition(inner, *task(batch)), 1e-9)
    _, gradient = maml.meta_gradient(NETWORK.apply, PARAMS, batch, inner, with_rates=True)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_points_twice_are_half_the_gamma_on_their_mean_labels():
    batch = singular()
    sx, sy, x = task(batch)
    once = predictor(NETWORK.apply, PARAMS, sx[::2], (sy[::2] + sy[1::2]) / 2, FunctionSpace(gamma=0.1))(x)
    close(predictor(NETWORK.apply, PARAMS, sx, sy, FunctionSpace(gamma=0.2))(x), once, 1e-10)


def refused(params, batch, inner, said):
    """By all that takes arrays; within jit, where nothing can be raised, weights are NaN."""
    given, (sx, sy, _) = (NETWORK.apply, params, batch, inner), task(batch)
    for call in (
        lambda: adapt(NETWORK.apply, params, sx, sy, inner),
        lambda: predictor(NETWORK.apply, params, sx, sy, inner),
        lambda: leave_one_out(NETWORK.apply, params, sx, sy, inner),
        lambda: maml.task_loss(NETWORK.apply, params, batch[0], inner),
        lambda: maml.meta_loss(*given),
        lambda: maml.meta_outputs(*given),
        lambda: maml.meta_gradient(*given),
        lambda: maml.meta_gradient(*given, with_rates=True, sequential=True),
        lambda: maml.fit(*given, ADAM, steps=2),
    ):
        with pytest.raises(InputError, match=said):
            call()
    assert np.isnan(jax.jit(lambda x, y: adapt(NETWORK.apply, params, x, y, inner).weights)(sx, sy)).all()
    assert maml.fit(*given, ADAM, steps=2, on_divergence="return").diverged.culprit == "gamma"


def test_a_gamma_that_rounding_hides_is_refused():
    said = "gamma: expected a gamma that rounding in {} does not hide .* got 1e-{}; raise gamma"
    refused(PARAMS, singular(), FunctionSpace(RBF() + Linear(), 1e-18), said.format("float64", 18))
    params, batch = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), PARAMS), singular(jnp.float32)
    assert maml.meta_loss(NETWORK.apply, params, batch, FunctionSpace(RBF(), 1e-9)) > 0  # the algebra has 64 bits
    told = said.format("float32", "09") + ", or draw the network's parameters in float64"
    refused(params, batch, FunctionSpace(NTK(), 1e-9), told)  # the network has not


def test_without_64_bits_a_small_gamma_is_refused_sooner():
    with jax.enable_x64(False):
        params, batch = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf), jnp.float32), (PARAMS, singular()))
        assert maml.meta_loss(NETWORK.apply, params, batch, FunctionSpace(RBF(), 1e-3)).dtype == jnp.float32
        refused(params, batch, FunctionSpace(RBF(), 1e-9), r"got 1e-09; raise gamma, or call .*jax_enable_x64")


def test_a_gamma_that_is_learned_away_is_named():
    """Labels that the kernel fits exactly: the smaller gamma, the better."""
    x = singular().support_x
    batch = TaskBatch(x, x[..., :1], x[:, :3] + 0.5, x[:, :3, :1] + 0.5)
    network = MLP(4)
    params = network.init(jax.random.key(0), (2,))
    inner = FunctionSpace(Linear(), 1e-3, "inputs", "zero")
    optimizer = optax.multi_transform(
        {"learn": optax.scale_by_sign(), "hold": optax.set_to_zero()}, {"params": "hold", "rates": "learn"}
    )
    result = maml.fit(
        network.apply, params, batch, inner, optax.chain(optimizer, optax.scale(-2.0)), steps=40, learn_rates=True,
        on_divergence="return",
    )  # fmt: skip
    assert result.diverged.culprit == "gamma"
    assert "lower the outer rate" in result.diverged.cause
    shown = inner.at(result.rates)  # one step before
    assert 1e-18 < shown.gamma / shown.kernel.amplitude**2 < 1e-11
    assert np.isfinite(maml.meta_loss(network.apply, result.params, batch, inner, rates=result.rates))


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: FunctionSpace(gamma=0.0), "gamma: expected a finite number above 0, got 0.0"),
        (lambda: FunctionSpace(gamma=-1.0), "gamma: expected a finite number above 0, got -1.0"),
        (lambda: FunctionSpace(gamma=INF), "gamma: expected a finite number"),
        (lambda: FunctionSpace(gamma=math.nan), "gamma: expected a finite number"),
        (lambda: FunctionSpace("rbf"), "kernel: expected RBF, Linear, Cosine, NTK, .* got 'rbf'"),
        (lambda: FunctionSpace(RBF), "kernel: expected RBF, Linear"),
        (lambda: FunctionSpace(features="deep"), "features: expected hidden or inputs, got 'deep'"),
        (lambda: FunctionSpace(features=Unhashable()), "features: expected a function that can be hashed"),
        (lambda: FunctionSpace(mean="prior"), "mean: expected network or zero, got 'prior'"),
        (lambda: RBF(0.0), "length_scale: expected a finite number above 0, got 0.0"),
        (lambda: RBF(1.0, -1.0), "amplitude: expected a finite number"),
        (lambda: Linear("1"), "amplitude: expected a finite number above 0, got '1'"),
        (lambda: Cosine(math.nan), "amplitude: expected a finite number"),
        (lambda: NTK(True), "amplitude: expected a finite number"),
        (lambda: RBF() + 1.0, "kernel: expected kernels as parts, got 1.0"),
        (lambda: RBF() * 2.0, "kernel: expected kernels as parts, got 2.0"),
        (lambda: 2.0 * RBF(), "kernel: expected kernels as parts, got 2.0"),
        (lambda: sum([RBF(), Linear()]), "kernel: expected kernels as parts, got 0"),
        (lambda: Sum(()), "kernel: expected kernels as parts, got none"),
        (lambda: FunctionSpace().at({"log_gamma": 0.0}), "rates: expected numbers in the form"),
    ],
)  # fmt: skip
def test_bad_settings_are_named(make, said):
    with pytest.raises(InputError, match=said):
        make()


class Unhashable:
    __hash__ = None

    def __call__(self, params, x):
        return x


def test_what_does_not_fit_is_named():
    sx, sy, x = task(BATCH)
    inner, zero, name = FunctionSpace(), FunctionSpace(mean="zero"), "FunctionSpace"
    given, usual = (NETWORK.apply, PARAMS, sx, sy), (*GIVEN, inner)
    fewer = replace(BATCH, support_y=BATCH.support_y[..., :1], query_y=BATCH.query_y[..., :1])
    numbers = inner.numbers
    nan = jax.tree.map(lambda leaf: leaf * jnp.nan, PARAMS)

    def own(params, x):
        return NETWORK.apply(params, x)

    for call, said in (
        (lambda: adapt(*given, InnerLoop(0.1, 1)), "inner: expected a function_space.FunctionSpace, got InnerLoop"),
        (lambda: predictor(*given, rkhs.ClosedForm()), "inner: expected a function_space.FunctionSpace, got Closed"),
        (lambda: leave_one_out(*given, None), "inner: expected a function_space.FunctionSpace, got None"),
        (lambda: adapt(NETWORK.apply, PARAMS, sx, sy[:, :2], inner), r"support_y: .* \[4, 3\], got \[4, 2\]"),
        (lambda: leave_one_out(NETWORK.apply, PARAMS, sx, sy[:, :2], inner), r"support_y: .* \[4, 3\], got \[4, 2\]"),
        (lambda: maml.meta_outputs(NETWORK.apply, PARAMS, fewer, inner), r"support_y: .* got \[4, 1\]"),
        (lambda: adapt(own, PARAMS, sx, sy, inner), "apply: expected a network of mlkernels.networks"),
        (lambda: maml.meta_loss(own, PARAMS, BATCH, inner), "apply: expected a network of mlkernels.networks"),
        (
            lambda: adapt(*given, FunctionSpace(features=lambda p, x: x[:, 0])),
            r"features: expected \[4, p\], got \[4\]",
        ),
        (
            lambda: adapt(*given, FunctionSpace(features=lambda p, x: x[:2])),
            r"features: expected \[4, p\], got \[2, 2\]",
        ),
        (lambda: adapt(*given, inner, rates=0.1), "rates: expected numbers in the form of"),
        (lambda: adapt(*given, inner, rates={**numbers, "log_gamma": "a"}), "rates: expected real numbers, .* got 'a'"),
        (lambda: adapt(*given, inner, rates={**numbers, "log_gamma": 1j}), "rates: expected real numbers"),
        (
            lambda: leave_one_out(*given, inner, rates={**numbers, "log_gamma": 800.0}),
            r"gamma: expected .* got exp\(800\)",
        ),
        (
            lambda: adapt(NETWORK.apply, PARAMS, sx, sy[:3], zero),
            r"support_y: expected labels \[4, k\] .* got \[3, 3\]",
        ),
        (lambda: predictor(NETWORK.apply, PARAMS, sx, sy[:, 0], zero), r"support_y: expected labels .* got \[4\]"),
        (lambda: leave_one_out(NETWORK.apply, PARAMS, sx, sy[:, 0], zero), r"support_y: expected labels .* got \[4\]"),
        (lambda: maml.meta_loss(*usual, rates={"head": 0.1}), "rates: expected numbers in the form of"),
        (lambda: maml.meta_loss(*usual, rates={**numbers, "log_gamma": np.zeros(2)}), "rates: expected numbers in the"),
        (lambda: maml.fit(*usual, ADAM, steps=1, rates=FunctionSpace(Linear()).numbers), "rates: expected numbers in"),
        (lambda: maml.meta_loss(*usual, rates={**numbers, "log_gamma": np.nan}), "rates: expected finite numbers"),
        (lambda: adapt(NETWORK.apply, nan, sx, sy, inner), "kernel: expected finite entries, got infinities or NaN"),
        (lambda: adapt(NETWORK.apply, PARAMS, sx, sy * jnp.nan, inner), "support_y: expected finite residuals"),
        (lambda: predictor(*given, inner)(x[:, :1]), r"x: expected points \[n, 2\], got \[3, 1\]"),
        (lambda: maml.fit(*usual, ADAM, steps=1, method="reptile"), f"method: expected None with {name}"),
        (lambda: maml.fit(*usual, ADAM, steps=1, method="anil"), f"method: expected None with {name}"),
        (lambda: maml.reptile_direction(*usual), f"inner: expected an InnerLoop, got {name}"),
        (lambda: maml.adapt(*given, inner), f"inner: expected an InnerLoop, got {name}"),
        (lambda: anil.two_part_gradient(*usual), f"inner: expected an InnerLoop, got {name}"),
        (lambda: anil.implicit_gradient(*usual), f"inner: expected an InnerLoop, got {name}"),
        (lambda: cost.cost_formula(NETWORK, PARAMS, BATCH, inner), f"inner: expected an InnerLoop, got {name}"),
        (lambda: curvature.meta_smoothness(*usual), f"inner: expected an InnerLoop, got {name}"),
        (lambda: maml.meta_loss(*GIVEN, "function space"), "or few_iterations.FewIterations, got str"),
    ):
        with pytest.raises(InputError, match=said):
            call()


def test_the_ntk_alone_needs_no_features():
    def own(params, x):
        return NETWORK.apply(params, x)

    inner = FunctionSpace(NTK(), 0.3)
    close(maml.meta_outputs(own, PARAMS, BATCH, inner), maml.meta_outputs(*GIVEN, inner), 1e-12)
