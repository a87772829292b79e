"""The one kind of error that bad input gets: what was expected, what came, what to do."""

from __future__ import annotations


class InputError(ValueError):
    """Bad input. Its message is one line: `what: expected ..., got ...; what to do`."""


def bad_input(what: str, expected: object, got: object, do: str) -> InputError:
    """Make (not raise) the error for one bad input.

    Args:
        what: name of the argument, file or setting.
        expected: what would have been right.
        got: what came.
        do: what the reader can do now.

    Returns:
        An `InputError` to raise.

    Example:
        >>> str(bad_input("shot", "a whole number of at least 1", 0, "ask for one or more support images"))
        'shot: expected a whole number of at least 1, got 0; ask for one or more support images'
    """
    return InputError(f"{what}: expected {expected}, got {got}; {do}")
