"""Convolutions, pooling and normalisation as XLA runs them fast.

XLA on a CPU is several times slower than it need be at the gradients of depthwise convolutions, at pooling's and at the
copies of im2col. Hence there: a depthwise convolution and pooling are shifted images, forwards and backwards; a dense
convolution is a matrix product a tap, shifted afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Float

from mlkernels.errors import bad_input
from mlkernels.nas.space.blocks import Conv, Norm, Pool
from mlkernels.support.typed import typed

LOWERINGS = ("auto", "shifts", "lax")
_CHOSEN: ContextVar[str] = ContextVar("lowering", default="auto")
EPSILON = 1e-5  # of the normalisations, as in PyTorch


@contextmanager
def lowering(name: str) -> Iterator[None]:
    """A context, of this thread alone, that says how convolutions are written for XLA.

    "shifts", "lax" (`lax.conv`), or "auto", as without a context: "shifts" on a CPU, "lax" elsewhere. A `jax.jit` of
    one's own keeps what it was traced with: open the context inside of it.
    """
    if name not in LOWERINGS:
        raise bad_input("lowering", "auto, shifts or lax", repr(name), "leave it at auto")
    before = _CHOSEN.set(name)
    try:
        yield
    finally:
        _CHOSEN.reset(before)


def current_lowering() -> str:
    """ "shifts" or "lax", as the innermost `lowering` says."""
    if (name := _CHOSEN.get()) != "auto":
        return name
    return "shifts" if jax.default_backend() == "cpu" else "lax"


@typed
def conv(step: Conv, w: Float[ArrayLike, "..."], x: Float[ArrayLike, "*A H W C"]) -> Float[Array, "*A _ _ _"]:
    """A convolution, as `lowering` says."""
    if step.kernel == (1, 1):
        return x[:, :: step.stride[0], :: step.stride[1]] @ w[0, 0]
    if current_lowering() == "lax":
        d = step.dilation
        padding = [(d * (k // 2), d * (k // 2)) for k in step.kernel]
        w, groups = (w[:, :, None], step.inputs) if step.depthwise else (w, 1)
        axes = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(x, w, step.stride, padding, None, (d, d), axes, groups)
    if step.depthwise:
        return _depthwise(step, w, x)
    taps = w.reshape(-1, *w.shape[2:])
    if step.stride != (1, 1):
        return sum(part @ tap for part, tap in zip(_shifts(x, step.kernel, step.stride), taps, strict=True))
    products = [_shifts(x @ tap, step.kernel, pick=number) for number, tap in enumerate(taps)]
    return sum(product for (product,) in products)


def _shifts(x, kernel, stride=(1, 1), dilation: int = 1, fill=0, pick: int | None = None) -> list:
    """What each tap of a kernel sees of `[n, height, width, channels]`, row by row; or `pick`, one tap alone."""
    (kh, kw), d = kernel, dilation
    height, width = (-(-pixels // step) for pixels, step in zip(x.shape[1:3], stride, strict=True))
    up, left = d * (kh // 2), d * (kw // 2)
    pad = np.pad if isinstance(x, np.ndarray) else jnp.pad
    padded = pad(x, ((0, 0), (up, up), (left, left), (0, 0)), constant_values=fill)
    rows = [slice(i * d, i * d + (height - 1) * stride[0] + 1, stride[0]) for i in range(kh)]
    columns = [slice(j * d, j * d + (width - 1) * stride[1] + 1, stride[1]) for j in range(kw)]
    taps = [(row, column) for row in rows for column in columns]
    return [padded[:, row, column] for row, column in (taps if pick is None else taps[pick : pick + 1])]


def _back(g: Array, pixels, kernel, stride, dilation: int = 1, fill=0) -> list[Array]:
    """For each tap, row by row, which output saw a pixel through it: the transposes of `_shifts`."""
    sh, sw = stride
    rest = [size - (count - 1) * s - 1 for size, count, s in zip(pixels, g.shape[1:3], stride, strict=True)]
    spread = ((0, 0, 0), (0, rest[0], sh - 1), (0, rest[1], sw - 1), (0, 0, 0))
    full = g if stride == (1, 1) else lax.pad(g, jnp.asarray(fill, g.dtype), spread)
    return _shifts(full, kernel, (1, 1), dilation, fill)[::-1]


def _fold(x: Array) -> Array:
    """The image's strips, up to eight, added up: products are summed over pixels ten times faster after that."""
    height = x.shape[1]
    strips = max(count for count in range(1, 9) if height % count == 0)
    rows = height // strips
    return sum(x[:, i * rows : (i + 1) * rows] for i in range(strips))


