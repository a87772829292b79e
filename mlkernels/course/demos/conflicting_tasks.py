"""The demo of notebook 06: eight tasks in two groups whose gradients conflict, and what weights make of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax
import numpy as np
from matplotlib.ticker import NullLocator

from mlkernels.course import plots
from mlkernels.course.demos.demo import Demo, Stage, once, steps
from mlkernels.course.demos.grid import Grid
from mlkernels.learners.outer_weights import InverseLoss, MinNorm, SoftmaxCosine, Uniform

TASKS = 8
ANGLES = tuple(range(0, 181, 15))
TEMPERATURES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
SMALLER = (1, 2, 3, 4)
RATIOS = (0.25, 0.5, 1.0, 2.0, 4.0)
SCATTER = (8.0, 0.12)  # standard deviations: of a gradient's angle, in degrees, and of its length's logarithm
RULES = ("Uniform", "SoftmaxCosine", "InverseLoss", "MinNorm")
# Rules are no methods: colours of those that never stand beside them; marker and line style tell them apart as well.
LOOKS: dict[str, dict[str, Any]] = {
    name: {"color": plots.COLOURS[colour], "marker": marker, "linestyle": style}
    for name, colour, marker, style in (
        ("Uniform", "theory", "o", (0, (2, 1))),
        ("SoftmaxCosine", "Meta-RKHS-II", "*", (0, (7, 1.5, 2, 1.5))),
        ("InverseLoss", "Reptile", "X", (0, (1, 1))),
        ("MinNorm", "MAML", "D", "-"),
    )
}
STILL = 1e-3  # of the mean length of the gradients: a shorter d is none


@lru_cache
def _scattered() -> np.ndarray:
    """`[8, 2]`, standard normal: how each task's gradient differs from its group's in angle and length."""
    draw = once(lambda key: jax.random.normal(key, (TASKS, 2), "float32"))  # the same ones in a session of 32 bits
    return np.asarray(draw(jax.random.key(11)), float)


def gradients(angle: float, smaller: int, ratio: float) -> np.ndarray:
    """The tasks' gradients `[8, 2]`: about (1, 0), and for the last few at this angle to it and `ratio` as long."""
    last = np.arange(TASKS) >= TASKS - smaller
    scattered = _scattered() * SCATTER
    at = np.deg2rad(np.where(last, angle, 0.0) + scattered[:, 0])
    length = np.where(last, ratio, 1.0) * np.exp(scattered[:, 1])
    return length[:, None] * np.stack([np.cos(at), np.sin(at)], -1)


@once
def _weights(losses, gram):
    """Those of SoftmaxCosine at each temperature, and of the other rules: one program for all settings."""
    soft = {T: SoftmaxCosine(T).weights(losses, gram) for T in TEMPERATURES}
    return soft, [rule.weights(losses, gram) for rule in (Uniform(), InverseLoss(), MinNorm())]


@dataclass(frozen=True)
class Numbers:
    """What one setting gives.

    Args:
        angle, temperature, smaller: of the setting.
        gradients: `[8, 2]`, the smaller group's last.
        weights: `[4, 8]`, of `RULES`.
        directions: `[4, 2]`, d: the outer loop steps along -d.
        worst: `[4]`, the largest angle in degrees between d and a task's gradient, 90 where d is 0: to first order
            a step along -d lowers the losses of all tasks where it is below 90.
        still: `[4]`, whether d is 0.
    """

    angle: float
    temperature: float
    smaller: int
    gradients: np.ndarray
    weights: np.ndarray
    directions: np.ndarray
    worst: np.ndarray
    still: np.ndarray

    @property
    def fates(self) -> list[str]:
        """For each rule, what the worst task's loss does."""
        words = np.where(self.still, "d = 0", np.where(self.worst < 90, "all losses fall", "a loss rises"))
        return words.tolist()

    @property
    def minority(self) -> np.ndarray:
        """`[4]`, the smaller group's weight together."""
        return self.weights[:, TASKS - self.smaller :].sum(1)


def numbers(angle: float, temperature: float, smaller: int, ratio: float) -> Numbers:
    """What four rules make of eight tasks, for one setting of the demo; a loss is half its gradient's square.

    That is the loss of a task ½|θ - c|², whose gradient is θ - c.

    Source: our reading of Park and Kang 2024; Désidéri 2012 for MinNorm; notebooks/06_function_space_adaptation.
    """
    g = gradients(angle, smaller, ratio)
    soft, (uniform, inverse, shortest) = _weights((g**2).sum(1) / 2, g @ g.T)
    weights = np.stack([np.asarray(w, float) for w in (uniform, soft[temperature], inverse, shortest)])
    d, lengths = weights @ g, np.linalg.norm(g, axis=1)
    size = np.linalg.norm(d, axis=1)
    still = size < STILL * lengths.mean()
    cosines = np.where(still[:, None], 0.0, d @ g.T / lengths / np.where(still, 1.0, size)[:, None])
    worst = np.rad2deg(np.arccos(cosines.min(1).clip(-1, 1)))
    return Numbers(angle, temperature, smaller, g, weights, d, worst, still)


# --- drawn ------------------------------------------------------------------------------------------------------------

_GROUPS = {"larger group": ("NTK", "o"), "smaller group": ("ANIL", "^")}
_REACH, _BELOW = 1.14, 0.3  # of the left picture to both sides and down, in lengths of the longest gradient


