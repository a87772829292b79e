"""The demo of notebook 09: the rate of descent on a quadratic, two objectives for it, and what autodiff gives."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np

from mlkernels.course import plots
from mlkernels.course.demos.demo import Demo, Stage, choice, once, steps
from mlkernels.course.demos.grid import Grid
from mlkernels.learners.bilevel.step_size import OBJECTIVES, Quadratic, backpropagated, objective, slope

DIMENSION = 10
COUNTS = (1, 10, 20, 40, 80, 320)
CONDITIONS = (2.0, 10.0, 100.0, 1000.0)
RATES = (0.25, 0.5, 0.9, 1.1, 1.5, 2.0, 4.0, 8.0)  # times 2 / L
CURVE = np.geomspace(0.1, 10.0, 60)
TYPES = {"float32": jnp.float32, "float64": jnp.float64}
FLOOR, CEILING = 1e-3, 1e9  # of the axis of slopes, whose middle part is linear


@lru_cache
def problem(condition: float) -> tuple[np.ndarray, np.ndarray, Quadratic]:
    """H with L = 1 and this condition number, turned at random, a start of unit length, and both as a `Quadratic`."""
    draw = once(lambda key: jax.random.normal(key, (DIMENSION + 1, DIMENSION), "float32"))
    drawn = np.asarray(draw(jax.random.key(5)), float)
    turned = np.linalg.qr(drawn[:-1])[0]
    H = turned @ np.diag(np.geomspace(1 / condition, 1.0, DIMENSION)) @ turned.T
    start = drawn[-1] / np.linalg.norm(drawn[-1])
    return H, start, Quadratic.of(H, start)


@lru_cache
def _program(steps: int, precision: str):
    """Values and derivatives of both objectives at rates `[r]`, computed in this type."""

    def both(H, start, rates):
        how = {"steps": steps, "dtype": TYPES[precision]}
        return {of: jax.vmap(partial(backpropagated, H, start, of=of, **how))(rates) for of in OBJECTIVES}

    return once(both)


@dataclass(frozen=True)
class Numbers:
    """What one setting gives, at the rates of `CURVE` and then at the chosen one, all times 2 / L.

    Args:
        steps, of, precision, rate: of the setting.
        value, slope: `[61]`, in closed form; "final" beyond the largest number is that.
        found: rows rate, value and derivative, `[3, n]`, where autodiff gives finite ones.
        zeros, lost: rates of `CURVE` at which its derivative is 0, and at which it is not finite.
        here: autodiff's derivative at the chosen rate, in words.
        best: the best rate of the logarithm's closed form on `CURVE`.
    """

    steps: int
    of: str
    precision: str
    rate: float
    value: np.ndarray
    slope: np.ndarray
    found: np.ndarray
    zeros: np.ndarray
    lost: np.ndarray
    here: str
    best: float


def numbers(steps: int, of: str, precision: str, condition: float, rate: float) -> Numbers:
    """Both closed forms and what autodiff gives, for one setting of the demo. Without 64 bits float64 is float32.

    Args:
        steps: t.
        of: of `OBJECTIVES`.
        precision: of `TYPES`.
        condition: L / alpha.
        rate: eta, times 2 / L.

    Source: Wang et al. 2021, sections 3.1 and 3.2; notebooks/09_one_bilevel_problem.
    """
    H, start, quadratic = problem(condition)
    rates = np.append(CURVE, rate)
    kept = precision if jax.config.jax_enable_x64 else "float32"
    both = _program(steps, kept)(H, start, rates * quadratic.stable_below)
    value, derivative = (np.asarray(part, float) for part in both[of])
    largest = np.finfo(float).max
    closed = [
        np.clip(function(quadratic, rates * quadratic.stable_below, steps, of=of), -largest, largest)
        for function in (objective, slope)
    ]
    finite = np.isfinite(derivative) & np.isfinite(value)
    zero = derivative == 0
    logs = objective(quadratic, CURVE * quadratic.stable_below, steps)
    return Numbers(
        steps=steps,
        of=of,
        precision=precision,
        rate=rate,
        value=closed[0],
        slope=closed[1],
        found=np.stack([rates, value, derivative])[:, finite & ~zero],
        zeros=CURVE[zero[:-1]],
        lost=CURVE[~np.isfinite(derivative[:-1])],
        here=f"{derivative[-1]:.4g}",
        best=float(CURVE[logs.argmin()]),
    )


# --- drawn ------------------------------------------------------------------------------------------------------------


def _squeezed(values) -> np.ndarray:
    """A signed logarithm: the same for slopes of 1e-3 and of 1e9, whatever their sign."""
    values = np.asarray(values, float)
    return np.sign(values) * np.log10(1 + np.abs(values) / FLOOR)


_TICKS = (-1e8, -1e4, -1.0, 0.0, 1.0, 1e4, 1e8)
_TOP = float(_squeezed(CEILING))


def _heights(n: Numbers, values) -> np.ndarray:
    """Losses by their logarithm to the base of 10, as they are drawn; the logarithm's objective is one already."""
    with np.errstate(divide="ignore"):
        found = np.log10(values) / 12 if n.of == "final" else (np.asarray(values) - 2) / 4
    return np.clip(found, -1.1, 1.1)


