"""Checks of arrays at the door, and whether JAX is tracing."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import get_opaque_trace_state

from mlkernels.errors import bad_input
from mlkernels.support.arguments import in_short, whole


def float_type(dtype) -> np.dtype:
    """The float type to make; None is JAX's default."""
    try:
        chosen = np.dtype(jnp.result_type(float) if dtype is None else dtype)
    except TypeError:
        raise bad_input("dtype", "a floating type", in_short(dtype), "choose float32 or float64") from None
    if not jnp.issubdtype(chosen, jnp.floating):
        raise bad_input("dtype", "a floating type", chosen.name, "choose float32 or float64")
    if chosen == np.float64 and not jax.config.jax_enable_x64:
        do = 'call jax.config.update("jax_enable_x64", True) first'
        raise bad_input("dtype", "float32 or less while x64 is off", chosen.name, do)
    return chosen


def sizes(**numbers: int) -> list[int]:
    """Each as Python's whole number of at least 1, or an `InputError` names it.

    Example:
        >>> sizes(tasks=2, support=0)
        Traceback (most recent call last):
        mlkernels.errors.InputError: support: expected a whole number of at least 1, got 0; choose such a number
    """
    return [whole(name, value, 1) for name, value in numbers.items()]


def _data_of_a_key() -> tuple[int, ...]:
    """The shape of a key of the old style, of the kind that JAX is set to."""
    return jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0))).shape


def one_key(key: jax.Array) -> None:
    """It is one JAX key, of the new style or the old, or an `InputError` says what it is."""
    got = type(key).__name__
    if isinstance(key, jax.Array):
        typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
        if (typed and key.ndim == 0) or (key.dtype == np.uint32 and key.shape == _data_of_a_key()):
            return
        got = f"{'keys' if typed else key.dtype} of shape {list(key.shape)}"
    raise bad_input("key", "one JAX key", got, "make one with jax.random.key(seed)")


def real_array(name: str, value, expected: str = "an array") -> np.ndarray | jax.Array:
    """Real numbers in an array: JAX's own as it is, traced too, anything else as NumPy's; or an `InputError`.

    Example:
        >>> real_array("rates", ["0.1"])
        Traceback (most recent call last):
        mlkernels.errors.InputError: rates: expected an array of real numbers, got <U3 [1]; give it numbers
    """
    found = value
    if not isinstance(value, jax.Array):
        try:
            traced = any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(value))
            found = (jnp if traced else np).asarray(value)
        except (TypeError, ValueError):  # rows of different lengths
            found = None
    if found is None or not is_real_type(found.dtype):
        got = in_short(found if found is not None and found.dtype != object and found.ndim else value)
        raise bad_input(name, f"{expected} of real numbers", got, "give it numbers")
    return found


def is_real_type(dtype) -> bool:
    """Whether it is a type of real numbers: floats, whole numbers, True and False."""
    return any(jnp.issubdtype(dtype, kind) for kind in (jnp.floating, jnp.integer, jnp.bool_))


def real_arrays(**given: tuple[object, str]) -> list[np.ndarray | jax.Array]:
    """Arrays of real numbers whose axes fit together, as name=(value, "m *d"); or an `InputError`.

    What an axis is called is its length, the same one in all arrays; a last name with a star is any number of axes.

    Example:
        >>> real_arrays(x=(np.ones((3, 2)), "m *d"), y=(np.ones((4, 1)), "m k"))
        Traceback (most recent call last):
        mlkernels.errors.InputError: y: expected an array [m, k] with m = 3, got float64 [4, 1]; give it as many as x
    """
    known: dict[str, tuple[object, str]] = {}
    arrays = []
    for name, (value, shape) in given.items():
        words = f"an array [{', '.join(shape.split())}]"
        array, axes = real_array(name, value, words), shape.split()
        more = axes[-1].startswith("*") if axes else False
        fits = array.ndim >= len(axes) - 1 if more else array.ndim == len(axes)
        if not fits:
            got = f"{array.dtype} {list(array.shape)}"
            raise bad_input(name, words, got, f"give it {'these' if more else len(axes)} axes")
        lengths: list[object] = list(array.shape[: len(axes) - more])
        lengths += [list(array.shape[len(axes) - 1 :])] if more else []
        for axis, length in zip(axes, lengths, strict=True):
            other, whose = known.setdefault(axis, (length, name))
            if other != length:
                axis, got = axis.removeprefix("*"), f"{array.dtype} {list(array.shape)}"
                raise bad_input(name, f"{words} with {axis} = {other}", got, f"give it as many as {whose}")
        arrays.append(array)
    return arrays


def real_tree(name: str, tree):
    """A pytree of arrays of real numbers, traced ones too, as `real_array` has them; or an `InputError`."""
    leaves, form = jax.tree.flatten(tree)
    if not leaves:
        raise bad_input(name, "a pytree of numbers", in_short(tree), "give it one array or more")
    return form.unflatten([real_array(name, leaf, "a pytree") for leaf in leaves])


def known_or_traced(name: str, value, check: Callable):
    """One number, `check(value)` where it is known; a traced one only has to be one."""
    if not isinstance(value, jax.core.Tracer):
        return check(value)
    if value.shape or not is_real_type(value.dtype):
        raise bad_input(name, "one number", f"{value.dtype} {list(value.shape)}", "give a scalar")
    return value


with jax.ensure_compile_time_eval():
    _AT_THE_TOP = get_opaque_trace_state()


def traced() -> bool:
    """Whether this runs within `jax.jit`, `grad`, `vmap` or the like, be the arguments at hand traced or not.

    Example:
        >>> traced(), jax.jit(lambda: jax.numpy.asarray(traced()))().item()
        (False, True)
    """
    return get_opaque_trace_state() != _AT_THE_TOP
