"""The demo of notebook 09: an inner loss with two minima, and three gradients of an outer loss through it.

The minima and the integral are NumPy's; the chains are the package's, one program for all settings.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from mlkernels.course import plots
from mlkernels.course.demos.demo import Demo, Stage, choice, steps
from mlkernels.course.demos.grid import Grid
from mlkernels.learners.bilevel.stochastic import covariance_gradient, langevin

LAMBDAS = (-1.5, -1.0, -0.6, -0.3, -0.1, 0.0, 0.1, 0.3, 0.6, 1.0, 1.5)
BARRIERS = (0.5, 1.0, 2.0, 3.0, 4.0)
TEMPERATURES = (0.25, 0.5, 1.0, 2.0)
RATES = (0.001, 0.002, 0.005, 0.01)
STARTS = {"left": -1.3, "right": 1.3}
CHAINS, BURN_IN, STEPS, EVERY = 300, 500, 500, 20
CURVE = np.linspace(-1.6, 1.6, 81)  # lambdas of the curves
LINE = np.linspace(-2.0, 2.0, 201)  # y of the curves
BINS = np.linspace(-2.0, 2.0, 61)
POINTS = np.linspace(-3.5, 3.5, 701)  # of the integral: at the ends no density is left
LOW, HIGH = -1.2, 3.6  # of the axis of gradients


def inner(x, y):
    """f: two wells at about -1 and 1 with a barrier between them; lambda lifts the right one."""
    return (x["barrier"] * (y**2 - 1) ** 2 + x["lam"] * y) / x["temperature"]


def outer(x, y):
    """F: smallest in the right well, and near lambda = 0."""
    return 0.5 * (y - 0.8) ** 2 + 0.1 * x["lam"] ** 2


def minima(lam: float, barrier: float) -> np.ndarray:
    """The minima of f, one or two, ascending."""
    roots = np.roots([4 * barrier, 0.0, -4 * barrier, lam])
    y = np.sort(roots[np.abs(roots.imag) < 1e-9].real)
    return y[barrier * (12 * y**2 - 4) > 0]


def at_minimum(lam, barrier, y):
    """The hypergradient by lambda at a minimum y: what implicit differentiation gives."""
    return 0.2 * lam - (y - 0.8) / (barrier * (12 * y**2 - 4))


def of_mean(lam, barrier: float, temperature: float) -> tuple[np.ndarray, np.ndarray]:
    """E F and its derivative by lambda, by the covariance identity on a grid; lam of any shape."""
    lam = np.asarray(lam, float)[..., None]
    f = (barrier * (POINTS**2 - 1) ** 2 + lam * POINTS) / temperature
    p = np.exp(f.min(-1, keepdims=True) - f)
    p /= p.sum(-1, keepdims=True)
    miss = 0.5 * (POINTS - 0.8) ** 2
    mean, score = (p * miss).sum(-1), (p * POINTS).sum(-1) / temperature
    slope = 0.2 * lam[..., 0] - ((p * miss * POINTS).sum(-1) / temperature - mean * score)
    return mean + 0.1 * lam[..., 0] ** 2, slope


def branches(barrier: float) -> tuple[np.ndarray, ...]:
    """Left and right: rows lambda and hypergradient, `[2, n]`, where that minimum is there."""
    found = ([], [])
    for lam in CURVE:
        y = minima(lam, barrier)
        for side in (0, 1):
            here = y[(y > 0) == side]
            if len(here):
                found[side].append((lam, at_minimum(lam, barrier, here[0])))
    return tuple(np.array(rows).T for rows in found)


@dataclass(frozen=True)
class Numbers:
    """What one setting gives; gradients are those by lambda.

    Args:
        lam, barrier, temperature, start: of the setting.
        inner, density: `[201]`, f and the density on `LINE`.
        samples: `[60]`, the density of the chains' samples in `BINS`.
        rest: where descent from the start ends.
        exact: the hypergradient there.
        mean, slope: E F and its derivative, by an integral.
        estimate, error: of the derivative from the chains, with its standard error.
        right: the share of samples above 0, and that of the density.
        branches: of both minima, where they are there: `[2, n]` each.
        curve: `[81]`, the derivative of E F on `CURVE`.
    """

    lam: float
    barrier: float
    temperature: float
    start: str
    inner: np.ndarray
    density: np.ndarray
    samples: np.ndarray
    rest: float
    exact: float
    mean: float
    slope: float
    estimate: float
    error: float
    right: tuple[float, float]
    branches: tuple[np.ndarray, ...]
    curve: np.ndarray


def chains(lam: float, barrier: float, temperature: float, start: str, rate: float):
    """The outer variables, and the samples `[chains, kept]`, for one setting."""
    x = {"lam": jnp.array(lam), "barrier": jnp.array(barrier), "temperature": jnp.array(temperature)}
    begin = jnp.full(CHAINS, STARTS[start], x["lam"].dtype)
    how = {"steps": STEPS, "burn_in": BURN_IN, "every": EVERY, "key": jax.random.key(9)}
    return x, langevin(inner, x, begin, step=(2 * rate * temperature) ** 0.5, **how)


def numbers(lam: float, barrier: float, temperature: float, start: str, rate: float) -> Numbers:
    """The hypergradient at one minimum, that of the mean, and its estimate from chains, for one setting of the demo.

    Args:
        lam, barrier, temperature: of f.
        start: of `STARTS`, for descent and chains alike.
        rate: the chains' step on f, epsilon^2 / (2 temperature).

    Source: Kim and Hospedales 2025 for the idea, our problem; notebooks/09_one_bilevel_problem.
    """
    x, y = chains(lam, barrier, temperature, start, rate)
    found = covariance_gradient(outer, inner, x, y)
    y = np.asarray(y, float).ravel()
    f, every = (inner({"lam": lam, "barrier": barrier, "temperature": temperature}, at) for at in (LINE, POINTS))
    mass = np.exp(every.min() - every)
    mean, slope = of_mean(lam, barrier, temperature)
    there = minima(lam, barrier)
    rest = float(there[-1] if start == "right" else there[0])
    return Numbers(
        lam=lam,
        barrier=barrier,
        temperature=temperature,
        start=start,
        inner=f * temperature,
        density=np.exp(every.min() - f) / (mass.sum() * (POINTS[1] - POINTS[0])),
        samples=np.histogram(y, BINS)[0] / (len(y) * (BINS[1] - BINS[0])),
        rest=rest,
        exact=float(at_minimum(lam, barrier, rest)),
        mean=float(mean),
        slope=float(slope),
        estimate=float(found.gradient["lam"]),
        error=float(found.error["lam"]),
        right=(float((y > 0).mean()), float(mass[POINTS > 0].sum() / mass.sum())),
        branches=branches(barrier),
        curve=of_mean(CURVE, barrier, temperature)[1],
    )


# --- drawn ------------------------------------------------------------------------------------------------------------


def _stage() -> Stage:
    fig, (left, right) = plots.figure(10.5, 3.8, boxes=[(0.05, 0.15, 0.40, 0.72), (0.55, 0.15, 0.435, 0.72)])
    chains, truth = plots.look("measured"), plots.look("theory")
    ways = [plots.look(name) for name in ("MAML", "ANIL")]
    beside = left.twinx()
    bars = beside.stairs(np.zeros(len(BINS) - 1), BINS, fill=True, color=chains["color"], alpha=0.35)
    (density,) = beside.plot(LINE, 0 * LINE, **truth)
    beside.set(ylim=(0, 3.2), yticks=[])
    beside.spines[:].set_visible(False)
    (loss,) = left.plot(LINE, 0 * LINE, color="#666666")
    (rest,) = left.plot([], [], "o", color="#666666", markersize=9)
    left.set(xlim=(-2, 2), ylim=(-2, 6), xlabel="y")
    left.set_ylabel("inner loss f", labelpad=1)
    above = {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0), "fontsize": 9, "borderpad": 0.2}
    handles = [loss, rest, density, bars]
    left.legend(handles, ["f", "descent ends", "density", "chains"], **above, ncols=4, columnspacing=1.2)
    curves = []
    for look, name in zip(ways, ("left minimum", "right minimum"), strict=True):
        curves += right.plot([], [], color=look["color"], linestyle=look["linestyle"], label=name)
    (curve,) = right.plot(CURVE, 0 * CURVE, **truth, label="mean")
    (now,) = right.plot([], [], "o", color="#666666", markersize=9)
    (point,) = right.plot([], [], "D", color=chains["color"], markersize=7, label="chains ± 2 s.e.")
    (whisker,) = right.plot([], [], color=chains["color"], linewidth=2)
    at = right.axvline(0.0, color="#888888", linewidth=0.8)
    right.axhline(0.0, color="#888888", linewidth=0.8, linestyle=":")
    right.set(xlim=(CURVE[0], CURVE[-1]), ylim=(LOW, HIGH), xlabel="λ")
    right.set_ylabel("gradient of the outer loss by λ", labelpad=1)
    right.legend(**above, ncols=4, columnspacing=0.8, handletextpad=0.4, handlelength=1.6)
    return Stage(fig, bars=bars, density=density, loss=loss, rest=rest, curves=curves, curve=curve, now=now,
                 point=point, whisker=whisker, at=at)  # fmt: skip


def _move(stage: Stage, n: Numbers) -> None:
    stage["bars"].set_data(np.minimum(n.samples, 3.2))
    stage["density"].set_ydata(np.minimum(n.density, 3.2))
    stage["loss"].set_ydata(n.inner)
    stage["rest"].set_data([n.rest], [n.barrier * (n.rest**2 - 1) ** 2 + n.lam * n.rest])
    for line, rows in zip(stage["curves"], n.branches, strict=True):
        line.set_data(*rows)
    stage["curve"].set_ydata(n.curve)
    stage["now"].set_data([n.lam], [n.exact])
    stage["point"].set_data([n.lam], [np.clip(n.estimate, LOW, HIGH)])
    stage["whisker"].set_data([n.lam] * 2, n.estimate + np.array([-2, 2]) * n.error)
    stage["at"].set_xdata([n.lam] * 2)


def _readout(n: Numbers) -> str:
    return (
        f"gradient by λ: at the minimum y = {n.rest:.2f} {n.exact:.3f} · of the mean {n.slope:.3f} · chains "
        f"{n.estimate:.3f} ± {2 * n.error:.3f} · samples in the right well {n.right[0]:.0%}, the density has "
        f"{n.right[1]:.0%}"
    )


def _describe(n: Numbers) -> str:
    return (
        f"An inner loss with barrier {n.barrier:g} between two wells, its density at temperature {n.temperature:g}, "
        f"and samples of chains from the {n.start}, {n.right[0]:.0%} of which lie in the right well where the density "
        f"has {n.right[1]:.0%}. Beside it gradients by lambda, at {n.lam:g}: {n.exact:.2f} at the minimum where "
        f"descent ends, {n.slope:.2f} of the mean, {n.estimate:.2f} by the chains."
    )


def _warm() -> Iterator:
    yield chains(0.3, 2.0, 1.0, "left", 0.01)
    yield numbers(0.3, 2.0, 1.0, "left", 0.01)


DEMO = Demo(
    name="two_minima",
    question="Which of the two gradients by λ knows that samples move to the other well? When do chains not know it?",
    controls=(
        steps("lam", "λ", LAMBDAS, 0.3, "lifts the right well, lowers the left one"),
        steps("barrier", "barrier", BARRIERS, 2.0, "between the wells, at λ = 0"),
        steps("temperature", "temperature T", TEMPERATURES, 1.0, "the density is that of exp(-f / T)"),
        choice("start", "start", STARTS, "left", "of descent and of all chains"),
        steps("rate", "ε² / 2T", RATES, 0.01, "the chains' step on f; 500 steps before the first sample, and 500 more"),
    ),
    compute=numbers,
    stage=_stage,
    move=_move,
    describe=_describe,
    readout=_readout,
    twin=(
        {},
        {"start": "right"},
        {"barrier": 4.0},
        {"barrier": 4.0, "start": "right"},
        {"temperature": 0.25, "lam": 0.0},
        {"temperature": 2.0},
    ),
    warm=_warm,
    grid=Grid(
        together=(
            ("lam", "barrier", "start"),
            ("barrier", "temperature", "start"),
            ("rate", "barrier", "start"),
            ("lam", "temperature"),
        )
    ),
)
