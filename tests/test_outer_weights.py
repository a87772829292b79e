"""Weights of the outer loop's tasks: formulas, the shortest mean of gradients by SciPy and by all sets, descent."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.optimize
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from test_rkhs import PARAMS, apply, close, draw_batch, same

from mlkernels import tasks
from mlkernels.errors import InputError
from mlkernels.inner_loop.wide_mlp import WIDE
from mlkernels.learners import anil, curvature, maml, wide_gradient
from mlkernels.learners.maml import ImplicitLoop, InnerLoop
from mlkernels.learners.outer_loop.history import fit_and_measure
from mlkernels.learners.outer_weights import (
    InverseLoss,
    MinNorm,
    Rule,
    SoftmaxCosine,
    Uniform,
    combine,
    gram_of,
    shortest,
)
from mlkernels.learners.problem import Problem, problem_of
from mlkernels.learners.rkhs import ClosedForm, Regularised
from mlkernels.networks import MLP
from mlkernels.tasks import TaskBatch

RULES = (Uniform(), SoftmaxCosine(), SoftmaxCosine(0.1), InverseLoss(), MinNorm())
BATCH = draw_batch(B=4)
each_rule = pytest.mark.parametrize("rule", RULES, ids=str)


def weights(rule, gradients, losses=None):
    """Of gradients that are rows."""
    g = jnp.asarray(gradients)
    return np.asarray(rule.weights(jnp.ones(len(g)) if losses is None else jnp.asarray(losses), g @ g.T))


def by_scipy(g):
    """The rows' shortest convex mean by SciPy: least squares under u >= 0 in the gradients themselves, no Gram."""
    lengths = np.linalg.norm(g, axis=1)
    s = min(lengths[lengths > 0], default=1.0)
    A, b = np.vstack([g.T / s, np.ones(len(g))]), np.append(np.zeros(g.shape[1]), 1.0)
    u = scipy.optimize.nnls(A, b, maxiter=100 * len(g))[0]
    return u / u.sum()


def by_all_sets(g):
    """The least square of a convex mean: over each set of rows, of the affine mean where its weights are positive."""
    best = np.inf
    for size in range(1, len(g) + 1):
        for chosen in itertools.combinations(g, size):
            base, others = chosen[0], np.array(chosen[1:]).reshape(size - 1, g.shape[1])
            v = np.linalg.lstsq((others - base).T, -base, rcond=None)[0]
            w = np.append(1 - v.sum(), v)
            if (w >= -1e-12).all():
                best = min(best, ((w @ np.array(chosen)) ** 2).sum())
    return best


def check_shortest(g, w, tolerance=1e-11):
    """On the simplex, and no vertex of it is a way down: the conditions of Karush, Kuhn and Tucker; numbers beside the
    lengths of the gradients they are of."""
    lengths = np.linalg.norm(g, axis=1)
    assert (w >= 0).all()
    assert abs(w.sum() - 1) < 1e-12
    d = w @ g
    beyond = g @ d - d @ d
    assert (beyond >= -tolerance * lengths * lengths.max()).all()
    assert (np.abs(beyond[w > 0]) <= tolerance * (lengths * lengths.max())[w > 0]).all()
    return d


# --- the shortest mean ------------------------------------------------------------------------------------------------


def drawn(kind, B, n):
    random = np.random.default_rng(B * 1000 + n)
    g = random.normal(size=(B, n))
    return {
        "any": g,
        "alike": 2 + g,
        "twice": g[random.integers(B, size=B)],
        "long and short": g * 10 ** random.uniform(-3, 3, size=(B, 1)),
        "flat": g * 10 ** random.uniform(-6, 0, size=n),
        "nearly one": 1 + 1e-7 * g,
        "whole numbers, zeros among them": np.round(g / 2),
        "opposite": np.concatenate([g, -g])[:B],
    }[kind]


