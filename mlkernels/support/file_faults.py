"""What is wrong with a file, and the one kind of error that says so."""

from __future__ import annotations

import errno
import hashlib
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mlkernels.errors import InputError, bad_input
from mlkernels.support.files import set_aside


def fault_of(path: Path, sha256: str | None = None, kind: str | None = None) -> str | None:
    """What is wrong with an existing file, in words that follow "got", such as "an empty file"; None if it looks whole.

    It must be a "zip" (npz too), a "tar" (compressed or not), a "pickle" or "any"; None asks `kind_of`.
    """
    with open(path, "rb") as file:
        start = file.read(512).lstrip()
        file.seek(max(0, path.stat().st_size - 1))
        end = file.read(1)
    if not start:
        return "an empty file"
    if start.startswith(b"<"):
        return "an HTML page (a server's notice saved in place of the file)"
    kind = kind or kind_of(path.name)
    whole = {"zip": zipfile.is_zipfile, "tar": tarfile.is_tarfile, "pickle": lambda _: end == b"."}
    if kind in whole and not whole[kind](path):
        return f"a truncated file or none of its kind ({path.stat().st_size} bytes)"
    if sha256 is not None and (digest := sha256_of(path)) != sha256:
        return f"another file (SHA-256 {digest}, not {sha256})"
    return None


def kind_of(name: str) -> str:
    """The kind of file that a name promises, for `fault_of`."""
    kinds = {"zip": "zip npz", "tar": "tar gz tgz bz2 tbz2 xz", "pickle": "pkl pickle"}
    end = name.lower().rpartition(".")[2]
    return next((kind for kind, ends in kinds.items() if end in ends.split()), "any")


def sha256_of(path: Path, progress: Callable[[int], None] | None = None) -> str:
    """SHA-256 of a file; `progress` gets the bytes of each piece."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(1 << 22):
            digest.update(piece)
            if progress is not None:
                progress(len(piece))
    return digest.hexdigest()


class Fault(ValueError):
    """What is wrong with a file, in the words of `fault_of`."""


def damaged(path: Path, fault: str, again: str, aside: bool = True, what: str | None = None) -> InputError:
    """The error for a damaged file of ours, which is renamed so that it is kept and is no longer in the way.

    Args:
        path: the file, called `what` in the error.
        fault: what is wrong with it, in words that follow "got".
        again: what the next call does without it.
        aside: whether it is renamed; else it stays, and `again` says what to do.
    """
    what = what or str(path)
    if not aside:
        return bad_input(what, "a whole file", fault, again)
    try:
        kept = set_aside(path).name
    except OSError as error:
        return bad_input(what, "a whole file", fault, f"move it away yourself ({error.strerror}), then {again}")
    return bad_input(what, "a whole file", fault, f"it is kept as {kept}; {again}")


def in_words(error: object) -> str:
    """What is wrong with a damaged file, in words that follow "got", from the error that it made."""
    if isinstance(error, Fault):
        return str(error)
    return f"a damaged file ({f'no {error}' if isinstance(error, KeyError) else in_short(error)})"


def unreadable(path: Path, error: OSError) -> InputError:
    """The error for a file that the system does not let be read, which tells nothing about what is in it."""
    return bad_input(str(path), "a file that can be read", error.strerror or error, "make it readable")


def in_short(error: object) -> str:
    """An error's first line, or its name if it has none, in 100 letters at most."""
    line = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
    return line if len(line) <= 100 else f"{line[:97]}..."


@contextmanager
def one_error() -> Iterator[None]:
    """Whatever a damaged file makes somebody else's reader raise is a `ValueError` of one line.

    NumPy, zipfile and Pillow each have a dozen kinds, some of them undocumented: of a damaged header, KeyError,
    SyntaxError, TokenError, NotImplementedError, MemoryError and more. What the system says of a disk stays an
    `OSError`, but for an invalid argument, which is a place that a damaged file has named.
    """
    try:
        yield
    except InputError:
        raise
    except OSError as error:
        if error.errno not in (None, errno.EINVAL):
            raise
        raise ValueError(in_short(error)) from None
    except Exception as error:
        raise ValueError(in_short(error)) from None
