"""Conv-4, the network of few-shot papers, without normalisation."""

from __future__ import annotations

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Num

from mlkernels.errors import bad_input
from mlkernels.networks.conv3x3 import conv3x3
from mlkernels.networks.layers import Apply, Params, affine, check, check_inputs, flat, init_layer
from mlkernels.support.typed import typed


@dataclass(frozen=True)
class Conv4:
    r"""Conv-4 without normalisation: four times 3x3 convolution, ReLU, 2x2 average pooling; then a linear head.

    Average pooling and no normalisation, because then the infinite-width kernel exists in closed form. Each
    convolution is one that a CPU is quick at in every derivative (`mlkernels.networks.conv3x3`).

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
        check(self)

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
            expected = f"at least {2**self.depth} pixels a side for depth {self.depth}"
            raise bad_input("input_shape", expected, input_shape, "lower the depth")
        keys = jax.random.split(key, self.depth + 1)
        params = {}
        for name, k in zip(self.layers[:-1], keys[:-1], strict=True):
            shape = (3, 3, channels, self.channels)
            params[name] = init_layer(k, shape, self.w_std, self.b_std, self.parametrization, dtype or float)
            height, width, channels = height // 2, width // 2, self.channels
        shape = (height * width * channels, self.outputs)
        params["head"] = init_layer(keys[-1], shape, self.last_w_std, self.b_std, self.parametrization, dtype or float)
        return params

    @property
    def apply(self) -> Apply:
        """`apply(params, x)`, hashable and equal for equal networks: a static argument."""
        return Apply(self)

    @typed
    def features(
        self, params: Params, x: Num[ArrayLike, "N height width channels"]
    ) -> dict[str, Float[Array, "N ..."]]:
        """What each layer puts out, `[N, height, width, channels]` after pooling; the head's are the outputs."""
        x, outputs = check_inputs(self, params, x, 4), {}
        for name in self.layers[:-1]:
            x = affine(conv3x3, params[name], x, 9 * x.shape[-1], self.w_std, self.b_std, self.parametrization)
            outputs[name] = x = _average_pool(jax.nn.relu(x))
        x = flat(x)
        last = self.last_w_std, self.b_std, self.parametrization
        return outputs | {"head": affine(jnp.matmul, params["head"], x, x.shape[-1], *last)}

    @typed
    def forward(self, params: Params, x: Num[ArrayLike, "N height width channels"]) -> Float[Array, "N k"]:
        """Outputs `[N, k]` for images `[N, height, width, channels]`."""
        return self.features(params, x)["head"]


def _average_pool(x: Array) -> Array:
    """2x2 average pooling; an odd last row or column is dropped."""
    n, height, width, channels = x.shape
    x = x[:, : height // 2 * 2, : width // 2 * 2]
    return x.reshape(n, height // 2, 2, width // 2, 2, channels).mean((2, 4))
