"""A distribution in the place of the inner minimum: its samples, and the gradient of an outer loss's mean over it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Num

from mlkernels.errors import bad_input
from mlkernels.inner_loop.descent import gradient_step
from mlkernels.learners.bilevel.hypergradient import check_functions, check_losses, check_x
from mlkernels.support.arguments import number, whole
from mlkernels.support.array_arguments import one_key, real_array, real_tree
from mlkernels.support.typed import typed


def _step(inner: Callable, x, y, step, key):
    r"""One step of stochastic gradient Langevin dynamics of `inner(x, y) -> scalar`; traced, unchecked.

    .. math:: y \leftarrow y - \tfrac{\epsilon^2}{2} \nabla_y f(x, y) + \epsilon\, \xi, \qquad \xi \sim N(0, I)
    """
    flat, unravel = ravel_pytree(y)
    noise = unravel(step * jax.random.normal(key, flat.shape, flat.dtype))
    return jax.tree.map(jnp.add, gradient_step(y, step**2 / 2, jax.grad(inner, 1)(x, y)), noise)


def _run(inner: Callable, x, y, step, key, first, steps: int):
    """Some steps of one chain, counted from `first`: each has the key of its number."""

    def one(y, i):
        return _step(inner, x, y, step, jax.random.fold_in(key, i)), None

    return jax.lax.scan(one, y, first + jnp.arange(steps))[0]


def _chains(start) -> int:
    """How many, from leaves `[chains, ...]`."""
    lengths = {leaf.shape[:1] for leaf in jax.tree.leaves(start)}
    if len(lengths) != 1 or lengths == {()} or lengths == {(0,)}:
        do = "let the first axis of each leaf count the chains"
        raise bad_input("start", "leaves [chains, ...]", sorted(map(list, lengths)), do)
    for leaf in jax.tree.leaves(start):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise bad_input("start", "a pytree of floats", leaf.dtype.name, "noise moves nothing else")
    return lengths.pop()[0]


def _checked(x, start, **losses):
    """`(x, start, chains)` as arrays; or an `InputError`, for losses of one y of the chains' too."""
    x, start = (jax.tree.map(jnp.asarray, real_tree(name, tree)) for name, tree in (("x", x), ("start", start)))
    chains = _chains(start)
    check_functions(**losses)
    check_losses(x, jax.tree.map(lambda leaf: leaf[0], start), **losses)
    return x, start, chains


def _positive(step) -> float:
    step = number("step", step)
    if not step:
        raise bad_input("step", "a positive number", step, "without noise it is descent: use bilevel")
    return step


def _finite(found, what):
    """What was found, unless it can be seen to have left for infinity."""
    leaves = jax.tree.leaves(what)
    seen = not any(isinstance(leaf, jax.core.Tracer) for leaf in leaves)
    if seen and not all(bool(jnp.isfinite(leaf).all()) for leaf in leaves):
        raise bad_input("step", "one at which the chains stay finite", "chains that left for infinity", "lower it")
    return found


