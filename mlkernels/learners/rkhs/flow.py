"""Gradient flow in function space as a function of a matrix; repeated eigenvalues leave its first derivative alone."""

from __future__ import annotations

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, ArrayLike, Float

from mlkernels.errors import bad_input
from mlkernels.support.arguments import number
from mlkernels.support.eigenvectors import eigh
from mlkernels.support.typed import typed

_NULL = 64  # times n eps times the largest eigenvalue: below that an eigenvalue is rounding, and is not inverted
_SERIES = 0.05  # below this t lambda the divided differences are summed as a series
_TERMS = 8


@typed
def flow_operator(kernel: Float[ArrayLike, "*B m m"], time) -> Float[Array, "*B m m"]:
    r"""What a gradient flow of the half sum of squares makes of the residual: the operator G(t).

    .. math:: G_t(H) = H^{-1}\big(I - e^{-tH}\big) = \int_0^t e^{-sH}\,ds

    By `eigh`; an eigenvalue 0 gives t. At `time = math.inf` it is the inverse, and of a singular kernel the
    pseudo-inverse, which is where the flow of the network goes: what excites no support point is left out. Its
    first derivative is that of Daleckii and Krein, in which every quotient of differences has a form without
    cancellation: exact at repeated eigenvalues, where the derivative of `eigh` itself is infinite.

    Args:
        kernel: `[..., m, m]`, symmetric positive semidefinite; symmetrised. In 64 bits where JAX has them.
        time: t, at least 0, `math.inf` allowed; may be traced.

    Returns:
        `[..., m, m]`, symmetric, of the kernel's type.

    Raises:
        InputError: a matrix that is not square, a time below 0.

    Example:
        >>> flow_operator(jnp.diag(jnp.array([2.0, 0.0])), math.inf).diagonal().tolist()
        [0.5, 0.0]
        >>> flow_operator(jnp.diag(jnp.array([2.0, 0.0])), 3.0).diagonal().round(3).tolist()
        [0.499, 3.0]

    Source: Zhou et al. 2021, their eq. 5 and 6 (submission); notebooks/05_meta_learning_in_rkhs.
    """
    kernel = jnp.asarray(kernel)
    if kernel.ndim < 2 or kernel.shape[-1] != kernel.shape[-2]:
        do = "pass the kernel of the support set with itself"
        raise bad_input("kernel", "a square matrix [m, m]", list(kernel.shape), do)
    operator = flow_weights(kernel, jnp.broadcast_to(jnp.eye(kernel.shape[-1], dtype=kernel.dtype), kernel.shape), time)
    return (operator + jnp.swapaxes(operator, -1, -2)) / 2


def flow_weights(
    kernel: Float[Array, "*B m m"], residual: Float[Array, "*B m k"], time, ridge=0.0
) -> Float[Array, "*B m k"]:
    """`flow_operator(kernel + ridge I, time) @ residual` without the operator, of the kernel's type; unchecked.

    With a ridge nothing is left out at infinite time: it is added to the eigenvalues, not to a matrix that rounds it.
    """
    if not isinstance(time, jax.core.Tracer):
        time = number("time", time.item() if getattr(time, "ndim", None) == 0 else time, infinite=True)
    wide = jnp.result_type(float)
    null = _NULL * kernel.shape[-1] * float(jnp.finfo(kernel.dtype).eps)
    symmetric = ((kernel + jnp.swapaxes(kernel, -1, -2)) / 2).astype(wide)
    numbers = (jnp.asarray(each, wide) for each in (time, ridge))
    return _flow(null, symmetric, residual.astype(wide), *numbers).astype(kernel.dtype)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _flow(null: float, kernel: Array, residual: Array, time: Array, ridge: Array) -> Array:
    values, vectors = _eigh(kernel, time, ridge, null)
    return vectors @ (_gains(values, time)[..., None] * (jnp.swapaxes(vectors, -1, -2) @ residual))


