"""One bilevel problem: hypergradients against closed forms, methods as instances, a distribution for a minimum."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from _refused import assert_refused
from jax.flatten_util import ravel_pytree
from test_rkhs import BATCH, PARAMS, along, apply, close, direction_like, dot, same

from mlkernels.errors import InputError
from mlkernels.inner_loop.minimum import minimum
from mlkernels.learners import maml
from mlkernels.learners.bilevel import WAYS, Adaptation, Ridge, bilevel, hypergradient
from mlkernels.learners.bilevel.stochastic import (
    covariance_gradient,
    frozen_noise_gradient,
    langevin,
    quadrature_gradient,
    quadrature_mean,
)
from mlkernels.learners.maml import ImplicitLoop, InnerLoop

# --- a quadratic problem, x [3], y [4] --------------------------------------------------------------------------------

RANDOM = np.random.default_rng(0)
ROOT = RANDOM.normal(size=(4, 6))
A = ROOT @ ROOT.T / 6 + 0.2 * np.eye(4)
B, D, START = RANDOM.normal(size=(4, 3)), RANDOM.normal(size=(3, 3)), RANDOM.normal(size=(4, 3))
b, c, X = RANDOM.normal(size=4), RANDOM.normal(size=4), RANDOM.normal(size=3)
RATE, STEPS = 0.9 / np.linalg.eigvalsh(A)[-1], 25
STEP = np.eye(4) - RATE * A
POWERS = [np.linalg.matrix_power(STEP, k) for k in range(STEPS + 1)]


def outer(x, y):
    return 0.5 * jnp.sum((y - c) ** 2) + 0.5 * jnp.sum((jnp.asarray(D) @ x) ** 2)


def inner(x, y):
    return 0.5 * y @ (jnp.asarray(A) @ y) + y @ (jnp.asarray(B) @ x - b)


def start(x):
    return jnp.asarray(START) @ x


def exact(way, last=None):
    """y and the derivative of y by x that a way takes for true."""
    at_rest = np.linalg.solve(A, b - B @ X)
    y = POWERS[STEPS] @ (START @ X) + (np.eye(4) - POWERS[STEPS]) @ at_rest
    through = {"truncated": last, "one-step": 1}.get(way, STEPS)
    J = -RATE * sum(POWERS[: min(through, STEPS)]) @ B
    if through >= STEPS:
        J = J + POWERS[STEPS] @ START
    if way == "implicit":
        J = -np.linalg.solve(A, B)
    return y, 0.5 * ((y - c) ** 2).sum() + 0.5 * ((D @ X) ** 2).sum(), D.T @ D @ X + J.T @ (y - c)


@pytest.mark.parametrize("last", [None, 1, 7, 25, 40])
@pytest.mark.parametrize("way", WAYS)
def test_each_way_has_its_closed_form_on_a_quadratic(way, last):
    if (last is None) == (way == "truncated"):
        return
    found = bilevel(outer, inner, start, hypergradient=way, steps=STEPS, rate=RATE, last=last, tolerance=1e-13)(X)
    y, value, gradient = exact(way, last)
    close((found.y, found.value, found.gradient), (y, value, gradient), 1e-10)
    assert float(found.rest) == pytest.approx(np.linalg.norm(A @ y + B @ X - b), rel=1e-8)
    assert float(found.residual) < 1e-12


def test_every_way_comes_to_the_exact_hypergradient_or_stays_away_as_it_must():
    """Many steps: reverse, forward and implicit are exact below 1e-10; T steps leave (I - alpha A)^T of it."""
    at_rest = np.linalg.solve(A, b - B @ X)
    true = D.T @ D @ X - np.linalg.solve(A, B).T @ (at_rest - c)
    many = partial(bilevel, outer, inner, start, steps=1500, rate=RATE)
    for way in ("reverse", "forward", "implicit"):
        found = many(hypergradient=way, tolerance=1e-13)(X)
        assert float(found.rest) < 1e-12
        close(found.gradient, true, 1e-10)
    close(many(hypergradient="implicit", solver="eigh")(X).gradient, true, 1e-10)
    for last in (1, 5, 40):
        left = np.linalg.matrix_power(STEP, last) @ np.linalg.solve(A, B)
        expected = true + left.T @ (at_rest - c)
        close(many(hypergradient="truncated", last=last)(X).gradient, expected, 1e-10)
    same(many(hypergradient="one-step")(X), many(hypergradient="truncated", last=1)(X))


def test_conjugate_gradients_stop_at_their_tolerance():
    """Of the linear system, which is also the error times at most the curvatures' ratio."""
    true = exact("implicit")[2]
    errors = []
    for tolerance in (0.3, 1e-2, 1e-6, 1e-12):
        found = bilevel(outer, inner, start, hypergradient="implicit", steps=STEPS, rate=RATE, tolerance=tolerance)
        try:
            found = found(X)
        except InputError:
            pytest.fail("refused within its own tolerance")
        assert float(found.residual) <= 2 * tolerance
        errors.append(np.linalg.norm(found.gradient - true))
    assert errors[0] > 100 * errors[2]
    assert errors[3] < 1e-10


