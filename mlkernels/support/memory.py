"""How much memory there is, asked before a computation that might not fit."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import jax
import psutil

from mlkernels.errors import bad_input
from mlkernels.support.words import readable


def available_bytes() -> int:
    """Bytes free now on the device that JAX computes on: of the accelerator's memory, or of the machine's on a CPU."""
    stats = jax.devices()[0].memory_stats() if jax.default_backend() != "cpu" else None
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats["bytes_in_use"]
    return host_bytes()


def host_bytes() -> int:
    """Bytes that this process may still take: of what is free, of its own limits (ulimit -v), of its cgroups'."""
    free = [psutil.virtual_memory().available, *_left_of_limits(), *left_of_cgroups()]
    return max(0, min(free))


def _left_of_limits() -> Iterator[int]:
    """What the limits of address space and of data leave; macOS and Windows do not tell what is used of them."""
    with contextlib.suppress(ImportError, AttributeError, OSError, psutil.Error):
        import resource

        used = psutil.Process().memory_info()
        for limit, taken in ((resource.RLIMIT_AS, used.vms), (resource.RLIMIT_DATA, used.data)):
            most = resource.getrlimit(limit)[0]
            if most != resource.RLIM_INFINITY:
                yield most - taken


def left_of_cgroups(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> list[int]:
    """What the memory limits of a process's cgroups leave, of version 1 and 2, those of a container too.

    Pages of files count as free: the kernel drops them when memory is asked for.

    Args:
        root: where cgroups are mounted.
        own: the file that says in which ones the process is.
    """
    found = []
    with contextlib.suppress(OSError, ValueError):
        for line in own.read_text(encoding="utf-8").splitlines():
            number, controllers, path = line.split(":", 2)
            if number == "0" and not controllers:
                names, mounts = ("memory.max", "memory.current", ""), (root, root / "unified")
            elif "memory" in controllers.split(","):
                names, mounts = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_"), (root / "memory",)
            else:
                continue
            inside = PurePosixPath(path.lstrip("/"))
            for mount in mounts:  # the limits of those above hold, too
                for folder in (mount / inside, *(mount / each for each in inside.parents)):
                    with contextlib.suppress(OSError, ValueError):
                        found.append(_left_of(folder, *names))
    return found


def _left_of(folder: Path, most: str, taken: str, prefix: str) -> int:
    limit = int((folder / most).read_text(encoding="utf-8"))  # "max" is no number
    used = int((folder / taken).read_text(encoding="utf-8"))
    with contextlib.suppress(OSError, ValueError):
        stat = dict(line.split() for line in (folder / "memory.stat").read_text(encoding="utf-8").splitlines())
        used -= sum(int(stat.get(f"{prefix}{kind}_file", 0)) for kind in ("active", "inactive"))
    return limit - max(used, 0)


def keep_freed() -> bool:
    """Let this process keep memory that it has freed, before JAX starts; whether it can be done here (glibc alone).

    By default arrays above 32 MB go back to the system at once, which clears each page again when it hands it out: a
    fifth of the time of a search with 48 channels (benchmarks/nas.py). For a process of one's own, not for a library.
    Gives whether it can be done here.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    arenas, mapped, trim = (-8, 1), (-4, 0), (-1, 2**31 - 1)  # M_ARENA_MAX, M_MMAP_MAX, M_TRIM_THRESHOLD
    done = [bool(mallopt(*each)) for each in (arenas, mapped, trim)]
    return all(done)


def require(needed: int, what: str, do: str) -> None:
    """Raise an `InputError` unless `needed` bytes are free for `what`; `do` says what makes it smaller."""
    free = available_bytes()
    if needed > free:
        raise bad_input(f"memory for {what}", f"{readable(needed)} ({needed} bytes) free", readable(free), do)
