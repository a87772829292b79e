"""The outer loop's loss and gradients without checks or compilation: what `maml` and its `fit` share."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from mlkernels.errors import bad_input
from mlkernels.learners import _wide
from mlkernels.learners._inner import InnerLoop, adapted
from mlkernels.learners._losses import check_labels, check_loss, loss_of
from mlkernels.tasks import TaskBatch

_MANY = 10_000  # parameters (width 100, say) from which tasks in sequence were faster than vmap on two CPU cores


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


def add_up(one: Callable, tasks: TaskBatch, sequential: bool):
    """The sum over tasks of `one(task)`, any pytree; in sequence it holds one task's alone.

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


def value_and_gradient(apply, params, rates, tasks, inner, outer_loss, reduce, sequential, with_rates):
    """The outer loss and its gradient, without checks: `meta_gradient` and `fit` share it."""
    if _wide.fits(apply, rates, tasks, inner, with_rates):
        total = _wide.value_and_gradient(apply, params, rates, tasks, inner, outer_loss)
        return jax.tree.map(lambda leaf: leaf / tasks.tasks, total) if reduce == "mean" else total
    which = (0, 1) if with_rates else 0
    if not sequential:
        total = jax.value_and_grad(
            lambda params, rates: value_of_batch(apply, params, rates, tasks, inner, outer_loss, reduce, False), which
        )
        return total(params, rates)

    def one(task):
        return jax.value_and_grad(
            lambda params, rates: value_of_task(apply, params, rates, task, inner, outer_loss), which
        )(params, rates)

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
    if reduce not in ("sum", "mean"):
        raise bad_input("reduce", "'sum' or 'mean' over tasks", repr(reduce), "name one of them")
