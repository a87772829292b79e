"""Masks of layers: against inner loops that adapt those layers, against compiled programs, against brute force."""

from __future__ import annotations

from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from _refused import assert_refused
from hypothesis import given, settings
from hypothesis import strategies as st

from mlkernels.errors import InputError
from mlkernels.inner_loop.descent import gradient_step
from mlkernels.inner_loop.losses import loss_of, support_loss
from mlkernels.inner_loop.parts import joined, split
from mlkernels.learners import cost, layer_masks, maml
from mlkernels.learners.maml import InnerLoop
from mlkernels.networks import MLP, Conv4
from mlkernels.tasks import TaskBatch, sinusoid, teacher_student

NETWORK = MLP(6, activation="tanh")
BATCH = sinusoid(tasks=2, support=4, queries=5, key=jax.random.key(0), dtype=float)
MASKS = layer_masks.all_masks(3)
INNER = InnerLoop(0.05, 4, "mean_squares", l2=0.02)


@pytest.fixture(scope="module")
def params():
    return NETWORK.init(jax.random.key(1), (1,))


@pytest.fixture(scope="module")
def found(params):
    return np.asarray(layer_masks.scores(NETWORK, params, BATCH, INNER, MASKS, score="mean_squares"))


def classes(seed, *, tasks=3, support=6, queries=8, outputs=3):
    """Labels of one class each, by the nearest of three directions of the plane."""
    x = jax.random.normal(jax.random.key(seed), (tasks, support + queries, 2))
    y = jax.nn.one_hot((x @ jnp.array([[1.0, -0.5, -0.5], [0.0, 0.9, -0.9]])).argmax(-1), outputs, dtype=x.dtype)
    return TaskBatch(x[:, :support], y[:, :support], x[:, support:], y[:, support:])


# --- masks ------------------------------------------------------------------------------------------------------------


def test_all_masks_are_there_once_in_the_order_of_their_depth():
    for layers in (1, 2, 5):
        masks = layer_masks.all_masks(layers)
        assert masks.shape == (2**layers, layers)
        assert {tuple(mask) for mask in masks.tolist()} == set(product([False, True], repeat=layers))
        depth = layer_masks.deepest(masks)
        assert sorted(depth, reverse=True) == depth.tolist()
        assert [np.sum(depth == each) for each in range(layers + 1)] == [
            2 ** (layers - 1 - i) for i in range(layers)
        ] + [1]
        assert not masks[0].any()
        assert layer_masks.deepest(masks[1]) == layers - 1
        assert masks[-1].all()
    sequences = layer_masks.all_masks(2, steps=2)
    assert len(np.unique(sequences.reshape(16, 4), axis=0)) == 16
    assert layer_masks.deepest(sequences).shape == (16, 2)


def test_masks_have_names():
    names = [layer_masks.layers_of(NETWORK, mask) for mask in MASKS]
    assert names[0] == ()
    assert names[1] == ("head",)
    assert names[5] == ("layer1", "head")
    assert names[7] == NETWORK.layers


# --- scores -----------------------------------------------------------------------------------------------------------


def test_each_mask_is_the_inner_loop_that_adapts_its_layers(params, found):
    assert found.shape == (8, 5, 2)
    for mask, scores in zip(MASKS, found, strict=True):
        names = layer_masks.layers_of(NETWORK, mask)
        for task in range(2):
            x, y, *query = (leaf[task] for leaf in jax.tree.leaves(BATCH))
            for steps in (0, 1, 4):
                inner = InnerLoop(0.05, 4, "mean_squares", l2=0.02, adapt=names or "all")
                theta = maml.adapt(NETWORK.apply, params, x, y, inner, steps=steps if names else 0)
                expected = loss_of("mean_squares", NETWORK.apply(theta, query[0]), query[1])
                np.testing.assert_allclose(scores[steps, task], expected, rtol=1e-12)


def test_all_layers_are_maml_and_the_head_alone_is_anil(params, found):
    for mask, adapt in ((0b111, "all"), (0b001, ("head",))):
        inner = InnerLoop(0.05, 4, "mean_squares", l2=0.02, adapt=adapt)
        expected = maml.meta_loss(NETWORK.apply, params, BATCH, inner, outer_loss="mean_squares", reduce="mean")
        np.testing.assert_allclose(found[mask, -1].mean(), expected, rtol=1e-12)
    np.testing.assert_allclose(found[0], np.broadcast_to(found[0, :1], found[0].shape), rtol=1e-12)


