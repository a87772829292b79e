"""Runs the course's notebooks, each in a process of its own, and keeps what they made.

A finished notebook carries a fingerprint of all that it depends on; `resume` skips those whose fingerprint still holds.
"""

from __future__ import annotations

import contextlib
import queue
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from mlkernels.runner.jobs import Job, Outcome, _outcome, unchanged
from mlkernels.runner.worker import Worker, kernel_environment
from mlkernels.support.progress import bar
from mlkernels.support.words import printable, seconds

_PATIENCE = 15.0  # seconds that a stopped worker gets to shut its kernel down
_HEARTBEAT = 15.0  # seconds after which a plain line says that a cell is still at work


def run(
    jobs: Sequence[Job], *, workers: int = 1, timeout: float | None = None, resume: bool = False,
    display: Display | None = None, root: Path | None = None,
) -> list[Outcome]:  # fmt: skip
    """Execute notebooks, `workers` at a time: an `Outcome` a job, in the jobs' order.

    `resume` skips jobs whose finished notebook has the same fingerprint; `timeout` is the seconds that a cell may take.

    Raises:
        Stopped: by Ctrl-C, all the same whether anything was left to do. It has stopped the workers and shut their
            kernels down; jobs that had not ended are "interrupted" or "not started" in its outcomes.
    """
    display = display or Display([job.name for job in jobs])
    outcomes: dict[str, Outcome] = {}
    waiting, working, stopped = [], [], False
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
        stopped = True
        _stop(working, outcomes, events)
    finally:
        for worker in working:
            if worker.process.poll() is None:
                worker.process.kill()
            worker.close()
        display.close()
    found = [outcomes.get(job.name, Outcome(job.name, "not started")) for job in jobs]
    if stopped:
        raise Stopped(found)
    return found


def _stop(working: list[Worker], outcomes: dict[str, Outcome], events: queue.Queue) -> None:
    for worker in working:
        worker.stop()
    for worker in working:
        with contextlib.suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
            worker.process.wait(_PATIENCE)
            worker.thread.join(_PATIENCE)
    with contextlib.suppress(queue.Empty):
        while True:  # what ended in the meantime; the notebook on the disk may be an earlier run's
            worker, event = events.get_nowait()
            if event["event"] == "done":
                outcomes[worker.job.name] = _outcome(worker.job, event["record"])
    for worker in working:
        outcomes.setdefault(worker.job.name, Outcome(worker.job.name, "interrupted"))


class Stopped(KeyboardInterrupt):
    """Ctrl-C stopped a run; `outcomes` as `run` would have given them."""

    def __init__(self, outcomes: list[Outcome]):
        super().__init__()
        self.outcomes = outcomes


class Display:
    """A bar a notebook on a terminal; elsewhere lines: its start, its end, a sign of life in a long cell."""

    def __init__(self, names: Sequence[str] = (), stream: TextIO | None = None):
        self.stream, self.width = stream or sys.stderr, max(map(len, names), default=0)
        self.bars, self.said = {}, {}  # by the notebook's name; said: the time of its last line

    def start(self, name: str, cells: int) -> None:
        form = "{desc}  {bar} cell {n_fmt} of {total_fmt}, {elapsed}"
        self.bars[name] = bar(self.stream, bar_format=form, total=cells, desc=printable(f"{name:<{self.width}}"))
        if self.bars[name].disable:
            self.say(name, f"started, {cells} cells")

    def cell(self, name: str, index: int) -> None:
        self.bars[name].n = min(index + 1, self.bars[name].total)
        self.bars[name].refresh()

    def tick(self) -> None:
        for name, shown in self.bars.items():
            shown.refresh()
            if shown.disable and time.monotonic() - self.said[name] >= _HEARTBEAT:
                self.say(name, f"at cell {shown.n} of {shown.total}")

    def end(self, name: str, text: str) -> None:
        if name in self.bars:
            self.bars.pop(name).close()
        self.say(name, text)

    def say(self, name: str, text: str) -> None:
        from tqdm import tqdm

        self.said[name] = time.monotonic()
        tqdm.write(printable(f"{name:<{self.width}}  {text}"), file=self.stream)

    def close(self) -> None:
        while self.bars:
            self.bars.popitem()[1].close()
