"""MOML and LocalMOML against loops in NumPy, against MAML, by expectation; populations of tasks; checkpoints."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from _refused import assert_refused
from test_rkhs import PARAMS, apply, close, draw_batch, same

from mlkernels import tasks
from mlkernels.errors import InputError
from mlkernels.inner_loop.losses import loss_of
from mlkernels.learners import fit_and_measure, maml, memory
from mlkernels.learners.maml import DivergenceError, ImplicitLoop, InnerLoop
from mlkernels.learners.memory import LocalMemory, Memory
from mlkernels.learners.outer_weights import MinNorm
from mlkernels.learners.rkhs import ClosedForm
from mlkernels.networks import MLP
from mlkernels.tasks import NumberedTasks, TaskBatch

T = 4
EVERYONE = draw_batch(B=T)  # T tasks of four support and three query points
INNER = InnerLoop(0.05, 1)
SGD, ADAM = optax.sgd(0.02), optax.adam(1e-2)
KEY = jax.random.key(5)
GIVEN = (apply, PARAMS)


def some(numbers, seed=1):
    """Tasks of the population with fresh points, by their numbers."""
    numbers = jnp.asarray(numbers)
    return NumberedTasks(draw_batch(seed, B=len(numbers)), numbers)


def memories_of(params=PARAMS, seed=2):
    """Memories that are no inner step of anything."""
    leaves, tree = jax.tree.flatten(params)
    random = np.random.default_rng(seed)
    return jax.tree.unflatten(tree, [jnp.asarray(random.normal(size=(T, *leaf.shape)), leaf.dtype) for leaf in leaves])


def at(tree, i):
    return jax.tree.map(lambda leaf: leaf[i], tree)


def drawn(key, dtype=float, B=3, m=4, n=3):
    """Linear regressions, a truth for each of the T tasks, at random points; some tasks twice."""
    to_number, to_x = jax.random.split(key)
    number = jax.random.randint(to_number, (B,), 0, T)
    x = jax.random.normal(to_x, (B, m + n, 2), dtype)
    truth = jnp.asarray([[1.0, 0.0], [0.0, 2.0], [-1.0, 1.0], [3.0, 1.0]], dtype)[number]
    y = jnp.einsum("bnd,bd->bn", x, truth)[..., None]
    return NumberedTasks(TaskBatch(x[:, :m], y[:, :m], x[:, m:], y[:, m:]), number)


def draw(key):
    return drawn(key)


def linear(w, x):
    return x @ w


W = jnp.array([[0.5], [-0.5]])


# --- tasks that say which they are ------------------------------------------------------------------------------------


def test_a_task_of_the_population_is_the_function_of_its_number():
    found = tasks.sinusoid_population(tasks=40, support=2, queries=3, key=KEY)
    amplitude, phase = np.arange(1, 6)[np.asarray(found.number) // 5], (np.asarray(found.number) % 5 + 1) * math.pi / 5
    for x, y in ((found.batch.support_x, found.batch.support_y), (found.batch.query_x, found.batch.query_y)):
        np.testing.assert_allclose(y[..., 0], amplitude[:, None] * np.sin(x[..., 0] + phase[:, None]), rtol=1e-12)
        assert (np.abs(x) <= 5).all()
    assert len(set(found.number.tolist())) < 25  # 40 draws, with some twice
    assert set(found.number.tolist()) <= set(range(25))


def test_without_replacement_all_tasks_differ_and_all_come():
    sample = jax.jit(
        jax.vmap(lambda key: tasks.sinusoid_population(tasks=3, replace=False, support=1, queries=1, key=key).number)
    )
    numbers = np.asarray(sample(jax.random.split(KEY, 500)))
    assert all(len(set(row)) == 3 for row in numbers.tolist())
    counts = np.bincount(numbers.ravel(), minlength=25)
    assert counts.min() > 25  # of 60 on average
    assert counts.max() < 110


def test_all_tasks_come_once_in_order_and_in_the_type_asked_for():
    found = tasks.sinusoid_population(
        support=2, queries=1, key=KEY, amplitudes=(1.0, 3.0), phases=(0.0,), noise=0.1, dtype=jnp.float32
    )
    assert found.number.tolist() == [0, 1]
    assert {leaf.dtype.name for leaf in jax.tree.leaves(found.batch)} == {"float32"}
    clean = 3 * np.sin(found.batch.support_x[1])
    assert 0 < np.abs(found.batch.support_y[1] - clean).max() < 1
    same(found, tasks.sinusoid_population(
        support=2, queries=1, key=KEY, amplitudes=(1.0, 3.0), phases=(0.0,), noise=0.1, dtype=jnp.float32
    ))  # fmt: skip


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"support": 0}, "support"),
        ({"tasks": 0}, "tasks"),
        ({"tasks": 26, "replace": False}, "from 1 to 25"),
        ({"amplitudes": ()}, "amplitudes"),
        ({"phases": (math.nan,)}, "phases"),
        ({"x_range": (1.0, 0.0)}, "x_range"),
        ({"noise": -1.0}, "noise"),
        ({"key": 3}, "key"),
        ({"dtype": int}, "dtype"),
    ],
)
def test_a_population_refuses_what_it_cannot_draw(change, said):
    with pytest.raises(InputError, match=said):
        tasks.sinusoid_population(**{"support": 1, "queries": 1, "key": KEY} | change)


def test_numbered_tasks_are_a_pytree_and_refuse_what_does_not_fit():
    found = some([3, 0])
    assert repr(found).endswith("3 outputs; numbers [3, 0])")
    assert len(found) == 2
    assert jax.vmap(lambda task: task.batch.support_y.sum() + task.number.astype(float))(found).shape == (2,)
    assert "numbers" in repr(jax.eval_shape(lambda: found))
    with pytest.raises(InputError, match=r"number: expected whole numbers \[2\], got int64 \[3\]"):
        NumberedTasks(found.batch, jnp.arange(3))
    with pytest.raises(InputError, match="got float"):
        NumberedTasks(found.batch, jnp.ones(2))
    with pytest.raises(InputError, match="wrap it in"):
        NumberedTasks(found.batch, [0, 1])
    with pytest.raises(InputError, match="batch: expected a TaskBatch"):
        NumberedTasks(found, found.number)


# --- MOML -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "inner",
    [
        INNER,
        InnerLoop(0.05, 3, loss="mean_squares", l2=0.1),
        InnerLoop(0.05, 2, adapt=("head",)),
        InnerLoop(0.05, 2, first_order=True),
        ImplicitLoop(0.05, 50, l2=1.0, adapt=("head",), solver_steps=60),
    ],
    ids=str,
)
@pytest.mark.parametrize("sequential", [True, False])
def test_with_beta_one_it_is_maml(inner, sequential):
    """Whatever was remembered, and with a task that comes twice."""
    batch, how = some([2, 0, 2]), {"sequential": sequential, "outer_loss": "mean_squares", "reduce": "mean"}
    loss, gradient, kept = memory.meta_gradient(*GIVEN, memories_of(), batch, inner, Memory(1.0), **how)
    rounding = 1e-6 if isinstance(inner, ImplicitLoop) else 1e-13  # its solver ends where it is near enough
    close((loss, gradient), maml.meta_gradient(*GIVEN, batch.batch, inner, **how), rounding)
    adapted = [maml.adapt(*GIVEN, batch.batch.support_x[b], batch.batch.support_y[b], inner) for b in range(3)]
    close(at(kept, 0), adapted[1], 1e-13)
    close(at(kept, 2), jax.tree.map(lambda a, b: (a + b) / 2, adapted[0], adapted[2]), 1e-13)
    same((at(kept, 1), at(kept, 3)), (at(memories_of(), 1), at(memories_of(), 3)))  # not drawn


def numpy_moml(draws, w, u, beta, rate, inner_rate, moves):
    """Linear regression: every update written out in loops; the losses, w and all memories."""
    losses = []
    for some in draws:
        sx, sy, qx, qy = (np.asarray(leaf) for leaf in jax.tree.leaves(some.batch))
        number, B = np.asarray(some.number).tolist(), len(some)
        share = T / B if moves == "all" else 1.0
        gradient, loss, kept = np.zeros_like(w), 0.0, {i: [] for i in range(T)}
        for b, i in enumerate(number):
            step = -inner_rate * sx[b].T @ (sx[b] @ w - sy[b])
            new = (1 - beta) * u[i] + beta * w + beta * share * step
            jacobian = beta * (np.eye(len(w)) - share * inner_rate * sx[b].T @ sx[b])
            residual = qx[b] @ new - qy[b]
            loss += (residual**2).sum() / 2 / B
            gradient += jacobian @ qx[b].T @ residual / B
            kept[i].append(beta * share * step if moves == "all" else new)
        for i, parts in kept.items():
            if moves == "all":
                u[i] = (1 - beta) * u[i] + beta * w + sum(parts)
            elif parts:
                u[i] = sum(parts) / len(parts)
        w = w - rate * gradient
        losses.append(loss)
    return losses, w, u


@pytest.mark.parametrize("sampler", ["traced", "host"])
@pytest.mark.parametrize("moves", ["sampled", "all"])
@pytest.mark.parametrize("dtype", [jnp.float64, jnp.float32], ids=["64", "32"])
def test_a_training_is_that_of_loops_in_numpy(moves, dtype, sampler):
    sample, steps, w = partial(drawn, dtype=dtype), 12, W.astype(dtype)
    everyone = drawn(KEY, dtype, B=40)
    first = [everyone.number.tolist().index(i) for i in range(T)]
    u = memory.start(linear, w, everyone.batch[first], INNER)
    found = maml.fit(
        linear, w, sample, INNER, optax.sgd(0.05), steps=steps, key=KEY, reduce="mean", sampler=sampler,
        memory=Memory(0.3, moves), memories=u,
    )  # fmt: skip
    draws = [sample(jax.random.fold_in(KEY, step)) for step in range(steps)]
    assert any(len(set(some.number.tolist())) < 3 for some in draws)  # a task comes twice
    sx, sy = (np.asarray(leaf, float)[first] for leaf in (everyone.batch.support_x, everyone.batch.support_y))
    v = np.asarray(w, float)
    start = [v - 0.05 * x.T @ (x @ v - y) for x, y in zip(sx, sy, strict=True)]
    close(u, np.stack(start), 1e-6 if dtype == jnp.float32 else 1e-13)
    losses, expected, memories = numpy_moml(draws, v, start, 0.3, 0.05, 0.05, moves)
    rounding = 1e-5 if dtype == jnp.float32 else 1e-12
    close((found.losses, found.params, found.memories), (np.array(losses), expected, np.stack(memories)), rounding)
    assert found.params.dtype == found.memories.dtype == dtype
    assert np.abs(found.params - w).max() > 0.1  # it moved


@pytest.mark.parametrize("moves", ["sampled", "all"])
def test_no_gradient_goes_through_what_is_remembered(moves):
    """By the memories it is zero, though the loss depends on them; by the parameters it is that of the new part."""
    batch, memories, one = some([1, 3]), memories_of(), Memory(0.3, moves)

    def loss(memories):
        return memory.meta_gradient(*GIVEN, memories, batch, INNER, one)[0]

    assert all((np.asarray(leaf) == 0).all() for leaf in jax.tree.leaves(jax.grad(loss)(memories)))
    other = jax.tree.map(lambda leaf: leaf + 0.1, memories)
    assert abs(float(loss(other) - loss(memories))) > 1e-3

    weight = 1.0 if moves == "sampled" else T / 2
    total = jax.tree.map(jnp.zeros_like, PARAMS)
    for task, i in zip(batch.batch, (1, 3), strict=True):

        def new_part(params, task=task):
            adapted = maml.adapt(apply, params, task.support_x[0], task.support_y[0], INNER)
            return jax.tree.map(lambda v, w: 0.3 * (w + weight * (v - w)), adapted, params)

        part, back = jax.vjp(new_part, PARAMS)
        u = jax.tree.map(lambda old, new: 0.7 * old + new, at(memories, i), part)
        slope = jax.grad(lambda u, t=task: loss_of("half_sum_squares", apply(u, t.query_x[0]), t.query_y[0]))(u)
        total = jax.tree.map(jnp.add, total, back(slope)[0])
    close(memory.meta_gradient(*GIVEN, memories, batch, INNER, one)[1], total, 1e-12)


def test_over_all_draws_the_memories_of_the_second_kind_move_as_if_all_tasks_were_drawn():
    """Those of the first kind do not: theirs stay where they are until their task is drawn."""
    memories = memories_of()
    adapted = memory.start(*GIVEN, EVERYONE, INNER)
    expected = jax.tree.map(lambda u, v: 0.6 * u + 0.4 * v, memories, adapted)

    @partial(jax.jit, static_argnums=1)
    def after(numbers, moves):
        batch = jax.tree.map(lambda leaf: leaf[numbers], EVERYONE)
        one = Memory(0.4, moves)
        return memory.meta_gradient(*GIVEN, memories, NumberedTasks(batch, numbers), INNER, one)[2]

    numbers = jnp.array(list(itertools.product(range(T), repeat=2)))  # with replacement: all equally likely
    means = {
        moves: jax.tree.map(lambda leaf: leaf.mean(0), jax.vmap(lambda n, moves=moves: after(n, moves))(numbers))
        for moves in ("all", "sampled")
    }
    close(means["all"], expected, 1e-12)
    gaps = jax.tree.map(lambda a, b: np.abs(a - b).max(), means["sampled"], expected)
    assert min(jax.tree.leaves(gaps)) > 0.1


def test_a_batch_of_all_tasks_is_the_same_for_both_kinds():
    found = [memory.meta_gradient(*GIVEN, memories_of(), EVERYONE, INNER, Memory(0.4, m)) for m in ("sampled", "all")]
    close(found[0], found[1], 1e-12)


def test_tasks_in_sequence_are_the_same():
    batch = some([2, 2, 1])
    found = [
        memory.meta_gradient(*GIVEN, memories_of(), batch, INNER, Memory(0.4), sequential=sequential)
        for sequential in (False, True)
    ]
    close(*found, 1e-12)
    close(*(memory.start(*GIVEN, EVERYONE, INNER) for _ in range(2)), 0)


def test_a_start_is_in_the_order_of_the_numbers():
    order = jnp.array([2, 0, 3, 1])
    found = memory.start(*GIVEN, NumberedTasks(EVERYONE[order.tolist()], order), INNER)
    close(found, memory.start(*GIVEN, EVERYONE, INNER), 1e-14)
    with pytest.raises(InputError, match=r"each of 0 to 1 once, got \[1, 1\]"):
        memory.start(*GIVEN, some([1, 1]), INNER)


def noisy(key):
    """One task of two numbers, whose inner gradient is known from one point alone."""
    x = jax.random.normal(key, (1, 1, 2))
    y = (x @ jnp.array([[2.0], [1.0]])) + jax.random.normal(jax.random.fold_in(key, 1), (1, 1, 1))
    return TaskBatch(x, y, x, y)


def test_the_memory_averages_the_noise_of_the_inner_gradient_out():
    """At fixed parameters its variance is beta / (2 - beta) of a single inner step's: 1/19 at beta = 0.1."""

    @jax.jit
    @jax.vmap
    def run(key):
        def step(u, key):
            return memory.meta_gradient(linear, W, u, noisy(key), INNER, Memory(0.1))[2], None

        first, *keys = jax.random.split(key, 61)
        start = memory.start(linear, W, noisy(first), INNER)
        return start, jax.lax.scan(step, start, jnp.stack(keys))[0]

    single, averaged = (np.asarray(found)[:, 0, :, 0] for found in run(jax.random.split(KEY, 400)))
    mean = np.asarray(W - 0.05 * (W - jnp.array([[2.0], [1.0]])))[:, 0]
    spread = [((found - mean) ** 2).sum(1).mean() for found in (single, averaged)]
    assert 1 / 19 * 0.7 < spread[1] / spread[0] < 1 / 19 * 1.4
    np.testing.assert_allclose(averaged.mean(0), mean, atol=5 * math.sqrt(spread[1] / 400))


