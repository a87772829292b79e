"""Whether JAX is tracing, so that what is computed becomes a part of another program."""

from __future__ import annotations

import jax
from jax.extend.core import get_opaque_trace_state

with jax.ensure_compile_time_eval():
    _AT_THE_TOP = get_opaque_trace_state()


def traced() -> bool:
    """Whether this runs within `jax.jit`, `grad`, `vmap` or the like, be the arguments at hand traced or not.

    Example:
        >>> traced(), jax.jit(lambda: jax.numpy.asarray(traced()))().item()
        (False, True)
    """
    return get_opaque_trace_state() != _AT_THE_TOP
