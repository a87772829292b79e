"""Numbers for the demo of notebook 03: one inner problem of the student, its surface, its path and its meta-gradient.

Which layers adapt is said by their rates: a layer of rate 0 is one that the inner loop leaves alone. So one compiled
function serves ANIL of any depth and MAML, and no control of the demo compiles anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from mlkernels.course.demos.demo import once
from mlkernels.networks import MLP
from mlkernels.tasks import TaskBatch, teacher_student

STEPS = 20  # of the inner loop, at most
LAYERS = {"head": ("head",), "head + layer 2": ("layer2", "head"), "all (MAML)": ("layer1", "layer2", "head")}
NETWORK = MLP(width=(32, 16), depth=2, w_std=1.0, parametrization="standard", activation="tanh")
POINTS = 61  # of the surface, on each side
_SHARES = (0.1, 0.35, 0.7)  # of 2 / L: the rates of the paths that the plane is laid through
_FAR = 30.0  # where a path that leaves the picture is cut off, in widths of it
_PATH_L2 = 0.1  # and their L2 strength


def _drawn(key, task_key, teacher_key) -> tuple[dict, TaskBatch]:
    task = teacher_student(tasks=1, support=20, queries=20, key=task_key, teacher_key=teacher_key)
    return NETWORK.init(key, (10,)), task


@lru_cache
def problem() -> tuple[dict, TaskBatch]:
    """The student's parameters at the start, and one task of 20 support and 20 query points; always the same."""
    return once(_drawn)(*map(jax.random.key, (1, 5, 0)))


def rates(layers: str, rate: float) -> dict[str, float]:
    """Each layer's rate: 0 for one that does not adapt."""
    return {name: rate if name in LAYERS[layers] else 0.0 for name in NETWORK.layers}


def moving(layers: str) -> np.ndarray:
    """Which of the parameters, in the order of `ravel_pytree`, adapt: bool `[p]`."""
    params, _ = problem()
    each = {
        name: jax.tree.map(lambda a, on=name in LAYERS[layers]: np.full(a.shape, on), params[name]) for name in params
    }
    return np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(each)])


class Loop(NamedTuple):
    """The inner loop of 20 steps."""

    points: np.ndarray  # [21, p], all parameters
    losses: np.ndarray  # [21], the inner loss there, with the L2 term of what adapts
    by_w: np.ndarray  # [21], the norm of dL/dw after 0 to 20 steps
    by_phi: np.ndarray  # [21], that of dL/dphi; zeros for MAML


@once
def _descend(params, task: TaskBatch, rates, l2):
    """Points, losses of the fit, and each layer's squared part of the meta-gradient after each number of steps.

    All numbers of steps go backwards together; those that have not begun yet wait.
    """

    def fit(params, x, y):
        return jnp.mean((NETWORK.apply(params, x) - y) ** 2)

    def support(params):
        penalty = sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(params))
        return fit(params, task.support_x[0], task.support_y[0]) + l2 / 2 * penalty

    def weighed(tree):
        return {name: jax.tree.map(lambda leaf, rate=rates[name]: rate * leaf, layer) for name, layer in tree.items()}

    def forth(w, _):
        loss, gradient = jax.value_and_grad(support)(w)
        return jax.tree.map(jnp.subtract, w, weighed(gradient)), (w, loss)

    _, (path, losses) = jax.lax.scan(forth, params, length=STEPS + 1)
    query = jax.vmap(lambda w: jax.grad(fit)(w, task.query_x[0], task.query_y[0]))(path)

    def back(v, m):
        w = jax.tree.map(lambda leaf: leaf[m], path)
        moved = jax.vmap(lambda v: jax.jvp(jax.grad(support), (w,), (weighed(v),))[1])(v)
        begun = jnp.arange(STEPS + 1) > m

        def less(v, part):
            return jnp.where(begun.reshape(-1, *[1] * (v.ndim - 1)), v - part, v)

        return jax.tree.map(less, v, moved), None

    v, _ = jax.lax.scan(back, query, jnp.arange(STEPS - 1, -1, -1))
    squares = {
        name: sum((leaf**2).reshape(STEPS + 1, -1).sum(1) for leaf in layer.values()) for name, layer in v.items()
    }
    return path, losses, squares


def loop(layers: str, rate: float, l2: float) -> Loop:
    """The inner loop, and the meta-gradient of every number of its steps: equation (2) of notebook 03, all at once."""
    params, task = problem()
    path, losses, squares = _descend(params, task, rates(layers, float(rate)), float(l2))  # of one type, compiled once
    points = np.concatenate([np.asarray(leaf, float).reshape(STEPS + 1, -1) for leaf in jax.tree.leaves(path)], 1)
    frozen = l2 / 2 * (points[0, ~moving(layers)] ** 2).sum()  # the same everywhere
    parts = [np.zeros(STEPS + 1), np.zeros(STEPS + 1)]
    for name, found in squares.items():
        parts[name not in LAYERS[layers]] += np.asarray(found, float)
    return Loop(points, np.asarray(losses, float) - frozen, *map(np.sqrt, parts))


