"""The gradient of an outer loss through an inner minimisation, in five ways."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.flatten_util import ravel_pytree

from mlkernels.errors import InputError, bad_input
from mlkernels.inner_loop.descent import descend
from mlkernels.inner_loop.minimum import check_solver, solve
from mlkernels.support.arguments import number, one_of, whole
from mlkernels.support.array_arguments import real_array, real_tree

WAYS = ("reverse", "forward", "implicit", "truncated", "one-step")
_REMEMBERED = 256  # checks by shapes that passed and are not made again


class Hypergradient(NamedTuple):
    """The outer loss with its gradient, and how far to trust it. A pytree.

    Args:
        value: F(x, y), a scalar.
        gradient: a pytree like x.
        y: where the inner descent ended.
        rest: the norm of the inner gradient there, a scalar; at the inner minimum it is 0.
        residual: of "implicit", the norm of `H v - g` beside that of g; else 0.
    """

    value: Array
    gradient: Any
    y: Any
    rest: Array
    residual: Array


@dataclass(frozen=True)
class _Form:
    """What a program is compiled for."""

    outer: Callable
    inner: Callable
    start: Callable
    way: str
    steps: int
    last: int  # how many of the steps are differentiated
    rate: Callable | None
    solver: str


def _as_x(x, *data):
    return x


def bilevel(
    outer: Callable,
    inner: Callable,
    start: Callable = _as_x,
    *,
    hypergradient: str = "reverse",
    steps: int,
    rate,
    last: int | None = None,
    tolerance: float = 1e-10,
    solver: str = "cg",
) -> Callable[..., Hypergradient]:
    r"""A function that gives a bilevel problem's value and hypergradient, by gradient descent on the inner problem.

    .. math:: \min_x F(x, y_N(x)), \qquad y_{k+1} = y_k - \alpha \nabla_y f(x, y_k), \qquad
              \frac{dF}{dx} = \partial_x F + \Big(\frac{\partial y_N}{\partial x}\Big)^{\!\top} \partial_y F

    The ways differ in :math:`\partial y_N / \partial x`:

    - "reverse": through all steps, back from the last; their points are kept, what lies within a step is not. Exact.
    - "forward": through all steps, beside them: J of size dim y times dim x is pushed along. Exact, without a memory of
      the steps; for few x.
    - "truncated": the last T steps alone, from a point that counts as a constant; for T of at least N it is "reverse".
    - "one-step": T = 1.
    - "implicit": that of the minimum, whatever the way there,
      :math:`-\partial_{xy} f\,(\partial_{yy} f)^{-1} \partial_y F`, by conjugate gradients. As good as y is near it:
      `rest` says.

    Where y starts enters "reverse" and "forward" alone. So a learned start has no meta-gradient at a fixed point,
    unless f holds on to it by a proximal term.

    Args:
        outer: F, `outer(x, y, *data) -> scalar`.
        inner: f, `inner(x, y, *data) -> scalar`. Both hashable: a program is compiled once for the functions, the way
            and the steps.
        start: `start(x, *data) -> y_0`, any pytree of floats; without it y starts at x.
        hypergradient: one of `WAYS`.
        steps: N, at least 0.
        rate: alpha: a number of at least 0, a tree of them that is a prefix of y; or `rate(x)`, which gives such a one
            and is differentiated: a learned rate. Another number does not compile anew.
        last: T, at least 1, for "truncated" alone.
        tolerance: of conjugate gradients, beside the norm of the right-hand side; positive.
        solver: for "implicit": "cg", or "eigh", for few y.

    Returns:
        `find(x, *data) -> Hypergradient`, compiled; x is a pytree of floats. It can be mapped by `jax.vmap`, say over
        the tasks in data.

    Raises:
        InputError: an unknown name, a number out of its range; `find` itself for x without floats, losses that are no
            scalars; and, where nothing is traced, for numbers that are not finite or a linear system that conjugate
            gradients did not solve.

    Example:
        >>> outer = lambda x, y: 0.5 * (y - 1) ** 2
        >>> inner = lambda x, y: 0.5 * (y - 3 * x) ** 2  # at rest at 3 x
        >>> exact = bilevel(outer, inner, hypergradient="implicit", steps=100, rate=0.5)(jnp.array(1.0))
        >>> [round(float(each), 6) for each in (exact.y, exact.value, exact.gradient)]
        [3.0, 2.0, 6.0]
        >>> round(float(bilevel(outer, inner, hypergradient="one-step", steps=100, rate=0.5)(1.0).gradient), 6)
        3.0

    Source: Liu and Liu 2020 (BOML), whose ways these are, but for the last: Bolte et al. 2023;
    notebooks/09_one_bilevel_problem.
    """
    check_functions(outer=outer, inner=inner, start=start)
    way = one_of("hypergradient", hypergradient, WAYS)
    steps = whole("steps", steps)
    if (last is None) == (way == "truncated"):
        do = "it says how many steps are differentiated"
        raise bad_input("last", f"{'a number' if last is None else 'nothing'} with {way!r}", last, do)
    differentiated = {"truncated": last, "one-step": 1}.get(way, steps)
    if way == "truncated":
        differentiated = whole("last", last, 1)
    tolerance = number("tolerance", tolerance)
    if not tolerance:
        raise bad_input("tolerance", "a positive number", tolerance, "rounding never reaches 0: 1e-12 is small")
    check_solver(solver)
    given = None if callable(rate) else jax.tree.map(_rate, rate)
    form = _Form(outer, inner, start, way, steps, differentiated, rate if given is None else None, solver)

    def find(x, *data) -> Hypergradient:
        x = jax.tree.map(jnp.asarray, real_tree("x", x))
        check_data(data)
        _check(form, *_shapes((x, given, data)))
        return _trusted(form, _found(form, x, given, tolerance, data), tolerance)

    return find


def check_functions(**functions) -> None:
    """Refuse what is no function that a program can be compiled for."""
    for name, function in functions.items():
        if not callable(function) or not isinstance(function, Hashable):
            got = type(function).__name__
            raise bad_input(name, "a function that can be hashed", got, "give a function of x and y")


def check_data(data) -> None:
    """Refuse what JAX takes for no array, among what is handed on to the functions."""
    for leaf in jax.tree.leaves(data):
        if not isinstance(leaf, jax.Array):  # keys, too
            real_array("data", leaf, "arrays")


def check_losses(x, *arguments, **losses) -> None:
    """Refuse losses `loss(x, *arguments)` that are not one float; arguments may be shapes. Each is looked at once."""
    for name, loss in losses.items():
        _check_loss(name, loss, *_shapes((x, *arguments)))


def _shapes(tree) -> tuple[Any, tuple]:
    """A tree's structure and its leaves' shapes and types: what a program is compiled for, and so what is checked."""
    leaves, structure = jax.tree.flatten(tree)
    seen = (leaf if isinstance(leaf, jax.ShapeDtypeStruct) else jax.typeof(leaf) for leaf in leaves)
    return structure, tuple(jax.ShapeDtypeStruct(each.shape, each.dtype, weak_type=each.weak_type) for each in seen)


@lru_cache(maxsize=_REMEMBERED)
def _check_loss(name: str, loss: Callable, structure, shapes: tuple) -> None:
    try:
        found = jax.eval_shape(loss, *jax.tree.unflatten(structure, shapes))
    except TypeError as error:
        if "not a valid JAX type" not in str(error):  # its own: the traceback tells where
            raise
        found = None
    if getattr(found, "shape", None) != () or not jnp.issubdtype(found.dtype, jnp.floating):
        got = getattr(found, "shape", "nothing of the kind")
        got = found.dtype.name if got == () else list(got) if isinstance(got, tuple) else got
        raise bad_input(name, "a function that gives a scalar, a float", got, "sum or average in it")


def _rate(each):
    """One rate, checked where it is a number that can be seen."""
    if isinstance(each, jax.core.Tracer) or np.ndim(each):
        return real_array("rate", each)
    return number("rate", each)


@partial(jax.jit, static_argnums=0)
def _found(form: _Form, x, rate, tolerance, data) -> Hypergradient:
    def descended(x, y, steps):
        rates = rate if form.rate is None else form.rate(x)
        return descend(lambda y: form.inner(x, y, *data), y, rates, steps)

    def total(x):
        y, constant = form.start(x, *data), form.steps - form.last
        if constant > 0:
            y = jax.lax.stop_gradient(descended(jax.lax.stop_gradient(x), y, constant))
        y = descended(x, y, min(form.last, form.steps))
        value = form.outer(x, y, *data)
        return value, (value, y)

    if form.way == "implicit":
        y = descended(x, form.start(x, *data), form.steps)
        value, gradient, residual = _of_minimum(form, x, y, tolerance, data)
    elif form.way == "forward":
        gradient, (value, y) = jax.jacfwd(total, has_aux=True)(x)
        residual = jnp.zeros_like(value)
    else:
        gradient, (value, y) = jax.grad(total, has_aux=True)(x)
        residual = jnp.zeros_like(value)
    rest = jnp.linalg.norm(ravel_pytree(jax.grad(form.inner, 1)(x, y, *data))[0])
    return Hypergradient(value, gradient, y, rest, residual)


def _of_minimum(form: _Form, x, y, tolerance, data):
    """The value, the hypergradient as if y were the inner minimum, and what is left of the linear system."""
    value, (dx, g) = jax.value_and_grad(form.outer, (0, 1))(x, y, *data)
    g, unravel = ravel_pytree(g)

    def products(u):
        """With the mixed derivatives, and with the Hessian."""
        return jax.jvp(lambda y: jax.grad(form.inner, (0, 1))(x, y, *data), (y,), (unravel(u),))[1]

    def hessian(u):
        return ravel_pytree(products(u)[1])[0]

    v = solve(hessian, g, form.solver, tolerance)
    left, whole = jnp.linalg.norm(hessian(v) - g), jnp.linalg.norm(g)
    residual = left / jnp.where(whole > 0, whole, 1)
    return value, jax.tree.map(jnp.subtract, dx, products(v)[0]), residual


def check_x(x) -> None:
    """Refuse an outer variable that nothing can be differentiated by."""
    for leaf in jax.tree.leaves(x):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise bad_input("x", "a pytree of floats", leaf.dtype.name, "nothing else can be differentiated by")


@lru_cache(maxsize=_REMEMBERED)
def _check(form: _Form, structure, shapes: tuple) -> None:
    """Of x, the rate and the data."""
    x, rate, data = jax.tree.unflatten(structure, shapes)
    check_x(x)
    y = jax.eval_shape(lambda x, *data: jax.tree.map(jnp.asarray, real_tree("start", form.start(x, *data))), x, *data)
    for leaf in jax.tree.leaves(y):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise bad_input("start", "a pytree of floats", leaf.dtype.name, "descent moves nothing else")
    rates = rate if form.rate is None else jax.eval_shape(lambda x: real_tree("rate", form.rate(x)), x)
    try:  # one rate for each part of y
        jax.tree.map(lambda each, part: jax.tree.map(partial(_check_rate, each.shape), part), rates, y)
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        got = f"{jax.tree.structure(rates)} for {jax.tree.structure(y)}"
        raise bad_input("rate", "a number, or a tree that is a prefix of y", got, "give one to each part") from error
    check_losses(x, y, *data, outer=form.outer, inner=form.inner)


def _check_rate(shape: tuple[int, ...], part) -> None:
    try:
        fits = np.broadcast_shapes(shape, part.shape) == part.shape
    except ValueError:
        fits = False
    if not fits:
        got = f"{list(shape)} for {list(part.shape)}"
        raise bad_input("rate", "a number, or a tree that is a prefix of y", got, "give one to each part")


def _trusted(form: _Form, found: Hypergradient, tolerance: float) -> Hypergradient:
    """What was found; an `InputError` where it cannot be right and nothing is traced."""
    leaves = jax.tree.leaves((found.value, found.gradient))
    if any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
        return found
    slack = max(10 * tolerance, float(jnp.finfo(found.residual.dtype).eps) ** 0.5)
    if form.way == "implicit" and jnp.isfinite(found.rest) and not found.residual <= slack:
        do = "add a term that makes it strongly convex, or descend nearer to its minimum"
        got = f"a linear system solved to {float(found.residual):.2g} only"
        raise bad_input("inner", "a positive definite Hessian where descent ended", got, do)
    if not all(bool(jnp.isfinite(leaf).all()) for leaf in leaves):
        got = f"a loss of {float(found.value):.3g} or its gradient is not finite after {form.steps} steps"
        raise bad_input("rate", "one at which the inner descent stays finite", got, "lower it")
    return found
