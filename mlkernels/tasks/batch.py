"""TaskBatch: the pytree of few-shot tasks that everything consumes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from mlkernels.errors import bad_input
from mlkernels.support.array_arguments import is_real_type


@dataclass(frozen=True, eq=False, repr=False)
class TaskBatch:
    """B tasks of one size: what each is adapted on (support) and judged on (queries). A JAX pytree.

    Shapes are checked where a batch is made by hand, under `jit` and `vmap` too; JAX itself rebuilds batches without
    the check, so that `vmap` over tasks hands a function one task without its first axis.

    Args:
        support_x: `[B, m, ...]`.
        support_y: `[B, m, k]`.
        query_x: `[B, n, ...]`, inputs of the same shape.
        query_y: `[B, n, k]`.

    Raises:
        InputError: shapes that do not fit together.

    Example:
        >>> from mlkernels.tasks import sinusoid
        >>> batch = sinusoid(tasks=3, support=5, queries=10, key=jax.random.key(0))
        >>> batch
        TaskBatch(3 tasks: 5 support and 10 query points of shape (1,), 1 outputs)
        >>> batch[1:].tasks, len(batch), jax.vmap(lambda task: task.support_y.sum())(batch).shape
        (2, 3, (3,))

    Source: the paper's X', Y' (support) and X, Y (queries); notebook 01.
    """

    support_x: Array
    support_y: Array
    query_x: Array
    query_y: Array

    def __post_init__(self) -> None:
        leaves = [getattr(self, field.name) for field in fields(self)]
        if not all(hasattr(leaf, "shape") for leaf in leaves):
            if any(isinstance(leaf, (list, tuple)) for leaf in leaves):
                raise bad_input("TaskBatch", "four arrays", "lists", "wrap them in jnp.asarray")
            return  # in_axes and the like: a tree of the same form that holds no arrays
        sx, sy, qx, qy = (tuple(leaf.shape) for leaf in leaves)
        got = f"{list(sx)}, {list(sy)}, {list(qx)}, {list(qy)}"
        expected = "support_x [B, m, ...], support_y [B, m, k], query_x [B, n, ...], query_y [B, n, k]"
        fits = (
            min(len(sx), len(qx)) >= 3
            and len(sy) == len(qy) == 3
            and sx[:2] == sy[:2]
            and qx[:2] == qy[:2]
            and sx[0] == qx[0]
            and sx[2:] == qx[2:]
            and sy[2] == qy[2]
        )
        if not fits:
            do = "give every array its axes of tasks and points, labels k outputs"
            raise bad_input("TaskBatch", expected, got, do)
        check_types(self)

    @property
    def tasks(self) -> int:
        """B, how many tasks."""
        return self.support_x.shape[0]

    @property
    def support(self) -> int:
        """m, support points of a task (way times shot in classification)."""
        return self.support_x.shape[1]

    @property
    def queries(self) -> int:
        """n, query points of a task."""
        return self.query_x.shape[1]

    @property
    def outputs(self) -> int:
        """k, outputs of a point (the way in classification)."""
        return self.support_y.shape[2]

    def __len__(self) -> int:
        return self.tasks

    def __getitem__(self, index: int | slice | Sequence[int] | np.ndarray) -> TaskBatch:
        """Some of the tasks, always as a batch: `batch[2:5]` has three, `batch[2]` one."""
        if isinstance(index, (int, np.integer)):
            if not -self.tasks <= index < self.tasks:
                raise IndexError(f"task {index} of a batch of {self.tasks}")
            index = [index]
        if not isinstance(index, slice):
            index = np.arange(self.tasks)[index]  # which refuses indices beyond the batch, as JAX does not
        return jax.tree.map(lambda leaf: leaf[index], self)

    def __iter__(self) -> Iterator[TaskBatch]:
        return (self[index] for index in range(self.tasks))

    def __repr__(self) -> str:
        if not all(hasattr(leaf, "shape") and len(leaf.shape) >= 3 for leaf in (self.support_x, self.support_y)):
            return f"TaskBatch({', '.join(repr(getattr(self, field.name)) for field in fields(self))})"
        shape = tuple(self.support_x.shape[2:])
        points = f"{self.support} support and {self.queries} query points of shape {shape}"
        return f"TaskBatch({self.tasks} tasks: {points}, {self.outputs} outputs)"


_NAMES = tuple(field.name for field in fields(TaskBatch))


def check_types(batch: TaskBatch) -> None:
    """Refuse arrays of anything but real numbers."""
    for name in _NAMES:
        leaf = getattr(batch, name)
        if not is_real_type(leaf.dtype):
            raise bad_input(name, "real numbers", f"{leaf.dtype} {list(leaf.shape)}", "give it numbers")


def _rebuild(_, leaves) -> TaskBatch:
    batch = object.__new__(TaskBatch)
    batch.__dict__.update(zip(_NAMES, leaves, strict=True))
    return batch


jax.tree_util.register_pytree_with_keys(
    TaskBatch,
    lambda batch: ([(jax.tree_util.GetAttrKey(name), getattr(batch, name)) for name in _NAMES], None),
    _rebuild,
)


def concatenate(batches: Sequence[TaskBatch]) -> TaskBatch:
    """Join batches along the axis of tasks.

    Args:
        batches: at least one, of the same shapes but for B.

    Returns:
        A `TaskBatch` with the sum of their tasks.

    Raises:
        InputError: no batch, or shapes that differ.

    Example:
        >>> from mlkernels.tasks import sinusoid
        >>> batch = sinusoid(tasks=3, support=5, queries=10, key=jax.random.key(0))
        >>> concatenate([batch, batch[:1]]).tasks
        4
    """
    batches = list(batches)
    if not batches:
        raise bad_input("batches", "at least one TaskBatch", "none", "give one or more")
    shapes = [[leaf.shape[1:] for leaf in jax.tree.leaves(batch)] for batch in batches]
    for shape in shapes:
        if shape != shapes[0]:
            do = "make them with the same support, queries and inputs"
            raise bad_input("batches", f"arrays of {shapes[0]} a task", shape, do)
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *batches)


def centred(batch: TaskBatch, apply: Callable, params) -> TaskBatch:
    r"""The same tasks with a network's own outputs added to all labels: training f on them is training f - f_0.

    .. math:: f - (y + f_0) = (f - f_0) - y

    Args:
        batch: the tasks.
        apply: `(params, x) -> [N, k]`.
        params: of f_0, the network at the start.

    Returns:
        A `TaskBatch` of the same inputs.

    Example:
        >>> from mlkernels.tasks import sinusoid
        >>> batch = sinusoid(tasks=3, support=5, queries=10, key=jax.random.key(0))
        >>> shifted = centred(batch, lambda slope, x: slope * x, 2.0)
        >>> bool((shifted.query_y == batch.query_y + 2.0 * batch.query_x).all())
        True

    Source: Lee et al. 2019, whose networks start at zero; notebooks/02_maml_linear_rate.
    """
    if not isinstance(batch, TaskBatch):
        raise bad_input("batch", "a TaskBatch", type(batch).__name__, "make one with mlkernels.tasks")
    start = jax.vmap(partial(apply, params))
    labels = {"support_y": batch.support_y + start(batch.support_x), "query_y": batch.query_y + start(batch.query_x)}
    return replace(batch, **labels)