def test_numbers_that_change_do_not_compile_anew():
    for way in WAYS:
        last = 3 if way == "truncated" else None
        make = partial(bilevel, outer, inner, start, steps=5, hypergradient=way, last=last)
        make(rate=0.1)(X)
        compiled = hypergradient._found._cache_size()
        make(rate=0.05, tolerance=1e-8)(2 * X)
        assert hypergradient._found._cache_size() == compiled


@pytest.mark.parametrize("way", WAYS)
def test_mapped_and_compiled_by_others_it_is_the_same(way):
    at = jnp.stack([jnp.asarray(X), jnp.asarray(2 * X)])
    find = bilevel(
        outer, inner, start, steps=5, rate=0.1, hypergradient=way, last=3 if way == "truncated" else None, solver="eigh"
    )
    mapped = jax.vmap(find)(at)
    for i in range(2):
        alone = find(at[i])
        close(jax.tree.map(lambda leaf, i=i: leaf[i], mapped[:4]), alone[:4], 1e-11)
        close(jax.jit(find)(at[i])[:4], alone[:4], 1e-11)


def test_a_rate_for_each_part_and_a_rate_that_is_learned():
    """x and y are trees; against finite differences."""
    x = {"a": jnp.array(0.3), "rate": {"u": jnp.array(0.1), "v": jnp.array([0.05])}}

    def f(x, y):
        return jnp.sum((y["u"] - x["a"]) ** 2) + jnp.sum(jnp.cos(y["u"]) * y["v"]) + jnp.sum(y["v"] ** 2)

    def F(x, y):
        return jnp.sum(y["u"] ** 2 * y["v"]) + x["a"] ** 2

    def begin(x):
        return {"u": x["a"] * jnp.ones(2), "v": jnp.ones(1)}

    def rates(x):
        return {"u": x["rate"]["u"], "v": x["rate"]["v"][0]}

    for way in ("reverse", "forward"):
        find = bilevel(F, f, begin, hypergradient=way, steps=6, rate=rates)
        found = find(x)
        for seed in range(2):
            direction = direction_like(x, seed)
            measured = along(lambda x, find=find: find(x).value, x, direction)
            assert dot(found.gradient, direction) == pytest.approx(measured, rel=1e-8)
        fixed = bilevel(F, f, begin, hypergradient=way, steps=6, rate={"u": 0.1, "v": 0.05})(x)
        close(fixed.value, found.value, 1e-12)
        close(fixed.gradient["a"], found.gradient["a"], 1e-12)
        assert not np.any(ravel_pytree(fixed.gradient["rate"])[0])


def test_no_steps_are_no_adaptation():
    found = bilevel(outer, inner, start, steps=0, rate=0.1)(X)
    close(found.gradient, D.T @ D @ X + START.T @ (START @ X - c), 1e-12)


