"""MOML: memories of all tasks, and the meta-gradient of a batch of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.tree_util import keystr

from mlkernels.errors import bad_input
from mlkernels.inner_loop.losses import Loss, loss_of
from mlkernels.learners.memory.settings import Memory, moved, share
from mlkernels.learners.meta_gradient import adapted_to, mean_or_sum, said
from mlkernels.learners.problem import Problem, check_inner_loop, problem_of
from mlkernels.support.array_arguments import known_or_traced
from mlkernels.support.network_arguments import check_params
from mlkernels.tasks import NumberedTasks, TaskBatch
from mlkernels.tasks.populations import parted


def of_task(problem: Problem, moves: str, beta, weight, trained, rates, task: TaskBatch, old):
    """One task's loss at its new memory, and what of that is kept; `weight` is T / B."""
    params, rates = problem.params_and_rates(trained, rates)
    fresh = adapted_to(problem, params, rates, task)
    if moves == "sampled":
        u = kept = moved(beta, old, fresh)
    else:
        kept = jax.tree.map(lambda v, w: jnp.asarray(beta * weight, w.dtype) * (v - w), fresh, params)
        u = jax.tree.map(jnp.add, moved(beta, old, params), kept)
    return loss_of(problem.outer_loss, said(problem, u, task.query_x), task.query_y), kept


def value_and_gradient(problem: Problem, moves: str, beta, trained, rates, memories, tasks: TaskBatch, number: Array):
    """The outer loss, its gradient by what is trained, and the memories after it; numbers beyond them give NaN."""
    total = len(jax.tree.leaves(memories)[0])
    one = partial(of_task, problem, moves, beta, total / tasks.tasks)
    old = jax.tree.map(lambda leaf: leaf[number], memories)

    def outer(trained):
        def each(pair):
            return one(trained, rates, *pair)

        pairs = tasks, old
        if problem.sequential:
            losses, kept = jax.lax.map(jax.checkpoint(each, prevent_cse=False), pairs)
        else:
            losses, kept = jax.vmap(each)(pairs)
        return mean_or_sum(problem, losses.sum(), tasks), kept

    (loss, kept), gradient = jax.value_and_grad(outer, has_aux=True)(trained)
    params = problem.params_and_rates(trained, rates)[0]
    known = ((number >= 0) & (number < total)).all()
    return jnp.where(known, loss, jnp.nan), gradient, _after(moves, beta, params, memories, kept, number)


def _after(moves: str, beta, params, memories, kept, number: Array):
    """The memories, once the drawn tasks' new parts are in them."""
    if moves == "all":
        added = jax.tree.map(lambda u, p: jnp.broadcast_to(p, u.shape), memories, params)
        base = moved(beta, memories, added)
        return jax.tree.map(lambda u, part: u.at[number].add(part), base, kept)

    def mean(u, parts):
        count = jnp.zeros(len(u), u.dtype).at[number].add(1).reshape(-1, *[1] * (u.ndim - 1))
        return jnp.where(count > 0, jnp.zeros_like(u).at[number].add(parts) / jnp.maximum(count, 1), u)

    return jax.tree.map(mean, memories, kept)


def of_all(problem: Problem, params, rates, tasks: TaskBatch):
    """What the support set of each task makes of the parameters."""

    def one(task):
        return adapted_to(problem, params, rates, task)

    return jax.lax.map(one, tasks) if problem.sequential else jax.vmap(one)(tasks)


all_adapted = jax.jit(of_all, static_argnums=0)
_value_and_gradient = jax.jit(value_and_gradient, static_argnums=(0, 1))


def start(apply: Callable, params, tasks: TaskBatch | NumberedTasks, inner, *, rates=None):
    r"""The memories that MOML starts from: each task's parameters after the inner loop on its support set.

    .. math:: u_i = \theta_i'(\theta), \qquad i = 0, \dots, T - 1

    Args:
        apply, params, inner, rates: as in `maml.adapt`.
        tasks: all T tasks, each once; a `TaskBatch` in the order of their numbers. Queries do not enter.

    Returns:
        A pytree like `params`, with leaves `[T, ...]`.

    Raises:
        InputError: numbers that are not 0, ..., T - 1 in some order; as `maml.adapt`.

    Example:
        >>> from mlkernels import networks, tasks
        >>> from mlkernels.learners.maml import InnerLoop
        >>> network = networks.MLP(16)
        >>> everyone = tasks.sinusoid_population(support=4, queries=1, key=jax.random.key(0))
        >>> params = network.init(jax.random.key(1), (1,))
        >>> start(network.apply, params, everyone, InnerLoop(0.01, 1))["head"]["w"].shape
        (25, 16, 1)

    Source: Wang et al. 2023, the authors' public code; notebooks/08_more_steps_fewer_samples.
    """
    check_inner_loop(inner, implicit=True)
    batch, numbers = parted(tasks)
    problem, rates = problem_of(apply, params, batch, inner, rates, "half_sum_squares")
    found = all_adapted(problem, params, rates, batch)
    if numbers is None:
        return found
    if not isinstance(numbers, jax.core.Tracer) and sorted(np.asarray(numbers).tolist()) != list(range(len(batch))):
        do = "draw all of them, as tasks.sinusoid_population(tasks=None, ...)"
        raise bad_input("tasks", f"each of 0 to {len(batch) - 1} once", np.asarray(numbers).tolist(), do)
    return jax.tree.map(lambda leaf: leaf[jnp.argsort(numbers)], found)


