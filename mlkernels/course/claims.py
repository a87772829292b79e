"""A claim of a paper, measured here, with its verdict. The intervals that it is stated with come from `intervals`."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from mlkernels.course.claim_records import CLAIM_MIME, VERDICTS, markdown_cell
from mlkernels.errors import bad_input
from mlkernels.support.intervals import Interval, Slope, interval, power_law, slope
from mlkernels.support.strict_json import to_json

__all__ = ["Claim", "Interval", "Slope", "claim", "interval", "power_law", "slope", "table"]

HOLDS, FAILS, UNTESTED = VERDICTS
_ID = re.compile(r"[a-z][a-z0-9_]*\.[a-z][a-z0-9_]*")


@dataclass(frozen=True)
class Claim:
    """One claim with its verdict, made by `claim`. As a cell's last expression it shows a line and records itself."""

    id: str
    statement: str
    source: str
    measured: str
    expected: str
    verdict: str
    test: str
    why: str = ""
    expected_to_hold: bool = True
    values: dict[str, Any] = field(default_factory=dict)

    @property
    def judged(self) -> str:
        """The verdict with its sign and, where it does not hold, the reason."""
        return f"{VERDICTS[self.verdict]} {self.verdict}" + (f" ({self.why})" if self._excuse else "")

    @property
    def _excuse(self) -> bool:
        return bool(self.why) and self.verdict != HOLDS

    def __str__(self) -> str:
        found = f"Measured {self.measured}; expected {self.expected}."
        return f"{self.judged}: {self.statement} {found} [{self.id}; {self.source}]"

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, Any]:
        e = {name: html.escape(str(value)) for name, value in asdict(self).items()}
        why = f" ({e['why']})" if self._excuse else ""
        line = (
            '<p style="border-left:4px solid #888;padding-left:.6em">'
            f"<strong>{VERDICTS[self.verdict]} {self.verdict}</strong>{why}: {e['statement']} "
            f"Measured <strong>{e['measured']}</strong>; expected {e['expected']}. "
            f"<small>[{e['id']}; {e['source']}]</small></p>"
        )
        return {"text/plain": str(self), "text/html": line, CLAIM_MIME: asdict(self)}


def claim(
    id: str,
    statement: str,
    source: str,
    measured: str,
    expected: str,
    holds: bool | None,
    *,
    test: str,
    values: dict[str, Any] | None = None,
    why: str = "",
    expected_to_hold: bool = True,
) -> Claim:
    """State a claim together with what was measured. The verdict is computed by the caller, never typed.

    Args:
        id: "word.word" in lower case, for example "metantk.width_rate"; the same in every run.
        statement: the claim in one sentence.
        source: paper and place, for example "Wang et al. 2022, Theorem 1".
        measured: what came out, with its spread; built from computed numbers, as by `f"{interval(samples)}"`.
        expected: what the source predicts.
        holds: a boolean (Python's, numpy's or JAX's); None where this run cannot test it.
        test: the test that would make the claim fail, for example "tests/test_metantk.py::test_width_rate".
        values: name -> number or array behind `measured`; recorded as JSON.
        why: the reason for "not tested here" (required then), or why it does not hold; not shown where it does.
        expected_to_hold: False for a claim that the notebook shows to fail; such a failure does not fail the run.

    Returns:
        `Claim`.

    Raises:
        InputError: an id of another form, an empty text, a `holds` that is no boolean, None without `why`.

    Example:
        >>> error = 0.04
        >>> print(claim("demo.small_error", "The error is small.", "this docstring", f"{error:.2f}", "below 0.05",
        ...             error < 0.05, test="tests/test_claims.py::test_one_line"))
        ✓ holds: The error is small. Measured 0.04; expected below 0.05. [demo.small_error; this docstring]
    """
    if not isinstance(id, str) or not _ID.fullmatch(id):
        raise bad_input("claim id", 'two lower-case words as in "metantk.width_rate"', repr(id), "rename the claim")
    texts = {"statement": statement, "source": source, "measured": measured, "expected": expected, "test": test}
    for name, text in texts.items():
        if not isinstance(text, str) or not text.strip():
            raise bad_input(f"claim {id}, {name}", "a text", repr(text), "say it in words and computed numbers")
    if holds is not None:
        truth = np.asarray(holds)
        if truth.dtype != bool or truth.ndim:
            raise bad_input(f"claim {id}, holds", "one boolean, or None for not tested here", repr(holds), "compute it")
        holds = bool(truth)
    elif not why:
        raise bad_input(f"claim {id}, why", "the reason why it is not tested here", "nothing", "say why")
    verdict = {True: HOLDS, False: FAILS, None: UNTESTED}[holds]
    return Claim(
        id, **texts, verdict=verdict, why=why, expected_to_hold=bool(expected_to_hold), values=to_json(values or {})
    )


@dataclass(frozen=True)
class _Table:
    """What `table` returns: shown as HTML or Markdown, printed as text."""

    claims: tuple[Claim, ...]
    heads = ("claim", "source", "expected", "measured", "verdict")

    def rows(self) -> list[tuple[str, ...]]:
        return [(c.statement, c.source, c.expected, c.measured, c.judged) for c in self.claims]

    def __str__(self) -> str:
        return "\n".join(str(c) for c in self.claims)

    def markdown(self) -> str:
        lines = [self.heads, ("---",) * len(self.heads), *self.rows()]
        return "\n".join("| " + " | ".join(map(markdown_cell, row)) + " |" for row in lines)

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, str]:
        left = ' style="text-align:left;white-space:normal"'
        head = "".join(f'<th scope="col"{left}>{name}</th>' for name in self.heads)
        body = "".join(
            "<tr>" + "".join(f"<td{left}>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in self.rows()
        )
        page = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        return {"text/plain": str(self), "text/markdown": self.markdown(), "text/html": page}


def table(claims: Iterable[Claim]) -> _Table:
    """A table of claims, to end a notebook with.

    Args:
        claims: what `claim` returned, each id once.

    Returns:
        An object that a notebook shows as a table and `print` as lines; `.markdown()` gives Markdown.

    Raises:
        InputError: two claims with the same id.

    Example:
        >>> c = claim("demo.one", "One is one.", "Peano", "1", "1", 1 == 1, test="tests/test_claims.py::test_table")
        >>> print(table([c]).markdown().splitlines()[2])
        | One is one. | Peano | 1 | 1 | ✓ holds |
    """
    claims = tuple(claims)
    ids = [c.id for c in claims]
    if twice := sorted({i for i in ids if ids.count(i) > 1}):
        raise bad_input("claims", "each id once", ", ".join(twice), "give the second one its own id")
    return _Table(claims)
