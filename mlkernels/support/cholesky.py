"""Cholesky's factorisation and what is solved by it, for many matrices in one program (see `batches`)."""

from __future__ import annotations

from jax import Array
from jax.lax import linalg

from mlkernels.support.batches import apart


def _solved(factor: Array, right: Array) -> Array:
    half = linalg.triangular_solve(factor, right, left_side=True, lower=True)
    return linalg.triangular_solve(factor, half, left_side=True, lower=True, transpose_a=True)


_factor = apart(lambda matrix: linalg.cholesky(matrix, symmetrize_input=False), lambda shape: shape[0] ** 3 / 3)
_solve = apart(_solved, lambda shape, right: shape[0] ** 2 * right[1])


def factor(matrix: Array) -> Array:
    """L of a matrix `[m, m]` = L L', of which the lower half is read; NaN where it is not positive definite.

    Example:
        >>> import jax.numpy as jnp
        >>> factor(jnp.array([[4.0, 2.0], [2.0, 2.0]])).tolist()
        [[2.0, 0.0], [1.0, 1.0]]
    """
    return _factor(matrix)


def solve(factor: Array, right: Array) -> Array:
    """(L L')^-1 right, for L `[m, m]` and right `[m, k]`.

    Example:
        >>> import jax.numpy as jnp
        >>> solve(jnp.array([[2.0, 0.0], [1.0, 1.0]]), jnp.array([[4.0], [2.0]])).tolist()
        [[1.0], [0.0]]
    """
    return _solve(factor, right)
