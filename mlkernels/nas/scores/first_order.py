"""The change of a condition number without each operation, all to first order from one derivative. Not the paper's.

A super-network's edge averages its k open operations. Without one of them its share, 1/k, becomes 0 and those of the
others 1/(k - 1): the derivative of the logarithm of the condition number by the shares, along that step, is about the
change that scoring the network without it would show; and it is there for all operations of a round at once.
"""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from mlkernels.kernels import Kernels
from mlkernels.metantk import all_points
from mlkernels.nas.engine.gate_gradients import gate_gradients
from mlkernels.nas.scores.kernel_scores import ALGORITHMS, _metantk
from mlkernels.nas.space.layout import Layout
from mlkernels.support.arguments import one_of, whole
from mlkernels.support.typed import typed
from mlkernels.tasks import TaskBatch


class FirstOrder(NamedTuple):
    """What one derivative says of a network.

    Attributes:
        value: the mean of log kappa; infinity where one of the spectra has no condition number.
        slopes: its derivative by the share of each operation, float64 `[cell type, edge, operation]`; zero where an
            operation is closed, and everywhere where the value is infinite: such a draw says nothing.
    """

    value: float
    slopes: np.ndarray


@typed
def role_orders(tasks: TaskBatch, count: int, *, key: Array) -> Int[np.ndarray, "count P"]:
    """Orders of the points in which the images of each class of each task change roles, support or query, at random.

    The kernel over all images of a batch holds the MetaNTK of each such batch, too: it costs nothing but small matrices
    to take the mean over many. The first order is the batch's own. A change of roles also changes which images are the
    flipped and cropped ones, which in a batch are those of the support.

    Args:
        tasks: a batch, one-hot labels of both.
        count: how many orders.
        key: a key.

    Returns:
        int `[count, P]`, for points in the order of `metantk.all_points`.

    Example:
        >>> y = np.eye(2)[None]
        >>> x = np.zeros((1, 2, 4, 4, 3))
        >>> role_orders(TaskBatch(x, y, x, y), 1, key=jax.random.key(0)).tolist()
        [[0, 1, 2, 3]]

    Source: this course; averages over all ways to split are U-statistics (Hoeffding 1948).
    """
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    labels = [np.asarray(y).argmax(-1) + np.arange(tasks.tasks)[:, None] * tasks.outputs
              for y in (tasks.query_y, tasks.support_y)]  # fmt: skip
    classes = np.concatenate([each.ravel() for each in labels])
    orders = np.tile(np.arange(len(classes)), (whole("count", count, 1), 1))
    for order in orders[1:]:
        for each in np.unique(classes):
            rows = np.flatnonzero(classes == each)
            order[rows] = rng.permutation(rows)
    return orders


@typed
def first_order(
    layout: Layout, params: dict, gates, tasks: TaskBatch, *, algorithm: str = "maml", inner_time=math.inf, ridge=1e-3,
    orders=None, width: float = 0.0,
) -> FirstOrder:  # fmt: skip
    r"""The logarithm of a condition number, and its derivative by the share of every open operation.

    .. math:: \frac{d \log \kappa}{d \alpha} = \frac{v_{max}^\top \Phi' v_{max}}{\mu_{max}} -
              \frac{v_{min}^\top \Phi' v_{min}}{\mu_{min}}, \qquad \Phi' = \frac{d \Phi}{d \alpha}

    Args:
        layout, params, gates, tasks, algorithm, inner_time, ridge: as in `metantk_score`; of the sum of outputs.
        orders: of the points, as by `role_orders`: the mean over them is taken; None is the batch's own alone.
        width: as in `gate_gradients`.

    Returns:
        `FirstOrder`.

    Raises:
        InputError: as `metantk_score`.

    Source: this course; the score is that of Wang et al. 2022.
    """
    one_of("algorithm", algorithm, (*ALGORITHMS, "none"))
    images = all_points(tasks)
    orders = np.arange(len(images))[None] if orders is None else np.asarray(orders)
    found = []

    def score(kernels: Kernels) -> tuple[Array, Array]:
        how = jnp.asarray(orders), tasks.tasks, tasks.queries, algorithm, inner_time, ridge
        value, slopes = _slopes(kernels.ntk, kernels.nngp, *how)
        found.append(float(value))
        return slopes if math.isfinite(found[0]) else tuple(jnp.zeros_like(each) for each in slopes)

    _, parts = gate_gradients(layout, params, gates, images, score, width=width)
    slopes = parts.sum(0)
    if not math.isfinite(found[0]) or not np.isfinite(slopes).all():
        return FirstOrder(math.inf, np.zeros_like(slopes))
    return FirstOrder(found[0], slopes)


def change_without(slopes: np.ndarray, gates: np.ndarray, candidate: tuple[int, int, int]) -> float:
    r"""About how much a score changes as an operation goes and the others on its edge weigh more.

    .. math:: \frac{1}{k (k - 1)} \sum_{o' \ne o} s_{o'} - \frac{s_o}{k}

    Args:
        slopes: `[cell type, edge, operation]`, of `first_order`.
        gates: bool, as `slopes`: what is open.
        candidate: an open one on an edge that has k of at least 2.

    Example:
        >>> slopes, gates = np.array([[[3.0, 1.0, 9.0]]]), np.array([[[True, True, False]]])
        >>> change_without(slopes, gates, (0, 0, 0))
        -1.0

    Source: this course.
    """
    *edge, operation = candidate
    own, live = slopes[tuple(edge)], gates[tuple(edge)]
    k = int(live.sum())
    return float((own[live].sum() - own[operation]) / (k * (k - 1)) - own[operation] / k)


def mean_log_condition(
    kernels: Kernels, tasks: TaskBatch, *, algorithm: str = "maml", inner_time=math.inf, ridge=1e-3, orders
) -> float:
    """The mean of log kappa over `role_orders`, from kernels of the tasks' points; infinity where a spectrum has none.

    Source: this course; the score is that of Wang et al. 2022.
    """
    how = jnp.asarray(orders), tasks.tasks, tasks.queries, algorithm, inner_time, ridge
    value = float(_mean_log(kernels.ntk, kernels.nngp, *how))
    return value if math.isfinite(value) else math.inf


@partial(jax.jit, static_argnames=("tasks", "queries", "algorithm"))
def _mean_log(ntk, nngp, orders, tasks: int, queries: int, algorithm: str, inner_time, ridge):
    """The mean over orders of log kappa, not finite where a spectrum has none."""

    def one(order):
        theta, inner = (kernel[order][:, order] for kernel in (ntk, ntk if algorithm == "maml" else nngp))
        phi = theta if algorithm == "none" else _metantk(theta, inner, tasks, queries, inner_time, ridge)
        values = jnp.linalg.eigvalsh((phi + phi.T) / 2)
        return jnp.log(values[-1]) - jnp.log(values[0])

    return jax.vmap(one)(orders).mean()


_slopes = jax.jit(jax.value_and_grad(_mean_log, (0, 1)), static_argnames=("tasks", "queries", "algorithm"))
