"""JAX's cache of what it has compiled: entries that cannot be read, as a full disk leaves them.

JAX neither replaces nor removes such an entry: it compiles anew and warns, in every run. It packs by Zstandard where
Python has that, else by zlib, and reads nothing that is packed the other way.
"""

from __future__ import annotations

import contextlib
import os
import zlib
from importlib.util import find_spec
from pathlib import Path

_MARK = ".read-through"  # its time is that of the last look


def packed_by() -> str:
    """What JAX packs by in this Python: "zstd" (Python 3.14), "zstandard" or "zlib"."""
    with contextlib.suppress(ModuleNotFoundError):
        if find_spec("compression.zstd"):
            return "zstd"
    return "zstandard" if find_spec("zstandard") else "zlib"


def unreadable(folder: Path) -> list[Path]:
    """The entries of a cache that JAX cannot unpack, of those written since `remove_unreadable`; of no folder, none.

    Example:
        >>> unreadable(Path("nowhere"))
        []
    """
    kind = packed_by()
    found, mark = [], folder / f"{_MARK}-{kind}"
    with contextlib.suppress(OSError):
        since = mark.stat().st_mtime if mark.exists() else 0.0
        for path in sorted(folder.glob("*-cache")) if folder.is_dir() else ():
            if path.stat().st_mtime >= since and not _whole(path.read_bytes(), kind):
                found.append(path)
    return found


def remove_unreadable(folder: Path) -> int:
    """Remove the entries that do not unpack, of those written since the last call; how many those were."""
    if not folder.is_dir():
        return 0
    mark = folder / f"{_MARK}-{packed_by()}"
    count, new = 0, folder / f"{mark.name}-{os.getpid()}"
    with contextlib.suppress(OSError):  # a cache that cannot be written to stays as it is
        new.touch()  # before the look: what is written meanwhile is newer
        for path in unreadable(folder):
            path.unlink(missing_ok=True)
            count += 1
        os.replace(new, mark)
    return count


def _whole(content: bytes, kind: str) -> bool:
    """Whether an entry unpacks to its end, as JAX would unpack it."""
    try:
        if kind == "zstd":
            from compression import zstd

            zstd.decompress(content)
        elif kind == "zstandard":
            import zstandard

            zstandard.ZstdDecompressor().decompress(content)
        else:
            zlib.decompress(content)
    except Exception:  # each has an error of its own
        return False
    return bool(content)
