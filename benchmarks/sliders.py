"""How long each demo takes to answer a slider."""

from __future__ import annotations

import pkgutil
from importlib import import_module

import mlkernels.course.demos
from benchmarks._measure import table

GOAL_MS = 100
SLOWER_MS = {"cell_editor": 1000}  # scores three networks anew at each change


def demos(package=mlkernels.course.demos) -> list:
    """Every demo of the course: what the package's public modules call DEMO or list in DEMOS."""
    found = []
    for module in sorted(pkgutil.iter_modules(package.__path__), key=lambda module: module.name):
        if not module.name.startswith("_"):
            loaded = import_module(f"{package.__name__}.{module.name}")
            one = getattr(loaded, "DEMO", None)
            every = [] if one is None else [one]
            found += every + [demo for demo in getattr(loaded, "DEMOS", ()) if demo is not one]
    return found


def measure(seed: int = 0, repeats: int = 20) -> dict:
    """`widgets.latency` of every demo, through the path that a reader's change takes.

    Returns:
        `settings` and `demos`: for each the milliseconds, and `met`: every control's median is below its goal.
    """
    from mlkernels.course import widgets

    answers = []
    for demo in demos():
        found = widgets.latency(demo, repeats=repeats)
        goal = SLOWER_MS.get(found["demo"], GOAL_MS)
        met = max([found["median_ms"], *found["by_control_ms"].values()]) < goal
        answers.append({**found, "goal_median_ms": goal, "met": met})
    return {"settings": {"repeats": repeats, "seed": seed}, "demos": answers}


def report(result: dict) -> str:
    """The result for people."""
    if not result["demos"]:
        return "no demos found"
    rows = [["demo, control", "median ms", "min ms", "max ms", "first ms", "goal ms", "met"]]
    for found in result["demos"]:
        answer, goal = "yes" if found["met"] else "NO", found["goal_median_ms"]
        every = [f"{found[kind]:.1f}" for kind in ("median_ms", "min_ms", "max_ms", "first_ms")]
        rows.append([found["demo"], *every, str(goal), answer])
        for name, median in found["by_control_ms"].items():
            rows.append([f"  {name}", f"{median:.1f}", "", "", "", "", "yes" if median < goal else "NO"])
    return table(rows)
