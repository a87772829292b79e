"""Meta-RKHS-I: no inner loop in training, a term of the loss instead that rewards a steep loss of each task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from mlkernels.inner_loop.losses import Loss, check_loss, loss_of
from mlkernels.support.arguments import number, one_of
from mlkernels.tasks import TaskBatch

BATCHES = ("one", "two")


@dataclass(frozen=True)
class Regularised:
    r"""The settings of Meta-RKHS-I, in the place of an inner loop; at test time an inner loop fine-tunes. Hashable.

    .. math:: L(\theta) - \alpha\,\|\nabla_\theta L(\theta)\|^2 \quad\text{("one")}, \qquad
              L(\theta) - \alpha\,\nabla_\theta L_S(\theta) \cdot \nabla_\theta L_D(\theta) \quad\text{("two")}

    L is the loss on all points of a task, support and queries; L_S and L_D those on either. "one" is the paper's; the
    square of a gradient from few points is too large on average by their noise, of which "two" is free where both are
    drawn independently.

    Args:
        alpha: at least 0. Large ones make the objective unbounded below: for a loss of curvature s from 1 / (2 s) on.
        loss: as in `maml.InnerLoop`.
        batches: "one" or "two".

    Raises:
        InputError: a number out of its range, an unknown name.

    Example:
        >>> Regularised(0.01)
        Regularised(alpha=0.01, loss='half_sum_squares', batches='one')

    Source: Zhou et al. 2021, the functional E~ (submission); "two" is a reader's remark;
    notebooks/05_meta_learning_in_rkhs.
    """

    alpha: float
    loss: Loss = "half_sum_squares"
    batches: str = "one"

    def __post_init__(self) -> None:
        object.__setattr__(self, "alpha", number("alpha", self.alpha))
        check_loss(self.loss, "loss")
        one_of("batches", self.batches, BATCHES)

    @property
    def numbers(self) -> dict[str, Any]:
        """What is passed beside the form, so that other numbers do not compile anew."""
        return {"alpha": np.asarray(self.alpha)}

    @property
    def form(self) -> Regularised:
        """All but the numbers."""
        return replace(self, alpha=0.0)


def _parts(apply: Callable, task: TaskBatch, form: Regularised) -> tuple[Callable, Callable, Callable]:
    """The losses L, L_S and L_D of one task, functions of the parameters; for "one" the last two are L."""

    def of(*points):
        x, y = (jnp.concatenate(arrays) for arrays in zip(*points, strict=True))
        return lambda params: loss_of(form.loss, apply(params, x), y)

    support, query = (task.support_x, task.support_y), (task.query_x, task.query_y)
    whole = of(support, query)
    return (whole, whole, whole) if form.batches == "one" else (whole, of(support), of(query))


def _dot(a, b) -> Array:
    return sum(jnp.vdot(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def value_of_task(apply: Callable, params, numbers, task: TaskBatch, form: Regularised) -> Array:
    """The objective of one task."""
    whole, first, second = _parts(apply, task, form)
    one = jax.grad(first)(params)
    two = one if form.batches == "one" else jax.grad(second)(params)
    return whole(params) - numbers["alpha"].astype(jax.tree.leaves(params)[0].dtype) * _dot(one, two)


def value_and_gradient_of_task(apply: Callable, params, numbers, task: TaskBatch, form: Regularised):
    r"""The objective of one task and its gradient, with one product of a Hessian for each batch and no Hessian.

    .. math:: \nabla L - \alpha\,(H_S\, g_D + H_D\, g_S)
    """
    whole, first, second = _parts(apply, task, form)
    alpha = numbers["alpha"].astype(jax.tree.leaves(params)[0].dtype)
    if form.batches == "one":
        loss, g = jax.value_and_grad(whole)(params)
        product = jax.tree.map(lambda leaf: 2 * leaf, jax.jvp(jax.grad(whole), (params,), (g,))[1])
        square, gradient = _dot(g, g), g
    else:
        loss, gradient = jax.value_and_grad(whole)(params)
        one, two = jax.grad(first)(params), jax.grad(second)(params)
        products = (jax.jvp(jax.grad(f), (params,), (v,))[1] for f, v in ((first, two), (second, one)))
        product, square = jax.tree.map(jnp.add, *products), _dot(one, two)
    return loss - alpha * square, jax.tree.map(lambda a, b: a - alpha * b, gradient, product)