def two_tasks(key):
    """y = 0 with x of size 1, and y = x with x of size 2; one point of each at a time."""
    x = jax.random.normal(key, (2, 2, 1)) * jnp.array([1.0, 2.0])[:, None, None]
    y = x * jnp.array([0.0, 1.0])[:, None, None]
    return TaskBatch(x[:, :1], y[:, :1], x[:, 1:], y[:, 1:])


def test_with_few_points_maml_ends_beside_the_minimum_and_the_memory_near_it():
    """The meta-loss is a mean of (1 - a s^2)^2 s^2 (w - w_i)^2 / 2 with s^2 = E x^2, whose minimum is known.

    MAML on one point has E (1 - a x^2)^2 in the place of (1 - a s^2)^2. With a memory a share of beta of that is left.
    """
    a, inner, square = 0.1, InnerLoop(0.1, 1), np.array([1.0, 4.0])
    right = (1 - a * square) ** 2 * square
    wrong = (1 - 2 * a * square + 3 * a**2 * square**2) * square
    ends = {"minimum": right[1] / right.sum(), "MAML": wrong[1] / wrong.sum()}
    both = 0.9 * right + 0.1 * wrong
    ends["MOML"] = both[1] / both.sum()

    @jax.jit
    @jax.vmap
    def run(key):
        def step(carry, key):
            w, v, u = carry
            batch = two_tasks(key)
            w = w - 0.02 * maml.meta_gradient(linear, w, batch, inner)[1]
            _, gradient, u = memory.meta_gradient(linear, v, u, batch, inner, Memory(0.1))
            v = v - 0.02 * gradient
            return (w, v, u), (w, v)

        w = jnp.full((1, 1), 0.5)
        start = w, w, memory.start(linear, w, two_tasks(key), inner)
        _, path = jax.lax.scan(step, start, jax.random.split(key, 3000))
        return [part[1500:].mean() for part in path]

    means = dict(zip(("MAML", "MOML"), (found.mean() for found in run(jax.random.split(KEY, 64))), strict=True))
    bias = {name: float(means[name]) - ends["minimum"] for name in means}
    assert abs(means["MAML"] - ends["MAML"]) < 0.03
    assert abs(means["MOML"] - ends["MOML"]) < 0.03
    assert abs(bias["MOML"]) < bias["MAML"] / 2


