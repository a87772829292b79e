"""Attacks on what is given to a learner: FGSM and PGD by the gradient, and a black box that moves one pixel at a time.

They know no learner: they act on a function of what is attacked, which is all that they call. For a meta-learner, what
that function closes over decides whether the support set is held fixed (query points alone come in), is differentiated
through the inner loop (support and query come in, as a pytree), or is attacked alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Real
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from mlkernels.errors import bad_input
from mlkernels.support.arguments import whole
from mlkernels.support.typed import typed


def fgsm(value: Callable, x, *, radius, low=0.0, high=1.0):
    r"""The fast gradient sign method: one step to the corner of the ball where the linearised value is largest.

    .. math:: x' = \mathrm{clip}_{[low, high]}\big(x + \epsilon\, \mathrm{sign}\, \nabla_x v(x)\big)

    Works inside `jax.jit` and `jax.vmap`; radius, low and high may be traced, and traced arguments are not checked.
    Where the gradient is 0, x stays; where it is NaN, x' is NaN, so that a value that has diverged is seen.

    Args:
        value: v, `value(x) -> scalar`: what is to be raised, such as the loss at the true labels.
        x: an array of floats or a pytree of such, from `low` to `high`.
        radius: epsilon of the l-infinity ball, at least 0.
        low, high: the box; infinite where x has no bounds.

    Returns:
        x', in the form of x.

    Raises:
        InputError: x that is no floats or not in the box, a negative or infinite radius, low that is not below high, a
            value that is no scalar of floats.

    Example:
        >>> x = jnp.array([0.25, 0.5, 0.75])
        >>> fgsm(lambda x: x[0] - x[2] ** 2, x, radius=0.5).tolist()
        [0.75, 0.5, 0.25]

    Source: Goodfellow et al. 2015; notebooks/05_meta_learning_in_rkhs.
    """
    low, high = _box(low, high)
    x, radius = _in_the_box(x, low, high), _radius(radius)
    boxed = jax.tree.map(lambda leaf: (_like(low, leaf), _like(high, leaf)), x)
    return _ascended(_one_number("value", value), x, radius, boxed)


def pgd(value: Callable, x, *, radius, step=2 / 255, steps: int = 20, key: Array | None = None, low=0.0, high=1.0):
    r"""Projected gradient ascent in an l-infinity ball: steps by the gradient's sign, each followed by a projection.

    .. math:: x^{m+1} = \Pi\big(x^m + \eta\, \mathrm{sign}\, \nabla_x v(x^m)\big), \qquad
              \Pi = \text{clip to } [x - \epsilon,\ x + \epsilon] \cap [low, high]

    With eta = epsilon, one step from x is `fgsm`. Works inside `jax.jit` and `jax.vmap`; radius, step, low and high may
    be traced (under one `jit`, another radius compiles nothing anew), and traced arguments are not checked. Outside of
    a `jit` the loop is compiled at every call. NaN in the gradient gives NaN in the result, as for `fgsm`.

    Args:
        value: v, `value(x) -> scalar`: what is to be raised.
        x: an array of floats or a pytree of such, from `low` to `high`: the centre of the ball.
        radius: epsilon, at least 0.
        step: eta, above 0.
        steps: how many, 0 or more.
        key: for a start drawn uniformly from the ball, then clipped to the box; None starts at x.
        low, high: the box; infinite where x has no bounds.

    Returns:
        The last iterate, in the form of x; in the ball (up to rounding) and in the box.

    Raises:
        InputError: as `fgsm`; a step that is not a finite number above 0, steps that are no whole number from 0 on.

    Example:
        >>> x = jnp.array([0.25, 0.5, 0.75])
        >>> pgd(lambda x: x[0] - x[2] ** 2, x, radius=0.5, step=0.125, steps=3).tolist()
        [0.625, 0.5, 0.375]

    Source: Madry et al. 2018; notebooks/05_meta_learning_in_rkhs.
    """
    low, high = _box(low, high)
    x, radius, step = _in_the_box(x, low, high), _radius(radius), _step(step)
    steps, value = whole("steps", steps), _one_number("value", value)

    def bounds(leaf):
        eps = _like(radius, leaf)
        return jnp.maximum(leaf - eps, _like(low, leaf)), jnp.minimum(leaf + eps, _like(high, leaf))

    bounded, start = jax.tree.map(bounds, x), x
    if key is not None:
        leaves, form = jax.tree.flatten(x)
        keys = jax.tree.unflatten(form, list(jax.random.split(key, len(leaves))))

        def drawn(leaf, own, ends):
            there = jax.random.uniform(own, leaf.shape, leaf.dtype, minval=-1.0, maxval=1.0)
            return jnp.clip(leaf + _like(radius, leaf) * there, *ends)

        start = jax.tree.map(drawn, x, keys, bounded)
    return jax.lax.fori_loop(0, steps, lambda _, now: _ascended(value, now, step, bounded), start)


class Pixels(NamedTuple):
    """What `random_pixels` comes to.

    Args:
        x: the attacked point, in the shape of the one given.
        probability: `[1 + pixels tried]`, at the start and after each pixel; it never rises.
        accepted: how many pixels were changed.
        calls: how often the probability was asked for: once at the start, then once or twice a pixel.
    """

    x: Float[Array, "..."]
    probability: Float[Array, " tried+1"]
    accepted: Int[Array, ""]
    calls: Int[Array, ""]


@typed
def random_pixels(
    probability: Callable, x: Float[Array | np.ndarray, "*point"], *, key: Array, step=0.2, queries: int | None = None,
    low=0.0, high=1.0,
) -> Pixels:  # fmt: skip
    r"""A black-box attack on one point: pixels in random order, each moved down, else up, if the probability falls.

    .. math:: x \leftarrow \mathrm{clip}(x \mp \delta\, e_{\pi(i)}) \quad\text{if } p(\mathrm{clip}(x \mp \delta\,
              e_{\pi(i)})) < p(x), \qquad \|x' - x\|_2 \le \delta \sqrt{accepted}

    It needs no gradient and does not stop when another class wins. Works inside `jax.jit` and, for many points,
    `jax.vmap` (which computes the move up always; `calls` still counts what one point needs). step, low and high may be
    traced, and traced arguments are not checked. A probability of NaN is never lower: such a move is not made, and a
    start at NaN stays.

    Args:
        probability: p, `probability(x) -> scalar`, of the true class.
        x: one point of floats, of any shape, from `low` to `high`; each of its entries is a pixel.
        key: for the order of the pixels, which depends on nothing else but their number.
        step: delta, above 0.
        queries: how many pixels of the order to try at most, 0 or more; None for all.
        low, high: the box; infinite where x has no bounds.

    Returns:
        `Pixels`: the attacked point, the probability's history, how many pixels changed and how many calls it took.

    Raises:
        InputError: x that is not one array of floats or not in the box, a step that is not a finite number above 0,
            queries that are no whole number from 0 on, low that is not below high, a probability that is no scalar.

    Example:
        >>> found = random_pixels(lambda x: 1 - x[0], jnp.array([0.5, 0.5]), key=jax.random.key(0), step=0.25)
        >>> found.x.tolist(), float(found.probability[-1]), int(found.accepted), int(found.calls)
        ([0.75, 0.5], 0.25, 1, 5)

    Source: Guo et al. 2019 (simple black-box attack, pixel basis; a step of 0.2 and the true class's probability are
    the defaults of its code); notebooks/05_meta_learning_in_rkhs.
    """
    if not isinstance(x, jax.Array | np.ndarray):
        raise bad_input("x", "one point as an array", type(x).__name__, "attack one array, under jax.vmap many points")
    low, high = _box(low, high)
    x, step, probability = _in_the_box(x, low, high), _step(step), _one_number("probability", probability)
    tried = x.size if queries is None else min(whole("queries", queries), x.size)
    delta, low, high = (_like(part, x) for part in (step, low, high))

    def at(flat, i, pixel):
        return probability(flat.at[i].set(pixel).reshape(x.shape))

    def visit(state, i):
        flat, now, accepted, calls = state
        down, up = jnp.clip(flat[i] - delta, low, high), jnp.clip(flat[i] + delta, low, high)
        below = at(flat, i, down)

        def other():
            above = at(flat, i, up)
            falls = above < now
            return jnp.where(falls, up, flat[i]), jnp.where(falls, above, now), falls.astype(jnp.int32), jnp.int32(2)

        found = jax.lax.cond(below < now, lambda: (down, below, jnp.int32(1), jnp.int32(1)), other)
        pixel, now, changed, asked = found
        return (flat.at[i].set(pixel), now, accepted + changed, calls + asked), now

    order, start = jax.random.permutation(key, x.size)[:tried], probability(x)
    state = x.ravel(), start, jnp.int32(0), jnp.int32(1)
    (flat, _, accepted, calls), history = jax.lax.scan(visit, state, order)
    return Pixels(flat.reshape(x.shape), jnp.concatenate([start[None], history]), accepted, calls)


def _ascended(value, now, step, bounds):
    """One step by the gradient's sign, clipped to `bounds`: (lowest, highest) for each leaf."""

    def moved(leaf, slope, ends):
        return jnp.clip(leaf + _like(step, leaf) * jnp.sign(slope), *ends)

    return jax.tree.map(moved, now, jax.grad(value)(now), bounds)