def test_a_mask_is_rates_of_zero(params, found):
    for bits in (0b010, 0b101):
        rates = {name: 0.05 * float(on) for name, on in zip(NETWORK.layers, MASKS[bits], strict=True)}
        # the L2 term of what does not move is a constant, whoever counts it
        inner = InnerLoop(rates, 4, "mean_squares", l2=0.02)
        expected = maml.meta_loss(NETWORK.apply, params, BATCH, inner, outer_loss="mean_squares", reduce="mean")
        np.testing.assert_allclose(found[bits, -1].mean(), expected, rtol=1e-12)
    rates = {"layer1": 0.1, "layer2": 0.02, "head": 0.05}
    own = layer_masks.scores(NETWORK, params, BATCH, INNER, MASKS[[5]], score="mean_squares", rates=rates)
    of_loop = layer_masks.scores(
        NETWORK, params, BATCH, InnerLoop(rates, 4, "mean_squares", l2=0.02), MASKS[[5]], score="mean_squares"
    )
    np.testing.assert_array_equal(own, of_loop)
    assert np.abs(np.asarray(own[0, -1]) - found[5, -1]).max() > 1e-4


def test_a_mask_may_change_from_step_to_step(params):
    rows = np.array([[0, 0, 1], [1, 0, 0], [0, 0, 0], [1, 1, 1]])
    scores = layer_masks.scores(NETWORK, params, BATCH, INNER, rows[None], score="mean_squares")
    for task in range(2):
        x, y, *query = (leaf[task] for leaf in jax.tree.leaves(BATCH))
        theta = params
        for step, row in enumerate(rows, start=1):
            names = layer_masks.layers_of(NETWORK, row)
            if names:
                one = InnerLoop(0.05, 1, "mean_squares", l2=0.02, adapt=names)
                theta = maml.adapt(NETWORK.apply, theta, x, y, one)
            expected = loss_of("mean_squares", NETWORK.apply(theta, query[0]), query[1])
            np.testing.assert_allclose(scores[0, step, task], expected, rtol=1e-12)


def test_one_program_for_all_masks(params):
    """Other masks, rates and parameters compile nothing."""
    from mlkernels.learners.layer_masks.scores import _scores

    def run(masks, rates=None):
        return layer_masks.scores(NETWORK, params, BATCH, INNER, masks, score="mean_squares", rates=rates)

    first = run(MASKS[1:3])
    compiled = _scores._cache_size()
    second = run(MASKS[5:7])
    run(MASKS[2:4], rates=0.01)
    assert _scores._cache_size() == compiled
    assert np.abs(np.asarray(first - second)).max() > 0


@pytest.mark.parametrize("sequential", [False, True])
def test_accuracy_by_hand(sequential):
    network, batch = MLP(5, 1, outputs=3), classes(0)
    params = network.init(jax.random.key(2), (2,))
    inner, masks = InnerLoop(0.5, 3, "cross_entropy"), layer_masks.all_masks(2)
    scores = layer_masks.scores(network, params, batch, inner, masks, sequential=sequential)
    assert scores.shape == (4, 4, 3)
    for i, names in ((1, ("head",)), (2, ("layer1",)), (3, "all")):
        for task in range(3):
            x, y, *query = (leaf[task] for leaf in jax.tree.leaves(batch))
            one = InnerLoop(0.5, 3, "cross_entropy", adapt=names)
            outputs = network.apply(maml.adapt(network.apply, params, x, y, one), query[0])
            right = np.mean(np.argmax(outputs, -1) == np.argmax(query[1], -1))
            np.testing.assert_allclose(scores[i, -1, task], right, rtol=1e-12)


def test_a_diverged_layer_is_right_about_nothing_and_a_frozen_one_stays():
    network, batch = MLP(5, 1, outputs=3), classes(0)
    params = network.init(jax.random.key(2), (2,))
    params["layer1"]["w"] = params["layer1"]["w"].at[0, 0].set(jnp.nan)
    inner, masks = InnerLoop(0.5, 3), layer_masks.all_masks(2)
    assert np.asarray(layer_masks.scores(network, params, batch, inner, masks)).max() == 0
    # the gradient by the first layer overflows; a head that has nothing to do with it learns on
    good = network.init(jax.random.key(2), (2,))
    huge = {"layer1": 1e300, "head": 0.01}
    scores = layer_masks.scores(network, good, batch, inner, masks, rates=huge, score="mean_squares")
    assert np.isfinite(scores[0b01]).all()
    assert not np.isfinite(scores[0b11]).all()


# --- costs ------------------------------------------------------------------------------------------------------------


