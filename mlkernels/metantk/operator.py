"""The inner loop in function space: what some steps of gradient descent do to a residual."""

from __future__ import annotations

import math
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from mlkernels.errors import bad_input
from mlkernels.support.eigenvectors import eigh
from mlkernels.support.typed import typed


def float64(matrix, name: str) -> Array:
    """The matrix in float64, or an `InputError` where JAX has none: kernel algebra is never silently done in less."""
    if not jax.config.jax_enable_x64:
        do = "call jax.config.update('jax_enable_x64', True) before the first array"
        raise bad_input("precision", "64-bit JAX", "32-bit", do)
    matrix = jnp.asarray(matrix)
    if not jnp.issubdtype(matrix.dtype, jnp.floating):
        raise bad_input(name, "real numbers", matrix.dtype, "convert them to float")
    return matrix.astype(jnp.float64)


def _concrete(x, name: str = "number") -> float | None:
    """The number, or None while JAX traces."""
    try:
        return None if isinstance(x, jax.core.Tracer) else float(x)
    except (TypeError, ValueError):
        raise bad_input(name, "a number", repr(x), "give one number") from None


def check_loop(rate, steps, ridge, flow: bool, loop: str, *, called: str | None = None) -> None:
    """Refuse a rate, steps (of the name `called`) or a ridge that make no sense; traced values pass."""
    names = f"{loop}_rate", called or f"{loop}_steps", "ridge"
    rate_, steps_, ridge_ = map(_concrete, (rate, steps, ridge), names)
    if rate_ is not None and not (0 <= rate_ < math.inf):
        raise bad_input(f"{loop}_rate", "a finite number of at least 0", rate_, "use a small positive rate")
    if steps_ is not None and not (steps_ >= 0 and (flow or math.isinf(steps_) or steps_ == int(steps_))):
        kind = "a number of at least 0" if flow else "a whole number of at least 0, or math.inf"
        do = "for a fraction of a step use flow=True" if steps_ >= 0 else "use 0 or more"
        raise bad_input(names[1], kind, steps_, do)
    if ridge_ is not None and not (0 <= ridge_ < math.inf):
        raise bad_input("ridge", "a finite number of at least 0", ridge_, "use 0 or a small positive number")


@typed
def adaptation_operator(
    kernel: Float[ArrayLike, "*B m m"], *, inner_rate, inner_steps, flow: bool = False, ridge=0.0
) -> Float[Array, "*B m m"]:
    r"""What `inner_steps` of gradient descent do to the residual on the support set: the operator T.

    .. math:: T = (K + \rho I)^{-1}\big(I - (I - \lambda K)^{\tau}\big) \quad\text{(discrete)},\qquad
              T = (K + \rho I)^{-1}\big(I - e^{-\lambda\tau K}\big) \quad\text{(flow)}

    so that the linearised network predicts `f(x) + K(x, X') T (Y' - f(X'))` after adapting. Computed by `eigh`. At an
    eigenvalue 0 (and ridge 0) it takes the limit `inner_rate * inner_steps`; for infinitely many steps directions in
    the zero band are left out instead, as no support point excites them.

    Args:
        kernel: `[..., m, m]`, symmetric positive semidefinite, converted to float64; symmetrised.
        inner_rate: step size lambda of gradient descent on the half sum of squares, at least 0. May be traced.
        inner_steps: tau, a whole number of at least 0 or `math.inf`; with `flow` any number of at least 0. May be
            traced, so a slider over it never recompiles.
        flow: gradient flow for the time `inner_rate * inner_steps` instead of discrete steps.
        ridge: rho, added to the eigenvalues in the inverse alone (as in the reference implementation).

    Returns:
        `[..., m, m]`, symmetric, float64.

    Raises:
        InputError: JAX without float64, a matrix that is not square, a negative rate, steps or ridge, a fraction of a
            discrete step, or infinitely many discrete steps at a rate of `2 / largest eigenvalue` or more: they have
            no limit (NaN instead, while JAX traces).

    Example:
        >>> import jax, math
        >>> jax.config.update("jax_enable_x64", True)
        >>> K = jax.numpy.diag(jax.numpy.array([2.0, 0.0]))
        >>> [float(t) for t in adaptation_operator(K, inner_rate=0.1, inner_steps=1).diagonal()]
        [0.1, 0.1]
        >>> [float(t) for t in adaptation_operator(K, inner_rate=0.1, inner_steps=math.inf).diagonal()]
        [0.5, 0.0]

    Source: Wang et al. 2022 (MetaNTK), the operator of their analytic kernel; notebooks/01_derive_metantk.
    """
    K = float64(kernel, "kernel")
    if K.ndim < 2 or K.shape[-1] != K.shape[-2]:
        do = "pass the kernel of the support set with itself"
        raise bad_input("kernel", "a square matrix [m, m]", list(K.shape), do)
    check_loop(inner_rate, inner_steps, ridge, flow, "inner")
    T, largest = _operator(K, inner_rate, inner_steps, ridge, flow)
    if not flow and not isinstance(largest, jax.core.Tracer) and _concrete(inner_steps) == math.inf:
        largest, rate = float(largest), _concrete(inner_rate)
        if rate is not None and rate * largest >= 2:
            expected = f"below 2 / largest eigenvalue = {2 / largest:.4g} for infinitely many steps"
            raise bad_input("inner_rate", expected, rate, "lower the rate, or use flow=True")
    return T


@partial(jax.jit, static_argnames="flow")
def _operator(K: Array, rate, steps, ridge, flow: bool) -> tuple[Array, Array]:
    """T, and the largest eigenvalue of K."""
    eigenvalues, vectors = eigh((K + jnp.swapaxes(K, -1, -2)) / 2)
    gains = _gains(eigenvalues, rate, steps, flow, ridge)
    return jnp.einsum("...ij,...j,...kj->...ik", vectors, gains, vectors), eigenvalues.max()


def _gains(eigenvalues: Array, rate, steps, flow: bool, ridge) -> Array:
    """The eigenvalues of T; each branch is exact where it is used, and no branch makes a NaN that another inherits."""
    rate, steps, ridge = (jnp.asarray(v, jnp.float64) for v in (rate, steps, ridge))
    infinite = jnp.isinf(steps)
    finite_steps = jnp.where(infinite, 0.0, steps)
    x = rate * eigenvalues
    if flow:
        moved = -jnp.expm1(-x * finite_steps)
    else:
        small = jnp.abs(x) < 0.5
        accurate = -jnp.expm1(finite_steps * jnp.log1p(-jnp.where(small, x, 0.0)))
        moved = jnp.where(small, accurate, 1 - jnp.power(1 - x, finite_steps))
    zero = (eigenvalues == 0) & (ridge == 0)
    finite = jnp.where(zero, rate * finite_steps, moved / jnp.where(zero, 1.0, eigenvalues + ridge))
    band = jnp.sqrt(jnp.finfo(jnp.float64).eps) * jnp.abs(eigenvalues).max(-1, keepdims=True)
    kept = (eigenvalues > band) & (rate > 0)
    limit = jnp.where(kept, 1 / jnp.where(kept, eigenvalues + ridge, 1.0), 0.0)
    if not flow:
        limit = jnp.where(x >= 2, jnp.nan, limit)
    return jnp.where(infinite, limit, finite)
