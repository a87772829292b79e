"""The demo of notebook 08: four tasks of one number, few points a step; where MAML ends, and where MOML does.

Nothing is drawn at random. A step of either learner is affine in (1, w, u_1, ..., u_4), so that the second moments of
all these follow a linear recursion, whose matrix is known from the moments of the inner loop's product.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import comb
from typing import Any

import numpy as np

from mlkernels.course import plots
from mlkernels.course.demos.demo import Demo, Stage, steps
from mlkernels.course.demos.grid import Grid

SHARP = 4.0  # the curvature of a point that has the feature; the others have none
CURVATURES = np.array([0.25, 0.5, 1.0, 2.0])  # mu, of the tasks' losses
OPTIMA = np.array([-1.5, -0.5, 0.5, 1.5])  # c
NOISE = 0.3  # sigma, standard deviation of the labels' noise
START = -3.0  # w_0
POINTS = (1, 2, 3, 5, 10, 30, 100)
BETAS = (0.05, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
RATES = (0.05, 0.1, 0.2, 0.4, 0.6, 0.8)
INNER = (1, 2, 3, 5, 10, 20)
OUTER = (0.001, 0.003, 0.01, 0.03, 0.1)
LAST = 100_000
AT = np.unique(np.round(np.geomspace(1, LAST, 121)).astype(int))  # outer steps that are shown


def powers_of_a_factor(mu: float, points: int, rate: float, most: int) -> tuple[np.ndarray, np.ndarray]:
    """E[(1 - a h)^p] and E[(1 - a h)^p n^2] for p = 0, ..., most: h is the curvature of K points, n their noise.

    h = SHARP * Binomial(K, mu / SHARP) / K, and n has the variance sigma^2 h / K once h is known.
    """
    share, count = mu / SHARP, np.arange(points + 1)
    chance = np.array([comb(points, k) * share**k * (1 - share) ** (points - k) for k in range(points + 1)])
    h = SHARP * count / points
    powers = (1 - rate * h) ** np.arange(most + 1)[:, None]
    return powers @ chance, powers @ (chance * NOISE**2 * h / points)


def product_moments(mu: float, points: int, rate: float, inner: int) -> tuple[np.ndarray, np.ndarray]:
    """E[P^p], p = 0, ..., 4, and E[v^2 P^p], p = 0, 1, 2: after N steps w' - c = P (w - c) + v.

    Args:
        mu: the task's curvature.
        points: K, in each inner step anew.
        rate, inner: a and N.

    Source: notebooks/08_more_steps_fewer_samples.
    """
    one, with_noise = powers_of_a_factor(mu, points, rate, 4)
    kept, left = np.ones(5), np.zeros(3)
    for _ in range(inner):
        left = one[2:5] * left + rate**2 * with_noise[:3] * kept[:3]
        kept = kept * one
    return kept, left


@lru_cache(maxsize=256)
def second_moments(points: int, beta: float, rate: float, inner: int, outer: float) -> np.ndarray:
    """The matrix of one outer step for E[s s^T], s = (1, w, u_1, ..., u_T), `[(T + 2)^2, (T + 2)^2]`.

    One task a step, drawn evenly; MOML with the same points in its memory and its derivative, as its code has it:
    u' = (1 - beta) u + beta w^N,  w' = w - outer P (h (u' - c) - n), where `outer` is beta times the outer rate.
    With beta = 1 it is MAML.
    """
    size = len(OPTIMA) + 2
    total = np.zeros((size, size, size, size))
    for i, (mu, c) in enumerate(zip(CURVATURES, OPTIMA, strict=True)):
        kept, left = product_moments(mu, points, rate, inner)
        u = np.zeros((2, size))  # u' - c without v, by powers of P
        u[0, 0], u[0, 2 + i] = -(1 - beta) * c, 1 - beta
        u[1, 0], u[1, 1] = -beta * c, beta
        spread = np.sqrt(mu * (SHARP - mu) / points)
        for h in (mu - spread, mu + spread):  # the step is affine in the queries' h: two moments of it are enough
            A, B = np.zeros((3, size, size)), np.zeros((2, size, size))  # of P^0, P, P^2; of v, v P
            A[0] = np.eye(size)
            A[0, 2 + i] = u[0]
            A[0, 2 + i, 0] += c
            A[1, 2 + i] = u[1]
            A[1, 1] -= outer * h * u[0]
            A[2, 1] -= outer * h * u[1]
            B[0, 2 + i, 0] = beta
            B[1, 1, 0] = -outer * h * beta
            for these, moments in ((A, kept), (B, left)):
                for p, one in enumerate(these):
                    for q, other in enumerate(these):
                        total += moments[p + q] / 2 * np.einsum("ij,kl->ikjl", one, other)
        total[1, 1, 0, 0] += outer**2 * kept[2] * NOISE**2 * mu / points  # the queries' noise
    return (total / len(OPTIMA)).reshape(size**2, size**2)


def weights(points: int, beta: float, rate: float, inner: int) -> np.ndarray:
    """`[T]`, how much each task pulls where the learner comes to rest: mu ((1 - beta) E[P]^2 + beta E[P^2]).

    With infinitely many points they are those of the meta-loss.
    """
    first, second = np.array([product_moments(mu, points, rate, inner)[0][1:3] for mu in CURVATURES]).T
    return CURVATURES * ((1 - beta) * first**2 + beta * second)


def meta_loss(rate: float, inner: int) -> tuple[float, float]:
    """Minimum and curvature of the meta-loss, of inner steps along the tasks' own gradients."""
    pulls = CURVATURES * (1 - rate * CURVATURES) ** (2 * inner)
    return float(pulls @ OPTIMA / pulls.sum()), float(pulls.mean())


def bias(points: int, beta: float, rate: float, inner: int) -> float:
    """The excess of the meta-loss where the learner comes to rest in the mean, whatever its outer rate."""
    best, curvature = meta_loss(rate, inner)
    pulls = weights(points, beta, rate, inner)
    return curvature / 2 * float(pulls @ OPTIMA / pulls.sum() - best) ** 2


@np.errstate(over="ignore", invalid="ignore")  # where it diverges
def excess(points: int, beta: float, rate: float, inner: int, outer: float) -> tuple[np.ndarray, float]:
    """The mean excess of the meta-loss after `AT` outer steps, and at the end of all steps; inf where it diverges."""
    best, curvature = meta_loss(rate, inner)
    size = len(OPTIMA) + 2
    M = second_moments(points, beta, rate, inner, outer)
    s = np.concatenate([[1.0], np.full(size - 1, START)])
    state, powers, t, found = np.outer(s, s).ravel(), [M], 0, []
    for stop in AT.tolist():  # powers of M that are powers of two
        for k in range((stop - t).bit_length()):
            if k == len(powers):
                powers.append(powers[-1] @ powers[-1])
            if (stop - t) >> k & 1:
                state = powers[k] @ state
        t = stop
        found.append(curvature / 2 * (state[size + 1] - 2 * best * state[1] + best**2))
    stable = np.abs(np.linalg.eigvals(M[1:, 1:])).max() < 1
    rest = np.linalg.solve(np.eye(size**2 - 1) - M[1:, 1:], M[1:, 0]) if stable else np.full(size**2 - 1, np.inf)
    floor = curvature / 2 * (rest[size] - 2 * best * rest[0] + best**2) if stable else np.inf
    return np.array(found), float(floor)


@dataclass(frozen=True)
class Numbers:
    """What one setting gives; MAML first, MOML second. Losses are in excess of the least meta-loss, over the start's.

    Args:
        points, beta: K and beta of the setting.
        curves: `[2, stops]`, after `AT` outer steps.
        floors: where they end; not finite where they diverge.
        biases: the part of the floor that no outer rate takes away.
        by_points: `[2, K]`, that part for each number of points in `POINTS`.
        factors: the smallest and the largest E[P^2] of the four tasks.
    """

    points: int
    beta: float
    curves: np.ndarray
    floors: tuple[float, float]
    biases: tuple[float, float]
    by_points: np.ndarray
    factors: tuple[float, float]


_LOST, _NOTHING = 1e6, 1e-12


def numbers(points: int, beta: float, rate: float, inner: int, outer: float) -> Numbers:
    """Curves and floors of MAML and of MOML that take outer steps of the same size.

    Args:
        points: K, of each inner step and of the queries.
        beta: of MOML.
        rate: alpha; each of the `inner` steps has alpha / N.
        inner: N.
        outer: MAML's outer rate, and beta times that of MOML.

    Source: Wang, Yuan, Ying and Yang 2023, on a problem of this course's; notebooks/08_more_steps_fewer_samples.
    """
    step = rate / inner
    best, curvature = meta_loss(step, inner)
    start = curvature / 2 * (START - best) ** 2
    runs = [excess(points, b, step, inner, outer) for b in (1.0, beta)]
    curves = np.nan_to_num(np.stack([curve for curve, _ in runs]) / start, nan=_LOST, posinf=_LOST)
    by_points = np.array([[bias(K, b, step, inner) / start for K in POINTS] for b in (1.0, beta)])
    seconds = [product_moments(mu, points, step, inner)[0][2] for mu in CURVATURES]
    return Numbers(
        points=points,
        beta=beta,
        curves=curves.clip(_NOTHING, _LOST),
        floors=tuple(floor / start for _, floor in runs),
        biases=tuple(by_points[:, POINTS.index(points)].tolist()),
        by_points=by_points,
        factors=(float(min(seconds)), float(max(seconds))),
    )


# --- drawn ------------------------------------------------------------------------------------------------------------

LEARNERS = {"MAML": "MAML", "MOML": "ANIL"}  # and whose look is used for it: no ANIL is near
_LIMITS = (1e-7, 10.0)


def _stage() -> Stage:
    fig, (left, right) = plots.figure(10.5, 3.8, boxes=[(0.075, 0.155, 0.55, 0.72), (0.72, 0.155, 0.265, 0.72)])
    moving: dict[str, Any] = {}
    for name, method in LEARNERS.items():
        look = plots.look(method)
        (moving[name],) = left.plot([], [], **look | {"marker": ""}, linewidth=2, label=name)
        (moving[f"{name} bias"],) = left.plot([], [], color=look["color"], linestyle=(0, (2, 2)), linewidth=1.2,
                                              label="its floor for η → 0")  # fmt: skip
        (moving[f"{name} by points"],) = right.plot([], [], **look | {"markersize": 4}, linewidth=1.2, label=name)
        (moving[f"{name} here"],) = right.plot([], [], color=look["color"], marker=look["marker"], linestyle="",
                                               markersize=10, markeredgecolor="black")  # fmt: skip
        for ax, where in ((left, "below"), (right, "by points, below")):
            (moving[f"{name} {where}"],) = ax.plot([], [], color=look["color"], marker="v", linestyle="", markersize=6)
    left.set(xscale="log", yscale="log", xlim=(1, LAST), ylim=_LIMITS, xlabel="outer step")
    left.set_ylabel("excess meta-loss / at the start")
    left.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=4, fontsize=9, borderpad=0.1, columnspacing=1.2)
    right.set(xscale="log", yscale="log", xlim=(0.8, 130), ylim=_LIMITS, xlabel="points K")
    right.set_title("floors for η → 0", fontsize=10)
    right.set_xticks(POINTS, [str(K) for K in POINTS])
    right.minorticks_off()
    right.legend(fontsize=9, loc="upper right")
    return Stage(fig, **moving)


def _move(stage: Stage, n: Numbers) -> None:
    for i, name in enumerate(LEARNERS):
        stage[name].set_data(AT, n.curves[i])
        stage[f"{name} bias"].set_data([1, LAST], [max(n.biases[i], _NOTHING)] * 2)
        stage[f"{name} by points"].set_data(POINTS, np.maximum(n.by_points[i], _NOTHING))
        stage[f"{name} here"].set_data([n.points], [max(n.biases[i], _NOTHING)])
        edge = 1.5 * _LIMITS[0]
        shift = (0.93, 1.07)[i]  # else one hides the other
        low = [K * shift for K, floor in zip(POINTS, n.by_points[i], strict=True) if floor < _LIMITS[0]]
        stage[f"{name} by points, below"].set_data(low, [edge] * len(low))
        lost = [0.6 * LAST / shift**4] if n.biases[i] < _LIMITS[0] else []
        stage[f"{name} below"].set_data(lost, [edge] * len(lost))


def _ends(n: Numbers, i: int) -> str:
    if not np.isfinite(n.floors[i]):
        return "diverges in the second moment"
    return f"ends at {n.floors[i]:.2g}, for η → 0 at {n.biases[i]:.2g}"


def _readout(n: Numbers) -> str:
    low, high = n.factors
    learners = " · ".join(f"{name} {_ends(n, i)}" for i, name in enumerate(LEARNERS))
    return f"{learners} · E[P²] of the tasks {low:.3g} to {high:.3g}"


def _describe(n: Numbers) -> str:
    learners = "; ".join(f"{name} {_ends(n, i)}" for i, name in enumerate(LEARNERS))
    return (
        f"Excess meta-loss over outer steps of MAML and of MOML with beta {n.beta:g} and {n.points} points, relative "
        f"to the start, and beside it the floors for small outer rates by the number of points: {learners}."
    )


DEMO = Demo(
    name="memory_floor",
    question="Which slider lowers MAML's floor, which one MOML's, and which one does both harm?",
    controls=(
        steps("points", "points K", POINTS, 1, "of each inner step, and as many queries"),
        steps("beta", "memory's β", BETAS, 0.3, "of MOML; with 1 it is MAML"),
        steps("rate", "inner rate α", RATES, 0.4, "in all: each inner step has α / N"),
        steps("inner", "inner steps N", INNER, 1, "each on points of its own"),
        steps("outer", "outer rate η", OUTER, 0.01, "MAML's, and β times MOML's: steps of the same size"),
    ),
    compute=numbers,
    stage=_stage,
    move=_move,
    describe=_describe,
    readout=_readout,
    twin=({}, {"outer": 0.001}, {"outer": 0.001, "beta": 0.05}, {"points": 10}, {"inner": 10}, {"outer": 0.1}),
    grid=Grid(together=(("points", "beta"), ("rate", "inner"), ("outer", "beta"), ("outer", "points"))),
)  # fmt: skip
