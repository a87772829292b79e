"""Steepest descent of a head on features, with steps as long as is best along them: no network is seen here."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Num

from mlkernels.errors import bad_input
from mlkernels.learners.few_iterations.settings import FewIterations
from mlkernels.learners.function_space.closed_form import numbers_for
from mlkernels.learners.function_space.kernel import wide
from mlkernels.support import cholesky
from mlkernels.support.array_arguments import real_array, real_arrays
from mlkernels.support.eigenvectors import eigh
from mlkernels.support.typed import typed

_LEAST_CURVATURE = 1e-8  # both are the authors' code's
_LEAST_DETERMINANT = 1e-6
_AT_THE_TARGET = 0.75  # a power of the rounding: what is nearer to a target, relative to it, is at it


class Head(NamedTuple):
    """A task as its head sees it, in 64 bits where JAX has them. A pytree.

    Args:
        x: features of the support set `[m, p]`.
        positive: bool `[m, k]`: which points are of a class.
        queries: features `[n, p]`, or None where they do not enter.
        targets, weights, slopes: `[m, k]`, those of each residual.
        ridge, entropy, temperature: scalars.
    """

    x: Array
    positive: Array
    queries: Array | None
    targets: Array
    weights: Array
    slopes: Array
    ridge: Array
    entropy: Array | None
    temperature: Array | None


def head_of(numbers, features, labels, queries, inner: FewIterations) -> Head:
    """Of features and of numbers as they are learned. Unchecked, but for queries that are missing."""
    positive = labels > 0

    def each(pair):
        return jnp.where(positive, *(wide(jnp.asarray(number)) for number in pair))

    pairs = each(numbers["targets"]), jnp.exp(each(numbers["log_weights"])), each(numbers["slopes"])
    ridge = wide(jnp.asarray(numbers["ridge"]))
    if inner.entropy is None:
        return Head(wide(features), positive, None, *pairs, ridge, None, None)
    if queries is None:
        do = "give the queries' too, or leave entropy None"
        raise bad_input("queries", "features of queries, whose entropy is in the fit", None, do)
    learned = (jnp.exp(wide(jnp.asarray(numbers[f"log_{name}"]))) for name in ("entropy", "temperature"))
    return Head(wide(features), positive, wide(queries), *pairs, ridge, *learned)


_product = partial(jnp.matmul, precision="highest")


def _signs(head: Head) -> Array:
    return jnp.where(head.positive, 1.0, -1.0).astype(head.x.dtype)


def residuals(head: Head, weights: Array) -> tuple[Array, Array]:
    """r `[m, k]`, and its derivative by the scores, entry by entry.

    At a target, where a has a kink, it is the mean of both slopes. The two-point start puts points there but for their
    rounding, which must not choose a side: the length of the first step hangs on it.
    """
    z = _signs(head) * (head.targets - _product(head.x, weights))
    c = head.slopes
    at = jnp.abs(z) <= jnp.finfo(z.dtype).eps ** _AT_THE_TARGET * jnp.abs(head.targets)
    slope = (1 - c) / 2 * jnp.where(at, 0, jnp.sign(z)) + (1 + c) / 2
    return head.weights * ((1 - c) / 2 * jnp.abs(z) + (1 + c) / 2 * z), -head.weights * slope * _signs(head)


def _said(head: Head, weights: Array) -> tuple[Array, Array]:
    """Scaled scores of the queries and their softmax."""
    scores = head.temperature * _product(head.queries, weights)
    return scores, jax.nn.softmax(scores)


def loss(head: Head, weights: Array) -> Array:
    """L."""
    value = ((residuals(head, weights)[0] ** 2).sum() + (head.ridge**2) * (weights**2).sum()) / 2
    if head.queries is None:
        return value
    scores, chances = _said(head, weights)
    return value - head.entropy / len(scores) * (chances * jax.nn.log_softmax(scores)).sum()


def gradient(head: Head, weights: Array) -> Array:
    """g `[p, k]`, written out."""
    r, slope = residuals(head, weights)
    g = _product(head.x.T, slope * r) + head.ridge**2 * weights
    if head.queries is None:
        return g
    scores, chances = _said(head, weights)
    by_scores = chances * ((chances * scores).sum(-1, keepdims=True) - scores)
    return g + head.entropy * head.temperature / len(scores) * _product(head.queries.T, by_scores)


def gauss_newton(head: Head, weights: Array, way: Array) -> Array:
    """The squared length of J times a way `[p, k]`: the curvature along it, of least squares exactly."""
    return ((residuals(head, weights)[1] * _product(head.x, way)) ** 2).sum() + head.ridge**2 * (way**2).sum()


def logistic(head: Head, weights: Array, way: Array) -> Array:
    """q: the curvature of the queries' entropy as if it were a logistic loss, which has none below 0."""
    if head.queries is None:
        return jnp.zeros((), weights.dtype)
    chances = _said(head, weights)[1]
    change = head.temperature * _product(head.queries, way)
    means = (chances * change).sum(-1)
    # each query's is a variance; rounding alone takes one below 0
    return head.entropy / len(change) * jnp.maximum((chances * change**2).sum(-1) - means**2, 0).sum()


