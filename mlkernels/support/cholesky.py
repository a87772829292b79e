"""Cholesky's factorisation and what is solved by it, for many matrices in one program (see `batches`)."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
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
        >>> factor(jnp.array([[4.0, 2.0], [2.0, 2.0]])).tolist()
        [[2.0, 0.0], [1.0, 1.0]]
    """
    return _factor(matrix)


def solve(matrix: Array, right: Array, lower: Array | None = None) -> Array:
    """A^-1 right, for a positive definite A `[m, m]` and right `[m, k]`. Its derivative is a solve by the same factor.

    `lower` is A's factor where one has it already; it counts as a constant.

    Example:
        >>> solve(jnp.array([[4.0, 2.0], [2.0, 2.0]]), jnp.array([[4.0], [2.0]])).tolist()
        [[1.0], [0.0]]
    """
    lower = factor(jax.lax.stop_gradient(matrix)) if lower is None else lower
    product = partial(jnp.matmul, matrix, precision="highest")
    return jax.lax.custom_linear_solve(product, right, lambda _, b: _solve(lower, b), symmetric=True)
