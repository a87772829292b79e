#!/bin/sh
# jax 0.10.2: lax.custom_root with cg of jax.scipy.sparse.linalg as tangent_solve has forward mode and no reverse mode.
# Both are made to be differentiated, and cg tells JAX that its matrix is symmetric, so that a good engineer would guess
# that they compose, as an implicit derivative by conjugate gradients asks for. jax.jvp is right; jax.grad raises a
# NotImplementedError whose whole text asks to open an issue. A dense solve in the same place is transposed, and so is
# cg called within lax.custom_linear_solve(..., symmetric=True), which is the way out.
# sh findings/jax_custom_root_with_cg.sh: passes while that is so.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check jax==0.10.2 jaxlib==0.10.2
cd "$folder"
cat >root.py <<'PYTHON'
import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.sparse.linalg import cg

jax.config.update("jax_enable_x64", True)


def root(tangent_solve):
    """The w with 2 w + w^3 = s, as a function of s; entry by entry dw/ds = 1 / (2 + 3 w^2)."""

    def newton(f, w):
        return lax.fori_loop(0, 50, lambda _, w: w - f(w) / (2 + 3 * w**2), w)

    return lambda s: lax.custom_root(lambda w: 2 * w + w**3 - s, jnp.zeros_like(s), newton, tangent_solve)


def wrapped(product, v):
    return lax.custom_linear_solve(product, v, lambda a, b: cg(a, b)[0], symmetric=True)


ways = {
    "dense solve": lambda product, v: jnp.linalg.solve(jax.jacobian(product)(v), v),
    "cg": lambda product, v: cg(product, v)[0],
    "cg within custom_linear_solve": wrapped,
}
s = jnp.array([3.0, 1.0])
right = 1 / (2 + 3 * root(ways["dense solve"])(s) ** 2)
said = {}
for name, way in ways.items():
    f = root(way)
    ahead = jax.jvp(f, (s,), (jnp.ones(2),))[1]
    assert jnp.allclose(ahead, right), (name, ahead)
    try:
        back = jax.grad(lambda s: f(s).sum())(s)
        assert jnp.allclose(back, right), (name, back)
        said[name] = "right"
    except NotImplementedError as error:
        said[name] = f"NotImplementedError: {str(error)[:40]}"
    print(f"{name}: forward mode right, reverse mode {said[name]}")
assert said["dense solve"] == said["cg within custom_linear_solve"] == "right"
assert said["cg"].startswith("NotImplementedError")
PYTHON
"$folder/venv/bin/python" root.py
echo "still so"
