"""When the loss is no number any more: where that happened, and why it is likely to have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from mlkernels.errors import InputError
from mlkernels.inner_loop.losses import curvature
from mlkernels.inner_loop.parts import joined, split, spread
from mlkernels.inner_loop.settings import InnerLoop
from mlkernels.kernels import empirical_ntk
from mlkernels.learners.few_iterations.settings import FewIterations
from mlkernels.learners.function_space.closed_form import FunctionSpace, fault_of_tasks
from mlkernels.learners.problem import Problem
from mlkernels.learners.rkhs.closed_form import ClosedForm
from mlkernels.learners.rkhs.regularised import Regularised
from mlkernels.tasks import TaskBatch


@dataclass(frozen=True)
class Divergence:
    """An outer step whose loss or new parameters were not finite.

    Args:
        step: the outer step, counted from 0.
        loss: its loss.
        culprit: "inner rate", "outer rate", "local rate" (of a `LocalMemory`), "alpha", "gamma" (of a `FunctionSpace`:
            hidden by rounding), "tasks" (they hold numbers that are not finite) or "unknown".
        cause: the same in a sentence, with the numbers.
        inner_limit: 2 / lambda_max as a share of the inner rate in effect, at the last finite parameters: below 1 the
            inner loop diverges on the linearised network. None if it could not be computed, or without inner steps.
        inner_limit_at_start: the same at the parameters that `fit` started from.
    """

    step: int
    loss: float
    culprit: str
    cause: str
    inner_limit: float | None
    inner_limit_at_start: float | None


class DivergenceError(InputError):
    """The loss became non-finite. `result` holds what `fit` would have returned: the last finite state."""

    def __init__(self, message: str, result: Any):
        super().__init__(message)
        self.result = result


def inner_limit(apply: Callable, params, rates, tasks: TaskBatch, inner: InnerLoop) -> float:
    r"""The factor that the inner rates could still be multiplied by before the linearised inner loop diverges.

    .. math:: \min_i \frac{2}{\lambda_{max}(c\, J_i \Lambda J_i^\top) + \beta \max\lambda}

    with J the Jacobian of the outputs on a support set by the adapted parameters, Lambda their rates (a tree that fits
    the adapted layers), beta the L2 term and c the loss's largest second derivative.
    """
    w, phi = split(params, inner.layers)
    rates = jax.tree.map(jnp.abs, spread(rates, w))
    roots = jax.tree.map(jnp.sqrt, rates)
    whole = {"w": w, "phi": phi, "roots": roots, "z": jax.tree.map(jnp.zeros_like, w)}
    scaled = _Scaled(apply)  # its NTK by z is J Lambda J'
    largest = max(
        float(jnp.linalg.eigvalsh(empirical_ntk(scaled, whole, task.support_x[0], outputs="full", part="z"))[-1])
        for task in tasks
    )
    largest *= curvature(inner.loss, tasks.support, tasks.outputs)
    largest += inner.l2 * max(float(rate.max()) for rate in jax.tree.leaves(rates))
    return 2 / largest if largest > 0 else float("inf")


@dataclass(frozen=True)
class _Scaled:
    """The network as a function of z, where the parameters are theta + sqrt(rates) z."""

    apply: Callable

    def __call__(self, whole, x):
        w = jax.tree.map(lambda p, root, z: p + root * z, whole["w"], whole["roots"], whole["z"])
        return self.apply(joined(w, whole["phi"]), x)


def explain(
    problem: Problem, start, last, tasks: TaskBatch, step: int, loss: float, failed=None, *, moving: str = "outer rate"
) -> Divergence:
    """The likely cause; `start` and `last` are `(params, rates)` at the start and in the last finite state.

    `failed` are those at which the loss was not finite, if that is known; `moving` names the rate of the steps that
    move the parameters.
    """
    if not all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(tasks)):
        return Divergence(step, loss, "tasks", "the tasks of this step hold numbers that are not finite", None, None)
    if isinstance(problem.inner, Regularised) and start[1]["alpha"] > 0:
        cause = f"alpha = {float(start[1]['alpha']):.4g} or the {moving} is likely too large: "
        cause += "beyond 1 / (2 L), L the loss's curvature, the objective has no minimum"
        return Divergence(step, loss, "alpha", cause, None, None)
    if isinstance(problem.inner, FunctionSpace):
        error = fault_of_tasks(problem.apply, *(failed or last), tasks.support_x, problem.inner)
        if error is not None and str(error).startswith("gamma"):
            cause = f"{error}, or lower the {moving}, at which it is learned" if problem.learn_rates else str(error)
            return Divergence(step, loss, "gamma", cause, None, None)
    if isinstance(problem.inner, ClosedForm | Regularised | FunctionSpace | FewIterations):
        cause = f"the {moving} is likely too large: there is no inner rate that could be"
        return Divergence(step, loss, moving, cause, None, None)
    if problem.inner.steps == 0:
        cause = f"there are no inner steps, so the {moving} is likely too large"
        return Divergence(step, loss, moving, cause, None, None)
    limits = []
    for params, rates in (start, last):
        try:
            limits.append(inner_limit(problem.apply, params, rates, tasks, problem.inner))
        except InputError:  # too little memory for the kernel
            limits.append(None)
    if None in limits or any(limit != limit for limit in limits):
        cause = f"the support kernel could not be computed: try a smaller inner rate first, then a smaller {moving}"
        return Divergence(step, loss, "unknown", cause, None, None)

    def against(limit, rates):
        if jax.tree.structure(rates) == jax.tree.structure(0.0) and jnp.ndim(rates) == 0:
            return f"inner rate {float(rates):.4g} against 2 / lambda_max = {limit * abs(float(rates)):.4g}"
        return f"inner rates against 2 / lambda_max: {1 / limit:.4g} times as large"

    at_start, at_last = (against(limit, rates) for limit, (_, rates) in zip(limits, (start, last), strict=True))
    if limits[0] < 1:
        culprit, cause = "inner rate", f"the inner rate is likely too large: at the start, {at_start}"
    elif step == 0:
        culprit, cause = "unknown", f"the inner rate is within its limit ({at_start}): look at parameters and labels"
    elif limits[1] < 1:
        cause = f"the {moving} is likely too large: it has driven the net from {at_start} at the start to {at_last}"
        culprit = moving
    else:
        cause = f"the {moving} is likely too large: the inner loop is within its limit ({at_last})"
        culprit = moving
    return Divergence(step, loss, culprit, cause, limits[1], limits[0])
