"""SHA-256 of files, for manifests."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path


def sha256_of(path: Path, progress: Callable[[int], None] | None = None) -> str:
    """SHA-256 of a file; `progress` gets the bytes of each piece."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(1 << 22):
            digest.update(piece)
            if progress is not None:
                progress(len(piece))
    return digest.hexdigest()


def source_checksums(files: Sequence[Path], most: int = 20) -> dict[str, str]:
    """SHA-256 of each file by name; of more than `most`, one of the list of all.

    Example:
        >>> source_checksums([])
        {}
    """
    found = {str(path): path for path in files}
    if len(found) <= most:
        return {path.name: sha256_of(path) for path in found.values()}
    total = hashlib.sha256()
    for path in sorted(found.values()):
        total.update(f"{sha256_of(path)}  {path.name}\n".encode())
    return {f"{len(found)} files, their list as sha256sum prints it": total.hexdigest()}