def test_single_precision_stays():
    single = jnp.asarray(X, jnp.float32)

    def f(x, y):
        return 0.5 * jnp.sum((y - x) ** 2) + 0.25 * jnp.sum(y**4)

    for way in WAYS:
        last = 3 if way == "truncated" else None
        found = bilevel(f, f, hypergradient=way, steps=5, rate=0.1, last=last)(single)
        assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {jnp.dtype("float32")}
    zeros = jnp.zeros((4, 3), jnp.float32)
    y = langevin(f, single, zeros, step=0.1, steps=4, key=jax.random.key(0))
    found = frozen_noise_gradient(f, f, single, zeros, step=0.1, steps=4, key=jax.random.key(0))
    for tree in (y, found, covariance_gradient(f, f, single, y)):
        assert {leaf.dtype for leaf in jax.tree.leaves(tree)} == {jnp.dtype("float32")}


# --- instances --------------------------------------------------------------------------------------------------------


def summed(find, params=PARAMS):
    found = jax.vmap(find, (None, 0))(params, BATCH)
    return found.value.sum(), jax.tree.map(lambda leaf: leaf.sum(0), found.gradient)


@pytest.mark.parametrize("adapt", ["all", ("head",)], ids=["MAML", "ANIL"])
@pytest.mark.parametrize("way", ["reverse", "truncated"])
def test_maml_and_anil_are_instances(adapt, way):
    """Where T is the number of steps, truncated is reverse."""
    for loss, l2 in (("half_sum_squares", 0.0), ("cross_entropy", 0.1)):
        inner = InnerLoop(0.02, 5, loss=loss, l2=l2, adapt=adapt)
        problem = Adaptation(apply, loss=loss, outer_loss=loss, l2=l2, adapt=adapt)
        last = 5 if way == "truncated" else None
        find = bilevel(*problem.parts, hypergradient=way, steps=5, rate=0.02, last=last)
        close(summed(find), maml.meta_gradient(apply, PARAMS, BATCH, inner, outer_loss=loss), 1e-11)


def test_forward_is_maml_too():
    inner = InnerLoop(0.02, 5, adapt=("head",))
    find = bilevel(*Adaptation(apply, adapt=("head",)).parts, hypergradient="forward", steps=5, rate=0.02)
    close(summed(find), maml.meta_gradient(apply, PARAMS, BATCH, inner), 1e-11)


@pytest.mark.parametrize("adapt", ["all", ("head",)])
def test_imaml_is_an_instance(adapt):
    inner = ImplicitLoop(0.01, 3000, strength=5.0, solver_steps=80, adapt=adapt)
    problem = Adaptation(apply, strength=5.0, adapt=adapt)
    find = bilevel(*problem.parts, hypergradient="implicit", steps=3000, rate=0.01, tolerance=1e-12)
    wanted = maml.meta_gradient(apply, PARAMS, BATCH, inner)
    close(summed(find), wanted, 1e-9)
    # a looser solver is as much further away
    loose = bilevel(*problem.parts, hypergradient="implicit", steps=3000, rate=0.01, tolerance=1e-3)
    difference = jax.tree.map(jnp.subtract, summed(loose)[1], wanted[1])
    assert 1e-8 < np.sqrt(dot(difference, difference) / dot(wanted[1], wanted[1])) < 1e-2


def test_a_learned_start_has_no_meta_gradient_at_a_fixed_point_without_a_proximal_term():
    """Exactly none where the minimum is differentiated, less and less where the way to it is; with the term it has."""
    head = Adaptation(apply, adapt=("head",), l2=2.0)

    def of_start(problem, **how):
        gradient = summed(bilevel(*problem.parts, rate=0.02, **how))[1]
        return np.sqrt(dot(gradient["head"], gradient["head"])), np.sqrt(dot(gradient["body"], gradient["body"]))

    for how in (
        {"hypergradient": "implicit", "steps": 600},
        {"hypergradient": "one-step", "steps": 5},
        {"hypergradient": "truncated", "steps": 5, "last": 4},
    ):
        start, rest = of_start(head, **how)
        assert start == 0
        assert rest > 0.1
    sizes = [of_start(head, hypergradient="reverse", steps=steps)[0] for steps in (0, 20, 60, 600)]
    assert sizes[0] > sizes[1] > sizes[2]
    assert sizes[3] < 1e-6 * sizes[0]
    held = Adaptation(apply, adapt=("head",), l2=2.0, strength=1.0)
    assert of_start(held, hypergradient="implicit", steps=600)[0] > 0.1
    assert of_start(held, hypergradient="reverse", steps=600)[0] > 0.1