def unrolled_flops(network, params, batch, inner, rows):
    """Of the whole adaptation, one mask a step, as one program."""

    def run(params, task):
        for row in rows:
            names = layer_masks.layers_of(network, row)
            if names:
                w, phi = split(params, names)
                loss = support_loss(network.apply, inner.loss, inner.l2, task.support_x, task.support_y)
                params = joined(gradient_step(w, 0.1, jax.grad(loss)(w, phi)), phi)
        moved = np.any(rows, axis=0)
        return {name: params[name] for name, on in zip(network.layers, moved, strict=True) if on}

    return cost.program_flops(run, params, cost.one_task(batch)) * batch.tasks


def shapes(network, *input_shape):
    return jax.eval_shape(lambda key: network.init(key, input_shape, jnp.float32), jax.random.key(0))


WIDE = teacher_student(tasks=2, support=20, queries=20, key=jax.random.key(0), dtype=jnp.float32)
IMAGES = TaskBatch(*(jnp.full((1, 5, *shape), 0.2, jnp.float32) for shape in ((8, 8, 3), (5,), (8, 8, 3), (5,))))


@pytest.fixture(scope="module")
def costs():
    network = MLP(32)
    return layer_masks.layer_costs(network, shapes(network, 10), WIDE, InnerLoop(0.1, 1, "mean_squares", l2=0.01))


def test_the_parts_add_up_to_what_xla_counts_for_each_mask(costs):
    network, inner = MLP(32), InnerLoop(0.1, 1, "mean_squares", l2=0.01)
    quick = layer_masks.layer_costs(network, shapes(network, 10), WIDE, inner, compiled=False).of(MASKS)
    found = costs.of(MASKS)
    assert found[0] == quick[0] == 0
    for i, mask in enumerate(MASKS[1:], start=1):
        expected = unrolled_flops(network, shapes(network, 10), WIDE, inner, [mask])
        np.testing.assert_allclose(found[i], expected, rtol=1e-4)
        np.testing.assert_allclose(quick[i], expected, rtol=0.03)


@pytest.mark.parametrize("bits", [(1, 1, 1), (6, 6), (7, 7), (1, 6, 2), (4, 1, 7), (3, 0, 1)])
def test_features_that_stay_are_computed_once(costs, bits):
    """In what is compiled, too: under one mask for all steps, and under those that change."""
    network, inner, rows = MLP(32), InnerLoop(0.1, 1, "mean_squares", l2=0.01), MASKS[list(bits)]
    counted = unrolled_flops(network, shapes(network, 10), WIDE, inner, rows)
    np.testing.assert_allclose(costs.of(rows[None]), [counted], rtol=1e-3)
    np.testing.assert_allclose(costs.of(rows[None], keep=False), costs.of(rows).sum(), rtol=1e-12)
    if len(set(bits)) == 1:
        np.testing.assert_allclose(costs.of(rows[:1], steps=len(rows)), costs.of(rows[None]), rtol=1e-12)
    assert costs.of(rows[:1], steps=0) == [0.0]


def test_it_agrees_for_conv4():
    network, inner = Conv4(4, depth=1, outputs=5), InnerLoop(0.1, 1, "cross_entropy")
    params = shapes(network, 8, 8, 3)
    found, quick = (layer_masks.layer_costs(network, params, IMAGES, inner, compiled=how) for how in (True, False))
    for bits in (0b01, 0b10, 0b11):
        rows = layer_masks.all_masks(2)[[bits, bits]]
        counted = unrolled_flops(network, params, IMAGES, inner, rows)
        np.testing.assert_allclose(found.of(rows[None]), [counted], rtol=2e-3)
        np.testing.assert_allclose(quick.of(rows[None]), [counted], rtol=2e-2)


def test_they_are_the_formulas_products(costs):
    """With wide layers elementwise work is little; and three products a layer, the lowest adapted one two."""
    network = MLP(32)
    for mask, counted in zip(MASKS[1:], costs.of(MASKS[1:], steps=5), strict=True):
        inner = InnerLoop(0.1, 5, adapt=layer_masks.layers_of(network, mask))
        parts = cost.cost_formula(network, shapes(network, 10), WIDE, inner).flops_of
        ratio = counted / (parts["frozen layers"] + parts["gradients"])
        assert 1.0 <= ratio < 1.35, mask


