"""The NTK and the NNGP of a network of ReLUs at infinite width, with all the digits that its inputs have."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from mlkernels.errors import bad_input
from mlkernels.kernels._wide_layers import conv_kernels, mlp_kernels
from mlkernels.networks import MLP, Conv4


class Kernels(NamedTuple):
    """The two kernels of one network between the same points, each `[N1, N2]`.

    Attributes:
        nngp: of infinite networks the NNGP, of finite ones the last layer's part of the NTK, which tends to it.
        ntk: the NTK.
    """

    nngp: Array
    ntk: Array


@lru_cache(maxsize=32)
def _kernel_fn(network: MLP | Conv4) -> Callable[[Array, Array], Kernels]:
    """The jitted kernel function of one architecture."""
    if isinstance(network, MLP):
        kernels = partial(mlp_kernels, network)
    else:
        kernels = jax.vmap(jax.vmap(partial(conv_kernels, network), (None, 0)), (0, None))
    return jax.jit(lambda x1, x2: Kernels(*kernels(x1, x2)))


def check_inputs(network, x1: Array, x2: Array | None) -> tuple[Array, Array]:
    """Both sets of points as real numbers, or a refusal of what has no infinite-width kernel in closed form."""
    if not isinstance(network, MLP | Conv4):
        raise bad_input("network", "an MLP or a Conv4", type(network).__name__, "build it with mlkernels.networks")
    if network.parametrization != "ntk":
        do = "the NTK of the standard parametrisation grows with width: divide the empirical one by the width instead"
        raise bad_input("network.parametrization", "'ntk'", repr(network.parametrization), do)
    if isinstance(network, MLP) and network.activation != "relu":
        do = "tanh has no infinite-width kernel in closed form"
        raise bad_input("network.activation", "'relu'", repr(network.activation), do)
    x1, x2 = (jnp.asarray(x, jnp.result_type(x, float)) for x in (x1, x1 if x2 is None else x2))
    if x1.shape[1:] != x2.shape[1:]:
        raise bad_input("x2", f"points of shape {x1.shape[1:]} as in x1", x2.shape[1:], "compare like with like")
    if isinstance(network, Conv4) and (x1.ndim != 4 or min(x1.shape[1:3]) < 2**network.depth):
        side = 2**network.depth
        raise bad_input(
            "x1", f"images [N1, height, width, channels] of at least {side} pixels a side for depth {network.depth}",
            list(x1.shape), "add the missing axes, or lower the depth",
        )  # fmt: skip
    return x1, x2


def infinite_kernels(network: MLP | Conv4, x1: Array, x2: Array | None = None) -> Kernels:
    r"""NNGP and NTK of a network whose widths go to infinity, in NTK parametrisation.

    .. math:: \mathcal{K}(x, x') = \mathbb{E}[f(x) f(x')], \qquad
              \Theta(x, x') = \mathbb{E}\big[\langle\partial_\theta f(x), \partial_\theta f(x')\rangle\big]

    both for one output; several outputs are independent copies.

    Args:
        network: the architecture; its width and number of outputs do not matter.
        x1: inputs `[N1, ...]`; their precision is that of the kernels (64 bits for kernel algebra).
        x2: inputs `[N2, ...]`; None means `x1`.

    Returns:
        `(nngp, ntk)`, each `[N1, N2]`, to some roundings of the largest entry: for equal and for near points, too, but
        near images lose up to half of their digits in Conv-4's pooling. Compiled once per architecture and shape.

    Raises:
        InputError: an unknown network, the standard parametrisation, an activation other than ReLU, inputs of
            different shape, images that are too small for the network.

    Example:
        >>> import jax
        >>> x = jax.random.normal(jax.random.key(0), (4, 6))
        >>> nngp, ntk = infinite_kernels(MLP(width=1), x)
        >>> ntk.shape, bool((ntk.diagonal() > nngp.diagonal()).all())
        ((4, 4), True)

    Source: Lee et al. 2018 (NNGP), Jacot et al. 2018 (NTK), Arora et al. 2019 (convolutions), in half angles
    (`mlkernels.kernels.half_angles`); `by_neural_tangents` is the same by another hand; notebooks/01_derive_metantk.
    """
    x1, x2 = check_inputs(network, x1, x2)
    return _kernel_fn(network)(x1, x2)