def start(head: Head, how: str) -> Array:
    """Where the descent begins, `[p, k]`; a class without positives, or with nothing else, begins at 0."""
    if how == "zero":
        return jnp.zeros((head.x.shape[1], head.positive.shape[1]), head.x.dtype)

    def means(of):  # [p, k]
        of = of.astype(head.x.dtype)
        return _product(head.x.T, of) / jnp.maximum(of.sum(0), 1)[None]

    # of any target of either kind, for all of a kind are one number
    high, low = (
        jnp.where(of, head.targets, 0).sum(0) / jnp.maximum(of.sum(0), 1).astype(head.x.dtype)
        for of in (head.positive, ~head.positive)
    )
    a, b = means(head.positive), means(~head.positive)
    aa, ab, bb = (a * a).sum(0), (a * b).sum(0), (b * b).sum(0)
    over = jnp.maximum(aa * bb - ab**2, _LEAST_DETERMINANT)
    return ((high * bb - low * ab) / over)[None] * a - ((high * ab - low * aa) / over)[None] * b


def fixed_length(head: Head) -> Array:
    """1 / (a bound on the curvature); its derivative is right once, not twice."""
    largest = (head.weights * jnp.maximum(1, jnp.abs(head.slopes))).max() ** 2 * _largest(head.x) + head.ridge**2
    if head.queries is not None:  # no softmax has a covariance above 1/2
        largest += head.entropy * head.temperature**2 / (2 * len(head.queries)) * _largest(head.queries)
    return jnp.where(largest > 0, 1 / jnp.where(largest > 0, largest, 1), 0)


def _largest(x: Array) -> Array:
    """The largest eigenvalue of x'x. With its vector held, a derivative is that of the eigenvalue."""
    still = jax.lax.stop_gradient(x)
    gram = _product(still, still.T) if len(x) <= x.shape[1] else _product(still.T, still)
    top = eigh((gram + gram.T) / 2)[1][:, -1]
    top = top if len(x) > x.shape[1] else _product(still.T, top)
    norm = jnp.sqrt((top**2).sum())
    top = jnp.where(norm > 0, top / jnp.where(norm > 0, norm, 1), 0)
    return (_product(x, top) ** 2).sum()


def steps(head: Head, inner: FewIterations):
    """`(W, (the W before, alpha))` of a W: the step of a scan."""
    fixed = fixed_length(head) if inner.length == "fixed" else None

    def step(weights, _):
        g = gradient(head, weights)
        alpha = fixed
        if alpha is None:
            square = (g**2).sum()
            curvature = gauss_newton(head, weights, g) + logistic(head, weights, g)
            alpha = square / (jnp.maximum(curvature, _LEAST_CURVATURE) + inner.damping * square)
        return weights - alpha * g, (weights, alpha)

    return step


def fitted(head: Head, inner: FewIterations) -> Array:
    """The head `[p, k]` after all steps."""
    step = steps(head, inner)
    return jax.lax.scan(lambda w, _: (step(w, None)[0], None), start(head, inner.start), length=inner.steps)[0]


