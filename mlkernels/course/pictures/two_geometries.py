"""The picture of notebook 03: the same pencil of starts on a convex and on a nonconvex inner loss, both exact.

Two of the smallest inner problems that there are, each of two parameters, so that the surface is the whole loss and no
slice of it: a head on two frozen features with an L2 term; and a head on one unit whose weight adapts too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Float
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import LightSource
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch

from mlkernels.course import plots
from mlkernels.support.typed import typed

POINTS = np.linspace(-2, 2, 10)  # of the one task's support set
L2 = 0.2
RADIUS, STARTS, FINE = 0.4, 28, 0.05  # of the pencil, and the small rate at which it flows
SIDES = ("#FFC000", "#7FE9FF")
RATES = ("#FFFFFF", "#FFC000", "#FF6A55")


@dataclass(frozen=True)
class Inner:
    """An inner problem of two parameters.

    Args:
        title: its geometry.
        axes: what the two parameters are.
        loss: `[..., 2] -> [...]`.
        gradient: `[..., 2] -> [..., 2]`.
        start: where the inner loop starts.
        limit: half the side of the square that is drawn.
        rates: three inner rates.
        seen_from: azimuth of the view, in degrees.
    """

    title: str
    axes: tuple[str, str]
    loss: Callable[[np.ndarray], np.ndarray]
    gradient: Callable[[np.ndarray], np.ndarray]
    start: tuple[float, float]
    limit: float
    rates: tuple[float, float, float]
    seen_from: float


def _features() -> np.ndarray:
    return np.stack([np.tanh(POINTS), np.sin(1.4 * POINTS + 0.8)], 1)


def _convex_loss(w):
    residual = w @ _features().T - 0.5 * np.sin(1.5 * POINTS)
    return (residual**2).mean(-1) + L2 / 2 * (w**2).sum(-1)


def _convex_gradient(w):
    residual = w @ _features().T - 0.5 * np.sin(1.5 * POINTS)
    return 2 * residual @ _features() / len(POINTS) + L2 * w


def _unit(w):
    """What one unit puts out, `[..., 10]`, and how far it is from the labels tanh(1.2 x) after its head."""
    h = np.tanh(w[..., :1] * POINTS)
    return h, w[..., 1:] * h - np.tanh(1.2 * POINTS)


def _nonconvex_loss(w):
    return (_unit(w)[1] ** 2).mean(-1)


def _nonconvex_gradient(w):
    h, residual = _unit(w)
    by_layer = (2 * residual * w[..., 1:] * (1 - h**2) * POINTS).mean(-1)
    return np.stack([by_layer, (2 * residual * h).mean(-1)], -1)


def convex() -> Inner:
    """A head `w . (tanh x, sin(1.4x + 0.8))` with an L2 term: mu-strongly convex, one minimum."""
    names = "head, weight 1", "head, weight 2"
    return Inner("strongly convex: the head", names, _convex_loss, _convex_gradient, (-1.4, 0.95), 2.0,
                 (0.1, 0.85, 1.07), -52)  # fmt: skip


def nonconvex() -> Inner:
    """A head v on one unit, `v tanh(u x)`, with both adapting: a saddle between two valleys."""
    names = "layer before, u", "head, v"
    return Inner("nonconvex: the head and the layer before", names, _nonconvex_loss, _nonconvex_gradient,
                 (-1.1, 1.25), 2.0, (0.1, 0.6, 0.95), -62)  # fmt: skip


@typed
def path(inner: Inner, start: Float[np.ndarray, "*n 2"], rate: float, steps: int) -> Float[np.ndarray, "steps *n 2"]:
    """Gradient descent: `[steps + 1, ..., 2]` from starts `[..., 2]`.

    Example:
        >>> float(np.linalg.norm(np.diff(path(convex(), np.array([1.0, 1.0]), 0.5, 200)[-2:], axis=0))) < 1e-9
        True
    """
    points = [np.asarray(start, float)]
    for _ in range(steps):
        points.append(points[-1] - rate * inner.gradient(points[-1]))
    return np.array(points)


@typed
def pencil(inner: Inner, steps: int = 240) -> Float[np.ndarray, "steps n 2"]:
    """The flow of a ring of starts around the start: `[steps + 1, 28, 2]`."""
    angle = np.linspace(0, 2 * np.pi, STARTS, endpoint=False)
    ring = RADIUS * np.stack([np.cos(angle), np.sin(angle)], -1)
    return path(inner, inner.start + ring, FINE, steps)


def _grid(inner: Inner, points: int) -> np.ndarray:
    side = np.linspace(-inner.limit, inner.limit, points)
    return np.stack(np.meshgrid(side, side), -1)


def _height(inner: Inner, w: np.ndarray) -> np.ndarray:
    """The root of the loss: lower mountains, and a bowl stays a bowl."""
    return np.sqrt(inner.loss(w))


def _surface(ax: Axes, inner: Inner) -> None:
    w = _grid(inner, 101)
    z = _height(inner, w)
    light = LightSource(azdeg=300, altdeg=50)
    colours = light.shade(z, cmap=colormaps["cividis"], vert_exag=7, blend_mode="soft")
    ax.plot_surface(w[..., 0], w[..., 1], z, facecolors=colours, rstride=1, cstride=1, linewidth=0, shade=False,
                    antialiased=False)  # fmt: skip
    ax.contour(w[..., 0], w[..., 1], z, 16, colors="white", linewidths=0.8, alpha=0.25, zorder=5)
    flow = pencil(inner)
    height = _height(inner, flow) + 0.03
    centre = np.asarray(inner.start)
    right = flow[-1, :, 0] > 0 if np.ptp(flow[-1, :, 0]) > 1 else ((flow[0] - centre).sum(-1) > 0)
    for line, z, side in zip(flow.swapaxes(0, 1), height.T, right, strict=True):
        colour = SIDES[0 if side else 1]
        ax.plot(*line.T, z, color="#111111", linewidth=2.6, alpha=0.35, zorder=10)
        ax.plot(*line.T, z, color=colour, linewidth=1.4, zorder=11)
        ax.plot(*line[:1].T, z[:1], "o", color=colour, markersize=3.6, zorder=12, mec="#111111", mew=0.4)
    for side in (True, False):
        ends, z = flow[-1, right == side], height[-1, right == side]
        ax.plot(*ends.T, z, "*", color=SIDES[0 if side else 1], markersize=11, zorder=13, mec="#111111", mew=0.6)
    ax.set_axis_off()
    ax.view_init(elev=38, azim=inner.seen_from)
    ax.set_box_aspect((1, 1, 0.5), zoom=1.28)


def _map(ax: Axes, inner: Inner) -> None:
    side = _grid(inner, 181)
    z = _height(inner, side)
    levels = np.linspace(z.min(), z.max(), 20)
    ax.contourf(side[..., 0], side[..., 1], z, levels, cmap="cividis")
    ax.contour(side[..., 0], side[..., 1], z, levels, colors="white", linewidths=0.8, alpha=0.2)
    ax.grid(False)
    for rate, colour in zip(inner.rates, RATES, strict=True):
        steps = path(inner, np.array(inner.start), rate, 14)
        for a, b in pairwise(steps):
            if np.abs(b - a).max() > 0.03 and np.abs(a).max() < inner.limit:
                arrow = FancyArrowPatch(a, b, arrowstyle="-|>", color=colour, linewidth=1.5, shrinkA=0, shrinkB=0)
                arrow.set(mutation_scale=9, zorder=5)
                ax.add_patch(arrow)
        ax.plot([], [], color=colour, linewidth=2, label=f"α = {rate:g}")
    ax.plot(*inner.start, "o", color="black", markersize=7, markeredgecolor="white")
    limits = -inner.limit, inner.limit
    ax.set(xlim=limits, ylim=limits, xlabel=inner.axes[0], ylabel=inner.axes[1], xticks=(-2, 0, 2), yticks=(-2, 0, 2))
    ax.legend(loc="upper right", fontsize=9, ncols=3, facecolor="#333344", labelcolor="white", framealpha=0.8,
              handlelength=1.2, columnspacing=1.2)  # fmt: skip


def draw() -> Figure:
    """Both geometries: above, where a ring of neighbouring starts flows to; below, what three inner rates do.

    Returns:
        A figure, to be shown with `alt()`.

    Source: notebooks/03_anil_inner_loop_geometry, section 1.
    """
    fig, _ = plots.figure(10, 8.6, boxes=[(0, 0, 0.001, 0.001)])
    fig.clf()
    for column, inner in enumerate((convex(), nonconvex())):
        above = fig.add_axes((-0.02 + 0.5 * column, 0.40, 0.54, 0.56), projection="3d", computed_zorder=False)
        _surface(above, inner)
        fig.text(0.25 + 0.5 * column, 0.97, inner.title, ha="center", fontsize=13, fontweight="bold")
        _map(fig.add_axes((0.07 + 0.49 * column, 0.07, 0.42, 0.35)), inner)
    return fig


def alt() -> str:
    """The alt text of `draw`, with the measured spread of the ends."""
    before = 2 * RADIUS
    after = [float(np.linalg.norm(np.ptp(pencil(inner)[-1], axis=0))) for inner in (convex(), nonconvex())]
    return (
        f"Two loss surfaces over two parameters. On the bowl of the strongly convex inner problem a ring of starts "
        f"{before:.1f} wide flows to one point ({after[0]:.2f} wide). On the saddle of the nonconvex one it splits "
        f"into two valleys ({after[1]:.1f} wide). Below, paths at three inner rates: on the bowl the small ones go to "
        "the minimum and the largest zigzags away from it; on the saddle each ends at another point of the valley."
    )
