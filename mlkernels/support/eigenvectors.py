"""Eigenvectors of many symmetric matrices in one program, without batches that wait for each other."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jax.custom_batching import custom_vmap

_INLINE = 40_000  # size cubed times batch: JAX 0.10 cuts larger batches into parts of so much


def eigh(matrices: Array) -> tuple[Array, Array]:
    """`jnp.linalg.eigh` of `[..., m, m]`: eigenvalues `[..., m]`, ascending, and vectors `[..., m, m]`.

    A matrix must be symmetric: the halves are not averaged. On a CPU, JAX before 0.11 cuts a large batch into parts for
    the threads that run the program, on one of which it waits for them: where a program holds as many such batches as
    there are threads, all may wait for ever. So a large batch goes matrix by matrix there, under `vmap` as well; on two
    cores that took little longer.

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


@custom_vmap
def _one(matrix: Array) -> tuple[Array, Array]:
    return _decomposed(matrix)


@_one.def_vmap
def _batched(axis_size: int, in_batched: list[bool], matrices: Array):
    inline = axis_size * matrices.shape[-1] ** 3 <= _INLINE
    found = _decomposed(matrices) if inline or jax.default_backend() != "cpu" else jax.lax.map(_decomposed, matrices)
    return found, (True, True)
