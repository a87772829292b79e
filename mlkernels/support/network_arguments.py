"""Checks at the door of what learners and kernels take: a network's function, its parameters, its points."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from mlkernels.errors import bad_input
from mlkernels.support.arguments import in_short
from mlkernels.support.array_arguments import is_real_type, real_array


def check_apply(apply: Callable) -> None:
    """Refuse what is no function `apply(params, x)` that can be hashed.

    Example:
        >>> check_apply("MLP")
        Traceback (most recent call last):
        mlkernels.errors.InputError: apply: expected a function apply(params, x), got 'MLP'; pass one, as ...
    """
    if not callable(apply):
        do = "pass the network's apply" if hasattr(apply, "apply") else "pass one, as networks.MLP(16).apply"
        got = type(apply).__name__ if hasattr(apply, "apply") else in_short(apply)
        raise bad_input("apply", "a function apply(params, x)", got, do)
    try:
        hash(apply)
    except TypeError:
        do = "use a function, a partial of one or a method of a frozen dataclass: JAX compiles once for each"
        raise bad_input("apply", "a function that can be hashed", type(apply).__name__, do) from None


def check_params(params, name: str = "params", *, constants: bool = False) -> None:
    """Refuse what is no pytree of floats; traced ones pass. With `constants` whole numbers may stand among the floats.

    Example:
        >>> check_params({"head": {"w": jnp.arange(3, dtype="int32")}})
        Traceback (most recent call last):
        mlkernels.errors.InputError: params: expected a pytree of floats, got int32 [3] at ['head']['w']; make them ...
    """
    do = "make them with a network's init, or take a result's"
    leaves = jax.tree.leaves(params)
    if not leaves:
        raise bad_input(name, "a pytree of floats", in_short(params), do)
    fits = _is_real if constants and any(map(_is_float, leaves)) else _is_float
    if all(map(fits, leaves)):
        return
    path, leaf = next(pair for pair in jax.tree.leaves_with_path(params) if not fits(pair[1]))
    at = f" at {jax.tree_util.keystr(path)}" if path else ""
    raise bad_input(name, "a pytree of floats", f"{in_short(leaf)}{at}", do)


def check_points(x1, x2=None) -> tuple[jax.Array, jax.Array | None]:
    """Two sets of points as arrays, `[N1, ...]` and `[N2, ...]`; or an `InputError`. x2 may be None.

    Example:
        >>> check_points(jnp.ones((3, 2)), jnp.ones((3, 4)))
        Traceback (most recent call last):
        mlkernels.errors.InputError: x2: expected points of shape (2,) as in x1, got (4,); compare like with like
    """
    if x1 is None:
        raise bad_input("x1", "points [N, ...]", None, "give the points")
    x1, x2 = (None if x is None else jnp.asarray(real_array(name, x)) for name, x in (("x1", x1), ("x2", x2)))
    for name, x in (("x1", x1), ("x2", x2)):
        if x is not None and not x.ndim:
            raise bad_input(name, "points [N, ...]", "one number", "put the points on the first axis")
    if x2 is not None and x1.shape[1:] != x2.shape[1:]:
        raise bad_input("x2", f"points of shape {x1.shape[1:]} as in x1", x2.shape[1:], "compare like with like")
    return x1, x2


def _is_float(leaf) -> bool:
    return isinstance(leaf, float) or (hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.floating))


def _is_real(leaf) -> bool:
    return isinstance(leaf, bool | int | float) or (hasattr(leaf, "dtype") and is_real_type(leaf.dtype))
