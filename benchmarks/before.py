"""This build against an earlier one, in turns and fresh processes: kernels, demos' first pictures, their sliders."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks._measure import ROOT, table
from benchmarks._one_build import DEMOS
from mlkernels.errors import bad_input

COMMIT = "504974a"  # before kernels were computed layer by layer and in blocks
NOW, THEN = "now", "before"
GOALS = {  # times faster than before, by the median
    "MLP, trace": 40, "Conv-4, trace": 4, "MetaNTK, 64 tasks": 2, "MetaNTK, 64 tasks, jitted by the user": 2,
    "MetaNTK, 128 tasks": 2, "MetaNTK, 128 tasks, jitted by the user": 2,
}  # fmt: skip
FIRST_MS = {"cold": 2000, "warm": 500}


@contextmanager
def worktree(commit: str) -> Iterator[Path]:
    """The tree of a commit in a folder of its own."""

    def git(*arguments):
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)

    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "before"
        if (made := git("worktree", "add", "--detach", str(place), commit)).returncode:
            do = "fetch the whole history (git fetch --unshallow), or name another"
            raise bad_input("commit", "one of this repository's history", f"{commit} ({made.stderr.strip()})", do)
        try:
            yield place
        finally:
            git("worktree", "remove", "--force", str(place))


def one(root: Path, *what: str, cache: Path | None = None) -> dict:
    """What `_one_build` measures with the package in `root`, in a fresh process."""
    environment = {**os.environ, "PYTHONPATH": str(root)}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    if cache is not None:
        environment |= {"JAX_COMPILATION_CACHE_DIR": str(cache), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    command = [sys.executable, str(ROOT / "benchmarks" / "_one_build.py"), *what]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def _kernels(builds: dict[str, Path], turns: int) -> dict:
    """By case: of each build the quickest call of all turns and the median of their medians, and the ratio of both."""
    found = {}
    for what in ("empirical_ntk", "infinite"):
        each = {name: [] for name in builds}
        for _ in range(turns):
            for name, root in builds.items():
                each[name].append(one(root, what))
        for case in each[NOW][0]:
            rows = {}
            for name, measured in each.items():
                mine = [turn[case] for turn in measured]
                rows[name] = {
                    "min_ms": round(min(m["min_ms"] for m in mine), 2),
                    "median_ms": round(statistics.median(m["median_ms"] for m in mine), 2),
                    "turns": turns,
                } | {kind: mine[0][kind] for kind in ("temporary_bytes",) if kind in mine[0]}
            faster = {k: round(rows[THEN][f"{k}_ms"] / rows[NOW][f"{k}_ms"], 2) for k in ("min", "median")}
            found[case] = {"times": rows, "times_faster": faster}
            if case in GOALS:
                found[case]["goal"] = {"times_faster": GOALS[case], "met": faster["median"] >= GOALS[case]}
    return found


def _first_pictures(builds: dict[str, Path], turns: int) -> dict:
    """By demo and build: milliseconds to what is seen first, with an empty cache of programs and with what that run
    has left; and to the picture computed, where a poster was seen before it.
    """
    found = {}
    states = [*FIRST_MS, *(f"{state}, computed" for state in FIRST_MS)]
    for demo in DEMOS:
        times = {name: {state: [] for state in states} for name in builds}
        for _ in range(turns):
            for name, root in builds.items():
                with tempfile.TemporaryDirectory() as cache:
                    for state in FIRST_MS:
                        measured = one(root, "first_picture", demo, cache=Path(cache))
                        times[name][state].append(measured["ms"])
                        times[name][f"{state}, computed"].append(measured["computed_ms"])
        found[demo] = {
            name: {state: round(statistics.median(each), 1) for state, each in states.items()}
            for name, states in times.items()
        }
        found[demo]["met"] = {state: found[demo][NOW][state] < goal for state, goal in FIRST_MS.items()}
    return found


def _sliders(builds: dict[str, Path]) -> dict:
    """By demo and control: the median milliseconds of each build."""
    found = {demo: {name: one(root, "sliders", demo) for name, root in builds.items()} for demo in DEMOS}
    return {
        demo: {
            control: {name: round(each[name][control], 2) for name in builds}
            for control in each[NOW]
            if control in each[THEN]
        }
        for demo, each in found.items()
    }


def measure(seed: int = 0, commit: str = COMMIT, turns: int = 3) -> dict:
    """Both builds in turns.

    Returns:
        `settings`; `kernels`, `first_pictures` and `sliders`, by case, build and kind; goals and whether they are met.
    """
    with worktree(commit) as then:
        builds = {THEN: then, NOW: ROOT}
        return {
            "settings": {"before": commit, "turns": turns, "seed": seed, "first_picture_goals_ms": FIRST_MS},
            "kernels": _kernels(builds, turns),
            "first_pictures": _first_pictures(builds, turns),
            "sliders": _sliders(builds),
        }


def report(result: dict) -> str:
    """The result for people."""

    def answer(met: bool) -> str:
        return "yes" if met else "NO"

    rows = [["median ms", "before", "now", "times faster", "goal", "met", "MiB before", "now"]]
    for case, found in result["kernels"].items():
        times, goal = found["times"], found.get("goal")
        memory = [times[name].get("temporary_bytes") for name in (THEN, NOW)]
        rows.append(
            [case, *(f"{times[name]['median_ms']:.1f}" for name in (THEN, NOW)), str(found["times_faster"]["median"])]
            + ([str(goal["times_faster"]), answer(goal["met"])] if goal else ["", ""])
            + ["" if size is None else f"{size / 2**20:.1f}" for size in memory]
        )
    head = (each for state in FIRST_MS for each in (f"{state} before", f"{state} now", "computed", "met"))
    first = [["first picture, ms", *head]]
    for demo, found in result["first_pictures"].items():
        row = [demo]
        for state in FIRST_MS:
            row += [f"{found[name][state]:.0f}" for name in (THEN, NOW)]
            row += [f"{found[NOW][f'{state}, computed']:.0f}", answer(found["met"][state])]
        first.append(row)
    moved = [["slider, median ms", "before", "now"]]
    for demo, controls in result["sliders"].items():
        moved += [
            [f"{demo}, {name}", *(f"{times[build]:.1f}" for build in (THEN, NOW))] for name, times in controls.items()
        ]
    return "\n\n".join(map(table, (rows, first, moved)))
