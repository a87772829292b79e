"""The demo of notebook 03: the inner loop of ANIL on its loss surface, what it leaves of the meta-gradient, and why."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from matplotlib import colormaps

from mlkernels.course import plots
from mlkernels.course.demos import _anil_problem as problem
from mlkernels.course.demos.demo import Demo, Stage, choice, steps
from mlkernels.course.demos.grid import Grid
from mlkernels.errors import bad_input

STEPS = (0, 1, 2, 3, 5, 10, 15, 20)
RATES = (0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.65, 0.7, 0.8)
L2 = (0.0, 0.02, 0.1, 0.3, 1.0)
ABOVE = ("refused", "forced")
BANDS = 18  # of colour, from the surface's lowest point to its highest
_FINE = 4 * problem.POINTS  # pixels of the surface, on each side
FLOOR, CEILING = 1e-3, 1e5  # of the axis of the meta-gradient


@dataclass(frozen=True)
class Numbers:
    """What one setting gives.

    Args:
        layers, steps, rate, l2: the setting.
        spots: `[21, 2]`, the path in the plane, the picture being the unit square; cut off where it runs away.
        inside: the share of the path's way, squared, that lies in the plane; 0 where it runs away.
        minimum: `[2]`, where the path tends to in the plane; far outside for a nonconvex problem.
        losses: `[21]`, the inner loss along the path; cut off at 1e30.
        by_w, by_phi: `[21]`, norms of the two parts of the meta-gradient after 0 to 20 steps; cut off likewise.
        eigenvalues: of the inner Hessian at the start, ascending.
    """

    layers: str
    steps: int
    rate: float
    l2: float
    spots: np.ndarray
    inside: float
    minimum: np.ndarray
    losses: np.ndarray
    by_w: np.ndarray
    by_phi: np.ndarray
    eigenvalues: np.ndarray

    @property
    def smoothness(self) -> float:
        """L."""
        return float(np.abs(self.eigenvalues).max())

    @property
    def contraction(self) -> float:
        """max |1 - alpha lambda|: the largest factor of one step at the start."""
        return float(np.abs(1 - self.rate * self.eigenvalues[[0, -1]]).max())

    @property
    def geometry(self) -> str:
        """In words."""
        if self.layers != "head":
            return "nonconvex"
        return "strongly convex" if self.l2 else "convex"


def numbers(layers: str, inner_steps: int, inner_rate: float, l2: float, above: str) -> Numbers:
    """The inner loop of one task, its surface and its meta-gradient, for one setting of the demo.

    `above` is "forced", or "refused" for an error where the rate is above 2 / L at the start.

    Source: Ji et al. 2020; notebooks/03_anil_inner_loop_geometry.
    """
    plane = problem.plane(layers)
    eigenvalues = plane.eigenvalues + l2
    limit = 2 / np.abs(eigenvalues).max()
    if above == "refused" and inner_rate > limit:
        do = "lower it, adapt fewer layers, or let it be forced"
        raise bad_input("inner rate α", f"at most 2/L = {limit:.3g} of these layers", f"{inner_rate:g}", do)
    return Numbers(layers, inner_steps, inner_rate, l2, *problem.seen(layers, inner_rate, l2), eigenvalues)


# --- drawn ------------------------------------------------------------------------------------------------------------


@lru_cache
def _finer() -> np.ndarray:
    """`[244, 61]`, linear interpolation from the surface's points to the picture's pixels."""
    at = np.linspace(0, problem.POINTS - 1, _FINE)
    return np.maximum(0, 1 - np.abs(at[:, None] - np.arange(problem.POINTS)))


@lru_cache
def _picture(layers: str, l2: float) -> np.ndarray:
    """The logarithm of the inner loss in bands of colour with thin lines between them, `[244, 244, 3]` uint8."""
    plane = problem.plane(layers)
    height = _finer() @ np.log(plane.fit + l2 / 2 * plane.squares) @ _finer().T
    height = (height - height.min()) / np.ptp(height)
    band = np.floor(BANDS * height).clip(max=BANDS - 1)
    colours = colormaps["cividis"](band / (BANDS - 1), bytes=True)[..., :3].astype(float)
    edge = np.zeros(band.shape, bool)
    edge[1:] |= band[1:] != band[:-1]
    edge[:, 1:] |= band[:, 1:] != band[:, :-1]
    colours[edge] += 0.25 * (255 - colours[edge])
    return colours.astype(np.uint8)


def _stage() -> Stage:
    boxes = [(0.012, 0.04, 0.30, 0.83), (0.395, 0.16, 0.265, 0.71), (0.735, 0.16, 0.25, 0.71)]
    fig, (left, middle, right) = plots.figure(10.5, 3.7, boxes=boxes)
    blank = np.zeros((_FINE, _FINE, 3), np.uint8)
    image = left.imshow(blank, extent=(0, 1, 0, 1), origin="lower", aspect="auto", interpolation="nearest")
    left.set(xlim=(0, 1), ylim=(0, 1), xticks=[], yticks=[])
    left.grid(False)
    (later,) = left.plot([], [], ".-", color="white", alpha=0.6, linewidth=1.2, markersize=5)
    (shadow,) = left.plot([], [], "-", color="black", alpha=0.5, linewidth=4)
    (way,) = left.plot([], [], "o-", color="#FFC000", linewidth=2, markersize=4.5, markeredgecolor="black",
                       markeredgewidth=0.5, label="inner loop")  # fmt: skip
    (begin,) = left.plot([], [], "o", color="black", markeredgecolor="white", markersize=9, label="start w")
    (best,) = left.plot([], [], "+", color="white", markersize=13, markeredgewidth=2.5, label="minimum")
    title = left.set_title("", fontsize=12)
    for ax in (middle, right):
        ax.set_yscale("log")
    (by_w,) = middle.plot([], [], **plots.look("ANIL") | {"markersize": 4}, label="|dL/dw|")
    (by_phi,) = middle.plot([], [], **plots.look("MAML") | {"markersize": 4}, label="|dL/dφ|")
    (bound,) = middle.plot([], [], **plots.look("theory"), label="ρᴺ")
    now = middle.axvline(0, color="#888888", linewidth=1.2, linestyle=":")
    middle.set(
        xlim=(-0.5, problem.STEPS + 0.5), ylim=(FLOOR, CEILING), xlabel="inner steps N", xticks=(0, 5, 10, 15, 20)
    )
    middle.set_ylabel("norm of the meta-gradient", labelpad=1)
    above = {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0), "fontsize": 10, "columnspacing": 1.2}
    middle.legend(**above, ncols=3, handlelength=1.8)
    dots = {"linestyle": "", "marker": "o", "markersize": 4}
    (calm,) = right.plot([], [], **dots, color=plots.COLOURS["measured"], label="shrinks")
    (wild,) = right.plot([], [], **dots | {"marker": "x", "markersize": 6}, color="#A40000", label="grows")
    right.axhline(1, **plots.look("theory"))
    right.set_xscale("symlog", linthresh=0.1, linscale=0.4)
    right.set(xlim=(-8, 18), ylim=(1e-2, 20), xlabel="eigenvalue λ of the inner Hessian", xticks=(-5, 0, 1, 10))
    right.set_xticklabels(["-5", "0", "1", "10"])
    right.set_ylabel("factor of one step |1 - αλ|", labelpad=1)
    right.legend(**above, ncols=2, handletextpad=0.2)
    return Stage(fig, image=image, later=later, shadow=shadow, way=way, begin=begin, best=best, title=title,
                 by_w=by_w, by_phi=by_phi, bound=bound, now=now, calm=calm, wild=wild)  # fmt: skip


def _move(stage: Stage, n: Numbers) -> None:
    stage["image"].set_data(_picture(n.layers, n.l2))
    until = n.spots[: n.steps + 1]
    for name, spots in (("later", n.spots), ("shadow", until), ("way", until), ("begin", n.spots[:1])):
        stage[name].set_data(*spots.T)
    stage["best"].set_data(*n.minimum[:, None])
    stage["title"].set_text(f"{n.geometry}: {n.layers}")
    at = np.arange(problem.STEPS + 1)

    def shown(values):
        return np.clip(values, FLOOR / 100, CEILING * 100)

    stage["by_w"].set_data(at, shown(n.by_w))
    stage["by_phi"].set_data(at, shown(n.by_phi))
    stage["bound"].set_data(at, shown(n.by_w[0] * np.minimum(n.contraction**at, 1e30)))
    stage["now"].set_xdata([n.steps] * 2)
    factor = np.abs(1 - n.rate * n.eigenvalues)
    for name, which in (("calm", factor <= 1), ("wild", factor > 1)):
        stage[name].set_data(n.eigenvalues[which], np.clip(factor[which], 1e-3, None))


def _fate(n: Numbers) -> str:
    share = n.rate * n.smoothness / 2
    where = f"α is {share:.2f} of 2/L = {2 / n.smoothness:.3g}" + (", forced" if share > 1 else "")
    if n.losses[-1] > 1e3 * n.losses[0]:
        return f"{where}: the inner loop diverges"
    if n.layers == "head":
        return f"{where}: a step leaves at most {n.contraction:.3f} of the distance to the minimum"
    return f"{where}: a step multiplies differences by up to {n.contraction:.2f}"


def _readout(n: Numbers) -> str:
    return (
        f"μ {n.eigenvalues[0]:.3g} · L {n.smoothness:.3g} · {_fate(n)} · after N = {n.steps}: inner loss "
        f"{n.losses[n.steps]:.3g}, |dL/dw| {n.by_w[n.steps]:.2g}, |dL/dφ| {n.by_phi[n.steps]:.2g} · "
        f"{n.inside:.0%} of the path lies in this plane"
    )


def _describe(n: Numbers) -> str:
    ends = f"{n.eigenvalues[0]:.2g} to {n.eigenvalues[-1]:.2g}"
    return (
        f"The {n.geometry} inner loss of one task over two directions, with the inner loop of {n.layers} on it; the "
        f"norms of both parts of the meta-gradient against N beside ρ to the N; and the factor of one step for each of "
        f"the {len(n.eigenvalues)} eigenvalues of the Hessian, {ends}: {_fate(n)}."
    )


def _warm() -> Iterator:
    for layers in problem.LAYERS:
        yield numbers(layers, 1, 0.1, 0.1, "forced")
        for l2 in L2:
            yield _picture(layers, l2)


DEMO = Demo(
    name="anil_geometry",
    question="At which inner rate does each geometry leave its valley, and what has the meta-gradient done before?",
    controls=(
        choice("layers", "adapted layers", tuple(problem.LAYERS), "head", "the head alone is convex; more are not"),
        steps("inner_steps", "inner steps N", STEPS, 10, "steps of gradient descent on the support set"),
        steps("inner_rate", "inner rate α", RATES, 0.15, "their step size"),
        steps("l2", "L2 strength", L2, 0.1, "makes the convex problem strongly convex: μ is at least this"),
        choice("above", "α above 2/L", ABOVE, "forced", "whether a rate that must diverge is shown, or an error"),
    ),
    compute=numbers,
    stage=_stage,
    move=_move,
    describe=_describe,
    readout=_readout,
    twin=({}, {"inner_rate": 0.65, "inner_steps": 20}, {"layers": "head + layer 2"},
          {"layers": "head + layer 2", "inner_rate": 0.4, "inner_steps": 20}),
    warm=_warm,
    grid=Grid(together=(("inner_rate", "inner_steps"), ("layers", "inner_rate"), ("layers", "inner_steps"),
                   ("layers", "l2"), ("inner_rate", "above"))),
)  # fmt: skip
