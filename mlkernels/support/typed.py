"""Shapes in annotations, held against what comes and goes: in tests alone, for it takes time."""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable

CHECKED = False  # tests/conftest.py turns it on, before anything that is annotated is imported


def typed(function: Callable) -> Callable:
    """A function whose jaxtyping annotations are checked while tests run; else the function itself.

    Arguments are checked after the call: what it refuses, it refuses in its own words. Sizes of one name are one size,
    in arguments and in what is returned.
    """
    if not CHECKED:
        return function
    from beartype.door import die_if_unbearable
    from jaxtyping import jaxtyped

    signature = inspect.signature(function)
    shapes = None

    @functools.wraps(function)
    def checked(*given, **named):
        nonlocal shapes
        result = function(*given, **named)
        if shapes is None:  # now, when every module is there
            hints = typing.get_type_hints(function, include_extras=True)
            shapes = {name: hint for name, hint in hints.items() if "jaxtyping" in repr(hint)}
        values = signature.bind(*given, **named).arguments | {"return": result}
        with jaxtyped("context"):
            for name, shape in shapes.items():
                if name in values:
                    die_if_unbearable(values[name], shape)
        return result

    return checked
