"""The one kind of error that bad input gets: what was expected, what came, what to do."""

from __future__ import annotations

import re

_LONGEST = 300  # characters of an input that an error repeats
_WORDS = 2000  # characters of what else it says, which may list what there is
_NO_MEMORY = "RESOURCE_EXHAUSTED", "Out of memory", "bad_alloc"  # what XLA says on a GPU, on a CPU, of C++
_BREAK = re.compile(r"\s*[\t\n\v\f\r\x1c-\x1e\x85\u2028\u2029]\s*")


class InputError(ValueError):
    """Bad input. Its message is one line: `what: expected ..., got ...; what to do`."""


def bad_input(what: str, expected: object, got: object, do: str) -> InputError:
    """Make (not raise) the error for one bad input.

    Args:
        what: name of the argument, file or setting.
        expected: what would have been right.
        got: what came; of a long text the middle is left out, here and in `what`.
        do: what the reader can do now.

    Returns:
        An `InputError` to raise.

    Example:
        >>> str(bad_input("shot", "a whole number of at least 1", 0, "ask for one or more support images"))
        'shot: expected a whole number of at least 1, got 0; ask for one or more support images'
    """
    what, got = one_line(what), one_line(got)
    return InputError(f"{what}: expected {one_line(expected, _WORDS)}, got {got}; {one_line(do, _WORDS)}")


def one_line(text: object, most: int = _LONGEST) -> str:
    """A text from anywhere as one line that can be printed: control characters are escaped, and of a text of more than
    `most` characters the middle is left out.

    Example:
        >>> one_line("red\\x1b[31m\\nand on"), one_line("a" * 2000, 12)
        ('red\\\\x1b[31m and on', 'aaaaaaaa … aa (2000 characters)')
    """
    text = str(text)
    if len(text) > most:
        text = f"{text[: most * 2 // 3]} … {text[len(text) - most // 6 :]} ({len(text)} characters)"
    if text.isprintable():
        return text
    text = _BREAK.sub(" ", text)
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def is_of_memory(error: Exception) -> bool:
    """Whether an error says that memory has run out: Python's and NumPy's, or XLA's, which has a kind for everything.

    Example:
        >>> is_of_memory(MemoryError()), is_of_memory(RuntimeError("INTERNAL: Out of memory allocating 8 bytes."))
        (True, True)
        >>> is_of_memory(RuntimeError("INTERNAL: no such kernel"))
        False
    """
    return isinstance(error, MemoryError) or any(mark in str(error) for mark in _NO_MEMORY)
