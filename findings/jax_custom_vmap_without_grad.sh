#!/bin/sh
# jax 0.10.2: a function with a rule of its own for vmap (jax.custom_batching.custom_vmap) has forward mode and no
# reverse mode, until it is mapped: then its rule stands in its place, and the gradient is right.
# A good engineer would guess that a rule for vmap says nothing about derivatives: the body is plain JAX, jax.jvp of it
# is right, and jax.grad of jax.vmap of it is right. jax.grad of the function itself raises a ValueError that
# "linearization failed to produce known values for all output primals", which names no rule for vmap. Ways out: map it over one point, or put a custom_vjp around it.
# sh findings/jax_custom_vmap_without_grad.sh: passes while that is so.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check jax==0.10.2 jaxlib==0.10.2
cd "$folder"
cat >rule.py <<'PYTHON'
import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap


@custom_vmap
def solve(matrix, right):
    return jnp.linalg.solve(matrix, right)


@solve.def_vmap
def one_by_one(size, batched, matrix, right):
    matrix = matrix if batched[0] else jnp.broadcast_to(matrix, (size, *matrix.shape))
    right = right if batched[1] else jnp.broadcast_to(right, (size, *right.shape))
    return jax.lax.map(lambda pair: jnp.linalg.solve(*pair), (matrix, right)), True


A, b = jnp.array([[2.0, 1.0], [1.0, 3.0]]), jnp.array([1.0, 2.0])


def total(way):
    return lambda right: way(right).sum()


right = jnp.linalg.solve(A.T, jnp.ones(2))  # the gradient of sum(A^-1 b)
ahead = jnp.stack([jax.jvp(lambda v: solve(A, v), (b,), (e,))[1].sum() for e in jnp.eye(2)])
assert jnp.allclose(ahead, right), ahead
print("forward mode: right")
mapped = jax.grad(total(lambda v: jax.vmap(solve, (None, 0))(A, v[None])))(b)
assert jnp.allclose(mapped, right), mapped
print("reverse mode, mapped over one point: right")
try:
    print("reverse mode:", jax.grad(total(lambda v: solve(A, v)))(b))
    raise SystemExit("changed: reverse mode works")
except ValueError as error:
    print(f"reverse mode: {type(error).__name__}: {str(error)[:73]}")
PYTHON
"$folder/venv/bin/python" rule.py
echo "still so"
