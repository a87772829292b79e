"""Checks of exercises: right, wrong and why, not done yet; whatever the attempt does."""

from __future__ import annotations

import ast
import inspect
import re
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from _notebooks import read
from hypothesis import given
from hypothesis import strategies as st

from mlkernels.course import exercises
from mlkernels.course.cases import EXERCISES
from mlkernels.course.judging import COLOURS, ON_COLOUR, OPEN, RIGHT, WRONG, judge
from mlkernels.errors import InputError

SQUARES = [((2.0,), 4.0, "multiply it by itself"), ((np.arange(3.0),), [0.0, 1.0, 4.0], "all entries")]


def stub(x):
    """Square x."""
    raise NotImplementedError("write your code here")


def test_right():
    outcome = judge("Squares", lambda x: x * x, SQUARES)
    assert outcome
    assert str(outcome) == "✓ right: Squares"


@pytest.mark.parametrize(("attempt", "tests"), [(stub, SQUARES), (..., [((), 3, "count")])])
def test_not_done_yet_is_calm(attempt, tests):
    outcome = judge("Squares", attempt, tests)
    assert not outcome
    assert str(outcome).splitlines()[0] == "○ not done yet: Squares"
    assert "✗" not in str(outcome)


@pytest.mark.parametrize(
    ("attempt", "why"),
    [
        (lambda x: 2 * x + 1, "with x=2: expected 4, got 5"),
        (lambda x: None, "got None: the last line needs a return"),
        (lambda x: [x, x], "expected shape (), got shape (2,)"),
        (lambda x: "four", "got 'four', which is no array of numbers"),
        (lambda x: x.square(), "it stops with AttributeError: 'float' object has no attribute 'square'"),
        (lambda: 4, "with 2: it stops with TypeError"),
        (lambda *own: 4 if own == (3.0,) else 5, "with 2: expected 4, got 5"),
        (lambda x, scale=1: scale, "with x=2: expected 4, got 1"),
        (lambda x: np.nan, "expected 4, got nan"),
    ],
)
def test_wrong_says_why(attempt, why):
    outcome = judge("Squares", attempt, SQUARES)
    assert not outcome
    assert str(outcome).startswith("✗ wrong: Squares")
    assert why in str(outcome)
    assert "hint: multiply it by itself" in str(outcome)


def test_the_first_failing_case_and_its_hint_are_shown():
    outcome = judge("Squares", lambda x: 2 * x, SQUARES)
    assert "with x=[0., 1., 2.]: expected [0., 1., 4.], got [0., 2., 4.]" in str(outcome)
    assert "all entries" in str(outcome)


def test_shapes_come_before_values():
    tests = [((np.ones((2, 3)),), np.ones((3, 2)), "transpose")]
    assert "expected shape (3, 2), got shape (2, 3); the axes are swapped" in str(judge("T", lambda x: x, tests))


def test_large_arrays_name_the_first_wrong_entry():
    wrong = np.eye(5)
    wrong[2, 3] = 0.5
    outcome = judge("I", lambda n: wrong, [((5,), np.eye(5), "the identity")])
    assert "1 of 25 entries are not; the first at [2, 3]: expected 0, got 0.5" in str(outcome)


def test_structures_keywords_and_reference_functions():
    tests = [({"x": 2.0, "y": 3.0}, lambda x, y: {"sum": x + y, "pair": (x, [y, "name"])}, "both")]
    assert judge("S", lambda x, y: {"sum": x + y, "pair": (x, [y, "name"])}, tests)
    outcome = judge("S", lambda x, y: {"sum": x + y, "pair": (x, [y, "nome"])}, tests)
    assert "with x=2, y=3: at ['pair']: at [1]: at [1]: expected 'name', got 'nome'" in str(outcome)
    assert "expected a dict with sum, pair" in str(judge("S", lambda x, y: 1.0, tests))
    assert "expected 2 values" in str(judge("P", lambda: (1, 2, 3), [((), (1, 2), "two")]))


def test_booleans_and_none():
    assert judge("B", lambda: jnp.array(True), [((), True, "yes")])
    assert "expected True, got False" in str(judge("B", lambda: False, [((), True, "yes")]))
    assert judge("N", lambda: None, [((), None, "nothing")])


def test_an_attempt_that_changes_its_arguments_spoils_no_later_case():
    x = np.arange(3.0)

    def attempt(x):
        x *= 2
        return x

    assert judge("Twice", attempt, [((x,), 2 * x, ""), ((x,), 2 * x, "")])
    np.testing.assert_array_equal(x, np.arange(3.0))


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=5))
def test_a_right_answer_is_right_in_numpy_and_jax(values):
    x = np.array(values)
    assert judge("id", lambda x: x, [((x,), x, "")])
    assert judge("id", lambda x: jnp.asarray(x), [((x,), x, "")])
    assert not judge("id", lambda x: x + 0.1 + np.abs(x), [((x,), x, "")])


def test_keys_and_functions_can_be_arguments():
    tests = [((jax.random.key(0), np.sin, 3), lambda key, f, n: f(jax.random.normal(key, (n,))), "draw, then f")]
    assert judge("draw", lambda key, f, n: f(jax.random.normal(key, (n,))), tests)
    told = str(judge("draw", lambda key, f, n: 0.0, tests))
    assert "with key=an array of shape (), f=sin, n=3: expected shape (3,)" in told


