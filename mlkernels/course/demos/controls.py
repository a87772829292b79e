"""The controls of a demo: explicit stops, each with its text. No widgets here."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from mlkernels.errors import bad_input


@dataclass(frozen=True)
class Control:
    """One control of a demo: explicit stops and never a continuum, so that each can be compiled and tested.

    Args:
        kind: "steps" for a slider, "choice" for buttons.
        name: the setting, a keyword of the demo's `compute`.
        label: what the reader sees, with the symbol of the text.
        options: (text, value) for each stop.
        default: one of the values.
        help: a sentence on what it does.
    """

    kind: str
    name: str
    label: str
    options: tuple[tuple[str, Any], ...]
    default: Any
    help: str = ""

    def __post_init__(self) -> None:
        if self.kind not in ("steps", "choice"):
            raise bad_input(f"control {self.name}, kind", "steps or choice", repr(self.kind), "choose one")
        texts = [text for text, _ in self.options]
        if len(texts) < 2 or len(set(texts)) < len(texts):
            raise bad_input(
                f"control {self.name}, options", "two or more, each with its own text", texts, "rename them"
            )
        if self.default not in self.values:
            raise bad_input(f"control {self.name}, default", f"one of {self.values}", repr(self.default), "choose one")

    @property
    def values(self) -> tuple[Any, ...]:
        return tuple(value for _, value in self.options)

    def text(self, value: Any) -> str:
        """The text of a value, also of one between the stops."""
        return next((text for text, stop in self.options if stop == value), written(value))


def written(value: Any) -> str:
    """A value as a label: infinity as its sign, numbers short.

    Example:
        >>> written(math.inf), written(0.1), written(64)
        ('∞', '0.1', '64')
    """
    if isinstance(value, float):
        return "∞" if value == math.inf else f"{value:g}"
    return str(value)


def steps(name: str, label: str, values: Iterable[Any], default: Any, help: str = "") -> Control:
    """A slider over these values."""
    return Control("steps", name, label, tuple((written(v), v) for v in values), default, help)


def choice(name: str, label: str, values: Iterable[Any], default: Any, help: str = "") -> Control:
    """Buttons for these values."""
    return Control("choice", name, label, tuple((written(v), v) for v in values), default, help)
