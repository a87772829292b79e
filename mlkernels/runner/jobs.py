"""What there is to execute: one job a notebook, what became of it, and whether it has to run at all."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import mlkernels
from mlkernels.errors import bad_input
from mlkernels.runner.kept import record_of
from mlkernels.runner.notebooks import choose_notebooks, find_notebooks, read_notebook
from mlkernels.runner.parameters import Parameter, parameters_for, parameters_of
from mlkernels.support.files import check_place
from mlkernels.support.provenance import versions

_HERE = Path(mlkernels.__file__).parent
# settings that change results without showing in the source
_ENVIRONMENT = ("MLKERNELS_", "JAX_", "XLA_")
_NOT_RESULTS = (
    "JAX_COMPILATION_CACHE_DIR",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS",
    "XLA_PYTHON_CLIENT_PREALLOCATE",
    "MLKERNELS_UNATTENDED",
)


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
        do = "executed notebooks would replace the sources"
        raise bad_input("--out", "a folder other than the notebooks'", str(out), do)
    from mlkernels.datasets.fingerprint import files  # NumPy, without which the command line starts

    elsewhere = "move it away, or choose another --out"
    names = [f"{name}{end}" for name in chosen for end in (".ipynb", ".html")]
    for file in ("index.html", "claims.json", ".lock", *names):
        check_place(out / file, elsewhere)
    package, data = package_hash(), files()
    jobs = []
    for name, path in chosen.items():
        seed = default_seed(parameters_of(contents[name]))
        mark = fingerprint(contents[name], values[name], package, data)
        jobs.append(Job(name, path, out.resolve() / f"{name}.ipynb", preset, values[name], seed, mark))
    return jobs, out


def unchanged(job: Job) -> dict | None:
    """The record of the job's finished notebook if that is intact and has the job's fingerprint, else None."""
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


def package_hash(folder: Path = _HERE) -> str:
    """The sha256 over every source file of a package, names included: the same on every machine that has the same
    files.
    """
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            content = path.read_bytes()
            digest.update(f"{path.relative_to(folder).as_posix()} {len(content)}\n".encode())
            digest.update(content)
    return digest.hexdigest()


def result_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment variables that change results, of all that there are."""
    return {
        name: value for name, value in environment.items() if name.startswith(_ENVIRONMENT) and name not in _NOT_RESULTS
    }


def default_seed(known: dict[str, Parameter]) -> int | None:
    """The seed that a notebook with these parameters takes where none is set."""
    default = known.get("seed")
    return int(default.default) if default is not None and default.default.isdecimal() else None


def fingerprint(
    notebook: dict, parameters: dict, package: str | None = None, data: dict | None = None,
    installed: dict | None = None,
) -> str:  # fmt: skip
    """What an executed notebook depends on, in one hash: the same hash, the same result.

    It is over the cells (not their outputs), the parameters, the package's source, the versions, the environment
    variables that change results (MLKERNELS_*, JAX_*, XLA_*), and the data: checksums as `datasets.fingerprint.files`
    finds them. What is the same for many may be given: `package_hash()`, `files()` and `versions()`.
    """
    cells = [
        (cell["cell_type"], cell["source"], cell.get("metadata", {}).get("tags", [])) for cell in notebook["cells"]
    ]
    content = [cells, sorted((name, repr(value)) for name, value in parameters.items())]
    content += [package or package_hash(), installed or versions(), result_settings(os.environ), data or {}]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