KINDS = [
    "any", "alike", "twice", "long and short", "flat", "nearly one", "whole numbers, zeros among them", "opposite",
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_the_shortest_mean_is_that_of_scipy(kind):
    """More tasks than dimensions too."""
    for B, n in itertools.product((1, 2, 7, 64), (1, 3, 20, 200)):
        g = drawn(kind, B, n)
        w, count = shortest(jnp.asarray(g @ g.T))
        d, expected = check_shortest(g, np.asarray(w)), by_scipy(g) @ g
        assert abs(d @ d - expected @ expected) <= 1e-12 * max((g**2).sum(1))
        assert count <= 3 * B


@settings(max_examples=60, deadline=None)
@given(st.data(), st.integers(1, 6))
def test_the_shortest_mean_is_the_best_of_all_sets(data, B):
    """Small whole numbers: many are zero, equal, opposite or dependent."""
    g = data.draw(arrays(float, (B, data.draw(st.integers(1, 4))), elements=st.integers(-3, 3)))
    d = check_shortest(g, weights(MinNorm(), g))
    assert abs(d @ d - by_all_sets(g)) < 1e-12 * max(1, (g**2).sum(1).max())


def test_the_shortest_mean_is_that_of_a_general_solver():
    g = drawn("alike", 7, 5)
    found = scipy.optimize.minimize(
        lambda w: ((w @ g) ** 2).sum() / 2,
        np.full(7, 1 / 7),
        jac=lambda w: g @ (w @ g),
        bounds=[(0, 1)] * 7,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1, "jac": lambda w: np.ones(7)},
        method="SLSQP",
        options={"ftol": 1e-15, "maxiter": 500},
    )
    assert abs(((weights(MinNorm(), g) @ g) ** 2).sum() / 2 - found.fun) < 1e-8 * (g**2).sum(1).max()


def test_of_two_gradients_the_shortest_mean_is_known():
    """w_1 = <g_2, g_2 - g_1> / |g_1 - g_2|^2, from 0 to 1 (Désidéri 2012)."""
    random = np.random.default_rng(0)
    for _ in range(50):
        g = random.normal(size=(2, 2)) + random.normal(size=2)
        expected = np.clip(g[1] @ (g[1] - g[0]) / ((g[0] - g[1]) ** 2).sum(), 0, 1)
        np.testing.assert_allclose(weights(MinNorm(), g), [expected, 1 - expected], rtol=0, atol=1e-12)


@each_rule
def test_units_do_not_matter(rule):
    g = drawn("any", 6, 4)
    expected = weights(rule, g, np.arange(1.0, 7))
    assert len({*expected.round(12)}) > 1 or isinstance(rule, Uniform)
    for unit in (1e-100, 1e-8, 1e8, 1e100):
        np.testing.assert_allclose(weights(rule, unit * g, unit * np.arange(1.0, 7)), expected, rtol=0, atol=1e-12)


def test_a_short_gradient_is_kept_beside_a_long_one():
    """The Gram matrix tells them apart by 24 digits: more than one number has."""
    g = np.array([[1.0, 0.0], [-3e12, 4e12], [2e12, -1.0]])
    w = weights(MinNorm(), g)
    d, expected = w @ g, by_scipy(g) @ g
    assert abs(d @ d / (expected @ expected) - 1) < 1e-3
    assert d @ d <= 1
    assert (g @ d > 0).all()


