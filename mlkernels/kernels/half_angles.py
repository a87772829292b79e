"""Angles between features, kept as sine and cosine of their halves: no digit is lost where two points are nearly one.

The covariances of a ReLU network need the angle between two points in every layer. The arc cosine of a number next to
1 has half of the digits of its argument, so that a point would make an angle of 1e-8 with itself (in 32 bits, 3e-4).
With the half angle :math:`\\varphi/2` the sines are sums of terms of one sign instead, and nothing cancels.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array


class Half(NamedTuple):
    """The angle between two vectors as `sin(angle / 2)**2` and `cos(angle / 2)**2`, each of the pairs' shape."""

    sin2: Array
    cos2: Array

    @property
    def cos(self) -> Array:
        """The cosine of the whole angle."""
        return self.cos2 - self.sin2


def _root(x: Array) -> Array:
    """The square root of `x >= 0`, whose derivative at 0 is taken as 0."""
    positive = x > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1)), 0)


def norm(a: Array) -> Array:
    """The length of vectors `[..., p]`, `[...]`."""
    return _root((a * a).sum(-1))


def _squares(a: Array, b: Array) -> tuple[Array, Array]:
    """The squared lengths of `a_i - b_j` and of `a_i + b_j`, each `[P, Q]`, one coordinate after the other."""

    def add(sums, coordinates):
        x, y = coordinates[0][:, None], coordinates[1][None]
        return (sums[0] + (x - y) ** 2, sums[1] + (x + y) ** 2), None

    zeros = jnp.zeros((len(a), len(b)), jnp.result_type(a, b))
    return jax.lax.scan(add, (zeros, zeros), (a.T, b.T), unroll=min(8, a.shape[1]))[0]


def joined(a: Array, b: Array, turned: Array | float = 0.0) -> Half:
    r"""The angles between vectors that are put together from parts, from the parts' lengths and angles.

    .. math:: \sin^2\tfrac{\varphi}{2} = \sin^2\tfrac{\angle(a, b)}{2}
              + \frac{1}{|a|\,|b|} \sum_k a_k b_k \sin^2\tfrac{\varphi_k}{2}

    `a` and `b` hold the lengths of the parts (where none is turned, coordinates of any sign), `turned` the sum on the
    right for each pair. The angle of the lengths themselves is Kahan's, from sum and difference of two unit vectors. A
    vector of length 0 is at a right angle to every other.

    Source: W. Kahan, "How futile are mindless assessments of roundoff", 2006, section 12; notebooks/01_derive_metantk.
    """
    size_a, size_b = (jnp.where(size > 0, size, 1)[:, None] for size in (norm(a), norm(b)))
    apart, along = _squares(a / size_a, b / size_b)
    whole = apart + along
    sin2 = jnp.where(whole > 0, apart, 0) / jnp.where(whole > 0, whole, 1)
    cos2 = jnp.where(whole > 0, along, 1) / jnp.where(whole > 0, whole, 1)
    turned = turned / (size_a * size_b.T)
    return Half(sin2 + turned, cos2 - turned)


def relu(half: Half) -> tuple[Array, Array]:
    r"""What a ReLU makes of the angle between two signals (its `sin2`), and the covariance of its slopes.

    .. math:: \cos\varphi' = \frac{\sin\varphi + (\pi - \varphi)\cos\varphi}{\pi}, \qquad
              \mathbb{E}[\dot\sigma(u)\,\dot\sigma(v)] = \frac{\pi - \varphi}{2\pi}

    The lengths of both signals shrink by the square root of 2.

    Source: Cho and Saul 2009, the arc-cosine kernels of orders 1 and 0; notebooks/01_derive_metantk, equation (2).
    """
    sine, cosine = _root(half.sin2), _root(half.cos2)
    angle = 2 * jnp.arctan2(sine, cosine)
    bent = (2 * sine * cosine - angle * half.cos) / jnp.pi  # 2 * sine * cosine is the sine of the whole angle
    return jnp.maximum(half.sin2 - bent / 2, 0), (jnp.pi - angle) / (2 * jnp.pi)
