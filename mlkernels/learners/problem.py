"""What the outer loop minimises: all of it that is no array, so that functions are compiled by it; and its checks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from mlkernels.errors import bad_input
from mlkernels.inner_loop.implicit import ImplicitLoop
from mlkernels.inner_loop.losses import Loss, check_labels, check_loss
from mlkernels.inner_loop.settings import InnerLoop, form, per_layer, rates_for
from mlkernels.learners.few_iterations.descent import check_classes
from mlkernels.learners.few_iterations.settings import FewIterations
from mlkernels.learners.function_space.closed_form import FunctionSpace, numbers_for
from mlkernels.learners.outer_weights import Rule
from mlkernels.learners.rkhs.closed_form import ClosedForm
from mlkernels.learners.rkhs.regularised import Regularised
from mlkernels.support.arguments import flag, one_of
from mlkernels.support.network_arguments import check_apply, check_params
from mlkernels.tasks import TaskBatch
from mlkernels.tasks.batch import check_types

Inner = InnerLoop | ClosedForm | Regularised | FunctionSpace | FewIterations
_MANY = 10_000  # parameters (width 100, say) from which tasks in sequence were faster than vmap on two CPU cores


@dataclass(frozen=True)
class Problem:
    """The meta-loss without its arrays. Hashable: the one static argument of what is compiled for it.

    Args:
        apply: `apply(params, x) -> [N, k]`.
        inner: the inner loop without its rates, or what stands in its place without its numbers; these are passed
            beside it, so that others do not compile anew.
        outer_loss, reduce: as in `maml.meta_gradient`.
        sequential: tasks one by one, in the memory of one, not all at once.
        learn_rates: whether the inner rates are trained too; of a `FunctionSpace` or `FewIterations`, their numbers.
    """

    apply: Callable
    inner: Inner
    outer_loss: Loss
    reduce: str | Rule = "sum"
    sequential: bool = False
    learn_rates: bool = False

    def trained(self, params, rates) -> Any:
        """What is trained: the parameters, or `{"params": ..., "rates": ...}`."""
        return {"params": params, "rates": rates} if self.learn_rates else params

    def params_and_rates(self, trained, rates) -> tuple[Any, Any]:
        """Both from what is trained; `rates` are those that are not."""
        return (trained["params"], trained["rates"]) if self.learn_rates else (trained, rates)


def problem_of(
    apply: Callable,
    params,
    tasks,
    inner,
    rates,
    outer_loss,
    reduce="sum",
    sequential=None,
    learn_rates=False,
    *,
    rules=False,
) -> tuple[Problem, Any]:
    """The problem and the inner rates in effect, from the arguments of `maml.meta_gradient`, which it checks.

    With `rules`, `reduce` may be a rule of `outer_weights`.

    Raises:
        InputError: no tasks that the losses can work with, rates or layers that do not fit.
    """
    check_apply(apply)
    if not isinstance(tasks, TaskBatch) or not all(hasattr(leaf, "ndim") for leaf in vars(tasks).values()):
        got = "one without arrays" if isinstance(tasks, TaskBatch) else type(tasks).__name__
        raise bad_input("tasks", "a TaskBatch", got, "make one with mlkernels.tasks")
    if tasks.query_x.ndim < 3:
        raise bad_input("tasks", "a batch of tasks", "one task without its first axis", "use task_loss, or tasks[i]")
    check_types(tasks)
    if not tasks.tasks or not tasks.queries:
        raise bad_input("tasks", "one or more, with one query or more", tasks, "draw some")
    check_loss(outer_loss, "outer_loss")
    static, rates = form_and_rates(params, inner, rates, learn_rates)
    check_support(inner, tasks.support_y)
    check_labels(tasks.query_y, query_loss(inner, outer_loss), "query_y")
    check_reduce(reduce, rules)
    sequential = in_sequence(params) if sequential is None else flag("sequential", sequential)
    return Problem(apply, static, outer_loss, reduce, sequential, flag("learn_rates", learn_rates)), rates


def form_and_rates(params, inner, rates, learn_rates=False) -> tuple[Inner, Any]:
    """An inner loop without its rates, and these; of what stands in its place the same of all its numbers.

    Rates can be given or learned in an inner loop, and numbers in a `FunctionSpace` or in `FewIterations`.
    """
    if not isinstance(inner, Inner):
        got, do = type(inner).__name__, "make one, as maml.InnerLoop(0.1, 5)"
        expected = "an InnerLoop, rkhs.ClosedForm, rkhs.Regularised, function_space.FunctionSpace or "
        expected += "few_iterations.FewIterations"
        raise bad_input("inner", expected, got, do)
    check_params(params)
    if learn_rates and isinstance(inner, ImplicitLoop):
        do = "leave them as they are: its solution does not depend on them"
        raise bad_input("learn_rates", "False with an ImplicitLoop", True, do)
    if isinstance(inner, InnerLoop):
        rates = per_layer(params, inner) if learn_rates and rates is None else rates_for(params, inner, rates)
        return form(inner), rates
    if isinstance(inner, FunctionSpace | FewIterations):
        return inner.form, numbers_for(inner, rates)
    for name, given in (("rates", rates), ("learn_rates", learn_rates or None)):
        if given is not None:
            raise bad_input(name, f"nothing with {type(inner).__name__}", given, "leave it out: there is no inner loop")
    return inner.form, inner.numbers


def check_support(inner, labels) -> None:
    """Refuse labels of support sets that the inner problem cannot work with."""
    check_labels(labels, inner.loss, "support_y")
    if isinstance(inner, FewIterations):
        check_classes(labels, "support_y")


def query_loss(inner, outer_loss: Loss) -> Loss:
    """The loss that a task's queries are under."""
    return inner.loss if isinstance(inner, Regularised) else outer_loss


def check_reduce(reduce, rules: bool = False) -> None:
    """Refuse what is no way of putting tasks together; and a rule for their gradients, unless `rules`."""
    if not isinstance(reduce, Rule):
        do = "it says how the tasks' losses are put together"
        one_of("reduce", reduce, ("sum", "mean"), do=f"{do}; rules are in learners.outer_weights" if rules else do)
    elif not rules:
        do = "name one of them: a rule weighs gradients, in maml.meta_gradient and maml.fit"
        raise bad_input("reduce", "sum or mean", reduce, do)


def check_inner_loop(inner, implicit: bool = False) -> None:
    """Refuse what is no loop in parameter space; and one that is differentiated implicitly, unless `implicit`."""
    if not (isinstance(inner, InnerLoop) and (implicit or type(inner) is InnerLoop)):
        raise bad_input("inner", "an InnerLoop", type(inner).__name__, "make one, as maml.InnerLoop(0.1, 5)")


def in_sequence(params) -> bool:
    """Whether tasks go one after the other where nobody says: on a CPU, when the network is not small.

    In sequence, memory is one task's; an accelerator does better on all tasks at once.
    """
    return jax.default_backend() == "cpu" and sum(np.size(leaf) for leaf in jax.tree.leaves(params)) >= _MANY
