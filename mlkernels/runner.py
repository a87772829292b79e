"""Runs the course's notebooks, each in a process of its own, and keeps what they made.

A finished notebook carries a fingerprint of all that it depends on; `resume` skips those whose fingerprint still holds.
"""

from __future__ import annotations

import contextlib
import json
import queue
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mlkernels.errors import bad_input
from mlkernels.files import check_place
from mlkernels.parameters import choose_notebooks, find_notebooks, parameters_for, parameters_of, read_notebook
from mlkernels.progress import Lines, seconds
from mlkernels.provenance import fingerprint, package_hash
from mlkernels.worker import Job, Worker, kernel_environment

_PATIENCE = 15.0  # seconds that a stopped worker gets to shut its kernel down


@dataclass(frozen=True)
class Outcome:
    """What became of a job: "finished", "unchanged" (skipped by resume), "failed", "interrupted" or "not started"."""

    name: str
    status: str
    detail: str = ""
    record: dict | None = None


def plan(
    folder: Path | None, prefixes: Sequence[str], out: Path | None, preset: str, settings: Sequence[str]
) -> tuple[list[Job], Path]:
    """Turn a command line into jobs; everything that can be refused is refused here, before anything runs.

    Args:
        folder: of the notebooks; None finds it.
        prefixes: of the names of notebooks; none means all.
        out: where executed notebooks go; None means build/<preset> beside the notebooks' folder.
        preset: quick, class or full.
        settings: `key=value` texts.

    Returns:
        The jobs in order, and the folder that they write to.

    Raises:
        InputError: a notebook, preset or parameter that does not exist, a value of the wrong type, an unusable `out`.
    """
    chosen = choose_notebooks(find_notebooks(folder), prefixes)
    contents = {name: read_notebook(path) for name, path in chosen.items()}
    values = parameters_for(contents, preset, settings)
    out = Path(out) if out is not None else next(iter(chosen.values())).parents[1] / "build" / preset
    if next(iter(chosen.values())).parent == out.resolve():
        raise bad_input(
            "--out", "a folder other than the notebooks'", str(out), "executed notebooks would replace the sources"
        )
    from mlkernels.datasets.fingerprint import files  # NumPy, without which the command line starts

    check_place(out / "index.html")
    package, data = package_hash(), files()
    jobs = []
    for name, path in chosen.items():
        default = parameters_of(contents[name]).get("seed")
        seed = int(default.default) if default is not None and default.default.isdecimal() else None
        mark = fingerprint(contents[name], values[name], package, data)
        jobs.append(Job(name, path, out.resolve() / f"{name}.ipynb", preset, values[name], seed, mark))
    return jobs, out


def record_of(path: Path) -> dict | None:
    """The record of an executed notebook, or None where there is no executed notebook."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))["metadata"]["mlkernels"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def unchanged(job: Job) -> dict | None:
    """The record of the job's finished notebook if that still has the job's fingerprint, else None."""
    record = record_of(job.target)
    if record and record.get("status") == "finished" and record.get("fingerprint") == job.fingerprint:
        return record
    return None


def run(
    jobs: Sequence[Job],
    *,
    workers: int = 1,
    timeout: float | None = None,
    resume: bool = False,
    display: Lines | None = None,
    root: Path | None = None,
) -> list[Outcome]:
    """Execute notebooks, `workers` at a time.

    Args:
        jobs: of `plan`.
        workers: processes at a time, at least 1.
        timeout: seconds that a cell may take, or None.
        resume: skip jobs whose finished notebook has the same fingerprint.
        display: progress; plain lines on standard error where None.
        root: of the checkout, for the compilation cache; None means beside the notebooks.

    Returns:
        An `Outcome` a job, in the jobs' order. Ctrl-C stops the workers and shuts their kernels down; the jobs that had
        not ended are then "interrupted" or "not started".
    """
    display = display or Lines(sys.stderr)
    outcomes: dict[str, Outcome] = {}
    waiting, working = [], []
    events: queue.Queue = queue.Queue()
    environment = kernel_environment(root or (jobs[0].source.parents[1] if jobs else Path.cwd()), workers)
    for job in jobs:
        if resume and (record := unchanged(job)):
            outcomes[job.name] = Outcome(job.name, "unchanged", record=record)
            display.end(job.name, "unchanged, kept")
        else:
            waiting.append(job)
    try:
        while waiting or working:
            while waiting and len(working) < workers:
                job = waiting.pop(0)
                job.target.parent.mkdir(parents=True, exist_ok=True)
                working.append(Worker(job, timeout, environment, events))
            try:
                worker, event = events.get(timeout=0.5)
            except queue.Empty:
                display.tick()
                continue
            name = worker.job.name
            if event["event"] == "start":
                display.start(name, event["cells"])
            elif event["event"] == "cell":
                display.cell(name, event["index"])
            elif event["event"] == "done":
                outcomes[name] = _outcome(worker.job, event["record"])
                display.end(name, f"{outcomes[name].status}, {seconds(event['record']['wall_seconds'])}")
            elif event["event"] == "end":
                if name not in outcomes:
                    outcomes[name] = Outcome(name, "failed", f"{name}: ended without a result: {worker.last_words()}")
                    display.end(name, "failed")
                worker.close()
                working.remove(worker)
    except KeyboardInterrupt:
        _stop(working, outcomes)
    finally:
        for worker in working:
            if worker.process.poll() is None:
                worker.process.kill()
            worker.close()
        display.close()
    return [outcomes.get(job.name, Outcome(job.name, "not started")) for job in jobs]


def _stop(working: list[Worker], outcomes: dict[str, Outcome]) -> None:
    for worker in working:
        worker.stop()
    for worker in working:
        with contextlib.suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
            worker.process.wait(_PATIENCE)
        ended = unchanged(worker.job)  # it may have finished in the meantime
        outcome = Outcome(worker.job.name, "finished" if ended else "interrupted", record=ended)
        outcomes.setdefault(worker.job.name, outcome)


def _outcome(job: Job, record: dict) -> Outcome:
    failure = record["failure"]
    if not failure:
        return Outcome(job.name, "finished", record=record)
    shown = f" (In [{failure['shown']}])" if failure["shown"] else ""
    where = f"{job.name}: cell {failure['cell']}{shown}: {failure['line']}"
    return Outcome(job.name, "failed", f"{where}: {failure['error']}", record)
