"""Tasks made of formulas: sinusoids and a teacher to regress, random labels to check kernels with."""

from __future__ import annotations

import inspect
import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Num

from mlkernels.errors import bad_input
from mlkernels.support.arguments import is_real, number, plain, span
from mlkernels.support.array_arguments import float_type, one_key, real_array, sizes
from mlkernels.support.typed import typed
from mlkernels.tasks.batch import TaskBatch


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class SinusoidTasks:
    """Sinusoid tasks with the truth behind them.

    Args:
        batch: the `TaskBatch`.
        amplitude: float `[B]`.
        phase: float `[B]`.
        direction: float `[d]`, of unit length, shared by all tasks.
    """

    batch: TaskBatch
    amplitude: Array
    phase: Array
    direction: Array

    def value(self, x: Array) -> Array:
        """The true functions, without noise, at `x` `[B, n, d]` or, the same for all tasks, `[n, d]`: `[B, n, 1]`."""
        return sinusoid_value(x, self.amplitude, self.phase, self.direction)


@typed
def sinusoid_value(
    x: Num[ArrayLike, "*B n d"], amplitude: Num[ArrayLike, " T"], phase: Num[ArrayLike, " T"],
    direction: Num[ArrayLike, " d"] | None = None,
) -> Float[Array, "T n 1"]:  # fmt: skip
    """Evaluate sinusoid tasks.

    y = amplitude * sin(direction . x + phase)

    Args:
        x: float `[B, n, d]`, or `[n, d]` for the same points in every task.
        amplitude: float `[B]`.
        phase: float `[B]`.
        direction: float `[d]`; None is the first axis.

    Returns:
        float `[B, n, 1]`.

    Raises:
        InputError: shapes that do not fit together.

    Example:
        >>> sinusoid_value(jnp.zeros((2, 1)), jnp.array([1.0, 2.0]), jnp.full(2, math.pi / 2)).tolist()
        [[[1.0], [1.0]], [[2.0], [2.0]]]
    """
    given = (("x", x), ("amplitude", amplitude), ("phase", phase))
    x, amplitude, phase = (jnp.asarray(real_array(name, value)) for name, value in given)
    if x.ndim not in (2, 3) or amplitude.ndim != 1 or amplitude.shape != phase.shape:
        got = f"{list(x.shape)}, {list(amplitude.shape)}, {list(phase.shape)}"
        raise bad_input("sinusoid_value", "x [B, n, d] or [n, d], amplitude [B], phase [B]", got, "add or drop axes")
    if x.ndim == 3 and x.shape[0] != len(amplitude):
        got = f"{x.shape[0]} and {len(amplitude)}"
        raise bad_input("sinusoid_value", "x and amplitude for the same B tasks", got, "give one amplitude a task")
    along = x[..., 0] if direction is None else x @ direction
    along = along if x.ndim == 3 else along[None]
    return (amplitude[:, None] * jnp.sin(along + phase[:, None]))[..., None]


def sinusoid_with_parameters(
    *,
    tasks: int,
    support: int,
    queries: int,
    key: Array,
    amplitude: tuple[float, float] = (0.1, 5.0),
    phase: tuple[float, float] = (0.0, math.pi),
    x_range: tuple[float, float] = (-5.0, 5.0),
    noise: float = 0.0,
    dimension: int = 1,
    dtype=None,
) -> SinusoidTasks:
    """Regression tasks: sinusoids of random amplitude and phase, with the truth behind them.

    y = amplitude * sin(direction . x + phase) + noise * standard normal

    Args:
        tasks: B, at least 1.
        support: m, points to adapt on, at least 1.
        queries: n, points to judge on, at least 1.
        key: JAX key.
        amplitude: range of the uniform amplitude.
        phase: range of the uniform phase.
        x_range: range of each coordinate of x, uniform.
        noise: standard deviation of the noise on support and query labels, at least 0.
        dimension: d. Above 1, x fills a cube and only its component along one direction of unit length, random and
            the same for all tasks, matters: it varies as much as x does for d = 1.
        dtype: of the arrays; None is JAX's default float (float64 if x64 is on).

    Returns:
        `SinusoidTasks`: `batch` with x `[B, m or n, d]` and y `[B, m or n, 1]`, `amplitude` `[B]`, `phase` `[B]`,
        `direction` `[d]`, and `value(x)`.

    Raises:
        InputError: a number out of its range.

    Example:
        >>> truth = sinusoid_with_parameters(tasks=2, support=5, queries=10, key=jax.random.key(0))
        >>> bool((truth.value(truth.batch.query_x) == truth.batch.query_y).all())
        True

    Source: Finn, Abbeel and Levine 2017, section 5.1.
    """
    tasks, support, queries, dimension = sizes(tasks=tasks, support=support, queries=queries, dimension=dimension)
    amplitude, phase, x_range = span("amplitude", amplitude), span("phase", phase), span("x_range", x_range)
    noise = number("noise", noise, do="choose a standard deviation")
    one_key(key)
    dtype = float_type(dtype)
    keys = jax.random.split(key, 5)
    uniform = jax.random.uniform
    amplitudes = uniform(keys[0], (tasks,), dtype, *amplitude)
    phases = uniform(keys[1], (tasks,), dtype, *phase)
    x = uniform(keys[2], (tasks, support + queries, dimension), dtype, *x_range)
    direction = jnp.ones(1, dtype)
    if dimension > 1:
        direction = jax.random.normal(keys[3], (dimension,), dtype)
        direction = direction / jnp.linalg.norm(direction)
    y = sinusoid_value(x, amplitudes, phases, direction)
    if noise:
        y = y + noise * jax.random.normal(keys[4], y.shape, dtype)
    batch = TaskBatch(x[:, :support], y[:, :support], x[:, support:], y[:, support:])
    return SinusoidTasks(batch, amplitudes, phases, direction)


