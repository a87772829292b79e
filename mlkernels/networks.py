"""The networks of the course as `(init, apply)`: a multilayer perceptron and Conv-4, in two parametrisations.

A network is a frozen dataclass that holds its sizes; its parameters live outside it, in a dictionary with one entry a
layer. The last layer is always called `"head"`: ANIL adapts that entry alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from mlkernels._conv3x3 import conv3x3
from mlkernels.checks import one_of
from mlkernels.errors import bad_input

PARAMETRIZATIONS = ("ntk", "standard")
ACTIVATIONS = ("relu", "tanh")
Params = dict[str, dict[str, Array]]


def _check(network) -> None:
    """Refuse sizes that make no network."""
    for name in ("width", "channels", "depth", "outputs"):
        value = getattr(network, name, 1)
        for size in value if name == "width" and isinstance(value, tuple) else (value,):
            if not isinstance(size, int) or size < 1:
                raise bad_input(name, "a whole number of at least 1", value, "give the network a size")
    for name in ("w_std", "b_std", "last_w_std"):
        value = getattr(network, name)
        if not (math.isfinite(value) and value >= 0):
            raise bad_input(
                name, "a finite standard deviation of at least 0", value, "use the default or a positive one"
            )
    one_of("parametrization", network.parametrization, PARAMETRIZATIONS)


def _scales(fan_in: int, w_std: float, b_std: float, parametrization: str) -> tuple[float, float, float, float]:
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


def _init_layer(key: Array, shape: tuple[int, ...], w_std: float, b_std: float, parametrization: str, dtype) -> dict:
    w_key, b_key = jax.random.split(key)
    w_init, b_init, _, _ = _scales(math.prod(shape[:-1]), w_std, b_std, parametrization)
    layer = {"w": _normal(w_key, shape, w_init, dtype)}
    if b_std:
        layer["b"] = _normal(b_key, shape[-1:], b_init, dtype)
    return layer


def _affine(product, layer: dict, x: Array, fan_in: int, w_std: float, b_std: float, parametrization: str) -> Array:
    """`product(x, w)` scaled, plus the scaled bias."""
    _, _, w_scale, b_scale = _scales(fan_in, w_std, b_std, parametrization)
    y = w_scale * product(x, layer["w"])
    if "b" in layer:
        y = y + jnp.expand_dims(b_scale * layer["b"], tuple(range(y.ndim - 1)))
    return y


def _flat(x: Array) -> Array:
    return x.reshape(x.shape[0], math.prod(x.shape[1:]))  # of no points, too


@dataclass(frozen=True)
class Apply:
    """A network's forward pass, `apply(params, x) -> [N, k]`; equal for equal networks.

    A bound method would not do: it is equal only for the very same object, and JAX would compile for each `MLP(64)`.

    Example:
        >>> MLP(64).apply == MLP(64).apply, MLP(64).apply == MLP(65).apply
        (True, False)
    """

    network: MLP | Conv4

    def __call__(self, params: Params, x: Array) -> Array:
        return self.network.forward(params, x)


@dataclass(frozen=True)
class MLP:
    r"""A multilayer perceptron with ReLU or tanh.

    .. math:: h^0 = x,\quad h^{l+1} = \sigma\Big(\frac{\sigma_w}{\sqrt{n_l}} W^l h^l + \sigma_b b^l\Big),\quad
              f(x) = \frac{\sigma_{last}}{\sqrt{n}} W h^L + \sigma_b b

    Args:
        width: hidden units a layer, at least 1; or a tuple with one number for each hidden layer.
        depth: hidden layers, at least 1.
        outputs: outputs k.
        w_std: sigma_w of the hidden layers; sqrt(2) keeps the size of the signal through ReLU, 1 is usual for tanh.
        b_std: sigma_b of all layers; 0 leaves the biases out.
        last_w_std: sigma of the last layer's weights.
        parametrization: "ntk" (the scales above are in the forward pass, all parameters start as standard normals) or
            "standard" (the scales are in the initial values). The same functions at the start; other gradients.
        activation: "relu" or "tanh".

    Raises:
        InputError: a size below 1, widths that are not `depth` many, a negative standard deviation, an unknown
            parametrisation or activation.

    Example:
        >>> import jax
        >>> network = MLP(width=64, outputs=3)
        >>> params = network.init(jax.random.key(0), (6,))
        >>> network.apply(params, jax.numpy.ones((5, 6))).shape
        (5, 3)

    Source: Jacot et al. 2018 for the "ntk" parametrisation; notebooks/01_derive_metantk.
    """

    width: int | tuple[int, ...]
    depth: int = 2
    outputs: int = 1
    w_std: float = math.sqrt(2.0)
    b_std: float = 0.1
    last_w_std: float = 1.0
    parametrization: str = "ntk"
    activation: str = "relu"

    def __post_init__(self) -> None:
        _check(self)
        if isinstance(self.width, tuple) and len(self.width) != self.depth:
            raise bad_input("width", f"one number or depth = {self.depth} of them", self.width, "set depth too")
        one_of("activation", self.activation, ACTIVATIONS)

    def init(self, key: Array, input_shape: tuple[int, ...], dtype=None) -> Params:
        """Draw parameters for inputs of `input_shape` (without the batch); `dtype` None is JAX's default float."""
        widths = self.width if isinstance(self.width, tuple) else [self.width] * self.depth
        sizes = [math.prod(input_shape), *widths, self.outputs]
        stds = [self.w_std] * self.depth + [self.last_w_std]
        keys = jax.random.split(key, self.depth + 1)
        return {
            name: _init_layer(k, (n, m), std, self.b_std, self.parametrization, dtype or float)
            for name, k, n, m, std in zip(self.layers, keys, sizes[:-1], sizes[1:], stds, strict=True)
        }

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers, first to last."""
        return (*(f"layer{i + 1}" for i in range(self.depth)), "head")

    @property
    def apply(self) -> Apply:
        """`apply(params, x)`, hashable and equal for equal networks: a static argument."""
        return Apply(self)

    def features(self, params: Params, x: Array) -> dict[str, Array]:
        """What each layer puts out, `[N, units]`, first to last; the head's are the network's outputs."""
        h, found = _flat(x), {}
        for name in self.layers[:-1]:
            z = _affine(jnp.matmul, params[name], h, h.shape[-1], self.w_std, self.b_std, self.parametrization)
            found[name] = h = self.activate(z)
        last = self.last_w_std, self.b_std, self.parametrization
        return found | {"head": _affine(jnp.matmul, params["head"], h, h.shape[-1], *last)}

    def scales(self, name: str, fan_in: int) -> tuple[float, float]:
        """The factors of a layer's product with its weights and of its biases in the forward pass."""
        return _scales(fan_in, self.last_w_std if name == "head" else self.w_std, self.b_std, self.parametrization)[2:]

    def activate(self, y: Array) -> Array:
        """The activation function."""
        return {"relu": jax.nn.relu, "tanh": jnp.tanh}[self.activation](y)

    def forward(self, params: Params, x: Array) -> Array:
        """Outputs `[N, k]` for inputs `[N, ...]`, which are flattened."""
        return self.features(params, x)["head"]


