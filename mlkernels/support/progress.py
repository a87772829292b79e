"""How far a computation is, and bars that show it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TextIO

from mlkernels.support.words import seconds


@dataclass(frozen=True)
class Progress:
    """How far a computation is: `done` of `total` steps, None where their number is not known.

    Attributes:
        text: what is at work, in words.
        note: more about it, such as the loss.
        seconds_left: about, to the end; None where it cannot be said.
    """

    done: int
    total: int | None
    text: str
    note: str = ""
    seconds_left: float | None = None

    def __str__(self) -> str:
        left = "" if self.seconds_left is None else f", {seconds(self.seconds_left)} left"
        return f"{self.text}{left}{'; ' if self.note else ''}{self.note}"


def bar(stream: TextIO, **options):
    """A bar of tqdm on a terminal, gone when it closes; elsewhere one that counts and shows nothing (`disable`)."""
    from tqdm import tqdm

    return tqdm(file=stream, dynamic_ncols=True, leave=False, disable=not stream.isatty(), **options)
