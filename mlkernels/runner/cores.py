"""Processes that run side by side, each on cores of its own."""

from __future__ import annotations

import contextlib
import os
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path


def share(cores: list[int], slots: int, slot: int) -> list[int]:
    """One of `slots` shares of some cores: disjoint and of about the same size, or one core where there are too few.

    Example:
        >>> [share([0, 1, 2, 3, 4], 2, slot) for slot in (0, 1)], share([7], 2, 1)
        ([[0, 1], [2, 3, 4]], [7])
    """
    start, stop = (len(cores) * each // slots for each in (slot, slot + 1))
    return cores[start : max(stop, start + 1)]


@contextlib.contextmanager
def pinned(slots: int, name: str = "", folder: Path | None = None) -> Iterator[None]:
    """Keep this thread, and the processes that it starts meanwhile, on one of `slots` shares of the cores.

    XLA and BLAS make as many threads as they see cores when they start: of two kernels on four cores each makes four,
    and they get in each other's way. A child has the affinity of the thread that starts it, so it is there before JAX.

    A share is taken by a lock of a file, for this machine: it holds among threads, processes and workers of a cluster
    alike, and is gone when its process is, however that ends. Where no share is free (another sweep is at work), one is
    taken all the same, by the name. macOS and Windows pin nothing.
    """
    if slots <= 1 or not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = sorted(os.sched_getaffinity(0))
    with _taken(slots, folder or Path(tempfile.gettempdir()) / f"mlkernels-cores-{os.getuid()}") as slot:
        slot = zlib.crc32(name.encode()) % slots if slot is None else slot
        os.sched_setaffinity(0, share(before, slots, slot))  # 0: this thread
        try:
            yield
        finally:
            os.sched_setaffinity(0, before)


@contextlib.contextmanager
def _taken(slots: int, folder: Path) -> Iterator[int | None]:
    import fcntl

    stream, found = None, None
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        for slot in range(slots):
            stream = open(folder / f"{slot}-of-{slots}.lock", "w", encoding="utf-8")  # noqa: SIM115
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                found = slot
                break
            stream.close()
    except OSError:  # another user's folder, or no locks
        pass
    try:
        yield found
    finally:
        if stream is not None:
            stream.close()
