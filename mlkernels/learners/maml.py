"""MAML, first-order MAML, ANIL, iMAML and Reptile, as pure functions over `(init, apply)`.

One `InnerLoop` says which: MAML as it stands, FOMAML with `first_order=True`, ANIL with `adapt=("head",)`; iMAML is an
`ImplicitLoop`. In the place of an inner loop, Meta-RKHS-I and II are an `rkhs.Regularised` and an `rkhs.ClosedForm`,
adaptation in function space is a `function_space.FunctionSpace`, FIML a `few_iterations.FewIterations`; the numbers of
these last two are given and learned as `rates`. `fit` runs the outer loop with any optimiser of optax.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mlkernels.errors import bad_input
from mlkernels.inner_loop.descent import adapt
from mlkernels.inner_loop.implicit import ImplicitLoop
from mlkernels.inner_loop.losses import LOSSES, Loss, check_labels, check_loss
from mlkernels.inner_loop.settings import InnerLoop, per_layer
from mlkernels.learners.function_space.closed_form import FunctionSpace, fault_of_tasks
from mlkernels.learners.meta_gradient import outputs, value, value_and_direction, value_and_gradient, value_of_task
from mlkernels.learners.outer_loop.divergence import Divergence, DivergenceError
from mlkernels.learners.outer_loop.fit import FitResult, fit
from mlkernels.learners.outer_weights import Rule
from mlkernels.learners.problem import Problem, check_inner_loop, check_support, form_and_rates, problem_of, query_loss
from mlkernels.learners.rkhs.regularised import Regularised
from mlkernels.support.network_arguments import check_apply
from mlkernels.support.typed import typed
from mlkernels.tasks import TaskBatch
from mlkernels.tasks.batch import check_types

__all__ = [
    "LOSSES",
    "Divergence",
    "DivergenceError",
    "FitResult",
    "ImplicitLoop",
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

_outputs, _task_value, _value, _value_and_gradient, _value_and_direction = (
    jax.jit(function, static_argnums=0)
    for function in (outputs, value_of_task, value, value_and_gradient, value_and_direction)
)


def _solved(problem: Problem, params, rates, support_sets, found: Array) -> Array:
    """What was found; an `InputError` where it is NaN because a task could not be solved for in function space."""
    if not isinstance(problem.inner, FunctionSpace) or isinstance(found, jax.core.Tracer):
        return found
    if not jnp.isfinite(found).all():
        error = fault_of_tasks(problem.apply, params, rates, support_sets, problem.inner)
        if error is not None:
            raise error
    return found


@typed
def task_loss(
    apply: Callable, params, task: TaskBatch, inner: InnerLoop, *, rates=None, outer_loss: Loss = "half_sum_squares"
) -> Float[Array, ""]:
    r"""The loss on one task's queries after the inner loop on its support set.

    .. math:: \mathcal{L}(\theta) = \ell\big(f(X; \theta'(\theta)), Y\big)

    Args:
        apply, params, inner, rates: as in `adapt`; or what takes the place of an inner loop. Of a `FunctionSpace` or
            of `FewIterations` the rates are their numbers, in the form of `inner.numbers`.
        task: one task without the first axis (`vmap` hands it out so), or a batch of one.
        outer_loss: "half_sum_squares", "mean_squares" or "cross_entropy"; or a function `loss(outputs, labels)` that
            gives a scalar: hashable, and compiled once for each.

    Returns:
        A scalar.

    Raises:
        InputError: as `adapt`; an unknown loss; a `FunctionSpace` whose gamma rounding hides.

    Example:
        >>> from mlkernels import networks, tasks
        >>> network, batch = networks.MLP(16), tasks.sinusoid(tasks=3, support=4, queries=5, key=jax.random.key(0))
        >>> params = network.init(jax.random.key(1), (1,))
        >>> jax.vmap(lambda task: task_loss(network.apply, params, task, InnerLoop(0.01, 3)))(batch).shape
        (3,)

    Source: Finn et al. 2017.
    """
    check_apply(apply)
    if not isinstance(task, TaskBatch) or not all(hasattr(leaf, "ndim") for leaf in vars(task).values()):
        raise bad_input("task", "a TaskBatch of one task", type(task).__name__, "make one with mlkernels.tasks")
    check_types(task)
    if task.query_y.ndim == 3 and len(task) == 1:
        task = jax.tree.map(lambda leaf: leaf[0], task)
    if task.query_y.ndim != 2:
        raise bad_input("task", "one task", f"a batch of {len(task)}", "use meta_loss, or vmap over the batch")
    check_loss(outer_loss, "outer_loss")
    static, rates = form_and_rates(params, inner, rates)
    check_support(inner, task.support_y)
    check_labels(task.query_y, query_loss(inner, outer_loss), "query_y")
    problem = Problem(apply, static, outer_loss)
    return _solved(problem, params, rates, [task.support_x], _task_value(problem, params, rates, task))


@typed
def meta_loss(
    apply: Callable,
    params,
    tasks: TaskBatch,
    inner: InnerLoop,
    *,
    rates=None,
    outer_loss: Loss = "half_sum_squares",
    reduce: str = "sum",
    sequential: bool | None = None,
) -> Float[Array, ""]:
    r"""The loss of the outer loop: `task_loss` summed (or averaged) over tasks.

    .. math:: \mathcal{L}(\theta) = \sum_{i=1}^{B} \ell\big(f(X_i; \theta_i'(\theta)), Y_i\big)

    Args:
        apply, params, inner, rates: as in `task_loss`.
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
    problem, rates = problem_of(apply, params, tasks, inner, rates, outer_loss, reduce, sequential)
    return _solved(problem, params, rates, tasks.support_x, _value(problem, params, rates, tasks))


@typed
def meta_outputs(apply: Callable, params, tasks: TaskBatch, inner: InnerLoop, *, rates=None) -> Float[Array, "B n k"]:
    r"""What each task's network says of its queries after the inner loop; tasks one by one, in the memory of one.

    .. math:: F(\theta)_i = f\big(X_i; \theta_i'(\theta)\big)

    Args:
        apply, params, inner, rates: as in `task_loss`.
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
    if isinstance(inner, Regularised):
        do = "give the inner loop of test time, with no steps for the network as it is"
        expected = "an InnerLoop, rkhs.ClosedForm, function_space.FunctionSpace or few_iterations.FewIterations"
        raise bad_input("inner", expected, type(inner).__name__, do)
    problem, rates = problem_of(apply, params, tasks, inner, rates, "half_sum_squares")
    return _solved(problem, params, rates, tasks.support_x, _outputs(problem, params, rates, tasks))


def meta_gradient(
    apply: Callable,
    params,
    tasks: TaskBatch,
    inner: InnerLoop,
    *,
    rates=None,
    outer_loss: Loss = "half_sum_squares",
    reduce: str | Rule = "sum",
    sequential: bool | None = None,
    with_rates: bool = False,
):
    r"""The loss of the outer loop and its gradient through all inner steps.

    .. math:: \nabla_\theta \mathcal{L} = \sum_i \Big(\frac{\partial\theta_i'}{\partial\theta}\Big)^{\!\top}
              \nabla\ell_i(\theta_i')

    With `inner.first_order` the Jacobian is replaced by the identity.

    Args:
        apply, params, tasks, inner, rates, outer_loss, sequential: as in `meta_loss`.
        reduce: as in `meta_loss`; or a rule of `learners.outer_weights`, which weighs the tasks' gradients. The loss is
            then the mean of the tasks' losses, whatever their weights, so that runs can be compared; and all tasks'
            gradients are in memory together. With `with_rates` one weight is for both gradients of a task, by the inner
            products of both together.
        with_rates: by the rates too; if `rates` is None, by one rate for each adapted layer. With a `FunctionSpace` or
            `FewIterations`, by their numbers.

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
    problem, rates = problem_of(
        apply, params, tasks, inner, rates, outer_loss, reduce, sequential, with_rates, rules=True
    )
    loss, gradient = _value_and_gradient(problem, problem.trained(params, rates), rates, tasks)
    _solved(problem, params, rates, tasks.support_x, loss)
    return loss, (gradient["params"], gradient["rates"]) if with_rates else gradient


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
    check_inner_loop(inner, implicit=True)
    loss = "half_sum_squares"  # of the queries, which nobody sees here
    problem, rates = problem_of(apply, params, tasks, inner, rates, loss, sequential=sequential)
    return _value_and_direction(problem, params, rates, tasks)[1]