@pytest.mark.parametrize("B", [1, 2, 5, 64])
def test_a_gradient_of_zero_takes_all_the_weight(B):
    g = drawn("any", B, 10)
    g[B // 2] = 0
    np.testing.assert_array_equal(weights(MinNorm(), g), np.arange(B) == B // 2)
    w = weights(MinNorm(), 0 * g)
    assert (w >= 0).all()
    assert w.sum() == 1


@each_rule
def test_one_task_has_all_the_weight(rule):
    for g in (0.0, 1.0, -2.0):
        assert weights(rule, [[g]], [0.3]).tolist() == [1.0]


def test_equal_gradients_share_and_opposite_ones_cancel():
    g = np.random.default_rng(0).normal(size=5)
    np.testing.assert_allclose(weights(MinNorm(), [g, -g]), 0.5, rtol=0, atol=1e-12)
    assert np.abs(weights(MinNorm(), [g, g, -3 * g, -3 * g]) @ np.array([g, g, -3 * g, -3 * g])).max() < 1e-12
    close(weights(MinNorm(), [g, g, g]) @ np.array([g, g, g]), g, 1e-12)


# --- the other rules --------------------------------------------------------------------------------------------------


def test_the_softmax_of_cosines():
    g = drawn("any", 5, 4)
    mean = g.mean(0)
    for temperature in (0.05, 1.0, 30.0):
        e = np.exp(g @ mean / np.linalg.norm(g, axis=1) / np.linalg.norm(mean) / temperature)
        np.testing.assert_allclose(weights(SoftmaxCosine(temperature), g), e / e.sum(), rtol=1e-12)


def test_a_gradient_of_zero_and_one_beside_a_mean_of_zero_have_the_cosine_0():
    found = weights(SoftmaxCosine(0.5), [[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]])
    e = np.exp([np.sqrt(2), 0, np.sqrt(2)])
    np.testing.assert_allclose(found, e / e.sum(), rtol=1e-12)
    third = np.array([0.1, 0.7, -1 / 3])  # not whole numbers: their sum is not 0 but rounding
    np.testing.assert_allclose(weights(SoftmaxCosine(1e-3), [third, 2 * third, -3 * third]), 1 / 3, rtol=1e-12)
    np.testing.assert_array_equal(weights(SoftmaxCosine(), np.zeros((4, 2))), 0.25)


def test_temperatures_from_tiny_to_huge():
    g = np.array([[1.0, 0.1], [1.0, 0.3], [-0.5, 1.0]])
    assert weights(SoftmaxCosine(5e-324), g).tolist() == [0.0, 1.0, 0.0]
    np.testing.assert_allclose(weights(SoftmaxCosine(1e300), g), 1 / 3, rtol=1e-12)


def test_the_inverse_of_losses_and_its_limits():
    g = np.zeros((3, 1))
    np.testing.assert_allclose(weights(InverseLoss(), g, [1.0, 2.0, 4.0]), np.array([4, 2, 1]) / 7, rtol=1e-14)
    near, at = (weights(InverseLoss(), g, [zero, zero, 4.0]) for zero in (1e-18, 0.0))
    assert at.tolist() == [0.5, 0.5, 0.0]
    np.testing.assert_allclose(near, at, rtol=0, atol=1e-15)
    assert weights(InverseLoss(), g, [-1.0, 0.0, 2.0]).tolist() == [0.5, 0.5, 0.0]
    np.testing.assert_array_equal(weights(InverseLoss(), g, [0.0, 0.0, 0.0]), 1 / 3)
    assert weights(InverseLoss(), g, [1e-320, 1.0, 1e300]).tolist() == [1.0, 0.0, 0.0]


@each_rule
@settings(max_examples=30, deadline=None)
@given(st.data())
def test_weights_are_a_distribution(rule, data):
    B = data.draw(st.sampled_from([1, 2, 5]))
    number = st.floats(-1e3, 1e3) | st.sampled_from([0.0, 1e-30, -1e30, 1e30])
    g, losses = data.draw(arrays(float, (B, 3), elements=number)), data.draw(arrays(float, B, elements=number))
    w = weights(rule, g, losses)
    assert w.shape == (B,)
    assert (w >= 0).all()
    assert abs(w.sum() - 1) < 1e-12


@each_rule
def test_the_order_of_tasks_does_not_matter(rule):
    g, losses = drawn("any", 6, 10), np.arange(1.0, 7)
    w = weights(rule, g, losses)
    np.testing.assert_allclose(weights(rule, g[::-1], losses[::-1]), w[::-1], rtol=0, atol=1e-12)


# --- arrays and trees -------------------------------------------------------------------------------------------------

TREE = {"a": jnp.asarray(drawn("any", 5, 6).reshape(5, 2, 3)), "b": [jnp.asarray(drawn("any", 5, 1)[:, 0])]}
FLAT = np.concatenate([TREE["a"].reshape(5, 6), TREE["b"][0][:, None]], 1)
LOSSES = jnp.arange(1.0, 6)


@each_rule
def test_a_tree_is_combined_as_its_rows(rule):
    w, d = combine(rule, LOSSES, TREE)
    np.testing.assert_allclose(w, weights(rule, FLAT, LOSSES), rtol=0, atol=1e-12)
    expected = w @ FLAT
    close(d, {"a": expected[:6].reshape(2, 3), "b": [expected[6]]}, 1e-12)


def test_whole_numbers_are_weighed_as_numbers():
    rows = np.array([[6, 4], [6, -4]])
    w, d = combine(Uniform(), [1.0, 1.0], rows)
    np.testing.assert_array_equal(d, [6.0, 0.0])  # and not a weight of 0 for each
    assert d.dtype == w.dtype == jnp.result_type(float)


def test_inner_products_of_a_tree_are_those_of_its_rows():
    scale = np.abs(FLAT).max() ** 2
    np.testing.assert_allclose(scale * gram_of(TREE), FLAT @ FLAT.T, rtol=0, atol=1e-14 * scale)


@each_rule
def test_weights_are_constants(rule):
    """The combined gradient is that of the losses with frozen weights, and nothing comes back through these."""
    centres = jnp.asarray(drawn("alike", 5, 3))

    def losses(x):
        return jnp.sum((x[None] - centres) ** 2 * jnp.arange(1.0, 4)[None], 1) / 2

    x = jnp.asarray([0.3, -0.2, 0.9])
    gradients = jax.jacobian(losses)(x)
    w, d = combine(rule, losses(x), gradients)

    def weighted(x):
        inside = rule.weights(losses(x), jax.jacobian(losses)(x) @ jax.jacobian(losses)(x).T)
        return inside @ losses(x)

    close(jax.grad(weighted)(x), d, 1e-12)
    assert not jax.jacobian(lambda x: rule.weights(losses(x), jax.jacobian(losses)(x) @ gradients.T))(x).any()
    by_gradients = jax.jacobian(lambda g: combine(rule, losses(x), g)[1])(gradients)
    close(by_gradients, jnp.einsum("ij,b->ibj", jnp.eye(3), w), 1e-12)


@each_rule
def test_it_is_compiled_and_mapped(rule):
    combined = partial(combine, rule)
    close(jax.jit(combined)(LOSSES, TREE), combined(LOSSES, TREE), 1e-12)
    factors = jnp.array([1.0, -2.0, 0.0])
    trees = jax.tree.map(lambda leaf: leaf[None] + factors.reshape(-1, *[1] * leaf.ndim), TREE)
    losses = jnp.stack([LOSSES, LOSSES[::-1], LOSSES**2])
    found = jax.jit(jax.vmap(combined))(losses, trees)
    for i in range(3):
        one = jax.tree.map(lambda leaf: leaf[i], trees)  # noqa: B023
        close(jax.tree.map(lambda leaf: leaf[i], found), combined(losses[i], one), 1e-12)  # noqa: B023


@each_rule
def test_single_precision_stays_and_loses_nothing(rule):
    tree = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), TREE)
    w, d = combine(rule, LOSSES.astype(jnp.float32), tree)
    assert {leaf.dtype for leaf in jax.tree.leaves((w, d))} == {jnp.dtype("float32")}
    exact = combine(rule, LOSSES, jax.tree.map(lambda leaf: leaf.astype(float), tree))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-6), (w, d), exact)
    tiny = jax.tree.map(lambda leaf: leaf * np.float32(1e-30), tree)  # squares would be 0
    np.testing.assert_allclose(combine(rule, LOSSES, tiny)[0], exact[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("rule", [SoftmaxCosine(), SoftmaxCosine(1e-60), InverseLoss(), MinNorm()], ids=str)
def test_where_jax_has_no_double_precision(rule):
    with jax.enable_x64(False):
        for kind, B in (("any", 16), ("opposite", 16), ("alike", 5)):
            g = drawn(kind, B, 10)
            w = rule.weights(jnp.arange(1.0, B + 1), jnp.asarray(g @ g.T))
            assert w.dtype == jnp.float32
            np.testing.assert_allclose(w.sum(), 1, rtol=0, atol=1e-5)
            if isinstance(rule, MinNorm):
                d = np.asarray(w, float) @ g
                assert (g @ d - d @ d >= -1e-3 * (g**2).sum(1).max()).all()


def test_what_is_not_finite_is_refused_or_shown():
    bad = jnp.array([[1.0, jnp.nan], [jnp.nan, 1.0]])
    for rule in RULES:
        assert jnp.isnan(jax.jit(rule.weights)(jnp.ones(2), bad)).all()
        with pytest.raises(InputError, match="gram: expected finite"):
            rule.weights(jnp.ones(2), bad)
    with pytest.raises(InputError, match="losses: expected finite"):
        MinNorm().weights(jnp.array([1.0, jnp.inf]), jnp.eye(2))
    with pytest.raises(InputError, match="gradients: expected finite"):
        combine(MinNorm(), jnp.ones(2), bad)


@pytest.mark.parametrize("temperature", [0, -1.0, float("nan"), float("inf"), "1", True])
def test_bad_temperatures(temperature):
    with pytest.raises(InputError, match="temperature: expected"):
        SoftmaxCosine(temperature)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: Uniform().weights(jnp.ones(()), jnp.eye(1)), "losses: expected"),
        (lambda: Uniform().weights(jnp.ones((0,)), jnp.ones((0, 0))), "losses: expected"),
        (lambda: Uniform().weights(jnp.ones((2, 1)), jnp.eye(2)), "losses: expected"),
        (lambda: Uniform().weights(jnp.ones(2), jnp.eye(3)), "gram: expected"),
        (lambda: MinNorm().weights(jnp.ones(2), jnp.ones(2)), "gram: expected"),
        (lambda: combine("mean", LOSSES, TREE), "rule: expected"),
        (lambda: combine(Uniform(), LOSSES[:3], TREE), "gradients: expected"),
        (lambda: combine(Uniform(), LOSSES, {}), "gradients: expected"),
        (lambda: combine(Uniform(), LOSSES, {"a": jnp.ones((5, 0))}), "gradients: expected"),
        (lambda: combine(Uniform(), LOSSES, {"a": TREE["a"], "b": jnp.ones(())}), "gradients: expected"),
        (lambda: Rule().weights(LOSSES, jnp.eye(5)), "rule: expected"),
    ],
)
def test_bad_arrays(call, said):
    with pytest.raises(InputError, match=said):
        call()


