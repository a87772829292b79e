"""What a search keeps on disk: what it has scored so far, its log, its result. Each file is whole, or as it was."""

from __future__ import annotations

from dataclasses import astuple
from pathlib import Path

import jax

from mlkernels.errors import InputError, bad_input
from mlkernels.nas.engine.devices import from_first_process
from mlkernels.nas.searching.scorer import Scores
from mlkernels.support import checked
from mlkernels.support.checked import is_number
from mlkernels.support.file_faults import damaged, in_words
from mlkernels.support.files import write_atomically
from mlkernels.support.strict_json import to_json

FORMAT = 4  # 3 had no checksum
_OLD = {  # what the states of older versions were of
    1: "one of an older version, which did not look at its images' checksum and ranked all edges in one pool",
    2: "one of an older version, which ranked all edges in one pool",
}
STATE, LOG, RESULT = "state.json", "log.jsonl", "result.json"
_INFINITE = "inf", "-inf", "nan"  # as strict JSON says them


def _check(saved: dict) -> None:
    """The form of a state: who reads it relies on it, and old ones have no checksum."""
    if not isinstance(saved["about"], dict):
        raise ValueError("no settings and data")
    if not is_number(saved["seconds"], 0):
        raise ValueError(f"{saved['seconds']!r} seconds")
    for row in [*(row for rows in saved["done"] for row in rows), *saved["partial"]]:
        condition, regions, note = row
        if not (condition is None or condition in _INFINITE or is_number(condition)):
            raise ValueError(f"a condition number {condition!r}")
        if not (regions is None or is_number(regions)) or not isinstance(note, str):
            raise ValueError(f"scores {row}")


_NOW = "that ranks edges node by node"
_KIND = checked.Kind("state of a search", FORMAT, _check, before=(3,), refused=_OLD, now=_NOW)


class Record:
    """A search's folder, or nothing at all (None keeps everything in memory); one of another search is refused.

    Of several processes the first alone writes, and the others hear what it read: for them `folder` is None.

    Attributes:
        done: the scores of each finished round, item by item.
        partial: those of the round at work.
        seconds: what the search took so far, in all its sessions.
    """

    def __init__(self, folder: Path | None, about: dict):
        self.folder, self.about = folder if jax.process_index() == 0 else None, to_json(about)
        self.done: list[list[Scores]] = []
        self.partial: list[Scores] = []
        self.seconds = 0.0
        saved = from_first_process(None if self.folder is None else self._read())
        if isinstance(saved, str):
            raise InputError(saved)
        if saved:
            self.done = [[_scores(*row) for row in rows] for rows in saved["done"]]
            self.partial = [_scores(*row) for row in saved["partial"]]
            self.seconds = saved["seconds"]

    def _read(self) -> dict | str | None:
        """What was saved; a text says what is wrong with it, so that all processes can be told."""
        try:
            saved = checked.read(self.folder / STATE, _KIND)
        except InputError as error:
            return str(error)
        if saved is None:
            return None
        saved["about"].setdefault("design", "published")  # of states that are older than the choice
        differ = [name for name in self.about if saved["about"].get(name) != self.about[name]]
        if differ:
            got = ", ".join(f"{name} {saved['about'].get(name)}" for name in differ)
            expected = "a search of " + ", ".join(f"{name} {self.about[name]}" for name in differ)
            do = "choose another folder, or the same settings and data"
            return str(bad_input(str(self.folder), expected, got, do))
        return saved

    def add(self, scores: list[Scores], seconds: float) -> None:
        """More scores of the round at work."""
        self.partial += scores
        self.seconds = seconds
        self.save()

    def round(self, number: int, count: int, has: tuple[bool, bool]) -> list[Scores]:
        """The scores of a finished round, from 1: so many; `has` says whether condition numbers and regions are there.

        Others come of a file that is damaged and has no checksum yet.
        """
        rows = self.done[number - 1]
        if len(rows) == count and all((row.condition is not None, row.regions is not None) == has for row in rows):
            return rows
        if self.folder is None:
            raise InputError("the first process has found a damaged file")
        raise damaged(self.folder / STATE, in_words(f"not all scores of round {number}"), _KIND.again)

    def close_round(self) -> None:
        """The round at work is finished."""
        self.done.append(self.partial)
        self.partial = []
        self.save()

    def save(self) -> None:
        content = {
            "about": self.about,
            "seconds": round(self.seconds, 3),
            "done": [list(map(astuple, rows)) for rows in self.done],
            "partial": list(map(astuple, self.partial)),
        }
        if self.folder is not None:
            checked.write(self.folder / STATE, _KIND, content)

    def write(self, name: str, text: str) -> None:
        """A file of the folder, whole."""
        if self.folder is not None:
            write_atomically(self.folder / name, text)


def _scores(condition, regions, note) -> Scores:
    return Scores(None if condition is None else float(condition), regions, note)
