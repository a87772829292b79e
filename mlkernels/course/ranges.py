"""The range of a notebook's parameter: written once, where `presets.choose` is called, read there and by the runner."""

from __future__ import annotations

import ast
import math
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from mlkernels.errors import bad_input
from mlkernels.support.arguments import one_of, whole
from mlkernels.support.files import check_place

FOLDER = "folder"
SEEDS = (0, 2**31 - 1)  # a random key has 32 bits, and notebooks count up from their seed


def within(name: str, value: Any, allowed: tuple | list | str) -> Any:
    """A parameter's value that is in its range, ready for use: of a folder its absolute path, with ~ expanded.

    A tuple holds both ends, which belong to the range, or None for an upper end that there is not: (2, None) are whole
    numbers, (0.0, 0.16) finite numbers. A list holds the names that there are. "folder" is one that can be written to.

    Example:
        >>> within("rate", math.inf, (0.0, 0.16))
        Traceback (most recent call last):
        mlkernels.errors.InputError: rate: expected a number from 0.0 to 0.16, got inf; choose such a number
    """
    if allowed == FOLDER:
        return _folder(name, value)
    if isinstance(allowed, list) and all(isinstance(each, str) for each in allowed):
        return one_of(name, value, allowed)
    if not isinstance(allowed, tuple) or len(allowed) != 2 or not isinstance(allowed[0], Real):
        expected = 'both ends of a range as in (2, None) or (0.0, 1.0), a list of names, or "folder"'
        raise bad_input(f"range of {name}", expected, repr(allowed), "write it so")
    least, most = allowed
    if isinstance(least, Integral):
        return whole(name, value, least, most)
    fits = isinstance(value, Real) and not isinstance(value, bool) and least <= value < math.inf
    if not fits or (most is not None and value > most):
        span = f"finite number of at least {least}" if most is None else f"number from {least} to {most}"
        raise bad_input(name, f"a {span}", repr(value) if isinstance(value, str) else value, "choose such a number")
    return value


def ranges_of(notebook: dict) -> dict[str, tuple | list | str]:
    """The ranges that a notebook hands to `presets.choose` as they stand, by name, without running it."""
    for cell in notebook["cells"]:
        try:
            calls = [node for node in ast.walk(ast.parse(cell["source"])) if isinstance(node, ast.Call)]
            given = [word.value for call in calls for word in call.keywords if word.arg == "ranges"]
            if cell["cell_type"] == "code" and given:
                return dict(ast.literal_eval(given[0]))
        except (SyntaxError, ValueError, TypeError):  # prose, a magic command, or a table that is computed
            continue
    return {}


def _folder(name: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise bad_input(name, "the path of a folder", repr(value), "name one")
    try:
        folder = Path(value).expanduser().absolute()
    except RuntimeError:
        raise bad_input(name, "the path of a folder", f"{value!r}, of no known user", "write ./~ for a ~") from None
    check_place(folder / "file")
    return str(folder)
