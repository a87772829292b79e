"""Files of results: numbers with where they come from, read by notebooks, tests and the next call.

On the lowest floor, because the search, which knows nothing of the course, writes results as notebooks do.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from mlkernels.support import provenance
from mlkernels.support.files import write_atomically
from mlkernels.support.strict_json import dumps, to_json


def save(path: Path, content: Mapping, *, seed: int | None = None, command: str | None = None) -> dict:
    """Write a result with its origin as strict JSON, and return it; the file is whole, or as it was before.

    Args:
        path: the file to make or replace.
        content: the result. An origin that it tells itself, as one gathered from other processes does, stays.
        seed: all randomness follows from it; None where the content says so.
        command: makes the result again; None for what was typed.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     result = save(Path(folder) / "a.json", {"kappa": float("inf")}, seed=0, command="make a")
        >>> list(result), result["kappa"]
        (['created', 'command', 'seed', 'versions', 'device', 'kappa'], 'inf')
    """
    result = with_origin(content, seed=seed, command=command)
    write_atomically(path, dumps(result, indent=1) + "\n")
    return result


def with_origin(content: Mapping, *, seed: int | None = None, command: str | None = None) -> dict:
    """A result with its origin, as `save` writes it."""
    created, command = datetime.now(UTC).isoformat(timespec="seconds"), command or provenance.command()
    origin = {"created": created, "command": command} | ({} if seed is None else {"seed": seed})
    return to_json({**origin, **provenance.here(), **content})