@typed
def sample_gradients(
    step: Conv, w: Float[ArrayLike, "..."], x: Float[ArrayLike, "N H W C"], g: Float[ArrayLike, "N _ _ _"]
) -> Float[Array, "N ..."]:
    """The gradient by a convolution's weights of each sample, `[n, *w.shape]`, for g by the output.

    By taps whatever the lowering: `vmap` would make one convolution of it in as many groups as there are samples times
    channels, tens of thousands, which no library is made for.
    """
    if step.depthwise:
        return _depthwise_gradients(step, w, x, g)
    return jnp.stack(tap_gradients(step, x, g), axis=1).reshape(-1, *w.shape)


def tap_gradients(step: Conv, x: Array, g: Array, loop: bool = False) -> list[Array]:
    """`sample_gradients` of a dense convolution tap by tap, `[n, inputs, outputs]` each: side by side takes a copy.

    With `loop` sample by sample where images have many pixels: XLA's batched product first writes all of x with pixels
    last, and whatever x and g come from is computed twice for that. For samples that lie on one device.
    """
    pixels = x.shape[1] * x.shape[2]
    loop = loop and step.stride == (1, 1) and pixels > x.shape[-1]
    if loop and step.kernel == (1, 1):
        return [_pixel_products(pixels, x.reshape(-1, x.shape[-1]), g.reshape(-1, g.shape[-1]))]
    if loop:
        return _tap_products(step, x, g)
    if step.stride == (1, 1):  # copies of g alone, the ones that the gradient by x needs too
        pairs = [(x, part) for part in _back(g, x.shape[1:3], step.kernel, step.stride)]
    else:
        pairs = [(part, g) for part in _shifts(x, step.kernel, step.stride)]
    return [jnp.einsum("nhwi,nhwo->nio", *pair) for pair in pairs]


