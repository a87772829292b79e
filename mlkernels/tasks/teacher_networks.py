"""Regression tasks whose truths are networks around a common centre: how diverse tasks are is one number."""

from __future__ import annotations

import inspect
import math
from dataclasses import dataclass, field
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Num

from mlkernels.errors import bad_input
from mlkernels.networks import MLP
from mlkernels.support.arguments import flag, number, one_of, span
from mlkernels.support.array_arguments import float_type, one_key, real_array, real_arrays, sizes
from mlkernels.support.typed import typed
from mlkernels.tasks.batch import TaskBatch

SPLITS = ("train", "val", "test")
READINGS = ("variance", "deviation")
_EPSILON = 1e-5  # PyTorch's, beside a variance


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class TeacherNetworkTasks:
    """Tasks of teacher networks with the truth behind them.

    Args:
        batch: the `TaskBatch`.
        params: of the teachers, as they were drawn, leaves `[B, ...]`.
        plain: those of `network` that make it the teachers, leaves `[B, ...]`: `params`, with batch norm those of
            `batch_normalised`.
        centre: mu, the same tree without the first axis, shared by the split.
        points: `[P, 1]`, shared by the split.
        teacher: int `[B]`, which of the split's teachers each is.
        network: the `networks.MLP` that all teachers are, in the standard parametrisation.
    """

    batch: TaskBatch
    params: dict
    plain: dict
    centre: dict
    points: Array
    teacher: Array
    network: MLP = field(metadata={"static": True})

    def value(self, x: Array) -> Array:
        """The true functions, without noise, at `x` `[B, n, 1]` or, the same for all tasks, `[n, 1]`: `[B, n, 1]`."""
        x, tasks = real_array("x", x), len(self.batch)
        if x.ndim not in (2, 3) or x.shape[-1] != 1 or (x.ndim == 3 and len(x) != tasks):
            do = "give points of one number each"
            raise bad_input("x", f"[{tasks}, n, 1], or [n, 1] for all tasks", list(x.shape), do)
        return jax.vmap(self.network.apply, (0, 0 if x.ndim == 3 else None))(self.plain, x)


def _check_layers(params) -> None:
    """Refuse what are no parameters of an `MLP` with biases."""
    do = "give it those of an MLP with biases"
    if not isinstance(params, dict) or set(params) != {"head", *(f"layer{i}" for i in range(1, len(params)))}:
        got = list(params) if isinstance(params, dict) else type(params).__name__
        raise bad_input("params", "layers with w and b, the last one the head", got, do)
    units = None
    for name in (*(f"layer{i}" for i in range(1, len(params))), "head"):
        layer = params[name] if isinstance(params[name], dict) else {}
        if set(layer) != {"b", "w"}:
            got = f"{sorted(layer) or type(params[name]).__name__} in {name}"
            raise bad_input("params", "layers with w and b, the last one the head", got, do)
        w, b = (real_array(f"params of {name}", layer[part]) for part in ("w", "b"))
        if w.ndim != 2 or b.shape != w.shape[1:] or units not in (None, len(w)):
            got = f"{list(w.shape)} and {list(b.shape)} in {name}"
            raise bad_input("params", f"w [{units or 'in'}, out] and b [out]", got, do)
        units = w.shape[1]


@typed
def batch_normalised(params, points: Num[ArrayLike, "P d"]) -> dict:
    r"""Batch norm before each ReLU, without running statistics, by the statistics of some points; folded into weights.

    .. math:: \hat z^l = \frac{z^l - \mathrm{mean}\, z^l}{\sqrt{\mathrm{var}\, z^l + 10^{-5}}}, \qquad
              z^l = \hat h^{l-1} W^l + b^l, \quad \hat h^l = \max(0, \hat z^l)

    with mean and (biased) variance of each hidden unit over the points, at which the layers below are normalised alike;
    no scale or shift of its own. At other points it is the function that these statistics make.

    Args:
        params: of an `MLP` with ReLU in the standard parametrisation: "layer1", ..., "head", each with "w" `[in, out]`
            and "b" `[out]`.
        points: float `[P, d]`.

    Returns:
        Parameters of the same network without batch norm: W and b of the hidden layers shifted and scaled.

    Raises:
        InputError: parameters without a head, or without biases.

    Example:
        >>> layer, head = {"w": jnp.ones((1, 1)), "b": jnp.ones(1)}, {"w": jnp.ones((1, 1)), "b": jnp.zeros(1)}
        >>> found = batch_normalised({"layer1": layer, "head": head}, jnp.array([[1.0], [5.0]]))
        >>> {name: round(float(part.squeeze()), 4) for name, part in found["layer1"].items()}
        {'b': -1.5, 'w': 0.5}

    Source: Miranda et al. 2021, the authors' public generator of tasks; notebooks/07_which_weights_adapt.
    """
    _check_layers(params)
    h, found = jnp.asarray(real_arrays(points=(points, "P d"))[0]), dict(params)
    units = len(params["layer1" if len(params) > 1 else "head"]["w"])
    if not len(h) or h.shape[1] != units:
        do = "give inputs of the network"
        raise bad_input("points", f"one point or more of {units} numbers, [P, {units}]", list(h.shape), do)
    for name in (f"layer{i}" for i in range(1, len(params))):
        w, b = jnp.asarray(params[name]["w"]), jnp.asarray(params[name]["b"])
        z = h @ w + b[None]
        mean, scale = z.mean(0), jnp.sqrt(z.var(0) + _EPSILON)
        found[name] = {"b": (b - mean) / scale, "w": w / scale[None]}
        h = jax.nn.relu((z - mean[None]) / scale[None])
    return found


