"""The learner: gradients against finite differences and brute force, methods against definitions, the outer loop."""

from __future__ import annotations

import cmath
import math
import os
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mlkernels import datasets, kernels
from mlkernels.errors import InputError
from mlkernels.inner_loop.losses import loss_of
from mlkernels.learners import maml, meta_gradient, problem
from mlkernels.learners.maml import InnerLoop
from mlkernels.learners.outer_loop import checkpoint
from mlkernels.learners.outer_loop.divergence import inner_limit
from mlkernels.networks import MLP, Conv4
from mlkernels.tasks import TaskBatch

LOSSES = maml.LOSSES
ADAPT = {"MAML": "all", "ANIL": ("head",)}


def apply(params, x):
    """Smooth, so that finite differences are exact to many digits; no exponentials, which take long to compile."""
    z = x @ params["body"]["w"] + params["body"]["b"][None]
    h = 2 * z / (1 + z * z)
    return h @ params["head"]["w"] + params["head"]["b"][None]


def draw_params(seed=0, inputs=2, width=5, outputs=3):
    random = np.random.default_rng(seed)
    return {
        "body": {"w": jnp.asarray(random.normal(size=(inputs, width))), "b": jnp.asarray(random.normal(size=width))},
        "head": {
            "w": jnp.asarray(random.normal(size=(width, outputs))) / 2,
            "b": jnp.asarray(random.normal(size=outputs)),
        },
    }


def draw_batch(key, B=3, m=4, n=5, outputs=3):
    """Labels that are distributions, so that all losses take them."""
    numbers = jax.random.uniform(key, (B, m + n, 2 + outputs), minval=-2, maxval=2)  # one draw: quick to compile
    x, y = numbers[..., :2], numbers[..., 2:] ** 2
    y = y / y.sum(-1, keepdims=True)
    return TaskBatch(x[:, :m], y[:, :m], x[:, m:], y[:, m:])


PARAMS = draw_params()
BATCH = draw_batch(jax.random.key(5))


def rates_of(adapt, scale=1.0):
    return {"head": jnp.asarray(0.3 * scale)} | ({"body": jnp.asarray(0.2 * scale)} if adapt == "all" else {})


def close(a, b, rtol=1e-10):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=rtol), a, b)


def same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x, y), a, b)


# --- by hand ----------------------------------------------------------------------------------------------------------


def loss_by_hand(name, f, y):
    if name == "half_sum_squares":
        return ((f - y) ** 2).sum() / 2
    if name == "mean_squares":
        return ((f - y) ** 2).mean()
    return -(y * (f - jax.scipy.special.logsumexp(f, axis=-1, keepdims=True))).sum(-1).mean()


def adapt_by_hand(params, rates, x, y, inner):
    layers = list(params) if inner.adapt == "all" else inner.adapt
    for _ in range(inner.steps):
        gradient = jax.grad(
            lambda p: (
                loss_by_hand(inner.loss, apply(p, x), y)
                + inner.l2 / 2 * sum((leaf**2).sum() for layer in layers for leaf in jax.tree.leaves(p[layer]))
            )
        )(params)
        if inner.first_order:
            gradient = jax.lax.stop_gradient(gradient)
        moved = {
            name: jax.tree.map(lambda p, g, r=rates[name]: p - r * g, params[name], gradient[name]) for name in layers
        }
        params = {**params, **moved}
    return params


def meta_gradient_by_hand(params, rates, batch, inner, outer_loss):
    """Loss and gradient by parameters and rates."""

    @jax.jit
    @partial(jax.value_and_grad, argnums=(0, 1))
    def one(params, rates, task):
        theta = adapt_by_hand(params, rates, task.support_x[0], task.support_y[0], inner)
        return loss_by_hand(outer_loss, apply(theta, task.query_x[0]), task.query_y[0])

    return jax.tree.map(lambda *leaves: sum(leaves), *[one(params, rates, task) for task in batch])


# --- gradients --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("adapt", ADAPT.values(), ids=ADAPT)
@pytest.mark.parametrize("loss", LOSSES)
def test_meta_gradient_is_that_of_finite_differences_and_of_brute_force(loss, adapt):
    batch = BATCH[:2]
    inner, rates = InnerLoop(0.0, 2, loss, l2=0.1, adapt=adapt), rates_of(adapt, 0.2 if loss == LOSSES[0] else 1.0)
    how = {"outer_loss": loss, "sequential": adapt != "all"}
    value, gradient = maml.meta_gradient(apply, PARAMS, batch, inner, rates=rates, with_rates=True, **how)

    close((value, gradient), meta_gradient_by_hand(PARAMS, rates, batch, inner, loss))

    at = (PARAMS, rates)
    for seed in range(3):
        random = np.random.default_rng(seed)
        direction = jax.tree.map(lambda leaf: jnp.asarray(random.normal(size=leaf.shape)), at)  # noqa: B023

        def moved(h):
            params, rates = jax.tree.map(lambda leaf, step: leaf + h * step, at, direction)  # noqa: B023
            return float(maml.meta_loss(apply, params, batch, inner, rates=rates, **how))

        h = 1e-4  # central differences of fourth order
        measured = (8 * (moved(h) - moved(-h)) - (moved(2 * h) - moved(-2 * h))) / (12 * h)
        exact = sum(jax.tree.leaves(jax.tree.map(lambda g, d: float((g * d).sum()), gradient, direction)))
        assert abs(measured - exact) < 1e-6 * abs(exact)


