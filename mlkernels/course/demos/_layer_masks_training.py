"""The network of the demo of notebook 07: MAML on sinusoids, four layers, and what all 16 masks of them give."""

from __future__ import annotations

from functools import lru_cache, partial

import jax
import numpy as np
import optax

from mlkernels import tasks
from mlkernels.course.demos.demo import once
from mlkernels.learners import layer_masks
from mlkernels.learners.maml import InnerLoop, adapt
from mlkernels.learners.meta_gradient import value_and_gradient
from mlkernels.learners.problem import Problem
from mlkernels.networks import MLP

NETWORK = MLP(32, 3, b_std=1.0)
POINTS, MOST = 10, 10  # support points and queries of a task; inner steps at test
REACH = 5.0  # inputs lie in [-5, 5]
GRID = np.linspace(-REACH, REACH, 101, dtype=np.float32)[:, None]
INNER = InnerLoop(0.02, 3, loss="mean_squares")  # three steps in training: five compile for longer
TASKS, STEPS, RATE, HELD_OUT = 5, 400, 0.01, 100  # of training: tasks a step, steps, Adam's rate; tasks at test
SHOWN = 10  # of the held-out tasks: one that the start is far from
MASKS = layer_masks.all_masks(len(NETWORK.layers))
_sinusoids = partial(tasks.sinusoid_with_parameters, support=POINTS, queries=POINTS, dtype=np.float32)


@lru_cache
def problem() -> tasks.SinusoidTasks:
    """The held-out tasks. One is shown, and the grid stands for its queries."""
    return once(lambda key: _sinusoids(tasks=HELD_OUT, key=key))(jax.random.key(107))


def support() -> tuple[np.ndarray, np.ndarray]:
    """The support points of the task that is shown, `[10, 1]` each."""
    batch = problem().batch
    return np.asarray(batch.support_x)[SHOWN], np.asarray(batch.support_y)[SHOWN]


def truth() -> np.ndarray:
    """Its values on the grid, `[101]`."""
    return float(problem().amplitude[SHOWN]) * np.sin(GRID[:, 0] + float(problem().phase[SHOWN]))


@partial(jax.jit, compiler_options={"xla_backend_optimization_level": 1})
def _train(params):
    meta = Problem(NETWORK.apply, INNER, "mean_squares", "mean")
    optimizer = optax.adam(optax.cosine_decay_schedule(RATE, STEPS))

    def step(state, key):
        params, opt_state = state
        batch = _sinusoids(tasks=TASKS, key=key).batch
        _, gradient = value_and_gradient(meta, params, INNER.rate, batch)
        with jax.numpy_dtype_promotion("standard"):  # as in maml.fit
            updates, opt_state = optimizer.update(gradient, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), None

    keys = jax.random.split(jax.random.key(1), STEPS)
    return jax.lax.scan(step, (params, optimizer.init(params)), keys)[0][0]


@lru_cache
def trained() -> dict:
    """The network's parameters."""
    start = once(partial(NETWORK.init, input_shape=(1,), dtype=np.float32))(jax.random.key(0))
    return _train(start)


@once
def _outputs(params, rates, x, y, steps):
    adapted = adapt(NETWORK.apply, params, x, y, INNER, rates=rates, steps=steps)
    return NETWORK.apply(adapted, GRID)[:, 0]


def outputs(mask: np.ndarray, steps: int) -> np.ndarray:
    """The network on the grid, `[101]`, after so many steps that update the layers of a mask on the task shown."""
    rates = {name: np.float32(INNER.rate * on) for name, on in zip(NETWORK.layers, mask, strict=True)}
    return np.asarray(_outputs(trained(), rates, *support(), np.int32(steps)))


@lru_cache
def errors() -> np.ndarray:
    """The mean squared error over the held-out tasks, of each mask after 0 to 10 steps: `[16, 11]`."""
    inner = InnerLoop(INNER.rate, MOST, loss=INNER.loss)
    found = layer_masks.scores(NETWORK, trained(), problem().batch, inner, MASKS, score="mean_squares")
    return np.asarray(found).astype(float).mean(-1)


@lru_cache
def costs() -> layer_masks.LayerCosts:
    """The operations of the parts of a step."""
    return layer_masks.layer_costs(NETWORK, trained(), problem().batch, INNER, compiled=False)