# --- in the outer loop ------------------------------------------------------------------------------------------------

INNERS = {
    "MAML": InnerLoop(0.02, 2, l2=0.1),
    "ANIL": InnerLoop(0.02, 2, adapt=("head",)),
    "FOMAML": InnerLoop(0.02, 1, first_order=True),
    "iMAML": ImplicitLoop(0.01, 300, strength=5.0, solver_steps=80),
    "II": ClosedForm(1.0, 0.1),
    "I": Regularised(0.01, "mean_squares"),
    "I of two batches": Regularised(0.01, "mean_squares", "two"),
}


@pytest.mark.parametrize("sequential", [False, True])
@pytest.mark.parametrize("inner", INNERS.values(), ids=INNERS)
def test_uniform_weights_are_the_mean(inner, sequential):
    given = partial(maml.meta_gradient, apply, PARAMS, BATCH, inner, sequential=sequential)
    close(given(reduce=Uniform()), given(reduce="mean"), 1e-12)


def test_uniform_weights_are_the_mean_of_rates_too():
    given = partial(maml.meta_gradient, apply, PARAMS, BATCH, INNERS["MAML"], with_rates=True)
    for sequential in (False, True):
        close(given(reduce=Uniform(), sequential=sequential), given(reduce="mean"), 1e-12)


