"""How long each demo takes to answer a slider."""

from __future__ import annotations

import pkgutil
from importlib import import_module

import mlkernels.demos
from benchmarks._measure import table

GOAL_MS = 100


def demos(package=mlkernels.demos) -> list:
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
        `settings` and `demos`: for each the milliseconds, and `met`: every control's median is below the goal.
    """
    from mlkernels import widgets

    answers = []
    for demo in demos():
        found = widgets.latency(demo, repeats=repeats)
        met = max([found["median_ms"], *found["by_control_ms"].values()]) < GOAL_MS
        answers.append({**found, "met": met})
    return {"settings": {"repeats": repeats, "goal_median_ms": GOAL_MS, "seed": seed}, "demos": answers}


def report(result: dict) -> str:
    """The result for people."""
    if not result["demos"]:
        return "no demos found"
    rows = [["demo, control", "median ms", "min ms", "max ms", "first ms", f"below {GOAL_MS} ms"]]
    for found in result["demos"]:
        answer = "yes" if found["met"] else "NO"
        every = [f"{found[kind]:.1f}" for kind in ("median_ms", "min_ms", "max_ms", "first_ms")]
        rows.append([found["demo"], *every, answer])
        for name, median in found["by_control_ms"].items():
            rows.append([f"  {name}", f"{median:.1f}", "", "", "", "yes" if median < GOAL_MS else "NO"])
    return table(rows)
