"""The demo of notebook 07: a learner's own mask of layers, on one task, among all sixteen by cost and error.

A network is meta-trained once; after that a change of the mask adapts one task, in a program that is compiled once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mlkernels.course import plots
from mlkernels.course.demos import _layer_masks_training as training
from mlkernels.course.demos.demo import Demo, Stage, choice, steps
from mlkernels.course.demos.grid import Grid
from mlkernels.learners import layer_masks

LAYERS = training.NETWORK.layers
STEPS = (0, 1, 2, 3, 5, 7, 10)
UPDATED, FROZEN = "updated", "frozen"
KEPT, ANEW = "kept", "computed anew"
MASKS = training.MASKS
FLOOR, CEILING = 0.8, 5.0  # of the axis of errors


@dataclass(frozen=True)
class Numbers:
    """What one setting gives; errors are mean squares.

    Args:
        chosen: which of the 16 masks.
        steps: inner steps.
        before, after: `[101]`, the network on the grid before and after adaptation to the task that is shown.
        costs: `[16]`, of each mask, as shares of that of all layers in as many steps; 0 where there are no steps.
        errors: `[16]`, over the held-out tasks.
        front: int `[F]`, the masks on the Pareto front.
        saving: how many times as cheap as all layers, 0 for a mask that costs nothing.
    """

    chosen: int
    steps: int
    before: np.ndarray
    after: np.ndarray
    costs: np.ndarray
    errors: np.ndarray
    front: np.ndarray
    saving: float

    @property
    def layers(self) -> str:
        """The layers that are updated, in words."""
        return ", ".join(layer_masks.layers_of(training.NETWORK, MASKS[self.chosen])) or "nothing"


def numbers(layer1: str, layer2: str, layer3: str, head: str, steps: int, features: str) -> Numbers:
    """One task adapted under one mask, and what all masks cost and achieve on a hundred tasks.

    Source: Khabarlak 2022 for the masks; notebooks/07_which_weights_adapt.
    """
    mask = np.array([layer == UPDATED for layer in (layer1, layer2, layer3, head)])
    chosen = int((mask == MASKS).all(1).argmax())
    costs = training.costs().of(MASKS, steps, keep=features == KEPT)
    shares, errors = costs / max(costs[-1], 1.0), training.errors()[:, steps]
    return Numbers(
        chosen=chosen,
        steps=steps,
        before=training.outputs(mask, 0),
        after=training.outputs(mask, steps),
        costs=shares,
        errors=errors,
        front=layer_masks.pareto_front(shares, -errors),
        saving=float(1 / shares[chosen]) if shares[chosen] else 0.0,
    )


# --- drawn ------------------------------------------------------------------------------------------------------------

# by the deepest layer that is updated, the last one for a mask that updates nothing
_LOOKS = [plots.look(name) for name in ("MAML", "FOMAML", "Meta-RKHS-I", "ANIL", "NTK")]
_DEEPEST = layer_masks.deepest(MASKS)


def _stage() -> Stage:
    fig, (left, right) = plots.figure(10.5, 3.8, boxes=[(0.05, 0.15, 0.47, 0.72), (0.62, 0.15, 0.365, 0.72)])
    x, look = training.GRID[:, 0], _LOOKS[0] | {"marker": ""}
    left.plot(x, training.truth(), color="#888888", linewidth=3, alpha=0.6, label="truth")
    (before,) = left.plot(x, 0 * x, **look | {"linewidth": 1, "linestyle": (0, (4, 2))}, label="before")
    (after,) = left.plot(x, 0 * x, **look, label="after")
    left.plot(*training.support(), "ko", markersize=5.5, label="support")
    left.set(xlim=(-training.REACH, training.REACH), ylim=(-5, 5), xlabel="x")
    above = {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0), "fontsize": 9, "borderpad": 0.2}
    above |= {"handlelength": 1.6, "handletextpad": 0.4, "columnspacing": 1.1}
    left.legend(**above, ncols=4)
    (front,) = right.plot([], [], color="#888888", linewidth=1, drawstyle="steps-post")
    groups = []
    for look, name in zip(_LOOKS, (*LAYERS, "nothing"), strict=True):
        groups += right.plot([], [], **look | {"linestyle": "", "markersize": 6}, label=name)
    (ring,) = right.plot([], [], "o", color="black", markersize=15, fillstyle="none", markeredgewidth=1.8)
    right.set(xlim=(-0.04, 1.04), yscale="log", ylim=(FLOOR, CEILING))
    right.set_xlabel("cost, all layers = 1")
    right.set_ylabel("error on 100 tasks", labelpad=1)
    right.set_yticks([1, 2, 4], ["1", "2", "4"])
    right.minorticks_off()
    right.legend(**above, ncols=5, title="deepest layer that is updated", title_fontsize=9)
    return Stage(fig, before=before, after=after, front=front, groups=groups, ring=ring)


def _move(stage: Stage, n: Numbers) -> None:
    stage["before"].set_ydata(n.before)
    stage["after"].set_ydata(n.after)
    for depth, group in enumerate(stage["groups"]):
        group.set_data(n.costs[depth == _DEEPEST], n.errors[depth == _DEEPEST])
    stage["front"].set_data(np.append(n.costs[n.front], 1.04), np.append(n.errors[n.front], n.errors[n.front][-1]))
    stage["ring"].set_data([n.costs[n.chosen]], [n.errors[n.chosen]])


def _saved(n: Numbers) -> str:
    return f"{n.saving:.3g} times as cheap as all layers" if n.saving else "costs nothing"


def _readout(n: Numbers) -> str:
    on_front = "on the front" if n.chosen in n.front else "off the front"
    return (
        f"updated: {n.layers} · {_saved(n)} · error {n.errors[n.chosen]:.3g}, with all layers {n.errors[-1]:.3g}, "
        f"without adaptation {n.errors[0]:.3g} · {on_front}"
    )


def _describe(n: Numbers) -> str:
    return (
        f"A sinusoid with ten support points, the network before and after {n.steps} inner steps that update "
        f"{n.layers}. Beside it the sixteen masks by cost and error on 100 tasks: this one {_saved(n)}, with the error "
        f"{n.errors[n.chosen]:.2g} where all layers have {n.errors[-1]:.2g}; {len(n.front)} masks are on the front."
    )


def _warm() -> Iterator:
    yield training.problem()
    yield training.trained()
    yield training.costs()
    yield training.errors()
    yield training.outputs(MASKS[-1], 1)


def _switch(name: str, label: str, default: str):
    return choice(name, label, (UPDATED, FROZEN), default, "in every inner step")


DEMO = Demo(
    name="layer_masks",
    question="If you may update one layer only, which one? And what does it cost to reach it?",
    controls=(
        _switch("layer1", "layer 1", FROZEN),
        _switch("layer2", "layer 2", FROZEN),
        _switch("layer3", "layer 3", UPDATED),
        _switch("head", "head", UPDATED),
        steps("steps", "inner steps", STEPS, 5, "on the support points, with the rate of training"),
        choice("features", "features below", (KEPT, ANEW), ANEW, "those that no step changes: in the costs alone"),
    ),
    compute=numbers,
    stage=_stage,
    move=_move,
    describe=_describe,
    readout=_readout,
    twin=(
        {},
        {"layer3": FROZEN, "features": KEPT},
        {"layer1": UPDATED, "layer3": FROZEN, "head": FROZEN},
        {"layer1": UPDATED, "layer2": UPDATED},
        {"layer1": UPDATED, "layer2": UPDATED, "steps": 1},
    ),
    warm=_warm,
    grid=Grid(together=((*LAYERS, "features"), (*LAYERS, "steps"))),
)
