"""ANIL's meta-gradient in two parts: against automatic differentiation, and against its implicit limit."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlkernels.errors import InputError
from mlkernels.learners import anil, curvature, maml
from mlkernels.learners.maml import InnerLoop
from mlkernels.networks import MLP
from mlkernels.tasks import TaskBatch

HEAD, TWO = ("head",), ("layer2", "head")


def features(params, x):
    """Two layers, smooth, without exponentials, which take long to compile."""
    for name in ("layer1", "layer2"):
        z = x @ params[name]["w"] + params[name]["b"][None]
        x = 2 * z / (1 + z * z)
    return x


def apply(params, x):
    return features(params, x) @ params["head"]["w"] + params["head"]["b"][None]


PARAMS = MLP((6, 5), outputs=3, w_std=1.0, parametrization="standard").init(jax.random.key(1), (4,))


def draw_batch(seed=0, B=2, m=7, n=5, outputs=3):
    """Labels that are distributions, so that all losses take them."""
    keys = jax.random.split(jax.random.key(seed))
    x, y = jax.random.normal(keys[0], (B, m + n, 4)), jax.random.uniform(keys[1], (B, m + n, outputs))
    y = y / y.sum(-1, keepdims=True)
    return TaskBatch(x[:, :m], y[:, :m], x[:, m:], y[:, m:])


BATCH = draw_batch()


def norm(tree) -> float:
    return float(np.sqrt(sum((np.asarray(leaf) ** 2).sum() for leaf in jax.tree.leaves(tree))))


def distance(a, b) -> float:
    return norm(jax.tree.map(lambda x, y: np.asarray(x) - np.asarray(y), a, b))


def close(a, b, tolerance=1e-10):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    assert distance(a, b) < tolerance * norm(b)


# --- two parts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("loss", "adapt", "l2"),
    [
        *[(loss, adapt, 0.1) for loss in maml.LOSSES for adapt in (HEAD, TWO)],
        ("mean_squares", TWO, 0.0),
        ("cross_entropy", HEAD, 0.0),
    ],
)
def test_the_two_parts_are_the_gradient_of_automatic_differentiation(loss, adapt, l2):
    inner = InnerLoop(0.2, 4, loss, l2=l2, adapt=adapt)
    two = anil.two_part_gradient(apply, PARAMS, BATCH, inner, outer_loss=loss)
    value, gradient = maml.meta_gradient(apply, PARAMS, BATCH, inner, outer_loss=loss)
    assert sorted(two.dw) == sorted(adapt)
    assert sorted(two.dphi) == sorted(set(PARAMS) - set(adapt))
    close(two.loss, value, 1e-13)
    close(two.dw, {name: gradient[name] for name in two.dw})
    close(two.dphi, {name: gradient[name] for name in two.dphi})
    close(two.gradient, gradient)


@pytest.mark.parametrize(
    "inner",
    [
        InnerLoop(0.2, 3),
        InnerLoop(0.2, 0, adapt=HEAD),
        InnerLoop({"head": 0.3, "layer1": 0.1}, 3, adapt=("head", "layer1")),
        InnerLoop(0.2, 3, adapt=TWO, first_order=True),
    ],
    ids=["all layers", "no steps", "a rate a layer", "first order"],
)
def test_other_inner_loops(inner):
    two = anil.two_part_gradient(apply, PARAMS, BATCH, inner, reduce="mean")
    value, gradient = maml.meta_gradient(apply, PARAMS, BATCH, inner, reduce="mean")
    close((two.loss, two.gradient), (value, gradient))


def test_the_number_of_steps_may_be_traced_and_nothing_compiles_anew():
    count = 0

    def counted(params, x):
        nonlocal count
        count += 1
        return apply(params, x)

    inner = InnerLoop(0.2, 6, l2=0.1, adapt=HEAD)
    anil.two_part_gradient(counted, PARAMS, BATCH, inner)
    first = count
    for changed, steps in ((inner, 2), (replace(inner, rate=0.1, l2=0.3), 5), (inner, jnp.asarray(0))):
        two = anil.two_part_gradient(counted, PARAMS, BATCH, changed, steps=steps)
        assert count == first
        short = replace(changed, steps=int(steps))
        if int(steps) == 5:
            close(two.gradient, maml.meta_gradient(apply, PARAMS, BATCH, short)[1])
    close(two.loss, maml.meta_loss(apply, PARAMS, BATCH, short))
    with pytest.raises(InputError, match=r"steps: expected at most inner.steps = 6, got 7"):
        anil.two_part_gradient(counted, PARAMS, BATCH, inner, steps=7)


# --- the implicit gradient --------------------------------------------------------------------------------------------


def ridge_loss(params, batch, l2):
    """The outer loss with the head solved for by the normal equations: its gradient is the implicit one."""

    def one(task):
        A, Q = (
            jnp.concatenate([features(params, x), jnp.ones((len(x), 1))], 1) for x in (task.support_x, task.query_x)
        )
        head = jnp.linalg.solve(A.T @ A + l2 * jnp.eye(A.shape[1]), A.T @ task.support_y)
        return ((Q @ head - task.query_y) ** 2).sum() / 2

    return sum(one(jax.tree.map(lambda leaf: leaf[i], batch)) for i in range(batch.tasks))  # noqa: B023


@pytest.mark.parametrize(
    ("loss", "l2", "solver"), [("half_sum_squares", 0.3, "eigh"), ("mean_squares", 0.3 * 2 / (7 * 3), "cg")]
)
def test_the_implicit_gradient_is_that_of_ridge_regression(loss, l2, solver):
    """The two losses with their L2 strengths have the same minimum."""
    inner = InnerLoop(0.0, 0, loss, l2=l2, adapt=HEAD)
    implicit = anil.implicit_gradient(apply, PARAMS, BATCH, inner, solver=solver)
    value, gradient = jax.jit(jax.value_and_grad(ridge_loss))(PARAMS, BATCH, 0.3)
    assert norm(implicit.dw) == 0
    close(implicit.loss, value, 1e-12)
    close(implicit.dphi, {name: gradient[name] for name in implicit.dphi})


@pytest.mark.parametrize(
    ("loss", "counts"), [("mean_squares", (200, 250, 300, 350)), ("cross_entropy", (100, 120, 140, 160))]
)
def test_unrolled_gradients_come_near_the_implicit_one_at_the_predicted_rate(loss, counts):
    """Both dL/dphi's distance and dL/dw itself fall as (1 - alpha mu)^N."""
    batch, inner = BATCH[:1], InnerLoop(0.0, counts[-1], loss, l2=0.1, adapt=HEAD)
    here = {"outer_loss": loss}
    limit = anil.implicit_gradient(apply, PARAMS, batch, inner, **here)
    best = {**PARAMS, **curvature_at_the_minimum(batch, inner)}
    constants = curvature.inner_constants(apply, best, batch, inner)
    rate = 1 / constants.smoothness
    logs = []
    for steps in counts:
        two = anil.two_part_gradient(apply, PARAMS, batch, inner, rates=rate, steps=steps, **here)
        logs.append((np.log(distance(two.dphi, limit.dphi)), np.log(norm(two.dw))))
    predicted = np.log1p(-rate * constants.mu)
    for measured in np.array(logs).T:
        slope = np.polyfit(counts, measured, 1)[0]
        assert abs(slope / predicted - 1) < 0.05, slope / predicted


