"""A step of MAML, the meta-gradient through five inner steps of four tasks, against PyTorch.

PyTorch runs on as many threads as XLA takes, and on one: the fastest of its ways is what we are held against. On a
machine that others use, its threads wait for each other for most of the time, and one thread is faster.
"""

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
from mlkernels.support import provenance
from mlkernels.tasks import TaskBatch, sinusoid

TORCH = "torch==2.13.0"
OURS = "mlkernels"
ONE = ", 1 thread"
TASKS = 4
TOLERANCE = 1e-8  # between float64 answers, of a layer's largest entry


@dataclass(frozen=True)
class Case:
    """One network with its tasks.

    Args:
        network: in the standard parametrisation, so that both sides multiply by nothing else.
        image: height, width and channels, or `(1,)` for the sinusoid.
        rate: of the inner loop; for the perceptrons about a sixth of 2 / lambda_max of the support kernels.
        runs: how many times each side is timed; torch.func, mostly the slower, a third as often.
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

    def data(self, seed: int, dtype=jnp.float32) -> tuple[dict, TaskBatch]:
        """Parameters and tasks: sinusoids, 10 and 10 points; or noise images, 5-way 1-shot, 75 queries."""
        keys = jax.random.split(jax.random.key(seed), 2)
        params = self.network.init(keys[0], self.image, dtype)
        if isinstance(self.network, MLP):
            tasks = sinusoid(tasks=TASKS, support=10, queries=10, key=keys[1])
            return params, jax.tree.map(lambda leaf: leaf.astype(dtype), tasks)
        x = jax.random.normal(keys[1], (TASKS, 80, *self.image), dtype)
        y = jnp.tile(jnp.eye(5, dtype=dtype)[None], (TASKS, 16, 1))
        return params, TaskBatch(x[:, :5], y[:, :5], x[:, 5:], y[:, 5:])


def _mlp(width: int, runs: int, goal: float) -> Case:
    return Case(MLP(width, parametrization="standard"), (1,), 0.0025 / width, runs, goal)


CASES = {
    "sinusoid, MLP of width 64": _mlp(64, 100, 10),
    "sinusoid, MLP of width 256": _mlp(256, 40, 3),
    "sinusoid, MLP of width 1024": _mlp(1024, 10, 1.5),
    "28x28, Conv-4 of 64": Case(Conv4(64, outputs=5, parametrization="standard"), (28, 28, 1), 0.01, 5, 1),
    "84x84, Conv-4 of 32": Case(Conv4(32, outputs=5, parametrization="standard"), (84, 84, 3), 0.01, 3, 1),
}


def sides(case: Case, seed: int, torch: bool, dtype=jnp.float32) -> dict[str, Callable]:
    """The calls to be timed, by name; each gives `(loss, gradient)`."""
    params, tasks = case.data(seed, dtype)

    def ours():
        return maml.meta_gradient(case.network.apply, params, tasks, case.inner, outer_loss=case.loss)

    calls = {OURS: ours}
    if torch:
        from benchmarks import _maml_torch

        given = _maml_torch.weights(case.network, params, case.image), _maml_torch.batch(case.network, tasks)
        for suffix, threads in (("", provenance.device()["cores"]), (ONE, 1)):
            for name, way in _maml_torch.WAYS.items():
                call = partial(way(case.network, case.inner, case.loss), *given)
                calls[name + suffix] = _maml_torch.with_threads(threads, call)
    return calls


def difference(case: Case, ours, theirs) -> float:
    """How far two answers `(loss, gradient)` are apart: of the losses relative; in a layer over its largest entry.

    Not array by array: the gradient by the one bias of a perceptron's head is a sum that may cancel.
    """
    from benchmarks._maml_torch import layout

    apart, gradient = [abs(float(theirs[0]) / float(ours[0]) - 1)], layout(case.network, ours[1], case.image)
    for i in range(0, len(gradient), 2):
        pairs = list(zip(gradient[i : i + 2], theirs[1][i : i + 2], strict=True))
        apart.append(max(np.abs(a - np.asarray(b)).max() for a, b in pairs) / max(np.abs(a).max() for a, _ in pairs))
    return float(max(apart))


def _counted(call: Callable, seconds: list[float]) -> Callable:
    """The call, which adds the CPU seconds of all threads to a list."""

    def run():
        start = time.process_time()
        answer = jax.block_until_ready(call())
        seconds.append(time.process_time() - start)
        return answer

    return run


def measure(seed: int = 0, cases: dict[str, Case] = CASES) -> dict:
    """Time each side on each case, in turn; PyTorch is left out where it is not installed.

    Returns:
        `settings` and, by case, `times` and `cpu_times` (of all threads together), `times_faster` and `fastest` of
        theirs, `compile_s`, `max_relative_difference` and `goal`.

    Raises:
        RuntimeError: ours and theirs do not agree, so that there is nothing to compare.
    """
    torch = find_spec("torch") is not None
    by_case = {}
    for name, case in cases.items():
        calls = sides(case, seed, torch)
        theirs = [them for them in calls if them != OURS]
        start = time.perf_counter()
        jax.block_until_ready(calls[OURS]())
        first = time.perf_counter() - start
        exact = sides(case, seed, torch, jnp.float64)  # in float32, rounding turns the winner of a pooling window over
        same = exact[OURS]() if torch else None
        apart = max((difference(case, same, exact[them]()) for them in theirs if ONE not in them), default=None)
        if theirs and not apart < TOLERANCE:
            raise RuntimeError(f"{name}: ours and PyTorch's answers differ by {apart:.1e}, more than {TOLERANCE:.0e}")
        cpu = {them: [] for them in calls}
        runs = {them: max(1, case.runs // 3) if "func" in them else case.runs for them in calls}
        times = summary(alternate({them: _counted(call, cpu[them]) for them, call in calls.items()}, runs))
        found = {
            "times": times,
            "cpu_times": summary({them: seconds[1::2] for them, seconds in cpu.items()}),  # each second call is timed
            "compile_s": round(first - times[OURS]["min_s"], 2),
            "max_relative_difference": apart,
            "times_faster": {them: ratios(times, them, OURS) for them in theirs},
            "fastest": {},
            "goal": {"times_faster": case.goal, "met": None},
        }
        if theirs:
            for kind in ("min", "median"):
                ratio, them = min((found["times_faster"][them][kind], them) for them in theirs)
                found["fastest"][kind] = {"than": them, "ratio": ratio}
            found["goal"]["met"] = all(best["ratio"] >= case.goal for best in found["fastest"].values())
        by_case[name] = found
    return {
        "settings": {
            "tasks": TASKS, "inner_steps": 5, "second_order": True, "dtype": "float32", "torch": _version(torch),
            "threads": provenance.device()["cores"], "tolerance": TOLERANCE,
            "networks": {name: repr(case.network) for name, case in cases.items()},
            "inner_rates": {name: case.rate for name, case in cases.items()},
            "compilation_cache": jax.config.jax_compilation_cache_dir is not None,  # then `compile_s` says little
            "data": "10 support and 10 query points of sinusoids; noise images, 5-way 1-shot with 75 queries",
        },
        "by_case": by_case,
    }  # fmt: skip


def _version(there: bool) -> str:
    return provenance.version("torch") if there else "not installed"


def report(result: dict) -> str:
    """The result for people."""
    rows, lines = [["case, side", "min ms", "median ms", "CPU min ms", "runs"]], []
    for case, found in result["by_case"].items():
        for name, t in found["times"].items():
            ms = [t["min_s"], t["median_s"], found["cpu_times"][name]["min_s"]]
            rows.append([f"{case}  {name}", *(f"{1e3 * s:.2f}" for s in ms), str(t["runs"])])
        text = f"{case}: compiled in {found['compile_s']} s"
        if found["fastest"]:
            least, middle = found["fastest"]["min"], found["fastest"]["median"]
            goal, verdict = found["goal"]["times_faster"], "met" if found["goal"]["met"] else "NOT met"
            text += (
                f"; {least['ratio']} times faster than {least['than']} (median {middle['ratio']}, {middle['than']}); "
                f"goal {goal:g}: {verdict}; largest difference {found['max_relative_difference']:.1e}"
            )
        lines.append(text)
    if result["settings"]["torch"] == "not installed":
        lines.append(f"PyTorch is not installed: .venv/bin/python -m pip install {TORCH}, then again")
    return "\n".join([table(rows), *lines])
