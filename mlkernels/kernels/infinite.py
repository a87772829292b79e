"""The NTK and the NNGP of a network of ReLUs at infinite width, with all the digits that its inputs have."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from functools import lru_cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Float, Num

from mlkernels.errors import bad_input
from mlkernels.kernels.half_angles import Half, joined, norm, relu
from mlkernels.networks import MLP, Conv4
from mlkernels.support.network_arguments import check_points
from mlkernels.support.typed import typed


class Kernels(NamedTuple):
    """The two kernels of one network between the same points, each `[N1, N2]`.

    Attributes:
        nngp: of infinite networks the NNGP, of finite ones the last layer's part of the NTK, which tends to it.
        ntk: the NTK.
    """

    nngp: Float[Array, "N1 N2"]
    ntk: Float[Array, "N1 N2"]


@lru_cache(maxsize=32)
def _kernel_fn(network: MLP | Conv4) -> Callable[[Array, Array | None], Kernels]:
    """The jitted kernel function of one architecture; without x2 its upper half alone is computed."""
    if isinstance(network, MLP):
        kernels = partial(_mlp_kernels, network)
    else:
        kernels = jax.vmap(jax.vmap(partial(_conv_kernels, network), (None, 0)), (0, None))

    def in_blocks(x1, x2):
        side = 160 if isinstance(network, MLP) else max(2, 512 // math.prod(x1.shape[1:3]))
        return Kernels(*blockwise(kernels, x1, x2, side))

    return jax.jit(in_blocks)


def blockwise(kernels: Callable, x1: Array, x2: Array | None, side: int) -> list[Array]:
    """Kernels `[N1, N2]` one block of about `side` by `side` points after the other: a block stays in the cache.

    Without x2 blocks below the diagonal are those above it transposed: half of the work. About three times as fast as
    whole matrices from 1000 points on (`benchmarks/metantk.py`).
    """
    second = x1 if x2 is None else x2
    size1, size2 = (-(-len(x) // max(1, -(-len(x) // side))) for x in (x1, second))
    starts1, starts2 = (  # the last block overlaps the one before: all are of one size
        np.minimum(np.arange(0, len(x), size), len(x) - size) if size else np.arange(0)
        for x, size in ((x1, size1), (second, size2))
    )
    pairs = [(i, j) for i in starts1 for j in starts2 if x2 is not None or i <= j]
    if len(pairs) <= 1:
        return list(kernels(x1, second))

    def step(wholes, start):
        i, j = start
        blocks = kernels(lax.dynamic_slice_in_dim(x1, i, size1), lax.dynamic_slice_in_dim(second, j, size2))
        if x2 is None:
            wholes = [lax.dynamic_update_slice(w, b.T, (j, i)) for w, b in zip(wholes, blocks, strict=True)]
        return [lax.dynamic_update_slice(w, b, (i, j)) for w, b in zip(wholes, blocks, strict=True)], None

    like = jax.eval_shape(kernels, x1[:1], second[:1])
    wholes = [jnp.zeros((len(x1), len(second)), each.dtype) for each in like]
    return lax.scan(step, wholes, jnp.array(pairs))[0]


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
    x1, x2 = check_points(x1, x1 if x2 is None else x2)
    x1, x2 = (x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(float) for x in (x1, x2))
    if isinstance(network, Conv4) and (x1.ndim != 4 or min(x1.shape[1:3]) < 2**network.depth):
        side = 2**network.depth
        expected = f"images [N1, height, width, channels] of at least {side} pixels a side for depth {network.depth}"
        raise bad_input("x1", expected, list(x1.shape), "add the missing axes, or lower the depth")
    return x1, x2


@typed
def infinite_kernels(
    network: MLP | Conv4, x1: Num[ArrayLike, "N1 ..."], x2: Num[ArrayLike, "N2 ..."] | None = None
) -> Kernels:
    r"""NNGP and NTK of a network whose widths go to infinity, in NTK parametrisation.

    .. math:: \mathcal{K}(x, x') = \mathbb{E}[f(x) f(x')], \qquad
              \Theta(x, x') = \mathbb{E}\big[\langle\partial_\theta f(x), \partial_\theta f(x')\rangle\big]

    both for one output; several outputs are independent copies.

    Args:
        network: the architecture; its width and number of outputs do not matter.
        x1: inputs `[N1, ...]`; their precision is that of the kernels (64 bits for kernel algebra).
        x2: inputs `[N2, ...]`; None, or `x1` itself, means `x1`, for half of the work.

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
    same = x2 is None or x2 is x1
    x1, x2 = check_inputs(network, x1, x2)
    return _kernel_fn(network)(x1, None if same else x2)


