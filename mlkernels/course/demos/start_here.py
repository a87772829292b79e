"""The demo of notebook 00: a wide network adapts to a few points of one sinusoid."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np

from mlkernels import kernels, metantk, tasks
from mlkernels.course import plots
from mlkernels.course.demos.demo import Demo, Stage, choice, once, steps, written
from mlkernels.networks import MLP

REACH, GRID, RATE = 4.0, 100, 0.005
LEAST = 3e-7  # the lowest loss on the axis
SHOTS = (1, 2, 3, 5, 8, 10)
STEPS = (0, 1, 2, 5, 10, 20, 50, 100, 1000, 10000, math.inf)
HORIZON = np.concatenate([[0], np.geomspace(1, 1e5, 60)])


@lru_cache
def problem() -> tasks.SinusoidTasks:
    """Three sinusoids with ten support points each."""
    draw = partial(
        tasks.sinusoid_with_parameters, tasks=3, support=10, queries=1, amplitude=(0.8, 1.6), x_range=(-REACH, REACH)
    )
    return once(lambda key: draw(key=key))(jax.random.key(1))


def _support(task: int, shot: int) -> tuple[np.ndarray, np.ndarray]:
    """Inputs `[shot, 1]` and labels `[shot]` of task 0, 1 or 2; numpy, because JAX compiles a slice for each shape."""
    batch = problem().batch
    return np.asarray(batch.support_x)[task, :shot], np.asarray(batch.support_y)[task, :shot, 0]


@lru_cache
def _ntk(task: int) -> np.ndarray:
    """The NTK of the grid, then all ten support points of one task."""
    grid = np.linspace(-REACH, REACH, GRID)[:, None]
    x, _ = _support(task, max(SHOTS))
    return np.asarray(kernels.infinite_kernels(MLP(1, b_std=1.0), jnp.asarray(np.concatenate([grid, x]))).ntk)


@lru_cache
def _adaptation(task: int, shot: int):
    """For one task and shot: kernels between grid and support and of the support set, its eigenvalues, the labels."""
    _, y = _support(task, shot)
    ntk = _ntk(task)[: GRID + shot, : GRID + shot]
    values, vectors = np.linalg.eigh(ntk[GRID:, GRID:])
    return ntk[:GRID, GRID:], ntk[GRID:, GRID:], values, vectors.T @ y


@dataclass(frozen=True)
class Numbers:
    """What one setting gives: the prediction on the grid, the loss at every step, the loss at this one."""

    task: int
    shot: int
    prediction: np.ndarray
    losses: np.ndarray
    steps: float
    loss: float


def numbers(task: int, shot: int, inner_steps: float) -> Numbers:
    """The prediction of an infinitely wide network after steps at the rate 0.005 on `shot` points of a sinusoid."""
    across, support, values, modes = _adaptation(task - 1, shot)
    T = np.asarray(metantk.adaptation_operator(support, inner_rate=RATE, inner_steps=inner_steps))
    prediction = across @ T @ _support(task - 1, shot)[1]
    left = (1 - RATE * values) ** HORIZON[:, None] * modes
    now = 0.0 * modes if math.isinf(inner_steps) else (1 - RATE * values) ** inner_steps * modes
    return Numbers(task, shot, prediction, 0.5 * (left**2).sum(1), inner_steps, float(0.5 * (now**2).sum()))


def _stage() -> Stage:
    fig, (left, right) = plots.figure(9.5, 3.5, boxes=[(0.07, 0.17, 0.50, 0.72), (0.68, 0.17, 0.30, 0.72)])
    grid = np.linspace(-REACH, REACH, GRID)
    (truth,) = left.plot(grid, 0 * grid, color="#888888", label="truth")
    (points,) = left.plot([], [], "ko", markersize=6, label="support")
    (curve,) = left.plot(grid, 0 * grid, label="adapted", **plots.look("MAML") | {"marker": ""})
    left.set(xlim=(-REACH, REACH), ylim=(-2.6, 2.6), xlabel="x", title="the adapted network")
    left.legend(loc="upper right", fontsize=10, ncols=3)
    (decay,) = right.plot([], [], **plots.look("theory"))
    (now,) = right.plot([], [], "o", color=plots.COLOURS["MAML"], markersize=8)
    (below,) = right.plot([], [], "v", color=plots.COLOURS["MAML"], markersize=10)
    right.set_xscale("symlog", linthresh=1)
    right.set(xlim=(-0.2, 3e5), ylim=(LEAST, 2e1), yscale="log", xlabel="inner step τ", title="loss on the support set")
    return Stage(fig, truth=truth, points=points, curve=curve, decay=decay, now=now, below=below)


def _move(stage: Stage, n: Numbers) -> None:
    found, grid = problem(), np.linspace(-REACH, REACH, GRID)
    amplitude, phase = np.asarray(found.amplitude)[n.task - 1], np.asarray(found.phase)[n.task - 1]
    x, y = _support(n.task - 1, n.shot)
    stage["truth"].set_ydata(amplitude * np.sin(grid + phase))
    stage["points"].set_data(x[:, 0], y)
    stage["curve"].set_ydata(n.prediction)
    stage["decay"].set_data(HORIZON, n.losses)
    step = min(n.steps, HORIZON[-1])
    stage["now"].set_data([step], [n.loss or np.nan])
    stage["below"].set_data([step], [np.nan if n.loss > LEAST else 1.5 * LEAST])  # at the edge, and it points down


def _describe(n: Numbers) -> str:
    return (
        f"A sinusoid with {n.shot} support points and the network after {written(n.steps)} inner steps, "
        f"when the loss on the support set is {n.loss:.2g}; beside it that loss against the step."
    )


def _readout(n: Numbers) -> str:
    return f"loss on the support set: {n.loss:.3g}" + (", below the axis" if n.loss < LEAST else "")


DEMO = Demo(
    name="start_here",
    question="With how many points does the curve follow the sinusoid between them, and how many steps does that take?",
    controls=(
        choice("task", "task", (1, 2, 3), 1, "three sinusoids"),
        steps("shot", "shot", SHOTS, 5, "support points of the task"),
        steps("inner_steps", "inner steps τ", STEPS, 50, "steps of gradient descent on the support points"),
    ),
    compute=numbers,
    stage=_stage,
    move=_move,
    describe=_describe,
    readout=_readout,
    twin=({"inner_steps": 0}, {"inner_steps": 20}, {"inner_steps": math.inf}, {"shot": 10, "inner_steps": math.inf}),
    warm=lambda: (numbers(task, shot, 1) for shot in SHOTS for task in (1, 2, 3)),
)