def test_vmap_sequence_and_remat_agree():
    inner = InnerLoop(0.2, 3, l2=0.1)
    results = [
        maml.meta_gradient(apply, PARAMS, BATCH, replace(inner, remat=remat), sequential=sequential)
        for sequential in (False, True)
        for remat in (True, False)
    ]
    for result in results[1:]:
        close(result, results[0], 1e-12)
    mean = maml.meta_gradient(apply, PARAMS, BATCH, inner, sequential=True, reduce="mean")
    close(jax.tree.map(lambda leaf: 3 * leaf, mean), results[0], 1e-12)
    close(3 * maml.meta_loss(apply, PARAMS, BATCH, inner, reduce="mean"), results[0][0], 1e-12)


@pytest.mark.parametrize("loss", LOSSES)
def test_images_few_by_few_are_all_of_them(loss, monkeypatch):
    monkeypatch.setattr(meta_gradient, "_PIXELS", 32)
    network, key = Conv4(2, depth=1, outputs=3), jax.random.key(0)
    assert [meta_gradient.at_once(network.apply, points, (4, 4, 1)) for points in (6, 7)] == [2, 1]
    assert meta_gradient.at_once(apply, 6, (4, 4, 1)) == 6  # its points may know of each other
    x = jax.random.normal(key, (2, 9, 4, 4, 1))
    y = jnp.tile(jnp.eye(3), (2, 3, 1))
    given = network.apply, network.init(key, (4, 4, 1)), TaskBatch(x[:, :3], y[:, :3], x[:, 3:], y[:, 3:])
    few, together = (
        maml.meta_gradient(*given, InnerLoop(0.1, 2), outer_loss=loss, with_rates=True, sequential=sequential)
        for sequential in (True, False)
    )
    close(few, together, 1e-12)
    function = partial(loss_by_hand, loss)  # of which parts are not known to add up: all queries at once
    how = {"outer_loss": function, "with_rates": True, "sequential": True}
    close(maml.meta_gradient(*given, InnerLoop(0.1, 2), **how), together, 1e-12)


def test_meta_loss_is_differentiable_by_jax_and_is_the_sum_of_task_losses():
    inner = InnerLoop(0.2, 2)
    loss, gradient = maml.meta_gradient(apply, PARAMS, BATCH, inner)
    for sequential in (False, True):
        close(jax.grad(lambda p: maml.meta_loss(apply, p, BATCH, inner, sequential=sequential))(PARAMS), gradient)  # noqa: B023
    close(sum(maml.task_loss(apply, PARAMS, task, inner) for task in BATCH), loss)


@pytest.mark.parametrize("adapt", ADAPT.values(), ids=ADAPT)
def test_meta_outputs_are_those_of_the_adapted_parameters(adapt):
    inner = InnerLoop(0.1, 3, loss="mean_squares", adapt=adapt)
    found = maml.meta_outputs(apply, PARAMS, BATCH, inner)
    each = [apply(maml.adapt(apply, PARAMS, t.support_x[0], t.support_y[0], inner), t.query_x[0]) for t in BATCH]
    np.testing.assert_allclose(found, np.array(each), rtol=1e-12)
    half = maml.meta_loss(apply, PARAMS, BATCH, inner)
    np.testing.assert_allclose(0.5 * jnp.sum((found - BATCH.query_y) ** 2), half, rtol=1e-12)
    rates = maml.meta_outputs(apply, PARAMS, BATCH, inner, rates=0.0)
    np.testing.assert_allclose(rates, jax.vmap(partial(apply, PARAMS))(BATCH.query_x), rtol=1e-12)
    with pytest.raises(InputError, match="tasks: expected a TaskBatch, got list"):
        maml.meta_outputs(apply, PARAMS, [BATCH], inner)


def test_first_order_maml_is_its_definition():
    """The gradient of the query loss at the adapted parameters."""
    inner, rates = InnerLoop({"body": 0.2, "head": 0.3}, 3, first_order=True), rates_of("all")

    def one(task):
        theta = maml.adapt(apply, PARAMS, task.support_x, task.support_y, inner)
        return jax.grad(lambda p: loss_by_hand("half_sum_squares", apply(p, task.query_x), task.query_y))(theta)

    expected = jax.tree.map(lambda leaf: leaf.sum(0), jax.vmap(one)(BATCH))
    for sequential in (False, True):
        _, (gradient, by_rate) = maml.meta_gradient(
            apply, PARAMS, BATCH, inner, rates=rates, sequential=sequential, with_rates=True
        )
        close(gradient, expected, 1e-12)
    _, (_, expected_by_rate) = meta_gradient_by_hand(PARAMS, rates, BATCH, inner, "half_sum_squares")
    close(by_rate, expected_by_rate)
    _, second_order = maml.meta_gradient(apply, PARAMS, BATCH, replace(inner, first_order=False))
    assert float(jnp.abs(second_order["head"]["w"] - gradient["head"]["w"]).max()) > 1e-2


@pytest.mark.parametrize("adapt", ADAPT.values(), ids=ADAPT)
def test_reptile_is_its_definition(adapt):
    inner = InnerLoop(0.2, 3, adapt=adapt)
    adapted = [
        adapt_by_hand(PARAMS, dict.fromkeys(PARAMS, 0.2), BATCH.support_x[i], BATCH.support_y[i], inner)
        for i in range(3)
    ]
    expected = jax.tree.map(lambda p, *q: sum(p - a for a in q) / 3, PARAMS, *adapted)
    for sequential in (False, True):
        direction = maml.reptile_direction(apply, PARAMS, BATCH, inner, sequential=sequential)
        close(direction, expected, 1e-12)
    assert adapt == "all" or not np.any(direction["body"]["w"])


