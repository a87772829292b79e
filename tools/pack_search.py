"""Pack a search's folder as one file of data/results: `python -m tools.pack_search build/nas search.json`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from mlkernels.errors import bad_input
from mlkernels.nas.searching.record import LOG, RESULT, STATE
from mlkernels.support.files import write_atomically

DIGITS = 6
_ORIGIN = ("created", "command", "seed", "versions", "device", "devices")


def pack(folder: Path, path: Path, **origin) -> None:
    """Write what a search has left in its folder as one file, numbers to six digits, a decision a line.

    Of a search that is not finished the rounds that are: then `rounds` says how many of how many.

    Args:
        folder: of a search, with `log.jsonl` and `result.json`, or before it is done `state.json`.
        path: the file, for `mlkernels.course.demos.search_replay.unpack`.
        origin: what else is known of where it comes from, as `commit`, or what the data are.

    Raises:
        InputError: the folder has no round of a search, or the file cannot be written.

    Source: data/results/search_glyphs.json.
    """
    try:
        lines = (folder / LOG).read_text(encoding="utf-8").splitlines()
        result = json.loads(
            (folder / RESULT if (folder / RESULT).exists() else folder / STATE).read_text(encoding="utf-8")
        )
    except OSError as error:
        do = "let the search come to the end of its first round"
        raise bad_input(str(folder), f"a search's {LOG} and {RESULT} or {STATE}", error.strerror, do) from None
    if "about" in result:
        rounds = f"{json.loads(lines[-1])['round']}, not finished"
        result = {"rounds": rounds, "seconds": result["seconds"], "settings": result["about"]}
    log = [json.dumps(json.loads(line, parse_float=_short), separators=(",", ":")) for line in lines]
    where = {name: result.pop(name) for name in _ORIGIN if name in result}
    head = json.dumps({"provenance": origin | where, **result}, indent=1, ensure_ascii=False)
    write_atomically(path, head.removesuffix("\n}") + ',\n "log": [\n  ' + ",\n  ".join(log) + "\n ]\n}\n")


def _short(number: str) -> float:
    return float(f"{float(number):.{DIGITS}g}")


if __name__ == "__main__":
    pack(*map(Path, sys.argv[1:]))
