"""Files of results: numbers with where they come from, read by notebooks, tests and the next call.

On the lowest floor, because the search, which knows nothing of the course, writes results as notebooks do.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from mlkernels.errors import bad_input
from mlkernels.support import provenance
from mlkernels.support.checked import fault_in, signed
from mlkernels.support.file_faults import damaged, in_words
from mlkernels.support.files import write_atomically
from mlkernels.support.strict_json import dumps, load


def save(path: Path, content: Mapping, *, seed: int | None = None, command: str | None = None) -> dict:
    """Write a result with its origin and a checksum as strict JSON, and return it.

    The file is whole, or as it was before.

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
        (['created', 'command', 'seed', 'versions', 'device', 'kappa', 'sha256'], 'inf')
    """
    result = with_origin(content, seed=seed, command=command)
    write_atomically(path, dumps(result, indent=1) + "\n")
    return result


def with_origin(content: Mapping, *, seed: int | None = None, command: str | None = None) -> dict:
    """A result with its origin and a checksum, as `save` writes it."""
    created, command = datetime.now(UTC).isoformat(timespec="seconds"), command or provenance.command()
    origin = {"created": created, "command": command} | ({} if seed is None else {"seed": seed})
    return signed({**origin, **provenance.here(), **content})


def read(path: Path, expected: str = "a result", do: str = "name such a file") -> dict:
    """A result from its file, held against its checksum, which those of before have not. What is damaged stays there.

    Args:
        path: a file that `save` has written.
        expected: what it should be, for errors.
        do: what the reader can do about another one.

    Raises:
        InputError: none there, a damaged one, something else.
    """
    try:
        result = load(path)
        if isinstance(result, dict) and (fault := fault_in(result)):
            raise ValueError(fault)
    except OSError as error:
        raise bad_input(str(path), expected, error.strerror, do) from None
    except (ValueError, RecursionError) as error:
        raise damaged(path, in_words(error), f"get {expected} again, or {do}", aside=False) from None
    if not isinstance(result, dict):
        raise bad_input(str(path), expected, "something else", do)
    return result
