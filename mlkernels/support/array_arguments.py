"""Checks of arrays at the door, and whether JAX is tracing."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import get_opaque_trace_state

from mlkernels.errors import bad_input
from mlkernels.support.arguments import whole


def float_type(dtype) -> np.dtype:
    """The float type to make; None is JAX's default."""
    chosen = np.dtype(jnp.result_type(float) if dtype is None else dtype)
    if not jnp.issubdtype(chosen, jnp.floating):
        raise bad_input("dtype", "a floating type", chosen.name, "choose float32 or float64")
    if chosen == np.float64 and not jax.config.jax_enable_x64:
        do = 'call jax.config.update("jax_enable_x64", True) first'
        raise bad_input("dtype", "float32 or less while x64 is off", chosen.name, do)
    return chosen


def sizes(**numbers: int) -> None:
    """Each is a whole number of at least 1, or an `InputError` names it."""
    for name, value in numbers.items():
        whole(name, value, 1)


def one_key(key: jax.Array) -> None:
    """It is one JAX key, of the new style or the old, or an `InputError` says what it is."""
    got = type(key).__name__
    if isinstance(key, jax.Array):
        typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
        if (typed and key.ndim == 0) or (key.dtype == np.uint32 and key.ndim == 1):
            return
        got = f"{'keys' if typed else key.dtype} of shape {list(key.shape)}"
    raise bad_input("key", "one JAX key", got, "make one with jax.random.key(seed)")


with jax.ensure_compile_time_eval():
    _AT_THE_TOP = get_opaque_trace_state()


def traced() -> bool:
    """Whether this runs within `jax.jit`, `grad`, `vmap` or the like, be the arguments at hand traced or not.

    Example:
        >>> traced(), jax.jit(lambda: jax.numpy.asarray(traced()))().item()
        (False, True)
    """
    return get_opaque_trace_state() != _AT_THE_TOP