def _stage() -> Stage:
    fig, (left, right) = plots.figure(10.5, 3.9, boxes=[(0.012, 0.05, 0.50, 0.82), (0.585, 0.15, 0.405, 0.66)])
    moving: dict[str, Any] = {}
    for name, (colour, marker) in _GROUPS.items():
        (moving[name],) = left.plot([], [], "-", color=plots.COLOURS[colour], marker=marker, linewidth=1, markersize=6,
                                    alpha=0.75, label=f"∇ of the {name}")  # fmt: skip
        (moving[f"{name} below"],) = right.plot([], [], marker, color=plots.COLOURS[colour], clip_on=False)
    for name, look in LOOKS.items():
        look, size = look | {"marker": ""}, {"*": 12, "D": 7}.get(look["marker"], 8)
        dots = {"color": look["color"], "marker": LOOKS[name]["marker"], "markersize": size, "linestyle": ""}
        (moving[name],) = left.plot([], [], **look, linewidth=2.6)
        (moving[f"{name} end"],) = left.plot([], [], **dots, markeredgecolor="white", markeredgewidth=0.6)
        (moving[f"{name} stems"],) = right.plot([], [], **look, linewidth=1.6)
        (moving[f"{name} weights"],) = right.plot([], [], **dots | {"markersize": 0.8 * size})
        right.plot([], [], **look | dots | {"linestyle": look["linestyle"]}, label=name)
    left.plot([], [], "k-", linewidth=2.6, label="d of a rule")
    left.plot(0, 0, "k+", markersize=9)
    height = 2 * _REACH * (0.82 * 3.9) / (0.50 * 10.5)  # both axes in one scale
    left.set(xlim=(-_REACH, _REACH), ylim=(-_BELOW, height - _BELOW), xticks=[], yticks=[])
    left.spines[:].set_visible(False)
    above = {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0), "fontsize": 9, "borderpad": 0.2}
    left.legend(**above, ncols=3, columnspacing=1.5, handlelength=2.0)
    right.set(xlim=(0.5, TASKS + 0.5), ylim=(-0.09, 1.04), xlabel="task", xticks=range(1, TASKS + 1))
    right.set_ylabel("weight", labelpad=1)
    right.xaxis.set_minor_locator(NullLocator())
    right.legend(**above, ncols=2, columnspacing=1.5, handlelength=3.4)
    return Stage(fig, **moving)


def _move(stage: Stage, n: Numbers) -> None:
    scale = np.linalg.norm(n.gradients, axis=1).max() * 1.02
    split, at = TASKS - n.smaller, np.arange(1, TASKS + 1)
    for name, which in zip(_GROUPS, (slice(split), slice(split, None)), strict=True):
        ends = n.gradients[which] / scale
        rays = np.stack([0 * ends, ends, np.full_like(ends, np.nan)], 1)  # from the origin to each end, and a gap
        stage[name].set_data(*rays.reshape(-1, 2).T)
        stage[name].set_markevery((1, 3))
        stage[f"{name} below"].set_data(at[which], np.full(len(ends), -0.05))
    for i, (name, w, d) in enumerate(zip(RULES, n.weights, n.directions / scale, strict=True)):
        stage[name].set_data([0, d[0]], [0, d[1]])
        stage[f"{name} end"].set_data(d[:1], d[1:])
        beside = at + 0.18 * (i - 1.5)
        stems = np.stack([0 * w, w, np.full(TASKS, np.nan)], 1)
        stage[f"{name} stems"].set_data(np.repeat(beside, 3), stems.ravel())
        stage[f"{name} weights"].set_data(beside, w)


def _readout(n: Numbers) -> str:
    rules = (
        f"{name} {fate}" + ("" if still else f" ({worst:.0f}°)")
        for name, fate, worst, still in zip(RULES, n.fates, n.worst, n.still, strict=True)
    )
    shares = " / ".join(f"{share:.0%}" for share in n.minority)
    return f"largest angle of d with a task's ∇: {' · '.join(rules)} · weight of the smaller group {shares}"


def _describe(n: Numbers) -> str:
    rules = ", ".join(
        f"with {name} {fate} ({share:.0%} of the weight on the smaller group)"
        for name, fate, share in zip(RULES, n.fates, n.minority, strict=True)
    )
    return (
        f"The gradients of {TASKS - n.smaller} tasks of one group and {n.smaller} of another, {n.angle:g} degrees "
        f"apart, as rays in a plane with the directions that four rules make of them; beside it the rules' weights. "
        f"In a small step {rules}."
    )


def _warm() -> Iterator:
    yield numbers(0, 1.0, 1, 1.0)


DEMO = Demo(
    name="conflicting_tasks",
    question="At which angle does the mean gradient begin to raise a task's loss? Is a lower temperature a help?",
    controls=(
        steps("angle", "angle between the groups", ANGLES, 90, "of their mean gradients, but for a scatter", "°"),
        steps("temperature", "temperature T", TEMPERATURES, 0.3, "of SoftmaxCosine alone"),
        steps("smaller", "tasks in the smaller group", SMALLER, 2, "of eight, the last ones"),
        steps("ratio", "length of their gradients", RATIOS, 1.0, "times the larger group's; a loss is ½|∇|²"),
    ),
    compute=numbers,
    stage=_stage,
    move=_move,
    describe=_describe,
    readout=_readout,
    twin=({"angle": 45}, {}, {"angle": 120, "temperature": 0.03}, {"angle": 120, "ratio": 4.0},
          {"angle": 120, "ratio": 0.25}, {"angle": 180, "smaller": 4}),
    warm=_warm,
    grid=Grid(together=(("angle", "temperature"), ("angle", "ratio"), ("angle", "smaller"))),
)  # fmt: skip
