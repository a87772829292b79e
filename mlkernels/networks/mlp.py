"""A multilayer perceptron."""

from __future__ import annotations

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Num

from mlkernels.errors import bad_input
from mlkernels.networks.layers import ACTIVATIONS, Apply, Params, affine, check, check_inputs, flat, init_layer, scales
from mlkernels.support.arguments import one_of
from mlkernels.support.typed import typed


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
        check(self)
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
            name: init_layer(k, (n, m), std, self.b_std, self.parametrization, dtype or float)
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

    @typed
    def features(self, params: Params, x: Num[ArrayLike, "N ..."]) -> dict[str, Float[Array, "N _"]]:
        """What each layer puts out, `[N, units]`, first to last; the head's are the network's outputs."""
        h, outputs = flat(check_inputs(self, params, x, 1)), {}
        for name in self.layers[:-1]:
            z = affine(jnp.matmul, params[name], h, h.shape[-1], self.w_std, self.b_std, self.parametrization)
            outputs[name] = h = self.activate(z)
        last = self.last_w_std, self.b_std, self.parametrization
        return outputs | {"head": affine(jnp.matmul, params["head"], h, h.shape[-1], *last)}

    def scales(self, name: str, fan_in: int) -> tuple[float, float]:
        """The factors of a layer's product with its weights and of its biases in the forward pass."""
        return scales(fan_in, self.last_w_std if name == "head" else self.w_std, self.b_std, self.parametrization)[2:]

    def activate(self, y: Array) -> Array:
        """The activation function."""
        return {"relu": jax.nn.relu, "tanh": jnp.tanh}[self.activation](y)

    @typed
    def forward(self, params: Params, x: Num[ArrayLike, "N ..."]) -> Float[Array, "N k"]:
        """Outputs `[N, k]` for inputs `[N, ...]`, which are flattened."""
        return self.features(params, x)["head"]