def test_ridge_tuning_is_an_instance():
    task = jax.tree.map(lambda leaf: leaf[0], BATCH)
    problem = Ridge()
    for log_ridge in (-1.0, 0.7):
        x = jnp.array(log_ridge)
        value, slope = problem.exact(x, task)

        def lowest(x):
            """The same by Newton's method, without the closed form."""
            w = minimum(lambda w: problem.inner(x, w, task), problem.start(x, task), "eigh")
            return problem.outer(x, w, task)

        assert float(value) == pytest.approx(float(lowest(x)), rel=1e-12)
        assert float(slope) == pytest.approx(along(lowest, x, jnp.array(1.0)), rel=1e-8)
        top = np.linalg.eigvalsh(task.support_x.T @ task.support_x)[-1] + np.exp(log_ridge)
        for way in ("reverse", "forward", "implicit"):
            find = bilevel(*problem.parts, hypergradient=way, steps=1500, rate=1 / top, tolerance=1e-13)
            found = find(x, task)
            assert float(found.value) == pytest.approx(float(value), rel=1e-12)
            assert float(found.gradient) == pytest.approx(float(slope), rel=1e-10)


# --- a distribution in the place of the minimum -----------------------------------------------------------------------

POINTS = jnp.linspace(-5.0, 5.0, 2001)


def well(x, y):
    """Two minima, of which x lifts one and lowers the other."""
    return 2 * (y**2 - 1) ** 2 + x * y


def miss(x, y):
    """Smallest near one of them, and of x itself."""
    return 0.5 * (y - 0.8) ** 2 + 0.1 * x**2


def test_both_sides_of_the_covariance_identity_agree_by_quadrature():
    for x in (-0.5, 0.0, 0.3, 1.0):
        by_autodiff = jax.grad(lambda x: quadrature_mean(miss, well, x, POINTS))(x)
        by_covariance = quadrature_gradient(miss, well, x, POINTS)
        assert float(by_covariance) == pytest.approx(float(by_autodiff), rel=1e-12)
        by_differences = along(lambda x: quadrature_mean(miss, well, x, POINTS), jnp.array(x), jnp.array(1.0))
        assert float(by_covariance) == pytest.approx(by_differences, rel=1e-8)
    finer = quadrature_gradient(miss, well, 0.3, jnp.linspace(-6.0, 6.0, 6001))
    assert float(finer) == pytest.approx(float(quadrature_gradient(miss, well, 0.3, POINTS)), rel=1e-12)


def test_quadrature_of_trees_of_outer_variables():
    x = {"scale": jnp.array([0.5, 1.5]), "shift": jnp.array(0.2)}

    def f(x, y):
        return x["scale"][0] * y**2 + x["scale"][1] * (y - x["shift"]) ** 4

    def F(x, y):
        return jnp.sin(y) * x["scale"][1] + x["shift"] ** 2

    close(quadrature_gradient(F, f, x, POINTS), jax.grad(lambda x: quadrature_mean(F, f, x, POINTS))(x), 1e-10)


def test_the_deterministic_hypergradient_depends_on_the_start_and_that_of_the_mean_does_not():
    x = jnp.array(0.3)
    found = []
    for y0 in (-1.5, 1.5):
        way = bilevel(miss, well, lambda x, y0=y0: jnp.full_like(x, y0), hypergradient="implicit", steps=500, rate=0.05)
        found.append(way(x))
    assert found[0].y < -0.9 < 0.9 < found[1].y
    assert max(float(each.rest) for each in found) < 1e-10
    assert abs(found[0].gradient - found[1].gradient) > 0.1
    true = float(quadrature_gradient(miss, well, x, POINTS))
    estimates = []
    for y0 in (-1.5, 1.5):
        how = {"step": 0.15, "steps": 900, "burn_in": 900, "every": 30}
        samples = langevin(well, x, jnp.full(1500, y0), **how, key=jax.random.key(0))
        estimate = covariance_gradient(miss, well, x, samples)
        estimates.append(estimate)
        # the step's bias is of the order of its square
        assert abs(float(estimate.gradient) - true) < 4 * float(estimate.error) + 0.03 * abs(true)
    assert abs(float(estimates[0].gradient - estimates[1].gradient)) < 6 * float(estimates[0].error)
    # neither minimum's is near
    assert min(abs(float(each.gradient) - true) for each in found) > 10 * float(estimates[0].error)


