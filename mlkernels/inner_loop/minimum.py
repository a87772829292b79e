"""ANIL's inner problem as a function of two arguments: w, which the inner loop moves, and phi, which it does not."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree

from mlkernels.errors import bad_input
from mlkernels.inner_loop.losses import LOSSES
from mlkernels.inner_loop.settings import InnerLoop
from mlkernels.support.arguments import one_of
from mlkernels.support.eigenvectors import eigh

SOLVERS = ("eigh", "cg")


def solve(hessian: Callable, vector: Array, solver: str, tolerance=None) -> Array:
    """`H^-1 v` for a positive definite H, given as the function `u -> H u`: by `eigh`, or by conjugate gradients.

    These stop at `tolerance` times the norm of v, which may be traced; None is a few units of rounding.
    """
    if solver == "cg":
        tolerance = 10 * jnp.finfo(vector.dtype).eps if tolerance is None else tolerance
        return jax.scipy.sparse.linalg.cg(hessian, vector, tol=tolerance, maxiter=10 * len(vector))[0]
    dense = jax.vmap(hessian)(jnp.eye(len(vector), dtype=vector.dtype))
    values, vectors = eigh((dense + dense.T) / 2)
    return vectors @ ((vectors.T @ vector) / values)


def minimum(value: Callable, start, solver: str):
    r"""The minimum of a strongly convex function of a pytree by Newton's method; for a quadratic one a single step.

    .. math:: z \leftarrow z - t\, \big(\nabla^2 f\big)^{-1} \nabla f, \qquad
              t \in \{1, \tfrac12, \tfrac14, \dots\} \text{ the first that lowers } f
    """
    z, unravel = ravel_pytree(start)
    eps = jnp.finfo(z.dtype).eps

    def flat(z):
        return value(unravel(z))

    gradient = jax.grad(flat)

    def step(carry):
        z, _, count = carry
        g = gradient(z)
        direction = solve(lambda u: jax.jvp(gradient, (z,), (u,))[1], g, solver)
        decrement, here = g @ direction, flat(z)

        def too_long(t):
            return (flat(z - t * direction) > here - 1e-4 * t * decrement + 4 * eps * jnp.abs(here)) & (t > 1e-6)

        t = jax.lax.while_loop(too_long, lambda t: t / 2, jnp.ones((), z.dtype))
        return z - t * direction, decrement > eps * (jnp.abs(here) + eps), count + 1

    def going(carry):
        return carry[1] & (carry[2] < 100)

    return unravel(jax.lax.while_loop(going, step, (z, jnp.array(True), 0))[0])


def check_strongly_convex(inner: InnerLoop) -> None:
    """Refuse an inner problem that is not strongly convex by its form: linear head, named loss, L2 term."""
    if inner.layers != ("head",):
        do = 'set adapt=("head",): all losses are convex in a linear layer that comes last, and in no other'
        raise bad_input("adapt", '("head",) for a strongly convex inner problem', inner.adapt, do)
    if callable(inner.loss):
        do = "name the loss: of a function nobody knows whether it is convex"
        raise bad_input("loss", " or ".join(LOSSES), "a function", do)
    if not inner.l2:
        do = "set l2, say to 0.05: it is the least curvature that the problem has"
        raise bad_input("l2", "a positive number for a strongly convex inner problem", inner.l2, do)


def check_solver(solver: str) -> None:
    """Refuse what names no way to solve a linear system."""
    one_of("solver", solver, SOLVERS)
