"""iMAML's inner loop: at rest where the proximal problem is, and differentiated as that point."""

from __future__ import annotations

import math
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree
from test_rkhs import BATCH, INF, PARAMS, along, apply, close, direction_like, dot, linear, same, task

from mlkernels.errors import InputError
from mlkernels.learners import anil, cost, curvature, maml
from mlkernels.learners.maml import ImplicitLoop, InnerLoop
from mlkernels.networks import MLP
from mlkernels.tasks import TaskBatch

# A step contracts by 1 - 0.01 (5 + curvature); at the minima of both tasks curvatures are from -4 to 171, so that
# 3000 steps end in rounding.
SETTLED = ImplicitLoop(0.01, 3000, strength=5.0, solver_steps=80)
HEAD = replace(SETTLED, adapt=("head",))


def half_squares(params, x, y):
    return jnp.sum((apply(params, x) - y) ** 2) / 2


def loss_by_hand(name, f, y):
    if name == "half_sum_squares":
        return ((f - y) ** 2).sum() / 2
    if name == "mean_squares":
        return ((f - y) ** 2).mean()
    return -(y * jax.nn.log_softmax(f)).sum(-1).mean()


@pytest.mark.parametrize("loss", maml.LOSSES)
def test_the_adapted_parameters_are_at_rest(loss):
    sx, sy, _ = task(BATCH)
    inner = replace(SETTLED, loss=loss, l2=0.1)
    found = maml.adapt(apply, PARAMS, sx, sy, inner)

    def proximal(params):
        w, start = ravel_pytree(params)[0], ravel_pytree(PARAMS)[0]
        return loss_by_hand(loss, apply(params, sx), sy) + 0.05 * w @ w + 2.5 * jnp.sum((w - start) ** 2)

    start, end = (ravel_pytree(jax.jit(jax.grad(proximal))(params))[0] for params in (PARAMS, found))
    assert np.linalg.norm(end) < 1e-12 * max(1, np.linalg.norm(start))
    assert proximal(found) < proximal(PARAMS)


@pytest.mark.parametrize("inner", [SETTLED, HEAD], ids=["all layers", "head"])
def test_the_meta_gradient_is_that_of_finite_differences(inner):
    """By the layers that adapt and by those that do not; through the start and through the loss."""
    value, gradient = maml.meta_gradient(apply, PARAMS, BATCH, inner)
    for seed in range(3):
        direction = direction_like(PARAMS, seed)
        if seed == 1:
            direction["head"] = jax.tree.map(jnp.zeros_like, direction["head"])
        if seed == 2:
            direction["body"] = jax.tree.map(jnp.zeros_like, direction["body"])
        measured = along(lambda p: maml.meta_gradient(apply, p, BATCH, inner)[0], PARAMS, direction)
        size = max(abs(measured), 0.1 * math.sqrt(dot(gradient, gradient)))
        assert abs(measured - dot(gradient, direction)) < 1e-6 * size
    close(maml.meta_gradient(apply, PARAMS, BATCH, inner, sequential=True), (value, gradient), 1e-11)
    close(jax.grad(lambda p: maml.meta_loss(apply, p, BATCH, inner))(PARAMS), gradient, 1e-11)
    close(maml.meta_loss(apply, PARAMS, BATCH, inner), value, 1e-12)


def test_on_a_quadratic_it_is_the_closed_form():
    """theta' = (H + lambda I)^-1 (b + lambda theta), dtheta' / dtheta = (I + H / lambda)^-1."""
    random = np.random.default_rng(0)
    X, Q = random.normal(size=(2, 6, 3))
    Y, Z = random.normal(size=(2, 6, 1))
    theta, strength = random.normal(size=(3, 1)), 0.7
    batch = TaskBatch(*(jnp.asarray(a)[None] for a in (X, Y, Q, Z)))
    params = {"w": jnp.asarray(theta)}
    H = X.T @ X
    adapted = np.linalg.solve(H + strength * np.eye(3), X.T @ Y + strength * theta)
    expected = np.linalg.solve(np.eye(3) + H / strength, Q.T @ (Q @ adapted - Z))
    rate = 1 / (np.linalg.eigvalsh(H)[-1] + strength)
    inner = ImplicitLoop(rate, 2000, strength=strength)
    close(maml.adapt(linear, params, X, Y, inner)["w"], adapted, 1e-12)
    loss, gradient = maml.meta_gradient(linear, params, batch, inner)
    assert abs(loss - ((Q @ adapted - Z) ** 2).sum() / 2) < 1e-12 * loss
    close(gradient["w"], expected, 1e-10)
    # as many steps of conjugate gradients as there are parameters are exact
    few = replace(inner, solver_steps=3)
    close(maml.meta_gradient(linear, params, batch, few)[1]["w"], expected, 1e-9)


