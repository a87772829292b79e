"""How long each demo takes to answer a slider."""

from __future__ import annotations

import pkgutil
import statistics
import time
from importlib import import_module
from typing import Any

import mlkernels.course.demos
from benchmarks._measure import table
from mlkernels.course import widgets
from mlkernels.course.demos.demo import Control, Demo
from mlkernels.course.widgets import explorer
from mlkernels.errors import bad_input

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


def move(view: widgets.Explorer, control: Control, value: Any) -> None:
    """Move one control, as the front end does it."""
    view.indices = view.indices | {control.name: control.values.index(value)}


def latency(demo: Demo, repeats: int = 20) -> dict[str, Any]:
    """How long a demo takes to answer a change of a control, through the very path that a reader's change takes.

    Args:
        demo: from `mlkernels.course.demos`.
        repeats: changes of each control, at least 1; a slider goes up and down its stops.

    Returns:
        demo, changes, first_ms (the first picture, compilation included), min_ms, median_ms, max_ms and median_ms by
        control once all is compiled, and the milliseconds of single changes before that.

    Raises:
        InputError: repeats below 1. An error of the demo itself is raised as it is.
    """
    if repeats < 1:
        raise bad_input("repeats", "at least 1", repeats, "measure once or more")
    start = time.perf_counter()
    view = widgets.explore(demo)
    first = time.perf_counter() - start
    early = _while_warming(view)
    view.warming.join()
    times: dict[str, list[float]] = {}
    for control in demo.controls:
        view.set()
        path = [*control.values, *control.values[-2:0:-1]]  # up and down again
        here = path.index(control.default)
        for count in range(1, repeats + 1):
            value = path[(here + count) % len(path)]
            start = time.perf_counter()
            move(view, control, value)
            times.setdefault(control.name, []).append(1e3 * (time.perf_counter() - start))
            if view.error is not None:
                raise view.error
    every = [ms for each in times.values() for ms in each]
    return {
        "demo": demo.name,
        "changes": len(every),
        "first_ms": round(1e3 * first, 1),
        "min_ms": round(min(every), 2),
        "median_ms": round(statistics.median(every), 2),
        "max_ms": round(max(every), 2),
        "by_control_ms": {name: round(statistics.median(each), 2) for name, each in times.items()},
        "while_warming_ms": [round(ms, 1) for ms in early],
    }


def _while_warming(view: widgets.Explorer, most: int = 20) -> list[float]:
    """Milliseconds of changes that come while the rest is compiled; what needs a program that is not yet there waits
    for it. Every change is followed by a pause in which something can be compiled.
    """
    times: list[float] = []
    controls = view.demo.controls
    for count in range(most):
        if view.warming.join(1.5 * explorer.IDLE):
            break
        control = controls[count % len(controls)]
        here = view.indices[control.name]
        start = time.perf_counter()
        move(view, control, control.values[(here + 1) % len(control.values)])
        times.append(1e3 * (time.perf_counter() - start))
    return times


def measure(seed: int = 0, repeats: int = 20) -> dict:
    """`latency` of every demo.

    Returns:
        `settings` and `demos`: for each the milliseconds, and `met`: every control's median is below its goal.
    """
    answers = []
    for demo in demos():
        found = latency(demo, repeats=repeats)
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
        if early := found["while_warming_ms"]:
            slow = sum(ms >= goal for ms in early)
            each = [f"{ms:.1f}" for ms in (statistics.median(early), min(early), max(early))]
            rows.append(["  while the rest is compiled", *each, "", "", f"{slow} above"])
    return table(rows)
