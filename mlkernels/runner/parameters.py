"""Which notebooks there are, which parameters they have, and the values that a command line gives them."""

from __future__ import annotations

import ast
import io
import math
import tokenize
from collections.abc import Sequence
from dataclasses import dataclass

from mlkernels.course.ranges import SEEDS, ranges_of, within
from mlkernels.errors import InputError, bad_input

_TYPES = ("None", "bool", "int", "float", "str")  # tried in this order
_LISTED = 12  # names that an error lists before it says how many more there are


@dataclass(frozen=True)
class Parameter:
    """One assignment of a notebook's cell tagged `parameters`."""

    name: str
    types: tuple[str, ...]  # of _TYPES; or what the annotation says where it is none of those
    default: str  # as source
    help: str = ""
    allowed: tuple | list | str | None = None  # its range, as `ranges.within` takes it; None for any value

    def __str__(self) -> str:
        return f"{self.name}: {' | '.join(self.types)} = {self.default}"


def parameters_of(notebook: dict) -> dict[str, Parameter]:
    """The parameters of a notebook: the assignments of its first cell tagged `parameters`.

    papermill's own inspection drops annotations with `|` and lines with two `=`, so the cell is parsed as Python here.
    Ranges are those of the cell that calls `presets.choose`.
    """
    tagged = [cell["source"] for cell in notebook["cells"] if "parameters" in cell.get("metadata", {}).get("tags", [])]
    try:
        source = tagged[0]
        lines = ast.parse(source).body
        tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
    except (IndexError, SyntaxError, tokenize.TokenError):
        return {}
    comments = {token.start[0]: token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT}
    found, ranges = {}, {"seed": SEEDS} | ranges_of(notebook)
    for line in lines:
        if not isinstance(line, ast.AnnAssign | ast.Assign):
            continue
        target = line.target if isinstance(line, ast.AnnAssign) else line.targets[0]
        if isinstance(target, ast.Name) and line.value is not None:
            default = ast.unparse(line.value)
            annotation = ast.unparse(line.annotation) if isinstance(line, ast.AnnAssign) else _type_of(default)
            told = _types(annotation), default, comments.get(line.end_lineno, ""), ranges.get(target.id)
            found[target.id] = Parameter(target.id, *told)
    return found


def _types(annotation: str) -> tuple[str, ...]:
    annotation = annotation.strip("'\"")
    if annotation.startswith(("Optional[", "typing.Optional[")):
        annotation = annotation[annotation.index("[") + 1 : -1] + " | None"
    return tuple(part.strip() for part in annotation.split("|"))


def _type_of(default: str) -> str:
    """The type of an unannotated default: that of its value; an expression such as math.inf counts as a float."""
    try:
        return type(ast.literal_eval(default)).__name__
    except ValueError:
        return "float"


def convert(parameter: Parameter, text: str, option: str = "--set") -> object:
    """The text of `--set name=text` as a value of the parameter's type and in its range, else an `InputError`.

    `none` means None, `inf` is a float; of a folder it is the absolute path, from the current folder and with ~
    expanded. `option` is what the error names, where the text stands elsewhere.
    """
    value = _typed(parameter, text, option)
    if value is None or parameter.allowed is None:
        return value
    return within(f"{option} {parameter.name}", value, parameter.allowed)


def _typed(parameter: Parameter, text: str, option: str) -> object:
    for kind in sorted(parameter.types, key=lambda name: _TYPES.index(name) if name in _TYPES else len(_TYPES)):
        word = text.strip().lower()
        if kind == "None" and word == "none":
            return None
        if kind == "bool" and word in ("true", "false", "1", "0"):
            return word in ("true", "1")
        if kind in ("int", "float"):
            try:
                value = int(text) if kind == "int" else float(text)
            except ValueError:
                continue
            if not math.isnan(value):
                return value
        if kind == "str":
            return text
    kinds = " or ".join(parameter.types)
    do = f"try {parameter.name}={parameter.default}"
    raise bad_input(f"{option} {parameter.name}", f"{kinds} (default {parameter.default})", repr(text), do)


def divided(option: str, setting: str, example: str) -> tuple[str, str]:
    """The two sides of `key=value`; the key may be any but the preset's, which has an option of its own."""
    key, equals, text = setting.partition("=")
    key = key.strip()
    if not equals or not key:
        raise bad_input(option, "key=value", repr(setting), f"try {option} {example}")
    if key == "preset":
        from mlkernels.course.presets import PRESETS

        do = f"use --preset {text if text in PRESETS else 'with one of ' + ', '.join(PRESETS)}"
        raise bad_input(f"{option} preset", "the preset by its own option", repr(setting), do)
    return key, text


def unknown(option: str, key: str, declared: dict[str, dict[str, Parameter]]) -> InputError:
    """The error for a parameter that none of the notebooks has: it lists those that they have."""
    known = {str(parameter): None for each in declared.values() for parameter in each.values()}
    listed = "; ".join(list(known)[:_LISTED]) + (f"; and {len(known) - _LISTED} more" if len(known) > _LISTED else "")
    return bad_input(option, f"a parameter of {', '.join(declared)}", repr(key), f"they have: {listed or 'none'}")


def parameters_for(notebooks: dict[str, dict], preset: str, settings: Sequence[str]) -> dict[str, dict[str, object]]:
    """The values that each notebook is run with, name -> {parameter -> value}.

    The preset goes to every notebook that has such a parameter, each `key=value` to those that have the key.
    """
    from mlkernels.course.presets import PRESETS

    if preset not in PRESETS:
        raise bad_input("--preset", f"one of {', '.join(PRESETS)}", repr(preset), f"try --preset {PRESETS[0]}")
    declared = {name: parameters_of(notebook) for name, notebook in notebooks.items()}
    values = {name: {"preset": preset} if "preset" in known else {} for name, known in declared.items()}
    for setting in settings:
        key, text = divided("--set", setting, "seed=1")
        having = [name for name, known in declared.items() if key in known]
        if not having:
            raise unknown("--set", key, declared)
        for name in having:
            values[name][key] = convert(declared[name][key], text)
    return values