def test_uniform_weights_are_the_mean_of_a_wide_network():
    """Whose gradient is made of thin products for all tasks together: not those that a rule needs."""
    network, inner = MLP(WIDE, depth=1), InnerLoop(0.05, 2)
    batch = tasks.sinusoid(tasks=3, support=4, queries=5, key=jax.random.key(0))
    params = network.init(jax.random.key(1), (1,))
    problem, rates = problem_of(network.apply, params, batch, inner, None, "half_sum_squares", "mean")
    assert wide_gradient.fits(problem, params, rates, batch)
    given = partial(maml.meta_gradient, network.apply, params, batch, inner)
    close(given(reduce=Uniform()), given(reduce="mean"), 1e-9)


def apart(inner, **how):
    """Each task's loss and gradient, by a batch of it alone."""
    each = [maml.meta_gradient(apply, PARAMS, one, inner, **how) for one in BATCH]
    losses, gradients = zip(*each, strict=True)
    return jnp.stack(losses), jax.tree.map(lambda *leaves: jnp.stack(leaves), *gradients)


@pytest.mark.parametrize("name", ["MAML", "iMAML", "II", "I"])
@pytest.mark.parametrize("rule", [SoftmaxCosine(0.3), InverseLoss(), MinNorm()], ids=str)
def test_the_gradient_is_weighted_and_the_loss_is_the_mean(name, rule):
    losses, gradients = apart(INNERS[name])
    w, expected = combine(rule, losses, gradients)
    assert np.ptp(w) > 1e-3
    for sequential in (False, True):
        found = maml.meta_gradient(apply, PARAMS, BATCH, INNERS[name], reduce=rule, sequential=sequential)
        close(found, (losses.mean(), expected), 1e-10)


