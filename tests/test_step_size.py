"""The tuned step size: closed forms against descent, exact arithmetic, autodiff; rates chosen on two kinds of data."""

from __future__ import annotations

import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from _refused import assert_refused

from mlkernels.errors import InputError
from mlkernels.learners.bilevel import bilevel
from mlkernels.learners.bilevel.step_size import (
    LinearTasks,
    Quadratic,
    backpropagated,
    choose_rate,
    descent_filter,
    draw_quadratic,
    draw_regressions,
    objective,
    slope,
)

SMALL = Quadratic([1.0, 4.0], [0.6, 0.8])
H20, START20 = draw_quadratic(20, key=jax.random.key(0))
LARGE = Quadratic.of(H20, START20)


def exact(problem, rate, steps):
    """f(w_t) and t times the sum, in rational numbers: neither rounds nor overflows."""
    l, c, rate = ([Fraction(float(e)) for e in part] for part in (problem.curvatures, problem.start, [rate]))
    factors = [1 - rate[0] * each for each in l]
    value = sum(li * ci**2 * f ** (2 * steps) for li, ci, f in zip(l, c, factors, strict=True)) / 2
    change = -steps * sum(li**2 * ci**2 * f ** (2 * steps - 1) for li, ci, f in zip(l, c, factors, strict=True))
    return value, change


# --- objectives -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("problem", [SMALL, LARGE], ids=["d = 2", "d = 20"])
@pytest.mark.parametrize("steps", [1, 2, 7, 80])
def test_closed_forms_are_those_of_exact_arithmetic(problem, steps):
    """From rates that hardly move to rates that leave every float behind."""
    for rate in (1e-6, 0.3 * problem.stable_below, 1.0 * problem.stable_below, 10 * problem.stable_below):
        value, change = exact(problem, rate, steps)
        assert slope(problem, rate, steps) == pytest.approx(float(change / (steps * value)), rel=1e-9)
        logarithm = math.log(value.numerator) - math.log(value.denominator)  # of whole numbers of any length
        assert objective(problem, rate, steps) == pytest.approx(logarithm / steps, rel=1e-9, abs=1e-12)
        if 1e-300 < value < 1e300:
            assert objective(problem, rate, steps, of="final") == pytest.approx(float(value), rel=1e-9)
            assert slope(problem, rate, steps, of="final") == pytest.approx(float(change), rel=1e-9)


def test_descent_ends_where_the_closed_form_says():
    for rate in (0.1, 0.4, 0.6):
        w = START20.copy()
        for _ in range(30):
            w = w - rate * LARGE.stable_below * (H20 @ w)
        assert objective(LARGE, rate * LARGE.stable_below, 30, of="final") == pytest.approx(w @ H20 @ w / 2, rel=1e-9)


def test_the_slopes_are_those_of_autodiff_in_double_precision():
    for of in ("final", "log"):
        for rate in (0.3 * LARGE.stable_below, 1.2 * LARGE.stable_below):
            value, derivative = backpropagated(H20, START20, rate, 12, of=of, dtype=jnp.float64)
            assert float(value) == pytest.approx(objective(LARGE, rate, 12, of=of), rel=1e-9)
            assert float(derivative) == pytest.approx(slope(LARGE, rate, 12, of=of), rel=1e-8)


@pytest.mark.parametrize("way", ["reverse", "forward"])
def test_a_tuned_rate_is_a_bilevel_problem(way):
    """With the rate for the outer variable, and descent on the quadratic for the inner problem."""
    rate = 0.6 * LARGE.stable_below

    def f(rate, w):
        return 0.5 * w @ jnp.asarray(H20) @ w

    def start(rate):
        return jnp.asarray(START20)

    def itself(rate):
        return rate

    found = bilevel(f, f, start, hypergradient=way, steps=25, rate=itself)(rate)
    assert float(found.value) == pytest.approx(objective(LARGE, rate, 25, of="final"), rel=1e-10)
    assert float(found.gradient) == pytest.approx(slope(LARGE, rate, 25, of="final"), rel=1e-10)


def test_shapes_go_together():
    rates, steps = np.linspace(0.01, 1, 7), np.array([[1], [5], [40]])
    for of in ("final", "log"):
        for function in (objective, slope):
            table = function(SMALL, rates, steps, of=of)
            assert table.shape == (3, 7)
            assert table[1, 2] == function(SMALL, rates[2], 5, of=of)


def test_the_loss_is_convex_in_the_rate_and_its_logarithm_has_one_minimum():
    """Theorems 3 and 4."""
    rates = np.linspace(0, 1.5, 2001) * LARGE.stable_below
    assert (np.diff(slope(LARGE, rates, 6, of="final")) > 0).all()
    for steps in (2, 10, 80, 1000):
        signs = np.sign(slope(LARGE, rates, steps))
        assert (np.diff(signs) >= 0).all()
        assert signs[0] < 0 < signs[-1]


