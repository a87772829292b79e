"""Parameters in two parts: w, which the inner loop moves, and phi, which it leaves; and a rate for each leaf of w."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def split(params, layers: tuple[str, ...] | None):
    """`(w, phi)`: the layers that an inner loop moves, and the others; of all parameters (None), phi is empty."""
    if layers is None:
        return params, {}
    w = {name: params[name] for name in layers}
    return w, {name: layer for name, layer in params.items() if name not in w}


def joined(w, phi):
    """The parameters again."""
    return {**phi, **w} if phi else w


def spread(rates, w):
    """One rate for each leaf of `w`, in its type; `rates` is a tree that is a prefix of it: a scalar, one a layer."""
    return jax.tree.map(lambda rate, part: jax.tree.map(lambda p: jnp.asarray(rate, p.dtype), part), rates, w)
