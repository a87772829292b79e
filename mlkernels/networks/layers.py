"""The networks of the course as `(init, apply)`: a multilayer perceptron and Conv-4, in two parametrisations.

A network is a frozen dataclass that holds its sizes; its parameters live outside it, in a dictionary with one entry a
layer. The last layer is always called `"head"`: ANIL adapts that entry alone.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from mlkernels.errors import bad_input
from mlkernels.support.arguments import one_of
from mlkernels.support.array_arguments import real_array

PARAMETRIZATIONS = ("ntk", "standard")
ACTIVATIONS = ("relu", "tanh")
Params = dict[str, dict[str, Array]]
_NUMBERED = re.compile(r"(layer|conv)\d+")  # what only a deeper network, or one of another kind, has


def check(network) -> None:
    """Refuse sizes that make no network."""
    for name in ("width", "channels", "depth", "outputs"):
        value = getattr(network, name, 1)
        for size in value if name == "width" and isinstance(value, tuple) else (value,):
            if not isinstance(size, int) or size < 1:
                raise bad_input(name, "a whole number of at least 1", value, "give the network a size")
    for name in ("w_std", "b_std", "last_w_std"):
        value = getattr(network, name)
        if not (math.isfinite(value) and value >= 0):
            do = "use the default or a positive one"
            raise bad_input(name, "a finite standard deviation of at least 0", value, do)
    one_of("parametrization", network.parametrization, PARAMETRIZATIONS)


def scales(fan_in: int, w_std: float, b_std: float, parametrization: str) -> tuple[float, float, float, float]:
    """Standard deviations at the start, then factors in the forward pass, of weights and of biases."""
    if parametrization == "ntk":
        return 1.0, 1.0, w_std / math.sqrt(fan_in), b_std
    return w_std / math.sqrt(fan_in), b_std, 1.0, 1.0


MOST_DRAWN = 2**20  # numbers that are worth the way over the host


def _normal(key: Array, shape: tuple[int, ...], std: float, dtype) -> Array:
    """`std * jax.random.normal(key, shape, dtype)`, compiled for a few sizes and not for each.

    A draw is the beginning of a longer one, of the next power of four.
    """
    size = math.prod(shape)
    if isinstance(key, jax.core.Tracer) or not 0 < size <= MOST_DRAWN or not jax.config.jax_threefry_partitionable:
        return std * jax.random.normal(key, shape, dtype)
    length = 4 ** max(4, math.ceil(math.log(size, 4) - 1e-9))
    drawn = np.asarray(jax.random.normal(key, (length,), dtype))[:size].reshape(shape)
    return jnp.asarray(drawn.dtype.type(std) * drawn)


def init_layer(key: Array, shape: tuple[int, ...], w_std: float, b_std: float, parametrization: str, dtype) -> dict:
    w_key, b_key = jax.random.split(key)
    w_init, b_init, _, _ = scales(math.prod(shape[:-1]), w_std, b_std, parametrization)
    layer = {"w": _normal(w_key, shape, w_init, dtype)}
    if b_std:
        layer["b"] = _normal(b_key, shape[-1:], b_init, dtype)
    return layer


def affine(product, layer: dict, x: Array, fan_in: int, w_std: float, b_std: float, parametrization: str) -> Array:
    """`product(x, w)` scaled, plus the scaled bias."""
    _, _, w_scale, b_scale = scales(fan_in, w_std, b_std, parametrization)
    if x.shape[-1] != jnp.shape(layer["w"])[-2]:
        do = "give inputs of the shape that init was given, and parameters of this network"
        got = f"inputs {list(x.shape)} for weights {list(jnp.shape(layer['w']))}"
        raise bad_input("a layer", f"inputs of width {jnp.shape(layer['w'])[-2]}, as its weights have", got, do)
    y = w_scale * product(x, layer["w"])
    if "b" in layer:
        y = y + jnp.expand_dims(b_scale * layer["b"], tuple(range(y.ndim - 1)))
    return y


def check_inputs(network, params, x, axes: int) -> Array:
    """Inputs of at least so many axes as an array; or an `InputError`, also for parameters that are not a network's.

    Parameters may hold more than the network's layers, as another network's beside it, but no layer of a deeper one.
    """
    names, do = set(network.layers), "give it those that its init makes"
    if not isinstance(params, dict) or names - set(params) or any(map(_NUMBERED.fullmatch, set(params) - names)):
        got = list(params) if isinstance(params, dict) else type(params).__name__
        raise bad_input("params", f"a dictionary of the layers {list(network.layers)}", got, do)
    for name, layer in ((name, params[name]) for name in network.layers):
        shapes = {part: getattr(leaf, "shape", None) for part, leaf in layer.items()} if isinstance(layer, dict) else {}
        w, b = shapes.get("w"), shapes.get("b")
        if w is None or len(w) < 2 or b not in (None, w[-1:]) or ("b" in shapes and b is None):
            got = f"{shapes or type(layer).__name__} in {name}"
            raise bad_input("params", "arrays w [..., in, out], and b [out], of each layer", got, do)
    x = real_array("x", x)
    if x.ndim < axes:
        expected = "points [N, ...]" if axes == 1 else "images [N, height, width, channels]"
        raise bad_input("x", expected, list(x.shape), "put the points on the first axis")
    return jnp.asarray(x)


def flat(x: Array) -> Array:
    return x.reshape(x.shape[0], math.prod(x.shape[1:]))  # of no points, too


@dataclass(frozen=True)
class Apply:
    """A network's forward pass, `apply(params, x) -> [N, k]`; equal for equal networks.

    A bound method would not do: it is equal only for the very same object, and JAX would compile for each `MLP(64)`.

    Example:
        >>> from mlkernels.networks import MLP
        >>> MLP(64).apply == MLP(64).apply, MLP(64).apply == MLP(65).apply
        (True, False)
    """

    network: Any  # an MLP or a Conv4

    def __call__(self, params: Params, x: Array) -> Array:
        return self.network.forward(params, x)