def test_the_slope_of_the_logarithm_stays_of_one_size_and_that_of_the_loss_does_not():
    steps = np.array([10, 100, 1000, 10_000])
    below, above = 0.5 * LARGE.stable_below, 2 * LARGE.stable_below
    for rate in (below, above):
        sizes = np.abs(slope(LARGE, rate, steps))
        assert sizes.max() / sizes[1:].min() < 10
    assert np.abs(slope(LARGE, above, 1000, of="final")) > 1e300
    large = slope(LARGE, below, steps, of="final")
    assert abs(large[0]) > 1e3 * abs(large[2])


def test_the_bounds_of_theorem_3():
    l, c = LARGE.curvatures, LARGE.start
    for steps in (3, 20):
        for rate in np.array([0.2, 0.7, 0.99]) * LARGE.stable_below:
            bound = steps * (c**2 * l**2 * np.abs(1 - rate * l) ** (2 * steps - 1)).sum()
            assert abs(slope(LARGE, rate, steps, of="final")) <= bound * (1 + 1e-9)
        for rate in np.array([1.01, 2.0, 5.0]) * LARGE.stable_below:
            bound = c[-1] ** 2 * l[-1] ** 2 * steps * (rate * l[-1] - 1) ** (2 * steps - 1) - l[-1] ** 2 * steps
            assert abs(slope(LARGE, rate, steps, of="final")) >= bound * (1 - 1e-9)


def test_backpropagation_in_single_precision_fails_where_the_closed_form_is_right():
    """At a rate far above 2 / L, d = 20: right at 10 steps, then 0 or not finite, as there was measured before."""
    assert 0.005 < LARGE.stable_below < 0.05
    rate, last = 0.1, LARGE.curvatures[-1]
    wanted = {steps: float(slope(LARGE, rate, steps)) for steps in (10, 20, 40, 80, 160, 320)}
    # where the largest curvature alone is left: 2 / (eta - 1 / L), which is 21.757 for 2 / L = 0.0162
    assert wanted[320] == pytest.approx(2 * last / (rate * last - 1), rel=1e-9)
    before = 2 / (0.1 - 0.0162 / 2)
    assert before == pytest.approx(21.757, rel=1e-3)
    assert wanted[10] == pytest.approx(wanted[320], rel=0.01)
    for steps, right in wanted.items():
        found = float(backpropagated(H20, START20, rate, steps, dtype=jnp.float32)[1])
        assert (abs(found - right) < 0.1 * right) == (steps == 10)
        assert steps == 10 or found == 0 or not np.isfinite(found)
    # double precision moves it to ten times as many steps
    for steps, works in ((80, True), (320, False)):
        found = float(backpropagated(H20, START20, rate, steps, dtype=jnp.float64)[1])
        assert (abs(found - wanted[steps]) < 1e-6 * wanted[steps]) == works
    for steps in (10, 80, 320):  # below 2 / L single precision is enough
        found = float(backpropagated(H20, START20, 0.001, steps, dtype=jnp.float32)[1])
        assert found == pytest.approx(float(slope(LARGE, 0.001, steps)), rel=1e-3)


def test_a_loss_of_zero_has_no_slope_of_its_logarithm():
    one = Quadratic([2.0], [1.0])
    assert objective(one, 0.5, 3) == -np.inf
    assert objective(one, 0.5, 3, of="final") == 0
    assert slope(one, 0.5, 3, of="final") == 0
    with pytest.raises(InputError, match="rate: expected one that does not end at the minimum"):
        slope(one, 0.5, 3)


def test_the_order_and_the_basis_do_not_matter():
    turned = np.linalg.qr(np.random.default_rng(0).normal(size=(2, 2)))[0]
    other = Quadratic.of(turned @ np.diag([4.0, 1.0]) @ turned.T, turned @ np.array([0.8, 0.6]))
    assert slope(other, 0.3, 9) == pytest.approx(slope(SMALL, 0.3, 9), rel=1e-10)
    assert Quadratic([4.0, 1.0], [0.8, 0.6]).curvatures.tolist() == [1.0, 4.0]


