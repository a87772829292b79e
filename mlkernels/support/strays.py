"""Names of unfinished files and folders, which say whose they are; and the removal of those that are nobody's."""

from __future__ import annotations

import contextlib
import itertools
import os
import platform
import re
import shutil
import time
from pathlib import Path

_OLD = 7 * 24 * 3600.0  # seconds after which what another machine has not touched is nobody's
_NUMBERS = itertools.count()


def unfinished(target: Path) -> Path:
    """A name beside `target` for what shall become it: of this machine, this process, and this call."""
    own = os.getpid()
    return target.with_name(f".{target.name}.{_host()}-{own}-{_start_of(own) or 0}-{next(_NUMBERS)}.part")


def remove_strays(target: Path) -> list[int]:
    """Remove what others have left unfinished of a file or folder; the processes that are at work on it.

    Nobody's is what a process of this machine has left that is no more (a process is known by its number and its start:
    numbers come again). Another machine's, and what does not say whose it is, is let be until a week has passed over
    all that is in it.
    """
    start = f".{target.name}."
    form = re.compile(rf"{re.escape(start)}(?:(\w+)-(\d+)-(\d+)-\d+|\w+(?:-\d+)?)\.part")  # the second: older versions
    living = []
    try:
        there = list(target.parent.iterdir())
    except OSError:  # a folder that may be written to and not read
        there = []
    for left in there:
        match = form.fullmatch(left.name) if left.name.startswith(start) else None
        if match is None:
            continue
        if match[1] != _host():
            gone = _untouched(left) > _OLD
        elif gone := _start_of(int(match[2])) not in (match[3], ""):
            pass
        else:
            living.append(int(match[2]))
        if gone:
            discard(left)
    return living


def discard(path: Path) -> None:
    """Remove a file or a folder, as far as it goes."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):  # an open file on Windows; a folder of somebody else's
            path.unlink(missing_ok=True)


def _host() -> str:
    return re.sub(r"\W+", "_", platform.node(), flags=re.ASCII)[:40] or "here"


def _start_of(number: int) -> str | None:
    """When a process was started, in ticks of a clock that nobody sets; None if it is no more, "" if none can tell."""
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return None
    except (OSError, OverflowError):  # somebody else's
        pass
    try:
        fields = Path(f"/proc/{number}/stat").read_bytes().rpartition(b")")[2].split()
        return None if fields[0] in (b"Z", b"X") else fields[19].decode()
    except (OSError, IndexError):
        pass
    import psutil

    try:
        return str(round(100 * psutil.Process(number).create_time()))
    except psutil.Error:
        return ""


def _untouched(path: Path) -> float:
    """Seconds since anything of a file or a folder was changed."""
    try:
        inside = path.iterdir() if path.is_dir() and not path.is_symlink() else ()
        return time.time() - max(each.lstat().st_mtime for each in (path, *inside))
    except OSError:
        return 0.0
