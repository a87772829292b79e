"""Rows of results kept in a file, so that a stopped run goes on from them."""

from __future__ import annotations

from pathlib import Path

from mlkernels.errors import bad_input
from mlkernels.support import checked, results
from mlkernels.support.checked import is_number
from mlkernels.support.strict_json import to_json

_FORMAT = 3  # of a file of rows; 2 had no checksum, 1 looked at 16 images of a split
_OLD = {None: "those of another version, which looked at fewer images"}


def _is_scores(value) -> bool:
    return isinstance(value, dict) and all(each in ("inf", "-inf", "nan") or is_number(each) for each in value.values())


_IS_ROW = {"accuracy": lambda value: is_number(value, 0, 1), "scores": _is_scores}


class Kept:
    """Rows of results in a JSON file, written whole with each new one, so that a stopped call goes on from there.

    Without a path nothing is kept; a file of other settings (`about`, plain values) is refused, and a damaged one is
    set aside.

    Args:
        kind: what rows are called in the file: "accuracy", each from 0 to 1, or "scores", numbers by name.

    Attributes:
        rows: name -> value, for JSON.
        diverged: name -> why its value is the worst there is.
    """

    def __init__(self, path: Path | str | None, kind: str, about: dict):
        self.path = None if path is None else Path(path)
        now = "with a checksum of the data"
        name = f"{kind} of architectures"
        self.kind = checked.Kind(name, _FORMAT, self._check, before=(2,), refused=_OLD, now=now)
        self.about, self.name = to_json(about), kind
        self.rows, self.diverged = self._read()

    def add(self, name: str, value) -> None:
        """One more row."""
        self.rows[name] = value
        if self.path is not None:
            content = {"kind": self.kind.name, "format": _FORMAT, "settings": self.about, self.name: self.rows}
            results.save(self.path, content | ({"diverged": self.diverged} if self.diverged else {}))

    def _check(self, found: dict) -> None:
        """The form of such a file."""
        if not isinstance(found["settings"], dict):
            raise ValueError("no settings")
        for name, value in found[self.name].items():
            if not _IS_ROW[self.name](value):
                raise ValueError(f"{value!r} as {self.name} of {name}")
        for name, why in found.get("diverged", {}).items():
            if name not in found[self.name] or not isinstance(why, str):
                raise ValueError(f"{why!r} as the reason why {name} diverged")

    def _read(self) -> tuple[dict, dict]:
        found = None if self.path is None else checked.read(self.path, self.kind)
        if found is None:
            return {}, {}
        settings = found["settings"]
        if settings != self.about:
            differ = ", ".join(name for name in self.about | settings if settings.get(name) != self.about.get(name))
            do = "choose another file, or the same settings and data"
            expected = f"{self.kind.name} under these settings"
            raise bad_input(str(self.path), expected, f"others: {differ} differ", do)
        return found[self.name], found.get("diverged", {})