def _stage() -> Stage:
    fig, (left, right) = plots.figure(10.5, 3.8, boxes=[(0.075, 0.15, 0.38, 0.72), (0.565, 0.15, 0.42, 0.72)])
    closed = plots.look("theory") | {"linestyle": "-", "linewidth": 1.6}
    dots = {"linestyle": "", "marker": "o", "color": plots.COLOURS["MAML"], "markersize": 4.5}
    moving = {}
    for side, ax in (("value", left), ("slope", right)):
        (moving[side],) = ax.plot(CURVE, 0 * CURVE, **closed, label="closed form")
        (moving[f"{side} found"],) = ax.plot([], [], **dots, label="autodiff")
        moving[f"{side} at"] = ax.axvline(1.0, color=plots.COLOURS["measured"], linewidth=1.2)
        ax.axvline(1.0, color="#888888", linewidth=1, linestyle=":")
        ax.set(xscale="log", xlim=(CURVE[0], CURVE[-1]), xlabel="η, times 2 / L")
        ax.set_xticks([0.1, 0.3, 1, 3, 10], ["0.1", "0.3", "1", "3", "10"])
        ax.minorticks_off()
    bad = {"linestyle": "", "color": plots.COLOURS["ANIL"], "markersize": 5}
    (moving["zeros"],) = right.plot([], [], marker="s", **bad, label="0")
    (moving["lost"],) = right.plot([], [], marker="x", **bad, label="not finite")
    left.set(ylim=(-1.1, 1.1))
    left.set_yticks([-1, -0.5, 0, 0.5, 1])
    moving["labels"] = [
        left.text(-0.015, at, "", transform=left.get_yaxis_transform(), ha="right", va="center", fontsize=9)
        for at in (-1, -0.5, 0, 0.5, 1)
    ]
    left.set_yticklabels([])
    moving["words"] = left.text(0.03, 0.95, "", transform=left.transAxes, fontsize=9, va="top")
    right.set(ylim=(-_TOP, _TOP))
    right.set_yticks(_squeezed(_TICKS), ["-1e8", "-1e4", "-1", "0", "1", "1e4", "1e8"])
    right.set_ylabel("slope by η (signed log)", labelpad=1)
    above = {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0), "fontsize": 9, "borderpad": 0.2}
    left.legend(**above, ncols=2)
    right.legend(**above, ncols=4, columnspacing=1.2, handletextpad=0.4)
    return Stage(fig, **moving)


def _move(stage: Stage, n: Numbers) -> None:
    rate, value, derivative = n.found
    stage["value"].set_ydata(_heights(n, n.value[:-1]))
    stage["value found"].set_data(rate, _heights(n, value))
    stage["slope"].set_ydata(np.clip(_squeezed(n.slope[:-1]), -_TOP, _TOP))
    stage["slope found"].set_data(rate, np.clip(_squeezed(derivative), -_TOP, _TOP))
    stage["zeros"].set_data(n.zeros, 0 * n.zeros)
    stage["lost"].set_data(n.lost, 0 * n.lost)
    for side in ("value", "slope"):
        stage[f"{side} at"].set_xdata([n.rate] * 2)
    final = n.of == "final"
    texts = ("1e-12", "1e-6", "1", "1e6", "1e12") if final else ("-2", "0", "2", "4", "6")
    for label, text in zip(stage["labels"], texts, strict=True):
        label.set_text(text)
    stage["words"].set_text(f"f(w_t), t = {n.steps}" if final else f"log f(w_t) / t, t = {n.steps}")


def _failed(n: Numbers) -> str:
    return f"0 at {len(n.zeros)} and not finite at {len(n.lost)} of {len(CURVE)} rates"


def _readout(n: Numbers) -> str:
    return (
        f"slope at η = {n.rate:g} · 2/L: closed form {n.slope[-1]:.4g}, autodiff in {n.precision} {n.here} · autodiff "
        f"{_failed(n)} · best η of the logarithm {n.best:.2f} · 2/L"
    )


def _describe(n: Numbers) -> str:
    name = "the loss" if n.of == "final" else "the logarithm of the loss a step"
    return (
        f"As functions of the rate: {name} after {n.steps} steps of descent, and its slope, in closed form and by "
        f"autodiff in {n.precision}, whose slope is {_failed(n)}. At {n.rate:g} times 2/L the closed form has a slope "
        f"of {n.slope[-1]:.2g}, autodiff gives {n.here}."
    )


def _warm() -> Iterator:
    first = 80
    for precision in TYPES:
        for count in (first, *(each for each in COUNTS if each != first)):
            yield numbers(count, "log", precision, 100.0, 4.0)


DEMO = Demo(
    name="step_size",
    question="Where does the slope that autodiff gives begin to fail: at a number of steps, or at a rate?",
    controls=(
        steps("steps", "steps t", COUNTS, 80, "of gradient descent on a quadratic in ten dimensions"),
        choice("of", "objective", OBJECTIVES, "log", "final is f(w_t), log is log f(w_t) / t"),
        choice("precision", "autodiff in", TYPES, "float32", "the closed form is in float64 always"),
        steps("condition", "condition number", CONDITIONS, 100.0, "the largest curvature L over the smallest"),
        steps("rate", "η, times 2 / L", RATES, 4.0, "above 1 descent leaves for infinity"),
    ),
    compute=numbers,
    stage=_stage,
    move=_move,
    describe=_describe,
    readout=_readout,
    twin=(
        {"steps": 10},
        {},
        {"precision": "float64"},
        {"of": "final", "steps": 10},
        {"of": "final"},
    ),
    warm=_warm,
    grid=Grid(
        together=(
            ("steps", "rate", "precision"),
            ("steps", "of", "precision"),
            ("steps", "condition"),
            ("rate", "condition"),
        )
    ),
)
