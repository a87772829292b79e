"""The outer loop where it is compiled: one step, and many of them in one program."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mlkernels.learners.memory import local, stored
from mlkernels.learners.memory.settings import LocalMemory, Memory
from mlkernels.learners.problem import Problem
from mlkernels.tasks.populations import parted


def outer_step(loop: OuterLoop, state: State, rates, tasks, key):
    """One step of the outer loop: draw tasks, take the meta-gradient, let the optimiser make an update of it.

    Returns the loss before the step, and what is trained, the optimiser's state and the tasks' memories after it.
    """
    if loop.draw is not None:
        tasks = loop.draw(jax.random.fold_in(key, state.step))
    loss, gradient, memories = _gradient(loop, state, rates, tasks)
    optimizer = optax.with_extra_args_support(loop.optimizer)  # some look at the loss
    with jax.numpy_dtype_promotion("standard"):  # optax takes a float to the power of a whole number, also where strict
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.trained, value=loss)
    return loss, optax.apply_updates(state.trained, updates), opt_state, memories


def _gradient(loop: OuterLoop, state: State, rates, tasks):
    """The loss, its gradient or what takes its place, and the tasks' memories after the step."""
    memory = loop.memory
    if isinstance(memory, Memory):
        given = state.trained, rates, state.memories, *stored.numbered(tasks)
        return stored.value_and_gradient(loop.problem, memory.moves, memory.beta, *given)
    batch = parted(tasks)[0]
    if isinstance(memory, LocalMemory):
        given = memory.beta, memory.rate_at(state.step), state.trained, rates, batch
        return *local.direction(loop.problem, local.sizes(memory), *given), state.memories
    return *loop.gradient(loop.problem, state.trained, rates, batch), state.memories


class State(NamedTuple):
    """What changes from step to step.

    Args:
        trained: the parameters, or `{"params": ..., "rates": ...}` where the inner rates are learned.
        opt_state: of the optimiser.
        step: outer steps taken.
        alive: False once a loss, or what came of it, was not finite; nothing changes after that.
        previous: `trained`, `opt_state` and `memories` one step ago: the last whose loss is known to be finite.
        memories: of all tasks, if the learner has any.
    """

    trained: Any
    opt_state: Any
    step: jax.Array
    alive: jax.Array
    previous: tuple
    memories: Any = ()


@dataclass(frozen=True)
class OuterLoop:
    """What is compiled in: all that does not change from step to step and is no array.

    Args:
        problem: what is minimised.
        gradient: `value_and_gradient`, or Reptile's `value_and_direction`.
        optimizer: any of optax.
        draw: the sampler, if it can be traced.
        memory: of tasks, in the place of `gradient`.
    """

    problem: Problem
    gradient: Callable
    optimizer: optax.GradientTransformation
    draw: Callable | None
    memory: Memory | LocalMemory | None = None


@partial(jax.jit, static_argnums=0)
def outer_steps(loop: OuterLoop, state: State, rates, tasks, key, losses, start, count):
    """`count` steps, or fewer if a loss is not finite: the state, and the losses `[_SIZE]`, filled from `start` on.

    Both numbers are traced. `rates` are those that are not learned, `tasks` the batch that is not drawn here.
    """

    def going(carry):
        state, _, i = carry
        return state.alive & (i < start + count)

    def step(carry):
        state, losses, i = carry
        loss, *new = outer_step(loop, state, rates, tasks, key)
        finite = [jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(new[0])]
        well = jnp.isfinite(loss) & jnp.all(jnp.stack(finite))
        now = state.trained, state.opt_state, state.memories

        def where_well(new, old):  # `astype` makes the type definite too, as the loop wants it
            return jax.tree.map(lambda a, b: jnp.where(well, a, b).astype(b.dtype), new, old)

        trained, opt_state, memories = where_well(tuple(new), now)
        taken = state.step + well.astype(state.step.dtype)
        after = State(trained, opt_state, taken, well, where_well(now, state.previous), memories)
        return after, losses.at[i].set(loss.astype(losses.dtype)), i + 1

    return jax.lax.while_loop(going, step, (state, losses, start))[:2]