def _like(number, leaf) -> Array:
    """In the leaf's precision, also where types do not promote."""
    return jnp.asarray(number, leaf.dtype)


def _one_number(what: str, function: Callable) -> Callable:
    """The function, refused where it gives anything but one floating-point number."""

    def checked(x):
        given = jnp.asarray(function(x))
        if given.shape or not jnp.issubdtype(given.dtype, jnp.floating):
            got = f"{given.dtype}{list(given.shape)}"
            raise bad_input(what, "a function that gives a scalar of floats", got, "sum or average in it")
        return given

    return checked


def _real(name: str, given, fits: Callable, expected: str, do: str):
    """One number that fits; also a NumPy or JAX one, and a traced one, of which only the shape is known."""
    if isinstance(given, jax.core.Tracer) and not given.shape:
        return given
    plain = given.item() if hasattr(given, "item") and np.ndim(given) == 0 else given
    if not isinstance(plain, Real) or isinstance(plain, bool) or not fits(plain):
        got = f"an array {list(np.shape(given))}" if hasattr(given, "shape") and given.shape else repr(plain)
        raise bad_input(name, expected, got, do)
    return plain


def _radius(given):
    do = "use one radius for all of x, in its units"
    return _real("radius", given, lambda radius: 0 <= radius < math.inf, "a finite number of at least 0", do)