def test_other_betas_and_rates_do_not_compile_anew():
    count = 0

    def counted(params, x):
        nonlocal count
        count += 1
        return apply(params, x)

    def run(beta, rate):
        inner, batch = InnerLoop(rate, 1), some([1, 2])
        memory.meta_gradient(counted, PARAMS, memories_of(), batch, inner, Memory(beta))
        memory.local_direction(counted, PARAMS, LOCAL_BATCH, inner, LocalMemory(beta, rate=rate, steps=2, start=2))

    run(0.3, 0.1)
    before = count
    run(0.5, 0.2)
    assert count == before
    given = *GIVEN, memories_of(), some([1, 2]), INNER
    close(memory.meta_gradient(*given, Memory(0.3), beta=0.5), memory.meta_gradient(*given, Memory(0.5)), 1e-14)
    traced = jax.jit(lambda beta: memory.meta_gradient(*given, Memory(0.3), beta=beta))(jnp.float32(0.5))
    close(traced, memory.meta_gradient(*given, Memory(0.5)), 1e-12)


# --- LocalMOML --------------------------------------------------------------------------------------------------------

LOCAL_BATCH = draw_batch(B=3, m=2 + 2 * 2, n=2 * 2)  # K0 = 2, H = 2, K = Q = 2


def test_with_one_local_step_and_beta_one_it_is_a_step_of_maml():
    """Averaged over tasks; the points that the memory starts from do not matter then, however many."""
    batch = draw_batch(B=3, m=3 + 4, n=3)
    local, plain = LocalMemory(1.0, rate=0.1, steps=1, start=3), replace(
        batch, support_x=batch.support_x[:, 3:], support_y=batch.support_y[:, 3:]
    )  # fmt: skip
    for sequential in (True, False):
        found = memory.local_direction(*GIVEN, batch, INNER, local, reduce="mean", sequential=sequential)
        loss, gradient = maml.meta_gradient(*GIVEN, plain, INNER, reduce="mean")
        close(found, (loss, jax.tree.map(lambda leaf: 0.1 * leaf, gradient)), 1e-12)
    other = replace(batch, support_y=batch.support_y.at[:, :3].add(1.0))
    close(memory.local_direction(*GIVEN, other, INNER, local, reduce="mean"), found, 1e-12)
    result = maml.fit(*GIVEN, batch, INNER, optax.sgd(1.0), steps=1, memory=local, reduce="mean")
    close(result.params, maml.fit(*GIVEN, plain, INNER, optax.sgd(0.1), steps=1, reduce="mean").params, 1e-12)
    assert result.memories is None


