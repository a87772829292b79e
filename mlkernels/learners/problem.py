"""What the outer loop minimises: all of it that is no array, so that functions are compiled by it; and its checks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax

from mlkernels.errors import bad_input
from mlkernels.inner_loop.losses import Loss, check_labels, check_loss
from mlkernels.inner_loop.settings import InnerLoop, form, per_layer, rates_for
from mlkernels.support.arguments import one_of
from mlkernels.tasks import TaskBatch

_MANY = 10_000  # parameters (width 100, say) from which tasks in sequence were faster than vmap on two CPU cores


@dataclass(frozen=True)
class Problem:
    """The meta-loss without its arrays. Hashable: the one static argument of what is compiled for it.

    Args:
        apply: `apply(params, x) -> [N, k]`.
        inner: the inner loop without its rates, which are passed beside it, so that others do not compile anew.
        outer_loss, reduce: as in `maml.meta_loss`.
        sequential: tasks one by one, in the memory of one, not all at once.
        learn_rates: whether the inner rates are trained too.
    """

    apply: Callable
    inner: InnerLoop
    outer_loss: Loss
    reduce: str = "sum"
    sequential: bool = False
    learn_rates: bool = False

    def trained(self, params, rates) -> Any:
        """What is trained: the parameters, or `{"params": ..., "rates": ...}`."""
        return {"params": params, "rates": rates} if self.learn_rates else params

    def params_and_rates(self, trained, rates) -> tuple[Any, Any]:
        """Both from what is trained; `rates` are those that are not."""
        return (trained["params"], trained["rates"]) if self.learn_rates else (trained, rates)


def problem_of(
    apply: Callable, params, tasks, inner, rates, outer_loss, reduce="sum", sequential=None, learn_rates=False
) -> tuple[Problem, Any]:
    """The problem and the inner rates in effect, from the arguments of `maml.meta_gradient`, which it checks.

    Raises:
        InputError: no tasks that the losses can work with, rates or layers that do not fit.
    """
    if not isinstance(tasks, TaskBatch):
        raise bad_input("tasks", "a TaskBatch", type(tasks).__name__, "make one with mlkernels.tasks")
    if tasks.query_x.ndim < 3:
        raise bad_input("tasks", "a batch of tasks", "one task without its first axis", "use task_loss, or tasks[i]")
    check_loss(outer_loss, "outer_loss")
    check_labels(tasks.support_y, inner.loss, "support_y")
    check_labels(tasks.query_y, outer_loss, "query_y")
    one_of("reduce", reduce, ("sum", "mean"), do="it says how the tasks' losses are put together")
    rates = per_layer(params, inner) if learn_rates and rates is None else rates_for(params, inner, rates)
    sequential = in_sequence(params) if sequential is None else bool(sequential)
    return Problem(apply, form(inner), outer_loss, reduce, sequential, bool(learn_rates)), rates


def in_sequence(params) -> bool:
    """Whether tasks go one after the other where nobody says: on a CPU, when the network is not small.

    In sequence, memory is one task's; an accelerator does better on all tasks at once.
    """
    return jax.default_backend() == "cpu" and sum(leaf.size for leaf in jax.tree.leaves(params)) >= _MANY
