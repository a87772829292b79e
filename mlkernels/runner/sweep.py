"""Runs a notebook over a grid of parameters on any executor, and keeps one table of what came out.

What is finished is what lies in the points' notebooks: a sweep that was stopped or killed goes on from them.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from concurrent.futures import FIRST_COMPLETED, CancelledError, Executor, Future, wait

from mlkernels.runner.grid import Plan, Point
from mlkernels.runner.jobs import Outcome, result_settings, unchanged
from mlkernels.runner.kept import mend_page
from mlkernels.runner.point import PATIENCE, Task, claims_in, execute
from mlkernels.runner.pool import Display, Stopped
from mlkernels.runner.sweep_table import SweepTable
from mlkernels.support.files import write_atomically
from mlkernels.support.progress import bar
from mlkernels.support.words import seconds

_BREATH = 0.5  # seconds between two looks at what else is to do


def run(
    plan: Plan, executor: Executor, slots: dict[str, int], *, command: str, timeout: float | None = None,
    display: Display | None = None,
) -> list[Outcome]:  # fmt: skip
    """Execute a plan's points that are not finished yet: an `Outcome` a point, in their order.

    Statuses are those of `pool.run`: "unchanged" were finished before. The table in plan.out is written after each
    point. Ctrl-C stops the points that are at work and ends in `pool.Stopped`.

    Args:
        plan: of `grid.plan`; nobody else works in its folder (`files.alone`).
        executor: anything that can call a function of a module with what can be pickled.
        slots: machine -> how many points it runs at a time; see `point.Task`.
        command: goes on with the sweep.
        timeout: seconds that a cell may take.
        display: says what has ended.
    """
    display = display or Display([point.job.name for point in plan.points])
    going = _Going(plan, SweepTable(plan, command), display)
    waiting = [point for point in plan.points if not going.kept(point)]
    sign, token, settings = plan.out / ".going", uuid.uuid4().hex, result_settings(os.environ)
    futures: dict[Future, Point] = {}
    stopped = False
    try:
        write_atomically(sign, token)
        for point in waiting:
            task = Task(point.job, sign, token, slots, plan.package, plan.versions, settings, timeout)
            futures[executor.submit(execute, task)] = point
        while futures:
            for future in wait(futures, timeout=_BREATH, return_when=FIRST_COMPLETED).done:
                # not held any longer: Dask calculates again what is, when the worker that has it is lost
                going.ended(futures.pop(future), future)
            going.refresh()
    except KeyboardInterrupt:
        stopped = True
        sign.unlink(missing_ok=True)
        running = [future for future in futures if not future.cancel()]
        with contextlib.suppress(KeyboardInterrupt):
            wait(running, timeout=2 * PATIENCE)
        for future in running:
            if future.done():
                going.ended(futures[future], future, stopped=True)
    finally:
        sign.unlink(missing_ok=True)
        going.close()
    if stopped:
        raise Stopped(going.outcomes())
    return going.outcomes()


class _Going:
    """A sweep under way: what has ended, its table, what is shown of it."""

    def __init__(self, plan: Plan, table: SweepTable, display: Display):
        self.plan, self.table, self.display = plan, table, display
        self.found: dict[str, Outcome] = {}
        form = "{n_fmt} of {total_fmt} points {bar} {elapsed}"
        self.bar = bar(display.stream, bar_format=form, total=len(plan.points))

    def kept(self, point: Point) -> bool:
        record = unchanged(point.job)
        if record:
            mend_page(point.job.target)
            outcome = Outcome(point.job.name, "unchanged", record=record)
            self._note(outcome, claims_in(point.job.target), "unchanged, kept")
        return record is not None

    def ended(self, point: Point, future: Future, stopped: bool = False) -> None:
        name = point.job.name
        try:
            outcome, claims = future.result()
        except CancelledError:
            outcome, claims = Outcome(name, "failed", f"{name}: given up by the executor"), []
        except Exception as error:  # of the executor, of a machine: it is this point's, and the others go on
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            outcome, claims = Outcome(name, "failed", f"{name}: {reason}"), []
        if outcome.status in ("interrupted", "not started") and not stopped:
            outcome = Outcome(name, "failed", f"{name}: {self.plan.out} is another folder where it was to run")
        took = f", {seconds(outcome.record['wall_seconds'])}" if outcome.record else ""
        self._note(outcome, claims, f"{outcome.status}{took}")

    def _note(self, outcome: Outcome, claims: list[dict], text: str) -> None:
        self.found[outcome.name] = outcome
        self.table.add(outcome, claims)
        self.bar.n = len(self.found)
        self.display.end(outcome.name, f"{text} ({len(self.found)} of {len(self.plan.points)})")

    def refresh(self) -> None:
        self.bar.refresh()
        self.table.save()

    def close(self) -> None:
        self.bar.close()
        self.display.close()
        self.table.save(at_once=True)

    def outcomes(self) -> list[Outcome]:
        names = [point.job.name for point in self.plan.points]
        return [self.found.get(name, Outcome(name, "not started")) for name in names]