def numpy_local(batch, w, beta, rate, inner_rate, H, K0):
    """Linear regression: losses `[B, H]` and copies, written out in loops."""
    losses, copies = [], []
    for sx, sy, qx, qy in zip(*(np.asarray(leaf) for leaf in jax.tree.leaves(batch)), strict=True):
        v, u, row = w, w - inner_rate * sx[:K0].T @ (sx[:K0] @ w - sy[:K0]), []
        K, Q = (len(sx) - K0) // H, len(qx) // H
        for h in range(H):
            x, y = sx[K0 + h * K : K0 + (h + 1) * K], sy[K0 + h * K : K0 + (h + 1) * K]
            query, label = qx[h * Q : (h + 1) * Q], qy[h * Q : (h + 1) * Q]
            u = (1 - beta) * u + beta * (v - inner_rate * x.T @ (x @ v - y))
            residual = query @ u - label
            row.append((residual**2).sum() / 2)
            v = v - rate * beta * (np.eye(len(w)) - inner_rate * x.T @ x) @ query.T @ residual
        losses.append(row)
        copies.append(v)
    return np.array(losses), np.array(copies)


@pytest.mark.parametrize("dtype", [jnp.float64, jnp.float32], ids=["64", "32"])
def test_local_copies_are_those_of_loops_in_numpy(dtype):
    batch = drawn(KEY, dtype, B=3, m=3 + 4 * 2, n=4 * 3)
    w, local = W.astype(dtype), LocalMemory(0.3, rate=0.1, steps=4, start=3)
    losses, copies = numpy_local(batch.batch, np.asarray(w, float), 0.3, 0.1, 0.05, 4, 3)
    rounding = 1e-5 if dtype == jnp.float32 else 1e-12
    for sequential in (True, False):
        found = memory.local_copies(linear, w, batch, INNER, local, sequential=sequential)
        close(found, (losses, copies), rounding)
        assert found[1].dtype == dtype
    direction = memory.local_direction(linear, w, batch, INNER, local)
    close(direction, (losses[:, 0].sum(), np.asarray(w, float) - copies.mean(0)), rounding)
    found = memory.local_copies(linear, w, batch, INNER, LocalMemory(0.9, 1.0, 4, 3), beta=0.3, rate=0.1)
    close(found, (losses, copies), rounding)