def test_html_escapes_what_students_write():
    page = judge("a < b", lambda: "<script>", [((), 1.0, "&")])._repr_mimebundle_()["text/html"]
    assert "<script>" not in page
    assert "a &lt; b" in page
    assert re.sub("<[^>]*>", "", page).startswith("✗ wrong a &lt; b")


def luminance(colour):
    """Of "#rrggbb", as WCAG defines it."""
    parts = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]


def contrast(one, two):
    low, high = sorted([luminance(one), luminance(two)])
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize(
    ("attempt", "verdict", "sign"), [(lambda x: x * x, RIGHT, "✓"), (lambda x: x, WRONG, "✗"), (stub, OPEN, "○")]
)
def test_a_verdict_is_a_colour_a_sign_and_a_word(attempt, verdict, sign):
    page = judge("Squares", attempt, SQUARES)._repr_mimebundle_()["text/html"]
    assert f"background:{COLOURS[verdict]}" in page
    assert f">{sign} </span>{verdict}</strong>" in page


def test_the_verdicts_colours_can_be_told_apart_on_light_and_dark_pages():
    assert len(set(COLOURS.values())) == 3
    for colour in COLOURS.values():
        assert contrast(ON_COLOUR, colour) >= 4.5
        assert min(contrast("#ffffff", colour), contrast("#111111", colour)) >= 3


def test_an_exercise_is_found_by_its_number():
    assert str(exercises.check("02.3", lambda labels, start: labels + start)) == "✓ right: 02.3, centred outputs"
    with pytest.raises(InputError, match=r"one of 02.1, 02.2, 02.3, 02.4, got '02.9'"):
        exercises.check("02.9", stub)


def test_points_are_one_or_nothing_and_nothing_is_said(capsys):
    def loud(rate, m):
        print("mind this", file=sys.stderr)
        return 2 * rate / m

    assert exercises.points("01.2", loud) == 1
    assert exercises.points("01.2", lambda rate, m: rate) == exercises.points("01.2", stub) == 0
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "")


# --- the notebooks' exercises -----------------------------------------------------------------------------------------


def cells(tag):
    """(number, notebook's imports, cell, name of the function) for all cells with the tag; found as the check is."""
    found = []
    for path in sorted((Path(__file__).resolve().parent.parent / "notebooks").glob("[0-9][0-9]_*.ipynb")):
        code = [cell for cell in read(path).cells if cell.cell_type == "code"]
        nodes = [node for cell in code for node in ast.parse(cell.source).body]
        imports = "\n".join(ast.unparse(node) for node in nodes if isinstance(node, ast.Import | ast.ImportFrom))
        for cell in code:
            if tag in cell.metadata.get("tags", []):
                number, name = re.search(r'^exercises\.check\("([^"]+)", (\w+)\)$', cell.source, re.M).groups()
                found.append(pytest.param(imports, cell, number, name, id=number))
    return found


STUBS, SOLUTIONS = cells("exercise"), cells("solution")


def checked(imports, source, name):
    """What a cell's check says where nothing but the notebook's imports has run, and the cell's function."""
    namespace = {}
    exec(imports, namespace)
    *definitions, call = ast.parse(source).body
    exec(compile(ast.Module(definitions, []), "cell", "exec"), namespace)
    return eval(compile(ast.Expression(call.value), "cell", "eval"), namespace), namespace[name]


def test_every_exercise_has_a_stub_and_a_solution():
    numbers = [exercise.id for exercise in STUBS]
    assert numbers == [exercise.id for exercise in SOLUTIONS]
    assert sorted(numbers) == sorted(EXERCISES)
    assert all(exercise.cases and all(hint for *_, hint in exercise.cases) for exercise in EXERCISES.values())


@pytest.mark.parametrize(("imports", "cell", "number", "name"), STUBS)
def test_a_stub_is_open_says_what_to_write_and_holds_no_answer(imports, cell, number, name):
    outcome, function = checked(imports, cell.source, name)
    assert outcome.verdict == OPEN
    with pytest.raises(NotImplementedError, match=r"^return .{8,}, in place of the raise$"):
        function(*[None] * len(inspect.signature(function).parameters))
    stub, call = ast.parse(cell.source).body  # nothing but the function and its check: cases are in the package
    assert isinstance(stub, ast.FunctionDef)
    assert len(stub.body) == 2, "a docstring and raise"
    assert isinstance(call, ast.Expr)


@pytest.mark.parametrize(("imports", "cell", "number", "name"), SOLUTIONS)
def test_a_solution_is_right_folded_and_leaves_the_students_function_alone(imports, cell, number, name):
    outcome, _ = checked(imports, cell.source, name)
    assert outcome.verdict == RIGHT, outcome
    assert name == f"solution_{next(stub.values[3] for stub in STUBS if stub.id == number)}"
    defined = [node.name for node in ast.parse(cell.source).body if isinstance(node, ast.FunctionDef)]
    assert defined == [name]
    assert cell.metadata["jupyter"] == {"source_hidden": True, "outputs_hidden": True}
    assert {"solution", "hide-cell"} <= set(cell.metadata["tags"])


@pytest.mark.parametrize("tests", [[], [(1, 2, 3)], [((1,), 2)]])
def test_tests_of_another_form_are_refused(tests):
    with pytest.raises(InputError, match="tests: expected"):
        judge("none", lambda: 1, tests)
