"""The networks of the demo of notebook 05: meta-trained on sinusoids by MAML, Meta-RKHS-I and Meta-RKHS-II.

Networks of all widths are trained as parts of the widest, so that each method is compiled once: of its units only the
first so many are alive, with their weights scaled as in the small network. A unit whose weights are all zero puts out
nothing and has no gradient: it stays dead, and adds nothing to a kernel.
"""

from __future__ import annotations

import math
from functools import lru_cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mlkernels import kernels, tasks
from mlkernels.course.demos.demo import once
from mlkernels.inner_loop.descent import descend
from mlkernels.learners import rkhs
from mlkernels.learners.maml import InnerLoop
from mlkernels.learners.meta_gradient import value_and_gradient
from mlkernels.learners.problem import Problem
from mlkernels.networks import MLP

WIDTHS = (20, 40, 80)
WIDEST = MLP(max(WIDTHS), b_std=1.0)
SHOTS = (2, 5, 10, 20)
REACH = 5.0  # inputs lie in [-5, 5]
GRID = np.linspace(-REACH, REACH, 101)[:, None]
# Measured: Meta-RKHS-I diverges in training from alpha 0.0035 on at widths 20 and 40, from 0.004 on at 80; on the other
# sinusoids that are drawn in float32, or in 600 steps, at 0.003.
ALPHAS = (0.0, 0.0005, 0.001, 0.002)
TASKS, POINTS, STEPS, RATE = 5, 10, 400, 0.03  # of training: tasks a step, support points and queries, Adam's rate
TIME = 10.0  # t of Meta-RKHS-II in training
LOSS = "mean_squares"
TRAINED = {  # what stands in the inner loop's place in training
    "MAML": InnerLoop(0.02, 5, loss=LOSS),
    "Meta-RKHS-I": rkhs.Regularised(0.0, loss=LOSS),
    "Meta-RKHS-II": rkhs.ClosedForm(TIME, how="gram"),
}
# Measured on the held-out task, width 40, ten support points: mean squared error 3.47 before and 0.043 after for MAML,
# 2.98 and 1.67 for Meta-RKHS-I of alpha 0.002, 3.46 and 0.135 for Meta-RKHS-II; the sinusoid's mean square is 3.96.
TUNED = {"MAML": (0.02, 5), "Meta-RKHS-I": (0.02, 10)}  # rate and steps of gradient descent at test


@lru_cache
def problem() -> tasks.SinusoidTasks:
    """The held-out task with its twenty support points; the grid stands for its queries."""
    draw = partial(tasks.sinusoid_with_parameters, tasks=1, support=max(SHOTS), queries=1)
    return once(lambda key: draw(key=key))(jax.random.key(108))


def support() -> tuple[np.ndarray, np.ndarray]:
    """Its points, `[20, 1]` each."""
    batch = problem().batch
    return np.asarray(batch.support_x)[0], np.asarray(batch.support_y)[0]


def truth() -> np.ndarray:
    """Its values on the grid, `[101]`."""
    return float(problem().amplitude[0]) * np.sin(GRID[:, 0] + float(problem().phase[0]))


class Network(NamedTuple):
    """A network as part of the widest. A pytree.

    Args:
        params: of the widest, dead units zero.
        scale: the root of the widest's units over this one's.
    """

    params: dict
    scale: jax.Array

    def apply(self, params, x) -> jax.Array:
        """Its outputs with other parameters, `[N, 1]`."""
        scaled = {name: {**params[name], "w": params[name]["w"] * self.scale} for name in ("layer2", "head")}
        return WIDEST.apply({"layer1": params["layer1"], **scaled}, x)

    def __call__(self, x) -> jax.Array:
        return self.apply(self.params, x)


@lru_cache
def _widest() -> dict:
    return once(partial(WIDEST.init, input_shape=(1,)))(jax.random.key(0))


@lru_cache(maxsize=len(WIDTHS))
def start(width: int) -> Network:
    """The network of this width before training: a part of the widest's start, the same for all methods."""
    params = _widest()

    def cut(leaf):
        alive = np.zeros(leaf.shape, leaf.dtype)
        alive[tuple(slice(1 if n == 1 else width) for n in leaf.shape)] = 1
        return leaf * alive

    return Network(jax.tree.map(cut, params), jnp.asarray(math.sqrt(WIDEST.width / width), float))


@partial(jax.jit, static_argnums=0, compiler_options={"xla_backend_optimization_level": 1})
def _train(method: str, network: Network, numbers) -> Network:
    """The network after training on sinusoids, the same ones for every method and width."""
    meta = Problem(network.apply, TRAINED[method], LOSS, "mean")
    optimizer = optax.adam(optax.cosine_decay_schedule(RATE, STEPS))

    def step(state, key):
        params, opt_state = state
        batch = tasks.sinusoid(tasks=TASKS, support=POINTS, queries=POINTS, key=key)
        _, gradient = value_and_gradient(meta, params, numbers, batch)
        with jax.numpy_dtype_promotion("standard"):  # as in maml.fit
            updates, opt_state = optimizer.update(gradient, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), None

    state = network.params, optimizer.init(network.params)
    (params, _), _ = jax.lax.scan(step, state, jax.random.split(jax.random.key(1), STEPS))
    return network._replace(params=params)


@lru_cache(maxsize=64)
def trained(method: str, width: int, alpha: float = 0.0) -> Network:
    """The network of this width as the method leaves it; alpha is that of Meta-RKHS-I."""
    numbers = {
        "MAML": np.asarray(TRAINED["MAML"].rate),
        "Meta-RKHS-I": {"alpha": np.asarray(alpha)},
        "Meta-RKHS-II": TRAINED["Meta-RKHS-II"].numbers,
    }
    return _train(method, start(width), numbers[method])


@once
def _descents(network: Network, rate, steps, x, y, grid):
    """The outputs on the grid before and after gradient descent on the first 2, 5, 10, 20 support points."""

    def after(count):
        here = jnp.arange(max(SHOTS)) < count

        def loss(params):
            return ((network.apply(params, x) - y)[:, 0] ** 2).mean(where=here)

        return network.apply(descend(loss, network.params, rate, steps), grid)[:, 0]

    return network(grid)[:, 0], jax.vmap(after)(jnp.asarray(SHOTS))


@lru_cache(maxsize=64)
def tuned(method: str, width: int, alpha: float = 0.0) -> tuple[np.ndarray, dict[int, np.ndarray]]:
    """What MAML or Meta-RKHS-I says on the grid, `[101]`: before gradient descent, and after it by support points."""
    before, after = _descents(trained(method, width, alpha), *TUNED[method], *support(), GRID)
    return np.asarray(before), dict(zip(SHOTS, np.asarray(after), strict=True))


@once
def _kernel(network: Network, points, x):
    return network(points)[:, 0], kernels.empirical_ntk(network.apply, network.params, points, x)


@lru_cache
def kernel(width: int) -> tuple[np.ndarray, np.ndarray]:
    """Of Meta-RKHS-II, for the grid and then the support points: outputs `[121]`, NTK with the latter `[121, 20]`."""
    x, _ = support()
    return tuple(map(np.asarray, _kernel(trained("Meta-RKHS-II", width), np.concatenate([GRID, x]), x)))
