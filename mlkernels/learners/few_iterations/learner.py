"""A head in few iterations on a network's features: one task's adaptation and its predictor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Num

from mlkernels.errors import bad_input
from mlkernels.learners.few_iterations.descent import check_classes, check_inner, fitted, head_of
from mlkernels.learners.few_iterations.settings import FewIterations
from mlkernels.learners.function_space.closed_form import numbers_for
from mlkernels.learners.function_space.kernel import wide
from mlkernels.learners.hidden import features_of, of_points, type_of
from mlkernels.support.array_arguments import real_arrays
from mlkernels.support.network_arguments import check_apply, check_params
from mlkernels.support.typed import typed


class Adapted(NamedTuple):
    """What a task's points have made of the network; `predict` is a function of it. A pytree.

    Args:
        params: theta, whose head does not enter.
        weights: the task's head `[p, k]`, in 64 bits where JAX has them.
    """

    params: Any
    weights: Array


def adapted(apply: Callable, params, numbers, support_x, support_y, query_x, inner: FewIterations) -> Adapted:
    """`adapt` without checks, but for queries that are missing."""
    sets = support_x, query_x if inner.entropy is not None else None
    seen = (None if x is None else features_of(apply, params, x, inner.features)[0] for x in sets)
    features, queries = seen
    return Adapted(params, fitted(head_of(numbers, features, support_y, queries, inner), inner))


def predict(apply: Callable, task: Adapted, x: Array, inner: FewIterations) -> Array:
    """The adapted predictor at inputs `[n, ...]`, `[n, k]`; unchecked, for `jit`, `grad` and attacks."""
    features = wide(features_of(apply, task.params, x, inner.features)[0])
    return jnp.matmul(features, task.weights, precision="highest").astype(type_of(task.params))


_adapted, _predict = jax.jit(adapted, static_argnums=(0, 6)), jax.jit(predict, static_argnums=(0, 3))


@typed
def adapt(
    apply: Callable,
    params,
    support_x: Num[ArrayLike, "m ..."],
    support_y: Num[ArrayLike, "m k"],
    inner: FewIterations,
    *,
    query_x: Num[ArrayLike, "n ..."] | None = None,
    rates=None,
) -> Adapted:
    r"""Fit a head to one task in a few steps.

    .. math:: W_0 \to W_1 \to \dots \to W_{steps}

    Args:
        apply, params: as in `maml.adapt`.
        support_x: `[m, ...]`.
        support_y: `[m, k]`, one-hot: positive where above 0. k need not be the network's outputs.
        inner: the settings; other numbers do not compile anew.
        query_x: `[n, ...]`, the queries, without labels: needed with an `entropy`, and not looked at without.
        rates: numbers in the place of the settings', in the form of `inner.numbers`: those that `maml.fit` learned.

    Returns:
        `Adapted`, for `predictor`.

    Raises:
        InputError: labels that are no classes; hidden features of a network that is not of `mlkernels.networks`; no
            queries for an entropy; numbers of another form.

    Example:
        >>> from mlkernels import networks
        >>> network = networks.MLP(width=32)
        >>> params = network.init(jax.random.key(0), (1,))
        >>> x, y = jnp.array([[0.0], [1.0]]), jnp.eye(2)
        >>> adapt(network.apply, params, x, y, FewIterations()).weights.shape
        (32, 2)

    Source: Tripathi et al. 2021 (FIML), their public code; notebooks/10_few_iterations.
    """
    check_inner(inner)
    check_apply(apply)
    check_params(params)
    more = {} if query_x is None or inner.entropy is None else {"query_x": (query_x, "n *d")}
    given = real_arrays(support_x=(support_x, "m *d"), support_y=(support_y, "m k"), **more)
    x, y, *queries = map(jnp.asarray, given)
    check_classes(y, "support_y")
    if queries and not len(queries[0]):
        raise bad_input("query_x", "one query or more", "none", "give them, or leave entropy None")
    return _adapted(apply, params, numbers_for(inner, rates), x, y, queries[0] if queries else None, inner.form)


def predictor(
    apply: Callable, params, support_x, support_y, inner: FewIterations, *, query_x=None, rates=None
) -> Callable[[Num[ArrayLike, "n ..."]], Float[Array, "n k"]]:
    r"""One task's adapted predictor as a function of inputs: what is evaluated, drawn and attacked.

    .. math:: x \mapsto \varphi(x)^\top W

    Args:
        apply, params, support_x, support_y, inner, query_x, rates: as in `adapt`.

    Returns:
        `x [n, ...] -> [n, k]`, compiled, differentiable by x; the support set and queries are held fixed.

    Raises:
        InputError: as `adapt`; the predictor itself for points of another shape than the support's.

    Example:
        >>> from mlkernels import networks
        >>> network = networks.MLP(width=32)
        >>> params = network.init(jax.random.key(0), (1,))
        >>> x, y = jnp.array([[0.0], [1.0]]), jnp.eye(2)
        >>> predictor(network.apply, params, x, y, FewIterations())(x).round(4).tolist()
        [[5.0, -5.0], [-5.0, 5.0]]

    Source: Tripathi et al. 2021 (FIML), their public code; notebooks/10_few_iterations.
    """
    found = adapt(apply, params, support_x, support_y, inner, query_x=query_x, rates=rates)
    form = inner.form
    return of_points(lambda x: _predict(apply, found, x, form), jnp.shape(support_x)[1:])
