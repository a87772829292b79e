"""A search's log from one file of data/results, which tools/pack_search.py makes: what a replay needs."""

from __future__ import annotations

import json
from pathlib import Path

import mlkernels
from mlkernels.errors import bad_input
from mlkernels.nas import SPACES, Space

GLYPHS = Path(mlkernels.__file__).parents[1] / "data" / "results" / "search_glyphs.json"  # in a checkout


def unpack(path: Path = GLYPHS) -> tuple[list[dict], Space]:
    """The log and the search space of a packed search, as `nas.replay` takes them; by default of the course's own."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return found["log"], SPACES[found["settings"]["space"]]
    except OSError as error:
        do = "take the log of a search of your own: nas.search(...).log"
        raise bad_input(str(path), "a recorded search", error.strerror, do) from None
    except (ValueError, KeyError, TypeError):
        do = "take data/results/search_glyphs.json, or a search's own log"
        raise bad_input(str(path), "a recorded search in a space that has a name", "something else", do) from None
