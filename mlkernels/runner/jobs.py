"""What there is to execute: one job a notebook, what became of it, and whether it has to run at all."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mlkernels.errors import bad_input
from mlkernels.runner.fingerprint import fingerprint, package_hash
from mlkernels.runner.notebooks import choose_notebooks, find_notebooks, read_notebook
from mlkernels.runner.parameters import parameters_for, parameters_of
from mlkernels.support.files import check_place


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
    """A command line as jobs in order, and the folder that they write to.

    Everything that can be refused is refused here, before anything runs. Without prefixes all notebooks are meant,
    without `folder` those of the checkout; `out` is build/<preset> beside it by default, settings are `key=value`
    texts.
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


def _outcome(job: Job, record: dict) -> Outcome:
    failure = record["failure"]
    if not failure:
        return Outcome(job.name, "finished", record=record)
    shown = f" (In [{failure['shown']}])" if failure["shown"] else ""
    where = f"{job.name}: cell {failure['cell']}{shown}: {failure['line']}"
    return Outcome(job.name, "failed", f"{where}: {failure['error']}", record)


@dataclass(frozen=True)
class Job:
    """One notebook to run: where it lies, where it goes, what it is run with."""

    name: str
    source: Path
    target: Path
    preset: str
    parameters: dict[str, object] = field(default_factory=dict)
    seed: int | None = None
    fingerprint: str = ""
