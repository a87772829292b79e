"""Checks at the door of what every learner takes: a network's function and its parameters."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from mlkernels.errors import bad_input
from mlkernels.support.arguments import in_short


def check_apply(apply: Callable) -> None:
    """Refuse what is no function `apply(params, x)` that can be hashed.

    Example:
        >>> from mlkernels.networks import MLP
        >>> check_apply(MLP(8))
        Traceback (most recent call last):
        mlkernels.errors.InputError: apply: expected a function apply(params, x), got MLP; pass the network's apply
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


def check_params(params, name: str = "params") -> None:
    """Refuse what is no pytree of floats; traced ones pass.

    Example:
        >>> check_params({"head": {"w": jnp.arange(3)}})
        Traceback (most recent call last):
        mlkernels.errors.InputError: params: expected a pytree of floats, got int32 [3] at ['head']['w']; make them ...
    """
    do = "make them with a network's init, or take a result's"
    leaves = jax.tree.leaves(params)
    if not leaves:
        raise bad_input(name, "a pytree of floats", in_short(params), do)
    if all(map(_is_float, leaves)):
        return
    path, leaf = next(pair for pair in jax.tree.leaves_with_path(params) if not _is_float(pair[1]))
    at = f" at {jax.tree_util.keystr(path)}" if path else ""
    raise bad_input(name, "a pytree of floats", f"{in_short(leaf)}{at}", do)


def _is_float(leaf) -> bool:
    return isinstance(leaf, float) or (hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.floating))