class Descent(NamedTuple):
    """All steps of a descent. A pytree.

    Args:
        weights: `[steps + 1, p, k]`, the start first.
        losses: `[steps + 1]`, L of these.
        lengths: `[steps]`, alpha.
    """

    weights: Array
    losses: Array
    lengths: Array


@partial(jax.jit, static_argnums=4)
def _descended(numbers, features, labels, queries, inner: FewIterations) -> Descent:
    head = head_of(numbers, features, labels, queries, inner)
    last, (before, lengths) = jax.lax.scan(steps(head, inner), start(head, inner.start), length=inner.steps)
    weights = jnp.concatenate([before, last[None]])
    return Descent(weights, jax.vmap(partial(loss, head))(weights), lengths)


@partial(jax.jit, static_argnums=5)
def _loss(numbers, weights, features, labels, queries, inner: FewIterations) -> Array:
    return loss(head_of(numbers, features, labels, queries, inner), wide(weights))


@jax.jit
def _exact(numbers, features, labels) -> Array:
    head = head_of(numbers, features, labels, None, FewIterations())

    def one(weights, targets):  # of one class
        gram = _product(head.x.T, (weights**2)[:, None] * head.x) + head.ridge**2 * jnp.eye(head.x.shape[1])
        return cholesky.solve(gram, _product(head.x.T, weights**2 * targets)[:, None])[:, 0]

    return jax.vmap(one, 1, 1)(head.weights, head.targets)


def check_classes(labels, what: str = "labels") -> None:
    """Refuse labels that do not say which points are of a class; traced ones pass.

    Example:
        >>> check_classes([[0.3], [1.7], [-0.2]])
        Traceback (most recent call last):
        mlkernels.errors.InputError: labels: expected two numbers, one of them above 0, got 3 from -0.2 to 1.7; ...
    """
    if isinstance(labels, jax.core.Tracer):
        return
    found = np.unique(np.asarray(real_array(what, labels)))
    if len(found) != 2 or not found[0] <= 0 < found[1]:
        got = f"{len(found)} from {found[0]:.4g} to {found[-1]:.4g}" if len(found) else "none"
        raise bad_input(what, "two numbers, one of them above 0", got, "give one-hot labels: the head is a classifier")


def check_inner(inner) -> None:
    """Refuse what are not these settings."""
    if not isinstance(inner, FewIterations):
        do = "use maml.adapt for an inner loop, function_space.adapt for a FunctionSpace"
        raise bad_input("inner", "a few_iterations.FewIterations", type(inner).__name__, do)


def _given(features, labels, queries, inner, rates, **more):
    check_inner(inner)
    more |= {} if queries is None else {"queries": (queries, "n p")}
    found = real_arrays(features=(features, "m p"), labels=(labels, "m k"), **more)
    found = dict(zip(("features", "labels", *more), map(jnp.asarray, found), strict=True))
    check_classes(found["labels"])
    if inner.entropy is not None and queries is not None and not len(found["queries"]):
        raise bad_input("queries", "one or more", "none", "give their features, or leave entropy None")
    return numbers_for(inner, rates), *(found.get(name) for name in ("features", "labels", "queries"))


@typed
def descend(
    features: Num[ArrayLike, "m p"],
    labels: Num[ArrayLike, "m k"],
    inner: FewIterations,
    *,
    queries: Num[ArrayLike, "n p"] | None = None,
    rates=None,
) -> Descent:
    r"""All steps of the descent on features, to be looked at: what `adapt` does, without a network.

    .. math:: W_{t+1} = W_t - \alpha_t\, \nabla L(W_t)

    Args:
        features: `[m, p]`, of the support set.
        labels: `[m, k]`, one-hot: positive where above 0.
        inner: the settings; `features` in them is not looked at.
        queries: features `[n, p]`, with `entropy` alone, where they are needed.
        rates: numbers in the place of the settings', in the form of `inner.numbers`.

    Returns:
        `Descent`: weights `[steps + 1, p, k]`, losses `[steps + 1]`, lengths `[steps]`; in 64 bits where JAX has them.

    Raises:
        InputError: labels that are no classes, shapes that do not fit, no queries for an entropy, bad settings.

    Example:
        >>> x, y = jax.numpy.eye(4), jax.numpy.eye(4)
        >>> found = descend(x, y, FewIterations(steps=1, damping=0.0, start="zero"))
        >>> found.losses.tolist(), found.lengths.tolist()  # of least squares on the identity: in one step
        ([200.0, 0.0], [1.0])

    Source: Tripathi et al. 2021 (FIML), their public code; notebooks/10_few_iterations.
    """
    return _descended(*_given(features, labels, queries, inner, rates), inner.form)