def test_langevin_has_the_variance_of_its_step():
    """On a Gaussian of curvature h the chain's variance is 1 / (h - (eps h)^2 / 4), its mean exact."""
    x, h, step = jnp.array([1.0, -2.0]), jnp.array([1.0, 4.0]), 0.6

    def f(x, y):
        return 0.5 * jnp.sum(h * (y["a"] - x) ** 2)

    y = langevin(f, x, {"a": jnp.zeros((4000, 2))}, step=step, steps=100, burn_in=200, every=20, key=jax.random.key(1))
    assert y["a"].shape == (4000, 5, 2)
    assert np.abs(y["a"].mean((0, 1)) - x).max() < 0.03
    np.testing.assert_allclose(y["a"].var((0, 1)), 1 / (h - (step * h) ** 2 / 4), rtol=0.05)


def test_chains_are_their_own_and_come_again():
    x, how = jnp.array(0.3), {"step": 0.2, "steps": 6, "key": jax.random.key(3)}
    y = langevin(well, x, jnp.zeros(5), **how)
    same(y, langevin(well, x, jnp.zeros(5), **how))
    assert len(np.unique(y)) == y.size == 30
    same(langevin(well, x, jnp.zeros(5), **{**how, "steps": 4}, burn_in=2), y[:, 2:])
    same(langevin(well, x, jnp.zeros(5), **how, every=3), y[:, 2::3])


def test_samples_give_the_gradient_by_their_covariance():
    """Of a Gaussian in two dimensions, drawn exactly: E F has a closed form; the error is what chance does."""
    x = jnp.array([0.5, -1.0])

    def f(x, y):
        return 0.5 * jnp.sum((y - x) ** 2)

    def F(x, y):
        return jnp.sum(y**3) + x[0] * y[1]

    wanted = np.array([3 * (x[0] ** 2 + 1) + x[1], 3 * (x[1] ** 2 + 1) + x[0]])  # E y^3 = x^3 + 3 x
    apart = []
    for seed in range(30):
        y = x[None, None] + jax.random.normal(jax.random.key(seed), (200, 10, 2))
        found = covariance_gradient(F, f, x, y)
        apart.append((found.gradient - wanted) / found.error)
    assert np.sqrt(np.square(apart).mean()) == pytest.approx(1, abs=0.3)
    assert np.abs(np.mean(apart, 0)).max() < 0.8


def test_frozen_noise_is_differentiated_as_finite_differences_do():
    x, start = {"x": jnp.array(0.3)}, jnp.linspace(-1.0, 1.0, 7)
    form = (lambda x, y: miss(x["x"], y)), (lambda x, y: well(x["x"], y))

    def value(x):
        return frozen_noise_gradient(*form, x, start, step=0.2, steps=12, key=jax.random.key(0)).value

    found = frozen_noise_gradient(*form, x, start, step=0.2, steps=12, key=jax.random.key(0))
    measured = along(value, x, {"x": jnp.array(1.0)})
    assert float(found.gradient["x"]) == pytest.approx(measured, rel=1e-8)
    ends = langevin(form[1], x, start, step=0.2, steps=12, key=jax.random.key(0))[:, -1]
    assert float(found.value) == pytest.approx(float(np.mean([miss(0.3, y) for y in ends])), rel=1e-12)


def test_frozen_noise_follows_its_recursion_and_the_gaussian_closed_form():
    """J = 1 - (1 - eps^2 h / 2)^N for every chain on a Gaussian of mean x."""
    h, step, steps = 2.0, 0.5, 9
    found = frozen_noise_gradient(
        lambda x, y: y, lambda x, y: 0.5 * h * (y - x) ** 2, jnp.array(1.0), jnp.zeros(4), step=step, steps=steps,
        key=jax.random.key(0),
    )  # fmt: skip
    assert float(found.gradient) == pytest.approx(1 - (1 - step**2 * h / 2) ** steps, rel=1e-12)
    assert float(found.error) < 1e-12


