"""A search's log as one file of data/results, and back: what a replay needs, with where it comes from."""

from __future__ import annotations

import json
from pathlib import Path

import mlkernels
from mlkernels.errors import bad_input
from mlkernels.nas import SPACES, Space
from mlkernels.nas.searching.record import LOG, RESULT
from mlkernels.support.files import write_atomically

GLYPHS = Path(mlkernels.__file__).parents[1] / "data" / "results" / "search_glyphs.json"  # in a checkout
DIGITS = 6
_ORIGIN = ("command", "versions", "device", "devices")


def pack(folder: Path, path: Path, **origin) -> None:
    """Write what a finished search has left in its folder as one file, numbers to six digits, a decision a line.

    Args:
        folder: of a search that is done, with `log.jsonl` and `result.json`.
        path: the file.
        origin: what else is known of where it comes from, as `commit`.

    Raises:
        InputError: the folder has no finished search, or the file cannot be written.

    Source: data/results/search_glyphs.json.
    """
    try:
        result = json.loads((folder / RESULT).read_text(encoding="utf-8"))
        lines = (folder / LOG).read_text(encoding="utf-8").splitlines()
    except OSError as error:
        do = "let the search come to its end first"
        raise bad_input(str(folder), f"a finished search's {LOG} and {RESULT}", error.strerror, do) from None
    log = [json.dumps(json.loads(line, parse_float=_short), separators=(",", ":")) for line in lines]
    where = {name: result.pop(name) for name in _ORIGIN}
    head = json.dumps({"provenance": origin | where, **result}, indent=1, ensure_ascii=False)
    text = head.removesuffix("\n}") + ',\n "log": [\n  ' + ",\n  ".join(log) + "\n ]\n}\n"
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def _short(number: str) -> float:
    return float(f"{float(number):.{DIGITS}g}")


def unpack(path: Path = GLYPHS) -> tuple[list[dict], Space]:
    """The log and the search space of a file that `pack` has written.

    Args:
        path: the file; by default that of the search which comes with a checkout of the course.

    Returns:
        `(log, space)`, as `nas.replay` takes them.

    Raises:
        InputError: no such file, or another one.

    Example:
        >>> log, space = unpack()
        >>> log[-1]["short"].startswith("N: "), space.name
        (True, 'darts_fewshot')
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return found["log"], SPACES[found["settings"]["space"]]
    except OSError as error:
        do = "take the log of a search of your own: nas.search(...).log"
        raise bad_input(str(path), "a recorded search", error.strerror, do) from None
    except (ValueError, KeyError, TypeError):
        do = "take data/results/search_glyphs.json, or a search's own log"
        raise bad_input(str(path), "a recorded search in a space that has a name", "something else", do) from None