def test_the_deeper_the_dearer_and_the_deepest_layer_sets_the_cost(costs):
    for steps in (1, 10):
        found = costs.of(MASKS, steps)
        # all layers above the deepest, or none: strictly dearer with depth
        above, alone = found[[0b001, 0b011, 0b111]], found[[0b001, 0b010, 0b100]]
        assert (np.diff(above) > 0).all()
        assert (np.diff(alone) > 0).all()
        # more layers cost more, whatever they are
        for one, other in product(range(8), repeat=2):
            if one != other and one & other == one:
                assert found[one] < found[other]
        by_depth = layer_masks.cost_by_depth(MASKS, found)
        np.testing.assert_array_equal(by_depth.low[:3], alone[::-1])
        np.testing.assert_array_equal(by_depth.high[:3], above[::-1])
        assert by_depth.low[3] == by_depth.high[3] == 0
        assert (by_depth.high[:3] < 1.5 * by_depth.low[:3]).all()
        assert by_depth.explained > 0.8
    # in a step of its own, without what was kept, the head takes less than half of all layers
    assert costs.of(MASKS[[1]], 10, keep=False) < 0.5 * costs.of(MASKS[[7]], 10, keep=False)
    assert costs.of(MASKS[[1]], 10) < 0.1 * costs.of(MASKS[[7]], 10)


def test_depth_explains_all_or_nothing():
    depth = layer_masks.deepest(MASKS)
    found = layer_masks.cost_by_depth(MASKS, 3.0 - depth)
    assert found.explained == 1.0
    np.testing.assert_array_equal(found.low, [3, 2, 1, 0])
    np.testing.assert_array_equal(found.high, [3, 2, 1, 0])
    head = layer_masks.cost_by_depth(MASKS[4:], MASKS[4:, 2].astype(float))  # all of one depth
    assert head.explained == 0.0
    assert np.isnan(head.low[1:]).all()


def test_each_mask_is_measured(params):
    masks = MASKS[[0b001, 0b111]]
    for sequential in (None, True):
        how = {"sequential": sequential, "repeats": 2}
        seconds = layer_masks.measured_seconds(NETWORK, params, BATCH, INNER, masks, **how)
        assert seconds.shape == (2,)
        assert (seconds > 0).all()
    rates = InnerLoop({"layer1": 0.1, "layer2": 0.1, "head": 0.0}, 1)
    assert layer_masks.measured_seconds(NETWORK, params, BATCH, rates, masks, repeats=1).shape == (2,)


# --- choices ----------------------------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4) | st.just(-np.inf)), min_size=1, max_size=12))
def test_the_front_is_what_no_other_beats(pairs):
    costs, scores = (np.array(part, float) for part in zip(*pairs, strict=True))

    def beaten(i):
        return any(c <= costs[i] and s >= scores[i] and (c, s) != (costs[i], scores[i]) for c, s in pairs)

    front = layer_masks.pareto_front(costs, scores)
    assert sorted(front) == [i for i in range(len(pairs)) if not beaten(i)]
    assert (np.diff(costs[front]) >= 0).all()
    assert (np.diff(scores[front]) >= 0).all() if len(front) > 1 and np.isfinite(scores[front]).all() else True
    best = layer_masks.fastest(costs, scores, drop=0.0)
    assert scores[best] == scores.max()
    assert costs[best] == costs[scores == scores.max()].min()
    assert (
        layer_masks.fastest(costs, scores, drop=100.0, reference=0.0) in range(len(pairs))
        if scores.max() >= 0
        else True
    )