# --- rates chosen on data ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("samples", "dimension"), [(6, 4), (6, 6), (6, 9)])
def test_chosen_rates_are_those_of_descent_step_by_step(samples, dimension):
    drawn = draw_regressions(tasks=3, samples=samples, dimension=dimension, noise=0.5, key=jax.random.key(1))
    rates, steps = np.array([1e-3, 0.05, 0.2, 0.5, 3.0]), (1, 4, 30)

    def descended(x, y, rate, steps):
        w = np.zeros(dimension)
        for _ in range(steps):
            w = w - rate * x.T @ (x @ w - y) / len(y)
        return w

    for by, n in (("train", samples), ("validation", 2)):
        found = choose_rate(drawn, rates, steps, by=by, train=None if by == "train" else n)
        for s, t in enumerate(steps):
            losses = []
            for rate in rates:
                of_tasks = []
                for x, y in zip(drawn.x, drawn.y, strict=True):
                    inside = slice(None) if by == "train" else slice(n, None)
                    w = descended(x[:n], y[:n], rate, t)
                    of_tasks.append(((x[inside] @ w - y[inside]) ** 2).mean() / 2)
                losses.append(np.mean(of_tasks))
            np.testing.assert_allclose(found.objective[s], losses, rtol=1e-8)
            assert found.rate[s] == rates[np.argmin(losses)]
            ends = [descended(x, y, found.rate[s], t) for x, y in zip(drawn.x, drawn.y, strict=True)]
            errors = ((np.array(ends) - drawn.w) ** 2).sum(1)
            np.testing.assert_allclose(found.errors[s], errors, rtol=1e-8)
            assert found.error[s] == pytest.approx(errors.mean(), rel=1e-8)


def test_the_filter_keeps_its_digits():
    """Against exact arithmetic, from flat directions to those that leave for infinity."""
    curvatures, rates = np.array([0.0, 1e-12, 1e-3, 1.0, 7.0]), np.array([1e-6, 0.1, 1.0])
    for steps in (1, 2, 40):
        found = descent_filter(curvatures, rates, steps)
        for i, l in enumerate(curvatures):
            for j, rate in enumerate(rates):
                a, b = Fraction(float(l)), Fraction(float(rate))
                wanted = (1 - (1 - a * b) ** steps) / a if a else b * steps
                assert found[i, j] == pytest.approx(float(wanted), rel=1e-12)


def test_with_few_noisy_points_training_points_choose_a_constant_and_others_one_over_t():
    """Theorem 5; the figures of d = 200, n = 100, noise 1 from 60 tasks, on the same grid."""
    drawn = draw_regressions(tasks=60, samples=100, dimension=200, noise=1.0, key=jax.random.key(0))
    grid, steps = np.logspace(-4, 0, 25), (20, 40, 80, 160)
    train, validation = (choose_rate(drawn, grid, steps, by=by) for by in ("train", "validation"))
    one = 10 ** (1 / 6) * 1.001  # a step of the grid
    assert np.abs(np.log(train.rate / 0.316)).max() < np.log(one)
    before = np.array([0.0068, 0.0046, 0.0022, 0.0010])
    assert np.abs(np.log(validation.rate / before)).max() < 1.5 * np.log(one)
    assert (np.diff(validation.rate) < 0).all()
    assert np.log(validation.rate[0] / validation.rate[-1]) / np.log(8) == pytest.approx(1, abs=0.15)
    np.testing.assert_allclose(train.error, [1.41, 1.52, 1.54, 1.54], atol=0.1)
    np.testing.assert_allclose(validation.error, [0.84, 0.82, 0.82, 0.83], atol=0.04)


def test_with_many_points_training_points_are_enough():
    """Theorem 6: d sigma^2 / n."""
    drawn = draw_regressions(tasks=60, samples=2000, dimension=50, noise=1.0, key=jax.random.key(1))
    found = choose_rate(drawn, np.logspace(-4, 0, 25), 40, by="train")
    assert found.error[0] == pytest.approx(50 / 2000, rel=0.15)


def test_drawn_tasks_are_what_they_say():
    drawn = draw_regressions(tasks=50, samples=40, dimension=10, noise=2.0, key=jax.random.key(2))
    np.testing.assert_allclose(np.linalg.norm(drawn.w, axis=1), 1, rtol=1e-12)
    noise = drawn.y - np.einsum("bnd,bd->bn", drawn.x, drawn.w)
    assert noise.std() == pytest.approx(2, rel=0.1)
    again = draw_regressions(tasks=50, samples=40, dimension=10, noise=2.0, key=jax.random.key(2))
    np.testing.assert_array_equal(drawn.x, again.x)


