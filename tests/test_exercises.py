"""Checks of exercises: right, wrong and why, not done yet; whatever the attempt does."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlkernels.course.exercises import check
from mlkernels.errors import InputError

SQUARES = [((2.0,), 4.0, "multiply it by itself"), ((np.arange(3.0),), [0.0, 1.0, 4.0], "all entries")]


def stub(x):
    """Square x."""
    raise NotImplementedError("write your code here")


def test_right():
    outcome = check("Squares", lambda x: x * x, SQUARES)
    assert outcome
    assert str(outcome) == "✓ right: Squares"


@pytest.mark.parametrize(("attempt", "tests"), [(stub, SQUARES), (..., [((), 3, "count")])])
def test_not_done_yet_is_calm(attempt, tests):
    outcome = check("Squares", attempt, tests)
    assert not outcome
    assert str(outcome) == "○ not done yet: Squares"


@pytest.mark.parametrize(
    ("attempt", "why"),
    [
        (lambda x: 2 * x + 1, "with 2: expected 4, got 5"),
        (lambda x: None, "got None: the last line needs a return"),
        (lambda x: [x, x], "expected shape (), got shape (2,)"),
        (lambda x: "four", "got 'four', which is no array of numbers"),
        (lambda x: x.square(), "it stops with AttributeError: 'float' object has no attribute 'square'"),
        (lambda: 4, "it stops with TypeError"),
        (lambda x: np.nan, "expected 4, got nan"),
    ],
)
def test_wrong_says_why(attempt, why):
    outcome = check("Squares", attempt, SQUARES)
    assert not outcome
    assert str(outcome).startswith("✗ wrong: Squares")
    assert why in str(outcome)
    assert "hint: multiply it by itself" in str(outcome)


def test_the_first_failing_case_and_its_hint_are_shown():
    outcome = check("Squares", lambda x: 2 * x, SQUARES)
    assert "with [0., 1., 2.]: expected [0., 1., 4.], got [0., 2., 4.]" in str(outcome)
    assert "all entries" in str(outcome)


def test_shapes_come_before_values():
    tests = [((np.ones((2, 3)),), np.ones((3, 2)), "transpose")]
    assert "expected shape (3, 2), got shape (2, 3); the axes are swapped" in str(check("T", lambda x: x, tests))


def test_large_arrays_name_the_first_wrong_entry():
    wrong = np.eye(5)
    wrong[2, 3] = 0.5
    outcome = check("I", lambda n: wrong, [((5,), np.eye(5), "the identity")])
    assert "1 of 25 entries are not; the first at [2, 3]: expected 0, got 0.5" in str(outcome)


def test_structures_keywords_and_reference_functions():
    tests = [({"x": 2.0, "y": 3.0}, lambda x, y: {"sum": x + y, "pair": (x, [y, "name"])}, "both")]
    assert check("S", lambda x, y: {"sum": x + y, "pair": (x, [y, "name"])}, tests)
    outcome = check("S", lambda x, y: {"sum": x + y, "pair": (x, [y, "nome"])}, tests)
    assert "with x=2, y=3: at ['pair']: at [1]: at [1]: expected 'name', got 'nome'" in str(outcome)
    assert "expected a dict with sum, pair" in str(check("S", lambda x, y: 1.0, tests))
    assert "expected 2 values" in str(check("P", lambda: (1, 2, 3), [((), (1, 2), "two")]))


def test_booleans_and_none():
    assert check("B", lambda: jnp.array(True), [((), True, "yes")])
    assert "expected True, got False" in str(check("B", lambda: False, [((), True, "yes")]))
    assert check("N", lambda: None, [((), None, "nothing")])


def test_an_attempt_that_changes_its_arguments_spoils_no_later_case():
    x = np.arange(3.0)

    def attempt(x):
        x *= 2
        return x

    assert check("Twice", attempt, [((x,), 2 * x, ""), ((x,), 2 * x, "")])
    np.testing.assert_array_equal(x, np.arange(3.0))


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=5))
def test_a_right_answer_is_right_in_numpy_and_jax(values):
    x = np.array(values)
    assert check("id", lambda x: x, [((x,), x, "")])
    assert check("id", lambda x: jnp.asarray(x), [((x,), x, "")])
    assert not check("id", lambda x: x + 0.1 + np.abs(x), [((x,), x, "")])


def test_keys_and_functions_can_be_arguments():
    tests = [((jax.random.key(0), np.sin, 3), lambda key, f, n: f(jax.random.normal(key, (n,))), "draw, then f")]
    assert check("draw", lambda key, f, n: f(jax.random.normal(key, (n,))), tests)
    assert "with an array of shape (), sin, 3: expected shape (3,)" in str(check("draw", lambda key, f, n: 0.0, tests))


def test_html_escapes_what_students_write():
    page = check("a < b", lambda: "<script>", [((), 1.0, "&")])._repr_mimebundle_()["text/html"]
    assert "<script>" not in page
    assert "a &lt; b" in page
    assert "✗ wrong" in page


@pytest.mark.parametrize("tests", [[], [(1, 2, 3)], [((1,), 2)]])
def test_tests_of_another_form_are_refused(tests):
    with pytest.raises(InputError, match="tests: expected"):
        check("none", lambda: 1, tests)
