"""Where dataset files live: which folders are read, which one is written, and what is wrong with a file."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from mlkernels.errors import InputError, bad_input
from mlkernels.support import checked_arrays
from mlkernels.support.file_faults import in_words, unreadable
from mlkernels.support.files import not_written, set_aside, write_atomically
from mlkernels.support.strict_json import dumps, load

VARIABLE = "MLKERNELS_DATA"
MANIFEST = "manifest.json"  # of a prepared folder
MARK = "mlkernels-data.json"  # in a folder of MLKERNELS_DATA that was empty when we first wrote to it


def named_folders() -> list[Path]:
    """The folders that MLKERNELS_DATA names (several as in PATH), all of which are read. A missing one is an error."""
    parts = os.environ.get(VARIABLE, "").split(os.pathsep)
    folders = [Path(part.strip()).expanduser() for part in parts if part.strip()]
    for folder in folders:
        if not folder.is_dir():  # or glyphs would quietly stand in for the data that the user meant
            do = "correct the path, make the folder, or unset the variable"
            raise bad_input(VARIABLE, "folders that exist", folder.absolute(), do)
    return folders


def cache() -> Path:
    """Where data goes if MLKERNELS_DATA names no other place: `data/` of a checkout, else the user's cache folder."""
    checkout = Path(__file__).resolve().parents[2]
    if (checkout / "pyproject.toml").is_file() and os.access(checkout / "data", os.W_OK):
        return checkout / "data"
    import pooch  # slow to import, and only wanted here and for downloads

    return Path(pooch.os_cache("mlkernels"))


def folders() -> list[Path]:
    """All folders that are read, in order."""
    return [*named_folders(), cache()]


def writing_folder() -> Path:
    """The folder that data is written to: the first that MLKERNELS_DATA names and that is ours, else the cache.

    It is ours if empty, or with the mark that we left when it was (which names folder and user, so a copy is not ours).
    """
    return next((folder for folder in named_folders() if why_not(folder) is None), cache())


def why_not(folder: Path) -> str | None:
    """Why a folder that MLKERNELS_DATA names is not written to, in words; None if it is ours."""
    if folder.resolve() == cache().resolve():
        return None
    try:
        if any(folder.iterdir()) and _mark(folder) != _read_mark(folder):
            found = _read_mark(folder)
            whole = not (folder / MARK).exists() or (isinstance(found, dict) and found.keys() == _mark(folder).keys())
            return "it came with files in it" if whole else f"its {MARK}, by which we know our own, is damaged"
    except OSError as error:
        return error.strerror
    return None if os.access(folder, os.W_OK | os.X_OK) else "this user may not write there"


def claim(folder: Path) -> Path:
    """Make the writing folder if it is not there, and mark it as ours. Returns it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if folder.resolve() != cache().resolve() and _mark(folder) != _read_mark(folder):
            write_atomically(folder / MARK, dumps(_mark(folder), indent=1))
    except OSError as error:
        raise not_written(folder, error) from error
    return folder


def _mark(folder: Path) -> dict[str, str]:
    user = os.getuid() if hasattr(os, "getuid") else os.environ.get("USERNAME", "")
    about = "mlkernels writes data to this folder; without this file it only reads it"
    return {"about": about, "folder": str(folder.resolve()), "user": str(user)}


def _read_mark(folder: Path) -> dict | None:
    try:
        return load(folder / MARK)
    except (OSError, ValueError):
        return None


def find(*names: str) -> list[Path]:
    """The files of these names, each from the first folder that has it; an empty list unless all are there."""
    places = folders()
    files = [next((folder / name for folder in places if (folder / name).is_file()), None) for name in names]
    return [] if None in files else files


def find_folder(name: str) -> Path | None:
    """The first folder that holds a dataset of this name in the prepared form, as `FOLDER/NAME`; None if none does."""
    return next((folder / name for folder in folders() if (folder / name / MANIFEST).is_file()), None)


def where_looked() -> str:
    """The searched folders in words, for errors."""
    return ", ".join(map(str, folders()))


def reject(path: Path, expected: str, got: str) -> InputError:
    """The error for a broken file, which is kept aside as `NAME.broken-N`, but left alone in a folder of others."""
    if why_not(path.parent) is not None:
        do = f"nothing was loaded; replace the file, or take its folder out of {VARIABLE}"
        return bad_input(str(path), expected, got, do)
    try:
        aside = set_aside(path)
    except OSError as error:
        return bad_input(str(path), expected, got, f"nothing was loaded; move it away yourself ({error.strerror})")
    return bad_input(str(path), expected, got, f"nothing was loaded; it is kept as {aside.name}, so call it again")


def read_npz(path: Path, keys: Iterable[str], what: str) -> dict[str, np.ndarray]:
    """Arrays of an npz file by key, all or none; `what` is the file in words. `reject` says what became of a broken
    one.
    """
    try:
        arrays = checked_arrays.load(path)
        return {key: arrays[key] for key in keys}
    except KeyError as error:
        fault = f"a file without the array {error.args[0]!r}"
    except OSError as error:
        raise unreadable(path, error) from error
    except ValueError as error:
        fault = in_words(error)
    raise reject(path, what, fault)
