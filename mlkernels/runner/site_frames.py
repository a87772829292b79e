"""A demo as pictures for where no kernel runs: one for each setting of its grid, and a table of what belongs to which.

A picture is what moves, on nothing: the axes and labels that stay are one picture below all of them, and cost their
bytes once.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import io
import json
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

import mlkernels
from mlkernels.course.demos.demo import Control, Demo, Frame, Stage
from mlkernels.course.demos.grid import Grid
from mlkernels.course.plots import SCREEN
from mlkernels.course.tables import RESULTS
from mlkernels.errors import InputError
from mlkernels.support.checked import fault_in, signed
from mlkernels.support.files import scratch_folder
from mlkernels.support.provenance import versions
from mlkernels.support.strict_json import dumps, load

TABLE, GROUND = "frames.json", "ground.webp"
_COLOURS = 128  # of what moves: a colour is off by less than 1 of 255 in the mean, and bytes are nearly halved
_MARGIN = 5  # pixels, odd: what moves is kept with some ground around it, so that a smaller size shows no seam
Groups = Sequence[Sequence[str]] | None


def webp(pixels: np.ndarray) -> bytes:
    """A picture `[height, width, 3 or 4]` uint8 as lossless WebP; what is under a transparent pixel is lost."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "webp", lossless=True, method=2, quality=50)  # more effort saves 2 %
    return file.getvalue()


def moving(png: bytes, ground: np.ndarray) -> np.ndarray:
    """What of a picture differs from its ground `[height, width, 3]`, with a margin, in few colours; the rest is
    transparent.
    """
    picture = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
    differs = Image.fromarray((picture != ground).any(-1).astype(np.uint8) * 255)
    alpha = np.asarray(differs.filter(ImageFilter.MaxFilter(_MARGIN)))
    moved, apart = alpha > 0, np.zeros((*alpha.shape, 4), np.uint8)
    if moved.any():
        pixels = Image.fromarray(picture[moved][None])
        apart[moved, :3] = np.asarray(pixels.quantize(_COLOURS, dither=Image.Dither.NONE).convert("RGB"))[0]
        apart[moved, 3] = 255
    return apart


def sources(module: str) -> set[Path]:
    """The files of this package that a module of it imports, its own and theirs."""
    home, found, waiting = Path(mlkernels.__file__).parents[1], set(), [module]
    while waiting:
        name = waiting.pop()
        plain = home.joinpath(*name.split("."))
        path = next((path for path in (plain.with_suffix(".py"), plain / "__init__.py") if path.exists()), None)
        if not name.startswith("mlkernels") or path is None or path in found:
            continue
        found.add(path)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                waiting += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                waiting += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return found