def test_the_way_to_the_minimum_does_not_matter():
    """Another rate, and unrolled descent on the proximal problem, which is an InnerLoop's with its loss put so."""
    other = maml.meta_gradient(apply, PARAMS, BATCH, replace(SETTLED, rate=0.008, steps=4000))
    close(other, maml.meta_gradient(apply, PARAMS, BATCH, SETTLED), 1e-9)

    def unrolled(params):
        def one(one):
            def step(w, _):
                def proximal(w):
                    squares = jax.tree.map(lambda a, b: jnp.sum((a - b) ** 2), w, params)
                    return half_squares(w, one.support_x, one.support_y) + 2.5 * sum(jax.tree.leaves(squares))

                return jax.tree.map(lambda a, g: a - 0.01 * g, w, jax.grad(proximal)(w)), None

            return half_squares(jax.lax.scan(step, params, length=1500)[0], one.query_x, one.query_y)

        return jax.vmap(one)(BATCH).sum()

    close(jax.jit(jax.value_and_grad(unrolled))(PARAMS), other, 1e-9)


def test_a_strong_pull_leaves_the_network_and_its_gradient():
    """At infinite strength there is no adaptation: the distance falls as one over it."""
    plain = maml.meta_gradient(apply, PARAMS, BATCH, InnerLoop(0.1, 0))[1]
    apart = []
    for strength in (1e4, 1e5):
        found = maml.meta_gradient(apply, PARAMS, BATCH, ImplicitLoop(0.9 / strength, 100, strength=strength))[1]
        difference = jax.tree.map(jnp.subtract, found, plain)
        apart.append(math.sqrt(dot(difference, difference)))
    assert 9 < apart[0] / apart[1] < 11


def test_rates_that_change_nothing_are_not_learned():
    """The minimum does not depend on them."""
    with pytest.raises(InputError, match="learn_rates: expected False with an ImplicitLoop"):
        maml.meta_gradient(apply, PARAMS, BATCH, SETTLED, with_rates=True)


def test_single_precision_stays():
    single = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), (PARAMS, BATCH))
    found = maml.meta_gradient(apply, *single, SETTLED)
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {jnp.dtype("float32")}
    close(jax.tree.map(lambda leaf: leaf.astype(float), found), maml.meta_gradient(apply, PARAMS, BATCH, SETTLED), 1e-3)


def test_fit_trains_resumes_and_refuses_other_settings(tmp_path):
    inner, optimizer = ImplicitLoop(0.01, 40, strength=5.0), optax.adam(1e-2)
    given = (apply, PARAMS, BATCH)
    whole = maml.fit(*given, inner, optimizer, steps=30)
    assert whole.losses[-1] < 0.8 * whole.losses[0]
    path = tmp_path / "run.npz"
    maml.fit(*given, inner, optimizer, steps=10, checkpoint=path)
    resumed = maml.fit(*given, inner, optimizer, steps=30, checkpoint=path)
    same((resumed.params, resumed.losses), (whole.params, whole.losses))
    for other in (
        replace(inner, strength=1.0),
        replace(inner, solver_steps=10),
        replace(inner, rate=0.02),
        InnerLoop(0.01, 40),
    ):
        with pytest.raises(InputError, match="made with"):
            maml.fit(*given, other, optimizer, steps=30, checkpoint=path)
    with pytest.raises(
        InputError, match="method: expected None, maml, anil or reptile with ImplicitLoop, got 'fomaml'"
    ):
        maml.fit(*given, inner, optimizer, steps=1, method="fomaml")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: ImplicitLoop(0.1, 1, strength=0.0), "strength: expected a positive number, got 0.0"),
        (lambda: ImplicitLoop(0.1, 1, strength=-1.0), "strength: expected a finite number of at least 0, got -1.0"),
        (lambda: ImplicitLoop(0.1, 1, strength=INF), "strength: expected a finite number"),
        (lambda: ImplicitLoop(0.1, 1, solver_steps=0), "solver_steps: expected a whole number of at least 1, got 0"),
        (lambda: ImplicitLoop(0.1, 1, solver_steps=2.5), "solver_steps: expected a whole number"),
        (lambda: ImplicitLoop(-0.1, 1), "rate: expected a finite number"),
        (lambda: ImplicitLoop(0.1, 1, "hinge"), "loss: expected"),
        (lambda: maml.adapt(apply, PARAMS, *task(BATCH)[:2], ImplicitLoop(0.1, 1, adapt=("tail",))),
         r"adapt: expected layers of the network, got 'tail' beside \['body', 'head'\]"),
        (lambda: anil.two_part_gradient(apply, PARAMS, BATCH, HEAD), "inner: expected an InnerLoop, got ImplicitLoop"),
        (lambda: cost.cost_formula(MLP(4), PARAMS, BATCH, HEAD), "inner: expected an InnerLoop, got ImplicitLoop"),
        (lambda: curvature.trajectory(apply, PARAMS, *task(BATCH)[:2], HEAD), "inner: expected an InnerLoop, got Impl"),
    ],
)  # fmt: skip
def test_bad_settings_are_named(make, said):
    with pytest.raises(InputError, match=said):
        make()
