"""JSON files that tell whether they are as they were written: their kind, its version, a checksum of what they say."""

from __future__ import annotations

import hashlib
import json
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mlkernels.errors import InputError, bad_input
from mlkernels.support.file_faults import damaged, in_short, in_words, unreadable
from mlkernels.support.files import write_atomically
from mlkernels.support.strict_json import dumps, load, to_json

_SUM = "sha256"


@dataclass(frozen=True)
class Kind:
    """A kind of file that is read back.

    Args:
        name: what it is, without an article.
        format: its version, as it is written now: with a checksum.
        check: the schema: gets what a file says, and raises a `ValueError`, `TypeError`, `KeyError` or
            `AttributeError` where something has another form or is out of its range.
        again: what the next call does once a damaged file is out of the way.
        instead: what to do about a whole file that is something else.
        before: earlier versions, without a checksum, which are read all the same.
        refused: earlier versions that are not, and what they were of.
        now: what tells this version from the refused ones, after the name.
    """

    name: str
    format: int
    check: Callable[[dict], object]
    again: str = "call again to begin anew"
    instead: str = "move it away to begin anew, or choose another place"
    before: tuple[int, ...] = ()
    refused: Mapping[int, str] = field(default_factory=dict)
    now: str = ""


def signed(content: Mapping) -> dict:
    """What a file says, as strict JSON can hold it, with its checksum at the end.

    Example:
        >>> signed({"kappa": 2.5})["sha256"][:8], signed(signed({"kappa": 2.5})) == signed({"kappa": 2.5})
        ('b0095330', True)
    """
    plain = {name: value for name, value in to_json(content).items() if name != _SUM}
    return plain | {_SUM: _sum(plain)}


def fault_in(content: dict) -> str | None:
    """What is wrong with content that has a checksum, in words; None if nothing is, or if it has none."""
    if _SUM in content and content[_SUM] != _sum({name: value for name, value in content.items() if name != _SUM}):
        return "its checksum is that of another content"
    return None


def write(path: Path, kind: Kind, content: Mapping) -> None:
    """A file of this kind, whole or as it was before."""
    write_atomically(path, dumps(signed({"kind": kind.name, "format": kind.format, **content})))


def read(path: Path, kind: Kind, aside: bool = True) -> dict | None:
    """What a file of this kind says; None where there is none.

    Raises:
        InputError: it is damaged, and if `aside` it is kept as `NAME.broken-N`, so that the same call then goes on
            without it. Or it is whole, and of another kind or version, or cannot be read: it is left as it is.
    """
    try:
        content = load(path)
        whole = isinstance(content, dict)
        fault = fault_in(content) if whole else None
    except FileNotFoundError:
        return None
    except OSError as error:
        raise unreadable(path, error) from error
    except (ValueError, RecursionError) as error:
        raise damaged(path, in_words(error), kind.again, aside) from None
    if fault is None and whole and _SUM not in content and content.get("format") == kind.format:
        fault = "it has no checksum"
    if fault is not None:
        raise damaged(path, in_words(fault), kind.again, aside)
    _check_kind(path, kind, content)
    try:
        kind.check(content)
    except InputError:
        raise
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError) as error:
        raise damaged(path, in_words(error), kind.again, aside) from None
    return content


def is_number(value: object, low: float = -math.inf, high: float = math.inf) -> bool:
    """Whether a value of JSON is a number in a range that floating point can hold, and no text, true or false."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and low <= value <= high and abs(value) <= sys.float_info.max


def _check_kind(path: Path, kind: Kind, content) -> None:
    """Refuse a whole file that is of another kind or version."""
    about = content if isinstance(content, dict) else {}
    name, number = about.get("kind", kind.name), about.get("format")
    if name != kind.name:
        raise bad_input(str(path), f"the {kind.name}", f"the {in_short(name)}", kind.instead)
    if number in (kind.format, *kind.before):
        return
    if about and number in list(kind.refused):
        raise bad_input(str(path), f"the {kind.name} {kind.now}".strip(), kind.refused[number], kind.instead)
    if _SUM in about:
        expected, do = f"the {kind.name} of version {kind.format} or before", f"update mlkernels, or {kind.instead}"
        raise bad_input(str(path), expected, f"version {number}", do)
    raise bad_input(str(path), f"the {kind.name}", "something else", kind.instead)


def _sum(content: dict) -> str:
    text = json.dumps(content, allow_nan=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