def test_without_inner_steps_it_is_supervised_learning():
    _, gradient = maml.meta_gradient(apply, PARAMS, BATCH, InnerLoop(0.2, 0))
    x, y = BATCH.query_x.reshape(-1, 2), BATCH.query_y.reshape(-1, 3)
    close(gradient, jax.grad(lambda p: loss_by_hand("half_sum_squares", apply(p, x), y))(PARAMS))
    direction = maml.reptile_direction(apply, PARAMS, BATCH, InnerLoop(0.2, 0))
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(direction))


def test_the_order_of_tasks_does_not_matter():
    inner = InnerLoop(0.2, 3)
    for sequential in (False, True):
        close(
            maml.meta_gradient(apply, PARAMS, BATCH[[2, 0, 1]], inner, sequential=sequential),
            maml.meta_gradient(apply, PARAMS, BATCH, inner, sequential=sequential),
            1e-12,
        )


# --- adaptation -------------------------------------------------------------------------------------------------------


def test_adapt_with_a_dynamic_number_of_steps_is_the_same_and_never_recompiles():
    count = 0

    def counted(params, x):
        nonlocal count
        count += 1
        return apply(params, x)

    x, y = BATCH.support_x[0], BATCH.support_y[0]
    maml.adapt(counted, PARAMS, x, y, InnerLoop(0.1, 1), steps=2)
    first = count
    for steps in (0, 3, 40):
        dynamic = maml.adapt(counted, PARAMS, x, y, InnerLoop(0.2, steps), steps=steps)
        assert count == first
        close(dynamic, maml.adapt(apply, PARAMS, x, y, InnerLoop(0.2, steps)), 1e-13)
    with pytest.raises(ValueError, match=r"[Rr]everse-mode"):
        jax.grad(lambda p: maml.adapt(apply, p, x, y, InnerLoop(0.1, 1), steps=jnp.asarray(3))["head"]["b"].sum())(
            PARAMS
        )


def test_adapt_is_gradient_descent_written_down():
    x, y = BATCH.support_x[0], BATCH.support_y[0]
    for layers in (PARAMS, {"head"}):
        expected = PARAMS
        for _ in range(4):
            gradient = jax.grad(lambda params: 0.5 * jnp.sum((apply(params, x) - y) ** 2))(expected)
            moved = jax.tree.map(lambda p, g: p - 0.2 * g, expected, gradient)
            expected = {name: (moved if name in layers else expected)[name] for name in expected}
        close(maml.adapt(apply, PARAMS, x, y, InnerLoop(0.2, 4, adapt=tuple(layers))), expected, 1e-13)


def absolute(outputs, labels):
    return jnp.sum(jnp.sqrt(1 + (outputs - labels) ** 2) - 1)


def test_a_loss_may_be_a_function():
    """The same numbers as the named one; any other as its own gradient descent."""
    x, y = BATCH.support_x[0], BATCH.support_y[0]
    for name in LOSSES:
        function = partial(loss_of, name)
        labels = jax.nn.softmax(y) if name == "cross_entropy" else y
        named = maml.adapt(apply, PARAMS, x, labels, InnerLoop(0.2, 3, loss=name))
        close(maml.adapt(apply, PARAMS, x, labels, InnerLoop(0.2, 3, loss=function)), named, 1e-13)
    expected = PARAMS
    for _ in range(3):
        gradient = jax.grad(lambda params: absolute(apply(params, x), y))(expected)
        expected = jax.tree.map(lambda p, g: p - 0.2 * g, expected, gradient)
    close(maml.adapt(apply, PARAMS, x, y, InnerLoop(0.2, 3, loss=absolute)), expected, 1e-13)
    assert InnerLoop(0.2, 3, loss=absolute) == InnerLoop(0.2, 3, loss=absolute)


@pytest.mark.parametrize("sequential", [False, True])
@pytest.mark.parametrize("loss", LOSSES)
def test_a_function_gives_the_meta_gradient_of_the_loss_that_it_is(loss, sequential):
    function, how = partial(loss_by_hand, loss), {"sequential": sequential, "with_rates": True}
    named = maml.meta_gradient(apply, PARAMS, BATCH, InnerLoop(0.1, 2, loss), outer_loss=loss, **how)
    found = maml.meta_gradient(apply, PARAMS, BATCH, InnerLoop(0.1, 2, function), outer_loss=function, **how)
    close(found, named, 1e-12)
    close(maml.meta_loss(apply, PARAMS, BATCH, InnerLoop(0.1, 2, function), outer_loss=function), named[0], 1e-12)
    each = [maml.task_loss(apply, PARAMS, task, InnerLoop(0.1, 2, function), outer_loss=function) for task in BATCH]
    close(sum(each), named[0], 1e-12)


class Unhashable:
    __hash__ = None

    def __call__(self, outputs, labels):
        return absolute(outputs, labels)


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        ("absolute", "mean_squares or cross_entropy, got 'absolute'; name one of them, or give a function"),
        (lambda outputs, labels: outputs - labels, "a function that gives a scalar"),
        (Unhashable(), "a loss that can be hashed"),
    ],
)
def test_what_is_no_loss_is_refused(loss, said):
    with pytest.raises(InputError, match=said):
        maml.adapt(apply, PARAMS, BATCH.support_x[0], BATCH.support_y[0], InnerLoop(0.2, 1, loss=loss))


def test_any_pytree_of_parameters_and_a_rate_for_each_parameter():
    x, y = BATCH.support_x[0], BATCH.support_y[0]
    leaves, form = jax.tree.flatten(PARAMS)
    flat = lambda leaves, x: apply(jax.tree.unflatten(form, leaves), x)  # noqa: E731
    expected = maml.adapt(apply, PARAMS, x, y, InnerLoop(0.2, 2))
    close(maml.adapt(flat, leaves, x, y, InnerLoop(0.2, 2)), jax.tree.leaves(expected), 1e-13)
    elementwise = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.2), PARAMS)
    close(maml.adapt(apply, PARAMS, x, y, InnerLoop(0.0, 2), rates=elementwise), expected, 1e-13)