def _standard_normal(key: Array, network: MLP, more: int, dtype) -> tuple[dict, Array]:
    """Each parameter of the linear layers, biases too, from the standard normal distribution; and some more numbers.

    One draw: each takes a third of a second to compile.
    """
    shapes, tree = jax.tree.flatten(jax.eval_shape(lambda key: network.init(key, (1,)), key))
    ends = np.cumsum([math.prod(leaf.shape) for leaf in shapes])
    *parts, rest = jnp.split(jax.random.normal(key, (ends[-1] + more,), dtype), ends)
    return jax.tree.unflatten(tree, [part.reshape(leaf.shape) for part, leaf in zip(parts, shapes, strict=True)]), rest


def _in_disorder(key: Array, count: int) -> Array:
    """The numbers below `count` in random order; compiled in a fraction of `jax.random.permutation`'s time."""
    return jnp.argsort(jax.random.bits(key, (count,)))


@partial(jax.jit, static_argnums=0, static_argnames=("network", "batch_norm", "population", "dtype"))
def _drawn(sizes, key, split_key, numbers, *, network, batch_norm, population, dtype) -> TeacherNetworkTasks:
    """All arrays, compiled once for the sizes."""
    tasks, support, queries, points = sizes
    keys = jax.random.split(key, 1 + tasks)
    to_centre, to_x, to_population = jax.random.split(split_key, 3)
    centre, _ = _standard_normal(to_centre, network, 0, dtype)
    x = jax.random.uniform(to_x, (points, 1), dtype, *numbers["x_range"])
    if population is None:
        teacher = jax.random.randint(keys[0], (tasks,), 0, jnp.iinfo(jnp.int32).max, jnp.int32)
    else:
        teacher = _in_disorder(keys[0], population)[:tasks].astype(jnp.int32)

    def one(index, key):
        own, noise = _standard_normal(jax.random.fold_in(to_population, index), network, points, dtype)
        wide = {name: numbers["head" if name == "head" else "hidden"] for name in network.layers}
        params = {name: jax.tree.map(lambda c, z, s=wide[name]: c + s * z, centre[name], own[name]) for name in own}
        plain = batch_normalised(params, x) if batch_norm else params
        y = network.apply(plain, x) + numbers["noise"] * noise[:, None]
        at = _in_disorder(key, points)[: support + queries]
        return params, plain, x[at], y[at]

    params, plain, x_of, y_of = jax.vmap(one)(teacher, keys[1:])
    batch = TaskBatch(x_of[:, :support], y_of[:, :support], x_of[:, support:], y_of[:, support:])
    return TeacherNetworkTasks(batch, params, plain, centre, x, teacher, network)