def fingerprint(demo: Demo, grid: Grid) -> str:
    """What a demo's pictures depend on, in one hash: the code that it reaches, its data, the versions, the grid."""
    files = sorted({*sources(demo.move.__module__), *(RESULTS.glob("search_*.json"))})
    content = [demo.name, repr(grid), versions(), [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def frames(demo: Demo, folder: Path, grid: Grid | None = None) -> dict:
    """Draw a demo's grid into `folder`, unless the same is there, whole; what lies in it then is replaced.

    Args:
        demo: from `mlkernels.course.demos`.
        folder: gets the pictures and their table, frames.json.
        grid: instead of the demo's own.

    Returns:
        The table: name, question, controls (as `explorerView` takes them, with the stops that are kept), width and
        height (CSS pixels), `together` (indices of controls), `frames` ("0,3" -> [file, alt text, read-out], or
        [null, "", why there is none]), `runs` ("0,3" -> [file, alt text, what came out]), `left` (what was left out, a
        sentence each), `bytes`.
    """
    grid = demo.grid if grid is None else grid
    mark = fingerprint(demo, grid)
    try:
        table = load(folder / TABLE)
        if table["fingerprint"] == mark and table["sha256"] and not fault_in(table) and _whole(folder, table):
            return table
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        pass
    with scratch_folder(folder) as scratch:
        table = _drawn(demo, grid.fitting(demo.controls), scratch)
        table = signed({**table, "fingerprint": mark})
        (scratch / TABLE).write_text(dumps(table), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(scratch, folder)
    return table


def _whole(folder: Path, table: dict) -> bool:
    """Whether the pictures of a table are there as they were drawn: they are named by their checksums."""
    rows = [*table["frames"].values(), *table["runs"].values()]
    files = {file for file, *_ in rows if file}
    names = {file: file for file in files} | {GROUND: table["ground"]}
    return all(_name((folder / file).read_bytes()) == name for file, name in names.items())


def _name(content: bytes) -> str:
    return f"{hashlib.sha256(content).hexdigest()[:10]}.webp"


def _drawn(demo: Demo, grid: Grid, folder: Path) -> dict:
    """Draw, thin the grid until its pictures are within the budget, remove the rest, and say what is there."""
    stage = demo.build()
    with contextlib.suppress(InputError):  # of a demo whose defaults have no picture: its row says why
        demo.frame(stage)  # some demos draw their axes anew for the first numbers
    ground = np.ascontiguousarray(stage.still()[..., :3])
    below = webp(ground)
    (folder / GROUND).write_bytes(below)
    with ThreadPoolExecutor(2) as pool:  # writing WebP takes as long as drawing, and lets go of the interpreter

        def rows(groups: Groups, run: bool) -> dict:
            drawn = {}
            for point in grid.points(demo.controls, groups):
                try:
                    frame, said = _frame(demo, stage, point, run)
                    drawn[tuple(point.values())] = pool.submit(_keep, frame.png, ground, folder), frame.alt, said
                except InputError as error:
                    drawn[tuple(point.values())] = None, "", str(error)
            return {point: (file and file.result(), *texts) for point, (file, *texts) in drawn.items()}

        plain, runs = rows(None, False), rows(grid.runs, True) if grid.runs else {}
    while True:
        shown = _within(grid, demo, plain, None), _within(grid, demo, runs, grid.runs)
        files = {GROUND, *(file for rows in shown for file, *_ in rows.values() if file)}
        weight = sum((folder / file).stat().st_size for file in files)
        thinner = grid.thinner(demo.controls)
        if weight <= grid.budget or thinner is None:
            break
        grid = thinner
    for path in folder.iterdir():
        if path.name not in files:
            path.unlink()
    kept = {control.name: grid.kept(control) for control in demo.controls}
    moved = [control for control in demo.controls if len(kept[control.name]) > 1]

    def keyed(rows: dict) -> dict:
        """By indices of stops, of the controls that move."""
        at = [(place, kept[control.name]) for place, control in enumerate(demo.controls) if control in moved]
        return {",".join(str(stops.index(point[i])) for i, stops in at): row for point, row in rows.items()}

    width, height = (round(float(inches) * SCREEN) for inches in stage.figure.get_size_inches())
    groups = [[i for i, control in enumerate(moved) if control.name in group] for group in grid.groups(demo.controls)]
    return {
        "name": demo.name,
        "question": demo.question,
        "controls": [_control(control, kept[control.name]) for control in moved],
        "width": width,
        "height": height,
        "together": groups,
        "frames": keyed(shown[0]),
        "runs": keyed(shown[1]),
        "left": _left(demo, grid),
        "bytes": weight,
        "ground": _name(below),
    }


def _frame(demo: Demo, stage: Stage, point: Mapping[str, Any], run: bool) -> tuple[Frame, str]:
    """A setting's picture, with its finished run if asked for, and the line that belongs to it."""
    if not run:
        frame = demo.frame(stage, **point)
        return frame, frame.readout
    item = demo.finished(**point)
    return demo.frame(stage, item, **point), item.text


def _keep(png: bytes, ground: np.ndarray, folder: Path) -> str:
    """Write what moves of a picture; the file's name, which equal pictures share."""
    content = webp(moving(png, ground))
    name = _name(content)
    (folder / name).write_bytes(content)
    return name


def _within(grid: Grid, demo: Demo, rows: dict, groups: Groups) -> dict:
    """The rows of the settings that a (thinner) grid has."""
    points = {tuple(point.values()) for point in grid.points(demo.controls, groups)}
    return {point: row for point, row in rows.items() if point in points}


def _control(control: Control, stops: tuple) -> dict:
    """A control as `explorerView` takes it, at its default."""
    about = {"name": control.name, "kind": control.kind, "label": control.label, "help": control.help}
    return {**about, "texts": [control.text(value) for value in stops], "index": stops.index(control.default)}


def _left(demo: Demo, grid: Grid) -> list[str]:
    """What the notebook has and these pages have not, a sentence each."""
    said = []
    for control in demo.controls:
        stops, label = grid.kept(control), control.label
        if len(stops) == 1:
            said.append(f"{label} stays at {control.text(control.default)}.")
        elif len(stops) < len(control.values):
            what = "stops" if control.kind == "steps" else "choices"
            said.append(f"{label} has {len(stops)} of {len(control.values)} {what}.")
    if len(grid.groups(demo.controls)) > 1:
        said.append("Not every combination has a picture: moving one control may put others back to where they began.")
    if demo.run is not None:
        said.append("A training is shown finished, at some settings." if grid.runs else "Nothing is trained here.")
    return said
