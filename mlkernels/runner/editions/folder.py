"""Writes an edition into a folder, whole or not at all, and renews one only where nothing of the user's is lost."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from mlkernels.errors import bad_input
from mlkernels.runner.editions.forms import EDITIONS, files_of
from mlkernels.runner.notebooks import choose_notebooks, find_notebooks, read_notebook
from mlkernels.support.files import check_place, not_written, scratch_folder
from mlkernels.support.strict_json import dumps, load

RECORD = ".mlkernels-export.json"


def export(edition: str, out: Path, folder: Path | None = None, names: Sequence[str] = ()) -> list[Path]:
    """Write an edition of the course's notebooks.

    Args:
        edition: a name in `forms.EDITIONS`.
        out: the folder: missing, empty, or an export of the same edition and none but these notebooks, whose files are
            all as they were written.
        folder: of the notebooks; the checkout's where None.
        names: beginnings of the notebooks' names; none means all.

    Returns:
        The paths of the notebooks that were written.

    Raises:
        InputError: another edition, or no such notebook; or one of its exercises cannot be exported; or something in
            `out` would be lost, or it cannot be written to. Nothing has been written then.
    """
    if edition not in EDITIONS:
        raise bad_input("edition", " or ".join(EDITIONS), repr(edition), "see mlkernels export --help")
    out = Path(os.path.abspath(out))
    chosen = choose_notebooks(find_notebooks(folder), names)
    _refuse_loss(out, edition, set(chosen))
    check_place(out / RECORD)
    files = files_of(edition, {name: read_notebook(path) for name, path in chosen.items()})
    texts = {path: each if isinstance(each, str) else _text(each) for path, each in files.items()}
    record = {"edition": edition, "files": {path: _digest(text.encode()) for path, text in texts.items()}}
    with scratch_folder(out) as fresh:
        for path, text in texts.items() | {(RECORD, dumps(record, indent=1) + "\n")}:
            (fresh / path).parent.mkdir(parents=True, exist_ok=True)
            (fresh / path).write_text(text, encoding="utf-8", newline="\n")
        fresh.chmod(0o755)
        _put(fresh, out)
    return [out / path for path in texts if path.endswith(".ipynb")]


def _refuse_loss(out: Path, edition: str, names: set[str]) -> None:
    """Refuse a folder whose content is not that of an export of the same edition and notebooks, untouched."""
    if not out.is_dir():
        if out.exists() or out.is_symlink():
            raise bad_input(str(out), "a folder", "something else", "choose another --out")
        return
    try:
        found = {path.relative_to(out).as_posix(): path for path in out.rglob("*") if not path.is_dir()}
        if not found:
            return
        try:
            record = load(out / RECORD)
            before, files = record["edition"], dict(record["files"].items())
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            got = f"other files, such as {min(found)}"
            raise bad_input(str(out), "an empty or a missing folder", got, "choose another --out") from None
        if before != edition:
            do = "choose another --out, or remove the folder"
            raise bad_input(str(out), f"an export for {edition}", f"one for {before}", do)
        own = {path for path, digest in files.items() if path in found and _digest(found[path].read_bytes()) == digest}
    except OSError as error:
        raise not_written(out, error) from error
    if others := {Path(path).stem for path in files if path.endswith(".ipynb")} - names:
        do = "name all that it shall hold, or choose another --out"
        raise bad_input(str(out), "no other notebooks", ", ".join(sorted(others)), do)
    if theirs := sorted(found.keys() - own - {RECORD}):
        got = f"{len(theirs)} changed or added, such as {theirs[0]}"
        raise bad_input(str(out), "nothing but the files of the last export", got, "choose another --out, or move them")


def _put(fresh: Path, out: Path) -> None:
    """Give a whole folder its name; the old one is kept until the new one is there."""
    if not out.exists():
        os.replace(fresh, out)
        return
    with scratch_folder(out.with_name(f"{out.name}.before")) as aside:
        os.replace(out, aside / out.name)
        try:
            os.replace(fresh, out)
        except OSError:
            os.replace(aside / out.name, out)
            raise


def _text(notebook: dict) -> str:
    """A notebook as JupyterLab writes it: sources as lists of lines."""
    cells = [cell | {"source": cell["source"].splitlines(keepends=True)} for cell in notebook["cells"]]
    return dumps(notebook | {"cells": cells}, indent=1) + "\n"


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