def test_frozen_noise_estimates_the_true_gradient_of_a_double_well():
    """A low barrier, which chains cross often: there J grows, but not for long."""
    x = jnp.array(0.3)

    def low(x, y):
        return 0.5 * (y**2 - 1) ** 2 + x * y

    true = float(quadrature_gradient(miss, low, x, POINTS))
    found = frozen_noise_gradient(miss, low, x, jnp.zeros(4000), step=0.2, steps=600, key=jax.random.key(0))
    assert abs(float(found.gradient) - true) < 4 * float(found.error) + 0.03 * abs(true)
    assert float(found.error) < 0.1 * abs(true)


# --- bad input --------------------------------------------------------------------------------------------------------

KEY = jax.random.key(0)
FIND = partial(bilevel, outer, inner, start)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: bilevel(3, inner, steps=1, rate=0.1), "outer: expected a function that can be hashed, got int"),
        (lambda: FIND(steps=1, rate=0.1, hypergradient="adjoint"), "hypergradient: expected reverse or forward or"),
        (lambda: FIND(steps=-1, rate=0.1), "steps: expected a whole number"),
        (lambda: FIND(steps=1, rate=-0.1), "rate: expected a finite number"),
        (lambda: FIND(steps=1, rate={"u": 0.1})(X), "rate: expected a number, or a tree that is a prefix of y"),
        (lambda: FIND(steps=1, rate=lambda x: (x[0], x[1]))(X), "rate: expected a number, or a tree that is a prefix"),
        (lambda: FIND(steps=1, rate=jnp.array(-0.1)), "rate: expected a finite number"),
        (lambda: FIND(steps=1, rate=0.1, last=1), "last: expected nothing with 'reverse', got 1"),
        (lambda: FIND(steps=1, rate=0.1, hypergradient="truncated"), "last: expected a number with 'truncated'"),
        (lambda: FIND(steps=1, rate=0.1, hypergradient="truncated", last=0), "last: expected a whole number of at lea"),
        (lambda: FIND(steps=1, rate=0.1, tolerance=0.0), "tolerance: expected a positive number, got 0.0"),
        (lambda: FIND(steps=1, rate=0.1, solver="lu"), "solver: expected eigh or cg, got 'lu'"),
        (lambda: FIND(steps=1, rate=0.1)(np.arange(3)), "x: expected a pytree of floats, got int64"),
        (lambda: bilevel(outer, inner, lambda x: jnp.arange(4), steps=1, rate=0.1)(X), "start: expected a pytree"),
        (lambda: bilevel(lambda x, y: y, inner, start, steps=1, rate=0.1)(X), r"outer: expected a function that"),
        (lambda: FIND(steps=2000, rate=10.0)(X), "rate: expected one at which the inner descent stays finite"),
        (lambda: bilevel(outer, lambda x, y: x[0] * y[0], start, hypergradient="implicit", steps=1, rate=0.1)(X),
         "inner: expected a positive definite Hessian where descent ended"),
        (lambda: Adaptation(apply, loss="hinge"), "loss: expected"),
        (lambda: Adaptation(apply, strength=-1.0), "strength: expected a finite number"),
        (lambda: bilevel(*Adaptation(apply, adapt=("tail",)).parts, steps=1, rate=0.1)(PARAMS, BATCH),
         "adapt: expected layers of the network"),
        (lambda: Ridge().exact(0.0, BATCH), "task: expected one task, got a batch of 2"),
        (lambda: langevin(well, X[0], jnp.zeros(()), step=0.1, steps=1, key=KEY), r"start: expected leaves \[chains"),
        (lambda: langevin(well, X[0], jnp.arange(3), step=0.1, steps=1, key=KEY), "start: expected a pytree of floats"),
        (lambda: langevin(well, X[0], jnp.zeros(3), step=0.0, steps=1, key=KEY), "step: expected a positive number"),
        (lambda: langevin(well, X[0], jnp.zeros(3), step=0.1, steps=0, key=KEY), "steps: expected a whole number"),
        (lambda: langevin(well, X[0], jnp.zeros(3), step=0.1, steps=5, every=2, key=KEY), "every: expected a divisor"),
        (lambda: langevin(well, X[0], jnp.full(3, 9.0), step=3.0, steps=50, key=KEY), "step: expected one at which"),
        (lambda: langevin(well, X[0], jnp.zeros(3), step=0.1, steps=5, key=7), "key: expected one JAX key"),
        (lambda: covariance_gradient(miss, well, 0.3, jnp.zeros(3)), r"samples: expected leaves \[chains, kept"),
        (lambda: quadrature_mean(miss, well, 0.3, jnp.zeros(1)), "points: expected two or more on a line"),
    ],
)  # fmt: skip
def test_bad_input_is_named(call, said):
    with pytest.raises(InputError, match=said):
        call()