def sinusoid(**arguments) -> TaskBatch:
    """The batch of `sinusoid_with_parameters`, of the same arguments, for those who do without its truth.

    Returns:
        A `TaskBatch`: x `[B, m or n, d]`, y `[B, m or n, 1]`.

    Example:
        >>> sinusoid(tasks=2, support=5, queries=10, key=jax.random.key(0), dimension=3).query_x.shape
        (2, 10, 3)
    """
    return sinusoid_with_parameters(**arguments).batch


sinusoid.__signature__ = inspect.signature(sinusoid_with_parameters).replace(return_annotation="TaskBatch")


def random_labels(
    *, tasks: int, support: int, queries: int, key: Array, dimension: int = 6, label_scale: float = 1.0, dtype=None
) -> TaskBatch:
    """Tasks without structure, for checking kernels: points on a sphere, labels by coin toss.

    ||x||^2 = d, y = +- label_scale

    Args:
        tasks: B, at least 1.
        support: m, at least 1.
        queries: n, at least 1.
        key: JAX key.
        dimension: d, at least 1.
        label_scale: the size of the labels, finite.
        dtype: of the arrays; None is JAX's default float.

    Returns:
        A `TaskBatch`: x `[B, m or n, d]`, y `[B, m or n, 1]`.

    Raises:
        InputError: a number out of its range.

    Example:
        >>> batch = random_labels(tasks=3, support=4, queries=4, key=jax.random.key(0))
        >>> bool(jnp.allclose((batch.support_x**2).sum(axis=-1), 6.0))
        True
    """
    tasks, support, queries, dimension = sizes(tasks=tasks, support=support, queries=queries, dimension=dimension)
    label_scale = plain(label_scale)
    if not is_real(label_scale) or not math.isfinite(label_scale):
        raise bad_input("label_scale", "a finite number", label_scale, "choose such a number")
    one_key(key)
    dtype = float_type(dtype)
    points, coin = jax.random.split(key)
    x = jax.random.normal(points, (tasks, support + queries, dimension), dtype)
    x = x * (math.sqrt(dimension) / jnp.linalg.norm(x, axis=-1, keepdims=True))
    y = label_scale * jax.random.rademacher(coin, (tasks, support + queries, 1), dtype)
    return TaskBatch(x[:, :support], y[:, :support], x[:, support:], y[:, support:])


def teacher_student(
    *,
    tasks: int,
    support: int,
    queries: int,
    key: Array,
    teacher_key: Array | None = None,
    dimension: int = 10,
    features: int = 16,
    noise: float = 0.0,
    dtype=None,
) -> TaskBatch:
    r"""Regression tasks that share a teacher's features and differ in its head: what ANIL assumes, made exact.

    .. math:: y = \tanh(2\, x^\top A)\, h + \text{noise}, \qquad x \sim N(0, I), \quad A_{ij} \sim N(0, 1/d), \quad
              h \sim N(0, \tfrac14 I)

    A is the same for all tasks, h is each task's own.

    Args:
        tasks: B, at least 1.
        support: m, at least 1.
        queries: n, at least 1.
        key: JAX key of the points, the heads and the noise.
        teacher_key: JAX key of A: batches of other keys share it; None is `jax.random.key(0)`.
        dimension: d, at least 1.
        features: units of the teacher, at least 1.
        noise: standard deviation of the noise on support and query labels, at least 0.
        dtype: of the arrays; None is JAX's default float.

    Returns:
        A `TaskBatch`: x `[B, m or n, d]`, y `[B, m or n, 1]`.

    Raises:
        InputError: a number out of its range.

    Example:
        >>> teacher_student(tasks=2, support=20, queries=20, key=jax.random.key(0))
        TaskBatch(2 tasks: 20 support and 20 query points of shape (10,), 1 outputs)

    Source: notebooks/03_anil_inner_loop_geometry.
    """
    counts = sizes(tasks=tasks, support=support, queries=queries, dimension=dimension, features=features)
    tasks, support, queries, dimension, features = counts
    noise = number("noise", noise, do="choose a standard deviation")
    one_key(key)
    teacher_key = jax.random.key(0) if teacher_key is None else teacher_key
    one_key(teacher_key)
    dtype = float_type(dtype)
    normal, keys = jax.random.normal, jax.random.split(key, 3)
    teacher = normal(teacher_key, (dimension, features), dtype) / math.sqrt(dimension)
    heads = normal(keys[0], (tasks, features, 1), dtype) / 2
    x = normal(keys[1], (tasks, support + queries, dimension), dtype)
    y = jnp.tanh(2 * x @ teacher) @ heads
    if noise:
        y = y + noise * normal(keys[2], y.shape, dtype)
    return TaskBatch(x[:, :support], y[:, :support], x[:, support:], y[:, support:])