def test_rounds_of_a_training_are_means_of_copies_at_the_rate_of_the_schedule():
    def sample(key):
        return drawn(key, B=3, m=2 + 2, n=2)

    local = LocalMemory(0.3, rate=optax.piecewise_constant_schedule(0.1, {2: 0.1}), steps=2, start=2)
    found = maml.fit(linear, W, sample, INNER, optax.sgd(1.0), steps=4, key=KEY, memory=local)
    w = np.asarray(W)
    for step, rate in enumerate((0.1, 0.1, 0.01, 0.01)):
        batch = sample(jax.random.fold_in(KEY, step)).batch
        losses, copies = numpy_local(batch, w, 0.3, rate, 0.05, 2, 2)
        assert found.losses[step] == pytest.approx(losses[:, 0].sum(), rel=1e-12)
        w = copies.mean(0)
    close(found.params, w, 1e-12)


# --- the outer loop ---------------------------------------------------------------------------------------------------


def start_of(params=PARAMS, seed=0):
    return memory.start(apply, params, draw_batch(seed, B=T), INNER)


def sample(key):
    """Two tasks of the population with fresh points, by the outer loop's key."""
    to_number, to_x = jax.random.split(key)
    batch = jax.tree.map(lambda leaf: leaf[:2] + 0.1 * jax.random.normal(to_x, leaf[:2].shape), EVERYONE)
    return NumberedTasks(batch, jax.random.randint(to_number, (2,), 0, T))


def local_sample(key):
    return jax.tree.map(lambda leaf: leaf[:2] + 0.1 * jax.random.normal(key, leaf[:2].shape), LOCAL_BATCH)


STORED = {"memory": Memory(0.3), "memories": start_of()}
SECOND = STORED | {"memory": Memory(0.3, "all")}
LOCAL = {"memory": LocalMemory(0.3, rate=0.1, steps=2, start=2)}
each_kind = pytest.mark.parametrize("how", [STORED, SECOND, LOCAL], ids=["sampled", "all", "local"])


def run_of(how, **settings):
    tasks = local_sample if how is LOCAL else sample
    return maml.fit(*GIVEN, tasks, INNER, ADAM, **{"key": KEY} | how | settings)


@each_kind
def test_a_checkpoint_resumes_bit_for_bit(how, tmp_path):
    path = tmp_path / "run.npz"
    whole = run_of(how, steps=15)
    run_of(how, steps=6, checkpoint=path, chunk=4)
    resumed = run_of(how, steps=15, checkpoint=path, chunk=2)
    for name in ("params", "opt_state", "losses", "memories"):
        same(getattr(resumed, name), getattr(whole, name))
    same(run_of(how, steps=15, checkpoint=path).memories, whole.memories)  # nothing left to do
    if how is not LOCAL:
        assert np.abs(whole.memories["head"]["w"] - how["memories"]["head"]["w"]).max() > 1e-3