def test_a_single_chain_has_no_error():
    found = covariance_gradient(miss, well, jnp.array(0.3), jnp.linspace(-1.0, 1.0, 9)[None])
    assert np.isfinite(found.gradient)
    assert np.isnan(found.error)


# --- what is refused in one line --------------------------------------------------------------------------------------

QUADRATIC = {"outer": lambda x, y: (y**2).sum(), "inner": lambda x, y: ((y - x) ** 2).sum(), "steps": 2, "rate": 0.1}


@pytest.mark.parametrize(
    ("change", "x", "said"),
    [
        ({}, None, "x: expected a pytree of numbers"),
        ({}, "a", "x: expected a pytree of real numbers"),
        ({}, {"a": [None, "b"]}, "x: expected a pytree of real numbers"),
        ({}, 1j, "x: expected a pytree of real numbers"),
        (
            {"outer": lambda x, y: y.astype(complex)},
            1.0,
            "outer: expected a function that gives a scalar, a float, got complex128",
        ),
        ({"outer": lambda x, y: "a"}, 1.0, "outer: expected a function that gives a scalar"),
        ({"inner": lambda x, y: None}, 1.0, "inner: expected a function that gives a scalar"),
        ({"inner": lambda x, y: 1}, 1.0, "inner: expected a function that gives a scalar"),
        ({"start": lambda x: "a"}, 1.0, "start: expected a pytree of real numbers"),
        ({"start": lambda x: {}}, 1.0, "start: expected a pytree of numbers"),
        ({"rate": jnp.ones(3)}, jnp.ones(2), "rate: expected a number, or a tree that is a prefix of y"),
        ({"rate": lambda x: "a"}, 1.0, "rate: expected a pytree of real numbers"),
        ({"rate": "fast"}, 1.0, "rate: expected a finite number of at least 0"),
    ],
)
def test_problems_of_something_else_than_numbers_are_refused_in_one_line(change, x, said):
    assert_refused(lambda: bilevel(**QUADRATIC | change)(x), said)


@pytest.mark.parametrize(
    "call",
    [
        lambda outer, inner, start, x: bilevel(outer, inner, start, steps=2, rate=0.1)(x),
        lambda outer, inner, start, x: covariance_gradient(outer, inner, x, x + jnp.ones((2, 3))),
        lambda outer, inner, start, x: frozen_noise_gradient(
            outer, inner, x, x + jnp.ones(2), step=0.1, steps=2, key=jax.random.key(0)
        ),
    ],
    ids=["bilevel", "covariance_gradient", "frozen_noise_gradient"],
)
def test_functions_are_looked_at_once_for_numbers_of_one_shape(call):
    seen = []

    def told(name, function):
        return lambda *given: seen.append(name) or function(*given)

    outer, inner = told("outer", lambda x, y: (y - 1) ** 2), told("inner", lambda x, y: (y - x) ** 2)
    start = told("start", lambda x: x)
    first = call(outer, inner, start, jnp.array(1.0))
    known = [*seen]
    second = call(outer, inner, start, jnp.array(2.0))
    assert {"outer", "inner"} <= {*known}
    assert seen == known, "neither traced nor checked again"
    assert first.value != second.value