def test_types_of_the_parameters_are_kept():
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), PARAMS)
    batch = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), BATCH)
    result = maml.fit(apply, params, batch, InnerLoop(0.1, 2), optax.adam(1e-2), steps=2, learn_rates=True)
    assert {leaf.dtype for leaf in jax.tree.leaves((result.params, result.rates))} == {jnp.dtype("float32")}


def test_small_networks_take_tasks_at_once_large_ones_in_sequence():
    big = {"w": jnp.zeros((500, 500))}
    assert not problem.in_sequence(PARAMS)
    assert problem.in_sequence(big) == (jax.default_backend() == "cpu")


# --- bad settings -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"steps": -1}, "steps: expected a whole number of at least 0, got -1"),
        ({"steps": 1.5}, "steps: expected a whole number"),
        ({"rate": -0.1}, "rate: expected a finite number of at least 0"),
        ({"rate": float("inf")}, "rate: expected a finite"),
        ({"rate": {"head": float("nan")}}, "rate: expected a finite"),
        ({"l2": -1e-3}, "l2: expected a finite number of at least 0"),
        ({"loss": "hinge"}, "loss: expected half_sum_squares or mean_squares or cross_entropy, got 'hinge'"),
        ({"adapt": ()}, "adapt: expected"),
        ({"adapt": ("tail",)}, r"adapt: expected layers of the network, got 'tail' beside \['body', 'head'\]"),
        ({"rate": {"tail": 0.1}}, r"rates: expected one for each adapted layer, \['body', 'head'\], got \['tail'\]"),
    ],
)
def test_bad_settings_are_named(settings, said):
    with pytest.raises(InputError, match=said):
        maml.meta_gradient(apply, PARAMS, BATCH, InnerLoop(**({"rate": 0.1, "steps": 1} | settings)))


def test_bad_labels_are_named():
    centred = replace(BATCH, support_y=BATCH.support_y - 1 / 3)
    with pytest.raises(InputError, match=r"support_y: expected .* distributions .*one_hot=.plain"):
        maml.meta_loss(apply, PARAMS, centred, InnerLoop(0.1, 1, "cross_entropy"))
    with pytest.raises(InputError, match="query_y: expected rows that are distributions"):
        maml.meta_loss(
            apply, PARAMS, replace(BATCH, query_y=BATCH.query_y * 2), InnerLoop(0.1, 1), outer_loss=LOSSES[2]
        )
    wide = replace(BATCH, support_y=BATCH.support_y[..., :1], query_y=BATCH.query_y[..., :1])
    with pytest.raises(InputError, match=r"labels: expected the shape of the network's outputs \[4, 3\], got \[4, 1\]"):
        maml.meta_gradient(apply, PARAMS, wide, InnerLoop(0.1, 1))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"steps": -1}, "steps: expected"),
        ({"method": "sgd"}, "method: expected maml"),
        ({"outer_loss": "hinge"}, "outer_loss: expected"),
        ({"reduce": "max"}, "reduce: expected"),
        ({"on_divergence": "ignore"}, "on_divergence: expected"),
        ({"tasks": lambda key: BATCH}, "key: expected a JAX key"),
        ({"tasks": [BATCH]}, "tasks: expected a TaskBatch"),
        ({"tasks": replace(BATCH, query_y=BATCH.query_y * jnp.nan)}, "tasks: expected finite"),
        ({"params": jax.tree.map(lambda leaf: leaf * jnp.nan, PARAMS)}, "params: expected finite"),
        ({"optimizer": 0.1}, "optimizer: expected an optax optimiser"),
        ({"method": "reptile", "learn_rates": True}, "learn_rates: expected False with Reptile"),
        ({"sampler": "gpu", "tasks": lambda key: BATCH, "key": jax.random.key(0)}, "sampler: expected"),
    ],
)
def test_fit_refuses_bad_settings(settings, said):
    given = {"params": PARAMS, "tasks": BATCH, "inner": InnerLoop(0.1, 1), "optimizer": optax.sgd(0.1), "steps": 1}
    with pytest.raises(InputError, match=said):
        maml.fit(apply, **(given | settings))


# --- the outer loop ---------------------------------------------------------------------------------------------------

INNER = InnerLoop(0.05, 2)
SGD = optax.sgd(1e-3)
ADAM = optax.adam(1e-2)


def test_fit_is_a_loop_of_meta_gradients():
    params, rates, losses = PARAMS, maml.per_layer(PARAMS, INNER), []
    for _ in range(5):
        loss, by = maml.meta_gradient(apply, params, BATCH, INNER, rates=rates, with_rates=True)
        params, rates = jax.tree.map(lambda leaf, g: leaf - 1e-3 * g, (params, rates), by)
        losses.append(loss)
    told = []
    result = maml.fit(
        apply, PARAMS, BATCH, INNER, SGD, steps=5, learn_rates=True, chunk=2, record_every=2,
        callback=lambda *told_: told.append(told_),
    )  # fmt: skip
    close((result.params, result.rates), (params, rates))
    close(result.losses, np.array(losses[::2]))
    assert [step for step, _, _ in told] == [2, 4, 5]
    close([loss for _, _, loss in told], [losses[1], losses[3], losses[4]])
    assert (result.steps_done, result.diverged, result.stopped) == (5, None, False)
    nothing = maml.fit(apply, PARAMS, BATCH, INNER, SGD, steps=0)
    same(nothing.params, PARAMS)
    assert nothing.losses.shape == (0,)


