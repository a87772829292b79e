"""An outer step of Meta-RKHS-I and II against MAML with five and ten inner steps: same network and tasks, in turns."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks._measure import alternate, ratios, summary, table
from mlkernels.learners import maml, rkhs
from mlkernels.networks import MLP, Conv4
from mlkernels.tasks import TaskBatch, sinusoid

PEER = "MAML, 5 steps"
WAY = 5
TIME = 10.0


@dataclass(frozen=True)
class Case:
    """A network and tasks of one size.

    Args:
        network: whose outputs are as many as the labels.
        tasks, support, queries: B, m, n.
        shape: of a point.
        runs: how many times each side is timed.
        goal: how many times faster than MAML with five steps Meta-RKHS-II is to be.
        kernels: how outputs make a kernel, each a side; "sum" alone for large ones.
    """

    network: MLP | Conv4
    tasks: int
    support: int
    queries: int
    shape: tuple[int, ...]
    runs: int
    goal: float
    kernels: tuple[str, ...] = field(default=("full",))

    def data(self, seed: int) -> tuple[dict, TaskBatch]:
        """Parameters and tasks in float32: sinusoids, or noise images of five classes."""
        keys = jax.random.split(jax.random.key(seed), 3)
        params = self.network.init(keys[0], self.shape, jnp.float32)
        if isinstance(self.network, MLP):
            sizes = {"tasks": self.tasks, "support": self.support, "queries": self.queries}
            return params, sinusoid(**sizes, key=keys[1], dtype=jnp.float32)

        def points(key, count):
            x = jax.random.uniform(key, (self.tasks, count, *self.shape), jnp.float32)
            y = jnp.repeat(jnp.eye(WAY, dtype=jnp.float32), count // WAY, axis=0) - 1 / WAY
            return x, jnp.broadcast_to(y, (self.tasks, *y.shape))

        return params, TaskBatch(*points(keys[1], self.support), *points(keys[2], self.queries))

    def sides(self) -> dict[str, Any]:
        """What stands in the place of the inner loop, by name; all on half the sum of squares."""
        loop = maml.InnerLoop(0.001, 5)
        found = {PEER: loop, "MAML, 10 steps": replace(loop, steps=10)}
        found |= {"FOMAML, 5 steps": replace(loop, first_order=True), "Meta-RKHS-I": rkhs.Regularised(1e-4)}
        return found | {f"Meta-RKHS-II, {k}": rkhs.ClosedForm(TIME, outputs=k) for k in self.kernels}


def _conv(support: int, queries: int, kernels=("sum",), runs: int = 5) -> Case:
    return Case(Conv4(32, outputs=WAY), 4, support, queries, (28, 28, 1), runs, 1.5, kernels)


CASES = {
    "sinusoid, 2 x 40 units, 25 tasks, 10 + 10 points": Case(MLP(40), 25, 10, 10, (1,), 101, 2.0),
    "28x28, Conv-4 of 32, 1 shot, 1 query a class": _conv(5, 5, ("sum", "full")),
    "28x28, Conv-4 of 32, 5 shots, 5 queries a class": _conv(25, 25),
    "28x28, Conv-4 of 32, 1 shot, 15 queries a class": _conv(5, 75, ("sum", "full")),
    "28x28, Conv-4 of 32, 5 shots, 15 queries a class": _conv(25, 75),
}


def measure(seed: int = 0, cases: dict[str, Case] = CASES) -> dict:
    """Time each side on each case, in turn.

    Returns:
        `settings` and, by case, `times`, `temporary_bytes` (XLA's figure for buffers beside arguments and results),
        `times_faster` than MAML with five steps, and `goal` for the quickest kernel of Meta-RKHS-II.
    """
    by_case = {}
    for name, case in cases.items():
        params, tasks = case.data(seed)
        step = partial(maml.meta_gradient, case.network.apply)
        made = {
            side: jax.jit(partial(step, inner=inner)).lower(params, tasks).compile()
            for side, inner in case.sides().items()
        }
        calls = {side: partial(program, params, tasks) for side, program in made.items()}
        times = summary(alternate(calls, case.runs))
        faster = {side: ratios(times, PEER, side) for side in made if side != PEER}
        best = max((side for side in faster if "II" in side), key=lambda side: faster[side]["median"])
        by_case[name] = {
            "times": times,
            "temporary_bytes": {side: int(p.memory_analysis().temp_size_in_bytes) for side, p in made.items()},
            "times_faster": faster,
            "goal": {"times_faster": case.goal, "by": best, "met": faster[best]["median"] >= case.goal},
        }
    networks = {name: repr(case.network) for name, case in cases.items()}
    settings = {"dtype": "float32", "time": TIME, "networks": networks}
    return {"settings": settings, "by_case": by_case}


def report(result: dict) -> str:
    """The result for people."""
    rows = [["case, side", "min ms", "median ms", "MiB", "times faster", "goal", "met"]]
    for case, found in result["by_case"].items():
        rows.append([case, *[""] * 6])
        for side, time in found["times"].items():
            ratio, goal = found["times_faster"].get(side, {}).get("median", 1.0), found["goal"]
            said = [f"{goal['times_faster']:g}", "yes" if goal["met"] else "NO"] if side == goal["by"] else ["", ""]
            memory = found["temporary_bytes"][side] / 2**20
            ms = [f"{1e3 * time[f'{kind}_s']:.2f}" for kind in ("min", "median")]
            rows.append([f"  {side}", *ms, f"{memory:.1f}", f"{ratio:.2f}", *said])
    return table(rows)