def test_what_is_refused_once_is_refused_again_and_another_shape_is_looked_at():
    find = bilevel(lambda x, y: (y - 1) ** 2, lambda x, y: 0.5 * jnp.sum((y - x) ** 2), steps=2, rate=0.1)
    assert jnp.isfinite(find(jnp.array(1.0)).value)
    for _ in range(2):
        assert_refused(lambda: find(jnp.ones(2)), "outer: expected a function that gives a scalar")


def test_data_of_something_else_than_arrays_are_refused_and_keys_are_none():
    problem = QUADRATIC | {
        "inner": lambda x, y, key: (y - x) ** 2,
        "outer": lambda x, y, key: y,
        "start": lambda x, k: x,
    }
    assert_refused(lambda: bilevel(**problem)(1.0, "a"), "data: expected arrays of real numbers")
    assert np.isfinite(bilevel(**problem)(1.0, jax.random.key(0)).value)


CHAINS = {"inner": lambda x, y: 0.5 * (y - x) ** 2, "x": 1.0, "start": jnp.zeros(2), "step": 0.1, "steps": 2}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"inner": None}, "inner: expected a function that can be hashed"),
        ({"inner": lambda x, y: y + jnp.ones(2)}, "inner: expected a function that gives a scalar"),
        ({"x": "a"}, "x: expected a pytree of real numbers"),
        ({"start": None}, "start: expected a pytree of numbers"),
        ({"start": 0.0}, "start: expected leaves [chains, ...]"),
        ({"start": np.full(2, "a")}, "start: expected a pytree of real numbers"),
        ({"step": "a"}, "step: expected a finite number"),
        ({"steps": None}, "steps: expected a whole number"),
        ({"key": jnp.zeros(3, jnp.uint32)}, "key: expected one JAX key"),
    ],
)
def test_chains_of_something_else_are_refused_in_one_line(change, said):
    given = CHAINS | {"key": jax.random.key(0)} | change
    assert_refused(lambda: langevin(**given), said)
    assert_refused(lambda: frozen_noise_gradient(lambda x, y: y, **given), said)


@pytest.mark.parametrize(
    ("samples", "said"),
    [(None, "samples: expected a pytree of numbers"), (jnp.ones(3), "leaves [chains, kept, ...]"),
     (jnp.ones((0, 3)), "leaves [chains, kept, ...]"), ("a", "samples: expected a pytree of real numbers")],
)  # fmt: skip
def test_samples_of_something_else_are_refused(samples, said):
    assert_refused(lambda: covariance_gradient(lambda x, y: y, CHAINS["inner"], 1.0, samples), said)


@pytest.mark.parametrize("points", [None, "a", 1.0, jnp.ones(1), jnp.array([0.0, 1.0, 5.0]), jnp.array([0.0, jnp.nan])])
def test_points_of_no_quadrature_are_refused(points):
    """Of unequal spaces the sum would be another integral, and say nothing of it."""
    for function in (quadrature_mean, quadrature_gradient):
        assert_refused(lambda function=function: function(lambda x, y: y, CHAINS["inner"], 1.0, points), "points: ")


@pytest.mark.parametrize(
    ("task", "said"),
    [(None, "task: expected a TaskBatch of one task"), (BATCH, "task: expected one task, got a batch")],
)
def test_instances_are_of_one_task(task, said):
    assert_refused(lambda: bilevel(*Adaptation(apply).parts, steps=1, rate=0.1)(PARAMS, task), said)
    assert_refused(lambda: bilevel(*Ridge().parts, steps=1, rate=0.1)(0.0, task), said)
    assert_refused(lambda: Ridge().exact(0.0, task), said)


def test_settings_of_instances():
    assert_refused(lambda: Adaptation(None), "apply: expected a function")
    assert_refused(lambda: Adaptation(apply, adapt=None), "adapt: expected 'all' or different names of layers")
    assert_refused(lambda: Ridge().exact("a", jax.tree.map(lambda leaf: leaf[0], BATCH)), "log_ridge: expected")
