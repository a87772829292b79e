"""How much memory there is, asked before a computation that might not fit."""

from __future__ import annotations

import ctypes

import jax
import psutil

from mlkernels.errors import bad_input
from mlkernels.support.words import readable


def available_bytes() -> int:
    """Bytes free now on the device that JAX computes on: of the accelerator's memory, or of the machine's on a CPU."""
    stats = jax.devices()[0].memory_stats() if jax.default_backend() != "cpu" else None
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats["bytes_in_use"]
    return psutil.virtual_memory().available


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
