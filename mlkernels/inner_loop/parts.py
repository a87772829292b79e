"""Parameters in two parts: those that the inner loop moves and those that it leaves."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def moving_part(params, layers: tuple[str, ...] | None):
    """The layers that an inner loop moves, and the function that puts them back among the others.

    Args:
        params: the parameters; a dictionary of layers unless `layers` is None.
        layers: names of layers; None means all parameters, of any pytree.

    Returns:
        The moving parameters and `merge(moving) -> params`.

    Example:
        >>> moving, merge = moving_part({"body": 1.0, "head": 2.0}, ("head",))
        >>> moving, merge({"head": 3.0})
        ({'head': 2.0}, {'body': 1.0, 'head': 3.0})
    """
    if layers is None:
        return params, lambda moving: moving
    return {name: params[name] for name in layers}, lambda moving: {**params, **moving}


def spread(rates, start):
    """One rate for each leaf of `start`, in its type; `rates` is a tree that is a prefix of it: a scalar, one a layer.

    Example:
        >>> spread({"head": 0.5}, {"head": [jnp.ones(2), jnp.ones(3)]})["head"][1].item()
        0.5
    """
    return jax.tree.map(lambda rate, part: jax.tree.map(lambda p: jnp.asarray(rate, p.dtype), part), rates, start)


def parts(params, inner):
    """`(w, phi)`: the adapted layers and the others; with `adapt="all"`, phi is empty.

    Example:
        >>> from mlkernels.inner_loop.settings import InnerLoop
        >>> parts({"body": 1.0, "head": 2.0}, InnerLoop(0.1, 1, adapt=("head",)))
        ({'head': 2.0}, {'body': 1.0})
    """
    if inner.layers is None:
        return params, {}
    w = {name: params[name] for name in inner.layers}
    return w, {name: layer for name, layer in params.items() if name not in w}


def joined(w, phi):
    """The parameters again.

    Example:
        >>> joined({"head": 2.0}, {"body": 1.0})
        {'body': 1.0, 'head': 2.0}
    """
    return {**phi, **w} if phi else w