def teacher_networks_with_parameters(
    *,
    tasks: int,
    support: int,
    queries: int,
    key: Array,
    split: str = "train",
    spread: float = 1.0,
    head_spread: float = 1.0,
    spread_is: str = "variance",
    batch_norm: bool = True,
    noise: float = 0.1,
    population: int | None = 200,
    points: int = 1000,
    x_range: tuple[float, float] = (-1.0, 1.0),
    width: int = 15,
    depth: int = 3,
    teacher_key: Array | None = None,
    dtype=None,
) -> TeacherNetworkTasks:
    r"""Regression tasks of a split, whose teachers are networks drawn around its centre, with the truth behind them.

    .. math:: \mu \sim N(0, I), \qquad w_i \sim N(\mu, s^2 I), \qquad y = f(x; w_i) + \text{noise}

    A split (its centre, its points, its teachers with their noise) is a data set: the `teacher_key`, its name and the
    numbers below make it, and `key` only says which of its tasks and points are in a batch. The splits have different
    centres, as the authors' have: what is learned on one may not suit another, however many tasks there are.

    Args:
        tasks: B, at least 1; different teachers, so at most `population`.
        support: m, at least 1.
        queries: n, at least 1; different points, so m + n is at most `points`.
        key: JAX key: which teachers of the split, and which points of each.
        split: "train", "val" or "test".
        spread: std1, of all parameters of the hidden layers, at least 0.
        head_spread: std2, of the output layer's, at least 0.
        spread_is: how both are read. "variance": s is their square root, as the authors' code does, which hands std on
            as a covariance; "deviation": s is the number itself, as their name says.
        batch_norm: normalise before each ReLU, by a teacher's statistics over all the split's points, as in the sets
            that were reported.
        noise: standard deviation of the noise on labels, at least 0. A point's label is the same in all batches.
        population: teachers of the split; None is without end, a new one for each task.
        points: P, of the split, shared by all its tasks.
        x_range: range of x, uniform.
        width: units of each hidden layer, at least 1.
        depth: hidden layers, at least 1.
        teacher_key: JAX key of the splits; None is `jax.random.key(0)`.
        dtype: of the arrays; None is JAX's default float.

    Returns:
        `TeacherNetworkTasks`: `batch` with x `[B, m or n, 1]` and y `[B, m or n, 1]`, `params`, `plain`, `centre`,
        `points`, `teacher`, `network`, and `value(x)`.

    Raises:
        InputError: a number out of its range, more tasks or points than there are, an unknown name.

    Example:
        >>> options = {"tasks": 2, "support": 5, "queries": 10, "key": jax.random.key(0)}
        >>> truth = teacher_networks_with_parameters(**options, noise=0.0)
        >>> truth.batch
        TaskBatch(2 tasks: 5 support and 10 query points of shape (1,), 1 outputs)
        >>> bool(jnp.allclose(truth.value(truth.batch.query_x), truth.batch.query_y, atol=1e-4))
        True

    Source: Miranda et al. 2021, the authors' public generator (ultimate-utils); over which points its batch norm takes
    the statistics of a label is not known to us, all of the split's is our choice; notebooks/07_which_weights_adapt.
    """
    counts = sizes(tasks=tasks, support=support, queries=queries, points=points, width=width, depth=depth)
    tasks, support, queries, points, width, depth = counts
    if support + queries > points:
        got, do = f"{support} + {queries}", "ask for fewer, or give the split more points"
        raise bad_input("support + queries", f"at most points = {points}", got, do)
    if population is not None:
        (population,) = sizes(population=population)
        if tasks > population:
            do = "ask for fewer, or give the split a larger population (None: without end)"
            raise bad_input("tasks", f"at most population = {population}", tasks, do)
    low, high = span("x_range", x_range)
    noise = number("noise", noise, do="choose a standard deviation")
    spreads = [number("spread", spread), number("head_spread", head_spread)]
    if one_of("spread_is", spread_is, READINGS) == "variance":
        spreads = [math.sqrt(each) for each in spreads]
    one_key(key)
    teacher_key = jax.random.key(0) if teacher_key is None else teacher_key
    one_key(teacher_key)
    split_key = jax.random.fold_in(teacher_key, SPLITS.index(one_of("split", split, SPLITS)))
    dtype = float_type(dtype)
    numbers = {"hidden": spreads[0], "head": spreads[1], "noise": noise, "x_range": (low, high)}
    numbers = jax.tree.map(lambda each: jnp.asarray(each, dtype), numbers)
    how = {"batch_norm": flag("batch_norm", batch_norm), "population": population, "dtype": dtype}
    network = MLP(width, depth, parametrization="standard")
    return _drawn((tasks, support, queries, points), key, split_key, numbers, network=network, **how)


def teacher_networks(**arguments) -> TaskBatch:
    """The batch of `teacher_networks_with_parameters`, of the same arguments, for those who do without its truth.

    Returns:
        A `TaskBatch`: x `[B, m or n, 1]`, y `[B, m or n, 1]`.

    Raises:
        InputError: as `teacher_networks_with_parameters`.

    Example:
        >>> teacher_networks(tasks=2, support=5, queries=10, key=jax.random.key(0), spread=4.0)
        TaskBatch(2 tasks: 5 support and 10 query points of shape (1,), 1 outputs)

    Source: Miranda et al. 2021; notebooks/07_which_weights_adapt.
    """
    return teacher_networks_with_parameters(**arguments).batch


teacher_networks.__signature__ = inspect.signature(teacher_networks_with_parameters).replace(
    return_annotation="TaskBatch"
)
