"""What an exercise is judged by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Case = tuple[tuple | Mapping, Any, str]


@dataclass(frozen=True)
class Exercise:
    """An exercise: its title, and its cases in the order in which they are tried.

    A case is (arguments, expected, hint), as `judging.judge` takes them. Where there is a definition that is not the
    answer's formula, the expected value is a function of the arguments that computes it by that definition.
    """

    title: str
    cases: tuple[Case, ...]
    rtol: float = 1e-4
    atol: float = 1e-6


def by_definition(definition, *cases: tuple[tuple, str]) -> tuple[Case, ...]:
    """Cases (arguments, hint) whose expected values one definition gives."""
    return tuple((args, definition, hint) for args, hint in cases)
