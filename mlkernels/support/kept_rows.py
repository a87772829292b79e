"""Rows of results kept in a file, so that a stopped run goes on from them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from mlkernels.errors import bad_input
from mlkernels.support import results
from mlkernels.support.files import alone
from mlkernels.support.strict_json import to_json

_FORMAT = 2  # of a file of rows; 1 looked at 16 images of a split


@contextmanager
def alone_with(path: Path | str | None, kind: str, about: dict) -> Iterator[Kept]:
    """`Kept` rows of a file that no other process or thread works on meanwhile."""
    path = None if path is None else Path(path)
    with nullcontext() if path is None else alone(path.parent, path.name):
        yield Kept(path, kind, about)


class Kept:
    """Rows of results in a JSON file, written whole with each new one, so that a stopped call goes on from there.

    Without a path nothing is kept; a file of other settings (`about`, plain values) is refused. `kind` is what rows are
    called in the file: "accuracy" or "scores".

    Attributes:
        rows: name -> value, for JSON.
        diverged: name -> why its value is the worst there is.
    """

    def __init__(self, path: Path | str | None, kind: str, about: dict):
        self.path, self.kind = None if path is None else Path(path), kind
        self.about = to_json(about)
        self.rows, self.diverged = self._read()

    def add(self, name: str, value) -> None:
        """One more row."""
        self.rows[name] = value
        if self.path is not None:
            content = {"format": _FORMAT, "settings": self.about, self.kind: self.rows}
            results.save(self.path, content | ({"diverged": self.diverged} if self.diverged else {}))

    def _read(self) -> tuple[dict, dict]:
        if self.path is None:
            return {}, {}
        try:
            found = json.loads(self.path.read_text(encoding="utf-8"))
            settings, rows = dict(found["settings"]), dict(found[self.kind])
            diverged, format_ = dict(found.get("diverged", {})), found.get("format", 1)
        except FileNotFoundError:
            return {}, {}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            do = "move it away, or choose another file"
            raise bad_input(str(self.path), f"{self.kind} of architectures", "something else", do) from None
        if format_ != _FORMAT:
            do = "move it away to begin anew, or choose another file"
            expected = f"{self.kind} of architectures with a checksum of the data"
            raise bad_input(str(self.path), expected, "those of another version, which looked at fewer images", do)
        if settings != self.about:
            differ = ", ".join(name for name in self.about | settings if settings.get(name) != self.about.get(name))
            do = "choose another file, or the same settings and data"
            expected = f"{self.kind} of architectures under these settings"
            raise bad_input(str(self.path), expected, f"others: {differ} differ", do)
        return rows, diverged