# --- layer by layer ---------------------------------------------------------------------------------------------------

# Between two points (or pixels) a layer has the lengths of its two signals, the angle between them as in `half_angles`,
# and the NTK. The NNGP is the product of both lengths and the angle's cosine.

_TAPS = list(itertools.product(range(3), range(3)))
_PAIRS = ((0, 1), (0, 0), (1, 1))  # of two images: both, and each with itself, which pooling needs


def _affine(a: Array, b: Array, b_std: float, turned: Array | float = 0.0) -> tuple[Array, Array, Half]:
    """A weighted sum and a bias: lengths `[P]` and `[Q]` of the signals, and their angles; arguments as `joined`."""
    a, b = (jnp.concatenate([v, jnp.full((len(v), 1), b_std, v.dtype)], 1) for v in (a, b))
    return norm(a), norm(b), joined(a, b, turned)


def _product(size1: Array, size2: Array) -> Array:
    """The product of lengths `[P]` and `[Q]` for each pair, `[P, Q]`."""
    return size1[:, None] * size2[None]


def _mlp_kernels(network: MLP, x1: Array, x2: Array) -> tuple[Array, Array]:
    """NNGP and NTK `[N1, N2]` of points `[N1, ...]` and `[N2, ...]`."""
    fan_in = math.prod(x1.shape[1:])
    x1, x2 = (network.w_std / math.sqrt(fan_in) * x.reshape(len(x), fan_in) for x in (x1, x2))
    size1, size2, half = _affine(x1, x2, network.b_std)
    nngp = ntk = _product(size1, size2) * half.cos
    for w_std in (network.w_std,) * (network.depth - 1) + (network.last_w_std,):
        sin2, slope = relu(half)
        size1, size2 = (w_std / math.sqrt(2) * size for size in (size1, size2))
        size1, size2, half = _affine(size1[:, None], size2[:, None], network.b_std, _product(size1, size2) * sin2)
        nngp = _product(size1, size2) * half.cos
        ntk = nngp + w_std**2 * slope * ntk
    return nngp, ntk


def _windows(x: Array) -> Array:
    """What the nine taps see of each pixel of `[height, width, channels]`, `[pixels, 9 * channels]`; zero beyond."""
    height, width, channels = x.shape
    padded = jnp.pad(x, ((1, 1), (1, 1), (0, 0)))
    seen = jnp.concatenate([padded[i : i + height, j : j + width] for i, j in _TAPS], -1)
    return seen.reshape(height * width, 9 * channels)


def _joint_mean(a: Array, shape: tuple[int, int]) -> Array:
    """The mean over the nine taps of pairs of pixels `[pixels, pixels]` that one tap sees at a time; zero beyond."""
    height, width = shape
    padded = jnp.pad(a.reshape(*shape, *shape), 1)
    cuts = (padded[i : i + height, j : j + width, i : i + height, j : j + width] for i, j in _TAPS)
    return (sum(cuts) / 9).reshape(a.shape)