@dataclass(frozen=True)
class Plane:
    """A plane through the paths of one choice of layers, and what the inner loss is on it."""

    origin: np.ndarray  # [p], its middle
    across: np.ndarray  # [2, p], orthonormal
    sides: tuple[np.ndarray, np.ndarray]  # two [61], the coordinates of the surface's points
    fit: np.ndarray  # [61, 61], the loss there without its L2 term; the first coordinate along the columns
    squares: np.ndarray  # [61, 61], the squared norm of the adapted parameters there
    eigenvalues: np.ndarray  # ascending, of the Hessian by what adapts at the start, without the L2 term

    def project(self, points: np.ndarray) -> np.ndarray:
        """Coordinates `[n, 2]` of points `[n, p]`."""
        return (points - self.origin) @ self.across.T


def _support(task: TaskBatch) -> tuple[np.ndarray, np.ndarray]:
    """The task's support set; numpy, because JAX compiles a slice."""
    return np.asarray(task.support_x)[0], np.asarray(task.support_y)[0]


@lru_cache
def hessian() -> np.ndarray:
    """The inner Hessian by all parameters at the start, without an L2 term, `[p, p]`."""
    params, task = problem()
    found = np.asarray(_hessian(params, *_support(task)), float)
    return (found + found.T) / 2


@once
def _hessian(params, x, y):
    point, unravel = ravel_pytree(params)
    return jax.hessian(lambda point: jnp.mean((NETWORK.apply(unravel(point), x) - y) ** 2))(point)


@once
def _fit(params, x, y, points):
    _, unravel = ravel_pytree(params)
    return jax.lax.map(lambda point: jnp.mean((NETWORK.apply(unravel(point), x) - y) ** 2), points, batch_size=POINTS)


@lru_cache
def plane(layers: str) -> Plane:
    """The plane in which the paths of three moderate rates vary most, and the surface above it."""
    params, task = problem()
    on = moving(layers)
    eigenvalues = np.linalg.eigvalsh(hessian()[np.ix_(on, on)])
    every = [loop(layers, share * 2 / (eigenvalues[-1] + _PATH_L2), _PATH_L2).points for share in _SHARES]
    points = np.concatenate(every)
    origin = points.mean(0)
    across = np.linalg.svd(points - origin, full_matrices=False)[2][:2]
    spots = (points - origin) @ across.T
    low, high = spots.min(0), spots.max(0)
    margin = 0.35 * (high - low) + 0.1
    sides = tuple(np.linspace(a, b, POINTS) for a, b in zip(low - margin, high + margin, strict=True))
    grid = origin + np.stack(np.meshgrid(*sides), -1).reshape(-1, 2) @ across
    fit = np.asarray(_fit(params, *_support(task), jnp.asarray(grid)), float)
    squares = (grid[:, on] ** 2).sum(1)
    return Plane(origin, across, sides, *(part.reshape(POINTS, POINTS) for part in (fit, squares)), eigenvalues)


def _finite(values: np.ndarray) -> np.ndarray:
    return np.clip(np.nan_to_num(values, nan=1e30, posinf=1e30), -1e30, 1e30)


@lru_cache(maxsize=64)
def seen(layers: str, rate: float, l2: float) -> tuple:
    """What does not depend on N: spots, inside, minimum, losses, by_w, by_phi."""
    flat = plane(layers)
    low, high = np.array([side[[0, -1]] for side in flat.sides]).T
    with np.errstate(all="ignore"):
        points, *curves = loop(layers, rate, l2)
        spots = (flat.project(points) - low) / (high - low)
        way = points - points[0]
        total = float((way**2).sum())
        inside = float(((way @ flat.across.T) ** 2).sum()) / total if 0 < total < np.inf else 0.0
        minimum = (flat.project(_minimum(layers, points, rate, l2)[None])[0] - low) / (high - low)
    spots = np.clip(np.nan_to_num(spots, nan=_FAR), -_FAR, _FAR)
    return spots, inside, minimum, *map(_finite, curves)


def _minimum(layers: str, points: np.ndarray, rate: float, l2: float) -> np.ndarray:
    """The minimum `[p]` of a quadratic inner loss: one Newton step; far away where the loss is none."""
    on = moving(layers)
    if layers != "head":
        return np.full(len(on), 1e6)
    matrix = hessian()[np.ix_(on, on)] + (l2 + 1e-9) * np.eye(int(on.sum()))
    best = points[0].copy()
    best[on] -= np.linalg.solve(matrix, (points[0] - points[1])[on] / rate)
    return best