def test_one_weight_is_for_parameters_and_rates():
    losses, gradients = apart(INNERS["MAML"], with_rates=True)
    expected = combine(MinNorm(), losses, gradients)[1]
    found = maml.meta_gradient(apply, PARAMS, BATCH, INNERS["MAML"], reduce=MinNorm(), with_rates=True)
    close(found, (losses.mean(), expected), 1e-10)
    rows = np.concatenate([leaf.reshape(len(BATCH), -1) for leaf in jax.tree.leaves(gradients)], 1)
    d = np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(expected)])
    assert (rows @ d >= d @ d - 1e-12 * (rows**2).sum(1).max()).all()


def linear(params, x):
    return x @ params["w"]


def towards(*centres):
    """Tasks of the loss |w - c|^2 / 2 each."""
    c = jnp.asarray(centres, float)[..., None]
    x = jnp.tile(jnp.eye(c.shape[1])[None], (len(c), 1, 1))
    return TaskBatch(x, c, x, c)


def after_a_step(batch, w, rule, rate=0.01):
    """The rise of each task's loss along a step of gradient descent."""
    none, start = InnerLoop(0.0, 0), {"w": jnp.asarray(w, float)[:, None]}
    _, d = maml.meta_gradient(linear, start, batch, none, reduce=rule)
    end = jax.tree.map(lambda p, g: p - rate * g, start, d)

    def loss(params, one):
        return float(maml.meta_loss(linear, params, one, none))

    return np.array([loss(end, one) - loss(start, one) for one in batch]), float(jnp.sum(d["w"] ** 2))


def test_the_shortest_mean_lowers_what_a_mean_and_cosines_raise():
    """Two tasks of three want to the right, the third to the left and a little up."""
    batch = towards([1.0, 0.1], [1.0, 0.2], [-1.0, 0.3])
    for rule in ("mean", Uniform(), SoftmaxCosine(), SoftmaxCosine(0.1)):
        rise, _ = after_a_step(batch, [0.0, 0.0], rule)
        assert (rise[:2] < 0).all()
        assert rise[2] > 1e-5
    rise, square = after_a_step(batch, [0.0, 0.0], MinNorm())
    assert square > 0.03
    assert (rise <= -0.01 * square + 0.01**2 * square / 2 + 1e-15).all()  # the curvature is 1


def test_the_shortest_mean_lowers_two_groups_that_disagree():
    random = np.random.default_rng(0)
    right, left = ([side, 0.5] + 0.1 * random.normal(size=(5, 2)) for side in (1.5, -1.5))
    batch = towards(*right, *left[:2])
    rise, square = after_a_step(batch, [0.0, 0.0], MinNorm())
    assert square > 0.1
    assert (rise <= -0.01 * square + 0.01**2 * square / 2 + 1e-15).all()
    assert (after_a_step(batch, [0.0, 0.0], Uniform())[0][5:] > 0).all()


def test_the_shortest_mean_rests_where_no_direction_serves_all():
    _, square = after_a_step(towards([1.0, 0.0], [-2.0, 0.0], [3.0, 1.0]), [0.0, 0.0], MinNorm())
    assert square < 1e-20


def test_after_adaptation_too_the_shortest_mean_lowers_each_task():
    inner = INNERS["MAML"]
    losses, _ = apart(inner)
    _, d = maml.meta_gradient(apply, PARAMS, BATCH, inner, reduce=MinNorm())
    square = sum(float(jnp.sum(leaf**2)) for leaf in jax.tree.leaves(d))
    rate = 1e-5
    after = jax.tree.map(lambda p, g: p - rate * g, PARAMS, d)
    fallen = losses - jnp.stack([maml.meta_loss(apply, after, one, inner) for one in BATCH])
    assert square > 1e-3
    assert (fallen > 0.9 * rate * square).all()


# --- fit --------------------------------------------------------------------------------------------------------------

