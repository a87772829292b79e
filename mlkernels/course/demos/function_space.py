"""The demo of notebook 06: one task adapted in function space, and whether its leave-one-out error can choose gamma.

A network is meta-trained once; after that a slider only re-does the algebra of one eigendecomposition, in NumPy.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mlkernels import metantk
from mlkernels.course import plots
from mlkernels.course.demos import _function_space_training as training
from mlkernels.course.demos.demo import Demo, Stage, choice, steps
from mlkernels.course.demos.grid import Grid
from mlkernels.learners.function_space import NTK, RBF, Cosine, FunctionSpace, Linear

KERNELS = ("RBF", "linear", "cosine", "NTK", "RBF + linear", "RBF on x")
SCALES = (0.25, 0.5, 1.0, 2.0, 4.0)
GAMMAS = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
CURVE = np.geomspace(GAMMAS[0], GAMMAS[-1], 100)  # where the errors are drawn
FLOOR, CEILING = 0.1, 10.0  # of the axis of errors
GRID = len(training.GRID)


def settings(kernel: str, scale: float, gamma: float) -> FunctionSpace:
    """The package's settings of one setting of the demo: what `function_space.adapt` takes.

    Amplitudes are such that each kernel has the same mean at equal points, that of the learned RBF, so that a gamma
    weighs as much in all of them.

    Args:
        kernel: of `KERNELS`.
        scale: times the learned length scale, on x times 1.
        gamma: positive.

    Source: our reading of Park and Kang 2024; notebooks/06_function_space_adaptation.
    """
    parts, learned = training.parts(), training.trained()[1].kernel
    A, length = learned.amplitude, scale * (1.0 if kernel == "RBF on x" else learned.length_scale)
    linear = A / float(np.sqrt(parts.squares))
    half = np.sqrt(0.5)
    found = {
        "RBF": RBF(length, A),
        "linear": Linear(linear),
        "cosine": Cosine(A),
        "NTK": NTK(A / float(np.sqrt(parts.ntk_diagonal))),
        "RBF + linear": RBF(length, half * A) + Linear(half * linear),
        "RBF on x": RBF(length, A),
    }
    return FunctionSpace(found[kernel], gamma, "inputs" if kernel == "RBF on x" else "hidden")


def gram(kernel: str, scale: float) -> np.ndarray:
    """That kernel between the grid, then the support points, and the latter, `[121, 20]`."""
    parts, inner = training.parts(), settings(kernel, scale, 1.0)

    def of(part):
        if isinstance(part, RBF):
            squares = parts.inputs if inner.features == "inputs" else parts.hidden
            return part.amplitude**2 * np.exp(-squares / (2 * part.length_scale**2))
        return part.amplitude**2 * {Linear: parts.linear, Cosine: parts.cosine, NTK: parts.ntk}[type(part)]

    return sum(map(of, getattr(inner.kernel, "parts", (inner.kernel,))))


@dataclass(frozen=True)
class Numbers:
    """What one setting gives; errors are root mean squares, those on the grid of the truth without noise.

    Args:
        kernel, gamma, points: of the setting.
        length_scale: l, None where the kernel has none.
        learned_gamma: that of training.
        before, after: `[101]`, f and f + h on the grid.
        held_out: `[points]`, what the others' adaptation predicts at each support point.
        errors: before and after, on the grid.
        missed: the leave-one-out error.
        by_gamma: `[2, 100]`, leave-one-out error and error on the grid for each gamma of `CURVE`.
        condition: of K + gamma I.
    """

    kernel: str
    gamma: float
    points: int
    length_scale: float | None
    learned_gamma: float
    before: np.ndarray
    after: np.ndarray
    held_out: np.ndarray
    errors: tuple[float, float]
    missed: float
    by_gamma: np.ndarray
    condition: metantk.Condition

    @property
    def best(self) -> np.ndarray:
        """The gammas of the least leave-one-out error and of the least error on the grid."""
        return CURVE[self.by_gamma.argmin(-1)]


def _rms(values: np.ndarray) -> np.ndarray:
    return np.sqrt((values**2).mean(-1))


def numbers(kernel: str, scale: float, gamma: float, points: int) -> Numbers:
    """The held-out task adapted to its first support points, and both errors for all gammas, for one setting.

    Source: our reading of Park and Kang 2024; Rasmussen and Williams 2006, eq. 5.12, for the leave-one-out error;
    notebooks/06_function_space_adaptation.
    """
    parts, k = training.parts(), gram(kernel, scale).astype(float)
    y = training.support()[1][:points, 0]
    K, across = k[GRID : GRID + points, :points], k[:GRID, :points]
    residual = y - parts.outputs[GRID : GRID + points]
    values, vectors = np.linalg.eigh((K + K.T) / 2)
    inverse = 1 / (values.clip(min=0) + np.append(gamma, CURVE)[:, None])  # of K + gamma I's eigenvalues, row by row
    weights = inverse * (vectors.T @ residual) @ vectors.T
    missed = weights / (inverse @ (vectors**2).T)
    after = parts.outputs[:GRID] + weights @ across.T
    errors = _rms(np.concatenate([parts.outputs[None, :GRID], after]) - training.truth())
    inner = settings(kernel, scale, gamma).kernel
    rbf = next((part for part in getattr(inner, "parts", (inner,)) if isinstance(part, RBF)), None)
    return Numbers(
        kernel=kernel,
        gamma=gamma,
        points=points,
        length_scale=rbf and rbf.length_scale,
        learned_gamma=training.trained()[1].gamma,
        before=parts.outputs[:GRID],
        after=after[0],
        held_out=y - missed[0],
        errors=(float(errors[0]), float(errors[1])),
        missed=float(_rms(missed[0])),
        by_gamma=np.stack([_rms(missed[1:]), errors[2:]]),
        condition=metantk.condition_number(K + gamma * np.eye(points)),
    )


# --- drawn ------------------------------------------------------------------------------------------------------------


def _stage() -> Stage:
    fig, (left, right) = plots.figure(10.5, 3.8, boxes=[(0.05, 0.15, 0.53, 0.72), (0.67, 0.15, 0.315, 0.72)])
    x, look = training.GRID[:, 0], plots.look("function space") | {"marker": ""}
    left.plot(x, training.truth(), color="#888888", linewidth=3, alpha=0.6, label="truth")
    (before,) = left.plot(x, 0 * x, **look | {"linewidth": 1, "linestyle": (0, (4, 2))}, label="before: f")
    (after,) = left.plot(x, 0 * x, **look, label="after: f + h")
    missed = plots.look("ANIL")["color"]
    bars = left.vlines([], [], [], color=missed, linewidth=1.6)
    bars.set_clip_path(left.patch)
    (held_out,) = left.plot([], [], "_", color=missed, markersize=10, markeredgewidth=2.2, label="left out")
    (points,) = left.plot([], [], "ko", markersize=5.5, label="support")
    left.set(xlim=(-training.REACH, training.REACH), ylim=(-5, 5), xlabel="x")
    above = {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0), "fontsize": 9, "borderpad": 0.2}
    left.legend(**above, ncols=5, columnspacing=1.2, handlelength=2.0, handletextpad=0.5)
    right.axhline(training.NOISE, color="#888888", linewidth=1, linestyle=":")
    right.text(CURVE[-1] * 0.85, training.NOISE * 1.04, "noise", color="#666666", fontsize=8, ha="right", va="bottom")
    learned = right.axvline(1.0, color="#888888", linewidth=1, linestyle=":")  # moves, since it waits for the training
    words = right.text(1.0, 8.4, "learned", color="#666666", fontsize=8, va="top")
    (by_missed,) = right.plot(CURVE, 0 * CURVE + 1, color=missed, linestyle=(0, (5, 1.5)), label="leave-one-out error")
    (by_error,) = right.plot(CURVE, 0 * CURVE + 1, **look, label="error on new points")
    (now_missed,) = right.plot([], [], "s", color=missed, markersize=7)
    (now_error,) = right.plot([], [], color=look["color"], marker="p", linestyle="", markersize=8)
    right.set(xscale="log", yscale="log", xlim=(CURVE[0], CURVE[-1]), ylim=(FLOOR, CEILING), xlabel="γ")
    right.set_ylabel("root mean square", labelpad=1)
    right.set_yticks([0.1, 0.3, 1, 3, 10], ["0.1", "0.3", "1", "3", "10"])
    right.minorticks_off()
    right.legend(**above, ncols=2, columnspacing=1.2, handlelength=2.0, handletextpad=0.5)
    return Stage(fig, learned=learned, words=words, before=before, after=after, bars=bars, held_out=held_out,
                 points=points, by_missed=by_missed, by_error=by_error, now_missed=now_missed,
                 now_error=now_error)  # fmt: skip


def _move(stage: Stage, n: Numbers) -> None:
    x, y = (part[: n.points, 0] for part in training.support())
    stage["before"].set_ydata(n.before)
    stage["after"].set_ydata(n.after)
    stage["bars"].set_segments(np.stack([np.stack([x, y], -1), np.stack([x, n.held_out], -1)], 1))
    stage["held_out"].set_data(x, n.held_out)
    stage["points"].set_data(x, y)
    stage["learned"].set_xdata([n.learned_gamma] * 2)
    stage["words"].set_x(1.12 * n.learned_gamma)
    for name, curve, now in zip(("missed", "error"), n.by_gamma, (n.missed, n.errors[1]), strict=True):
        stage[f"by_{name}"].set_ydata(curve)
        stage[f"now_{name}"].set_data([n.gamma], [min(now, CEILING)])


def _gamma(value: float) -> str:
    """In words where it lies at an end of the axis."""
    return "the smallest γ" if value == CURVE[0] else "the largest γ" if value == CURVE[-1] else f"γ {value:.2g}"


def _least(n: Numbers) -> str:
    return f"least at {_gamma(n.best[0])}, that on new points at {_gamma(n.best[1])}"


def _readout(n: Numbers) -> str:
    length = "" if n.length_scale is None else f" · length scale {n.length_scale:.3g}"
    return (
        f"error on new points {n.errors[0]:.3g} → {n.errors[1]:.3g} · leave-one-out error {n.missed:.3g}, {_least(n)}"
        f"{length} · κ(K + γI) {n.condition.value:.3g}"
    )


def _describe(n: Numbers) -> str:
    return (
        f"A sinusoid with {n.points} noisy support points, the network before adaptation and with the {n.kernel} "
        f"kernel's correction, whose error on new points is {n.errors[1]:.2g} after {n.errors[0]:.2g}, and a bar from "
        f"each support point to what the others predict there. Beside it both errors against gamma: the leave-one-out "
        f"error, {n.missed:.2g} here, is {_least(n).replace('γ', 'gamma')}."
    )


def _warm() -> Iterator:
    yield training.parts()


DEMO = Demo(
    name="function_space",
    question="With two support points, can the leave-one-out error be trusted to choose γ? And with ten?",
    controls=(
        choice("kernel", "kernel", KERNELS, "RBF", "of hidden features, but for x and the NTK; all of one size"),
        steps("scale", "length scale ×", SCALES, 1.0, "the learned one, on x times 1; for the RBF kernels alone"),
        steps("gamma", "γ", GAMMAS, 0.03, "what a correction's size costs; it was learned for ten support points"),
        steps("points", "support points", training.SHOTS, 10, "of the held-out task; their labels are noisy"),
    ),
    compute=numbers,
    stage=_stage,
    move=_move,
    describe=_describe,
    readout=_readout,
    twin=(
        {},
        {"points": 2},
        {"kernel": "linear"},
        {"kernel": "RBF on x", "gamma": 0.001},
        {"points": 20, "gamma": 0.1},
    ),
    warm=_warm,
    grid=Grid(together=(("kernel", "gamma"), ("gamma", "points"), ("kernel", "points"), ("kernel", "scale"))),
)
