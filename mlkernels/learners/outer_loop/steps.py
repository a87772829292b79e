"""Many outer steps in one compiled loop whose length is a traced number; it freezes at the first non-finite loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mlkernels.errors import bad_input
from mlkernels.inner_loop.settings import InnerLoop
from mlkernels.learners.meta_gradient import value_and_direction, value_and_gradient

SIZE = 1024  # losses that a chunk can hold, the same always: chunks of other lengths do not compile anew


class State(NamedTuple):
    """What changes from step to step.

    Args:
        trained: `{"params": ...}`, with "rates" too if they are learned.
        opt_state: of the optimiser.
        step: outer steps taken.
        alive: False once a loss, or what came of it, was not finite; nothing changes after that.
        previous: `trained` and `opt_state` one step ago: the last whose loss is known to be finite.
    """

    trained: dict
    opt_state: Any
    step: jax.Array
    alive: jax.Array
    previous: tuple


@dataclass(frozen=True)
class Plan:
    """What is compiled in: all that does not change from step to step and is no array."""

    apply: Callable
    inner: InnerLoop
    optimizer: optax.GradientTransformation
    reptile: bool
    learn_rates: bool
    outer_loss: str
    reduce: str
    sequential: bool
    draw: Callable | None  # the sampler, if it can be traced

    def tree(self, trained: dict):
        """What the optimiser sees of it."""
        return trained if self.learn_rates else trained["params"]

    def loss_and_gradient(self, trained: dict, rates, tasks):
        """The loss and the gradient (or Reptile's direction) in the form that the optimiser sees."""
        params, rates = trained["params"], trained.get("rates", rates)
        settings = params, rates, tasks, self.inner, self.outer_loss, self.reduce, self.sequential
        if self.reptile:
            return value_and_direction(self.apply, *settings)
        loss, gradient = value_and_gradient(self.apply, *settings, self.learn_rates)
        return loss, dict(zip(("params", "rates"), gradient, strict=True)) if self.learn_rates else gradient


def all_finite(tree) -> jax.Array:
    """Whether all numbers of a tree are finite, as a scalar.

    Example:
        >>> bool(all_finite({"w": jnp.ones(2)})), bool(all_finite([jnp.array(jnp.nan)]))
        (True, False)
    """
    return jnp.all(jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]))


@partial(jax.jit, static_argnums=0)
def run_chunk(plan: Plan, state: State, rates, tasks, key, losses, start, count):
    """Take `count` outer steps, or fewer if a loss is not finite.

    Args:
        plan: what to do.
        state: where to start.
        rates: of the inner loop, where they are not learned.
        tasks: the batch; None where `plan.draw` makes one a step.
        key: for `plan.draw`.
        losses: `[SIZE]`, filled from `start` on.
        start, count: whole numbers, traced.

    Returns:
        `(state, losses)`.
    """
    optimizer = optax.with_extra_args_support(plan.optimizer)

    def going(carry):
        state, _, i = carry
        return state.alive & (i < start + count)

    def step(carry):
        state, losses, i = carry
        batch = tasks if plan.draw is None else plan.draw(jax.random.fold_in(key, state.step))
        loss, gradient = plan.loss_and_gradient(state.trained, rates, batch)
        old = plan.tree(state.trained)
        updates, opt_state = optimizer.update(gradient, state.opt_state, old, value=loss)
        new = optax.apply_updates(old, updates)
        well = jnp.isfinite(loss) & all_finite(new)

        def where_well(new, old):  # `astype` makes the type definite too, as the loop wants it
            return jax.tree.map(lambda a, b: jnp.where(well, a, b).astype(b.dtype), new, old)

        trained = where_well(new if plan.learn_rates else {"params": new}, state.trained)
        now = state.trained, state.opt_state
        previous = where_well(now, state.previous)
        state = State(trained, where_well(opt_state, state.opt_state), state.step + well, well, previous)
        return state, losses.at[i].set(loss.astype(losses.dtype)), i + 1

    state, losses, _ = jax.lax.while_loop(going, step, (state, losses, start))
    return state, losses


def traceable(draw: Callable | None, key, sampler: str) -> bool:
    """Whether a sampler is compiled into the loop: as `sampler` says, or for "auto" if it traces and uses its key.

    Args:
        draw: the sampler, or None.
        key: a JAX key.
        sampler: "auto", "traced" or "host".

    Returns:
        True or False.

    Raises:
        InputError: another `sampler`.

    Example:
        >>> from mlkernels.tasks import sinusoid
        >>> traceable(lambda key: sinusoid(tasks=1, support=2, queries=2, key=key), jax.random.key(0), "auto")
        True
    """
    if sampler not in ("auto", "traced", "host"):
        raise bad_input("sampler", "'auto', 'traced' or 'host'", repr(sampler), "name one of them")
    if draw is None or sampler != "auto":
        return draw is not None and sampler == "traced"
    try:
        hash(draw)
        jaxpr = jax.make_jaxpr(draw)(key).jaxpr
    except Exception:  # whatever a sampler that needs real numbers raises when it gets none
        return False
    used = {id(v) for equation in jaxpr.eqns for v in equation.invars}
    return id(jaxpr.invars[0]) in used  # else its result would be compiled in as a constant