KEY = jax.random.key(0)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Quadratic([1.0], [1.0, 2.0]), "start: expected as many coordinates"),
        (lambda: Quadratic([0.0, 1.0], [1.0, 2.0]), "curvatures: expected positive numbers, got 0.0"),
        (lambda: Quadratic([1.0, 1.0], [0.0, 0.0]), "start: expected finite coordinates, not all 0"),
        (lambda: Quadratic.of(np.ones((2, 3)), np.ones(2)), r"hessian: expected \[d, d\]"),
        (lambda: objective(SMALL, np.nan, 3), "rate: expected finite numbers"),
        (lambda: objective("SMALL", 0.1, 3), "problem: expected a Quadratic, got str"),
        (lambda: objective(SMALL, 0.1, 0), "steps: expected whole numbers of at least 1"),
        (lambda: slope(SMALL, 0.1, 2.5), "steps: expected whole numbers"),
        (lambda: slope(SMALL, 0.1, 2, of="loss"), "of: expected final or log, got 'loss'"),
        (lambda: backpropagated(np.ones((2, 3)), np.ones(2), 0.1, 2), r"hessian: expected \[d, d\]"),
        (lambda: backpropagated(np.eye(2), np.ones(2), 0.1, 0), "steps: expected a whole number of at least 1"),
        (lambda: draw_quadratic(5, samples=4, key=KEY), "samples: expected a whole number of at least 5"),
        (lambda: draw_regressions(tasks=0, samples=1, dimension=1, noise=1.0, key=KEY), "tasks: expected a whole"),
        (lambda: draw_regressions(tasks=1, samples=1, dimension=1, noise=-1.0, key=KEY), "noise: expected a finite"),
    ],
)
def test_bad_input_is_named(make, said):
    with pytest.raises(InputError, match=said):
        make()


def test_bad_choices_are_named():
    drawn = draw_regressions(tasks=2, samples=4, dimension=2, noise=1.0, key=KEY)
    single = LinearTasks(drawn.x[:, :1], drawn.y[:, :1], drawn.w)
    huge = LinearTasks(drawn.x * 1e100, drawn.y, drawn.w)
    for call, said in (
        (lambda: choose_rate(drawn, [0.1], 2, by="test"), "by: expected train or validation, got 'test'"),
        (lambda: choose_rate(drawn, [0.1], 0, by="train"), "steps: expected a whole number of at least 1"),
        (lambda: choose_rate(drawn, [0.0], 2, by="train"), "rates: expected positive numbers"),
        (lambda: choose_rate(drawn, [0.1], 2, by="train", train=2), "train: expected nothing with by='train'"),
        (lambda: choose_rate(drawn, [0.1], 2, by="validation", train=4), "train: expected a whole number from 1 to 3"),
        (lambda: choose_rate(single, [0.1], 2, by="validation"), "tasks: expected two samples or more, got 1"),
        (lambda: choose_rate(huge, [1.0], 9, by="train"), "rates: expected one at which descent stays finite"),
        (lambda: choose_rate("drawn", [1.0], 9, by="train"), "tasks: expected LinearTasks, got str"),
    ):
        with pytest.raises(InputError, match=said):
            call()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Quadratic(None, [1.0]), "curvatures: expected an array of real numbers"),
        (lambda: Quadratic([1j], [1.0]), "curvatures: expected an array of real numbers"),
        (lambda: Quadratic([1.0], ["a"]), "start: expected an array of real numbers"),
        (lambda: Quadratic.of("a", [1.0]), "hessian: expected an array of real numbers"),
        (lambda: Quadratic.of([[1.0, 2.0], [0.0, 1.0]], [1.0, 1.0]), "hessian: expected a symmetric matrix"),
        (lambda: Quadratic.of(np.full((2, 2), np.nan), [1.0, 1.0]), "hessian: expected finite numbers"),
        (lambda: objective(SMALL, None, 3), "rate: expected an array of real numbers"),
        (lambda: objective(SMALL, [0.1, 0.2], [1, 2, 3]), "steps: expected a shape that goes with the rates'"),
        (lambda: objective(SMALL, 0.1, "a"), "steps: expected an array of real numbers"),
        (lambda: slope(SMALL, ["a"], 3), "rate: expected an array of real numbers"),
        (lambda: backpropagated(np.eye(2), None, 0.1, 3), "start: expected an array of real numbers"),
        (lambda: backpropagated(np.eye(2), np.ones(2), np.ones(2), 3), "rate: expected one number"),
        (lambda: choose_rate(LinearTasks(None, None, None), [0.1], 3, by="train"), "x: expected an array [B, n, d]"),
        (lambda: choose_rate(REGRESSIONS, None, 3, by="train"), "rates: expected an array of real numbers"),
        (lambda: choose_rate(REGRESSIONS, [0.1], [], by="train"), "steps: expected one number or more"),
        (lambda: choose_rate(REGRESSIONS, [0.1], "a", by="train"), "steps: expected an array of real numbers"),
        (lambda: choose_rate(LinearTasks(REGRESSIONS.x, REGRESSIONS.y, REGRESSIONS.w[:1]), [0.1], 3, by="train"),
         "w: expected an array [B, d] with B = 2"),
    ],
)  # fmt: skip
def test_what_are_no_numbers_or_do_not_fit_is_refused_in_one_line(make, said):
    assert_refused(make, said)


REGRESSIONS = draw_regressions(tasks=2, samples=4, dimension=3, noise=0.1, key=jax.random.key(0))
