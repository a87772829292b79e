"""One point of a sweep: a function that any executor can call, in this process, in another, or on another machine."""

from __future__ import annotations

import contextlib
import platform
import queue
import subprocess
from dataclasses import dataclass
from pathlib import Path

from mlkernels.course.claim_records import claims_of
from mlkernels.runner.cores import pinned
from mlkernels.runner.jobs import Job, Outcome, _outcome, package_hash, result_settings, unchanged
from mlkernels.runner.kept import intact, mend_page
from mlkernels.runner.worker import Worker, kernel_environment
from mlkernels.support.provenance import versions

PATIENCE = 15.0  # seconds that a stopped process gets to shut its kernel down
_LOOK = 0.5  # seconds between two looks at the sign


@dataclass(frozen=True)
class Task:
    """A job, and what a machine that has not seen the command line needs to know to do it as the sweep would.

    Attributes:
        job: whose target is on a disk that the sweep sees too.
        sign: a file that holds `token` for as long as the sweep wants results. Executors cannot stop what has begun;
            so who works looks at the sign.
        slots: machine -> how many points it runs at a time.
        package, versions, settings: what the job's fingerprint was made from.
        timeout: seconds that a cell may take.
    """

    job: Job
    sign: Path
    token: str
    slots: dict[str, int]
    package: str
    versions: dict[str, str]
    settings: dict[str, str]
    timeout: float | None = None

    def wanted(self) -> bool:
        try:
            return self.sign.read_text(encoding="utf-8") == self.token
        except OSError:
            return False


def execute(task: Task) -> tuple[Outcome, list[dict]]:
    """Run one point as a process of its own, and return what became of it, and its claims.

    A point that is finished is not run again: an executor may call twice, as Dask does when the worker that holds a
    result is lost. When the sweep stops, so does the process.
    """
    job = task.job
    if record := unchanged(job):
        mend_page(job.target)
        return Outcome(job.name, "finished", record=record), claims_in(job.target)
    if not task.job.source.is_file():
        do = "notebooks and results must lie on a disk that all machines see"
        return Outcome(job.name, "failed", f"{job.name}: on {platform.node()}: no {job.source}; {do}"), []
    if not task.wanted():
        return Outcome(job.name, "not started"), []
    if reason := _stranger(task):
        return Outcome(job.name, "failed", f"{job.name}: on {platform.node()}: {reason}"), []
    slots = task.slots.get(platform.node(), 1)
    with pinned(slots, job.name):
        outcome = _watched(task, _environment(task, slots))
    return outcome, claims_in(job.target) if outcome.record else []


def claims_in(path: Path) -> list[dict]:
    """The claims of an executed notebook; none where there is none, or where it was edited since its run."""
    return claims_of(intact(path) or {"cells": []})


def _stranger(task: Task) -> str | None:
    """What is other here than where the sweep was started, so that the fingerprint would not be true."""
    here = versions()
    if differing := [name for name, version in task.versions.items() if here.get(name) != version]:
        name = differing[0]
        return f"{name} is {here.get(name)}, but {task.versions[name]} where the sweep was started; install the same"
    if package_hash() != task.package:
        return "the source of mlkernels is not that of the sweep; use one checkout"
    return None


def _environment(task: Task, slots: int) -> dict[str, str]:
    """What the kernel gets: this machine's variables, but for those that change results, which are the sweep's."""
    here = kernel_environment(task.job.source.parents[1], slots)
    changing = result_settings(here)
    return {name: value for name, value in here.items() if name not in changing} | task.settings


def _watched(task: Task, environment: dict[str, str]) -> Outcome:
    job, events, outcome = task.job, queue.Queue(), None
    job.target.parent.mkdir(parents=True, exist_ok=True)
    worker = Worker(job, task.timeout, environment, events)
    try:
        while True:
            try:
                _, event = events.get(timeout=_LOOK)
            except queue.Empty:
                if not task.wanted():
                    return _stopped(worker)
                continue
            if event["event"] == "done":
                outcome = _outcome(job, event["record"])
            elif event["event"] == "end":
                words = f"{job.name}: ended without a result: {worker.last_words()}"
                return outcome or Outcome(job.name, "failed", words)
    finally:
        if worker.process.poll() is None:
            worker.process.kill()
        worker.close()


def _stopped(worker: Worker) -> Outcome:
    worker.stop()
    with contextlib.suppress(subprocess.TimeoutExpired):
        worker.process.wait(PATIENCE)
    ended = unchanged(worker.job)  # it may have finished in the meantime
    return Outcome(worker.job.name, "finished" if ended else "interrupted", record=ended)