def curvature_at_the_minimum(batch, inner):
    path = curvature.trajectory(apply, PARAMS, batch.support_x[0], batch.support_y[0], inner, rates=0.5).w
    return jax.tree.map(lambda leaf: leaf[-1], path)


def test_two_parts_and_limit_in_single_precision():
    single = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), (PARAMS, BATCH))
    for function, inner in (
        (anil.two_part_gradient, InnerLoop(0.2, 4, l2=0.1, adapt=HEAD)),
        (anil.implicit_gradient, InnerLoop(0.0, 0, l2=0.3, adapt=HEAD)),
    ):
        result = function(apply, *single, inner)
        assert {leaf.dtype for leaf in jax.tree.leaves(result)} == {jnp.dtype("float32")}
        close(result, function(apply, PARAMS, BATCH, inner), 1e-5)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"adapt": TWO},
            r"adapt: expected \(.head.,\) for a strongly convex .* got \('layer2', 'head'\)",
        ),
        ({"l2": 0.0}, "l2: expected a positive number for a strongly convex inner problem, got 0.0"),
        ({"adapt": ("tail",)}, r"adapt: expected layers of the network, got 'tail' beside \['head', 'layer1'"),
    ],
)
def test_what_is_not_strongly_convex_has_no_implicit_gradient(change, said):
    with pytest.raises(InputError, match=said):
        anil.implicit_gradient(apply, PARAMS, BATCH, replace(InnerLoop(0.1, 1, l2=0.1, adapt=HEAD), **change))
    with pytest.raises(InputError, match="solver: expected eigh or cg, got 'lu'"):
        anil.implicit_gradient(apply, PARAMS, BATCH, InnerLoop(0.1, 1, l2=0.1, adapt=HEAD), solver="lu")


def test_bad_settings_are_named():
    inner = InnerLoop(0.1, 1, adapt=HEAD)
    for given, said in (
        ({"inner": replace(inner, adapt=("tail",))}, "adapt: expected layers of the network"),
        ({"reduce": "max"}, "reduce: expected"),
        ({"outer_loss": "hinge"}, "outer_loss: expected"),
        ({"steps": -1}, "steps: expected a whole number"),
        ({"tasks": [BATCH]}, "tasks: expected a TaskBatch"),
    ):
        usual = {"apply": apply, "params": PARAMS, "tasks": BATCH, "inner": inner}
        with pytest.raises(InputError, match=said):
            anil.two_part_gradient(**(usual | given))
