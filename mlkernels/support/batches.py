"""LAPACK on many matrices in one program, without batches that wait for each other."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array
from jax.custom_batching import custom_vmap

_INLINE = 200_000  # the cost of a batch, as LAPACK's callers in JAX 0.10 count it, above which they cut it into parts


def apart(function: Callable, cost: Callable[..., float]) -> Callable:
    """A function of matrices that `vmap` makes no large batches of, on a CPU, however many there are around it.

    JAX before 0.11 cuts a large batch into parts for the threads that run the program, on one of which it waits for
    them: where a program holds as many such batches side by side as there are threads, all may wait for ever. So a
    large batch goes matrix by matrix on a CPU; on two cores that took little longer. It has no derivative of its own:
    JAX cannot differentiate through such a rule for `vmap`.

    Args:
        function: of arrays of two axes; it takes stacks of them, `[B, ., .]`, as well, and gives an array or a tuple.
        cost: of one call, from the arrays' shapes.

    Returns:
        The function, for arrays of two axes.

    Example:
        >>> double = apart(lambda matrix: 2 * matrix, lambda shape: shape[0] ** 3)
        >>> jax.vmap(jax.vmap(double))(jnp.ones((3, 4, 2, 2))).shape
        (3, 4, 2, 2)
    """

    def of_stack(*arrays: Array):
        large = len(arrays[0]) * cost(*(array.shape[1:] for array in arrays)) > _INLINE
        if large and jax.default_backend() == "cpu":
            return jax.lax.map(lambda each: function(*each), arrays)
        return function(*arrays)

    stack, one = custom_vmap(of_stack), custom_vmap(lambda *arrays: function(*arrays))

    def in_step(size: int, in_batched: list[bool], arrays) -> list[Array]:
        pairs = zip(arrays, in_batched, strict=True)
        return [array if there else jnp.broadcast_to(array[None], (size, *array.shape)) for array, there in pairs]

    @one.def_vmap
    def _(size: int, in_batched: list[bool], *arrays: Array):
        found = stack(*in_step(size, in_batched, arrays))
        return found, jax.tree.map(lambda _: True, found)

    @stack.def_vmap
    def _(size: int, in_batched: list[bool], *arrays: Array):
        arrays = in_step(size, in_batched, arrays)
        count = arrays[0].shape[1]
        found = stack(*(array.reshape(size * count, *array.shape[2:]) for array in arrays))
        found = jax.tree.map(lambda leaf: leaf.reshape(size, count, *leaf.shape[1:]), found)
        return found, jax.tree.map(lambda _: True, found)

    return one
