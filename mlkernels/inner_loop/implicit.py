"""iMAML's inner loop: a proximal problem solved by descent; differentiated as its solution, not as the way there.

The gradient does not depend on how the solution was found, as long as it was found.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.scipy.sparse.linalg import cg

from mlkernels.errors import bad_input
from mlkernels.inner_loop.settings import InnerLoop
from mlkernels.support.arguments import number, whole


@dataclass(frozen=True)
class ImplicitLoop(InnerLoop):
    r"""The settings of an inner loop that is differentiated implicitly. Hashable: a static argument.

    .. math:: \theta' = \arg\min_{w}\; \ell(f(X'; w), Y') + \tfrac{\lambda}{2}\|w - \theta\|^2, \qquad
              \frac{\partial\theta'}{\partial\theta} = \big(I + \tfrac1\lambda \nabla^2\ell(\theta')\big)^{-1}

    Descent runs `steps` steps at `rate`; the derivative is solved by conjugate gradients. It is the derivative of the
    minimum: as good as the descent comes near to it.

    Args:
        rate, steps, loss, l2, adapt: as in `maml.InnerLoop`; `first_order` and `remat` do not enter.
        strength: lambda, positive; above the least curvature's negative, or the problem is not convex.
        solver_steps: of conjugate gradients, at least 1.

    Raises:
        InputError: as `maml.InnerLoop`; a strength of 0.

    Example:
        >>> ImplicitLoop(0.1, 16, strength=2.0).strength
        2.0

    Source: Rajeswaran et al. 2019 (iMAML); notebooks/05_meta_learning_in_rkhs.
    """

    strength: float = 1.0
    solver_steps: int = 20

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "strength", number("strength", self.strength))
        object.__setattr__(self, "solver_steps", whole("solver_steps", self.solver_steps, 1))
        if not self.strength:
            raise bad_input("strength", "a positive number", self.strength, "without it the start does not matter")


def solved(loss: Callable, start, inner: ImplicitLoop, descend: Callable):
    """The minimum of `loss(w)` plus the proximal term, by `descend(loss, start)`; differentiated as a root."""

    def proximal(w):
        squares = (jnp.sum((a - b) ** 2) for a, b in zip(jax.tree.leaves(w), jax.tree.leaves(start), strict=True))
        return loss(w) + inner.strength / 2 * sum(squares)

    def at_rest(w):
        return jax.tree.map(lambda g: g / inner.strength, jax.grad(proximal)(w))

    def conjugate_gradients(product, v):  # alone it has no reverse mode here: the zeros it starts from depend on v
        return cg(product, v, maxiter=inner.solver_steps, tol=0.0, atol=1e-30)[0]

    return jax.lax.custom_root(
        at_rest,
        start,
        lambda _, start: descend(proximal, start),
        lambda product, v: jax.lax.custom_linear_solve(product, v, conjugate_gradients, symmetric=True),
    )
