"""The stochastic meta-gradient of several inner steps, each on points of its own: its moments, and their factor."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike, Num

from mlkernels.errors import bad_input
from mlkernels.inner_loop.descent import gradient_step
from mlkernels.inner_loop.losses import Loss, check_labels, check_loss, loss_of, support_loss
from mlkernels.support.arguments import number, whole
from mlkernels.support.array_arguments import real_arrays
from mlkernels.support.network_arguments import check_apply, check_params
from mlkernels.support.typed import typed

__all__ = ["Moments", "factor", "fresh_meta_gradient", "of", "safe_rate"]


def factor(rate: float, smoothness: float, steps: int) -> float:
    r"""What the second moment of N inner steps' product may grow by.

    .. math:: \prod_{j<N} \|I - \alpha H_j\|^2 \le (1 + \alpha L)^{2N}

    Args:
        rate: alpha, at least 0.
        smoothness: L, at least 0: no Hessian of any minibatch has an eigenvalue of larger size.
        steps: N, at least 0.

    Returns:
        The factor, at least 1; infinite where it is too large for a float.

    Raises:
        InputError: a number out of its range.

    Example:
        >>> factor(0.5, 2.0, 3)
        64.0
        >>> factor(safe_rate(2.0, 1000), 2.0, 1000) < math.exp(1 / 4)
        True

    Source: Ji, Yang and Liang 2022, by a short derivation; notebooks/08_more_steps_fewer_samples.
    """
    base = 1 + number("rate", rate) * number("smoothness", smoothness)
    try:
        return base ** (2 * whole("steps", steps))
    except OverflowError:
        return math.inf


def safe_rate(smoothness: float, steps: int, c: float = 1 / 8) -> float:
    r"""The inner rate that falls with the number of steps, so that `factor` stays below $e^{2c}$.

    .. math:: \alpha = \frac{c}{N L}

    Args:
        smoothness: L, above 0.
        steps: N, at least 1.
        c: at least 0; 1/8 is the paper's as we read it.

    Returns:
        The rate.

    Raises:
        InputError: a number out of its range.

    Example:
        >>> safe_rate(2.0, 5)
        0.0125

    Source: Ji, Yang and Liang 2022, as we read it; notebooks/08_more_steps_fewer_samples.
    """
    smoothness, steps, c = number("smoothness", smoothness), whole("steps", steps, 1), number("c", c)
    if smoothness == 0:
        raise bad_input("smoothness", "a number above 0", smoothness, "without curvature every rate is safe")
    return c / (steps * smoothness)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _fresh(apply, loss, outer_loss, params, support, query, rates):
    def after(params):
        def step(theta, now):
            (x, y), rate = now
            gradient = jax.grad(lambda theta: support_loss(apply, loss, 0.0, x, y)(theta, None))(theta)
            return gradient_step(theta, rate, gradient), None

        theta, _ = jax.lax.scan(step, params, (support, rates))
        return loss_of(outer_loss, apply(theta, query[0]), query[1])

    return jax.value_and_grad(after)(params)


@typed
def fresh_meta_gradient(
    apply: Callable, params, support_x: Num[ArrayLike, "N m ..."], support_y: Num[ArrayLike, "N m k"],
    query_x: Num[ArrayLike, "n ..."], query_y: Num[ArrayLike, "n k"], rates: Num[ArrayLike, " N"], *,
    loss: Loss = "mean_squares", outer_loss: Loss = "mean_squares",
):  # fmt: skip
    r"""One task's loss and meta-gradient after inner steps that each take points of their own.

    .. math:: \theta_{j+1} = \theta_j - \alpha_j \nabla\ell(\theta_j; S_j), \qquad
              \nabla_\theta\, \ell(\theta_N; Q) = \prod_{j<N} \big(I - \alpha_j \nabla^2 \ell(\theta_j; S_j)\big)
              \nabla\ell(\theta_N; Q)

    A step of rate 0 is none: with the largest N and zeros at the end, one program does for every number of steps. With
    the same points N times it is `maml.meta_gradient` of one task.

    Args:
        apply: `apply(params, x) -> [m, k]`, hashable.
        params: the parameters, all of which adapt.
        support_x, support_y: `[N, m, ...]` and `[N, m, k]`, the points of each step.
        query_x, query_y: `[n, ...]` and `[n, k]`.
        rates: `[N]`, of each step; may be traced.
        loss, outer_loss: as in `maml.InnerLoop` and `maml.meta_loss`.

    Returns:
        `(loss, gradient)`, the gradient like `params`.

    Raises:
        InputError: an unknown loss, labels that it cannot work with, arrays that do not fit together.

    Example:
        >>> from mlkernels import networks, tasks
        >>> network = networks.MLP(width=8)
        >>> params = network.init(jax.random.key(0), (1,))
        >>> steps = tasks.sinusoid(tasks=5, support=2, queries=1, key=jax.random.key(1))  # 2 points for each of 5 steps
        >>> query = jnp.ones((4, 1)), jnp.zeros((4, 1))
        >>> loss, gradient = fresh_meta_gradient(
        ...     network.apply, params, steps.support_x, steps.support_y, *query, jnp.full(5, 0.1)
        ... )
        >>> loss.shape, sorted(gradient)
        ((), ['head', 'layer1', 'layer2'])

    Source: Ji, Yang and Liang 2022, the resampling case as we read it; notebooks/08_more_steps_fewer_samples.
    """
    check_apply(apply)
    check_params(params)
    for name, which in (("loss", loss), ("outer_loss", outer_loss)):
        check_loss(which, name)
    support_x, support_y, query_x, query_y, rates = real_arrays(
        support_x=(support_x, "N m *d"), support_y=(support_y, "N m k"), query_x=(query_x, "n *d"),
        query_y=(query_y, "n k"), rates=(rates, "N"),
    )  # fmt: skip
    check_labels(support_y, loss, "support_y")
    check_labels(query_y, outer_loss, "query_y")
    dtype = jnp.result_type(*jax.tree.leaves(params))
    support, query = (support_x, support_y), (query_x, query_y)
    return _fresh(apply, loss, outer_loss, params, support, query, jnp.asarray(rates, dtype))


@dataclass(frozen=True)
class Moments:
    """Of a stochastic gradient, about the gradient that it stands for.

    Args:
        exact: the squared norm of that gradient.
        mean: the squared norm of the mean, without what the draws' spread adds to it.
        bias: the squared distance of the mean from it, likewise: unbiased, so that it may fall below zero.
        variance: the mean squared distance from the mean.

    Example:
        >>> found = of(np.array([[1.0, 0.0], [3.0, 0.0]]), np.array([0.0, 0.0]))
        >>> found.mean, found.bias, found.variance, found.second
        (3.0, 3.0, 2.0, 5.0)
    """

    exact: float
    mean: float
    bias: float
    variance: float

    @property
    def second(self) -> float:
        """The mean squared norm."""
        return self.mean + self.variance


@typed
def of(samples: Num[ArrayLike, "R p"], exact: Num[ArrayLike, " p"] | None = None) -> Moments:
    r"""The moments of a stochastic gradient from independent draws of it.

    .. math:: \widehat{\mathrm{Var}} = \frac{1}{R-1} \sum_r \|g_r - \bar g\|^2, \qquad
              \widehat{\mathrm{bias}^2} = \|\bar g - g\|^2 - \tfrac1R \widehat{\mathrm{Var}}

    Args:
        samples: `[R, p]`, R draws of it, at least 2.
        exact: `[p]`, the gradient that it stands for; where None, its norm and the bias are NaN.

    Returns:
        `Moments`.

    Raises:
        InputError: fewer than two draws; arrays that do not fit together.

    Example:
        >>> round(of(np.array([[2.0], [4.0]]), np.array([3.0])).variance, 12)
        2.0

    Source: Ji, Yang and Liang 2022, whose bounds are on these; notebooks/08_more_steps_fewer_samples.
    """
    given = {} if exact is None else {"exact": (exact, "p")}
    samples, *known = (np.asarray(each, float) for each in real_arrays(samples=(samples, "R p"), **given))
    exact = known[0] if known else np.full(samples.shape[1], np.nan)
    if len(samples) < 2:
        raise bad_input("samples", "two draws or more", len(samples), "draw more: one has no spread")
    mean = samples.mean(0)
    variance = float(((samples - mean) ** 2).sum() / (len(samples) - 1))
    noise = variance / len(samples)
    return Moments(
        float(exact @ exact), float(mean @ mean) - noise, float(((mean - exact) ** 2).sum()) - noise, variance
    )