@pytest.mark.parametrize("method", ["fomaml", "anil", "reptile"])
def test_methods_of_fit(method):
    if method == "reptile":
        expected = maml.reptile_direction(apply, PARAMS, BATCH, INNER)
    else:
        changes = {"fomaml": {"first_order": True}, "anil": {"adapt": ("head",)}}[method]
        _, expected = maml.meta_gradient(apply, PARAMS, BATCH, replace(INNER, **changes))
    result = maml.fit(apply, PARAMS, BATCH, INNER, SGD, steps=1, method=method)
    close(jax.tree.map(lambda p, q: (p - q) / 1e-3, PARAMS, result.params), expected)
    if method == "reptile":
        close(result.losses[0], maml.meta_loss(apply, PARAMS, BATCH, INNER))


def test_other_steps_rates_and_chunks_do_not_compile_anew():
    count = 0

    def counted(params, x):
        nonlocal count
        count += 1
        return apply(params, x)

    optimizer = optax.inject_hyperparams(optax.sgd)(learning_rate=0.01)
    maml.fit(counted, PARAMS, BATCH, INNER, optimizer, steps=3)
    first = count
    maml.fit(counted, PARAMS, BATCH, INNER, optimizer, steps=57)
    maml.fit(counted, PARAMS, BATCH, replace(INNER, rate=0.1), optimizer, steps=12, chunk=5)
    state = optimizer.init(PARAMS)
    state.hyperparams["learning_rate"] = jnp.asarray(0.1)
    other = maml.fit(counted, PARAMS, BATCH, INNER, optimizer, steps=1, opt_state=state)
    assert count == first
    _, gradient = maml.meta_gradient(apply, PARAMS, BATCH, INNER)
    close(jax.tree.map(lambda p, q: (p - q) / 0.1, PARAMS, other.params), gradient)


def test_sampled_tasks_compiled_in_or_called_on_the_host():
    how = {"steps": 6, "key": jax.random.key(3)}
    traced = maml.fit(apply, PARAMS, draw_batch, INNER, ADAM, **how)
    host = maml.fit(apply, PARAMS, draw_batch, INNER, ADAM, sampler="host", **how)
    close((traced.params, traced.losses), (host.params, host.losses), 1e-12)
    first = maml.meta_loss(apply, PARAMS, draw_batch(jax.random.fold_in(how["key"], 0)), INNER)
    close(traced.losses[0], first)

    drawn = []

    def untraceable(key):
        drawn.append(np.asarray(jax.random.key_data(key)))
        return draw_batch(key)

    same(maml.fit(apply, PARAMS, untraceable, INNER, ADAM, **how).params, host.params)
    assert len(drawn) == 7  # one at the door, one a step
    supply = iter([BATCH, BATCH] + [draw_batch(jax.random.key(i)) for i in range(6)])
    fed = maml.fit(apply, PARAMS, lambda key: next(supply), INNER, ADAM, **how)
    assert len(set(fed.losses)) == 6  # its key unused, it is not compiled in as a constant


def test_the_callback_stops_and_the_bar_shows(capsys):
    def stop(step, params, loss):
        return step >= 4

    def give_up(step, params, loss):
        raise StopIteration

    result = maml.fit(apply, PARAMS, BATCH, INNER, SGD, steps=100, chunk=2, callback=stop, progress=True)
    assert (result.steps_done, len(result.losses), result.stopped) == (4, 4, True)
    assert "4/100" in capsys.readouterr().err
    result = maml.fit(apply, PARAMS, BATCH, INNER, SGD, steps=100, chunk=2, callback=give_up)
    assert (result.steps_done, result.stopped) == (2, True)
    same(result.params, maml.fit(apply, PARAMS, BATCH, INNER, SGD, steps=2).params)


# --- divergence -------------------------------------------------------------------------------------------------------


def linear(params, x):
    return x @ params["head"]["w"]


@pytest.mark.parametrize("loss", LOSSES[:2])
def test_the_limit_of_the_inner_rate_is_where_a_linear_model_diverges(loss):
    params, l2 = {"head": {"w": PARAMS["body"]["w"]}}, 0.3
    batch = draw_batch(jax.random.key(2), B=1, outputs=5)
    inner = InnerLoop(0.01, 1, loss, l2=l2)
    limit = inner_limit(linear, params, 0.01, batch, inner)
    x, y = batch.support_x[0], batch.support_y[0]
    norms = {}
    for share in (0.98, 1.02):
        theta = maml.adapt(linear, params, x, y, inner, rates=0.01 * limit * share, steps=2000)
        norms[share] = float(jnp.abs(theta["head"]["w"]).max())
    assert norms[0.98] < 10 < 1e6 < norms[1.02]


def test_the_limit_of_the_inner_rate_is_that_of_the_support_kernel():
    batch = draw_batch(jax.random.key(2), B=1)
    K = {name: kernels.empirical_ntk(apply, PARAMS, batch.support_x[0], outputs="full", part=name) for name in PARAMS}
    for rates, kernel in (
        ({"body": 0.2, "head": 0.3}, 0.2 * K["body"] + 0.3 * K["head"]),
        (0.2, 0.2 * K["body"] + 0.2 * K["head"]),
    ):
        limit = inner_limit(apply, PARAMS, rates, batch, InnerLoop(0.1, 1))
        close(limit, 2 / float(jnp.linalg.eigvalsh(kernel)[-1]))


def test_divergence_by_the_inner_rate():
    with pytest.raises(maml.DivergenceError, match=r"the inner rate is likely too large: .* 2 / lambda_max") as caught:
        maml.fit(linear, SQUARES, SQUARE_BATCH, InnerLoop(50.0, 200), SGD, steps=5)
    result = caught.value.result
    assert (result.diverged.step, result.diverged.culprit, result.steps_done) == (0, "inner rate", 0)
    assert result.diverged.inner_limit < 1
    same(result.params, SQUARES)


