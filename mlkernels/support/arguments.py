"""Checks at the door of what many functions take: a whole number, a number of at least 0, one of a few names."""

from __future__ import annotations

import math
from collections.abc import Iterable
from numbers import Integral, Real

from mlkernels.errors import bad_input


def whole(name: str, value, least: int = 0, most: int | None = None, *, do: str = "choose such a number") -> int:
    """An int of Python or NumPy (True and False are none) from `least` to `most`, both ends in it; as Python's.

    Example:
        >>> whole("cells", 1, 2)
        Traceback (most recent call last):
        mlkernels.errors.InputError: cells: expected a whole number of at least 2, got 1; choose such a number
    """
    fits = isinstance(value, Integral) and not isinstance(value, bool) and value >= least
    if not fits or (most is not None and value > most):
        span = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise bad_input(name, f"a whole number {span}", _shown(value), do)
    return int(value)


def number(name: str, value, *, infinite: bool = False, do: str = "use 0 or a small positive number") -> float:
    """A real number of at least 0, of Python or NumPy (True, False and NaN are none); as Python's float.

    Example:
        >>> number("ridge", float("nan"))
        Traceback (most recent call last):
        mlkernels.errors.InputError: ridge: expected a finite number of at least 0, got nan; use 0 or a small ...
    """
    fits = isinstance(value, Real) and not isinstance(value, bool) and value >= 0
    if not fits or not (infinite or value < math.inf):
        raise bad_input(name, f"a {'' if infinite else 'finite '}number of at least 0", _shown(value), do)
    return float(value)


def one_of(name: str, value, known: Iterable[str], *, do: str = "name one of them") -> str:
    """One of a few names, which the message lists in this order.

    >>> one_of("algorithm", "sgd", ("maml", "anil"))
    Traceback (most recent call last):
    mlkernels.errors.InputError: algorithm: expected maml or anil, got 'sgd'; name one of them
    """
    names = tuple(known)
    if value not in names:
        raise bad_input(name, " or ".join(map(str, names)), repr(value), do)
    return value


def _shown(value) -> object:
    """As a message shows it: a text that looks like a number in quotes, NumPy's numbers without their type."""
    return repr(value) if isinstance(value, str) else value
