"""The demo of notebook 10: its descents and its surface are the package's, and it shows what it is there for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mlkernels.course.demos import few_iterations as demo
from mlkernels.learners.few_iterations import FewIterations, descend, head_loss

SETTINGS = (
    {},
    {"start": "means", "count": 10, "entropy": 30.0},
    {"classes": "close", "slope": 0.0, "ridge": 3.0, "count": 20},
    {"classes": "close", "slope": 0.5, "ridge": 0.0, "entropy": 300.0, "count": 5},
)


def numbers(**values):
    return demo.numbers(**demo.DEMO.settings(**values))


def package(**values):
    """The package's settings, and what it is given."""
    settings = demo.DEMO.settings(**values)
    classes = settings.pop("classes")
    return demo.settings(**settings), demo.problem(classes)


def scale(n, loss):
    """The lowest loss and the unit of what is shown: from two points of the surface, where the loss is known."""
    one, two = ((demo.plane()[0][i], demo.plane()[1][j]) for i, j in ((0, 0), (40, 9)))
    one, two = loss(np.array(one)), loss(np.array(two))
    unit = (one - two) / (n.surface[0, 0] - n.surface[9, 40])
    return one - unit * n.surface[0, 0], unit


def loss_of(values):
    inner, (x, y, queries) = package(**values)
    return lambda w: float(head_loss(np.stack([w, -w], -1), x, y, inner, queries=queries))


@pytest.mark.parametrize("values", SETTINGS)
def test_both_descents_are_those_of_the_package(values):
    n, (inner, (x, y, queries)) = numbers(**values), package(**values)
    lowest, unit = scale(n, loss_of(values))
    if "entropy" not in values:  # the demo's stands for none
        inner = replace(inner, entropy=None)
    for kind, length in enumerate(("optimal", "fixed")):
        found = descend(x, y, replace(inner, length=length), queries=queries)
        np.testing.assert_allclose(found.weights[..., 0], -found.weights[..., 1], atol=1e-9)  # a plane is all of it
        np.testing.assert_allclose(n.paths[kind, : n.count + 1], found.weights[..., 0], atol=1e-7)
        np.testing.assert_allclose(n.losses[kind, : n.count + 1], (found.losses - lowest) / unit, rtol=1e-5, atol=1e-8)
        said = np.asarray(queries @ found.weights[-1]).argmax(-1)
        assert n.rights[kind] == (said == np.repeat([0, 1], demo.QUERIES)).mean()


@pytest.mark.parametrize("values", SETTINGS)
def test_losses_are_shown_above_the_lowest_that_was_found_over_that_at_zero(values):
    n, loss = numbers(**values), loss_of(values)
    lowest, unit = scale(n, loss)
    assert loss(np.zeros(2)) == pytest.approx(lowest + unit, rel=1e-9)
    assert min(map(loss, [*n.paths.reshape(-1, 2), n.end])) >= lowest - 1e-9 * unit
    assert min(loss(n.end) - lowest, unit * n.surface.min()) < 1e-3 * unit
    assert n.surface.min() >= 0


def test_from_zero_the_first_step_is_the_same_and_then_one_is_worth_many():
    n = numbers(count=20)
    assert abs(n.losses[0, 1] - n.losses[1, 1]) < 0.05
    assert n.losses[0, 5] < n.losses[1, 10]
    assert n.losses[0, 10] < 0.05 * n.losses[1, 10]
    assert numbers(start="means").losses[0, 0] < n.losses[0, 5]


def test_the_entropy_helps_where_classes_are_apart_and_from_zero_it_chooses_the_many():
    for classes, least, most in (("apart", 0.1, 1.0), ("close", -1.0, 0.0)):
        plain, bet = (numbers(classes=classes, start="means", count=10, entropy=entropy) for entropy in (0.0, 300.0))
        assert least <= bet.rights[0] - plain.rights[0] <= most
    stuck = numbers(entropy=300.0, count=20)
    queries = demo.problem("apart")[2]
    assert (queries @ stuck.end < 0).mean() > 0.9


def test_a_loss_below_the_axis_is_said_to_be_so():
    n = numbers(start="means", count=20)
    assert "optimal length below 1e-06" in demo.DEMO.readout(n)
    assert "after 1 step:" in demo.DEMO.readout(numbers(count=1))


def test_each_control_is_the_setting_that_it_is_called():
    found = demo.settings("means", 3, 0.3, 0.5, 30.0)
    assert found == FewIterations(3, slopes=(0.5, 0.5), ridge=0.3, entropy=30.0, start="means")
    assert 0 < demo.settings("zero", 3, 0.3, 0.5, 0.0).entropy < 1e-9
