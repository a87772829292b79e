"""A rate for descent on linear regressions, chosen on the points that it trains on or on others: NumPy, in float64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import ArrayLike, Num
from threadpoolctl import threadpool_limits

from mlkernels.errors import bad_input
from mlkernels.support.arguments import number, one_of, whole
from mlkernels.support.array_arguments import one_key, real_array, real_arrays, sizes

MEASURED_ON = ("train", "validation")


@dataclass(frozen=True, eq=False)
class LinearTasks:
    """Linear regressions with the truth behind them.

    Args:
        x: float64 `[B, n, d]`.
        y: float64 `[B, n]`.
        w: float64 `[B, d]`, the true weights, of unit length.

    Example:
        >>> draw_regressions(tasks=3, samples=4, dimension=5, noise=1.0, key=jax.random.key(0)).x.shape
        (3, 4, 5)
    """

    x: np.ndarray
    y: np.ndarray
    w: np.ndarray


def draw_regressions(*, tasks: int, samples: int, dimension: int, noise: float, key) -> LinearTasks:
    r"""Draw linear regressions.

    .. math:: w^* \text{ uniform on the sphere}, \qquad x \sim N(0, I_d), \qquad
              y = \langle w^*, x\rangle + N(0, \sigma^2)

    Args:
        tasks: B.
        samples: n.
        dimension: d.
        noise: sigma, at least 0.
        key: a JAX key.

    Returns:
        `LinearTasks`.

    Raises:
        InputError: a number out of its range.

    Example:
        >>> drawn = draw_regressions(tasks=3, samples=4, dimension=5, noise=0.0, key=jax.random.key(0))
        >>> bool(np.allclose(np.einsum("bnd,bd->bn", drawn.x, drawn.w), drawn.y))
        True

    Source: Wang et al. 2021, section 4; notebooks/09_one_bilevel_problem.
    """
    tasks, samples, dimension = sizes(tasks=tasks, samples=samples, dimension=dimension)
    noise = number("noise", noise)
    one_key(key)
    shapes = (tasks, dimension), (tasks, samples, dimension), (tasks, samples)
    keys = jax.random.split(key, 3)
    w, x, xi = (np.asarray(jax.random.normal(k, s), np.float64) for k, s in zip(keys, shapes, strict=True))
    w = w / np.linalg.norm(w, axis=-1, keepdims=True)
    return LinearTasks(x, np.einsum("bnd,bd->bn", x, w) + noise * xi, w)


class Chosen(NamedTuple):
    """The rates chosen for each number of steps.

    Args:
        rate: `[T]`, the best of the grid.
        objective: `[T, R]`, the mean over tasks of what was minimised.
        error: `[T]`, the mean over tasks of the squared distance to the truth, after training on all samples with the
            chosen rate.
        errors: `[T, B]`, those of each task.
    """

    rate: np.ndarray
    objective: np.ndarray
    error: np.ndarray
    errors: np.ndarray


def descent_filter(curvatures: np.ndarray, rates: np.ndarray, steps: int) -> np.ndarray:
    r"""What t steps from 0 make of the gradient there, in each direction: `[r]` and `[R]` give `[r, R]`.

    .. math:: \varphi(l) = \frac{1 - (1 - \eta l)^t}{l}, \qquad \varphi(0) = \eta t

    Without the cancellation of small rates: by `expm1` where the factor is positive.

    Example:
        >>> descent_filter(np.array([0.0, 2.0]), np.array([0.1]), 3).round(4).tolist()
        [[0.3], [0.244]]
    """
    l, rates = curvatures[:, None], rates[None]
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        inside = np.minimum(rates * l, 1)
        near = -np.expm1(steps * np.log1p(-inside))
        gone = np.where(rates * l < 1, near, 1 - (1 - rates * l) ** steps)
        return np.where(l > 0, gone / np.where(l > 0, l, 1), rates * steps)


def _trained(x, y) -> Callable[[np.ndarray, int], np.ndarray]:
    """Descent from 0 on the mean of half squares, in closed form: rates `[R]`, t -> weights `[d, R]`. One `eigh`."""
    n, d = x.shape
    if n < d:
        l, U = np.linalg.eigh(x @ x.T / n)
        vectors, along = x.T @ U, U.T @ y / n
    else:
        l, vectors = np.linalg.eigh(x.T @ x / n)
        along = vectors.T @ (x.T @ y) / n
    l = np.where(l > len(l) * np.finfo(float).eps * l[-1], l, 0)

    def weights(rates, steps):
        return vectors @ (descent_filter(l, rates, steps) * along[:, None])

    return weights


def choose_rate(tasks: LinearTasks, rates: Num[ArrayLike, " R"], steps, *, by: str, train: int | None = None) -> Chosen:
    r"""Choose a rate for gradient descent, by the loss on the points that it trains on, or on others.

    .. math:: \hat\eta = \arg\min_\eta \frac1B \sum_b \frac{1}{2 |S|} \sum_{i \in S} (x_i^\top w_t(\eta) - y_i)^2

    With "train" S are all n samples, which are trained on, too; with "validation" the first n_1 are trained on and S
    are the others. Descent starts from 0, on the mean of half squares; its end comes from one `eigh` a task, for all
    rates and all steps.

    Args:
        tasks: B linear regressions.
        rates: `[R]`, positive: the grid. A loss that overflows loses.
        steps: t, a whole number or a row of them, at least 1.
        by: "train" or "validation".
        train: n_1, from 1 to n - 1; None is half of the samples.

    Returns:
        `Chosen`, T being the number of `steps`. The error is after training on all n samples, whatever the rate was
        chosen on.

    Raises:
        InputError: a number out of its range, an unknown name; a grid of which no rate stays finite.

    Example:
        >>> drawn = draw_regressions(tasks=20, samples=20, dimension=40, noise=1.0, key=jax.random.key(0))
        >>> grid = np.logspace(-3, 0, 10)
        >>> train, validation = (choose_rate(drawn, grid, 40, by=by) for by in ("train", "validation"))
        >>> bool(train.rate[0] > validation.rate[0]), bool(train.error[0] > validation.error[0])
        (True, True)

    Source: Wang et al. 2021, section 4; notebooks/09_one_bilevel_problem.
    """
    if not isinstance(tasks, LinearTasks):
        raise bad_input("tasks", "LinearTasks", type(tasks).__name__, "make them with draw_regressions")
    arrays = real_arrays(x=(tasks.x, "B n d"), y=(tasks.y, "B n"), w=(tasks.w, "B d"))
    if not all(len(part) and np.isfinite(part).all() for part in arrays):
        raise bad_input("tasks", "one or more, of finite numbers", "none, or infinities or NaN", "look at the data")
    one_of("by", by, MEASURED_ON)
    rates = np.asarray(real_array("rates", rates), np.float64)
    if rates.ndim != 1 or not rates.size or not (np.isfinite(rates).all() and (rates > 0).all()):
        raise bad_input("rates", "positive numbers [R]", rates.tolist(), "np.logspace(-4, 0, 25) is a grid")
    steps = [whole("steps", each, 1) for each in np.atleast_1d(real_array("steps", steps))]
    if not steps:
        raise bad_input("steps", "one number or more", "none", "say how many steps are taken")
    n = tasks.x.shape[1]
    if by == "train":
        if train is not None:
            raise bad_input("train", "nothing with by='train'", train, "all samples are trained on")
        train = n
    elif n < 2:
        raise bad_input("tasks", "two samples or more", n, "some are trained on, some validate")
    else:
        train = n // 2 if train is None else whole("train", train, 1, n - 1)
    measured = slice(None) if by == "train" else slice(train, None)
    losses, ends = np.empty((len(tasks.x), len(steps), len(rates))), np.empty((len(tasks.x), len(steps), len(rates)))
    with (
        threadpool_limits(1, "blas"),
        np.errstate(over="ignore", invalid="ignore"),
    ):  # with more threads 10 times slower
        for b, (x, y, truth) in enumerate(zip(tasks.x, tasks.y, tasks.w, strict=True)):
            of_all = _trained(x, y)
            of_part = of_all if train == n else _trained(x[:train], y[:train])
            for s, t in enumerate(steps):
                losses[b, s] = ((x[measured] @ of_part(rates, t) - y[measured, None]) ** 2).mean(0) / 2
                ends[b, s] = ((of_all(rates, t) - truth[:, None]) ** 2).sum(0)
    means = np.where(np.isfinite(losses), losses, np.inf).mean(0)
    if not np.isfinite(means).any(1).all():
        raise bad_input("rates", "one at which descent stays finite", rates.tolist(), "add lower ones")
    best = means.argmin(1)
    errors = ends[:, np.arange(len(steps)), best].T
    return Chosen(rates[best], means, errors.mean(1), errors)
