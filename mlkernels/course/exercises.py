"""Checks for the notebooks' exercises: right or wrong, and why. An exercise not yet done never stops a notebook."""

from __future__ import annotations

import contextlib
import io
from typing import Any

from mlkernels.course.cases import EXERCISES
from mlkernels.course.judging import Outcome, judge
from mlkernels.errors import bad_input


def check(number: str, attempt: Any) -> Outcome:
    """Check an attempt at an exercise of the course.

    Args:
        number: the notebook's and the exercise's, as "01.2".
        attempt: the student's function.

    Returns:
        `Outcome`: right; not done yet (the stub raises NotImplementedError); or wrong, with the first case that fails,
        what was expected, what came, and the hint. It is true in a condition where the answer is right.

    Raises:
        InputError: there is no such exercise.

    Example:
        >>> print(check("01.2", lambda rate, m: rate / m))
        ✗ wrong: 01.2, the rate of an averaged loss
          with rate=0.1, m=5: expected 0.04, got 0.02
          hint: compare the two gradients

    Source: the exercises of every notebook; the cases and hints are in `mlkernels.course.cases`.
    """
    title, exercise = title_of(number), EXERCISES[number]
    if getattr(attempt, "__name__", "").startswith("solution_"):  # stands below the student's own verdict
        title += " (the course's solution)"
    return judge(title, attempt, exercise.cases, rtol=exercise.rtol, atol=exercise.atol)


def points(number: str, attempt: Any) -> int:
    """1 where an attempt is right, else 0: what a grader counts, without a word on the screen.

    Args:
        number: the notebook's and the exercise's, as "01.2".
        attempt: the student's function.

    Returns:
        1 or 0. What an attempt warns of is held back: nbgrader gives nothing for a cell that writes to stderr.

    Raises:
        InputError: there is no such exercise.

    Example:
        >>> points("01.2", lambda rate, m: 2 * rate / m)
        1
    """
    with contextlib.redirect_stderr(io.StringIO()):
        return int(bool(check(number, attempt)))


def title_of(number: str) -> str:
    """An exercise's number and title, as the check says them.

    Raises:
        InputError: there is no such exercise.

    Example:
        >>> title_of("01.2")
        '01.2, the rate of an averaged loss'
    """
    if number not in EXERCISES:
        own = [each for each in EXERCISES if each.partition(".")[0] == str(number).partition(".")[0]]
        raise bad_input("number", f"one of {', '.join(own or EXERCISES)}", repr(number), "see the exercise's heading")
    return f"{number}, {EXERCISES[number].title}"
