"""Times and sizes as people say them, and texts from anywhere as a terminal may show them."""

from __future__ import annotations

from mlkernels.errors import one_line


def seconds(value: float) -> str:
    """A time as people say it.

    Example:
        >>> seconds(4.26), seconds(75), seconds(7300)
        ('4.3 s', '1 min 15 s', '2 h 1 min')
    """
    if value < 59.5:
        return f"{value:.1f} s" if value < 9.95 else f"{value:.0f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def span(counts) -> str:
    """The least and the greatest of some numbers, or the one that all are.

    Example:
        >>> span([3, 5, 4]), span([7, 7])
        ('3 to 5', '7')
    """
    low, high = min(counts), max(counts)
    return f"{low}" if low == high else f"{low} to {high}"


def readable(count: float) -> str:
    """A count of bytes for people.

    Example:
        >>> readable(3 * 2**30)
        '3.0 GiB'
    """
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def printable(text: str) -> str:
    """Lines whose control characters are escaped: a file's or a dataset's name cannot move a terminal's cursor.

    Example:
        >>> printable("one\\ntwo\\x1b[2J")
        'one\\ntwo\\\\x1b[2J'
    """
    return "\n".join(one_line(line, len(line)) for line in text.split("\n"))