@pytest.mark.parametrize(
    ("how", "change", "said"),
    [
        (STORED, {"memory": Memory(0.4)}, "memory"),
        (STORED, {"memory": Memory(0.3, "all")}, "memory"),
        (STORED, {"memories": start_of(seed=1)}, "memories"),
        (STORED, {"memories": jax.tree.map(lambda leaf: jnp.concatenate([leaf, leaf[:1]]), start_of())}, "memories"),
        (STORED, {"memory": None, "memories": None}, "memories #?.*, memory"),
        (LOCAL, {"memory": LocalMemory(0.4, rate=0.1, steps=2, start=2)}, "memory"),
        (LOCAL, {"memory": LocalMemory(0.3, rate=0.2, steps=2, start=2)}, "memory"),
        (LOCAL, {"memory": LocalMemory(0.3, rate=0.1, steps=1, start=2)}, "memory"),
        (LOCAL, {"memory": LocalMemory(0.3, rate=0.1, steps=2, start=4)}, "memory"),
        (LOCAL, {"memory": LocalMemory(0.3, optax.constant_schedule(0.1), steps=2, start=2)}, "memory"),
        (LOCAL, {"memory": None}, "memory"),
    ],
)
def test_a_checkpoint_of_another_memory_is_refused_and_named(how, change, said, tmp_path):
    path = tmp_path / "run.npz"
    run_of(how, steps=2, checkpoint=path)
    with pytest.raises(InputError, match=f"the settings that it was made with .*{said}"):
        run_of(how, steps=4, checkpoint=path, **change)


def test_a_checkpoint_of_a_plain_run_is_refused_with_a_memory(tmp_path):
    path = tmp_path / "run.npz"
    maml.fit(*GIVEN, sample, INNER, ADAM, key=KEY, steps=2, checkpoint=path)
    with pytest.raises(InputError, match="the settings that it was made with"):
        run_of(STORED, steps=4, checkpoint=path)


def test_a_checkpoint_of_a_draw_that_numbers_otherwise_is_refused(tmp_path, monkeypatch):
    path, by = tmp_path / "run.npz", {"shift": 0}

    def shifted(key):
        found = sample(key)
        return replace(found, number=(found.number + by["shift"]) % T)

    given = (*GIVEN, shifted, INNER, ADAM)
    maml.fit(*given, key=KEY, steps=2, checkpoint=path, **STORED)
    by["shift"] = 1
    with pytest.raises(InputError, match="made with"):
        maml.fit(*given, key=KEY, steps=4, checkpoint=path, **STORED)


def test_a_run_goes_on_from_a_result():
    whole = maml.fit(*GIVEN, EVERYONE, INNER, ADAM, steps=20, memory=Memory(0.3))
    half = maml.fit(*GIVEN, EVERYONE, INNER, ADAM, steps=10, memory=Memory(0.3))
    rest = maml.fit(
        apply, half.params, EVERYONE, INNER, ADAM, steps=10,
        opt_state=half.opt_state, memory=Memory(0.3), memories=half.memories,
    )  # fmt: skip
    same((rest.params, rest.memories), (whole.params, whole.memories))
    assert rest.losses[-1] < whole.losses[0]


def test_a_fixed_batch_starts_its_own_memories():
    found, given = (
        maml.fit(*GIVEN, EVERYONE, INNER, SGD, steps=5, memory=Memory(0.3), memories=memories)
        for memories in (None, memory.start(*GIVEN, EVERYONE, INNER))
    )
    same((found.params, found.memories, found.losses), (given.params, given.memories, given.losses))


@pytest.mark.parametrize("learn_rates", [False, True])
def test_with_beta_one_a_training_is_mamls(learn_rates):
    """On the same numbered draw, of which MAML does not need the numbers; and learned inner rates."""
    how = {"steps": 10, "key": KEY, "learn_rates": learn_rates}
    plain = maml.fit(*GIVEN, sample, INNER, ADAM, **how)
    found = maml.fit(*GIVEN, sample, INNER, ADAM, **how, **STORED | {"memory": Memory(1.0)})
    close((found.params, found.rates, found.losses), (plain.params, plain.rates, plain.losses), 1e-10)
    assert plain.memories is None


@pytest.mark.parametrize("method", ["fomaml", "anil"])
def test_the_methods_that_an_inner_loop_can_say_go_with_a_memory(method):
    inner = {"fomaml": InnerLoop(0.05, 1, first_order=True), "anil": InnerLoop(0.05, 1, adapt=("head",))}[method]
    found = maml.fit(*GIVEN, sample, INNER, SGD, key=KEY, steps=3, method=method, **STORED)
    same(found.params, maml.fit(*GIVEN, sample, inner, SGD, key=KEY, steps=3, **STORED).params)


