"""The numbers of the demo of notebook 07 are those of the package."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from mlkernels.course.demos import _layer_masks_training as training
from mlkernels.course.demos import layer_masks as demo
from mlkernels.learners import layer_masks, maml

LAYERS = training.NETWORK.layers


def settings(mask, **values):
    """The demo's settings for a mask."""
    words = [demo.UPDATED if on else demo.FROZEN for on in mask]
    return demo.DEMO.settings(**dict(zip(LAYERS, words, strict=True)), **values)


def adapted(mask, steps, x, y):
    """The parameters after an inner loop that adapts these layers alone, by another way than the demo's."""
    names = layer_masks.layers_of(training.NETWORK, mask)
    if not names:
        return training.trained()
    inner = maml.InnerLoop(training.INNER.rate, steps, loss=training.INNER.loss, adapt=names)
    return maml.adapt(training.NETWORK.apply, training.trained(), x, y, inner)


@pytest.mark.parametrize("mask", [(0, 0, 0, 0), (0, 0, 0, 1), (1, 0, 0, 0), (0, 1, 1, 0), (1, 1, 1, 1)])
def test_the_curve_and_the_error_of_a_mask_are_those_of_an_inner_loop_over_its_layers(mask):
    n = demo.numbers(**settings(mask, steps=3))
    assert demo.MASKS[n.chosen].astype(int).tolist() == list(mask)
    apply = training.NETWORK.apply
    theta = adapted(np.array(mask), 3, *training.support())
    np.testing.assert_allclose(n.after, apply(theta, training.GRID)[:, 0], rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(n.before, apply(training.trained(), training.GRID)[:, 0], rtol=1e-4, atol=1e-4)
    batch = training.problem().batch

    def error(task):
        theta = adapted(np.array(mask), 3, task.support_x, task.support_y)
        return ((apply(theta, task.query_x) - task.query_y) ** 2).mean()

    assert n.errors[n.chosen] == pytest.approx(float(jax.jit(jax.vmap(error))(batch).mean()), rel=1e-2)


def test_costs_are_shares_of_what_all_layers_cost_and_keeping_features_saves_only_below_the_deepest():
    anew, kept = (demo.numbers(**settings((0, 1, 0, 1), steps=5, features=how)) for how in (demo.ANEW, demo.KEPT))
    counts = training.costs()
    for n, keep in ((anew, False), (kept, True)):
        costs = counts.of(demo.MASKS, 5, keep=keep)
        np.testing.assert_allclose(n.costs, costs / costs[-1])
        assert n.saving == pytest.approx(costs[-1] / costs[n.chosen])
    deepest = layer_masks.deepest(demo.MASKS)
    assert (kept.costs[1:] <= anew.costs[1:] + 1e-12).all()
    np.testing.assert_allclose(kept.costs[deepest == 0], anew.costs[deepest == 0])
    assert (anew.costs[1:] >= 1 / 3).all()  # a forward pass is a third, at least


def test_on_sinusoids_the_first_layer_adapts_and_the_head_does_not():
    errors = training.errors()
    first, head, everything, nothing = errors[[0b1000, 0b0001, 0b1111, 0], 5]
    assert first < 1.3 * everything
    assert everything < 0.5 * nothing
    assert head > 0.8 * nothing
    np.testing.assert_allclose(errors[0], errors[0, 0])
    np.testing.assert_allclose(errors[:, 0], errors[0, 0])


def test_no_steps_cost_nothing_and_change_nothing():
    n = demo.numbers(**settings((1, 1, 1, 1), steps=0))
    np.testing.assert_array_equal(n.before, n.after)
    assert not n.costs.any()
    assert n.saving == 0
    assert "costs nothing" in demo.DEMO.readout(n)


def test_the_readout_says_whether_a_mask_is_on_the_front():
    for mask in demo.MASKS:
        n = demo.numbers(**settings(mask, steps=5))
        beaten = (
            (n.costs <= n.costs[n.chosen])
            & (n.errors <= n.errors[n.chosen])
            & ((n.costs < n.costs[n.chosen]) | (n.errors < n.errors[n.chosen]))
        ).any()
        assert ("off the front" in demo.DEMO.readout(n)) == beaten
