"""Checks at the door of what many functions take: numbers, a range of them, yes or no, one of a few names."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sized
from numbers import Integral, Real

from mlkernels.errors import bad_input

_LONGEST = 80  # letters of an argument that a message repeats


def whole(name: str, value, least: int = 0, most: int | None = None, *, do: str = "choose such a number") -> int:
    """An int of Python, NumPy or JAX (True and False are none) from `least` to `most`, both ends in it; as Python's.

    Example:
        >>> whole("cells", 1, 2)
        Traceback (most recent call last):
        mlkernels.errors.InputError: cells: expected a whole number of at least 2, got 1; choose such a number
    """
    value = plain(value)
    fits = isinstance(value, Integral) and not isinstance(value, bool) and value >= least
    if not fits or (most is not None and value > most):
        span = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise bad_input(name, f"a whole number {span}", _shown(value), do)
    return int(value)


def number(name: str, value, *, infinite: bool = False, do: str = "use 0 or a small positive number") -> float:
    """A real number of at least 0, of Python, NumPy or JAX (True, False and NaN are none); as Python's float.

    Example:
        >>> number("ridge", float("nan"))
        Traceback (most recent call last):
        mlkernels.errors.InputError: ridge: expected a finite number of at least 0, got nan; use 0 or a small ...
    """
    value = plain(value)
    fits = is_real(value) and value >= 0
    if not fits or not (infinite or value < math.inf):
        raise bad_input(name, f"a {'' if infinite else 'finite '}number of at least 0", _shown(value), do)
    return float(value)


def one_of(name: str, value, known: Iterable, *, do: str = "name one of them"):
    """One of a few names, which the message lists in this order.

    >>> one_of("algorithm", "sgd", ("maml", "anil"))
    Traceback (most recent call last):
    mlkernels.errors.InputError: algorithm: expected maml or anil, got 'sgd'; name one of them
    """
    names = tuple(known)
    value = plain(value)
    if hasattr(value, "shape") or value not in names:  # an array would be compared entry by entry
        raise bad_input(name, " or ".join(map(str, names)), repr(value), do)
    return value


def span(name: str, value) -> tuple[float, float]:
    """Two finite numbers, the smaller first, or the same twice; as Python's floats.

    Example:
        >>> span("x_range", (5, -5))
        Traceback (most recent call last):
        mlkernels.errors.InputError: x_range: expected two finite numbers, the smaller first, got (5, -5); order them
    """
    try:
        ends = [plain(end) for end in value]
    except TypeError:  # nothing of several parts
        ends = []
    fits = len(ends) == 2 and all(is_real(end) and math.isfinite(end) for end in ends) and ends[0] <= ends[1]
    if not fits:
        do = "order them" if len(ends) == 2 else "give two, as (-1.0, 1.0)"
        raise bad_input(name, "two finite numbers, the smaller first", in_short(value), do)
    return float(ends[0]), float(ends[1])


def flag(name: str, value) -> bool:
    """True or False, of Python, NumPy or JAX; as Python's.

    Example:
        >>> flag("replace", "no")
        Traceback (most recent call last):
        mlkernels.errors.InputError: replace: expected True or False, got 'no'; say one of them
    """
    value = plain(value)
    if not isinstance(value, bool):
        raise bad_input(name, "True or False", in_short(value), "say one of them")
    return value


def is_real(value) -> bool:
    """Whether it is a real number of Python or NumPy, which True and False are not.

    Example:
        >>> is_real(1), is_real(True), is_real(1j)
        (True, False, False)
    """
    return isinstance(value, Real) and not isinstance(value, bool)


def plain(value):
    """A scalar of NumPy or JAX as Python's, where its value is known; anything else as it is.

    Example:
        >>> import jax.numpy as jnp
        >>> plain(jnp.float32(0.5)), plain([0.5])
        (0.5, [0.5])
    """
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        try:
            return value.item()
        except TypeError:  # JAX's, of an array that is traced
            return value
    return value


def in_short(value) -> str:
    """What an argument is, in one line of a message.

    Example:
        >>> in_short("no"), in_short(list(range(100))), in_short([[1, 2], [3, 4]])
        ("'no'", 'a list of 100', '[[1, 2], [3, 4]]')
    """
    if getattr(value, "shape", ()) and hasattr(value, "dtype"):
        return f"{value.dtype} {list(value.shape)}"
    words = repr(value)
    if len(words) <= _LONGEST and "\n" not in words:
        return words
    kind = type(value).__name__
    return f"a {kind} of {len(value)}" if isinstance(value, Sized) and not hasattr(value, "shape") else kind


def _shown(value) -> object:
    """As a message shows it: a text that looks like a number in quotes, NumPy's numbers without their type."""
    return value if is_real(value) else in_short(value)