@pytest.mark.parametrize("kind", ["sampled", "all", "local"])
def test_on_sinusoids_it_learns_what_the_plain_inner_loop_adapts(kind):
    """What comes of it is adapted and judged as any other: the meta-loss on all tasks falls to 0.6 at most."""
    network, inner = MLP(16, depth=2), InnerLoop(0.01, 1, loss="mean_squares")
    params = network.init(jax.random.key(2), (1,), jnp.float32)
    of = partial(tasks.sinusoid_population, dtype=jnp.float32)
    points = {"support": 2 + 2 * 3, "queries": 2 * 3} if kind == "local" else {"support": 3, "queries": 3}

    def draw(key):
        return of(tasks=3, key=key, **points)

    if kind == "local":
        how, sgd = {"memory": LocalMemory(0.3, rate=0.02, steps=2, start=2)}, optax.sgd(1.0)
    else:
        memories = memory.start(network.apply, params, of(key=KEY, **points), inner)
        how, sgd = {"memory": Memory(0.3 if kind == "sampled" else 0.1, kind), "memories": memories}, optax.sgd(0.02)
    held_out = of(support=20, queries=50, key=jax.random.key(3)).batch
    losses = {"outer_loss": "mean_squares", "reduce": "mean"}
    run = fit_and_measure(
        network.apply, params, draw, inner, sgd, steps=300, every=150, key=KEY, **losses, **how,
        measure=lambda params: maml.meta_loss(network.apply, params, held_out, inner, **losses),
    )  # fmt: skip
    assert run.value[-1] < 0.6 * run.value[0]
    assert {leaf.dtype.name for leaf in jax.tree.leaves((run.result.params, run.result.memories))} == {"float32"}


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Memory(0.0), "beta: expected a number above 0"),
        (lambda: Memory(1.5), "beta"),
        (lambda: Memory(True), "beta"),
        (lambda: Memory(0.3, "some"), "moves"),
        (lambda: LocalMemory(0.3, rate=-1.0), "rate"),
        (lambda: LocalMemory(0.3, rate=0.1, steps=0), "steps"),
        (lambda: LocalMemory(0.3, rate=0.1, start=0), "start"),
        (lambda: memory.meta_gradient(*GIVEN, start_of(), some([1]), INNER, LOCAL["memory"]), "memory: expected a Mem"),
        (lambda: memory.meta_gradient(*GIVEN, start_of(), some([1]), INNER, Memory(0.3), beta=2.0), "beta"),
        (lambda: memory.meta_gradient(*GIVEN, start_of(), some([4]), INNER, Memory(0.3)), r"from 0 to 3.*got \[4\]"),
        (lambda: memory.meta_gradient(*GIVEN, start_of(), some([-1]), INNER, Memory(0.3)), r"got \[-1\]"),
        (lambda: memory.meta_gradient(*GIVEN, start_of(), draw_batch(B=2), INNER, Memory(0.3)), "all 4 tasks"),
        (lambda: memory.meta_gradient(*GIVEN, PARAMS, some([1]), INNER, Memory(0.3)), "memories: expected"),
        (lambda: memory.meta_gradient(*GIVEN, {}, some([1]), INNER, Memory(0.3)), "a tree like the parameters"),
        (lambda: memory.meta_gradient(*GIVEN, start_of(), sample, INNER, Memory(0.3)), "tasks: expected a TaskBatch"),
        (lambda: memory.meta_gradient(*GIVEN, start_of(), some([1]), ClosedForm(1.0), Memory(0.3)), "inner"),
        (lambda: memory.start(*GIVEN, EVERYONE, ClosedForm(1.0)), "inner"),
        (lambda: memory.local_copies(*GIVEN, LOCAL_BATCH, INNER, Memory(0.3)), "local: expected a LocalMemory"),
        (lambda: memory.local_copies(*GIVEN, EVERYONE, INNER, LOCAL["memory"]), "queries that are a multiple of 2"),
        (lambda: memory.local_copies(*GIVEN, EVERYONE, INNER, LocalMemory(0.3, 0.1, 3, 2)), "a multiple of 3 more"),
        (lambda: memory.local_copies(*GIVEN, EVERYONE, INNER, LocalMemory(0.3, 0.1, 1, 4)), "4 support points and"),
        (lambda: run_of(STORED, steps=1, memory=0.3), "memory: expected a Memory or a LocalMemory"),
        (lambda: run_of(STORED, steps=1, memory=None), "memories: expected none"),
        (lambda: run_of(LOCAL, steps=1, memories=start_of()), "memories: expected none"),
        (lambda: run_of(STORED, steps=1, memories=None), "memories: expected those of all tasks"),
        (lambda: run_of(STORED, steps=1, method="reptile"), "method"),
        (lambda: run_of(STORED, steps=1, reduce=MinNorm()), "reduce"),
        (lambda: run_of(LOCAL, steps=1, learn_rates=True), "learn_rates"),
        (lambda: maml.fit(*GIVEN, sample, ClosedForm(1.0), SGD, steps=1, key=KEY, **STORED), "inner"),
        (lambda: maml.fit(*GIVEN, local_sample, INNER, SGD, steps=1, key=KEY, **STORED), "says which tasks"),
        (lambda: maml.fit(*GIVEN, sample, INNER, SGD, steps=1, key=KEY, **LOCAL), "a multiple of 2"),
        (lambda: maml.fit(*GIVEN, some([1, 9]), INNER, SGD, steps=1, **STORED), r"got \[9\]"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_at_the_door(make, said):
    with pytest.raises(InputError, match=said):
        make()


def test_memories_of_another_type_or_with_nan_are_refused():
    narrow = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), start_of())
    with pytest.raises(InputError, match="types, such as float64"):
        run_of(STORED, steps=1, memories=narrow)
    with pytest.raises(InputError, match="memories: expected finite"):
        run_of(STORED, steps=1, memories=jax.tree.map(lambda leaf: leaf * jnp.nan, start_of()))


