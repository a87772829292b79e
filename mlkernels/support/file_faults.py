"""What is wrong with a file."""

from __future__ import annotations

import hashlib
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path


def fault_of(path: Path, sha256: str | None = None, kind: str | None = None) -> str | None:
    """What is wrong with a file, in words that follow "got"; None if it looks whole.

    `kind` is "zip" (npz too), "tar" (compressed or not), "pickle" or "any"; None asks `kind_of`.
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
    """The kind of file that a name promises, for `fault_of`.

    Example:
        >>> kind_of("a.tar.gz"), kind_of("a.npz"), kind_of("a.pickle"), kind_of("a.csv")
        ('tar', 'zip', 'pickle', 'any')
    """
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
