"""The infinite-width kernels once more, from neural-tangents: what ours are held against."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import jax
from jax import Array

from mlkernels.kernels.infinite import Kernels, check_inputs
from mlkernels.networks import MLP, Conv4


@lru_cache(maxsize=32)
def _kernel_fn(network: MLP | Conv4) -> Callable[[Array, Array], Kernels]:
    """The jitted kernel function of one architecture. Width does not enter, so any width may be given to stax."""
    from mlkernels.kernels.neural_tangents_bridge import stax

    hidden = {"W_std": network.w_std, "b_std": network.b_std or None}
    if isinstance(network, MLP):
        layers = [stax.Flatten()] + [stax.Dense(1, **hidden), stax.Relu()] * network.depth
    else:
        block = [stax.Conv(1, (3, 3), padding="SAME", **hidden), stax.Relu(), stax.AvgPool((2, 2), (2, 2))]
        layers = block * network.depth + [stax.Flatten()]
    head = stax.Dense(1, W_std=network.last_w_std, b_std=network.b_std or None)
    kernel_fn = stax.serial(*layers, head)[2]
    return jax.jit(lambda x1, x2: Kernels(*kernel_fn(x1, x2, ("nngp", "ntk"))))


def by_neural_tangents(network: MLP | Conv4, x1: Array, x2: Array | None = None) -> Kernels:
    r"""The kernels of `infinite_kernels` as neural-tangents computes them, to compare with.

    .. math:: \sin\varphi = \sqrt{\mathcal{K}(x, x)\,\mathcal{K}(x', x') - \mathcal{K}(x, x')^2}
              \Big/ \sqrt{\mathcal{K}(x, x)\,\mathcal{K}(x', x')}

    This difference loses half of the digits where two points are nearly one: about 1e-8 of the NTK's diagonal in 64
    bits, and 1e-4 in 32. The other entries are equal to some roundings.

    Args:
        network, x1, x2: as `infinite_kernels`.

    Returns:
        `(nngp, ntk)`, each `[N1, N2]`. Compiled once per architecture and shape.

    Raises:
        InputError: as `infinite_kernels`.
        BridgeError: neural-tangents does not work with the installed JAX.

    Example:
        >>> x = jax.random.normal(jax.random.key(0), (4, 6))
        >>> by_neural_tangents(MLP(width=1), x).ntk.shape
        (4, 4)

    Source: Novak et al. 2020; notebooks/01_derive_metantk.
    """
    x1, x2 = check_inputs(network, x1, x2)
    return _kernel_fn(network)(x1, x2)
