"""The network of the demo of notebook 06: meta-trained once, on sinusoids whose labels are noisy, by `FunctionSpace`.

All that a kernel asks of it is computed with it, once for all controls.
"""

from __future__ import annotations

from functools import lru_cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mlkernels import kernels, tasks
from mlkernels.course.demos.demo import once
from mlkernels.learners.function_space import RBF, Cosine, FunctionSpace, Linear
from mlkernels.learners.function_space.kernel import Points
from mlkernels.learners.meta_gradient import value_and_gradient
from mlkernels.learners.problem import Problem
from mlkernels.networks import MLP

NETWORK = MLP(40, b_std=1.0)
SHOTS = (2, 5, 10, 20)
REACH = 5.0  # inputs lie in [-5, 5]
GRID = np.linspace(-REACH, REACH, 101)[:, None]
NOISE = 0.3  # of the labels, in training and at test: without it, a smallest gamma would be nearly as good as any
TASKS, POINTS, STEPS, RATE = 5, 10, 300, 0.03  # of training: tasks a step, support points and queries, Adam's rate
# Before training; measured after it: length scale 5.6, amplitude 2.1, gamma 0.048; the held-out task's error falls from
# 2.18 to 0.35 with ten support points.
START = FunctionSpace(RBF(length_scale=3.0))
LOSS = "mean_squares"


@lru_cache
def problem() -> tasks.SinusoidTasks:
    """The held-out task with its twenty support points; the grid stands for its queries."""
    draw = partial(tasks.sinusoid_with_parameters, tasks=1, support=max(SHOTS), queries=1, noise=NOISE)
    return once(lambda key: draw(key=key))(jax.random.key(108))


def support() -> tuple[np.ndarray, np.ndarray]:
    """Its points, `[20, 1]` each."""
    batch = problem().batch
    return np.asarray(batch.support_x)[0], np.asarray(batch.support_y)[0]


def truth() -> np.ndarray:
    """Its values on the grid without noise, `[101]`."""
    return float(problem().amplitude[0]) * np.sin(GRID[:, 0] + float(problem().phase[0]))


@partial(jax.jit, compiler_options={"xla_backend_optimization_level": 1})
def _train(params, numbers):
    """The network and the logarithms of l, A and gamma after training."""
    meta = Problem(NETWORK.apply, START.form, LOSS, "mean", learn_rates=True)
    optimizer = optax.adam(optax.cosine_decay_schedule(RATE, STEPS))

    def step(state, key):
        trained, opt_state = state
        batch = tasks.sinusoid(tasks=TASKS, support=POINTS, queries=POINTS, key=key, noise=NOISE)
        _, gradient = value_and_gradient(meta, trained, None, batch)
        with jax.numpy_dtype_promotion("standard"):  # as in maml.fit
            updates, opt_state = optimizer.update(gradient, opt_state, trained)
        return (optax.apply_updates(trained, updates), opt_state), None

    start = meta.trained(params, jax.tree.map(jnp.asarray, numbers))
    keys = jax.random.split(jax.random.key(1), STEPS)
    return jax.lax.scan(step, (start, optimizer.init(start)), keys)[0][0]


@lru_cache
def trained() -> tuple[dict, FunctionSpace]:
    """The network's parameters, and the settings that were learned with them."""
    params = once(partial(NETWORK.init, input_shape=(1,)))(jax.random.key(0))
    found = _train(params, START.numbers)
    return found["params"], START.at(found["rates"])


class Parts(NamedTuple):
    """What kernels are made of, for the grid and then the support points `[121]` with the latter `[20]`. A pytree.

    Args:
        outputs: `[121]`, of the network.
        hidden, inputs: `[121, 20]`, squared distances of hidden features and of inputs.
        linear, cosine, ntk: `[121, 20]`, the kernels of amplitude 1.
        squares, ntk_diagonal: what the linear kernel and the NTK are at equal points, a mean over the grid.
    """

    outputs: np.ndarray
    hidden: np.ndarray
    inputs: np.ndarray
    linear: np.ndarray
    cosine: np.ndarray
    ntk: np.ndarray
    squares: float
    ntk_diagonal: float


@once
def _parts(params, points, x) -> Parts:
    layers = NETWORK.features(params, points)
    features = layers[NETWORK.layers[-2]]
    n = len(points) - len(x)
    a, b = Points(points, features), Points(x, features[n:])
    linear, cosine = (k.gram(k.numbers, NETWORK.apply, params, a, b) for k in (Linear(), Cosine()))
    gradients = jax.vmap(jax.grad(lambda p, at: NETWORK.apply(p, at[None])[0, 0]), (None, 0))(params, points[:n])
    squares = sum((leaf**2).sum() for leaf in jax.tree.leaves(gradients)) / n

    def apart(one, two):
        return ((one[:, None] - two[None]) ** 2).sum(-1)

    return Parts(
        outputs=layers["head"][:, 0],
        hidden=apart(features, features[n:]),
        inputs=apart(points, x),
        linear=linear,
        cosine=cosine,
        ntk=kernels.empirical_ntk(NETWORK.apply, params, points, x),
        squares=(features[:n] ** 2).sum(-1).mean(),
        ntk_diagonal=squares,
    )


@lru_cache
def parts() -> Parts:
    """Those of the network that was trained."""
    x, _ = support()
    return jax.tree.map(np.asarray, _parts(trained()[0], np.concatenate([GRID, x]), x))
