"""An attempt at an exercise, judged: right, wrong and why, or not done yet. Nothing that it raises gets out."""

from __future__ import annotations

import copy
import html
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlkernels.errors import bad_input

RIGHT, WRONG, OPEN = "right", "wrong", "not done yet"
_SIGNS = {RIGHT: "✓", WRONG: "✗", OPEN: "○"}
# white text on these is at 4.5 or more, and each of them on JupyterLab's light and dark pages at 3 or more
COLOURS, ON_COLOUR = {RIGHT: "#2e7d32", WRONG: "#c62828", OPEN: "#546e7a"}, "#ffffff"


@dataclass(frozen=True)
class Outcome:
    """What a check found. True in a condition when right; as the last expression of a cell it shows itself."""

    title: str
    verdict: str
    lines: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return self.verdict == RIGHT

    def __str__(self) -> str:
        return "\n".join(
            [f"{_SIGNS[self.verdict]} {self.verdict}: {self.title}", *(f"  {line}" for line in self.lines)]
        )

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, str]:
        colour = COLOURS[self.verdict]
        badge = (
            f'<strong style="background:{colour};color:{ON_COLOUR};border-radius:3px;padding:.1em .5em">'
            f'<span aria-hidden="true">{_SIGNS[self.verdict]} </span>{self.verdict}</strong>'
        )
        rest = "".join(f'<div style="margin-top:.3em">{html.escape(line)}</div>' for line in self.lines)
        frame = f"border:1px solid {colour};border-left-width:8px;border-radius:3px;padding:.5em .8em;margin:.3em 0"
        ink = "color:var(--jp-content-font-color1, inherit);background:var(--jp-layout-color1, transparent)"
        page = f'<div style="{frame};{ink}">{badge} {html.escape(self.title)}{rest}</div>'
        return {"text/plain": str(self), "text/html": page}


def _in_a_few_words(value: Any) -> str:
    """A value in a few words: small arrays written out, larger ones by shape."""
    if isinstance(value, tuple | list):
        inner = ", ".join(_in_a_few_words(item) for item in value)
        return f"({inner})" if isinstance(value, tuple) else f"[{inner}]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name}: {_in_a_few_words(item)}" for name, item in value.items()) + "}"
    if callable(value):
        return getattr(value, "__name__", "a function")
    if isinstance(value, float) or (getattr(value, "shape", None) == () and _is_array(value)):
        return f"{value:.5g}" if np.asarray(value).dtype.kind == "f" else str(value)
    if not hasattr(value, "shape"):
        return repr(value)
    if not _is_array(value) or value.size > 6:
        return f"an array of shape {tuple(value.shape)}"
    return np.array2string(np.asarray(value), precision=4, separator=", ").replace("\n", "")


def _case(attempt: Any, args: tuple | Mapping) -> str:
    """The arguments in words, by the names that the attempt gives them, where it takes as many."""
    if not isinstance(args, Mapping):
        try:
            signature = inspect.signature(attempt)
            several = any(each.kind is each.VAR_POSITIONAL for each in signature.parameters.values())
            args = args if several else signature.bind(*args).arguments
        except (TypeError, ValueError):  # no function, too few arguments, or one of C
            pass
    if isinstance(args, Mapping):
        return ", ".join(f"{name}={_in_a_few_words(value)}" for name, value in args.items())
    return ", ".join(_in_a_few_words(value) for value in args)


def _difference(got: Any, expected: Any, rtol: float, atol: float) -> str | None:
    """Why `got` is not `expected`, or None where it is."""
    if got is None and expected is not None:
        return f"expected {_in_a_few_words(expected)}, got None: the last line needs a return"
    if isinstance(expected, Mapping):
        if not isinstance(got, Mapping) or set(got) != set(expected):
            return f"expected a dict with {', '.join(map(str, expected))}, got {_in_a_few_words(got)}"
        pairs = [(f"[{name!r}]", got[name], expected[name]) for name in expected]
    elif isinstance(expected, tuple) or (isinstance(expected, list) and not _is_array(expected)):
        if not isinstance(got, tuple | list) or len(got) != len(expected):
            return f"expected {len(expected)} values in a tuple or list, got {_in_a_few_words(got)}"
        pairs = [(f"[{i}]", g, e) for i, (g, e) in enumerate(zip(got, expected, strict=True))]
    elif expected is None or isinstance(expected, str):
        same = got is None if expected is None else isinstance(got, str) and got == expected
        return None if same else f"expected {expected!r}, got {_in_a_few_words(got)}"
    else:
        return _array_difference(got, expected, rtol, atol)
    found = ((place, _difference(g, e, rtol, atol)) for place, g, e in pairs)
    return next((f"at {place}: {why}" for place, why in found if why), None)


