"""The demo of the step size: its curves against the package's closed forms, its dots against autodiff."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from mlkernels.course.demos import step_size as demo
from mlkernels.learners.bilevel.step_size import backpropagated, objective, slope

DEMO = demo.DEMO


@pytest.mark.parametrize("values", [{"steps": 10}, {}, {"precision": "float64", "of": "final", "condition": 2.0}])
def test_curves_are_closed_forms_and_dots_are_autodiff(values):
    settings = DEMO.settings(**values)
    n, (H, start, quadratic) = DEMO.compute(**settings), demo.problem(settings["condition"])
    count, of = settings["steps"], settings["of"]
    rates = np.append(demo.CURVE, settings["rate"])
    for found, function in ((n.value, objective), (n.slope, slope)):
        np.testing.assert_allclose(found, function(quadratic, rates * quadratic.stable_below, count, of=of), rtol=1e-9)
    dtype = getattr(jnp, settings["precision"])
    kinds = {"found": set(n.found[0]), "zero": set(n.zeros), "lost": set(n.lost)}
    for rate in demo.CURVE[::12]:
        value, derivative = backpropagated(H, start, rate * quadratic.stable_below, count, of=of, dtype=dtype)
        kind = "lost" if not np.isfinite(derivative) else "zero" if derivative == 0 else "found"
        assert rate in kinds[kind]
        if kind == "found":
            at = list(n.found[0]).index(rate)
            assert n.found[1:, at] == pytest.approx([float(value), float(derivative)], rel=1e-4)


def test_the_problem_is_what_it_says():
    for condition in demo.CONDITIONS:
        H, start, quadratic = demo.problem(condition)
        np.testing.assert_allclose(np.linalg.eigvalsh(H)[[0, -1]], [1 / condition, 1], rtol=1e-9)
        assert np.linalg.norm(start) == pytest.approx(1)
        assert quadratic.stable_below == pytest.approx(2)


def test_autodiff_fails_above_two_over_l_after_many_steps_and_where_it_does_not_it_is_right():
    few, many, double = (
        DEMO.compute(**DEMO.settings(**values)) for values in ({"steps": 10}, {}, {"precision": "float64"})
    )
    for n in (few, double):
        assert not len(n.zeros)
        assert not len(n.lost)
        np.testing.assert_allclose(n.found[2], n.slope, rtol=1e-3, atol=1e-4)
    assert len(many.zeros)
    assert len(many.lost)
    assert min(many.zeros.min(), many.lost.min()) > 1
    assert many.here == "nan"
    assert "not finite at" in DEMO.readout(many)


def test_the_best_rate_is_a_little_below_two_over_l():
    """After many steps; after a single one of a badly conditioned problem it need not be."""
    for condition in demo.CONDITIONS:
        assert 0.6 < DEMO.compute(**DEMO.settings(condition=condition, steps=320)).best < 1.1
