"""The outer loop's loss and gradients without checks or compilation: what `maml` and its `fit` share."""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from mlkernels.errors import bad_input
from mlkernels.inner_loop.descent import adapted
from mlkernels.inner_loop.losses import check_labels, check_loss, loss_of
from mlkernels.inner_loop.settings import InnerLoop
from mlkernels.learners import wide_gradient
from mlkernels.networks import Apply
from mlkernels.support.arguments import one_of
from mlkernels.tasks import TaskBatch

_MANY = 10_000  # parameters (width 100, say) from which tasks in sequence were faster than vmap on two CPU cores
_PIXELS = 4096  # of images that go through a network together


def in_sequence(params) -> bool:
    """Whether tasks go one after the other where nobody says: on a CPU, when the network is not small.

    In sequence, memory is one task's; an accelerator does better on all tasks at once.

    Example:
        >>> in_sequence({"head": jnp.ones(3)})
        False
    """
    return jax.default_backend() == "cpu" and sum(leaf.size for leaf in jax.tree.leaves(params)) >= _MANY


def check_batch(tasks, inner: InnerLoop, outer_loss: str) -> None:
    """Raise an `InputError` unless these are tasks that the losses can work with; traced labels pass.

    Example:
        >>> from mlkernels.tasks import sinusoid
        >>> batch = sinusoid(tasks=1, support=2, queries=2, key=jax.random.key(0))
        >>> check_batch(batch, InnerLoop(0.1, 1), "mean_squares")
    """
    if not isinstance(tasks, TaskBatch):
        raise bad_input("tasks", "a TaskBatch", type(tasks).__name__, "make one with mlkernels.tasks")
    if tasks.query_x.ndim < 3:
        raise bad_input("tasks", "a batch of tasks", "one task without its first axis", "use task_loss, or tasks[i]")
    check_loss(outer_loss, "outer_loss")
    check_labels(tasks.support_y, inner.loss, "support_y")
    check_labels(tasks.query_y, outer_loss, "query_y")


def value_of_task(apply, params, rates, task: TaskBatch, inner: InnerLoop, outer_loss: str) -> Array:
    theta = adapted(apply, params, rates, task.support_x, task.support_y, inner)
    return loss_of(outer_loss, apply(theta, task.query_x), task.query_y)


def value_of_batch(apply, params, rates, tasks, inner, outer_loss, reduce, sequential) -> Array:
    def one(task):
        return value_of_task(apply, params, rates, task, inner, outer_loss)

    losses = jax.lax.map(jax.checkpoint(one, prevent_cse=False), tasks) if sequential else jax.vmap(one)(tasks)
    return losses.mean() if reduce == "mean" else losses.sum()


def add_up(one: Callable, tasks, sequential: bool):
    """The sum over tasks (or whatever a tree's first axis counts) of `one(task)`, any pytree; in sequence it holds one
    task's alone.

    Example:
        >>> from mlkernels.tasks import sinusoid
        >>> batch = sinusoid(tasks=3, support=2, queries=2, key=jax.random.key(0))
        >>> float(add_up(lambda task: jnp.ones(()), batch, True))
        3.0
    """
    if not sequential:
        return jax.tree.map(lambda leaf: leaf.sum(0), jax.vmap(one)(tasks))
    first = jax.eval_shape(one, jax.tree.map(lambda leaf: leaf[0], tasks))
    zero = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), first)
    return jax.lax.scan(lambda total, task: (jax.tree.map(jnp.add, total, one(task)), None), zero, tasks)[0]


def at_once(apply, points: int, shape: tuple[int, ...]) -> int:
    """How many of a task's queries go through the network together where tasks go in sequence: images few by few.

    What lies between the layers stays in the cache then. On two CPU cores that made Conv-4's meta-gradient 1.2 to 1.4
    times as fast as with all 75 queries together, in a third to a tenth of the memory.

    Args:
        apply: only networks of `mlkernels.networks` are known to treat each point by itself.
        points: the queries; the answer divides their number.
        shape: of one, `[height, width, channels]` for an image.

    Example:
        >>> from mlkernels.networks import MLP, Conv4
        >>> conv = Conv4(8).apply
        >>> at_once(conv, 75, (28, 28, 1)), at_once(conv, 75, (84, 84, 3)), at_once(MLP(8).apply, 75, (6,))
        (5, 1, 75)
    """
    if len(shape) < 3 or jax.default_backend() != "cpu" or not isinstance(apply, Apply):
        return points
    most = max(1, _PIXELS // math.prod(shape[:-1]))
    return max(count for count in range(1, min(most, points) + 1) if points % count == 0)


def _of_queries(apply, theta, task: TaskBatch, outer_loss: str):
    """The loss on one task's queries and its gradient by the adapted parameters."""

    def part(queries):
        x, y = queries
        return jax.value_and_grad(lambda theta: loss_of(outer_loss, apply(theta, x), y))(theta)

    x, y = task.query_x, task.query_y
    count = at_once(apply, len(x), x.shape[1:])
    if count == len(x):
        return part((x, y))
    total = add_up(part, [a.reshape(-1, count, *a.shape[1:]) for a in (x, y)], True)
    return total if outer_loss == "half_sum_squares" else jax.tree.map(lambda leaf: leaf * (count / len(x)), total)


def value_and_gradient(apply, params, rates, tasks, inner, outer_loss, reduce, sequential, with_rates):
    """The outer loss and its gradient, without checks: `meta_gradient` and `fit` share it."""
    if wide_gradient.fits(apply, params, rates, tasks, inner, with_rates):
        total = wide_gradient.value_and_gradient(apply, params, rates, tasks, inner, outer_loss)
        return jax.tree.map(lambda leaf: leaf / tasks.tasks, total) if reduce == "mean" else total
    if not sequential:
        total = jax.value_and_grad(
            lambda params, rates: value_of_batch(apply, params, rates, tasks, inner, outer_loss, reduce, False),
            (0, 1) if with_rates else 0,
        )
        return total(params, rates)

    def one(task):
        support, by = (task.support_x, task.support_y), (params, rates) if with_rates else (params,)
        theta, pull = jax.vjp(lambda params, rates=rates: adapted(apply, params, rates, *support, inner), *by)
        loss, gradient = _of_queries(apply, theta, task, outer_loss)
        return loss, pull(gradient) if with_rates else pull(gradient)[0]

    total = add_up(one, tasks, True)
    return jax.tree.map(lambda leaf: leaf / tasks.tasks, total) if reduce == "mean" else total


def value_and_direction(apply, params, rates, tasks, inner, outer_loss, reduce, sequential):
    """The outer loss (for the record) and Reptile's direction, without checks."""

    def one(task):
        theta = adapted(apply, params, rates, task.support_x, task.support_y, inner)
        loss = loss_of(outer_loss, apply(theta, task.query_x), task.query_y)
        return loss, jax.tree.map(lambda p, q: (p - q) / tasks.tasks, params, theta)

    loss, direction = add_up(one, tasks, sequential)
    return (loss / tasks.tasks if reduce == "mean" else loss), direction


def check_reduce(reduce: str) -> None:
    """Raise an `InputError` unless this says how losses of tasks are put together.

    Example:
        >>> check_reduce("sum")
    """
    one_of("reduce", reduce, ("sum", "mean"), do="it says how the tasks' losses are put together")
