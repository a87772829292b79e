"""The outer loop's loss and its gradients, without checks or compilation: what `maml` and its `fit` share."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

from mlkernels.inner_loop.descent import adapted
from mlkernels.inner_loop.losses import loss_of
from mlkernels.learners import wide_gradient
from mlkernels.learners.few_iterations import learner as few_iterations
from mlkernels.learners.few_iterations.settings import FewIterations
from mlkernels.learners.function_space import closed_form as function_space
from mlkernels.learners.function_space.closed_form import FunctionSpace
from mlkernels.learners.outer_weights import Rule, combine
from mlkernels.learners.problem import Problem
from mlkernels.learners.rkhs import closed_form, regularised
from mlkernels.learners.rkhs.closed_form import ClosedForm
from mlkernels.learners.rkhs.regularised import Regularised
from mlkernels.networks import Apply
from mlkernels.tasks import TaskBatch

# What stands in the place of an inner loop and makes no parameters of the network, to the module of its functions.
_CLOSED = {ClosedForm: closed_form, FunctionSpace: function_space, FewIterations: few_iterations}
_PIXELS = 4096  # of images that go through a network together


def adapted_to(problem: Problem, params, rates, task: TaskBatch):
    """What the support set of one task makes of the parameters: `said` is a function of it."""
    inner, module = problem.inner, _module_of(problem.inner)
    adapt = module.adapted if module else adapted
    more = (task.query_x,) if isinstance(inner, FewIterations) else ()  # which may look at the queries
    return adapt(problem.apply, params, rates, task.support_x, task.support_y, *more, inner)


def said(problem: Problem, state, x: Array) -> Array:
    """The adapted outputs at some inputs."""
    module = _module_of(problem.inner)
    return module.predict(problem.apply, state, x, problem.inner) if module else problem.apply(state, x)


def _module_of(inner):
    """Where the functions of these settings are; None for those that make parameters of the network."""
    return next((module for kind, module in _CLOSED.items() if isinstance(inner, kind)), None)


def outputs_of_task(problem: Problem, params, rates, task: TaskBatch) -> Array:
    """The outputs on one task's queries after its adaptation."""
    return said(problem, adapted_to(problem, params, rates, task), task.query_x)


def outputs(problem: Problem, params, rates, tasks: TaskBatch) -> Array:
    """Those of all tasks, in the memory of one."""
    return jax.lax.map(partial(outputs_of_task, problem, params, rates), tasks)


def value_of_task(problem: Problem, params, rates, task: TaskBatch) -> Array:
    """The loss on one task's queries after its inner loop; with `Regularised` its objective."""
    if isinstance(problem.inner, Regularised):
        return regularised.value_of_task(problem.apply, params, rates, task, problem.inner)
    return loss_of(problem.outer_loss, outputs_of_task(problem, params, rates, task), task.query_y)


def value(problem: Problem, params, rates, tasks: TaskBatch) -> Array:
    """The outer loss."""
    one = partial(value_of_task, problem, params, rates)
    losses = jax.lax.map(jax.checkpoint(one, prevent_cse=False), tasks) if problem.sequential else jax.vmap(one)(tasks)
    return losses.mean() if problem.reduce == "mean" else losses.sum()


def value_and_gradient(problem: Problem, trained, rates, tasks: TaskBatch):
    """The outer loss and its gradient by what is trained, as `problem.trained` puts it together.

    With a rule for `problem.reduce`: the mean of the tasks' losses, whatever their weights, and the weighted gradient.
    """
    if isinstance(problem.reduce, Rule):
        losses, gradients = values_and_gradients(problem, trained, rates, tasks)
        return losses.mean(), combine(problem.reduce, losses, gradients)[1]
    if wide_gradient.fits(problem, trained, rates, tasks):
        return mean_or_sum(problem, wide_gradient.value_and_gradient(problem, trained, rates, tasks), tasks)
    if isinstance(problem.inner, Regularised):

        def each(task):
            return regularised.value_and_gradient_of_task(problem.apply, trained, rates, task, problem.inner)

        return mean_or_sum(problem, add_up(each, tasks, problem.sequential), tasks)
    if not problem.sequential:

        def total(trained):
            return value(problem, *problem.params_and_rates(trained, rates), tasks)

        return jax.value_and_grad(total)(trained)

    one = partial(_in_two_parts, problem, trained, rates)
    return mean_or_sum(problem, add_up(one, tasks, True), tasks)


