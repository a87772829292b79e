"""The demo of two inner minima: its minima, gradients and samples against the package's."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlkernels.course.demos import two_minima
from mlkernels.learners.bilevel import bilevel
from mlkernels.learners.bilevel.stochastic import quadrature_gradient, quadrature_mean

DEMO = two_minima.DEMO
CORNERS = [{}, {"start": "right", "lam": -0.6}, {"barrier": 0.5, "lam": 1.0}, {"temperature": 0.25, "lam": 0.0}]


def begin(x, y0):
    return y0


def well(x, y, y0):
    return two_minima.inner(x, y)


def miss(x, y, y0):
    return two_minima.outer(x, y)


FIND = bilevel(miss, well, begin, hypergradient="implicit", steps=4000, rate=0.005)


def outer_variables(settings):
    return {name: jnp.array(settings[name], float) for name in ("lam", "barrier", "temperature")}


@pytest.mark.parametrize("values", CORNERS)
def test_the_minimum_is_where_descent_ends_with_its_implicit_hypergradient(values):
    settings = DEMO.settings(**values)
    n = DEMO.compute(**settings)
    found = FIND(outer_variables(settings), jnp.array(two_minima.STARTS[settings["start"]]))
    assert n.rest == pytest.approx(float(found.y), abs=1e-8)
    assert n.exact == pytest.approx(float(found.gradient["lam"]), abs=1e-8)


@pytest.mark.parametrize("values", CORNERS)
def test_the_mean_and_its_slope_are_those_of_the_packages_quadrature(values):
    settings = DEMO.settings(**values)
    n, x, points = DEMO.compute(**settings), outer_variables(settings), jnp.linspace(-4.0, 4.0, 2001)
    assert n.mean == pytest.approx(float(quadrature_mean(two_minima.outer, two_minima.inner, x, points)), rel=1e-9)
    slope = quadrature_gradient(two_minima.outer, two_minima.inner, x, points)["lam"]
    assert n.slope == pytest.approx(float(slope), rel=1e-8, abs=1e-9)
    if settings["lam"] == 0:
        assert n.curve[len(two_minima.CURVE) // 2] == pytest.approx(n.slope, rel=1e-9)
    width = two_minima.LINE[1] - two_minima.LINE[0]
    assert n.density.sum() * width == pytest.approx(1, abs=0.02)
    assert n.samples.sum() * (two_minima.BINS[1] - two_minima.BINS[0]) == pytest.approx(1, abs=0.02)


def test_both_minima_are_there_below_a_tilt_and_one_alone_above():
    """f' = 4 h y (y^2 - 1) + lambda has three roots for |lambda| < 8 h / 3^1.5."""
    for barrier in two_minima.BARRIERS:
        edge = 8 * barrier / 27**0.5
        for lam, count in ((0.99 * edge, 2), (1.01 * edge, 1), (-1.01 * edge, 1)):
            y = two_minima.minima(lam, barrier)
            assert len(y) == count
            x = {"lam": lam, "barrier": barrier, "temperature": 1.0}
            assert np.abs([jax.grad(two_minima.inner, 1)(x, each) for each in y]).max() < 1e-6
    left, right = two_minima.branches(0.5)
    assert left[0].min() > -0.78
    assert right[0].max() < 0.78


def test_chains_forget_their_start_at_a_low_barrier_and_not_at_a_high_one():
    low = [DEMO.compute(**DEMO.settings(start=start, barrier=1.0)) for start in two_minima.STARTS]
    for n in low:
        assert abs(n.estimate - n.slope) < 4 * n.error + 0.05 * n.slope
        assert abs(n.right[0] - n.right[1]) < 0.05
    high = [DEMO.compute(**DEMO.settings(start=start, barrier=4.0)) for start in two_minima.STARTS]
    assert high[1].right[0] - high[0].right[0] > 0.2
    cold = DEMO.compute(**DEMO.settings(temperature=0.25, lam=0.0))
    assert cold.right[0] < 0.05 < 0.45 < cold.right[1]
    assert cold.slope > 3
    assert cold.estimate < 0.5
