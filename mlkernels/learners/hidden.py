"""What a task's own part of a predictor looks at: hidden features of the network, inputs, or a function of both."""

from __future__ import annotations

from collections.abc import Callable, Hashable

import jax
import jax.numpy as jnp
from jax import Array

from mlkernels.errors import bad_input
from mlkernels.networks import Apply
from mlkernels.networks.layers import flat
from mlkernels.support.arguments import one_of
from mlkernels.support.array_arguments import real_array

FEATURES = ("hidden", "inputs")


def check_features(features) -> None:
    """Refuse what is neither one of `FEATURES` nor a function that can be hashed."""
    if not callable(features):
        one_of("features", features, FEATURES, do="name one of them, or give a function of params and x")
    elif not isinstance(features, Hashable):
        do = "use a function, a partial of one or a method of a frozen dataclass: JAX compiles once for each"
        raise bad_input("features", "a function that can be hashed", type(features).__name__, do)


def features_of(apply: Callable, params, x: Array, features) -> tuple[Array, Array | None]:
    """The features `[n, p]` that a setting names, and the network's outputs where those came along, else None."""
    x = jnp.asarray(real_array("x", x))
    if callable(features):
        found = features(params, x)
        found = real_array("features", found, "a function that gives an array")
        if found.ndim != 2 or len(found) != len(x):
            raise bad_input("features", f"[{len(x)}, p]", list(found.shape), "flatten what it gives")
        return jnp.asarray(found), None
    if features == "inputs":
        return flat(x), None
    if not isinstance(apply, Apply):
        do = 'pass the apply of an MLP or a Conv4, or give features="inputs" or a function'
        raise bad_input("apply", "a network of mlkernels.networks, for hidden features", type(apply).__name__, do)
    layers = apply.network.features(params, x)
    return flat(layers[apply.network.layers[-2]]), layers["head"]


def of_points(predict: Callable, shape: tuple[int, ...]) -> Callable[[Array], Array]:
    """A task's predictor, `x [n, ...] -> [n, k]`, that refuses points of another shape than its support's."""

    def say(x):
        x = jnp.asarray(real_array("x", x))
        if x.shape[1:] != shape:
            expected = f"points [n, {', '.join(map(str, shape))}]"
            raise bad_input("x", expected, list(x.shape), "give it the support's shape")
        return predict(x)

    return say


def type_of(params) -> jnp.dtype:
    """The type of the network's numbers."""
    floats = (jnp.result_type(leaf) for leaf in jax.tree.leaves(params))
    return next((dtype for dtype in floats if jnp.issubdtype(dtype, jnp.floating)), jnp.result_type(float))
