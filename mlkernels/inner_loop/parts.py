"""Parameters in two parts: w, which the inner loop moves, and phi, which it leaves; and a rate for each leaf of w."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def split(params, layers: tuple[str, ...] | None):
    """`(w, phi)`: the layers that an inner loop moves, and the others.

    Args:
        params: the parameters; a dictionary of layers unless `layers` is None.
        layers: names of layers, as `InnerLoop.layers`; None means all parameters, of any pytree: phi is empty then.

    Example:
        >>> split({"body": 1.0, "head": 2.0}, ("head",))
        ({'head': 2.0}, {'body': 1.0})
    """
    if layers is None:
        return params, {}
    w = {name: params[name] for name in layers}
    return w, {name: layer for name, layer in params.items() if name not in w}


def joined(w, phi):
    """The parameters again.

    Example:
        >>> joined({"head": 2.0}, {"body": 1.0})
        {'body': 1.0, 'head': 2.0}
    """
    return {**phi, **w} if phi else w


def spread(rates, w):
    """One rate for each leaf of `w`, in its type; `rates` is a tree that is a prefix of it: a scalar, one a layer.

    Example:
        >>> spread({"head": 0.5}, {"head": [jnp.ones(2), jnp.ones(3)]})["head"][1].item()
        0.5
    """
    return jax.tree.map(lambda rate, part: jax.tree.map(lambda p: jnp.asarray(rate, p.dtype), part), rates, w)
