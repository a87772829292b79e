"""A step of MAML, the meta-gradient through five inner steps of four tasks, against PyTorch."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks._measure import alternate, ratios, summary, table
from mlkernels.learners import maml
from mlkernels.networks import MLP, Conv4
from mlkernels.tasks import TaskBatch, sinusoid

TORCH = "torch==2.13.0"
OURS = "mlkernels"
TASKS = 4


@dataclass(frozen=True)
class Case:
    """One network with its tasks.

    Args:
        network: in the standard parametrisation, so that both sides multiply by nothing else.
        image: height, width and channels, or `(1,)` for the sinusoid.
        rate: of the inner loop; small enough that nothing diverges.
        runs: how many times each side is timed.
        goal: how many times faster than the fastest of PyTorch's ways.
    """

    network: MLP | Conv4
    image: tuple[int, ...]
    rate: float
    runs: int
    goal: float

    @property
    def loss(self) -> str:
        return "cross_entropy" if isinstance(self.network, Conv4) else "half_sum_squares"

    @property
    def inner(self) -> maml.InnerLoop:
        return maml.InnerLoop(self.rate, 5, self.loss)

    def data(self, seed: int) -> tuple[dict, TaskBatch]:
        """Parameters and tasks in float32: sinusoids, 10 and 10 points; or noise images, 5-way 1-shot, 75 queries."""
        keys = jax.random.split(jax.random.key(seed), 2)
        params = self.network.init(keys[0], self.image, jnp.float32)
        if isinstance(self.network, MLP):
            tasks = sinusoid(tasks=TASKS, support=10, queries=10, key=keys[1])
            return params, jax.tree.map(lambda leaf: leaf.astype(jnp.float32), tasks)
        x = jax.random.normal(keys[1], (TASKS, 80, *self.image), jnp.float32)
        y = jnp.tile(jnp.eye(5, dtype=jnp.float32)[None], (TASKS, 16, 1))
        return params, TaskBatch(x[:, :5], y[:, :5], x[:, 5:], y[:, 5:])


def _mlp(width: int, runs: int, goal: float) -> Case:
    return Case(MLP(width, parametrization="standard"), (1,), 0.02 / width, runs, goal)


CASES = {
    "sinusoid, MLP of width 64": _mlp(64, 100, 10),
    "sinusoid, MLP of width 256": _mlp(256, 40, 3),
    "sinusoid, MLP of width 1024": _mlp(1024, 10, 1.5),
    "28x28, Conv-4 of 64": Case(Conv4(64, outputs=5, parametrization="standard"), (28, 28, 1), 0.01, 5, 1),
    "84x84, Conv-4 of 32": Case(Conv4(32, outputs=5, parametrization="standard"), (84, 84, 3), 0.01, 3, 1),
}


def sides(case: Case, seed: int, torch: bool) -> dict[str, Callable]:
    """The calls to be timed, by name; each gives `(loss, gradient)`."""
    params, tasks = case.data(seed)

    def ours():
        return maml.meta_gradient(case.network.apply, params, tasks, case.inner, outer_loss=case.loss)

    calls = {OURS: ours}
    if torch:
        from benchmarks import _maml_torch

        given = _maml_torch.weights(case.network, params, case.image), _maml_torch.batch(case.network, tasks)
        for name, way in _maml_torch.WAYS.items():
            calls[name] = partial(way(case.network, case.inner, case.loss), *given)
    return calls


def difference(calls: dict[str, Callable]) -> float:
    """The largest relative difference of the losses, and of the gradients' norms, between ours and the others."""

    def numbers(result):
        loss, gradient = result
        squares = sum(float((np.asarray(leaf) ** 2).sum()) for leaf in jax.tree.leaves(gradient))
        return np.array([float(loss), squares**0.5])

    reference = numbers(calls[OURS]())
    others = [numbers(call()) for name, call in calls.items() if name != OURS]
    return float(max((np.abs(other / reference - 1).max() for other in others), default=0.0))


def measure(seed: int = 0, cases: dict[str, Case] = CASES) -> dict:
    """Time each side on each case, in turn; PyTorch is left out where it is not installed.

    Returns:
        `settings` and, by case, `times`, `times_faster`, `first_call_s` (ours, with compilation),
        `max_relative_difference` and `goal`.
    """
    torch = find_spec("torch") is not None
    by_case = {}
    for name, case in cases.items():
        calls = sides(case, seed, torch)
        start = time.perf_counter()
        jax.block_until_ready(calls[OURS]())
        first = time.perf_counter() - start
        found = {"first_call_s": round(first, 2), "max_relative_difference": difference(calls)}
        found["times"] = times = summary(alternate(calls, case.runs))
        found["times_faster"] = {them: ratios(times, them, OURS) for them in calls if them != OURS}
        best = min((ratio["min"] for ratio in found["times_faster"].values()), default=None)
        found["goal"] = {"times_faster": case.goal, "met": None if best is None else best >= case.goal}
        by_case[name] = found
    return {
        "settings": {
            "tasks": TASKS, "inner_steps": 5, "second_order": True, "dtype": "float32", "torch": _version(torch),
            "threads": "both sides use all cores",
            "data": "10 support and 10 query points of sinusoids; noise images, 5-way 1-shot with 75 queries",
        },
        "by_case": by_case,
    }  # fmt: skip


def _version(there: bool) -> str:
    if not there:
        return "not installed"
    import torch

    return torch.__version__


def report(result: dict) -> str:
    """The result for people."""
    rows, lines = [["case, side", "min ms", "median ms", "runs"]], []
    for case, found in result["by_case"].items():
        for name, t in found["times"].items():
            rows.append([f"{case}  {name}", f"{1e3 * t['min_s']:.2f}", f"{1e3 * t['median_s']:.2f}", str(t["runs"])])
        for them, ratio in found["times_faster"].items():
            lines.append(f"{case}: {ratio['min']} times faster than {them} (median {ratio['median']})")
        goal = found["goal"]
        verdict = {True: "met", False: "NOT met", None: "not tested"}[goal["met"]]
        lines.append(
            f"{case}: first call with compilation {found['first_call_s']} s; largest relative difference "
            f"{found['max_relative_difference']:.1e}; goal {goal['times_faster']:g} times: {verdict}"
        )
    if result["settings"]["torch"] == "not installed":
        lines.append(f"PyTorch is not installed: .venv/bin/python -m pip install {TORCH}, then again")
    return "\n".join([table(rows), *lines])