def values_and_gradients(problem: Problem, trained, rates, tasks: TaskBatch):
    """Those of each task apart, `[B]` and leaves `[B, ...]`: all gradients are in memory together."""
    if isinstance(problem.inner, Regularised):

        def one(task):
            return regularised.value_and_gradient_of_task(problem.apply, trained, rates, task, problem.inner)

    elif problem.sequential:
        one = partial(_in_two_parts, problem, trained, rates)
    else:

        def one(task):
            def of_task(trained):
                return value_of_task(problem, *problem.params_and_rates(trained, rates), task)

            return jax.value_and_grad(of_task)(trained)

    return jax.lax.map(one, tasks) if problem.sequential else jax.vmap(one)(tasks)


def value_and_direction(problem: Problem, params, rates, tasks: TaskBatch):
    """The outer loss (for the record) and Reptile's direction."""

    def one(task):
        theta = adapted(problem.apply, params, rates, task.support_x, task.support_y, problem.inner)
        loss = loss_of(problem.outer_loss, problem.apply(theta, task.query_x), task.query_y)
        return loss, jax.tree.map(lambda p, q: (p - q) / tasks.tasks, params, theta)

    loss, direction = add_up(one, tasks, problem.sequential)
    return mean_or_sum(problem, loss, tasks), direction


def add_up(one: Callable, tasks, sequential: bool):
    """The sum over tasks (or whatever a tree's first axis counts) of `one(task)`, any pytree; in sequence it holds one
    task's alone.
    """
    if not sequential:
        return jax.tree.map(lambda leaf: leaf.sum(0), jax.vmap(one)(tasks))
    first = jax.eval_shape(one, jax.tree.map(lambda leaf: leaf[0], tasks))
    zero = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), first)
    return jax.lax.scan(lambda total, task: (jax.tree.map(jnp.add, total, one(task)), None), zero, tasks)[0]


def mean_or_sum(problem: Problem, total, tasks: TaskBatch):
    """A tree of sums over tasks as `problem.reduce` says."""
    return jax.tree.map(lambda leaf: leaf / tasks.tasks, total) if problem.reduce == "mean" else total


def _in_two_parts(problem: Problem, trained, rates, task: TaskBatch):
    """One task's loss and gradient: forward through its adaptation, its queries few by few, and back."""
    state, pull = jax.vjp(lambda trained: adapted_to(problem, *problem.params_and_rates(trained, rates), task), trained)
    loss, gradient = _of_queries(problem, state, task)
    return loss, pull(gradient)[0]


def _of_queries(problem: Problem, state, task: TaskBatch):
    """The loss on one task's queries and its gradient by the adapted state."""

    def part(queries):
        x, y = queries
        return jax.value_and_grad(lambda state: loss_of(problem.outer_loss, said(problem, state, x), y))(state)

    x, y = task.query_x, task.query_y
    count = len(x) if callable(problem.outer_loss) else at_once(problem.apply, len(x), x.shape[1:])
    if count == len(x):  # always with a function, of which nobody knows how its parts make the whole
        return part((x, y))
    total = add_up(part, [a.reshape(-1, count, *a.shape[1:]) for a in (x, y)], True)
    if problem.outer_loss == "half_sum_squares":
        return total
    return jax.tree.map(lambda leaf: leaf * (count / len(x)), total)


def at_once(apply, points: int, shape: tuple[int, ...]) -> int:
    """How many of a task's queries go through the network together where tasks go in sequence: images few by few.

    What lies between the layers stays in the cache then. On two CPU cores that made Conv-4's meta-gradient 1.2 to 1.4
    times as fast as with all 75 queries together, in a third to a tenth of the memory. Only networks of
    `mlkernels.networks` are known to treat each point by itself; the answer divides their number.
    """
    if len(shape) < 3 or jax.default_backend() != "cpu" or not isinstance(apply, Apply):
        return points
    most = max(1, _PIXELS // math.prod(shape[:-1]))
    return max(count for count in range(1, min(most, points) + 1) if points % count == 0)
