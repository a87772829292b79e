"""Finitely many tasks that come again: batches that tell which tasks they hold, and a population of sinusoids."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from mlkernels.errors import bad_input
from mlkernels.support.arguments import flag, in_short, number, span, whole
from mlkernels.support.array_arguments import float_type, one_key, real_arrays, sizes
from mlkernels.tasks.batch import TaskBatch
from mlkernels.tasks.synthetic import sinusoid_value


@dataclass(frozen=True, eq=False, repr=False)
class NumberedTasks:
    """Tasks of a finite population, and which of them each is. A JAX pytree.

    What is kept for each task, such as a memory, is found by its number. `maml.fit` takes it wherever it takes a
    `TaskBatch`, from a draw too.

    Args:
        batch: B tasks.
        number: whole numbers `[B]`, from 0; one may come more than once.

    Raises:
        InputError: no batch, or numbers of another shape or type.

    Example:
        >>> from mlkernels.tasks import sinusoid
        >>> batch = sinusoid(tasks=2, support=5, queries=10, key=jax.random.key(0))
        >>> NumberedTasks(batch, jnp.array([7, 3]))
        NumberedTasks(2 tasks: 5 support and 10 query points of shape (1,), 1 outputs; numbers [7, 3])

    Source: Wang et al. 2023 (MOML), whose memory is one for each task; notebooks/08_more_steps_fewer_samples.
    """

    batch: TaskBatch
    number: Array

    def __post_init__(self) -> None:
        do = "give it a TaskBatch, and a whole number for each of its tasks"
        if not isinstance(self.batch, TaskBatch):
            raise bad_input("batch", "a TaskBatch", type(self.batch).__name__, do)
        if not hasattr(self.number, "shape"):
            if isinstance(self.number, (list, tuple)):
                raise bad_input("number", "an array", "a list", "wrap it in jnp.asarray")
            return  # in_axes and the like
        if not hasattr(self.batch.support_x, "shape"):
            raise bad_input("batch", "a TaskBatch of arrays", self.batch, do)
        got = f"{self.number.dtype} {list(self.number.shape)}"
        if tuple(self.number.shape) != (self.batch.tasks,) or not jnp.issubdtype(self.number.dtype, jnp.integer):
            raise bad_input("number", f"whole numbers [{self.batch.tasks}]", got, do)

    def __len__(self) -> int:
        return len(self.batch)

    def __repr__(self) -> str:
        known = hasattr(self.number, "tolist") and not isinstance(self.number, jax.core.Tracer)
        numbers = np.asarray(self.number).tolist() if known else self.number
        return f"NumberedTasks({repr(self.batch).removeprefix('TaskBatch(').removesuffix(')')}; numbers {numbers})"


_NAMES = ("batch", "number")


def _rebuild(_, leaves) -> NumberedTasks:
    tasks = object.__new__(NumberedTasks)
    tasks.__dict__.update(zip(_NAMES, leaves, strict=True))
    return tasks


jax.tree_util.register_pytree_with_keys(
    NumberedTasks,
    lambda tasks: ([(jax.tree_util.GetAttrKey(name), getattr(tasks, name)) for name in _NAMES], None),
    _rebuild,
)


def parted(tasks: TaskBatch | NumberedTasks) -> tuple[TaskBatch, Array | None]:
    """The tasks, and their numbers if they have any."""
    if not isinstance(tasks, NumberedTasks):
        return tasks, None
    if not hasattr(tasks.number, "shape"):
        do = "give a whole number for each task"
        raise bad_input("tasks", "tasks with an array of numbers", in_short(tasks.number), do)
    return tasks.batch, tasks.number


def sinusoid_population(
    *,
    support: int,
    queries: int,
    key: Array,
    tasks: int | None = None,
    replace: bool = True,
    amplitudes: Sequence[float] = (1.0, 2.0, 3.0, 4.0, 5.0),
    phases: Sequence[float] = tuple(math.pi * i / 5 for i in range(1, 6)),
    x_range: tuple[float, float] = (-5.0, 5.0),
    noise: float = 0.0,
    dtype=None,
) -> NumberedTasks:
    r"""Some of finitely many sinusoids, or all of them, at fresh points.

    .. math:: y = A_a \sin(x + \varphi_p) + \text{noise}, \qquad i = a\,P + p, \quad a < |A|, \; p < P

    with P phases: task i is always the same function.

    Args:
        support: m, points to adapt on, at least 1.
        queries: n, points to judge on, at least 1.
        key: JAX key.
        tasks: B, how many are drawn, all equally likely; None: each task once, in the order of their numbers.
        replace: whether a task may be drawn twice.
        amplitudes, phases: of the population, finite; each amplitude is paired with each phase.
        x_range: of x, uniform.
        noise: standard deviation of the noise on support and query labels, at least 0.
        dtype: of the arrays; None is JAX's default float.

    Returns:
        `NumberedTasks`: x `[B, m or n, 1]`, y `[B, m or n, 1]`, numbers `[B]`.

    Raises:
        InputError: a number out of its range; more different tasks than there are.

    Example:
        >>> population = sinusoid_population(support=1, queries=2, key=jax.random.key(0))
        >>> len(population), population.number[:3].tolist()
        (25, [0, 1, 2])
        >>> len(sinusoid_population(tasks=3, replace=False, support=1, queries=2, key=jax.random.key(0)))
        3

    Source: Wang et al. 2023 (MOML), the authors' public code; notebooks/08_more_steps_fewer_samples.
    """
    support, queries = sizes(support=support, queries=queries)
    amplitudes, phases = real_arrays(amplitudes=(amplitudes, "A"), phases=(phases, "P"))
    for name, values in (("amplitudes", amplitudes), ("phases", phases)):
        if not len(values) or not np.isfinite(np.asarray(values, float)).all():
            raise bad_input(name, "one or more finite numbers", np.asarray(values).tolist(), "list them")
    low, high = span("x_range", x_range)
    noise = number("noise", noise, do="choose a standard deviation")
    replace = flag("replace", replace)
    one_key(key)
    dtype, total = float_type(dtype), len(amplitudes) * len(phases)
    to_number, to_x, to_noise = jax.random.split(key, 3)
    if tasks is None:
        chosen = jnp.arange(total)
    elif replace:
        chosen = jax.random.randint(to_number, (whole("tasks", tasks, 1),), 0, total)
    else:  # in random order; compiled in a fraction of `jax.random.permutation`'s time
        do = "draw fewer, or with replace=True"
        chosen = jnp.argsort(jax.random.bits(to_number, (total,)))[: whole("tasks", tasks, 1, total, do=do)]
    x = jax.random.uniform(to_x, (len(chosen), support + queries, 1), dtype, low, high)
    amplitude, phase = np.repeat(np.asarray(amplitudes, float), len(phases)), np.tile(phases, len(amplitudes))
    y = sinusoid_value(x, *(jnp.asarray(values, dtype)[chosen] for values in (amplitude, phase)))
    if noise:
        y = y + noise * jax.random.normal(to_noise, y.shape, dtype)
    return NumberedTasks(TaskBatch(x[:, :support], y[:, :support], x[:, support:], y[:, support:]), chosen)
