"""MAML, first-order MAML, ANIL and Reptile, as pure functions over `(init, apply)`.

One `InnerLoop` says which: MAML as it stands, FOMAML with `first_order=True`, ANIL with `adapt=("head",)`. Reptile has
a direction of its own. `fit` runs the outer loop with any optimiser of optax.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
from jax import Array

from mlkernels.errors import bad_input
from mlkernels.inner_loop.descent import adapt, adapted
from mlkernels.inner_loop.losses import LOSSES, check_labels, check_loss
from mlkernels.inner_loop.settings import InnerLoop, form, per_layer, rates_for
from mlkernels.learners.meta_gradient import (
    check_batch,
    check_reduce,
    in_sequence,
    value_and_direction,
    value_and_gradient,
    value_of_batch,
    value_of_task,
)
from mlkernels.learners.outer_loop.divergence import Divergence, DivergenceError
from mlkernels.learners.outer_loop.fit import FitResult, fit
from mlkernels.tasks import TaskBatch

__all__ = [
    "LOSSES",
    "Divergence",
    "DivergenceError",
    "FitResult",
    "InnerLoop",
    "adapt",
    "fit",
    "meta_gradient",
    "meta_loss",
    "meta_outputs",
    "per_layer",
    "reptile_direction",
    "task_loss",
]

_jit_task_loss = partial(jax.jit, static_argnums=(0, 4, 5))(value_of_task)
_jit_meta_loss = partial(jax.jit, static_argnums=(0, 4, 5, 6, 7))(value_of_batch)
_jit_gradient = partial(jax.jit, static_argnums=(0, 4, 5, 6, 7, 8))(value_and_gradient)
_jit_direction = partial(jax.jit, static_argnums=(0, 4, 5, 6, 7))(value_and_direction)


def _ready(params, tasks, inner, rates, outer_loss, reduce, sequential):
    """The checks of the functions below, and what they pass on."""
    check_batch(tasks, inner, outer_loss)
    check_reduce(reduce)
    rates = rates_for(params, inner, rates)
    return rates, form(inner), in_sequence(params) if sequential is None else bool(sequential)


def task_loss(
    apply: Callable, params, task: TaskBatch, inner: InnerLoop, *, rates=None, outer_loss: str = "half_sum_squares"
) -> Array:
    r"""The loss on one task's queries after the inner loop on its support set.

    .. math:: \mathcal{L}(\theta) = \ell\big(f(X; \theta'(\theta)), Y\big)

    Args:
        apply, params, inner, rates: as in `adapt`.
        task: one task without the first axis (`vmap` hands it out so), or a batch of one.
        outer_loss: "half_sum_squares", "mean_squares" or "cross_entropy".

    Returns:
        A scalar.

    Raises:
        InputError: as `adapt`; or an unknown loss.

    Example:
        >>> from mlkernels import networks, tasks
        >>> network, batch = networks.MLP(16), tasks.sinusoid(tasks=3, support=4, queries=5, key=jax.random.key(0))
        >>> params = network.init(jax.random.key(1), (1,))
        >>> jax.vmap(lambda task: task_loss(network.apply, params, task, InnerLoop(0.01, 3)))(batch).shape
        (3,)

    Source: Finn et al. 2017.
    """
    if task.query_y.ndim == 3 and len(task) == 1:
        task = jax.tree.map(lambda leaf: leaf[0], task)
    if task.query_y.ndim != 2:
        raise bad_input("task", "one task", f"a batch of {len(task)}", "use meta_loss, or vmap over the batch")
    check_loss(outer_loss, "outer_loss")
    check_labels(task.support_y, inner.loss, "support_y")
    check_labels(task.query_y, outer_loss, "query_y")
    return _jit_task_loss(apply, params, rates_for(params, inner, rates), task, form(inner), outer_loss)


def meta_loss(
    apply: Callable,
    params,
    tasks: TaskBatch,
    inner: InnerLoop,
    *,
    rates=None,
    outer_loss: str = "half_sum_squares",
    reduce: str = "sum",
    sequential: bool | None = None,
) -> Array:
    r"""The loss of the outer loop: `task_loss` summed (or averaged) over tasks.

    .. math:: \mathcal{L}(\theta) = \sum_{i=1}^{B} \ell\big(f(X_i; \theta_i'(\theta)), Y_i\big)

    Args:
        apply, params, inner, rates: as in `adapt`.
        tasks: B tasks.
        outer_loss: as in `task_loss`.
        reduce: "sum" (the theory's) or "mean" over tasks.
        sequential: tasks one by one, in the memory of one, not all at once; None: as was faster for such a network.

    Returns:
        A scalar.

    Raises:
        InputError: as `task_loss`.

    Example:
        >>> from mlkernels import networks, tasks
        >>> network, batch = networks.MLP(16), tasks.sinusoid(tasks=3, support=4, queries=5, key=jax.random.key(0))
        >>> params = network.init(jax.random.key(1), (1,))
        >>> meta_loss(network.apply, params, batch, InnerLoop(0.01, 3)).shape
        ()

    Source: Finn et al. 2017; Wang et al. 2022 for the sum of halved squares; notebooks/02_maml_linear_rate.
    """
    rates, static, sequential = _ready(params, tasks, inner, rates, outer_loss, reduce, sequential)
    return _jit_meta_loss(apply, params, rates, tasks, static, outer_loss, reduce, sequential)


@partial(jax.jit, static_argnums=(0, 4))
def _jit_outputs(apply, params, rates, tasks: TaskBatch, inner: InnerLoop) -> Array:
    def one(task):
        return apply(adapted(apply, params, rates, task.support_x, task.support_y, inner), task.query_x)

    return jax.lax.map(one, tasks)


def meta_outputs(apply: Callable, params, tasks: TaskBatch, inner: InnerLoop, *, rates=None) -> Array:
    r"""What each task's network says of its queries after the inner loop; tasks one by one, in the memory of one.

    .. math:: F(\theta)_i = f\big(X_i; \theta_i'(\theta)\big)

    Args:
        apply, params, inner, rates: as in `adapt`.
        tasks: B tasks.

    Returns:
        `[B, n, k]`.

    Raises:
        InputError: as `task_loss`.

    Example:
        >>> from mlkernels import networks, tasks
        >>> network, batch = networks.MLP(16), tasks.sinusoid(tasks=3, support=4, queries=5, key=jax.random.key(0))
        >>> meta_outputs(network.apply, network.init(jax.random.key(1), (1,)), batch, InnerLoop(0.01, 3)).shape
        (3, 5, 1)

    Source: Wang et al. 2022, whose MetaNTK is the kernel of these outputs; notebooks/02_maml_linear_rate.
    """
    check_batch(tasks, inner, "half_sum_squares")
    return _jit_outputs(apply, params, rates_for(params, inner, rates), tasks, form(inner))


def meta_gradient(
    apply: Callable,
    params,
    tasks: TaskBatch,
    inner: InnerLoop,
    *,
    rates=None,
    outer_loss: str = "half_sum_squares",
    reduce: str = "sum",
    sequential: bool | None = None,
    with_rates: bool = False,
):
    r"""The loss of the outer loop and its gradient through all inner steps.

    .. math:: \nabla_\theta \mathcal{L} = \sum_i \Big(\frac{\partial\theta_i'}{\partial\theta}\Big)^{\!\top}
              \nabla\ell_i(\theta_i')

    With `inner.first_order` the Jacobian is replaced by the identity.

    Args:
        apply, params, tasks, inner, rates, outer_loss, reduce, sequential: as in `meta_loss`.
        with_rates: by the rates too; if `rates` is None, by one rate for each adapted layer.

    Returns:
        `(loss, gradient)`, the gradient like `params`; with `with_rates` a pair, like `(params, rates)`.

    Raises:
        InputError: as `task_loss`.

    Example:
        >>> from mlkernels import networks, tasks
        >>> network, batch = networks.MLP(16), tasks.sinusoid(tasks=3, support=4, queries=5, key=jax.random.key(0))
        >>> params = network.init(jax.random.key(1), (1,))
        >>> anil = InnerLoop(0.01, 3, adapt=("head",))
        >>> loss, (gradient, by_rates) = meta_gradient(network.apply, params, batch, anil, with_rates=True)
        >>> sorted(gradient), sorted(by_rates)
        (['head', 'layer1', 'layer2'], ['head'])

    Source: Finn et al. 2017 (MAML, FOMAML), Raghu et al. 2020 (ANIL), Li et al. 2017 (learned rates).
    """
    if with_rates and rates is None:
        rates = per_layer(params, inner)
    rates, static, sequential = _ready(params, tasks, inner, rates, outer_loss, reduce, sequential)
    return _jit_gradient(apply, params, rates, tasks, static, outer_loss, reduce, sequential, bool(with_rates))


def reptile_direction(
    apply: Callable, params, tasks: TaskBatch, inner: InnerLoop, *, rates=None, sequential: bool | None = None
):
    r"""Reptile's pseudo-gradient, for any optimiser: the mean way back from the adapted parameters.

    .. math:: \frac1B \sum_i (\theta - \theta_i')

    Gradient descent at rate epsilon goes that fraction of the way to the adapted parameters. Queries do not enter.

    Args:
        apply, params, tasks, inner, rates, sequential: as in `meta_loss`.

    Returns:
        A pytree like `params`; zero in the layers that the inner loop leaves alone.

    Raises:
        InputError: as `adapt`.

    Example:
        >>> from mlkernels import networks, tasks
        >>> network, batch = networks.MLP(16), tasks.sinusoid(tasks=3, support=4, queries=5, key=jax.random.key(0))
        >>> params = network.init(jax.random.key(1), (1,))
        >>> sorted(reptile_direction(network.apply, params, batch, InnerLoop(0.01, 3)))
        ['head', 'layer1', 'layer2']

    Source: Nichol et al. 2018.
    """
    loss = "half_sum_squares"  # of the queries, which nobody sees here
    rates, static, sequential = _ready(params, tasks, inner, rates, loss, "sum", sequential)
    return _jit_direction(apply, params, rates, tasks, static, loss, "sum", sequential)[1]
