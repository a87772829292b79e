"""The outermost eigenvalues of Hessians: all of them for few parameters, by Lanczos for many."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from scipy.sparse.linalg import ArpackError, LinearOperator, eigsh

from mlkernels.errors import bad_input
from mlkernels.inner_loop.descent import trajectory
from mlkernels.inner_loop.losses import support_loss
from mlkernels.inner_loop.parts import split, spread

DENSE = 200  # parameters up to which all eigenvalues are computed


@partial(jax.jit, static_argnums=(0, 1))
def hessian(apply, loss, w, phi, l2, x, y):
    """Of the support loss by w: `[p, p]`."""
    z, unravel = ravel_pytree(w)
    value = support_loss(apply, loss, l2, x, y)
    return jax.hessian(lambda z: value(unravel(z), phi))(z)


@partial(jax.jit, static_argnums=(0, 1))
def hessian_vector(apply, loss, w, phi, l2, x, y, vector):
    """Its product with a vector `[p]`."""
    _, unravel = ravel_pytree(w)
    gradient = jax.grad(support_loss(apply, loss, l2, x, y))
    product = jax.jvp(lambda w: gradient(w, phi), (w,), (unravel(vector),))[1]
    return ravel_pytree(product)[0]


def doubled(tree):
    """In float64; only inside `jax.enable_x64(True)`."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), tree)


def _finite(numbers: np.ndarray) -> np.ndarray:
    if not np.isfinite(numbers).all():
        raise bad_input("curvature", "finite numbers", "infinities or NaN", "look for a diverged loop")
    return numbers


def outermost(apply, loss, w, phi, l2, x, y, roots) -> tuple[float, float]:
    """The smallest and the largest eigenvalue of R H R, with the diagonal R of `roots`."""
    p = len(roots)
    if p <= DENSE:
        H = _finite(np.asarray(hessian(apply, loss, w, phi, l2, x, y)))
        values = np.linalg.eigvalsh(roots[:, None] * (H + H.T) / 2 * roots)
        return float(values[0]), float(values[-1])

    def product(vector):
        vector = jnp.asarray(roots * vector.ravel())
        return roots * _finite(np.asarray(hessian_vector(apply, loss, w, phi, l2, x, y, vector)))

    operator = LinearOperator((p, p), matvec=product, dtype=np.float64)
    return tuple(lanczos(operator, which, 1e-6) for which in ("SA", "LA"))


def lanczos(operator: LinearOperator, which: str, tolerance: float) -> float:
    """One outermost eigenvalue: "SA" the smallest, "LA" the largest, "LM" the largest in size (signed)."""
    start = np.random.default_rng(0).normal(size=operator.shape[0])
    if not operator.matvec(start).any():
        return 0.0  # a random vector is orthogonal to nothing, so the matrix is zero; ARPACK fails on that
    try:
        return float(eigsh(operator, 1, which=which, v0=start, tol=tolerance, return_eigenvectors=False)[0])
    except ArpackError as error:
        do = "look for a diverged loop, or adapt fewer parameters"
        raise bad_input("eigenvalue", f"Lanczos to converge to {tolerance:g}", str(error), do) from None


def extremes(apply, params, tasks, inner, rates, along) -> tuple[np.ndarray, np.ndarray, int]:
    """The outermost eigenvalues of each task's Hessian, scaled by the rates if there are any: `[B]`, `[B]`, p."""
    with jax.enable_x64(True):
        params, tasks = doubled((params, tasks))
        w, phi = split(params, inner.layers)
        p = sum(leaf.size for leaf in jax.tree.leaves(w))
        roots = np.ones(p)
        if rates is not None:
            every = jax.tree.map(lambda rate, leaf: jnp.broadcast_to(rate, leaf.shape), spread(rates, w), w)
            roots = np.sqrt(np.asarray(ravel_pytree(every)[0]))
        ends = []
        for i in range(tasks.tasks):
            x, y = tasks.support_x[i], tasks.support_y[i]
            points = [w]
            if along:
                path = trajectory(apply, params, x, y, inner).w
                points = [jax.tree.map(lambda leaf, m=m: leaf[m], path) for m in range(inner.steps + 1)]
            ends_of = [outermost(apply, inner.loss, w, phi, jnp.asarray(inner.l2), x, y, roots) for w in points]
            ends.append((min(low for low, _ in ends_of), max(high for _, high in ends_of)))
    smallest, largest = np.array(ends).T
    return smallest, largest, p