def test_divergence_by_the_outer_rate_returns_the_last_finite_state():
    optimizer = optax.sgd(1e3)
    inner = InnerLoop(1e-3, 1)
    result = maml.fit(linear_in_squares, SQUARES, SQUARE_BATCH, inner, optimizer, steps=2000, on_divergence="return")
    assert result.diverged.culprit == "outer rate"
    assert "the outer rate is likely too large" in result.diverged.cause
    assert result.diverged.inner_limit_at_start > 1
    assert 0 < result.steps_done <= result.diverged.step < 2000
    assert np.isfinite(result.losses).all()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((result.params, result.opt_state)))
    assert np.isfinite(maml.meta_loss(linear_in_squares, result.params, SQUARE_BATCH, inner))
    again = maml.fit(linear_in_squares, SQUARES, SQUARE_BATCH, inner, optimizer, steps=result.steps_done)
    same(again.params, result.params)


def linear_in_squares(params, x):
    return x @ params["head"]["w"] ** 2


SQUARES = {"head": {"w": PARAMS["body"]["w"][:, :1]}}
SQUARE_BATCH = replace(BATCH, support_y=BATCH.support_y[..., :1], query_y=BATCH.query_y[..., :1])


def test_divergence_by_the_tasks():
    def spoiled(key):
        batch = draw_batch(key)
        bad = jnp.array_equal(jax.random.key_data(key), jax.random.key_data(jax.random.fold_in(jax.random.key(3), 4)))
        return replace(batch, query_y=jnp.where(bad, jnp.inf, batch.query_y))

    result = maml.fit(
        apply, PARAMS, spoiled, INNER, ADAM, steps=9, key=jax.random.key(3), on_divergence="return"
    )  # fmt: skip
    assert (result.diverged.step, result.diverged.culprit, result.steps_done) == (4, "tasks", 3)
    assert len(result.losses) == 4


# --- checkpoints ------------------------------------------------------------------------------------------------------


SAMPLED = {"learn_rates": True, "key": jax.random.key(3)}


@pytest.mark.parametrize("kind", ["batch", "traced", "host"])
def test_a_resumed_run_is_bit_for_bit_the_same(kind, tmp_path):
    given = (apply, PARAMS, BATCH if kind == "batch" else draw_batch, INNER, ADAM)
    how = {} if kind == "batch" else SAMPLED | {"sampler": kind}
    whole = maml.fit(*given, steps=20, **how)
    path = tmp_path / "run.npz"
    maml.fit(*given, steps=10, checkpoint=path, **how)
    resumed = maml.fit(*given, steps=20, checkpoint=path, chunk=3, **how)
    same((resumed.params, resumed.rates, resumed.opt_state), (whole.params, whole.rates, whole.opt_state))
    same(resumed.losses, whole.losses)
    kept = maml.fit(*given, steps=20, checkpoint=path, **how)
    same(kept.params, whole.params)
    with pytest.raises(InputError, match="steps: expected at least 20, as in checkpoint"):
        maml.fit(*given, steps=15, checkpoint=path, **how)
    assert [p.name for p in tmp_path.iterdir()] == ["run.npz"]


def test_an_error_in_the_callback_loses_nothing(tmp_path):
    def fail(step, params, loss):
        raise KeyboardInterrupt

    path = tmp_path / "run.npz"
    given = (apply, PARAMS, BATCH, INNER, ADAM)
    with pytest.raises(KeyboardInterrupt):
        maml.fit(*given, steps=20, checkpoint=path, chunk=7, callback=fail)
    told = []
    resumed = maml.fit(*given, steps=20, checkpoint=path, chunk=7, callback=lambda step, *_: told.append(step))
    assert told == [14, 20]
    same(resumed.params, maml.fit(*given, steps=20).params)