def test_the_fastest_within_a_drop():
    costs, scores = [4.0, 1.0, 2.0, 2.0, 3.0], [0.90, 0.50, 0.85, 0.86, 0.91]
    assert [layer_masks.fastest(costs, scores, drop=drop) for drop in (0.0, 0.05, 0.5)] == [4, 3, 1]
    assert layer_masks.fastest(costs, scores, drop=0.04, reference=0.9) == 3
    assert layer_masks.fastest([1.0, 1.0, 1.0], [0.1, 0.2, 0.2], drop=1.0) == 1
    with pytest.raises(InputError, match=r"scores: expected one of at least 0\.98, got 0\.91 at best"):
        layer_masks.fastest(costs, scores, drop=0.02, reference=1.0)


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda p: layer_masks.all_masks(0), "layers: expected a whole number of at least 1"),
        (lambda p: layer_masks.all_masks(3, steps=0), "steps: expected a whole number of at least 1"),
        (lambda p: layer_masks.all_masks(3, steps=7), "all_masks: expected at most 20 layers times steps, got 21"),
        (lambda p: layer_masks.deepest([0, 2]), "masks: expected True and False"),
        (lambda p: layer_masks.layers_of(NETWORK, [True]), "masks: expected one entry for each of 3 layers"),
        (lambda p: layer_masks.scores(NETWORK.apply, p, BATCH, INNER, MASKS), "network: expected a network"),
        (lambda p: layer_masks.scores(NETWORK, p, BATCH, INNER, MASKS), "score: expected a loss for tasks of one"),
        (
            lambda p: layer_masks.scores(NETWORK, p, BATCH, INNER, MASKS, score="hinge"),
            "score: expected half_sum_squares or",
        ),
        (
            lambda p: layer_masks.scores(NETWORK, p, BATCH, INNER, MASKS[:, :2], score="mean_squares"),
            r"masks: expected one entry for each of 3 layers, on the last axis, got shape \[8, 2\]",
        ),
        (
            lambda p: layer_masks.scores(
                NETWORK, p, BATCH, InnerLoop(0.1, 1, adapt=("head",)), MASKS, score="mean_squares"
            ),
            r"inner: expected adapt=\"all\", got adapt=\('head',\)",
        ),
        (
            lambda p: layer_masks.scores(MLP(6, 3), p, BATCH, INNER, layer_masks.all_masks(4), score="mean_squares"),
            "params: expected a dictionary of the layers",
        ),
        (lambda p: layer_masks.layer_costs(NETWORK, p, BATCH, 3), "inner: expected an InnerLoop, got int"),
        (lambda p: layer_masks.measured_seconds(NETWORK, p, BATCH, INNER, MASKS), "masks: expected masks .* nothing"),
        (lambda p: layer_masks.cost_by_depth(MASKS, np.ones(7)), "costs: expected masks"),
        (lambda p: layer_masks.cost_by_depth(MASKS, np.ones(8)), "costs: expected finite numbers that differ, got the"),
        (lambda p: layer_masks.cost_by_depth(MASKS, np.full(8, np.nan)), "costs: .*infinities or NaN"),
        (lambda p: layer_masks.pareto_front([1.0], [1.0, 2.0]), "costs and scores: expected two rows of the same"),
        (lambda p: layer_masks.pareto_front([1.0, 1.0], [1.0, np.nan]), "scores: expected numbers, got NaN at 1; give"),
        (lambda p: layer_masks.fastest([1.0], [1.0], drop=-1.0), "drop: expected a finite number of at least 0"),
    ],
)
def test_bad_input_is_named(params, call, said):
    with pytest.raises(InputError, match=said):
        call(params)


@pytest.mark.parametrize("masks", [None, "101", [[1, 0], [1]], [[None, 1, 0]], [[0.5, 1.0, 0.0]], 1, [[2, 0, 1]]])
def test_what_are_no_masks_is_refused_in_one_line(masks):
    for call in (lambda: layer_masks.deepest(masks), lambda: layer_masks.layers_of(NETWORK, masks)):
        assert_refused(call, "masks: expected")


def test_networks_and_parameters_that_are_none_are_refused_in_one_line(params):
    rest = BATCH, InnerLoop(0.05, 1), MASKS
    for network in (None, MLP, NETWORK.apply):
        assert_refused(
            lambda network=network: layer_masks.scores(network, params, *rest), "network: expected a network"
        )
    words = {name: {"w": "a"} for name in NETWORK.layers}
    assert_refused(lambda: layer_masks.scores(NETWORK, words, *rest, score="mean_squares"), "params: expected a pytree")
    lists = jax.tree.map(lambda leaf: leaf.tolist(), params)
    assert_refused(
        lambda: layer_masks.layer_costs(NETWORK, lists, *rest[:2], compiled=False), "params: expected arrays"
    )
    assert_refused(
        lambda: layer_masks.layer_costs(NETWORK, params, *rest[:2], compiled="no"), "compiled: expected True"
    )


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: layer_masks.LayerCosts(np.ones(3), np.ones(2), np.ones(3)), "backward: expected an array [L] with L"),
        (lambda: layer_masks.LayerCosts(None, np.ones(2), np.ones(3)), "forward: expected an array [L] of real"),
        (lambda: layer_masks.LayerCosts(*np.ones((3, 3))).of(MASKS, keep="no"), "keep: expected True or False"),
        (lambda: layer_masks.cost_by_depth(MASKS, None), "costs: expected an array of real numbers"),
        (lambda: layer_masks.pareto_front(["a"], [1.0]), "costs: expected an array of real numbers"),
        (lambda: layer_masks.pareto_front([1.0], [1j]), "scores: expected an array of real numbers"),
        (lambda: layer_masks.fastest([1.0], [1.0], drop=0.1, reference="best"), "reference: expected a number"),
        (lambda: layer_masks.fastest([1.0], [1.0], drop=0.1, reference=np.nan), "reference: expected a number"),
    ],
)
def test_costs_that_are_none_are_refused_in_one_line(make, said):
    assert_refused(make, said)
