"""A grid over a notebook's parameters: its texts read, each value checked, and a job for each of its points."""

from __future__ import annotations

import hashlib
import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mlkernels.errors import bad_input
from mlkernels.runner.jobs import Job, default_seed, fingerprint, package_hash
from mlkernels.runner.notebooks import choose_notebooks, find_notebooks, read_notebook
from mlkernels.runner.pages import room_of
from mlkernels.runner.parameters import Parameter, convert, divided, parameters_for, parameters_of, unknown
from mlkernels.support.files import check_no_folder, check_place
from mlkernels.support.provenance import versions

MOST = 10_000  # points of a grid: more are a slip, such as 0:100000
_LONGEST = 120  # letters of a file's name, to which others are added
_ELSEWHERE = "move it away, or choose another --out"
_RANGE = re.compile(r"(-?\d{1,15}):(-?\d{1,15})(?::(-?\d{1,15}))?")


@dataclass(frozen=True)
class Point:
    """One point of a grid: the values of the grid's parameters there, and the notebook's job."""

    values: dict[str, object]
    job: Job


@dataclass(frozen=True)
class Plan:
    """What a sweep is to do: all points of a grid, and the folder that it writes to."""

    notebook: str
    preset: str
    out: Path
    axes: dict[str, list[object]]  # parameter -> its values, the last one changing fastest
    settings: dict[str, object]  # the other values that were set
    points: tuple[Point, ...]
    package: str  # with the versions what the fingerprints of all points have in common
    versions: dict[str, str]


def plan(
    folder: Path | None, name: str, out: Path | None, preset: str, settings: Sequence[str], grid: Sequence[str]
) -> Plan:
    """A command line as a `Plan`. Everything that can be refused is refused here, before anything runs.

    `folder` and `settings` are those of `jobs.plan`; `name` means one notebook, `grid` are `key=values` texts. `out` is
    build/sweep/<notebook>-<preset> beside the notebooks by default.
    """
    chosen = choose_notebooks(find_notebooks(folder), [name])
    if len(chosen) > 1:
        raise bad_input("notebook", "the beginning of one name", f"that of {', '.join(chosen)}", "write more of it")
    ((name, path),) = chosen.items()
    notebook = read_notebook(path)
    declared = parameters_of(notebook)
    fixed = parameters_for({name: notebook}, preset, settings)[name]
    axes = axes_of(name, declared, grid)
    if both := [key for key in axes if key in fixed]:
        do = "leave one of the two out"
        raise bad_input(f"--grid {both[0]}", "a parameter that --set leaves alone", f"--set {both[0]} as well", do)
    out = Path(out) if out is not None else path.parents[1] / "build" / "sweep" / f"{name}-{preset}"
    for file in ("sweep.json", "sweep.csv", "sweep.png", ".going", ".lock", "points/point.ipynb"):
        check_place(out / file, _ELSEWHERE)
    out = out.resolve()  # workers have other current folders
    from mlkernels.datasets.fingerprint import files  # NumPy, without which the command line starts

    package, installed, data = package_hash(), versions(), files()
    seed, points = default_seed(declared), []
    for chosen_values in itertools.product(*axes.values()):
        values = dict(zip(axes, chosen_values, strict=True))
        every = fixed | values
        every = {key: every[key] for key in declared if key in every}  # the order in which they were typed is no matter
        target = out / "points" / f"{file_name(name, preset, every)}.ipynb"
        mark = fingerprint(notebook, every, package, data, installed)
        points.append(Point(values, Job(shown(values), path, target, preset, every, seed, mark)))
    for point in points:
        check_no_folder(point.job.target, _ELSEWHERE)
        check_no_folder(point.job.target.with_suffix(".html"), _ELSEWHERE)
    pages = [point.job.target.with_suffix(".html") for point in points]
    check_place(out / "sweep.json", _ELSEWHERE, room=room_of(pages))
    set_here = {key: value for key, value in fixed.items() if key != "preset"}
    return Plan(name, preset, out, axes, set_here, tuple(points), package, installed)


def axes_of(name: str, declared: dict[str, Parameter], grid: Sequence[str]) -> dict[str, list[object]]:
    """The texts of --grid as parameter -> values, of the parameters' types and in their ranges."""
    texts: dict[str, Sequence[str | int]] = {}
    for setting in grid:
        key, text = divided("--grid", setting, "seed=0:5")
        if key not in declared:
            raise unknown("--grid", key, {name: declared})
        if key in texts:
            raise bad_input(f"--grid {key}", "each parameter once", "it twice", f"join them: --grid {key}=1,2,3")
        texts[key] = _listed(declared[key], text)
    count = math.prod(map(len, texts.values()))
    if count > MOST:
        raise bad_input("--grid", f"at most {MOST} points", f"{count}", "make it smaller, or sweep it in parts")
    axes: dict[str, list[object]] = {}
    for key, several in texts.items():
        axes[key] = [convert(declared[key], str(text), "--grid") for text in several]
        said = list(map(text_of, axes[key]))
        if twice := [text for text in said if said.count(text) > 1]:
            raise bad_input(f"--grid {key}", "each value once", f"{twice[0]} twice", "leave one of them out")
    return axes


def _listed(parameter: Parameter, text: str) -> list[str | int]:
    """The values in a text such as `1,5,20`, `0:5` or `1,10:40:10`, not yet converted."""
    option, found = f"--grid {parameter.name}", []
    for part in map(str.strip, text.split(",")):
        numbers = ":" in part and {"int", "float"} & set(parameter.types)
        if not part:
            raise bad_input(option, "values between commas", repr(text), f"try {parameter.name}={parameter.default}")
        if not numbers:
            found.append(part)
            continue
        match = _RANGE.fullmatch(part)
        if match is None or (match[3] and not int(match[3])):
            do = "write start:stop or start:stop:step, without the stop as in Python"
            raise bad_input(option, "a range of whole numbers as 0:5 or 0:10:2", repr(part), do)
        span = range(int(match[1]), int(match[2]), int(match[3] or 1))
        if not span:
            raise bad_input(option, "at least one value", f"{part!r}, an empty range", "start below the stop")
        if len(span) > MOST:
            raise bad_input("--grid", f"at most {MOST} points", f"{len(span)} in {part}", "make it smaller")
        found += span
    return found


def text_of(value: object) -> str:
    """A value as --grid would take it, in as few letters as tell it from others.

    Example:
        >>> [text_of(value) for value in (0.1, 2.0, None, True, "auto")]
        ['0.1', '2', 'none', 'true', 'auto']
    """
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    return str(value)


def shown(values: dict[str, object]) -> str:
    """A point in words: `inner_steps=5, seed=3`."""
    return ", ".join(f"{key}={text_of(value)}" for key, value in values.items())


def file_name(notebook: str, preset: str, values: dict[str, object]) -> str:
    """A name that the same point has in every sweep, and no other: what it is run with, as far as files may say it.

    What they may not say (a slash, a capital where systems take it for a small letter, too much) a hash says instead.

    Example:
        >>> file_name("01_derive", "quick", {"preset": "quick", "seed": 3, "rate": 0.5})
        '01_derive,quick,seed=3,rate=0.5'
    """
    exact = ",".join([notebook, preset, *(f"{k}={text_of(v)}" for k, v in values.items() if k != "preset")])
    plain = re.sub(r"[^a-z0-9_.,=+-]+", "_", exact.lower())
    if plain == exact and len(plain) <= _LONGEST:
        return plain
    return f"{plain[: _LONGEST - 11]}-{hashlib.sha256(exact.encode()).hexdigest()[:10]}"