def _flow_derivative(null, primals, tangents):
    kernel, residual, time, ridge = primals
    by_kernel, by_residual, by_time, by_ridge = tangents
    values, vectors = _eigh(kernel, time, ridge, null)
    back = jnp.swapaxes(vectors, -1, -2)
    gains, modes = _gains(values, time)[..., None], back @ residual
    moved = jnp.zeros_like(modes)
    if not isinstance(by_kernel, SymbolicZero):
        moved += (_quotients(values, time) * (back @ by_kernel @ vectors)) @ modes
    if not isinstance(by_residual, SymbolicZero):
        moved += gains * (back @ by_residual)
    if not isinstance(by_time, SymbolicZero):
        moved += by_time * jnp.where(jnp.isinf(time), 0.0, _decay(values, time))[..., None] * modes
    if not isinstance(by_ridge, SymbolicZero):
        moved += by_ridge * jnp.diagonal(_quotients(values, time), axis1=-2, axis2=-1)[..., None] * modes
    return vectors @ (gains * modes), vectors @ moved


_flow.defjvp(_flow_derivative, symbolic_zeros=True)


def _eigh(kernel: Array, time: Array, ridge: Array, null: float) -> tuple[Array, Array]:
    """Eigenvalues with the ridge, and vectors. Those below 0 count as 0, and so does what is rounding where it would be
    inverted.

    At a finite time a small eigenvalue needs no such care, and one that is no rounding would gain t, not 1 / lambda.
    """
    values, vectors = eigh(kernel)
    least = jnp.where(jnp.isinf(time) & (ridge == 0), null * values[..., -1:], 0.0)
    return jnp.where(values > least, values, 0.0) + ridge, vectors


def _decay(values: Array, time: Array) -> Array:
    """exp(-t lambda), and 1 at an eigenvalue 0 whatever the time."""
    return jnp.where(values > 0, jnp.exp(-jnp.where(values > 0, time * values, 0.0)), 1.0)


def _shrunk(x: Array) -> Array:
    """(1 - exp(-x)) / x for x from 0 on, and 1 at 0."""
    safe = jnp.where(x > 0, x, 1.0)
    return jnp.where(x > 0, -jnp.expm1(-safe) / safe, 1.0)


def _gains(values: Array, time: Array) -> Array:
    """g(lambda) = (1 - exp(-t lambda)) / lambda; in the limit of infinite time 1 / lambda, and 0 at 0."""
    safe = jnp.where(values > 0, values, 1.0)
    finite = jnp.where(jnp.isinf(time), 0.0, time)
    limit = jnp.where(values > 0, 1 / safe, 0.0)
    return jnp.where(jnp.isinf(time), limit, finite * _shrunk(finite * values))


def _quotients(values: Array, time: Array) -> Array:
    r"""The divided differences of g at all pairs of eigenvalues, `[..., m, m]`, with a >= b of each pair:

    .. math:: \frac{g(a) - g(b)}{a - b} = \frac1a\Big(e^{-tb}\,\frac{1 - e^{-t(a - b)}}{a - b} - g(b)\Big)
    """
    later = np.maximum.outer(*[np.arange(values.shape[-1])] * 2)  # the eigenvalues ascend
    sooner = np.minimum.outer(*[np.arange(values.shape[-1])] * 2)
    a, b = values[..., later], values[..., sooner]
    finite = jnp.where(jnp.isinf(time), 0.0, time)
    safe = jnp.where(a > 0, a, 1.0)
    decay, gains = finite * _decay(values, finite), _gains(values, finite)
    far = (decay[..., sooner] * _shrunk(finite * (a - b)) - gains[..., sooner]) / safe
    x, y = finite * a, finite * b
    near, symmetric = jnp.zeros_like(x), jnp.ones_like(x)  # the complete homogeneous symmetric polynomials of x and y
    power = jnp.ones_like(x)
    for m in range(_TERMS):
        near += (-1) ** (m + 1) / math.factorial(m + 2) * symmetric
        power = power * y
        symmetric = x * symmetric + power
    quotients = jnp.where(x < _SERIES, finite**2 * near, far)
    both, one = (b > 0), (a > 0) & (b == 0)
    inverse = jnp.where(both, -1 / (safe * jnp.where(both, b, 1.0)), jnp.where(one, 1 / safe**2, 0.0))
    return jnp.where(jnp.isinf(time), inverse, quotients)