@typed
def head_loss(
    weights: Float[ArrayLike, "p k"],
    features: Num[ArrayLike, "m p"],
    labels: Num[ArrayLike, "m k"],
    inner: FewIterations,
    *,
    queries: Num[ArrayLike, "n p"] | None = None,
    rates=None,
) -> Float[Array, ""]:
    r"""The loss that the head is fitted by.

    .. math:: L(W) = \tfrac12 \sum_{ij} r_{ij}^2 + \tfrac12 \|\rho W\|^2
              + \frac{\lambda}{n} \sum_q H\big(\mathrm{softmax}(\tau\, q^\top W)\big)

    Args:
        weights: W `[p, k]`.
        features, labels, inner, queries, rates: as in `descend`.

    Returns:
        A scalar, in 64 bits where JAX has them.

    Raises:
        InputError: as `descend`.

    Example:
        >>> head_loss(jax.numpy.zeros((4, 4)), jax.numpy.eye(4), jax.numpy.eye(4), FewIterations()).item()
        200.0

    Source: Tripathi et al. 2021 (FIML), their public code; notebooks/10_few_iterations.
    """
    numbers, *given = _given(features, labels, queries, inner, rates, weights=(weights, "p k"))
    return _loss(numbers, jnp.asarray(weights), *given, inner.form)


@typed
def ridge_head(
    features: Num[ArrayLike, "m p"], labels: Num[ArrayLike, "m k"], inner: FewIterations, *, rates=None
) -> Float[Array, "p k"]:
    r"""The head that the steps of plain least squares would come to, by one solve for each class.

    .. math:: W_j = (X^\top \Omega_j^2 X + \rho^2 I)^{-1} X^\top \Omega_j^2\, y_j

    With weights of 1 it is that of `FunctionSpace(Linear(), rho**2, mean="zero")` for the targets as labels.

    Args:
        features, labels, rates: as in `descend`.
        inner: settings with slopes of 1, a positive ridge and no entropy.

    Returns:
        `[p, k]`.

    Raises:
        InputError: as `descend`; settings of another loss; a ridge that rounding hides.

    Example:
        >>> ridge_head(jax.numpy.eye(2), jax.numpy.eye(2), FewIterations(ridge=1.0)).tolist()
        [[2.5, -2.5], [-2.5, 2.5]]

    Source: Bertinetto et al. 2019 (R2-D2); notebooks/10_few_iterations.
    """
    numbers, features, labels, _ = _given(features, labels, None, inner, rates)
    bent = [slope for slope in numbers["slopes"] if not isinstance(slope, jax.core.Tracer) and slope != 1]
    if inner.entropy is not None or bent:
        do = "leave the entropy out and the slopes 1: nothing else has a closed form"
        raise bad_input("inner", "settings of plain least squares", inner, do)
    squares = (wide(features) ** 2).sum() * jnp.exp(2 * jnp.maximum(*numbers["log_weights"]))
    hidden = numbers["ridge"] ** 2 <= jnp.finfo(squares.dtype).eps * squares
    if not isinstance(hidden, jax.core.Tracer) and hidden:
        expected = f"a ridge whose square rounding does not hide beside squared features of {float(squares):.4g}"
        raise bad_input("ridge", expected, float(numbers["ridge"]), "raise it")
    return _exact(numbers, features, labels)
