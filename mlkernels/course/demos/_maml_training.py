"""Full-batch MAML for a demo: inner steps, tasks, rates and labels are traced, so that one compilation a width serves.

JAX can reverse no loop of unknown length: the gradient in two parts of `learners.anil` keeps its points
and walks back. The room for them is made once.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np

from mlkernels.course.demos.demo import once
from mlkernels.inner_loop.settings import InnerLoop
from mlkernels.learners.anil import room, two_part_of_task
from mlkernels.learners.problem import Problem
from mlkernels.networks import MLP
from mlkernels.tasks import TaskBatch

MAML = InnerLoop(0.0, 0)  # its rate and steps are handed over beside it
WIDEST = 1024  # trained in place of infinity, and the width from which training is in float32


def network(width: float) -> MLP:
    """The network that is trained for this width, which may be `math.inf`."""
    return MLP(WIDEST if math.isinf(width) else int(width))


@lru_cache(maxsize=8)
def start(width: float, dimension: int) -> dict:
    """The parameters of `network(width)` at the start, in JAX's default float; always the same ones."""
    return once(partial(network(width).init, input_shape=(dimension,)))(jax.random.key(0))


@partial(jax.jit, static_argnames="network", donate_argnames="state")
def _advance(network: MLP, start, state, batch: TaskBatch, settings: dict, first, last):
    """Parts `first` to `last` of the training; a part is one task's share of an outer step, in order."""

    def apply(moved, x):
        return network.apply(jax.tree.map(jnp.add, start, moved), x)

    problem = Problem(apply, MAML, "half_sum_squares")
    # f - f_0 against y is f against y + f_0
    shift = jax.vmap(partial(network.apply, start))
    support_y, query_y = batch.support_y + shift(batch.support_x), batch.query_y + shift(batch.query_x)
    targets = TaskBatch(batch.support_x, support_y, batch.query_x, query_y)
    rate, eta = settings["inner_rate"].astype(query_y.dtype), settings["outer_rate"].astype(query_y.dtype)

    def step(moved, gradient):
        return jax.tree.map(lambda p, g: p - eta * g, moved, gradient), jax.tree.map(jnp.zeros_like, gradient)

    def part(u, state):
        moved, gradient, losses, path = state
        t, i = u // settings["tasks"], u % settings["tasks"]
        task, steps = jax.tree.map(lambda leaf: leaf[i], targets), settings["inner_steps"]
        part, path = two_part_of_task(problem, moved, rate, 0.0, task, steps, path)
        gradient = jax.tree.map(jnp.add, gradient, part.gradient)
        whole = i == settings["tasks"] - 1
        moved, gradient = jax.lax.cond(whole, step, lambda *same: same, moved, gradient)
        return moved, gradient, losses.at[t].add(part.loss), path

    return jax.lax.fori_loop(first, last, part, state)


def losses(
    network: MLP, start, batch: TaskBatch, *, tasks: int, inner_steps: int, inner_rate: float, outer_rate: float,
    outer_steps: int, most_inner_steps: int, pause: float = 0.15,
) -> Iterator[np.ndarray]:  # fmt: skip
    """Train the centred network `f - f_0` by full-batch MAML: the loss before each step that is done, float64 `[t]`.

    What is trained is the parameters' way from `start`: in float32 the small steps at the end of training would be
    rounded away if they were added to parameters of size one. It is in their dtype, from `WIDEST` on in float32, on the
    first `tasks` of the batch; memory is held for `most_inner_steps`. The first item, after compiling, holds no loss,
    and the others come about `pause` seconds of computation apart; one task's gradient is never divided.

    Source: Finn et al. 2017 (MAML); notebooks/02_maml_linear_rate.
    """
    dtype = jnp.float32 if network.width >= WIDEST else jax.tree.leaves(start)[0].dtype
    start, batch = jax.tree.map(lambda leaf: leaf.astype(dtype), (start, batch))
    settings = {"tasks": tasks, "inner_steps": inner_steps, "inner_rate": inner_rate, "outer_rate": outer_rate}
    settings = jax.tree.map(jnp.asarray, settings)
    moved, gradient = (jax.tree.map(jnp.zeros_like, start) for _ in range(2))
    state = moved, gradient, jnp.zeros(outer_steps + 1, dtype), room(start, most_inner_steps)
    first, last, chunk = 0, 0, 1
    while True:
        began = time.perf_counter()
        state = _advance(network, start, state, batch, settings, first, last)
        yield np.asarray(state[2], np.float64)[: last // tasks]
        if last == (outer_steps + 1) * tasks:
            return
        if last:
            chunk = max(1, min(2 * chunk, int(chunk * pause / (time.perf_counter() - began))))
        first, last = last, min(last + chunk, (outer_steps + 1) * tasks)
