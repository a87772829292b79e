"""The kernels of infinitely wide networks layer by layer: an MLP's, and Conv-4's over all pairs of pixels.

Between two points (or pixels) a layer has the lengths of its two signals, the angle between them as in
`mlkernels.kernels.half_angles`, and the NTK. The NNGP is the product of both lengths and the angle's cosine.
"""

from __future__ import annotations

import itertools
import math

import jax.numpy as jnp
from jax import Array

from mlkernels.kernels.half_angles import Half, joined, norm, relu
from mlkernels.networks import MLP, Conv4

_TAPS = list(itertools.product(range(3), range(3)))
_PAIRS = ((0, 1), (0, 0), (1, 1))  # of two images: both, and each with itself, which pooling needs


def _affine(a: Array, b: Array, b_std: float, turned: Array | float = 0.0) -> tuple[Array, Array, Half]:
    """A weighted sum and a bias: lengths `[P]` and `[Q]` of the signals, and their angles; arguments as `joined`."""
    a, b = (jnp.concatenate([v, jnp.full((len(v), 1), b_std, v.dtype)], 1) for v in (a, b))
    return norm(a), norm(b), joined(a, b, turned)


def _product(size1: Array, size2: Array) -> Array:
    """The product of lengths `[P]` and `[Q]` for each pair, `[P, Q]`."""
    return size1[:, None] * size2[None]


def mlp_kernels(network: MLP, x1: Array, x2: Array) -> tuple[Array, Array]:
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
    """`sin(angle / 2)**2` between means over 2x2 pixels of two images; `same` says that they are one image.

    The squared distance of two means is a difference of mean distances: near means keep half of the digits, unlike near
    points. A mean keeps all with itself.
    """
    (size1, within1), (size2, within2) = image1, image2
    apart = distances - (within1[:, None] + within2[None]) / 2 - (size1[:, None] - size2[None]) ** 2
    product = 4 * _product(size1, size2)
    sin2 = jnp.clip(apart / jnp.where(product > 0, product, 1), 0, 1)
    return jnp.where(same & jnp.eye(len(size1), dtype=bool), 0, sin2)


def _block(network: Conv4, shape, seen: list[Array], turned: list, ntk, same) -> tuple[list[Array], list[Array], Array]:
    """Convolution, ReLU and pooling: lengths of each image, angles of each of `_PAIRS`, and the NTK of both images.

    Args:
        shape: height and width before pooling.
        seen: of each image what enters the sum at each pixel, `[pixels, p]`.
        turned: as in `joined`, of each pair.
        ntk: the mean of the layer below over each pair of pixels' taps.
        same: of each pair whether it is one image.
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


def conv_kernels(network: Conv4, x1: Array, x2: Array) -> tuple[Array, Array]:
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