@pytest.mark.parametrize("sampler", ["traced", "host"])
def test_a_number_without_a_memory_ends_a_training_later_on_and_is_named(sampler):
    """In a compiled loop nobody can raise: the loss is NaN, nothing is kept of the step, and the numbers are named."""
    step = jax.jit(lambda numbers: memory.meta_gradient(*GIVEN, start_of(), some_of(numbers), INNER, Memory(0.3))[0])
    assert np.isnan(step(jnp.array([1, 4])))
    assert np.isfinite(step(jnp.array([1, 3])))
    wrong = np.array([np.asarray(jax.random.key_data(jax.random.fold_in(KEY, 3)))[-1]])

    def beyond(key):
        found = sample(key)
        bad = (jax.random.key_data(key)[-1] == jnp.asarray(wrong)[0]).astype(found.number.dtype)
        return replace(found, number=found.number + 10 * bad)

    before = maml.fit(*GIVEN, beyond, INNER, ADAM, key=KEY, steps=2, **STORED)
    with pytest.raises(DivergenceError, match=r"numbers \[1\d, 1\d\].*memories of 0 to 3") as caught:
        maml.fit(*GIVEN, beyond, INNER, ADAM, key=KEY, steps=9, sampler=sampler, **STORED)
    result = caught.value.result
    assert result.diverged.culprit == "tasks"
    assert (result.diverged.step, result.steps_done) == (3, 2)
    close((result.params, result.memories), (before.params, before.memories), 1e-12)


def some_of(numbers):
    return NumberedTasks(draw_batch(1, B=2), numbers)


COMPLEX, WORDS = (
    (lambda tree: jax.tree.map(lambda leaf: leaf.astype(complex), tree)),
    (lambda tree: jax.tree.map(str, tree)),
)
WIDE = jax.tree.map(lambda leaf: jnp.concatenate([leaf, leaf], -1), EVERYONE)
NETWORK = MLP(3)
OF_NETWORK = NETWORK.apply, NETWORK.init(KEY, (2,))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"apply": None}, "apply: expected a function"),
        ({"apply": MLP(3)}, "pass the network's apply"),
        ({"params": {}}, "params: expected a pytree of floats"),
        ({"params": WORDS(PARAMS)}, "params: expected a pytree of floats"),
        ({"params": COMPLEX(PARAMS)}, "params: expected a pytree of floats"),
        ({"tasks": NumberedTasks(EVERYONE, None)}, "tasks: expected tasks with an array of numbers"),
        ({"tasks": TaskBatch(None, None, None, None)}, "tasks: expected a TaskBatch, got one without arrays"),
        ({"tasks": COMPLEX(EVERYONE)}, "support_x: expected real numbers, got complex128"),
        ({"tasks": EVERYONE[:0]}, "tasks: expected one or more"),
        ({"rates": "fast"}, "rates: expected an array of real numbers"),
        ({"rates": 1j}, "rates: expected an array of real numbers"),
        ({"rates": jnp.ones(7)}, "rates: expected numbers that fit the adapted layers, got shapes [7]"),
        ({"rates": [0.1]}, "rates: expected numbers that fit the adapted layers"),
    ],
)
def test_one_line_for_what_no_learner_with_a_memory_can_work_with(change, said):
    common = {"apply": apply, "params": PARAMS, "tasks": EVERYONE, "inner": INNER}
    assert_refused(lambda: memory.start(**common | change), said)
    assert_refused(lambda: memory.local_copies(**common | change, local=LOCAL["memory"]), said)
    assert_refused(lambda: memory.meta_gradient(**common | change, memories=start_of(), memory=Memory(0.3)), said)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"memories": WORDS(start_of())}, "memories: expected a pytree of floats"),
        ({"memories": {"w": jnp.ones((4, 2))}}, "memories: expected a tree like the parameters"),
        ({"memories": jax.tree.map(lambda leaf: leaf.tolist(), start_of())}, "memories: expected a tree like"),
        ({"beta": jnp.ones(2)}, "beta: expected a number above 0"),
        ({"beta": jnp.asarray(1.5)}, "beta: expected a number above 0 and at most 1, got 1.5"),
        ({"sequential": "no"}, "sequential: expected True or False"),
        (
            {"outer_loss": lambda f, y: ((f - y) ** 2).sum().astype(complex)},
            "loss: expected a function that gives a scalar",
        ),
    ],
)
def test_one_line_for_what_does_not_go_with_memories(change, said):
    given = {"memories": start_of(), "tasks": some([1]), "inner": INNER, "memory": Memory(0.3)}
    assert_refused(lambda: memory.meta_gradient(*GIVEN, **given | change), said)


@pytest.mark.parametrize("rate", [lambda step: "a", lambda step: jnp.ones(3), lambda step: None, lambda step: -1.0])
def test_schedules_of_something_else_are_refused(rate):
    scheduled = replace(LOCAL["memory"], rate=rate)
    assert_refused(lambda: memory.local_copies(*GIVEN, LOCAL_BATCH, INNER, scheduled), "rate: expected")


def test_inputs_of_another_width_than_the_networks_are_refused():
    assert_refused(lambda: memory.start(*OF_NETWORK, WIDE, INNER), "inputs of width 2, as its weights have")


def test_scalars_of_jax_are_settings():
    assert Memory(jnp.asarray(0.5)) == Memory(0.5)
    assert LocalMemory(np.asarray(0.5), rate=jnp.asarray(2), steps=jnp.asarray(3)) == LocalMemory(0.5, 2.0, 3)
    assert InnerLoop(jnp.asarray(0.5), jnp.asarray(2)) == InnerLoop(0.5, 2)


def test_a_training_that_local_steps_drive_to_infinity_names_their_rate():
    wild = LocalMemory(0.5, rate=1e9, steps=2, start=2)
    with pytest.raises(DivergenceError, match="the local rate is likely too large") as caught:
        maml.fit(*GIVEN, local_sample, InnerLoop(1e-3, 1), optax.sgd(1.0), key=KEY, steps=200, memory=wild)
    assert caught.value.result.diverged.culprit == "local rate"