def meta_gradient(
    apply: Callable,
    params,
    memories,
    tasks: NumberedTasks | TaskBatch,
    inner,
    memory: Memory,
    *,
    beta=None,
    rates=None,
    outer_loss: Loss = "half_sum_squares",
    reduce: str = "sum",
    sequential: bool | None = None,
):
    r"""MOML's loss, its gradient, and the memories after the step.

    .. math:: \nabla = \sum_{i \in B} \beta \Big(\frac{\partial\theta_i'}{\partial\theta}\Big)^{\!\top}
              \nabla\ell_i(u_i), \qquad
              u_i = (1 - \beta)\, u_i^{old} + \beta\, \theta_i'(\theta)

    for `moves="sampled"`; with "all" as `Memory` says. Neither beta nor the rates compile anew.

    Args:
        apply, params, inner, rates, outer_loss, reduce, sequential: as in `maml.meta_loss`; `inner` an `InnerLoop`.
        memories: those of all T tasks: like `params`, with leaves `[T, ...]`, as `start` makes them.
        tasks: B tasks with their numbers; or all T in their order.
        memory: the settings.
        beta: instead of `memory.beta`: a number that may be traced, as a slider's.

    Returns:
        `(loss, gradient, memories)`, the gradient like `params`, the memories new. The loss is NaN where traced
        numbers have no memory.

    Raises:
        InputError: numbers without a memory, memories that do not fit; as `maml.meta_loss`.

    Example:
        >>> from mlkernels import networks, tasks
        >>> from mlkernels.learners.maml import InnerLoop
        >>> network, inner = networks.MLP(16), InnerLoop(0.01, 1)
        >>> everyone = tasks.sinusoid_population(support=4, queries=1, key=jax.random.key(0))
        >>> some = tasks.sinusoid_population(tasks=3, support=4, queries=4, key=jax.random.key(1))
        >>> params = network.init(jax.random.key(2), (1,))
        >>> memories = start(network.apply, params, everyone, inner)
        >>> loss, gradient, memories = meta_gradient(network.apply, params, memories, some, inner, Memory(0.3))
        >>> sorted(gradient), memories["head"]["w"].shape
        (['head', 'layer1', 'layer2'], (25, 16, 1))

    Source: Wang et al. 2023, the authors' public code; notebooks/08_more_steps_fewer_samples.
    """
    check_inner_loop(inner, implicit=True)
    if not isinstance(memory, Memory):
        raise bad_input("memory", "a Memory", type(memory).__name__, "make one, as memory.Memory(0.3)")
    batch, numbers = numbered(tasks)
    problem, rates = problem_of(apply, params, batch, inner, rates, outer_loss, reduce, sequential)
    check_memories(memories, params)
    check_numbers(numbers, memories, whole_batch=not isinstance(tasks, NumberedTasks))
    beta = memory.beta if beta is None else known_or_traced("beta", beta, share)
    return _value_and_gradient(problem, memory.moves, beta, params, rates, memories, batch, numbers)


def numbered(tasks: TaskBatch | NumberedTasks) -> tuple[TaskBatch, Array]:
    """The tasks and their numbers; without any, they are all tasks in their order."""
    batch, numbers = parted(tasks)
    return batch, jnp.arange(len(batch)) if numbers is None and hasattr(
        getattr(batch, "support_x", None), "shape"
    ) else numbers


def check_memories(memories, params) -> None:
    """Refuse what is not like the parameters with one more axis in front."""
    do = "make them with memory.start, or take a result's"
    trees = memories, params
    leaves, like = map(jax.tree.leaves, trees)
    if not leaves or jax.tree.structure(memories) != jax.tree.structure(params):
        got, expected = (sorted({keystr(path[:2]) for path, _ in jax.tree.leaves_with_path(tree)}) for tree in trees)
        raise bad_input("memories", f"a tree like the parameters, {', '.join(expected)}", ", ".join(got) or "none", do)
    check_params(memories, "memories")
    total = jnp.shape(leaves[0])[:1]
    for leaf, part in zip(leaves, like, strict=True):
        shape, kind = (*total, *jnp.shape(part)), jnp.result_type(part)
        if not total or jnp.shape(leaf) != shape or jnp.result_type(leaf) != kind:
            expected = f"leaves [T, ...] of the parameters' shapes and types, such as {kind} {['T', *jnp.shape(part)]}"
            raise bad_input("memories", expected, f"{jnp.result_type(leaf)} {list(jnp.shape(leaf))}", do)
        if not isinstance(leaf, jax.core.Tracer) and not np.isfinite(np.asarray(leaf)).all():
            raise bad_input("memories", "finite numbers", "infinities or NaN", do)


def check_numbers(numbers, memories, *, whole_batch: bool = False) -> None:
    """Refuse numbers without a memory, where that can be seen."""
    total = len(jax.tree.leaves(memories)[0])
    if whole_batch and len(numbers) != total:
        do = "say which tasks they are, by tasks.NumberedTasks"
        raise bad_input("tasks", f"all {total} tasks that there are memories of", f"{len(numbers)} without numbers", do)
    fault = beyond(numbers, total)
    if fault is not None:
        do = "number the tasks from 0, and start a memory for each"
        raise bad_input("tasks", f"numbers from 0 to {total - 1}, as there are {total} memories", fault, do)


def beyond(numbers, total: int) -> list | None:
    """The numbers that are of none of so many tasks, if there are any and they are known."""
    if isinstance(numbers, jax.core.Tracer):
        return None
    numbers = np.asarray(numbers)
    return numbers[(numbers < 0) | (numbers >= total)].tolist() or None
