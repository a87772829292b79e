"""Pack a search's folder as one file of data/results: `python -m tools.pack_search build/nas search.json`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from mlkernels.errors import InputError, bad_input
from mlkernels.nas.searching.record import LOG, RESULT, STATE
from mlkernels.support import results
from mlkernels.support.checked import signed
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
        log = [json.loads(line, parse_float=_short) for line in lines]
        result = results.read(folder / (RESULT if (folder / RESULT).exists() else STATE))
    except InputError:
        raise
    except ValueError as error:
        do = "start the search again: it writes its log anew"
        raise bad_input(str(folder / LOG), "a decision a line", str(error), do) from None
    except OSError as error:
        do = "let the search come to the end of its first round"
        raise bad_input(str(folder), f"a search's {LOG} and {RESULT} or {STATE}", error.strerror, do) from None
    if "about" in result:
        rounds = f"{log[-1]['round']}, not finished"
        result = {"rounds": rounds, "seconds": result["seconds"], "settings": result["about"]}
    where = {name: result.pop(name) for name in _ORIGIN if name in result}
    content = signed({"provenance": origin | where, **result, "log": log})
    head = json.dumps({name: content[name] for name in content if name != "log"}, indent=1, ensure_ascii=False)
    lines = ",\n  ".join(json.dumps(line, separators=(",", ":")) for line in log)
    write_atomically(path, head.removesuffix("\n}") + ',\n "log": [\n  ' + lines + "\n ]\n}\n")


def _short(number: str) -> float:
    return float(f"{float(number):.{DIGITS}g}")


if __name__ == "__main__":
    pack(*map(Path, sys.argv[1:]))
