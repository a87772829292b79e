"""The analytic MetaNTK of many tasks: one kernel over all points and block algebra, against loops over task pairs."""

from __future__ import annotations

from collections.abc import Callable

import jax
import numpy as np
from jax import Array

from benchmarks._measure import alternate, ratios, summary, table
from mlkernels import kernels, metantk
from mlkernels.networks import MLP
from mlkernels.tasks import TaskBatch, sinusoid

NETWORK = MLP(1, depth=2)  # the width of an infinite kernel does not matter
LOOP = {"inner_rate": 0.01, "inner_steps": 10}
GOAL = 40  # times faster than the straightforward loop, at 32 tasks
OURS, PLAIN = "mlkernels, jitted by the user", "mlkernels, plain call"
LOOPED = "loop over task pairs"
AHEAD, HALF = "tuned: tasks cut once, no waiting", "tuned: also operators once, upper half"
LOOPS = (LOOPED, AHEAD, HALF)


def ntk(x1: Array, x2: Array) -> Array:
    return kernels.infinite_kernels(NETWORK, x1, x2).ntk


def plain(tasks: TaskBatch) -> Array:
    """What a notebook calls."""
    return metantk.analytic_metantk(tasks, ntk, **LOOP)


jitted = jax.jit(plain)


@jax.jit
def operator(query: Array, support: Array) -> Array:
    """A of one task, `[n, m]`."""
    return ntk(query, support) @ metantk.adaptation_operator(ntk(support, support), **LOOP)


@jax.jit
def block(query1: Array, support1: Array, query2: Array, support2: Array) -> Array:
    """The block of two tasks as the paper writes it, `[n, n]`."""
    return block_with(query1, support1, operator(query1, support1), query2, support2, operator(query2, support2))


@jax.jit
def block_with(query1, support1, A1, query2, support2, A2) -> Array:
    return (
        ntk(query1, query2)
        - A1 @ ntk(support1, query2)
        - ntk(query1, support2) @ A2.T
        + A1 @ ntk(support1, support2) @ A2.T
    )


def _tasks(tasks: TaskBatch) -> list[tuple[Array, Array]]:
    return list(zip(tasks.query_x, tasks.support_x, strict=True))


def double_loop(tasks: TaskBatch) -> np.ndarray:
    """The straightforward way: one jitted function for a pair of tasks, called for every pair, block after block.

    Most of its time goes into cutting tasks out of arrays and waiting, which `ahead_loop` saves.
    """
    n = tasks.queries
    phi = np.empty((len(tasks) * n, len(tasks) * n))
    for i in range(len(tasks)):
        for j in range(len(tasks)):
            phi[i * n : (i + 1) * n, j * n : (j + 1) * n] = block(
                tasks.query_x[i], tasks.support_x[i], tasks.query_x[j], tasks.support_x[j]
            )
    return phi


def ahead_loop(tasks: TaskBatch) -> np.ndarray:
    """The same loop, tuned: each task is cut out once, and all blocks are asked for before the first is waited for."""
    each = _tasks(tasks)
    blocks = [[block(*one, *other) for other in each] for one in each]
    return np.block([[np.asarray(cell) for cell in row] for row in blocks])


def half_loop(tasks: TaskBatch) -> np.ndarray:
    """Tuned further: each task's operator once, and only the blocks on and above the diagonal."""
    each = [(*one, operator(*one)) for one in _tasks(tasks)]
    blocks = {(i, j): block_with(*each[i], *each[j]) for i in range(len(each)) for j in range(i, len(each))}
    cells = {place: np.asarray(cell) for place, cell in blocks.items()}
    span = range(len(each))
    return np.block([[cells[i, j] if i <= j else cells[j, i].T for j in span] for i in span])


def difference(tasks: TaskBatch) -> float:
    """The largest difference between any two ways, over the kernel's largest entry."""
    reference = double_loop(tasks)
    others = (np.asarray(way(tasks)) for way in (plain, jitted, ahead_loop, half_loop))
    return float(max(np.abs(other - reference).max() for other in others) / np.abs(reference).max())


def measure(
    seed: int = 0,
    sizes: tuple[int, ...] = (32, 64, 128),
    points: int = 10,
    runs: int = 15,
    loop_runs: Callable[[int], int] = lambda tasks: 5 if tasks <= 32 else 1,
) -> dict:
    """Time each way at each number of tasks, `points` support and `points` query points a task.

    Returns:
        `settings` and, by number of tasks, `times`, `times_faster` and `max_relative_difference`; `goal`.
    """
    by_tasks = {}
    for count in sizes:
        tasks = sinusoid(tasks=count, support=points, queries=points, key=jax.random.key(seed))
        ways = {OURS: jitted, PLAIN: plain, LOOPED: double_loop, AHEAD: ahead_loop, HALF: half_loop}
        turns = {OURS: runs, PLAIN: runs, **dict.fromkeys(LOOPS, loop_runs(count))}
        times = summary(alternate({name: lambda way=way, tasks=tasks: way(tasks) for name, way in ways.items()}, turns))
        by_tasks[str(count)] = {
            "times": times,
            "times_faster": {
                f"{ours} against {theirs}": ratios(times, theirs, ours) for ours in (OURS, PLAIN) for theirs in LOOPS
            },
            "max_relative_difference": difference(tasks),
        }
    first = by_tasks[str(sizes[0])]["times_faster"]
    met = {ours: first[f"{ours} against {LOOPED}"]["min"] >= GOAL for ours in (OURS, PLAIN)}
    return {
        "settings": {
            "tasks": list(sizes), "support": points, "queries": points, "kernel": repr(NETWORK), **LOOP,
            "inputs": "sinusoid tasks, one dimension", "dtype": "float64",
        },
        "by_tasks": by_tasks,
        "goal": {"times_faster": GOAL, "than": LOOPED, "tasks": sizes[0], "met": met},
    }  # fmt: skip


def report(result: dict) -> str:
    """The result for people."""
    rows = [["tasks, way", "min ms", "median ms", "runs"]]
    lines = []
    for count, found in result["by_tasks"].items():
        for name, t in found["times"].items():
            rows.append([f"{count}  {name}", f"{1e3 * t['min_s']:.1f}", f"{1e3 * t['median_s']:.1f}", str(t["runs"])])
        for what, ratio in found["times_faster"].items():
            lines.append(f"{count} tasks: {what}: {ratio['min']} times faster (median {ratio['median']})")
        lines.append(f"{count} tasks: largest difference {found['max_relative_difference']:.1e} of the largest entry")
    goal = result["goal"]
    for ours, met in goal["met"].items():
        verdict = "met" if met else "NOT met"
        lines.append(
            f"{goal['times_faster']} times faster than the {goal['than']}, {goal['tasks']} tasks: {ours}: {verdict}"
        )
    return "\n".join([table(rows), *lines])
