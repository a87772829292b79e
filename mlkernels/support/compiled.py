"""JAX's cache of what it has compiled: entries that cannot be read, as a full disk leaves them.

JAX neither replaces nor removes such an entry: it compiles anew and warns, in every run.
"""

from __future__ import annotations

import contextlib
import os
import zlib
from pathlib import Path

_MARK = ".read-through"  # its time is that of the last look


def unreadable(folder: Path) -> list[Path]:
    """The entries of a cache that do not unpack, of those written since `remove_unreadable`; of no folder, none.

    Example:
        >>> unreadable(Path("nowhere"))
        []
    """
    found, mark = [], folder / _MARK
    with contextlib.suppress(OSError):
        since = mark.stat().st_mtime if mark.exists() else 0.0
        for path in sorted(folder.glob("*-cache")) if folder.is_dir() else ():
            if path.stat().st_mtime >= since and not _whole(path.read_bytes()):
                found.append(path)
    return found


def remove_unreadable(folder: Path) -> int:
    """Remove the entries that do not unpack, of those written since the last call; how many those were."""
    if not folder.is_dir():
        return 0
    count, new = 0, folder / f"{_MARK}-{os.getpid()}"
    with contextlib.suppress(OSError):  # a cache that cannot be written to stays as it is
        new.touch()  # before the look: what is written meanwhile is newer
        for path in unreadable(folder):
            path.unlink(missing_ok=True)
            count += 1
        os.replace(new, folder / _MARK)
    return count


def _whole(content: bytes) -> bool:
    """Whether an entry unpacks by zlib; one that is packed otherwise, as where zstandard is installed, counts as so."""
    if content and not content.startswith(b"x"):
        return True
    unpacker = zlib.decompressobj()
    try:
        unpacker.decompress(content)
    except zlib.error:
        return False
    return unpacker.eof
