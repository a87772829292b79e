"""Results of benchmarks as tables, whatever they have measured: a row for each group of figures side by side."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlkernels.runner.report import device_line
from mlkernels.support import results

_ORIGIN = ("created", "date", "command", "commit", "changed_since_commit", "seed", "versions", "device", "machine",
           "load_before", "load_after", "package_sha256", "benchmark", "provenance", "sha256")  # fmt: skip
_NAMES = {"ntk": "NTK", "metantk": "MetaNTK", "rkhs": "RKHS", "nas": "MetaNTK-NAS", "maml": "MAML"}
_LONG = 6  # of a list of numbers; a longer one is told by its ends


def benchmarks(folder: Path) -> list[dict]:
    """What the files bench_*.json of a folder say, for the page: name, title, origin and tables of each."""
    return [_benchmark(path) for path in sorted(folder.glob("bench_*.json"))]


def _benchmark(path: Path) -> dict:
    result = results.read(path)
    about = {**result, **result.get("provenance", {})}
    name = path.stem.removeprefix("bench_")
    tables = []
    for section, content in result.items():
        if section not in _ORIGIN:
            tables += _tables(section, content)
    return {"name": name, "title": _title(name), "origin": _origin(about), "tables": tables}


def _title(name: str) -> str:
    words = _words(name)
    return words[0].upper() + words[1:]


def _origin(about: dict) -> list[tuple[str, str]]:
    """When, where and how it was measured."""
    memory = about.get("machine", {}).get("memory_bytes")
    where = device_line(about.get("device", {})) + (f", {memory / 2**30:.0f} GiB of memory" if memory else "")
    used = ", ".join(f"{name} {version}" for name, version in about.get("versions", {}).items())
    said = [
        ("when", about.get("created", about.get("date", ""))[:16].replace("T", " ") + " UTC"),
        ("where", where),
        ("load before", _shown(about.get("load_before", ""))),
        ("with", used),
        ("commit", str(about.get("commit") or "")[:12]),
        ("again", about.get("command", "")),
    ]
    return [(name, value) for name, value in said if value]


def _tables(section: str, content: Any) -> Iterator[dict]:
    """The tables of a section: one for each set of figures that some groups in it share."""
    groups: dict[tuple, list] = {}
    for path, figures in _groups(content, ()):
        groups.setdefault(tuple(figures), []).append(
            (" · ".join(path) or _words(section), *map(_shown, figures.values()))
        )
    for number, (names, rows) in enumerate(groups.items()):
        caption = _words(section) if not number else f"{_words(section)}: {', '.join(_words(name) for name in names)}"
        yield {"caption": caption, "columns": ["what", *map(_words, names)], "rows": rows}


def _groups(content: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], dict]]:
    """The figures that stand side by side, with the names above them, from the outside in."""
    if isinstance(content, list) and content and all(isinstance(each, dict) for each in content):
        for number, each in enumerate(content, 1):
            name = next((value for value in each.values() if isinstance(value, str)), str(number))
            yield from _groups({key: value for key, value in each.items() if value != name}, (*path, name))
    elif isinstance(content, dict):
        figures = {name: value for name, value in content.items() if not _nested(value)}
        if figures:
            yield path, figures
        for name, value in content.items():
            if _nested(value):
                yield from _groups(value, (*path, _words(name)))
    else:
        yield path, {"value": content}


def _nested(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and any(isinstance(each, dict) for each in value))


def _words(name: str) -> str:
    words = str(name).split("_")
    return " ".join(_NAMES.get(word, word) for word in words)


def _shown(value: Any) -> str:
    """A figure in a few letters."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        numbers = [each for each in value if isinstance(each, int | float)]
        if len(value) > _LONG and numbers:
            return f"{len(value)} from {_shown(min(numbers))} to {_shown(max(numbers))}"
        return ", ".join(map(_shown, value))
    return str(value)