def _pixel_products(pixels: int, x: Array, g: Array) -> Array:
    """Of each sample, so many rows of x and g, `x.T @ g`: `[n, inputs, outputs]`."""

    def one(number):
        own = [lax.dynamic_slice_in_dim(rows, number * pixels, pixels) for rows in (x, g)]
        return own[0].T @ own[1]

    return lax.map(one, jnp.arange(len(x) // pixels))


def _tap_products(step: Conv, x: Array, g: Array) -> list[Array]:
    """For each tap of a convolution of stride 1 the products of x with what it sends to g, `[n, inputs, outputs]`."""
    (height, width), (kh, kw) = x.shape[1:3], step.kernel
    padded = jnp.pad(g, ((0, 0), (kh // 2, kh // 2), (kw // 2, kw // 2), (0, 0)))

    def one(sample):
        x, padded = sample
        rows = x.reshape(height * width, -1)
        seen = [padded[i : i + height, j : j + width] for i in range(kh) for j in range(kw)]
        return [rows.T @ part.reshape(height * width, -1) for part in seen]

    return lax.map(one, (x, padded))[::-1]


def _taps(w: Array) -> Array:
    """A depthwise convolution's weights tap by tap, `[1, 1, 1, inputs]` each."""
    return w.reshape(-1, 1, 1, 1, w.shape[-1])


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _depthwise(step: Conv, w: Array, x: Array) -> Array:
    seen = _shifts(x, step.kernel, step.stride, step.dilation)
    return sum(part * tap for part, tap in zip(seen, _taps(w), strict=True))


def _depthwise_gradients(step: Conv, w: Array, x: Array, g: Array) -> Array:
    seen = _shifts(x, step.kernel, step.stride, step.dilation)
    folded = jnp.stack([_fold(part * g) for part in seen], axis=1)
    return folded.sum((2, 3)).reshape(-1, *w.shape)


def _depthwise_forward(step, w, x):
    return _depthwise(step, w, x), (w, x)


def _depthwise_backward(step, saved, g):
    w, x = saved
    seers = _back(g, x.shape[1:3], step.kernel, step.stride, step.dilation)
    by_x = sum(part * tap for part, tap in zip(seers, _taps(w), strict=True))
    return _depthwise_gradients(step, w, x, g).sum(0), by_x


_depthwise.defvjp(_depthwise_forward, _depthwise_backward)


@typed
def pool(step: Pool, x: Float[ArrayLike, "N H W C"]) -> Float[Array, "N _ _ C"]:
    """3x3 pooling.

    Example:
        >>> pool(Pool("average"), jnp.arange(4.0).reshape(1, 2, 2, 1)).ravel().tolist()
        [1.5, 1.5, 1.5, 1.5]
    """
    pixels, channels = x.shape[1:3], x.shape[-1]
    if step.kind == "max":
        return _max_pool(step, pixels, x)
    window = Conv(channels, channels, (3, 3), step.stride, depthwise=True)
    inside = sum(_shifts(np.ones((1, *pixels, 1)), (3, 3), step.stride))  # pixels of the image that each output sees
    return _depthwise(window, jnp.ones((3, 3, channels), x.dtype), x) / jnp.asarray(inside, x.dtype)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _max_pool(step: Pool, pixels: tuple[int, int], x: Array) -> Array:
    return _max_pool_forward(step, pixels, x)[0]


def _max_pool_forward(step, pixels, x):
    """Also which tap won: of equal pixels the first, as in PyTorch, so that the gradient goes to one of them."""
    best, *others = _shifts(x, (3, 3), step.stride, fill=-jnp.inf)
    winner = jnp.zeros(best.shape, jnp.int8)
    for number, other in enumerate(others, 1):
        winner = jnp.where(other > best, jnp.int8(number), winner)
        best = jnp.maximum(best, other)
    return best, winner


def _max_pool_backward(step, pixels, winner, g):
    winners = _back(winner, pixels, (3, 3), step.stride, fill=-1)
    seers = _back(g, pixels, (3, 3), step.stride)
    return (sum(jnp.where(won == t, part, 0) for t, (won, part) in enumerate(zip(winners, seers, strict=True))),)


_max_pool.defvjp(_max_pool_forward, _max_pool_backward)


@typed
def norm(step: Norm, x: Float[ArrayLike, "N H W C"]) -> Float[Array, "N H W C"]:
    """Normalisation without scale and shift; batch normalisation with the statistics of this batch.

    Example:
        >>> x = jax.random.normal(jax.random.key(0), (2, 4, 4, 32))
        >>> bool(abs(norm(Norm(32), x).reshape(2, 16, 16, 2).mean((1, 3))).max() < 1e-6)
        True
    """
    return standardised(x)[0] if step.kind == "batch" else _group_norm(step, x)


def standardised(x: Array) -> tuple[Array, Array, Array]:
    """Each channel of `[n, height, width, channels]` with mean 0 and variance 1; mean and variance before."""
    mean = x.mean((0, 1, 2), keepdims=True)
    x = x - mean
    variance = (x * x).mean((0, 1, 2), keepdims=True)
    return x * lax.rsqrt(variance + EPSILON), mean[0, 0, 0], variance[0, 0, 0]


def _group_mean(x: Array) -> Array:
    """The mean over a sample's pixels and a group of channels, for each channel: `[n, 1, 1, channels]`."""
    n, height, width, channels = x.shape
    groups = min(16, channels)
    mean = x.sum((1, 2)).reshape(n, groups, -1).mean(-1) / (height * width)
    return jnp.repeat(mean, channels // groups, axis=-1)[:, None, None]


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _group_norm(step: Norm, x: Array) -> Array:
    return _group_norm_forward(step, x)[0]


def _group_norm_forward(step, x):
    x = x - _group_mean(x)
    factor = lax.rsqrt(_group_mean(x * x) + EPSILON)
    y = x * factor
    return y, (y, factor)


def _group_norm_backward(step, saved, g):
    y, factor = saved
    return (factor * (g - _group_mean(g) - y * _group_mean(g * y)),)


_group_norm.defvjp(_group_norm_forward, _group_norm_backward)