@dataclass(frozen=True)
class Conv4:
    r"""Conv-4 without normalisation: four times 3x3 convolution, ReLU, 2x2 average pooling; then a linear head.

    Average pooling and no normalisation, because then the infinite-width kernel exists in closed form. Each
    convolution is one that a CPU is quick at in every derivative (`mlkernels._conv3x3`).

    Args:
        channels: channels a layer, at least 1.
        depth: blocks; each halves height and width (rounded down), which must stay at least 1.
        outputs: outputs k.
        w_std, b_std, last_w_std, parametrization: as in `MLP`.

    Raises:
        InputError: as `MLP`; or images too small for `depth` halvings.

    Example:
        >>> import jax
        >>> network = Conv4(channels=8, outputs=5)
        >>> params = network.init(jax.random.key(0), (28, 28, 1))
        >>> network.apply(params, jax.numpy.ones((2, 28, 28, 1))).shape
        (2, 5)

    Source: Vinyals et al. 2016 for the stack of four blocks (with other pooling and normalisation).
    """

    channels: int
    depth: int = 4
    outputs: int = 1
    w_std: float = math.sqrt(2.0)
    b_std: float = 0.1
    last_w_std: float = 1.0
    parametrization: str = "ntk"

    def __post_init__(self) -> None:
        _check(self)

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers, first to last."""
        return (*(f"conv{i + 1}" for i in range(self.depth)), "head")

    def init(self, key: Array, input_shape: tuple[int, ...], dtype=None) -> Params:
        """Draw parameters for images of shape `(height, width, channels)`."""
        if len(input_shape) != 3:
            raise bad_input("input_shape", "(height, width, channels)", input_shape, "add a channel axis to the images")
        height, width, channels = input_shape
        if min(height, width) < 2**self.depth:
            raise bad_input(
                "input_shape",
                f"at least {2**self.depth} pixels a side for depth {self.depth}",
                input_shape,
                "lower the depth",
            )
        keys = jax.random.split(key, self.depth + 1)
        params = {}
        for name, k in zip(self.layers[:-1], keys[:-1], strict=True):
            shape = (3, 3, channels, self.channels)
            params[name] = _init_layer(k, shape, self.w_std, self.b_std, self.parametrization, dtype or float)
            height, width, channels = height // 2, width // 2, self.channels
        shape = (height * width * channels, self.outputs)
        params["head"] = _init_layer(keys[-1], shape, self.last_w_std, self.b_std, self.parametrization, dtype or float)
        return params

    @property
    def apply(self) -> Apply:
        """`apply(params, x)`, hashable and equal for equal networks: a static argument."""
        return Apply(self)

    def features(self, params: Params, x: Array) -> dict[str, Array]:
        """What each layer puts out, `[N, height, width, channels]` after pooling; the head's are the outputs."""
        found = {}
        for name in self.layers[:-1]:
            x = _affine(conv3x3, params[name], x, 9 * x.shape[-1], self.w_std, self.b_std, self.parametrization)
            found[name] = x = _average_pool(jax.nn.relu(x))
        x = _flat(x)
        last = self.last_w_std, self.b_std, self.parametrization
        return found | {"head": _affine(jnp.matmul, params["head"], x, x.shape[-1], *last)}

    def forward(self, params: Params, x: Array) -> Array:
        """Outputs `[N, k]` for images `[N, height, width, channels]`."""
        return self.features(params, x)["head"]


def _average_pool(x: Array) -> Array:
    """2x2 average pooling; an odd last row or column is dropped."""
    n, height, width, channels = x.shape
    x = x[:, : height // 2 * 2, : width // 2 * 2]
    return x.reshape(n, height // 2, 2, width // 2, 2, channels).mean((2, 4))
