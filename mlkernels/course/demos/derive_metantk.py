"""The demo of notebook 01: how the inner loop bends the MetaNTK, its spectrum, and one task's prediction.

The kernels of each width are computed once; after that a slider only re-does the algebra of the inner loop, compiled
once for all settings.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np

from mlkernels import kernels, metantk, tasks
from mlkernels.course import plots
from mlkernels.course.demos.demo import Demo, Stage, choice, once, steps
from mlkernels.course.demos.grid import Grid
from mlkernels.errors import bad_input
from mlkernels.metantk.composite import composite, task_operators, within_tasks
from mlkernels.networks import MLP

B, SUPPORT, QUERIES, GRID = 3, 6, 6, 60
REACH = 4.0  # inputs lie in [-4, 4]
WIDTHS = (16, 64, 256, 1024, 4096, math.inf)
STEPS = (0, 1, 2, 5, 10, 20, 50, 100, 1000, math.inf)
RATES = (0.0003, 0.001, 0.003, 0.01)
RIDGES = (0.0, 0.001, 0.01, 0.1, 1.0)
EMPTY = np.zeros((B * QUERIES, B * QUERIES))


@lru_cache
def problem() -> tasks.SinusoidTasks:
    """The three sinusoid tasks of the demo, always the same ones, each with its queries from left to right."""

    @once
    def draw(key):
        found = tasks.sinusoid_with_parameters(
            tasks=B, support=SUPPORT, queries=QUERIES, key=key, amplitude=(0.6, 1.2), x_range=(-REACH, REACH)
        )
        query_x = jnp.sort(found.batch.query_x, axis=1)
        return replace(found, batch=replace(found.batch, query_x=query_x, query_y=found.value(query_x)))

    return draw(jax.random.key(3))


@lru_cache(maxsize=len(WIDTHS))
def both_kernels(width: float) -> kernels.Kernels:
    """The kernels of one network of this width between all points of the tasks, then the grid, `[N, N]` each."""
    if math.isinf(width):
        return _infinite_kernels(problem().batch)
    network = MLP(int(width), b_std=1.0)
    params = once(partial(network.init, input_shape=(1,)))(jax.random.key(0))
    return _empirical_kernels(network, params, problem().batch)


def _points(batch: tasks.TaskBatch) -> jax.Array:
    return jnp.concatenate([metantk.all_points(batch), jnp.linspace(-REACH, REACH, GRID)[:, None]])


@jax.jit
def _infinite_kernels(batch: tasks.TaskBatch) -> kernels.Kernels:
    return kernels.infinite_kernels(MLP(1, b_std=1.0), _points(batch))


@partial(jax.jit, static_argnums=0)
def _empirical_kernels(network: MLP, params, batch: tasks.TaskBatch) -> kernels.Kernels:
    found = (
        kernel(network.apply, params, _points(batch)) for kernel in (kernels.empirical_nngp, kernels.empirical_ntk)
    )
    return kernels.Kernels(*found)


@jax.jit
def _algebra(ntk, inner, support_y, rate, count, ridge):
    """Phi, and the prediction of task 1 on the grid, from kernels alone. Everything that a slider moves is traced."""
    loop = {"inner_rate": rate, "inner_steps": count, "ridge": ridge}
    K = within_tasks(inner[:-GRID, :-GRID], B, QUERIES)
    phi = composite(ntk[:-GRID, :-GRID], task_operators(K, **loop))
    grid_support = inner[-GRID:, B * QUERIES : B * QUERIES + SUPPORT]
    A = task_operators(jnp.concatenate([grid_support, K[0, QUERIES:]])[None], **loop)
    return phi, (A @ support_y[None])[0, :, 0]


@dataclass(frozen=True)
class Numbers:
    """What one setting gives: the kernel, its eigenvalues (ascending), the prediction on the grid, three read-outs."""

    phi: np.ndarray
    eigenvalues: np.ndarray
    prediction: np.ndarray
    condition: metantk.Condition
    distance: float
    adapts: str


def numbers(width: float, inner_steps: float, inner_rate: float, ridge: float, adapts: str) -> Numbers:
    """MetaNTK, spectrum and prediction for one setting of the demo; infinite width is the analytic kernel.

    An inner rate is refused beyond 2 / the largest eigenvalue of the support kernel, where the loop diverges.
    """

    def outer_and_inner(width):
        both = both_kernels(width)
        return both.ntk, both.ntk if adapts == "MAML" else both.nngp

    ntk, inner = outer_and_inner(width)
    points = B * QUERIES + SUPPORT * np.arange(B)  # where each task's support points begin
    inner_np = np.asarray(inner)
    largest = max(np.linalg.eigvalsh(inner_np[i : i + SUPPORT, i : i + SUPPORT]).max() for i in points)
    if inner_rate * largest >= 2:
        raise bad_input("inner rate", f"below 2 / lambda_max = {2 / largest:.3g}", inner_rate, "choose a smaller one")
    setting = np.asarray(problem().batch.support_y)[0], inner_rate, float(inner_steps), ridge
    phi, prediction = _algebra(ntk, inner, *setting)
    limit, _ = _algebra(*outer_and_inner(math.inf), *setting)
    phi, limit = np.asarray(phi), np.asarray(limit)
    return Numbers(
        phi=phi,
        eigenvalues=np.linalg.eigvalsh(phi),
        prediction=np.asarray(prediction),
        condition=metantk.condition_number(phi),
        distance=float(np.linalg.norm(phi - limit) / np.linalg.norm(limit)),
        adapts=adapts,
    )


def _stage() -> Stage:
    fig, (left, middle, right) = plots.figure(
        10.5, 3.5, boxes=[(0.02, 0.12, 0.27, 0.76), (0.41, 0.17, 0.22, 0.70), (0.70, 0.17, 0.29, 0.70)]
    )
    heat = plots.heatmap(left, EMPTY, blocks=QUERIES, limits=(-1, 1), centre=0.0, label="")
    heat.colorbar.set_ticks([-1, 0, 1])
    left.set_title("Φ / its largest entry, 3 tasks")
    line = plots.spectrum(middle, np.ones(len(EMPTY)))
    middle.set(ylim=(1e-8, 1e3), title="spectrum of Φ")
    note = middle.text(0.97, 0.95, "", transform=middle.transAxes, ha="right", va="top")
    found, batch = problem(), problem().batch
    grid = np.linspace(-REACH, REACH, GRID)
    amplitude, phase, x, y = map(np.asarray, (found.amplitude, found.phase, batch.support_x, batch.support_y))
    truth = once(tasks.sinusoid_value)(grid[None, :, None], amplitude[:1], phase[:1])
    right.plot(grid, truth[0, :, 0], color="#888888", label="truth")
    right.plot(x[0, :, 0], y[0, :, 0], "ko", markersize=5, label="support")
    (curve,) = right.plot(grid, 0 * grid, color=plots.COLOURS["MAML"], label="adapted")
    right.set(xlim=(-REACH, REACH), ylim=(-2.2, 2.2), xlabel="x", title="task 1 after the inner loop")
    right.legend(loc="lower right", fontsize=9, ncols=3, columnspacing=1.0, handlelength=1.2)
    return Stage(fig, heat=[heat.image, heat.lines], line=line, note=note, curve=curve)


def _move(stage: Stage, n: Numbers) -> None:
    stage["heat"][0].set_data(n.phi / np.abs(n.phi).max())
    values = n.eigenvalues[::-1]
    stage["line"].set_ydata(np.where(values > 0, values, np.nan))
    stage["note"].set_text(f"κ = {n.condition.value:.3g}" if not n.condition.lower_bound else "κ: at least 6.7e+07")
    stage["curve"].set_ydata(n.prediction)
    stage["curve"].set_color(plots.COLOURS[n.adapts])


def _readout(n: Numbers) -> str:
    return (
        f"κ(Φ) = {n.condition} · largest entry of Φ {np.abs(n.phi).max():.3g} · "
        f"distance from the infinite-width Φ {n.distance:.1%}"
    )


def _describe(n: Numbers) -> str:
    return (
        f"Heat map of the {n.adapts} MetaNTK of three sinusoid tasks, its spectrum with condition number "
        f"{n.condition}, and the adapted prediction of task 1, between {n.prediction.min():.2f} and "
        f"{n.prediction.max():.2f}."
    )


def _warm() -> Iterator:
    for width in WIDTHS[::-1]:
        yield both_kernels(width)


DEMO = Demo(
    name="derive_metantk",
    question="More inner steps fit the support set better. Why then do the eigenvalues of Φ sink, the largest first?",
    controls=(
        steps("width", "width", WIDTHS, math.inf, "of the network whose NTK is used; ∞ is the analytic kernel"),
        steps("inner_steps", "inner steps τ", STEPS, 10, "steps of gradient descent on the support set"),
        steps("inner_rate", "inner rate λ", RATES, 0.01, "step size of the inner loop"),
        steps("ridge", "ridge ρ", RIDGES, 0.0, "added to the support kernel in its inverse"),
        choice("adapts", "inner loop", ("MAML", "ANIL"), "MAML", "MAML moves all parameters, ANIL the last layer"),
    ),
    compute=numbers,
    stage=_stage,
    move=_move,
    describe=_describe,
    readout=_readout,
    twin=(
        {"inner_steps": 0},
        {},
        {"inner_steps": math.inf},
        {"adapts": "ANIL", "inner_steps": math.inf},
        {"width": 64},
    ),
    warm=_warm,
    grid=Grid(together=(("width", "inner_steps", "adapts"), ("inner_steps", "inner_rate"), ("inner_steps", "ridge"))),
)
