"""Tuning the rate of gradient descent on a quadratic: two objectives, in closed form and by automatic differentiation.

The closed forms are NumPy's, in float64 whatever JAX is set to.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike, Num

from mlkernels.errors import bad_input
from mlkernels.inner_loop.descent import descend
from mlkernels.support.arguments import one_of, whole
from mlkernels.support.array_arguments import float_type, one_key, real_array, sizes
from mlkernels.support.typed import typed

OBJECTIVES = ("final", "log")


@dataclass(frozen=True, eq=False)
class Quadratic:
    r"""A quadratic and where descent starts, in the eigenvectors of its Hessian.

    .. math:: f(w) = \tfrac12 w^\top H w = \tfrac12 \sum_i l_i c_i^2, \qquad
              f(w_t) = \tfrac12 \sum_i l_i c_i^2 (1 - \eta l_i)^{2t}

    Args:
        curvatures: l, float64 `[d]`, positive, ascending.
        start: c, float64 `[d]`: the coordinates of w_0, not all 0.

    Raises:
        InputError: other shapes, a curvature that is not positive, a start of zeros.

    Example:
        >>> problem = Quadratic([1.0, 4.0], [0.6, 0.8])
        >>> problem.stable_below  # from here on descent leaves for infinity
        0.5

    Source: Wang et al. 2021, section 3; notebooks/09_one_bilevel_problem.
    """

    curvatures: np.ndarray
    start: np.ndarray

    def __post_init__(self) -> None:
        given = (("curvatures", self.curvatures), ("start", self.start))
        l, c = (np.array(real_array(name, part), np.float64) for name, part in given)
        if l.ndim != 1 or l.shape != c.shape or not l.size:
            raise bad_input("start", "as many coordinates as curvatures, [d]", [*l.shape, *c.shape], "give two rows")
        if not (np.isfinite(l).all() and (l > 0).all()):
            raise bad_input("curvatures", "positive numbers", float(l.min()), "leave flat directions out")
        if not (np.isfinite(c).all() and c.any()):
            raise bad_input("start", "finite coordinates, not all 0", c.tolist(), "start elsewhere than at the minimum")
        order = np.argsort(l)
        object.__setattr__(self, "curvatures", l[order])
        object.__setattr__(self, "start", c[order])

    @classmethod
    def of(cls, hessian, start) -> Quadratic:
        """From H `[d, d]`, symmetric and positive definite, and w_0 `[d]`."""
        H, start = np.asarray(real_array("hessian", hessian), np.float64), real_array("start", start)
        if H.ndim != 2 or H.shape[0] != H.shape[1] or np.shape(start) != H.shape[:1]:
            got = f"{list(H.shape)} and {list(np.shape(start))}"
            raise bad_input("hessian", "[d, d], and a start [d]", got, "give a square matrix")
        if not H.size or not np.isfinite(H).all():
            raise bad_input("hessian", "finite numbers", "infinities or NaN" if H.size else "none", "look at its data")
        if np.abs(H - H.T).max() > 1e-6 * np.abs(H).max():
            raise bad_input("hessian", "a symmetric matrix", "another", "symmetrise it: (H + H.T) / 2")
        l, vectors = np.linalg.eigh((H + H.T) / 2)
        return cls(l, vectors.T @ np.asarray(start, np.float64))

    @property
    def stable_below(self) -> float:
        """2 / L, the rate up to which descent converges."""
        return float(2 / self.curvatures[-1])


def draw_quadratic(dimension: int, *, samples: int | None = None, key) -> tuple[np.ndarray, np.ndarray]:
    r"""A random Hessian and a start of unit length.

    .. math:: H = X X^\top, \qquad X_{ij} \sim N(0, 1), \qquad \|w_0\| = 1

    Args:
        dimension: d.
        samples: the columns of X, at least d; None is 2 d.
        key: a JAX key.

    Returns:
        H, float64 `[d, d]`, and w_0, float64 `[d]`.

    Raises:
        InputError: a number out of its range.

    Example:
        >>> H, start = draw_quadratic(5, key=jax.random.key(0))
        >>> Quadratic.of(H, start).curvatures.shape
        (5,)

    Source: Wang et al. 2021, their experiment of section 3 (d = 20); notebooks/09_one_bilevel_problem.
    """
    (dimension,) = sizes(dimension=dimension)
    samples = 2 * dimension if samples is None else whole("samples", samples, dimension)
    one_key(key)
    keys = jax.random.split(key)
    X = np.asarray(jax.random.normal(keys[0], (dimension, samples)), np.float64)
    start = np.asarray(jax.random.normal(keys[1], (dimension,)), np.float64)
    return X @ X.T, start / np.linalg.norm(start)


def _broadcast(problem: Quadratic, rate, steps):
    """Logarithms of `l c^2 / 2`, the factors `1 - rate l`, and the steps, with the d directions last."""
    if not isinstance(problem, Quadratic):
        raise bad_input("problem", "a Quadratic", type(problem).__name__, "make one with Quadratic.of(H, start)")
    rate = np.asarray(real_array("rate", rate), np.float64)[..., None]
    steps = np.asarray(real_array("steps", steps))[..., None]
    if not np.isfinite(rate).all():
        raise bad_input("rate", "finite numbers", rate[..., 0].tolist(), "leave the others out")
    if not np.issubdtype(steps.dtype, np.integer) or (steps < 1).any():
        raise bad_input("steps", "whole numbers of at least 1", steps[..., 0].tolist(), "descend one step or more")
    try:
        np.broadcast_shapes(rate.shape, steps.shape)
    except ValueError:
        got = f"{list(steps.shape[:-1])} for rates {list(rate.shape[:-1])}"
        raise bad_input(
            "steps", "a shape that goes with the rates'", got, "give one for each, or one for all"
        ) from None
    with np.errstate(divide="ignore"):
        logs = np.log(problem.curvatures / 2) + 2 * np.log(np.abs(problem.start))
    return logs, 1 - rate * problem.curvatures, steps


def _log_of_loss(problem: Quadratic, rate, steps) -> np.ndarray:
    logs, factors, steps = _broadcast(problem, rate, steps)
    with np.errstate(divide="ignore"):
        return np.logaddexp.reduce(logs + 2 * steps * np.log(np.abs(factors)), axis=-1)


@typed
def objective(
    problem: Quadratic, rate: Num[ArrayLike, "*R"], steps: Num[ArrayLike, "*T"], *, of: str = "log"
) -> np.ndarray | float:
    r"""What a rate is tuned by: the loss after t steps, or its logarithm a step.

    .. math:: F(\eta) = f(w_t) \quad\text{or}\quad \tfrac1t \log f(w_t)

    The first is convex in the rate, but its slope vanishes or explodes with t; the second has a slope that stays of one
    size, and one minimum, without being convex.

    Args:
        problem: the quadratic.
        rate: eta, any shape.
        steps: t, of a shape that goes with the rates': at least 1.
        of: "final" or "log".

    Returns:
        float64, of their common shape; for "final" `inf` beyond the largest number, for "log" never so; -inf where the
        loss is exactly 0.

    Raises:
        InputError: numbers out of their range, an unknown name.

    Example:
        >>> problem = Quadratic([1.0, 4.0], [0.6, 0.8])
        >>> objective(problem, [0.1, 0.3, 10.0], 80).round(3).tolist()
        [-0.232, -0.735, 7.33]

    Source: Wang et al. 2021, sections 3.1 and 3.2; notebooks/09_one_bilevel_problem.
    """
    one_of("of", of, OBJECTIVES)
    logarithm = _log_of_loss(problem, rate, steps)
    if of == "log":
        return logarithm / np.asarray(steps)
    with np.errstate(over="ignore"):
        return np.exp(logarithm)


@typed
def slope(
    problem: Quadratic, rate: Num[ArrayLike, "*R"], steps: Num[ArrayLike, "*T"], *, of: str = "log"
) -> np.ndarray | float:
    r"""The derivative of `objective` by the rate, in closed form: a ratio of powers that neither vanish nor explode.

    .. math:: \frac{d}{d\eta}\, \tfrac1t \log f(w_t) =
              -\frac{2 \sum_i c_i^2 l_i^2 (1 - \eta l_i)^{2t-1}}{\sum_i c_i^2 l_i (1 - \eta l_i)^{2t}}, \qquad
              \frac{d}{d\eta} f(w_t) = -t \sum_i c_i^2 l_i^2 (1 - \eta l_i)^{2t-1}

    Every factor is divided by the largest before it is raised.

    Args:
        problem, rate, steps, of: as in `objective`.

    Returns:
        float64, of the common shape; for "final" beyond the largest number `inf` with its sign.

    Raises:
        InputError: as `objective`; "log" at a rate that ends exactly at the minimum.

    Example:
        >>> problem = Quadratic([1.0, 4.0], [0.6, 0.8])
        >>> slope(problem, [0.1, 0.3, 10.0], 80).round(3).tolist()
        [-2.222, -2.857, 0.205]

    Source: Wang et al. 2021, theorem 4 and their code, which divides so; notebooks/09_one_bilevel_problem.
    """
    one_of("of", of, OBJECTIVES)
    logs, factors, t = _broadcast(problem, rate, steps)
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        # the powers 2 t - 2 as logarithms beside the largest: none is taken of a number above 1
        each = logs + np.where(t == 1, 0, 2 * (t - 1) * np.log(np.abs(factors)))
        size = each.max(-1, keepdims=True)
        weights = np.exp(each - np.where(np.isfinite(size), size, 0))
        above, below = (2 * (weights * problem.curvatures * factors).sum(-1), (weights * factors**2).sum(-1))
        if of == "final":
            return -np.asarray(steps) * above * np.exp(size[..., 0])
        if not (below > 0).all():
            do = "move the rate a little: the logarithm of 0 has no slope"
            raise bad_input("rate", "one that does not end at the minimum", np.asarray(rate).tolist(), do)
        return -above / below


def backpropagated(hessian, start, rate, steps: int, *, of: str = "log", dtype=None):
    r"""Value and derivative of `objective` by automatic differentiation through all steps, for what it is worth.

    .. math:: w \leftarrow w - \eta H w, \qquad \frac{d}{d\eta} \tfrac1t \log f(w_t) =
              \frac{\nabla f(w_t)^\top\, dw_t/d\eta}{t\, f(w_t)}

    Above 2 / L the loss leaves the range of floats, and the quotient with it: 0 where the loss alone is infinite, NaN
    where its gradient is, too. Nothing is checked here: what comes out is what a framework would follow.

    Args:
        hessian: H, `[d, d]`.
        start: w_0, `[d]`.
        rate: eta, a scalar.
        steps: t, at least 1.
        of: "final" or "log".
        dtype: what to compute in; None is JAX's default.

    Returns:
        The value and the derivative, scalars of that type, finite or not.

    Raises:
        InputError: another shape, an unknown name, steps below 1.

    Example:
        >>> H, start = jnp.diag(jnp.array([1.0, 4.0])), jnp.array([0.6, 0.8])
        >>> value, derivative = backpropagated(H, start, 0.3, 80, dtype=jnp.float32)
        >>> round(float(derivative), 2), round(float(slope(Quadratic.of(H, start), 0.3, 80)), 2)
        (-2.86, -2.86)
        >>> float(backpropagated(H, start, 10.0, 20, dtype=jnp.float32)[0])
        inf

    Source: Wang et al. 2021, corollary 1; notebooks/09_one_bilevel_problem.
    """
    one_of("of", of, OBJECTIVES)
    dtype = float_type(dtype)
    given = (("hessian", hessian), ("start", start), ("rate", rate))
    H, w, rate = (jnp.asarray(real_array(name, part), dtype) for name, part in given)
    if rate.ndim:
        raise bad_input("rate", "one number", list(rate.shape), "give one, or vmap over them")
    if H.ndim != 2 or w.shape != H.shape[:1] or H.shape[0] != H.shape[1]:
        raise bad_input("hessian", "[d, d], and a start [d]", f"{list(H.shape)} and {list(w.shape)}", "reshape them")
    return _backpropagated(of, whole("steps", steps, 1), H, w, rate)


@partial(jax.jit, static_argnums=(0, 1))
def _backpropagated(of, steps, H, start, rate):
    def loss(w):
        return 0.5 * w @ (H @ w)

    def tuned(rate):
        end = loss(descend(loss, start, rate, steps))
        return end if of == "final" else jnp.log(end) / steps

    return jax.value_and_grad(tuned)(rate)
