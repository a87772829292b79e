"""The demo of notebook 05: MAML, Meta-RKHS-I and Meta-RKHS-II on one sinusoid, and which modes of its kernel II learns.

A network is trained once for each method, width and alpha; after that a slider only re-does the algebra of the closed
form, compiled once for each number of support points.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import jax
import numpy as np

from mlkernels import metantk
from mlkernels.course import plots
from mlkernels.course.demos import _rkhs_training as training
from mlkernels.course.demos.demo import Demo, Stage, steps
from mlkernels.course.demos.grid import Grid
from mlkernels.learners.rkhs.flow import flow_weights

TIMES = (0.01, 0.1, 1.0, 10.0, 100.0, np.inf)
RIDGES = (0.0, 0.001, 0.01, 0.1, 1.0)
METHODS = ("MAML", "Meta-RKHS-I", "Meta-RKHS-II")
FLOOR, CEILING = 1e-5, 1e3  # of the axes of eigenvalues
GRID = len(training.GRID)


@jax.jit
def _closed_form(kernel, across, residual, time, ridge):
    """What the flow adds on the grid, `[101]`; time and ridge are traced."""
    return across @ flow_weights(kernel, residual[:, None], time, ridge)[:, 0]


def shares(eigenvalues: np.ndarray, time: float, ridge: float) -> np.ndarray:
    """Of the residual along each eigenvector of the support kernel, the share that is learned by this time."""
    with np.errstate(over="ignore"):
        damped = np.where(eigenvalues > 0, eigenvalues + ridge, 1.0)
        return np.where(eigenvalues > 0, eigenvalues / damped * -np.expm1(-time * damped), 0.0)


@dataclass(frozen=True)
class Numbers:
    """What one setting gives.

    Args:
        time, ridge, points: of the setting.
        before, after: `[3, 101]`, the functions of `METHODS` on the grid.
        errors: `[3, 2]`, their mean squared errors before and after.
        eigenvalues: of the support kernel, ascending; those that are rounding are 0.
        learned: the share of each mode that is learned.
        condition: of the support kernel with the ridge.
    """

    time: float
    ridge: float
    points: int
    before: np.ndarray
    after: np.ndarray
    errors: np.ndarray
    eigenvalues: np.ndarray
    learned: np.ndarray
    condition: metantk.Condition


def numbers(time: float, ridge: float, alpha: float, width: int, points: int) -> Numbers:
    """The three methods on the held-out task, and the spectrum of Meta-RKHS-II, for one setting of the demo.

    Source: Zhou et al. 2021, eq. 5 to 7 (submission); notebooks/05_meta_learning_in_rkhs.
    """
    outputs, ntk = training.kernel(width)
    kernel = ntk[GRID : GRID + points, :points]
    residual = training.support()[1][:points, 0] - outputs[GRID : GRID + points]
    added = np.asarray(_closed_form(kernel, ntk[:GRID, :points], residual, time, ridge))
    tuned = [training.tuned("MAML", width), training.tuned("Meta-RKHS-I", width, alpha)]
    before = np.stack([*(start for start, _ in tuned), outputs[:GRID]])
    after = np.stack([*(end[points] for _, end in tuned), outputs[:GRID] + added])
    values = np.linalg.eigvalsh(kernel)
    values = np.where(
        values > 64 * points * np.finfo(values.dtype).eps * values[-1], values, 0.0
    )  # as at infinite time
    return Numbers(
        time=time,
        ridge=ridge,
        points=points,
        before=before,
        after=after,
        errors=((np.stack([before, after], 1) - training.truth()) ** 2).mean(-1),
        eigenvalues=values,
        learned=shares(values, time, ridge),
        condition=metantk.condition_number(kernel + np.asarray(ridge * np.eye(points), kernel.dtype)),
    )


# --- drawn ------------------------------------------------------------------------------------------------------------

_LAMBDA = np.geomspace(FLOOR, CEILING, 200)


def _stage() -> Stage:
    boxes = [(0.05, 0.15, 0.46, 0.72), (0.585, 0.15, 0.175, 0.72), (0.815, 0.15, 0.175, 0.72)]
    fig, (left, middle, right) = plots.figure(10.5, 3.8, boxes=boxes)
    x, moving = training.GRID[:, 0], {}
    left.plot(x, training.truth(), color="#888888", linewidth=3, alpha=0.6, label="truth")
    for name in METHODS:
        look = plots.look(name) | {"marker": ""}
        (moving[f"{name} before"],) = left.plot(x, 0 * x, **look | {"linewidth": 1.2, "alpha": 0.8})
        (moving[name],) = left.plot(x, 0 * x, **look | {"linewidth": 1.8}, label=name)
    (points,) = left.plot([], [], "ko", markersize=5.5, label="support")
    left.set(xlim=(-training.REACH, training.REACH), ylim=(-4.5, 4.5), xlabel="x (thin: before adaptation)")
    above = {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0), "fontsize": 9, "borderpad": 0.2}
    left.legend(**above, ncols=5, columnspacing=1.0, handlelength=2.0, handletextpad=0.5)
    dots = plots.look("Meta-RKHS-II") | {"linestyle": "", "markersize": 6, "clip_on": False}
    (values,) = middle.plot([], [], **dots, label="λ + ρ")
    until = middle.axhline(1.0, **plots.look("theory"), label="1/t")
    middle.set(yscale="log", xlim=(0, max(training.SHOTS) + 1), ylim=(FLOOR, CEILING), xlabel="mode")
    middle.legend(**above, ncols=2, columnspacing=1.2, handlelength=1.6)
    (curve,) = right.plot(_LAMBDA, 0 * _LAMBDA, **plots.look("theory"), label="learned")
    (learned,) = right.plot([], [], **dots, label="modes")
    right.set(xscale="log", xlim=(FLOOR, CEILING), ylim=(-0.04, 1.04), xlabel="eigenvalue λ of H")
    right.legend(**above, ncols=2, columnspacing=1.0, handlelength=1.6)
    return Stage(fig, **moving, points=points, values=values, until=until, curve=curve, learned=learned)


_shown = partial(np.clip, a_min=FLOOR, a_max=CEILING)  # what is 0 lies on the axis


def _move(stage: Stage, n: Numbers) -> None:
    for name, before, after in zip(METHODS, n.before, n.after, strict=True):
        stage[f"{name} before"].set_ydata(before)
        stage[name].set_ydata(after)
    x, y = training.support()
    stage["points"].set_data(x[: n.points, 0], y[: n.points, 0])
    stage["values"].set_data(np.arange(1, n.points + 1), _shown(n.eigenvalues[::-1] + n.ridge))
    stage["until"].set_ydata([max(1 / n.time, FLOOR / 10)] * 2)  # beyond the axis at infinite time
    stage["curve"].set_ydata(shares(_LAMBDA, n.time, n.ridge))
    stage["learned"].set_data(_shown(n.eigenvalues), n.learned)


def _modes(n: Numbers) -> str:
    return f"{(n.learned > 0.5).sum()} of {n.points} modes learned by more than half"


def _readout(n: Numbers) -> str:
    errors = (f"{name} {a:.3g} → {b:.3g}" for name, (a, b) in zip(METHODS, n.errors, strict=True))
    kappa = f"{'≥ ' if n.condition.lower_bound else ''}{n.condition.value:.3g}"
    return f"mean squared error {' · '.join(errors)} · κ(H + ρI) {kappa} · {_modes(n)}"


def _describe(n: Numbers) -> str:
    errors = ", ".join(f"{b:.2g} for {name}" for name, (_, b) in zip(METHODS, n.errors, strict=True))
    return (
        f"A sinusoid with {n.points} support points and three networks adapted to it, of mean squared error {errors}; "
        f"beside them the eigenvalues of the support kernel of Meta-RKHS-II, {n.eigenvalues[0]:.2g} to "
        f"{n.eigenvalues[-1]:.2g}, and the share of each mode that it has learned: {_modes(n)}."
    )


def _warm() -> Iterator:
    default = training.WIDTHS[1]
    for points in training.SHOTS:
        yield numbers(10.0, 0.0, 0.002, default, points)
    for alpha in training.ALPHAS:
        yield training.tuned("Meta-RKHS-I", default, alpha)
    for width in training.WIDTHS:
        yield training.kernel(width)
        yield training.tuned("MAML", width)
        for alpha in training.ALPHAS:
            yield training.tuned("Meta-RKHS-I", width, alpha)


DEMO = Demo(
    name="meta_rkhs",
    question="With two support points, which curve still knows of the sinusoid? Can more time t or a ridge make up?",
    controls=(
        steps("time", "time t", TIMES, 10.0, "of the gradient flow of Meta-RKHS-II at test; it was trained at 10"),
        steps("ridge", "ridge ρ", RIDGES, 0.0, "of Meta-RKHS-II at test, added to the support kernel H"),
        steps("alpha", "weight α", training.ALPHAS, 0.002, "of the gradient's square in training Meta-RKHS-I"),
        steps("width", "width", training.WIDTHS, 40, "units of each of two hidden layers, in all three networks"),
        steps("points", "support points", training.SHOTS, 10, "of the held-out task, the same for all three"),
    ),
    compute=numbers,
    stage=_stage,
    move=_move,
    describe=_describe,
    readout=_readout,
    twin=({}, {"points": 2}, {"time": 0.1}, {"points": 20, "ridge": 1.0}),
    warm=_warm,
    grid=Grid(
        together=(("time", "points"), ("time", "ridge"), ("ridge", "points"), ("alpha", "points"), ("width", "points"))
    ),
)
