"""How much memory there is, asked before a computation that might not fit."""

from __future__ import annotations

import jax
import psutil

from mlkernels.errors import bad_input


def available_bytes() -> int:
    """Bytes free now on the device that JAX computes on.

    Returns:
        Free bytes of the accelerator's memory, or of the machine's on a CPU.

    Example:
        >>> available_bytes() > 0
        True
    """
    stats = jax.devices()[0].memory_stats() if jax.default_backend() != "cpu" else None
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats["bytes_in_use"]
    return psutil.virtual_memory().available


def readable(count: float) -> str:
    """A count of bytes for people.

    Example:
        >>> readable(3 * 2**30)
        '3.0 GiB'
    """
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def require(needed: int, what: str, do: str) -> None:
    """Raise unless `needed` bytes are free.

    Args:
        needed: bytes that the computation will hold at once.
        what: the computation, for the message.
        do: what makes it smaller.

    Raises:
        InputError: too little memory; the message says the bytes needed and the bytes free.

    Example:
        >>> require(1, "one byte", "never mind")
    """
    free = available_bytes()
    if needed > free:
        raise bad_input(f"memory for {what}", f"{readable(needed)} ({needed} bytes) free", readable(free), do)