NETWORK = MLP(width=16)
SINES = tasks.sinusoid(tasks=5, support=5, queries=5, key=jax.random.key(0))
START = NETWORK.init(jax.random.key(1), (1,))
ADAM = optax.adam(1e-2)
GIVEN = (NETWORK.apply, START, SINES, InnerLoop(0.01, 2))


@each_rule
def test_fit_lowers_the_loss_and_resumes_bit_for_bit(rule, tmp_path):
    whole = maml.fit(*GIVEN, ADAM, steps=40, reduce=rule)
    assert whole.losses[-1] < 0.95 * whole.losses[0]
    close(whole.losses[0], np.asarray(maml.meta_loss(*GIVEN, reduce="mean")), 1e-12)
    path = tmp_path / "run.npz"
    maml.fit(*GIVEN, ADAM, steps=15, reduce=rule, checkpoint=path)
    resumed = maml.fit(*GIVEN, ADAM, steps=40, reduce=rule, checkpoint=path)
    same((resumed.params, resumed.opt_state), (whole.params, whole.opt_state))
    same(resumed.losses, whole.losses)
    for other in {*RULES, SoftmaxCosine(2.0), "mean", "sum"} - {rule}:
        with pytest.raises(InputError, match=r"made with \(reduce"):
            maml.fit(*GIVEN, ADAM, steps=40, reduce=other, checkpoint=path)


def test_fit_with_uniform_weights_is_fit_with_the_mean():
    results = [maml.fit(*GIVEN, ADAM, steps=10, reduce=how, learn_rates=True) for how in (Uniform(), "mean")]
    close(*[(result.params, result.rates, result.losses) for result in results], 1e-9)


def test_fit_takes_a_rule_with_drawn_tasks_in_sequence_and_measured():
    def draw(key):
        return tasks.sinusoid(tasks=5, support=5, queries=5, key=key)

    how = {"steps": 6, "key": jax.random.key(2), "reduce": MinNorm(), "sequential": True}
    run = fit_and_measure(GIVEN[0], START, draw, GIVEN[3], ADAM, every=3, measure=lambda params: 0.0, **how)
    assert np.isfinite(run.result.losses).all()
    close(run.result.params, maml.fit(GIVEN[0], START, draw, GIVEN[3], ADAM, **how).params, 1e-12)


def test_a_rule_of_ones_own():
    @dataclass(frozen=True)
    class Only(Rule):
        index: int

        def of(self, losses, gram):
            return (jnp.arange(len(losses)) == self.index).astype(losses.dtype)

    losses, gradients = apart(INNERS["ANIL"])
    found = maml.meta_gradient(apply, PARAMS, BATCH, INNERS["ANIL"], reduce=Only(2))
    close(found, (losses.mean(), jax.tree.map(lambda leaf: leaf[2], gradients)), 1e-12)


def test_divergence_is_told_with_a_rule():
    result = maml.fit(*GIVEN, optax.sgd(1e6), steps=100, reduce=SoftmaxCosine(), on_divergence="return")
    assert result.diverged is not None
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(result.params))


@pytest.mark.parametrize(
    "call",
    [
        lambda: maml.meta_loss(*GIVEN, reduce=MinNorm()),
        lambda: maml.fit(*GIVEN, ADAM, steps=1, method="reptile", reduce=MinNorm()),
        lambda: anil.two_part_gradient(*GIVEN, reduce=MinNorm()),
        lambda: curvature.meta_smoothness(*GIVEN, reduce=MinNorm()),
    ],
    ids=["meta_loss", "reptile", "anil", "curvature"],
)
def test_what_has_no_gradient_to_weigh_refuses_a_rule(call):
    with pytest.raises(InputError, match=r"reduce: expected sum or mean, got MinNorm\(\); name one of them"):
        call()


def test_unknown_ways_are_refused():
    for call in (maml.meta_gradient, partial(maml.fit, optimizer=ADAM, steps=1)):
        for wrong in ("max", MinNorm, None):
            with pytest.raises(InputError, match="reduce: expected sum or mean"):
                call(*GIVEN, reduce=wrong)


def test_a_problem_with_a_rule_is_one_static_argument():
    one, two = (Problem(apply, INNERS["MAML"], "half_sum_squares", SoftmaxCosine(t)) for t in (1, 1.0))
    assert (one, hash(one)) == (two, hash(two))
    assert one != Problem(apply, INNERS["MAML"], "half_sum_squares", SoftmaxCosine(2.0))