def _is_array(value: Any) -> bool:
    """Whether numpy can read it as numbers (or booleans) in a rectangular array."""
    try:
        return np.asarray(value).dtype.kind in "biufc"
    except (ValueError, TypeError):  # ragged, or nothing that numpy knows
        return False


def _array_difference(got: Any, expected: Any, rtol: float, atol: float) -> str | None:
    if not _is_array(got):
        return f"expected {_in_a_few_words(expected)}, got {_in_a_few_words(got)}, which is no array of numbers"
    want, have = np.asarray(expected), np.asarray(got)
    if have.shape != want.shape:
        hint = "; the axes are swapped" if have.ndim > 1 and have.shape == want.shape[::-1] else ""
        return f"expected shape {want.shape}, got shape {have.shape}{hint}"
    exact = want.dtype.kind == "b"
    close = have == want if exact else np.isclose(have, want, rtol=rtol, atol=atol, equal_nan=True)
    if close.all():
        return None
    if want.size <= 6:
        return f"expected {_in_a_few_words(want)}, got {_in_a_few_words(have)}"
    where = tuple(int(i) for i in np.argwhere(~close)[0])
    spot = ", ".join(map(str, where))
    return (
        f"the shape {want.shape} is right, but {np.sum(~close)} of {want.size} entries are not; "
        f"the first at [{spot}]: expected {want[where]:.5g}, got {have[where]:.5g}"
    )


def judge(
    title: str, attempt: Any, tests: Sequence[tuple[Any, Any, str]], *, rtol: float = 1e-4, atol: float = 1e-6
) -> Outcome:
    """Judge an attempt at an exercise.

    Args:
        title: the exercise's.
        attempt: the student's function; or the student's value (`...` where there is none yet), with `()` as arguments.
        tests: (arguments, expected, hint) each. Arguments: a tuple, or a dict of keywords. Expected: a number, an array
            (a list of numbers counts as one), a text, or tuples, lists and dicts of these; or a function of the same
            arguments that gives it.
        rtol, atol: how close numbers must come, as in `numpy.isclose`.

    Returns:
        `Outcome`: right; not done yet (the stub raises NotImplementedError), with what the stub asks for; or wrong,
        with the first case that fails, its arguments named as the attempt names them, what was expected, what came,
        and the hint. Nothing that the attempt raises gets out.

    Raises:
        InputError: no tests, or tests of another form.

    Example:
        >>> def centroid(x):
        ...     return x.sum(axis=0)
        >>> print(judge("The centroid", centroid, [((np.array([[1.0, 2.0], [3.0, 4.0]]),), [2.0, 3.0], "divide by n")]))
        ✗ wrong: The centroid
          with x=[[1., 2.], [3., 4.]]: expected [2., 3.], got [4., 6.]
          hint: divide by n

    Source: the exercises of every notebook, by `exercises.check`.
    """
    tests = list(tests)
    if not tests or not all(isinstance(t, tuple) and len(t) == 3 and isinstance(t[0], tuple | Mapping) for t in tests):
        form = "(arguments as a tuple or dict, expected, hint) each"
        raise bad_input("tests", form, _in_a_few_words(tests), "write at least one")
    for args, expected, hint in tests:
        case = f"with {_case(attempt, args)}: " if args else ""
        keywords = isinstance(args, Mapping)

        def call(function, args=args, keywords=keywords):
            own = copy.deepcopy(args)  # so that an attempt that changes its arguments spoils no later case
            return function(**own) if keywords else function(*own)

        try:
            got = call(attempt) if callable(attempt) else attempt
        except NotImplementedError as error:
            return Outcome(title, OPEN, (str(error),) if str(error) else ())
        except Exception as error:
            said = (str(error).strip() or "no message").splitlines()[0]
            return Outcome(title, WRONG, (f"{case}it stops with {type(error).__name__}: {said}", f"hint: {hint}"))
        if got is Ellipsis:
            return Outcome(title, OPEN)
        wanted = call(expected) if callable(expected) else expected
        if why := _difference(got, wanted, rtol, atol):
            return Outcome(title, WRONG, (f"{case}{why}", f"hint: {hint}"))
    return Outcome(title, RIGHT)
