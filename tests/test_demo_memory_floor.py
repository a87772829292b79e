"""The numbers of the demo of notebook 08: exact moments against simulation, and the learners they are the limits of."""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np
import pytest

from mlkernels import tasks
from mlkernels.course.demos import memory_floor as floor
from mlkernels.learners import memory
from mlkernels.learners.maml import InnerLoop


def simulated(points, beta, rate, inner, outer, steps, copies=4000):
    """Excess of the meta-loss after these outer steps: mean and standard error."""
    rng, who = np.random.default_rng(0), np.arange(copies)
    w, u = np.full(copies, floor.START), np.full((copies, 4), floor.START)
    for _ in range(steps):
        i = rng.integers(4, size=copies)
        mu, c = floor.CURVATURES[i], floor.OPTIMA[i]

        def draw(mu=mu):
            h = floor.SHARP * rng.binomial(points, mu / floor.SHARP) / points
            return h, floor.NOISE * np.sqrt(h / points) * rng.normal(size=copies)

        adapted, product = w.copy(), np.ones(copies)
        for _ in range(inner):
            h, noise = draw()
            adapted, product = adapted - rate * (h * (adapted - c) - noise), product * (1 - rate * h)
        u[who, i] = (1 - beta) * u[who, i] + beta * adapted
        h, noise = draw()
        w = w - outer * product * (h * (u[who, i] - c) - noise)
    best, curvature = floor.meta_loss(rate, inner)
    excess = curvature / 2 * (w - best) ** 2
    return excess.mean(), excess.std() / math.sqrt(copies)


@pytest.mark.parametrize("settings", [(1, 1.0, 0.4, 1, 0.05), (1, 0.3, 0.4, 1, 0.05), (3, 0.5, 0.2, 2, 0.05)])
def test_excess_is_that_of_simulated_runs(settings):
    at = int(np.searchsorted(floor.AT, 300))
    mean, error = simulated(*settings, steps=int(floor.AT[at]))
    assert abs(floor.excess(*settings)[0][at] - mean) < 5 * error


def test_a_step_is_that_of_the_package():
    """One task, two support points and a query: the affine step that the moments are of."""
    apply, rate, beta = _line, 0.3, 0.4
    batch = tasks.TaskBatch(*(jnp.asarray(a).reshape(1, -1, 1) for a in ([2.0, 0.0], [1.0, 0.5], [2.0], [-1.0])))
    w, u = jnp.asarray(0.7), jnp.asarray([0.2])
    loss, gradient, new = memory.meta_gradient(
        apply, w, u, batch, InnerLoop(rate, 1, loss=_half_mean), memory.Memory(beta), outer_loss=_half_mean
    )
    h, slope = 2.0, (2.0 * (2 * 0.7 - 1.0)) / 2  # of the two points: mean square of x, mean gradient
    expected = (1 - beta) * 0.2 + beta * (0.7 - rate * slope)
    assert float(new[0]) == pytest.approx(expected, rel=1e-5)
    assert float(gradient) == pytest.approx(beta * (1 - rate * h) * 2 * (2 * expected + 1), rel=1e-5)
    assert float(loss) == pytest.approx((2 * expected + 1) ** 2 / 2, rel=1e-5)


def _line(w, x):
    return w * x


def _half_mean(outputs, labels):
    return ((outputs - labels) ** 2).mean() / 2


def test_floors():
    floors = {rate: floor.excess(1, 1.0, 0.4, 1, rate)[1] for rate in (0.01, 0.0001)}
    bias = floor.bias(1, 1.0, 0.4, 1)
    assert bias < floors[0.0001] < floors[0.01]
    assert floors[0.0001] == pytest.approx(bias, rel=1e-3)
    # of MOML it goes with beta squared, once beta is small; with infinitely many points there is none
    small = [floor.bias(1, beta, 0.4, 1) for beta in (0.002, 0.001)]
    assert small[0] / small[1] == pytest.approx(4, rel=0.02)
    many = [floor.bias(K, 1.0, 0.4, 1) for K in (500, 1000)]
    assert many[0] / many[1] == pytest.approx(4, rel=0.05)
    falling = [floor.excess(1, 10 * rate, 0.4, 1, rate)[1] for rate in (0.01, 0.001, 0.0001)]
    assert falling[0] > 10 * falling[1] > 100 * falling[2]


def test_product_moments_are_those_of_all_minibatches():
    mu, rate = 1.0, 0.3
    draws = np.array(np.meshgrid(*[[0, 1]] * 4)).reshape(4, -1)  # two steps of two points
    chance = (0.25**draws * 0.75 ** (1 - draws)).prod(0)
    h = 4.0 * draws.reshape(2, 2, -1).mean(1)
    product = (1 - rate * h).prod(0)
    noise = (rate**2 * floor.NOISE**2 * h / 2 * [(1 - rate * h[1]) ** 2, np.ones_like(h[1])]).sum(0)
    kept, left = floor.product_moments(mu, 2, rate, 2)
    np.testing.assert_allclose(kept, [(chance * product**p).sum() for p in range(5)])
    np.testing.assert_allclose(left, [(chance * noise * product**p).sum() for p in range(3)])


def test_beta_of_one_is_maml_and_a_setting_diverges():
    n = floor.numbers(**floor.DEMO.settings(beta=1.0))
    np.testing.assert_allclose(n.curves[0], n.curves[1])
    assert floor.excess(1, 1.0, 0.4, 1, 5.0)[1] == math.inf
    assert np.isfinite(n.curves).all()
    assert np.isfinite(n.by_points).all()


@pytest.mark.parametrize("setting", [{}, {"rate": 0.05, "inner": 20, "points": 30}, {"inner": 20}])
def test_a_floor_below_the_panel_is_marked(setting):
    """Of each number of points either the floor or a triangle at the lower edge is seen, never neither."""
    found, stage = floor.numbers(**floor.DEMO.settings(**setting)), floor._stage()
    floor._move(stage, found)
    lowest = floor._LIMITS[0]
    for i, name in enumerate(floor.LEARNERS):
        marked = stage[f"{name} by points, below"].get_xdata()
        seen = stage[f"{name} by points"].get_ydata() >= lowest
        assert len(marked) + seen.sum() == len(floor.POINTS)
        assert (len(stage[f"{name} below"].get_xdata()) == 1) == (found.biases[i] < lowest)