def test_a_killed_process_resumes(tmp_path):
    """The same run here and there, where it is killed between two checkpoints."""
    path = tmp_path / "run.npz"
    code = f"""
import os, sys, jax
jax.config.update("jax_enable_x64", True)
sys.path.insert(0, {os.path.dirname(__file__)!r})
from test_maml import ADAM, INNER, PARAMS, SAMPLED, apply, draw_batch, maml
def die(step, params, loss):
    if step == 14:
        os._exit(9)
maml.fit(apply, PARAMS, draw_batch, INNER, ADAM, steps=20, checkpoint={str(path)!r}, checkpoint_every=10, chunk=2,
         callback=die, **SAMPLED)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=1200).returncode == 9
    told = []
    given = (apply, PARAMS, draw_batch, INNER, ADAM)
    # a function's module is a part of its description, and this file is imported under one name there and here
    resumed = maml.fit(
        *given, steps=20, checkpoint=path, chunk=2, callback=lambda step, *_: told.append(step), **SAMPLED
    )
    assert told == [12, 14, 16, 18, 20]
    whole = maml.fit(*given, steps=20, **SAMPLED)
    same((resumed.params, resumed.rates, resumed.losses), (whole.params, whole.rates, whole.losses))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"inner": replace(INNER, rate=0.1)}, r"rates 0.05\), got rates 0.1;"),
        ({"inner": replace(INNER, steps=3)}, r"inner.steps 2\), got inner.steps 3;"),
        ({"optimizer": optax.adam(2e-2)}, "optimizer "),
        ({"params": draw_params(1)}, "params "),
        ({"tasks": BATCH[:2]}, "tasks "),
        ({"outer_loss": "mean_squares"}, "outer_loss half_sum_squares"),
        ({"outer_loss": absolute}, "outer_loss half_sum_squares"),
        ({"inner": replace(INNER, loss=absolute)}, "inner.loss half_sum_squares"),
    ],
)
def test_a_checkpoint_of_other_settings_is_refused_and_named(change, said, tmp_path):
    path = tmp_path / "run.npz"
    given = {"params": PARAMS, "tasks": BATCH, "inner": INNER, "optimizer": ADAM, "steps": 2, "checkpoint": path}
    maml.fit(apply, **given)
    before = path.read_bytes()
    with pytest.raises(InputError, match=f"made with .{said}"):
        maml.fit(apply, **(given | change))
    assert path.read_bytes() == before


def scaled_loss(scale):
    return lambda outputs, labels: scale * absolute(outputs, labels)


@pytest.mark.parametrize("which", ["inner.loss", "outer_loss"])
def test_a_checkpoint_goes_on_with_the_function_that_was_its_loss(which, tmp_path):
    def run(scale, steps, **how):
        losses = {"inner": replace(INNER, loss=scaled_loss(scale)), "outer_loss": "half_sum_squares"}
        if which == "outer_loss":
            losses = {"inner": INNER, "outer_loss": scaled_loss(scale)}
        return maml.fit(apply, PARAMS, BATCH, optimizer=ADAM, steps=steps, **losses, **how)

    path = tmp_path / "run.npz"
    run(2.0, 2, checkpoint=path)
    with pytest.raises(InputError, match=f"made with .{which} #"):
        run(3.0, 4, checkpoint=path)
    resumed, whole = run(2.0, 4, checkpoint=path), run(2.0, 4)
    same((resumed.params, resumed.losses), (whole.params, whole.losses))


def sampler(low, high, outputs=3):
    """A function that holds its range as a constant of itself, of a tuple or of a function inside, or as a global."""

    def scaled(key, span):
        batch = draw_batch(key)
        return replace(batch, support_x=batch.support_x * (span[1] - span[0]) + span[0])

    names = {"scaled": scaled, "__name__": __name__, "LOW": low, "HIGH": high}
    written = {
        "tuple": f"def draw(key):\n return scaled(key, ({low}, {high}))",
        "inner": f"def draw(key):\n def span():\n  return {low}, {high}\n return scaled(key, span())",
        "global": "def draw(key):\n return scaled(key, (LOW, HIGH))",
    }
    found = {}
    for kind, code in written.items():
        exec(code, own := dict(names))
        found[kind] = own["draw"]

    class Held:
        def __init__(self):
            self.span = low, high

        def draw(self, key):
            return scaled(key, self.span)

    return found | {"attribute": Held().draw, "partial": partial(scaled, span=(low, high))}


@pytest.mark.parametrize("kind", sampler(0, 1))
def test_a_checkpoint_of_an_edited_sampler_is_refused(kind, tmp_path):
    path = tmp_path / "run.npz"
    given = {"params": PARAMS, "inner": INNER, "optimizer": ADAM, "checkpoint": path, "key": jax.random.key(3)}
    maml.fit(apply, tasks=sampler(0.1, 5.0)[kind], steps=1, **given)
    before = path.read_bytes()
    with pytest.raises(InputError, match=r"expected the (settings|first batch) that it was made with"):
        maml.fit(apply, tasks=sampler(0.1, 0.2)[kind], steps=2, **given)
    assert path.read_bytes() == before
    assert maml.fit(apply, tasks=sampler(0.1, 5.0)[kind], steps=2, **given).steps_done == 2


SCALE = {"network": 1.0, "rate": 1.0}


def scaled_apply(params, x):
    return SCALE["network"] * apply(params, x)


def scaled_descent():
    def update(gradient, state, params=None):
        return jax.tree.map(lambda leaf: -0.01 * SCALE["rate"] * leaf, gradient), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


@pytest.mark.parametrize(("name", "said"), [("network", "network's outputs"), ("rate", "first update")])
def test_a_checkpoint_of_functions_that_do_something_else_is_refused(name, said, tmp_path, monkeypatch):
    given = {"params": PARAMS, "inner": INNER, "checkpoint": tmp_path / "run.npz", "tasks": BATCH}
    maml.fit(scaled_apply, optimizer=scaled_descent(), steps=1, **given)
    monkeypatch.setitem(SCALE, name, 1.5)
    with pytest.raises(InputError, match=f"expected the {said} that it was made with"):
        maml.fit(scaled_apply, optimizer=scaled_descent(), steps=2, **given)


def test_a_checkpoint_goes_on_for_the_identity_that_it_began_with(tmp_path):
    given = {"params": PARAMS, "tasks": BATCH, "inner": INNER, "optimizer": ADAM, "checkpoint": tmp_path / "run.npz"}
    maml.fit(apply, steps=1, identity={"data": "1", "code": "a"}, **given)
    for identity, said in (({"data": "2", "code": "a"}, "identity.data 1"), ("a", "identity.code a"), (None, "code a")):
        with pytest.raises(InputError, match=f"made with .*{said}"):
            maml.fit(apply, steps=2, identity=identity, **given)
    assert maml.fit(apply, steps=2, identity={"data": "1", "code": "a"}, **given).steps_done == 2
    with pytest.raises(InputError, match="identity: expected a text, or several by name, got 3"):
        maml.fit(apply, steps=2, identity=3, **given)


def test_an_optimiser_whose_state_is_not_finite_goes_on(tmp_path):
    optimizer = optax.chain(optax.sgd(0.01), optax.contrib.reduce_on_plateau())  # the best loss so far is infinite
    given = (apply, PARAMS, BATCH, INNER, optimizer)
    maml.fit(*given, steps=1, checkpoint=tmp_path / "run.npz")
    assert maml.fit(*given, steps=2, checkpoint=tmp_path / "run.npz").steps_done == 2


def test_a_checkpoint_of_an_older_version_is_refused_and_kept(tmp_path, monkeypatch):
    path, given = tmp_path / "run.npz", (apply, PARAMS, BATCH, INNER, ADAM)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "_KEPT", 1)
        maml.fit(*given, steps=1, checkpoint=path)
    before = path.read_bytes()
    with pytest.raises(InputError, match="got one of an older version, which does not; use another path"):
        maml.fit(*given, steps=2, checkpoint=path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
@pytest.mark.parametrize("size", [5, 3000])
def test_sketches_tell_edits_from_rounding(dtype, size):
    numbers = jnp.asarray(np.random.default_rng(0).normal(size=size), dtype)
    rounded = numbers * (1 + jnp.finfo(dtype).eps)
    assert checkpoint.same(checkpoint.sketch(numbers), checkpoint.sketch(rounded))
    assert not checkpoint.same(checkpoint.sketch(numbers), checkpoint.sketch(numbers[::-1]))
    assert not checkpoint.same(checkpoint.sketch(numbers), checkpoint.sketch(numbers[1:]))
    whole = jnp.arange(size)
    assert not checkpoint.same(checkpoint.sketch(whole), checkpoint.sketch(whole.at[-1].add(1)))


def test_a_truncated_checkpoint_is_named_and_kept(tmp_path):
    path = tmp_path / "run.npz"
    given = (apply, PARAMS, BATCH, INNER, ADAM)
    maml.fit(*given, steps=2, checkpoint=path)
    whole = path.read_bytes()
    for cut in (0, 100, len(whole) - 10):
        path.write_bytes(whole[:cut])
        with pytest.raises(
            InputError, match=r"checkpoint .*run.npz: expected a whole file, got .*kept as run.npz.broken"
        ):
            maml.fit(*given, steps=2, checkpoint=path)
        assert not path.exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"run.npz.broken-{i}" for i in (1, 2, 3)]
    maml.fit(*given, steps=2, checkpoint=path)
    assert path.exists()


def test_descriptions_tell_functions_apart():
    def power(n):
        return lambda x: x**n

    described = [
        checkpoint.describe(thing)
        for thing in (
            power(2), power(3), optax.adam(optax.cosine_decay_schedule(0.1, 10)),
            optax.adam(optax.cosine_decay_schedule(0.1, 20)), MLP(8).apply, MLP(9).apply, jax.jit(power(2)),
        )
    ]  # fmt: skip
    assert len(set(described)) == 6
    assert described[0] == described[-1] == checkpoint.describe(power(2))
    assert not any(" at 0x" in text for text in described)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (math.sin, math.cos),
        (np.float32, np.float64),
        (math, cmath),
        (slice(3), slice(4)),
        (range(3), range(4)),
        (Path("a"), Path("b")),
        (np.add, np.subtract),
        (optax.MultiSteps(optax.sgd(0.1), 2), optax.MultiSteps(optax.sgd(0.2), 2)),
    ],
)
def test_descriptions_tell_what_functions_close_over_apart(one, other):
    def closing(thing):
        return lambda: thing

    assert checkpoint.describe(closing(one)) == checkpoint.describe(closing(one))
    assert checkpoint.describe(closing(one)) != checkpoint.describe(closing(other))


@pytest.mark.parametrize("kind", ["tuple", "inner", "partial", "attribute"])
def test_descriptions_hold_constants_wherever_they_are_written(kind):
    low, again, other = (checkpoint.describe(sampler(*span)[kind]) for span in ((0.1, 5.0), (0.1, 5.0), (0.1, 0.2)))
    assert low == again != other


def test_descriptions_of_nested_functions_stay_short():
    """Were each level quoted again, with its backslashes doubled, it would be megabytes."""
    assert len(checkpoint.describe(optax.adamw(optax.warmup_cosine_decay_schedule(0.0, 1.0, 3, 10)))) < 20_000


def test_descriptions_of_sets_do_not_depend_on_the_session():
    imports = "from mlkernels.learners.outer_loop.checkpoint import describe"
    code = f"{imports}; print(describe(lambda x: x in {{'a', 'b', 'c', 'd'}}))"
    told = [
        subprocess.run(
            [sys.executable, "-c", code], env=os.environ | {"PYTHONHASHSEED": seed}, capture_output=True, text=True,
            check=True, timeout=300,
        ).stdout
        for seed in ("1", "2")
    ]  # fmt: skip
    assert told[0] == told[1]
    assert "frozenset" in told[0]


def test_descriptions_tell_datasets_apart_by_their_images():
    glyphs = [datasets.load("glyphs", classes=12, drawings=4) for _ in range(3)]
    glyphs[1] = replace(glyphs[1], images=np.array(glyphs[1].images)[..., ::-1, :])  # of the same mean
    texts = [checkpoint.describe(partial(draw_batch, data.only("train"))) for data in glyphs]
    assert texts[0] == texts[2] != texts[1]
    glyphs[0].rows_of(0)  # which a dataset remembers
    assert checkpoint.describe(glyphs[0]) == checkpoint.describe(glyphs[2])


def test_bfloat16_survives_a_checkpoint(tmp_path):
    state = {"w": jnp.ones(3, jnp.bfloat16) / 3}
    checkpoint.save(tmp_path / "a.npz", state, np.zeros(1), {})
    loaded, _ = checkpoint.load(tmp_path / "a.npz", state, {})
    assert loaded["w"].dtype == jnp.bfloat16
    same(loaded, state)
