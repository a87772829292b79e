"""Eigenvectors of many symmetric matrices in one program, without batches that wait for each other (see `batches`)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from mlkernels.support.batches import apart


def eigh(matrices: Array) -> tuple[Array, Array]:
    """`jnp.linalg.eigh` of `[..., m, m]`: eigenvalues `[..., m]`, ascending, and vectors `[..., m, m]`.

    A matrix must be symmetric: the halves are not averaged. On a CPU a large batch goes matrix by matrix, under `vmap`
    as well.

    Example:
        >>> values, vectors = eigh(jnp.array([[[2.0, 0.0], [0.0, 1.0]]]))
        >>> values.tolist(), vectors.shape
        ([[1.0, 2.0]], (1, 2, 2))
    """
    if matrices.ndim == 2:
        return _one(matrices)
    *batch, m, _ = matrices.shape
    values, vectors = jax.vmap(_one)(matrices.reshape(-1, m, m))
    return values.reshape(*batch, m), vectors.reshape(*batch, m, m)


def _decomposed(matrices: Array) -> tuple[Array, Array]:
    values, vectors = jnp.linalg.eigh(matrices, symmetrize_input=False)
    return values, vectors


_decompose = apart(_decomposed, lambda shape: 5 * shape[0] ** 3)


@jax.custom_jvp
def _one(matrix: Array) -> tuple[Array, Array]:
    return _decompose(matrix)


@_one.defjvp
def _(primals, tangents):
    """As JAX has it; through what `vmap` is told it cannot go itself."""
    values, vectors = _one(*primals)
    moved = vectors.T @ tangents[0] @ vectors
    one = jnp.eye(len(values), dtype=values.dtype)
    quotients = 1 / (one + values[None] - values[:, None]) - one
    return (values, vectors), (jnp.diagonal(moved), vectors @ (quotients * moved))
