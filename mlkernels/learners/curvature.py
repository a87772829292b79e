"""The curvature of the inner problem and of the meta-loss, measured as eigenvalues; and the rates that it allows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import ArrayLike, Float, Num
from scipy.sparse.linalg import ArpackError, LinearOperator, eigsh

from mlkernels.errors import bad_input
from mlkernels.inner_loop.descent import Trajectory, trajectory
from mlkernels.inner_loop.losses import Loss, check_labels, support_loss
from mlkernels.inner_loop.minimum import check_strongly_convex, minimum
from mlkernels.inner_loop.parts import split, spread
from mlkernels.inner_loop.settings import InnerLoop, form, rates_for
from mlkernels.learners.meta_gradient import value
from mlkernels.learners.problem import check_inner_loop, problem_of
from mlkernels.support.typed import typed
from mlkernels.tasks import TaskBatch

__all__ = [
    "InnerConstants",
    "Trajectory",
    "check_inner",
    "contraction_per_step",
    "inner_constants",
    "inner_hessian",
    "meta_smoothness",
    "trajectory",
]


DENSE = 200  # parameters up to which all eigenvalues are computed


@typed
def inner_hessian(
    apply: Callable, params, support_x: Num[ArrayLike, "m ..."], support_y: Num[ArrayLike, "m k"], inner: InnerLoop
) -> Float[np.ndarray, "p p"]:
    r"""The Hessian of one task's inner loss by the adapted parameters.

    .. math:: H = \nabla_w^2 L_S(w, \varphi), \qquad L_S \text{ with its L2 term}

    Args:
        apply, params, support_x, support_y, inner: as in `maml.adapt`. The point w is that of `params`.

    Returns:
        float64 `[p, p]`, symmetric, whatever the type of the parameters; in the order of
        `jax.flatten_util.ravel_pytree` of the adapted layers.

    Raises:
        InputError: as `maml.adapt`.

    Example:
        >>> from mlkernels import networks
        >>> network = networks.MLP(width=8)
        >>> params = network.init(jax.random.key(0), (1,))
        >>> inner = InnerLoop(0.1, 5, l2=0.5, adapt=("head",))
        >>> H = inner_hessian(network.apply, params, jnp.ones((2, 1)), jnp.zeros((2, 1)), inner)
        >>> H.shape, round(float(np.linalg.eigvalsh(H)[0]), 6)
        ((9, 9), 0.5)

    Source: Ji et al. 2020, the H of the meta-gradient; notebooks/03_anil_inner_loop_geometry.
    """
    rates_for(params, inner, None)
    check_labels(support_y, inner.loss, "support_y")
    with jax.enable_x64(True):
        params, x, y = doubled((params, support_x, support_y))
        H = np.asarray(hessian(apply, inner.loss, *split(params, inner.layers), jnp.asarray(inner.l2), x, y))
    return (H + H.T) / 2


@dataclass(frozen=True)
class InnerConstants:
    """The constants of the inner problem over a batch of tasks.

    Args:
        mu: the smallest eigenvalue of all Hessians; negative where the problem is not convex.
        smoothness: L, the largest in size.
        smallest, largest: float64 `[B]`, the outermost eigenvalues of each task.
        dimension: p, parameters of w.

    Example:
        >>> constants = InnerConstants(0.1, 2.0, np.array([0.1]), np.array([2.0]), 9)
        >>> constants.largest_rate, constants.contraction(0.5), constants.convex
        (1.0, 0.95, True)
    """

    mu: float
    smoothness: float
    smallest: np.ndarray
    largest: np.ndarray
    dimension: int

    @property
    def largest_rate(self) -> float:
        """2 / L: gradient descent on a quadratic loss converges below it and diverges above."""
        return 2 / self.smoothness if self.smoothness > 0 else float("inf")

    @property
    def convex(self) -> bool:
        """Whether no eigenvalue is below zero by more than rounding."""
        return self.mu >= -1e-10 * self.smoothness

    def contraction(self, rate: float) -> float:
        """The largest |1 - rate * eigenvalue|: what a step at most leaves of the distance to the minimum."""
        return max(abs(1 - rate * float(value)) for value in (*self.smallest, *self.largest))


def inner_constants(
    apply: Callable, params, tasks: TaskBatch, inner: InnerLoop, *, along: bool = False
) -> InnerConstants:
    r"""The strong convexity mu and the smoothness L of the inner problem, measured on tasks.

    .. math:: \mu = \min_i \lambda_{min}(H_i), \qquad L = \max_i \|H_i\|_2, \qquad H_i = \nabla_w^2 L_{S_i}(w, \varphi)

    Eigenvalues, no bounds: all of them (`eigh`) for up to 200 parameters, else the outermost two by Lanczos on
    Hessian-vector products. For squared losses and a linear head H is the same at all w; else it is that of one point,
    or with `along` of the inner loop's.

    Args:
        apply, params, inner: as in `maml.adapt`.
        tasks: B tasks; their support sets enter.
        along: the outermost over w^0, ..., w^N of each task instead of those at `params`.

    Returns:
        `InnerConstants`: mu, smoothness, largest_rate (2 / L), contraction(rate), convex, and those of each task.

    Raises:
        InputError: as `maml.adapt`.

    Example:
        >>> from mlkernels import networks, tasks
        >>> batch = tasks.sinusoid(tasks=3, support=4, queries=5, key=jax.random.key(0))
        >>> network = networks.MLP(width=16)
        >>> params = network.init(jax.random.key(1), (1,))
        >>> constants = inner_constants(network.apply, params, batch, InnerLoop(0.1, 5, l2=0.1, adapt=("head",)))
        >>> round(constants.mu, 6), constants.convex
        (0.1, True)

    Source: Ji et al. 2020, the constants of its assumptions; notebooks/03_anil_inner_loop_geometry.
    """
    check_inner_loop(inner)
    problem_of(apply, params, tasks, inner, None, "half_sum_squares")
    return _constants(*extremes(apply, params, tasks, inner, None, along))


def _constants(smallest, largest, dimension) -> InnerConstants:
    size = float(max(np.abs(smallest).max(), np.abs(largest).max()))
    return InnerConstants(float(smallest.min()), size, smallest, largest, dimension)


@typed
def contraction_per_step(
    apply: Callable, params, support_x: Num[ArrayLike, "m ..."], support_y: Num[ArrayLike, "m k"], inner: InnerLoop, *,
    steps: int | None = None,
) -> Float[np.ndarray, " steps"]:  # fmt: skip
    r"""What each inner step leaves of the distance to the minimum, measured; for a strongly convex inner problem.

    .. math:: \frac{\|w^{m+1} - w^*\|}{\|w^m - w^*\|} \le \max_\lambda |1 - \alpha\lambda|

    with w* from Newton's method, and the bound for squared losses (over the Hessian's eigenvalues).

    Args:
        apply, params, support_x, support_y: as in `maml.adapt`.
        inner: its `adapt` must be `("head",)`, its `l2` positive.
        steps: N, instead of `inner.steps`.

    Returns:
        float64 `[N]`; NaN from where the distance is rounding error.

    Raises:
        InputError: as `maml.adapt`; or a problem that is not strongly convex by its form.

    Example:
        >>> from mlkernels import networks
        >>> network = networks.MLP(width=8)
        >>> params = network.init(jax.random.key(0), (1,))
        >>> inner = InnerLoop(0.1, 5, l2=0.5, adapt=("head",))
        >>> ratios = contraction_per_step(network.apply, params, jnp.ones((2, 1)), jnp.zeros((2, 1)), inner)
        >>> bool((ratios <= 1 - 0.1 * 0.5 + 1e-9).all())
        True

    Source: notebooks/03_anil_inner_loop_geometry.
    """
    rates_for(params, inner, None)
    check_strongly_convex(inner)
    check_labels(support_y, inner.loss, "support_y")
    with jax.enable_x64(True):
        params, x, y = doubled((params, support_x, support_y))
        path = trajectory(apply, params, x, y, inner, steps=steps).w
        best = _minimum(apply, replace(form(inner), l2=0.0, steps=0), params, inner.l2, x, y)
        squares = jax.tree.map(lambda a, b: ((a - b[None]) ** 2).reshape(len(a), -1).sum(1), path, best)
        distance = np.sqrt(np.asarray(sum(jax.tree.leaves(squares))))
        size = float(np.sqrt(sum(float((leaf**2).sum()) for leaf in jax.tree.leaves(best))))
    resolved = distance > 1e-9 * max(size, distance[0])
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(resolved[1:] & resolved[:-1], distance[1:] / distance[:-1], np.nan)


@partial(jax.jit, static_argnums=(0, 1))
def _minimum(apply, inner, params, l2, x, y):
    w, phi = split(params, inner.layers)
    value = support_loss(apply, inner.loss, l2, x, y)
    return minimum(lambda w: value(w, phi), w, "eigh")


# --- the meta-loss's --------------------------------------------------------------------------------------------------


@partial(jax.jit, static_argnums=0)
def _meta_hessian_vector(problem, params, rates, tasks, vector):
    _, unravel = ravel_pytree(params)
    gradient = jax.grad(lambda params: value(problem, params, rates, tasks))
    return ravel_pytree(jax.jvp(gradient, (params,), (unravel(vector),))[1])[0]


def meta_smoothness(
    apply: Callable,
    params,
    tasks: TaskBatch,
    inner: InnerLoop,
    *,
    rates=None,
    outer_loss: Loss = "half_sum_squares",
    reduce: str = "sum",
    tolerance: float = 1e-3,
) -> float:
    r"""The largest curvature of the meta-loss at a point: what limits the outer rate there.

    .. math:: \big\|\nabla_\theta^2 \mathcal{L}(\theta)\big\|_2 = \max |\lambda|

    by Lanczos on Hessian-vector products, through all inner steps. Plain gradient descent on these tasks is unstable
    at rates above 2 over it, where the eigenvalue is positive.

    Args:
        apply, params, tasks, inner, rates, outer_loss, reduce: as in `maml.meta_loss`.
        tolerance: relative accuracy of the eigenvalue.

    Returns:
        A number of at least 0; NaN where the meta-loss has no finite curvature (a diverged inner loop).

    Raises:
        InputError: as `maml.meta_loss`; or no convergence.

    Example:
        >>> from mlkernels import networks, tasks
        >>> batch = tasks.sinusoid(tasks=3, support=4, queries=5, key=jax.random.key(0))
        >>> network = networks.MLP(width=8)
        >>> params = network.init(jax.random.key(1), (1,))
        >>> meta_smoothness(network.apply, params, batch, InnerLoop(0.01, 3, adapt=("head",))) > 0
        True

    Source: the smoothness of the meta-loss in Ji et al. 2020; notebooks/03_anil_inner_loop_geometry.
    """
    check_inner_loop(inner, implicit=True)
    inner = replace(inner, first_order=False)  # it is the loss's curvature, whatever gradient one follows
    problem, rates = problem_of(apply, params, tasks, inner, rates, outer_loss, reduce)
    z = ravel_pytree(params)[0]

    def product(vector):
        vector = jnp.asarray(vector.ravel(), z.dtype)
        return np.asarray(_meta_hessian_vector(problem, params, rates, tasks, vector), np.float64)

    if not np.isfinite(product(np.ones(z.size))).all():
        return float("nan")
    operator = LinearOperator((z.size, z.size), matvec=product, dtype=np.float64)
    return abs(lanczos(operator, "LM", tolerance))


# --- at the door ------------------------------------------------------------------------------------------------------


def check_inner(
    apply: Callable,
    params,
    tasks: TaskBatch,
    inner: InnerLoop,
    *,
    strongly_convex: bool = False,
    force: bool = False,
) -> InnerConstants:
    r"""Refuse an inner loop that cannot do what is asked of it: too large a rate for the curvature measured, above all.

    Args:
        apply, params, tasks, inner: as in `maml.meta_loss`.
        strongly_convex: whether the inner problem has to be: a linear head alone, with an L2 term.
        force: let a rate above 2 / L through, to show how the loop diverges.

    Returns:
        The `InnerConstants` at `params`, which had to be measured.

    Raises:
        InputError: no inner steps; an unknown layer (the message lists those that exist); a rate above 2 / L; a
            problem that is not strongly convex though it has to be. A negative L2 strength is refused by `InnerLoop`.

    Example:
        >>> from mlkernels import networks, tasks
        >>> batch = tasks.sinusoid(tasks=3, support=4, queries=5, key=jax.random.key(0))
        >>> network = networks.MLP(width=16)
        >>> params = network.init(jax.random.key(1), (1,))
        >>> check_inner(network.apply, params, batch, InnerLoop(0.01, 5, adapt=("head",))).convex
        True

    Source: notebooks/03_anil_inner_loop_geometry.
    """
    rates = rates_for(params, inner, None)
    if inner.steps == 0:
        do = "take one step or more: without any, nothing adapts to the task"
        raise bad_input("steps", "a whole number of at least 1", 0, do)
    if strongly_convex:
        check_strongly_convex(inner)
    constants = inner_constants(apply, params, tasks, inner)
    if isinstance(inner.rate, float):
        rate, limit, got = inner.rate, constants.largest_rate, f"{inner.rate:.4g}"
        expected = f"at most 2 / L = {limit:.4g} (L = {constants.smoothness:.4g}, measured)"
    else:  # a rate for each layer: the Hessian seen through them
        scaled = _constants(*extremes(apply, params, tasks, inner, rates, False))
        rate, limit, got = 1.0, scaled.largest_rate, dict(inner.rate)
        expected = f"at most {limit:.4g} times these"
    if rate > limit and not force:
        raise bad_input("rate", expected, got, "lower it, or pass force=True to see the inner loop diverge")
    return constants


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