def _step(given):
    do = "use a positive step, in the units of x"
    return _real("step", given, lambda step: 0 < step < math.inf, "a finite number above 0", do)


def _box(low, high):
    bounds = [
        _real(name, end, lambda end: not math.isnan(end), "a number", "use one bound for all of x, or an infinite one")
        for name, end in (("low", low), ("high", high))
    ]
    if not any(isinstance(end, jax.core.Tracer) for end in bounds) and not bounds[0] < bounds[1]:
        raise bad_input("low", f"a number below high = {bounds[1]}", bounds[0], "give the lower bound first")
    return bounds


def _in_the_box(x, low, high):
    """The leaves as arrays, refused where they are no floats or lie outside."""
    if not jax.tree.leaves(x):
        raise bad_input("x", "an array or a pytree of arrays", "no arrays", "pass what is to be attacked")

    def checked(leaf):
        array = jnp.asarray(leaf)
        if not jnp.issubdtype(array.dtype, jnp.floating):
            raise bad_input("x", "floats", array.dtype, "convert it, to the units of the box")
        if not any(isinstance(part, jax.core.Tracer) for part in (leaf, low, high)):
            # The bounds in the leaf's precision: a float32 of 0.3 lies above Python's. NaN lies nowhere.
            values = np.asarray(leaf, array.dtype)
            ends = np.asarray(low, array.dtype), np.asarray(high, array.dtype)
            if not ((values >= ends[0]) & (values <= ends[1])).all():
                got = f"{values.min():.4g} to {values.max():.4g}"
                raise bad_input("x", f"values from low = {low:g} to high = {high:g}", got, "set both to its own box")
        return array

    return jax.tree.map(checked, x)