def langevin(inner: Callable, x, start, *, step, steps: int, key, burn_in: int = 0, every: int = 1):
    r"""Samples of the distribution that an inner loss stands for, by stochastic gradient Langevin dynamics.

    .. math:: p(y \mid x) \propto e^{-f(x, y)}, \qquad
              y \leftarrow y - \tfrac{\epsilon^2}{2} \nabla_y f(x, y) + \epsilon\, \xi

    Exact as the step goes to 0 and the steps to infinity. The bias of a step is of the order of its square: of a
    Gaussian of curvature h, the variance is :math:`1 / (h - \epsilon^2 h^2 / 4)` in place of 1 / h.

    Args:
        inner: f, `inner(x, y) -> scalar`, hashable: compiled once for each.
        x: the outer variable, a pytree.
        start: where the chains start: leaves `[chains, ...]`, floats.
        step: epsilon, positive.
        steps: after the burn-in, at least 1.
        key: a JAX key; the same key gives the same samples.
        burn_in: steps of which nothing is kept.
        every: keep a sample after each so many steps; it divides `steps`.

    Returns:
        A pytree with leaves `[chains, steps / every, ...]`.

    Raises:
        InputError: a number out of its range, leaves of different length; chains that left for infinity.

    Example:
        >>> y = langevin(lambda x, y: 0.5 * (y - x) ** 2, jnp.array(3.0), jnp.zeros(400), step=0.3, steps=200,
        ...              burn_in=200, every=10, key=jax.random.key(0))
        >>> y.shape, bool(abs(y.mean() - 3) < 0.1), bool(abs(y.var() - 1) < 0.1)
        ((400, 20), True, True)

    Source: Welling and Teh 2011; Kim and Hospedales 2025, in this form; notebooks/09_one_bilevel_problem.
    """
    x, start, chains = _checked(x, start, inner=inner)
    one_key(key)
    steps, burn_in, every = whole("steps", steps, 1), whole("burn_in", burn_in), whole("every", every, 1)
    if steps % every:
        raise bad_input("every", f"a divisor of steps = {steps}", every, "keep each sample with 1")
    found = _langevin(inner, steps // every, every, burn_in, x, start, _positive(step), jax.random.split(key, chains))
    return _finite(found, found)


@partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _langevin(inner, kept, every, burn_in, x, start, step, keys):
    def chain(y, key):
        y = _run(inner, x, y, step, key, 0, burn_in)

        def keep(y, i):
            y = _run(inner, x, y, step, key, burn_in + i * every, every)
            return y, y

        return jax.lax.scan(keep, y, jnp.arange(kept))[1]

    return jax.vmap(chain)(start, keys)


class Estimate(NamedTuple):
    """A mean of the outer loss, its gradient by x, and what chance does to that. A pytree.

    Args:
        value: a scalar.
        gradient: a pytree like x.
        error: a pytree like x: the standard error of the gradient, from how chains differ; NaN from a single one.
    """

    value: Array
    gradient: Any
    error: Any


def covariance_gradient(outer: Callable, inner: Callable, x, samples) -> Estimate:
    r"""The gradient of the outer loss's mean from samples alone: no Jacobian, no Hessian, no way back.

    .. math:: \frac{d}{dx} E_p[F] = E_p[\partial_x F] - \mathrm{Cov}_p(F, \partial_x f), \qquad
              p(y \mid x) \propto e^{-f(x, y)}

    Args:
        outer: F, `outer(x, y) -> scalar`.
        inner: f, `inner(x, y) -> scalar`. Both hashable.
        x: the outer variable, a pytree of floats.
        samples: of p, leaves `[chains, kept, ...]`, as `langevin` gives them.

    Returns:
        `Estimate`: value, gradient, and its standard error over the chains, which are taken as independent.

    Raises:
        InputError: leaves without the two axes.

    Example:
        >>> y = 3 + jax.random.normal(jax.random.key(0), (1000, 50))  # of p for x = 3
        >>> found = covariance_gradient(lambda x, y: y, lambda x, y: 0.5 * (y - x) ** 2, jnp.array(3.0), y)
        >>> bool(abs(found.gradient - 1) < 4 * found.error), bool(found.error < 0.02)
        (True, True)

    Source: derived here, the score-function identity for a Gibbs distribution; notebooks/09_one_bilevel_problem.
    """
    given = (("x", x), ("samples", samples))
    x, samples = (jax.tree.map(jnp.asarray, real_tree(name, tree)) for name, tree in given)
    check_x(x)
    shapes = [leaf.shape for leaf in jax.tree.leaves(samples)]
    if len({shape[:2] for shape in shapes}) != 1 or len(shapes[0]) < 2 or 0 in shapes[0][:2]:
        got = list(map(list, shapes))
        raise bad_input("samples", "leaves [chains, kept, ...]", got, "give a single chain an axis in front")
    check_functions(outer=outer, inner=inner)
    check_losses(x, jax.tree.map(lambda leaf: leaf[0, 0], samples), outer=outer, inner=inner)
    return _covariance(outer, inner, x, samples)


@partial(jax.jit, static_argnums=(0, 1))
def _covariance(outer, inner, x, samples) -> Estimate:
    def one(y):
        value, direct = jax.value_and_grad(outer)(x, y)
        return value, direct, jax.grad(inner)(x, y)

    value, direct, score = jax.vmap(jax.vmap(one))(samples)
    apart = value - value.mean()

    def part(direct, score):
        """A term for each chain, whose mean is the gradient."""
        ones = (1,) * (score.ndim - 2)
        return (direct - apart.reshape(*apart.shape, *ones) * (score - score.mean((0, 1), keepdims=True))).mean(1)

    terms = jax.tree.map(part, direct, score)
    return Estimate(value.mean(), *_mean_and_error(terms))


def _mean_and_error(terms):
    """Of leaves `[chains, ...]`; the error of a single one is nothing that it knows."""

    def error(term):
        return term.std(0) / (len(term) - 1) ** 0.5 if len(term) > 1 else jnp.full_like(term[0], jnp.nan)

    return jax.tree.map(lambda term: term.mean(0), terms), jax.tree.map(error, terms)


def frozen_noise_gradient(outer: Callable, inner: Callable, x, start, *, step, steps: int, key) -> Estimate:
    r"""The gradient of the outer loss where Langevin chains end, with their noise held as it was drawn.

    .. math:: J \leftarrow \big(I - \tfrac{\epsilon^2}{2}\nabla^2_y f\big) J - \tfrac{\epsilon^2}{2}\,
              \partial_x \nabla_y f, \qquad \frac{d}{dx} E[F] = E[\partial_x F + J^\top \nabla_y F]

    Exact for the chains as they are run; J takes dim y times dim x numbers a chain. Over a barrier between two minima
    the Hessian is negative and J grows: rare chains carry the mean then, and where none was drawn the standard error
    does not tell. `covariance_gradient` has no such trouble.

    Args:
        outer, inner, x: as in `covariance_gradient`.
        start, step, steps, key: as in `langevin`, whose chains are the same ones.

    Returns:
        `Estimate` over the chains' last points.

    Raises:
        InputError: as `langevin`.

    Example:
        >>> outer, inner = (lambda x, y: y**2), (lambda x, y: 0.5 * (y - x) ** 2)
        >>> found = frozen_noise_gradient(outer, inner, jnp.array(3.0), jnp.zeros(2000), step=0.5, steps=100,
        ...                               key=jax.random.key(0))
        >>> bool(abs(found.gradient - 6) < 4 * found.error), bool(found.error < 0.1)
        (True, True)

    Source: Kim and Hospedales 2025, before their approximation, which is not known here; the exact recursion is
    derived; notebooks/09_one_bilevel_problem.
    """
    x, start, chains = _checked(x, start, outer=outer, inner=inner)
    check_x(x)
    one_key(key)
    form = outer, inner, whole("steps", steps, 1)
    found = _frozen(*form, x, start, _positive(step), jax.random.split(key, chains))
    return _finite(found, (found.value, found.gradient))


@partial(jax.jit, static_argnums=(0, 1, 2))
def _frozen(outer, inner, steps, x, start, step, keys) -> Estimate:
    def one(y, key):
        def end(x):
            value = outer(x, _run(inner, x, y, step, key, 0, steps))
            return value, value

        return jax.jacfwd(end, has_aux=True)(x)

    gradients, values = jax.vmap(one)(start, keys)
    return Estimate(values.mean(), *_mean_and_error(gradients))


@typed
def quadrature_mean(outer: Callable, inner: Callable, x, points: Num[Array, " q"]) -> Float[Array, ""]:
    r"""The outer loss's mean over the distribution of an inner loss on the line, by quadrature. Differentiable by x.

    .. math:: E_p[F] = \frac{\int F(x, y)\, e^{-f(x, y)}\,dy}{\int e^{-f(x, y)}\,dy}

    On equally spaced points the sum has no error but the tails that they leave out, and one that falls faster than any
    power of their number.

    Args:
        outer, inner: `(x, y) -> scalar` for a scalar y.
        x: the outer variable, a pytree.
        points: `[q]`, equally spaced, from where the density is nothing to where it is nothing again.

    Returns:
        A scalar.

    Raises:
        InputError: fewer than two points.

    Example:
        >>> points = jnp.linspace(-10.0, 10.0, 401)
        >>> mean = lambda x: quadrature_mean(lambda x, y: y**2, lambda x, y: 0.5 * (y - x) ** 2, x, points)
        >>> round(float(mean(1.0)), 4), round(float(jax.grad(mean)(1.0)), 4)
        (2.0, 2.0)

    Source: notebooks/09_one_bilevel_problem.
    """
    x, points = _line(x, points, outer=outer, inner=inner)
    weights = _weights(inner, x, points)
    return jnp.sum(weights * jax.vmap(partial(outer, x))(points))


@typed
def quadrature_gradient(outer: Callable, inner: Callable, x, points: Num[Array, " q"]):
    r"""The gradient of `quadrature_mean` by the covariance identity: what `covariance_gradient` estimates.

    .. math:: E_p[\partial_x F] - \mathrm{Cov}_p(F, \partial_x f)

    Args:
        outer, inner, x, points: as in `quadrature_mean`.

    Returns:
        A pytree like x; that of `jax.grad` of `quadrature_mean`, up to rounding.

    Raises:
        InputError: as `quadrature_mean`.

    Example:
        >>> points = jnp.linspace(-10.0, 10.0, 401)
        >>> round(float(quadrature_gradient(lambda x, y: y**2, lambda x, y: 0.5 * (y - x) ** 2, 1.0, points)), 4)
        2.0

    Source: derived here; notebooks/09_one_bilevel_problem.
    """
    x, points = _line(x, points, outer=outer, inner=inner)
    check_x(x)
    weights = _weights(inner, x, points)
    value, direct = jax.vmap(lambda y: jax.value_and_grad(outer)(x, y))(points)
    score = jax.vmap(lambda y: jax.grad(inner)(x, y))(points)
    apart = weights * (value - jnp.sum(weights * value))
    return jax.tree.map(lambda d, s: jnp.tensordot(weights, d, 1) - jnp.tensordot(apart, s, 1), direct, score)


def _weights(inner, x, points) -> Array:
    """The probabilities of the points."""
    return jax.nn.softmax(-jax.vmap(partial(inner, x))(points))


def _line(x, points, **losses):
    """x and the points as arrays; or an `InputError`, for losses of one point too."""
    x, points = jax.tree.map(jnp.asarray, real_tree("x", x)), jnp.asarray(real_array("points", points))
    if points.ndim != 1 or len(points) < 2:
        raise bad_input("points", "two or more on a line, [q]", list(points.shape), "use jnp.linspace")
    apart = points if isinstance(points, jax.core.Tracer) else np.diff(np.asarray(points, float))
    if apart is not points and not (np.ptp(apart) <= 1e-3 * np.abs(apart).max()):
        raise bad_input("points", "equally spaced ones", "others", "use jnp.linspace")
    check_functions(**losses)
    check_losses(x, points[0], **losses)
    return x, points
