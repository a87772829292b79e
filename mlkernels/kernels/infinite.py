"""The NTK and the NNGP at infinite width, from neural-tangents."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import jax
from jax import Array

from mlkernels.errors import bad_input
from mlkernels.networks import MLP, Conv4


class Kernels(NamedTuple):
    """The two infinite-width kernels between the same points, each `[N1, N2]`."""

    nngp: Array
    ntk: Array


@lru_cache(maxsize=32)
def _kernel_fn(network: MLP | Conv4) -> Callable[[Array, Array], Kernels]:
    """The jitted kernel function of one architecture. Width does not enter, so any width may be given to stax."""
    from mlkernels._neural_tangents import stax

    if not isinstance(network, MLP | Conv4):
        raise bad_input("network", "an MLP or a Conv4", type(network).__name__, "build it with mlkernels.networks")
    if network.parametrization != "ntk":
        raise bad_input(
            "network.parametrization",
            "'ntk'",
            repr(network.parametrization),
            "the NTK of the standard parametrisation grows with width: divide the empirical one by the width instead",
        )
    hidden = {"W_std": network.w_std, "b_std": network.b_std or None}
    if isinstance(network, MLP):
        if network.activation != "relu":
            do = "tanh has no infinite-width kernel in closed form"
            raise bad_input("network.activation", "'relu'", repr(network.activation), do)
        layers = [stax.Flatten()] + [stax.Dense(1, **hidden), stax.Relu()] * network.depth
    else:
        block = [stax.Conv(1, (3, 3), padding="SAME", **hidden), stax.Relu(), stax.AvgPool((2, 2), (2, 2))]
        layers = block * network.depth + [stax.Flatten()]
    head = stax.Dense(1, W_std=network.last_w_std, b_std=network.b_std or None)
    kernel_fn = stax.serial(*layers, head)[2]
    return jax.jit(lambda x1, x2: Kernels(*kernel_fn(x1, x2, ("nngp", "ntk"))))


def infinite_kernels(network: MLP | Conv4, x1: Array, x2: Array | None = None) -> Kernels:
    r"""NNGP and NTK of a network whose widths go to infinity, in NTK parametrisation.

    .. math:: \mathcal{K}(x, x') = \mathbb{E}[f(x) f(x')], \qquad
              \Theta(x, x') = \mathbb{E}\big[\langle\partial_\theta f(x), \partial_\theta f(x')\rangle\big]

    both for one output; several outputs are independent copies.

    Args:
        network: the architecture; its width and number of outputs do not matter.
        x1: inputs `[N1, ...]`.
        x2: inputs `[N2, ...]`; None means `x1`.

    Returns:
        `(nngp, ntk)`, each `[N1, N2]`. Compiled once per architecture and shape.

    Raises:
        InputError: an unknown network, the standard parametrisation, an activation other than ReLU, inputs of
            different shape.

    Example:
        >>> import jax
        >>> x = jax.random.normal(jax.random.key(0), (4, 6))
        >>> nngp, ntk = infinite_kernels(MLP(width=1), x)
        >>> ntk.shape, bool((ntk.diagonal() > nngp.diagonal()).all())
        ((4, 4), True)

    Source: Lee et al. 2018 (NNGP), Jacot et al. 2018 (NTK); notebooks/01_derive_metantk.
    """
    kernel_fn = _kernel_fn(network)
    if x2 is not None and x1.shape[1:] != x2.shape[1:]:
        raise bad_input("x2", f"points of shape {x1.shape[1:]} as in x1", x2.shape[1:], "compare like with like")
    return kernel_fn(x1, x1 if x2 is None else x2)
