"""Where dataset files live; fetching, checking and writing them so that nothing is ever half there."""

from __future__ import annotations

import hashlib
import os
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from mlkernels.errors import InputError, bad_input

VARIABLE = "MLKERNELS_DATA"


def named_folders() -> list[Path]:
    """The folders that MLKERNELS_DATA names (several as in PATH): read, never written to. A missing one is an error."""
    parts = os.environ.get(VARIABLE, "").split(os.pathsep)
    folders = [Path(part.strip()).expanduser() for part in parts if part.strip()]
    for folder in folders:
        if not folder.is_dir():  # or glyphs would quietly stand in for the data that the user meant
            raise bad_input(
                VARIABLE, "folders that exist", folder.absolute(), "correct the path, or unset the variable"
            )
    return folders


def cache() -> Path:
    """The folder that this package writes data to: `data/` of a checkout, else the user's cache folder."""
    checkout = Path(__file__).resolve().parents[2]
    if (checkout / "pyproject.toml").is_file() and os.access(checkout / "data", os.W_OK):
        return checkout / "data"
    import pooch  # slow to import, and only wanted here and for downloads

    return Path(pooch.os_cache("mlkernels"))


def find(*names: str) -> list[Path] | None:
    """The files of these names, each from the first folder that has it; None unless all are found."""
    folders = [*named_folders(), cache()]
    found = [next((folder / name for folder in folders if (folder / name).is_file()), None) for name in names]
    return None if None in found else found


def where_looked() -> str:
    """The searched folders in words, for errors."""
    return ", ".join(map(str, [*named_folders(), cache()]))


def fault_of(path: Path, sha256: str | None = None) -> str | None:
    """What is wrong with a zip or npz file, in words; None if it looks whole.

    Args:
        path: a file that exists.
        sha256: the checksum that it must have, if known.

    Returns:
        None, or words that follow "got", such as "an empty file".
    """
    with open(path, "rb") as file:
        start = file.read(512).lstrip()
    if not start:
        return "an empty file"
    if start.startswith(b"<"):
        return "an HTML page (a server's notice saved in place of the file)"
    if not zipfile.is_zipfile(path):
        return f"a truncated file or none of its kind ({path.stat().st_size} bytes)"
    if sha256 is not None:
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != sha256:
            return f"another file (SHA-256 {digest}, not {sha256})"
    return None


def reject(path: Path, expected: str, got: str) -> InputError:
    """The error for a broken file, which is kept aside as `NAME.broken-N`, but left alone outside the cache.

    Args:
        path: the broken file.
        expected: what it should have been.
        got: what it is.

    Returns:
        An `InputError` to raise.
    """
    if path.resolve().parent != cache().resolve():
        do = f"nothing was loaded; replace the file, or take its folder out of {VARIABLE}"
        return bad_input(str(path), expected, got, do)
    number = 1
    while (aside := path.with_name(f"{path.name}.broken-{number}")).exists():
        number += 1
    try:
        os.replace(path, aside)
    except OSError as error:
        return bad_input(str(path), expected, got, f"nothing was loaded; move it away yourself ({error.strerror})")
    return bad_input(str(path), expected, got, f"nothing was loaded; it is kept as {aside.name}, so call load again")


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary file beside `path`, then rename it: `path` is whole, or as it was before.

    Args:
        path: the file to make or replace; its folder is made if there is none.
        write: gets the temporary path.

    Raises:
        InputError: the folder cannot be written to, or the disk is full.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        write(temporary)
        temporary.chmod(0o644)  # mkstemp's files are private; data may be shared
        os.replace(temporary, path)
    except OSError as error:
        do = "make room or make the folder writable; what was there before is unchanged"
        raise bad_input(str(path), "to write it", error.strerror or error, do) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def fetch(url: str, path: Path, sha256: str | None) -> None:
    """Download to `path` with a progress bar; it appears there whole and checked, or not at all.

    Args:
        url: where from.
        path: where to, in the cache.
        sha256: its checksum.

    Raises:
        InputError: no network, or what came is not the file (which is then kept aside as `NAME.broken-N`).
    """
    import pooch
    import requests

    def download(temporary: Path) -> None:
        try:
            pooch.HTTPDownloader(progressbar=True)(url, str(temporary), None)
        except requests.RequestException as error:
            status = f"HTTP {error.response.status_code}" if error.response is not None else type(error).__name__
            do = f"without a network, put that file into {path.parent} or into a folder that {VARIABLE} names"
            raise bad_input(url, "a download", f"none ({status})", do) from error
        if fault := fault_of(temporary, sha256):
            os.replace(temporary, path)  # under its own name for a moment, so that what is kept aside has it too
            raise reject(path, f"the file of {url}", fault)

    write_atomically(path, download)


def read_npz(path: Path, keys: Iterable[str], what: str) -> dict[str, np.ndarray]:
    """Read arrays of an npz file, all or none.

    Args:
        path: the file.
        keys: which arrays.
        what: the file in words, for the error.

    Returns:
        The arrays by key.

    Raises:
        InputError: the file is broken or lacks a key; `reject` says what became of it.
    """
    fault = fault_of(path)
    if fault is None:
        try:
            with np.load(path, allow_pickle=False) as file:
                return {key: file[key] for key in keys}
        except KeyError as error:
            fault = f"a file without the array {error.args[0].split()[0]!r}"
        except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            fault = f"a damaged file ({str(error).splitlines()[0]})"
    raise reject(path, what, fault)
