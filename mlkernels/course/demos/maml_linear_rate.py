"""The demo of notebook 02: the loss that the MetaNTK predicts for MAML, mode by mode, and on a button MAML itself.

The kernel of each width is computed once; after that a slider only re-does small algebra, compiled once for each number
of tasks. Training is compiled once for each width, when it is first asked for.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np

from mlkernels import kernels, metantk
from mlkernels.course import plots
from mlkernels.course.demos import _maml_training as training
from mlkernels.course.demos.demo import Demo, RunItem, Stage, once, steps
from mlkernels.course.demos.grid import Grid
from mlkernels.metantk.composite import composite, task_operators, within_tasks
from mlkernels.networks import MLP
from mlkernels.tasks import TaskBatch, random_labels

DIMENSION, SUPPORT, QUERIES, OUTER = 6, 4, 4, 100
WIDTHS = (16, 64, 256, 1024, math.inf)
STEPS = (0, 1, 2, 5, 10, 20)
INNER_RATES = (0.01, 0.05, 0.1, 0.2)
OUTER_RATES = (0.25, 0.5, 0.9, 1.0, 1.05, 1.2)  # times 2 / (lambda_min + lambda_max)
LABELS = (0.1, 1.0, 10.0)
TASKS = (1, 2, 3, 6)
FLOOR, CEILING = 1e-9, 1e3  # of the loss axis
LOST = 1e4  # times the loss at the start: diverged


@lru_cache
def problem() -> TaskBatch:
    """The six tasks of the demo, always the same ones, with labels of +-1."""
    draw = partial(random_labels, tasks=max(TASKS), support=SUPPORT, queries=QUERIES, dimension=DIMENSION)
    return once(lambda key: draw(key=key))(jax.random.key(0))


@lru_cache(maxsize=len(WIDTHS))
def ntk_of(width: float) -> jax.Array:
    """NTK between all points of all tasks, `[48, 48]`, of one network of this width."""
    if math.isinf(width):
        return _infinite_ntk(problem())
    network = training.network(width)
    return _empirical_ntk(network, training.start(width, DIMENSION), problem())


@jax.jit
def _infinite_ntk(batch: TaskBatch) -> jax.Array:
    return kernels.infinite_kernels(MLP(1), metantk.all_points(batch)).ntk


@partial(jax.jit, static_argnums=0)
def _empirical_ntk(network: MLP, params, batch: TaskBatch) -> jax.Array:
    return kernels.empirical_ntk(network.apply, params, metantk.all_points(batch))


@partial(jax.jit, static_argnames="count")
def _algebra(ntk, count, inner_rate, inner_steps, outer_rate, label_scale):
    """Phi of the first `count` tasks, its eigenvalues, the outer rate, the loss of each mode after each outer step."""
    batch = problem()
    A = task_operators(within_tasks(ntk, len(batch), QUERIES), inner_rate=inner_rate, inner_steps=inner_steps)
    phi = composite(ntk, A)[: count * QUERIES, : count * QUERIES]
    residual = (A @ (label_scale * batch.support_y) - label_scale * batch.query_y)[:count]  # f - f_0 starts at zero
    values = jnp.linalg.eigvalsh(phi)
    eta = outer_rate * 2 / (values[0] + values[-1])
    return phi, values, eta, metantk.mode_losses(phi, residual, outer_rate=eta, outer_steps=OUTER)


@dataclass(frozen=True)
class Numbers:
    """What one setting predicts: eigenvalues of Phi (ascending), condition number, outer rate, the loss at the start,
    and relative to it the loss of each mode `[101, modes]`, their sum, and the bound that is tested, `[101]`."""

    eigenvalues: np.ndarray
    condition: metantk.Condition
    eta: float
    start: float
    modes: np.ndarray
    losses: np.ndarray
    bound: np.ndarray
    width: float

    @property
    def diverging(self) -> int:
        """How many modes grow: those with eigenvalues above 2 / eta."""
        return int((self.eigenvalues > 2 / self.eta).sum())


def numbers(
    width: float, inner_steps: int, inner_rate: float, outer_rate: float, label_scale: float, tasks: int
) -> Numbers:
    """The predicted loss curve of MAML for one setting of the demo; infinite width is the analytic kernel.

    The outer rate is a multiple of 2 / (lambda_min + lambda_max). The relative loss does not depend on the size of the
    labels; that of a real network does.

    Source: Wang et al. 2022, the linear rate in the form that notebooks/02_maml_linear_rate tests.
    """
    phi, values, eta, modes = (
        np.asarray(part)
        for part in _algebra(ntk_of(width), tasks, inner_rate, float(inner_steps), outer_rate, label_scale)
    )
    losses = modes.sum(1)
    return Numbers(
        eigenvalues=values,
        condition=metantk.condition_number(phi),
        eta=float(eta),
        start=float(losses[0]),
        modes=modes / losses[0],
        losses=losses / losses[0],
        bound=(1 - eta * values[0] / 3) ** (2 * np.arange(OUTER + 1)),
        width=width,
    )


def train(**settings) -> Iterator[RunItem]:
    """Full-batch MAML at one setting of the demo, from the very parameters whose kernel gave the prediction.

    In float64 below width 1024, else in float32; infinite width is trained at 1024, with the outer rate of the
    analytic kernel.

    Yields:
        `RunItem`; `data` is the losses so far, relative to the predicted loss at the start. Beyond `LOST` times that
        loss, or where it is not a number, the run ends as diverged.

    Source: Finn et al. 2017 (MAML); notebooks/02_maml_linear_rate.
    """
    n = numbers(**settings)
    network, start = training.network(n.width), training.start(n.width, DIMENSION)
    stands = f" (width {network.width} stands for ∞)" if math.isinf(n.width) else ""
    yield RunItem(0.0, f"compiling for width {network.width}{stands}: once, some seconds", np.zeros(0))
    batch, scale = problem(), settings["label_scale"]
    batch = TaskBatch(batch.support_x, scale * batch.support_y, batch.query_x, scale * batch.query_y)
    loop = {name: settings[name] for name in ("tasks", "inner_steps", "inner_rate")} | {"outer_rate": n.eta}
    for found in training.losses(network, start, batch, **loop, outer_steps=OUTER, most_inner_steps=max(STEPS)):
        t, losses = len(found) - 1, found / n.start
        if bad := np.flatnonzero(~(losses < LOST)).tolist():
            yield RunItem(bad[0] / OUTER, f"diverged at step {bad[0]}{stands}", losses[: bad[0]], failed=True)
            return
        if t >= 0:
            yield RunItem(t / OUTER, f"step {t} of {OUTER}: loss {losses[t]:.2g} of its start{stands}", losses)


def _stage() -> Stage:
    fig, (left, right) = plots.figure(10.5, 3.6, boxes=[(0.08, 0.16, 0.54, 0.73), (0.70, 0.16, 0.28, 0.73)])
    (modes,) = left.plot([], [], color=plots.COLOURS["MetaNTK"], alpha=0.6, linewidth=1.1, label="one mode")
    theory = plots.look("theory") | {"linewidth": 1.5}
    (bound,) = left.plot([], [], **theory, label="bound tested")
    (curve,) = left.plot([], [], **plots.look("MetaNTK") | {"marker": ""}, label="predicted")
    dots = plots.look("measured") | {"linestyle": "", "markersize": 4, "markerfacecolor": "white", "markevery": 2}
    (measured,) = left.plot([], [], **dots, label="MAML, trained")
    left.set(yscale="log", xlim=(0, OUTER), ylim=(FLOOR, CEILING), xlabel="outer step t")
    left.set_ylabel("loss / predicted loss at t = 0")
    left.legend(
        loc="lower left", bbox_to_anchor=(-0.01, 1.0), ncols=4, columnspacing=1.4, handlelength=2.2, borderpad=0
    )
    most = max(TASKS) * QUERIES
    dots = plots.look("MetaNTK") | {"linestyle": "", "markersize": 4}
    (calm,) = right.plot([], [], **dots, label="decays")
    (wild,) = right.plot([], [], **dots | {"color": "#a40000", "marker": "x", "markersize": 6}, label="diverges")
    limit = right.axhline(1.0, **theory, label="2/η")
    right.set(yscale="log", xlim=(0, most + 1), ylim=(0.05, 60), xlabel="mode", title="eigenvalues of Φ")
    right.legend(loc="upper right", fontsize=9, ncols=3, columnspacing=1.0, handlelength=1.6)
    return Stage(fig, modes=modes, bound=bound, curve=curve, measured=measured, calm=calm, wild=wild, limit=limit)


_shown = partial(np.clip, a_min=1e-3 * FLOOR, a_max=1e3 * CEILING)  # beyond the axis, but no zero and no overflow


def _move(stage: Stage, n: Numbers) -> None:
    t, count = np.arange(OUTER + 1.0), len(n.eigenvalues)
    gaps = np.full((1, count), np.nan)  # one line for all modes, with gaps between them
    stage["modes"].set_data(np.tile(np.append(t, np.nan), count), np.concatenate([_shown(n.modes), gaps]).T.ravel())
    stage["curve"].set_data(t, _shown(n.losses))
    stage["bound"].set_data(t, _shown(n.bound))
    index, values = np.arange(1, count + 1), n.eigenvalues[::-1]
    stage["wild"].set_data(index[: n.diverging], values[: n.diverging])
    stage["calm"].set_data(index[n.diverging :], values[n.diverging :])
    stage["limit"].set_ydata([2 / n.eta] * 2)


def _overlay(stage: Stage, item: RunItem | None) -> None:
    losses = np.zeros(0) if item is None else item.data
    stage["measured"].set_data(np.arange(len(losses)), _shown(losses))


def _fate(n: Numbers) -> str:
    if n.diverging:
        return f"{n.diverging} mode{'s' if n.diverging > 1 else ''} above 2/η = {2 / n.eta:.3g}: predicted to diverge"
    fallen = np.flatnonzero(n.losses < 1e-3)
    return f"loss / 1000 predicted after {fallen[0] if len(fallen) else f'more than {OUTER}'} steps"


def _readout(n: Numbers) -> str:
    return (
        f"λ_min {n.eigenvalues[0]:.3g} · λ_max {n.eigenvalues[-1]:.3g} · κ(Φ) {n.condition} · "
        f"outer rate η {n.eta:.3g} · loss {n.start:.2g} at t = 0 · {_fate(n)}"
    )


def _describe(n: Numbers) -> str:
    return (
        f"Predicted loss of MAML over {OUTER} outer steps on a log scale, mode by mode, with the bound that is tested; "
        f"beside it the {len(n.eigenvalues)} eigenvalues of Φ, {n.eigenvalues[0]:.2g} to {n.eigenvalues[-1]:.2g}, "
        f"and the line 2/η: {_fate(n)}."
    )


def _warm() -> Iterator:
    for width in WIDTHS[::-1]:
        yield ntk_of(width)
    for tasks in TASKS:
        yield numbers(math.inf, 1, 0.1, 0.9, 0.1, tasks)


DEMO = Demo(
    name="maml_linear_rate",
    question="Which mode sets the pace at the end, and what does training do that the straight lines do not say?",
    controls=(
        steps("width", "width", WIDTHS, 256, "of the network; ∞ is the analytic kernel, and trains width 1024"),
        steps("inner_steps", "inner steps τ", STEPS, 5, "steps of gradient descent on each support set"),
        steps("inner_rate", "inner rate λ", INNER_RATES, 0.1, "step size of the inner loop"),
        steps("outer_rate", "outer rate ×", OUTER_RATES, 0.9, "the outer rate η in units of 2/(λ_min + λ_max)"),
        steps("label_scale", "label scale", LABELS, 0.1, "labels are ± this: it moves the loss at t = 0, and training"),
        steps("tasks", "tasks", TASKS, 3, "each of 4 support and 4 query points"),
    ),
    compute=numbers,
    stage=_stage,
    move=_move,
    describe=_describe,
    readout=_readout,
    twin=({}, {"inner_steps": 0}, {"outer_rate": 1.2}, {"width": 16}),
    warm=_warm,
    run=train,
    overlay=_overlay,
    grid=Grid(
        together=(
            ("width", "inner_steps"),
            ("inner_steps", "inner_rate"),
            ("inner_steps", "outer_rate"),
            ("width", "tasks"),
            ("label_scale", "outer_rate"),
        ),
        runs=(("label_scale", "outer_rate"), ("inner_steps",), ("inner_rate",)),
    ),
)