def _pooled(a: Array, shape: tuple[int, int]) -> Array:
    """Means over 2x2 pixels on both sides of `[pixels, pixels]`; an odd last row or column is dropped."""
    height, width = (side // 2 for side in shape)
    a = a.reshape(*shape, *shape)[: 2 * height, : 2 * width, : 2 * height, : 2 * width]
    means = a.reshape(height, 2, width, 2, height, 2, width, 2).mean((1, 3, 5, 7))
    return means.reshape(height * width, height * width)


def _distances(size1: Array, size2: Array, sin2: Array) -> Array:
    """Squared distances between the signals of all pairs of pixels, without a difference of large numbers."""
    return (size1[:, None] - size2[None]) ** 2 + 4 * _product(size1, size2) * sin2


def _pool(size: Array, sin2: Array, shape: tuple[int, int]) -> tuple[Array, Array]:
    """Of one image: the length of each mean over 2x2 pixels, and the mean squared distance between those pixels."""
    squares = _pooled(_product(size, size) * (1 - 2 * sin2), shape).diagonal()
    return jnp.sqrt(jnp.maximum(squares, 0)), _pooled(_distances(size, size, sin2), shape).diagonal()


def _pool_angles(distances: Array, image1: tuple, image2: tuple, same: Array | bool) -> Array:
    """`sin(angle / 2)**2` between means over 2x2 pixels of two images; `same` says that they are one image."""
    # a difference of mean distances: near means keep half of the digits, unlike near points; a mean with itself all
    (size1, within1), (size2, within2) = image1, image2
    apart = distances - (within1[:, None] + within2[None]) / 2 - (size1[:, None] - size2[None]) ** 2
    product = 4 * _product(size1, size2)
    sin2 = jnp.clip(apart / jnp.where(product > 0, product, 1), 0, 1)
    return jnp.where(same & jnp.eye(len(size1), dtype=bool), 0, sin2)


def _block(network: Conv4, shape, seen: list[Array], turned: list, ntk, same) -> tuple[list[Array], list[Array], Array]:
    """Convolution, ReLU and pooling: lengths of each image, angles of each of `_PAIRS`, and the NTK of both images.

    `shape` is that before pooling, `seen` of each image what enters the sum at each pixel `[pixels, p]`, `turned` as in
    `joined` of each pair, `ntk` the layer below's mean over the taps, `same` of each pair whether it is one image.
    """
    layers = [_affine(seen[i], seen[j], network.b_std, t) for (i, j), t in zip(_PAIRS, turned, strict=True)]
    *sizes, half = layers[0]
    (_, slope), *_ = rectified = [relu(half) for *_, half in layers]
    ntk = _pooled(slope * (_product(*sizes) * half.cos + network.w_std**2 * ntk), shape)
    sizes = [size / math.sqrt(2) for size in sizes]
    images = [_pool(size, sin2, shape) for size, (sin2, _) in zip(sizes, rectified[1:], strict=True)]
    angles = [
        _pool_angles(_pooled(_distances(sizes[i], sizes[j], sin2), shape), images[i], images[j], one)
        for (i, j), (sin2, _), one in zip(_PAIRS, rectified, same, strict=True)
    ]
    return [size for size, _ in images], angles, ntk


def _conv_kernels(network: Conv4, x1: Array, x2: Array) -> tuple[Array, Array]:
    """NNGP and NTK of two images `[height, width, channels]`, each a number."""
    same = (x1 == x2).all(), True, True
    *shape, channels = x1.shape
    seen = [network.w_std / math.sqrt(9 * channels) * _windows(x) for x in (x1, x2)]
    sizes, angles, ntk = _block(network, shape, seen, [0.0] * 3, 0.0, same)
    for _ in range(network.depth - 1):
        shape = [side // 2 for side in shape]
        seen = [network.w_std / 3 * _windows(size.reshape(*shape, 1)) for size in sizes]
        sums = [_product(sizes[i], sizes[j]) * sin2 for (i, j), sin2 in zip(_PAIRS, angles, strict=True)]
        turned = [network.w_std**2 * _joint_mean(s, shape) for s in sums]
        sizes, angles, ntk = _block(network, shape, seen, turned, _joint_mean(ntk, shape), same)
    size1, size2 = (network.last_w_std / math.sqrt(size.size) * size for size in sizes)
    turned = (size1 * size2 * angles[0].diagonal()).sum()
    (size1,), (size2,), half = _affine(size1[None], size2[None], network.b_std, turned)
    nngp = size1 * size2 * half.cos[0, 0]
    return nngp, nngp + network.last_w_std**2 * ntk.diagonal().mean()
