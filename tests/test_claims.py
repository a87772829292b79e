"""Claims and the numbers they are stated with."""

from __future__ import annotations

import json
import math

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from mlkernels.course import claims
from mlkernels.errors import InputError


def make(**changes):
    fields = {
        "id": "metantk.width_rate",
        "statement": "The error falls as width to the power −1/2.",
        "source": "A paper, Theorem 1",
        "measured": "-0.51",
        "expected": "-0.5",
        "holds": True,
        "test": "tests/test_claims.py::test_one_line",
    }
    return claims.claim(**{**fields, **changes})


def test_one_line():
    claim = make()
    assert str(claim).startswith("✓ holds: The error falls")
    assert "\n" not in str(claim)


@pytest.mark.parametrize("true", [True, np.True_, np.array(True), jnp.array(True), jnp.float32(1) > 0])
def test_booleans_of_all_libraries(true):
    assert make(holds=true).verdict == "holds"
    assert make(holds=~np.asarray(true)).verdict == "does not hold"


def test_not_tested_here_says_why():
    claim = make(holds=None, why="needs the class preset")
    assert claim.verdict == "not tested here"
    assert "○ not tested here (needs the class preset): The error" in str(claim)
    with pytest.raises(InputError, match="say why"):
        make(holds=None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": "width"}, "claim id"),
        ({"id": "a.b.c"}, "claim id"),
        ({"id": "A.b"}, "claim id"),
        ({"id": "a.b "}, "claim id"),
        ({"holds": 1}, "holds"),
        ({"holds": np.array([True, False])}, "holds"),
        ({"holds": "yes"}, "holds"),
        ({"measured": -0.51}, "measured"),
        ({"expected": " "}, "expected"),
        ({"test": ""}, "test"),
    ],
)
def test_bad_input(change, message):
    with pytest.raises(InputError, match=message):
        make(**change)


def test_the_record_has_what_the_runner_gathers():
    claim = make(
        values={"slope": np.float64(-0.51), "per_seed": jnp.ones(2), "limit": math.inf}, expected_to_hold=np.False_
    )
    record = json.loads(json.dumps(claim._repr_mimebundle_()[claims.CLAIM_MIME], allow_nan=False))
    assert record == {
        "id": "metantk.width_rate",
        "statement": "The error falls as width to the power −1/2.",
        "source": "A paper, Theorem 1",
        "measured": "-0.51",
        "expected": "-0.5",
        "verdict": "holds",
        "why": "",
        "test": "tests/test_claims.py::test_one_line",
        "expected_to_hold": False,
        "values": {"slope": -0.51, "per_seed": [1.0, 1.0], "limit": "inf"},
    }


def test_html_says_the_verdict_in_words_and_escapes():
    page = make(statement="a < b & c", holds=False)._repr_mimebundle_()["text/html"]
    assert "✗ does not hold" in page
    assert "a &lt; b &amp; c" in page


def test_table():
    table = claims.table([make(), make(id="metantk.other", holds=False, statement="A | B", why="float32")])
    bundle = table._repr_mimebundle_()
    assert set(bundle) == {"text/plain", "text/markdown", "text/html"}
    assert table.markdown().splitlines()[0] == "| claim | source | expected | measured | verdict |"
    assert "A \\| B" in table.markdown()
    assert "✗ does not hold (float32)" in bundle["text/html"]
    assert len(str(table).splitlines()) == 2
    with pytest.raises(InputError, match="each id once"):
        claims.table([make(), make()])


def test_interval_is_students():
    samples = np.random.default_rng(0).normal(size=12)
    found = claims.interval(samples, level=0.9)
    low, high = scipy.stats.t.interval(0.9, 11, loc=samples.mean(), scale=scipy.stats.sem(samples))
    np.testing.assert_allclose([found.low, found.high], [low, high])
    assert found.mean in found
    assert found.high + 1 not in found


def test_interval_covers_as_often_as_it_says():
    draws = np.random.default_rng(1).normal(loc=2.0, size=(2000, 4))
    covered = np.mean([2.0 in claims.interval(row) for row in draws])
    assert abs(covered - 0.95) < 3 * math.sqrt(0.95 * 0.05 / 2000)


@pytest.mark.parametrize(
    ("interval", "text"),
    [
        (claims.Interval(0.512, 0.480, 0.544, 8), "0.512 (95 % interval 0.480 to 0.544, n = 8)"),
        (claims.Interval(1234.5, 1100.0, 1369.0, 3), "1234 (95 % interval 1100 to 1369, n = 3)"),
        (claims.Interval(1.5e-7, 1.2e-7, 1.8e-7, 5), "1.5e-07 (95 % interval 1.2e-07 to 1.8e-07, n = 5)"),
        (claims.Interval(2.0, 2.0, 2.0, 5, 0.9), "2 (90 % interval 2 to 2, n = 5)"),
    ],
)
def test_intervals_are_written_with_the_digits_they_support(interval, text):
    assert f"{interval}" == str(interval) == text


def test_a_format_applies_to_each_number():
    assert f"{claims.Interval(0.512, 0.48, 0.544, 8):.1%}" == "51.2% (95 % interval 48.0% to 54.4%, n = 8)"


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=20), st.floats(0.5, 0.99))
def test_interval_holds_its_mean_and_is_written_for_any_numbers(samples, level):
    found = claims.interval(samples, level)
    assert found.low <= found.mean <= found.high
    assert f"n = {len(samples)}" in f"{found}"


@pytest.mark.parametrize("samples", [[1.0], [], [[1.0, 2.0]], [1.0, math.nan], [1.0, math.inf]])
def test_interval_refuses(samples):
    with pytest.raises(InputError, match="samples"):
        claims.interval(samples)


def test_level_is_checked():
    with pytest.raises(InputError, match="level"):
        claims.interval([1.0, 2.0], level=95)


def test_slope_of_one_seed_is_least_squares():
    rng = np.random.default_rng(2)
    x = np.arange(8.0)
    y = 3 - 0.5 * x + rng.normal(size=8)
    found, fit = claims.slope(x, y), scipy.stats.linregress(x, y)
    half = scipy.stats.t.ppf(0.975, 6) * fit.stderr
    np.testing.assert_allclose([found.slope, found.intercept], [fit.slope, fit.intercept])
    np.testing.assert_allclose([found.low, found.high], [fit.slope - half, fit.slope + half])
    two = claims.slope(x, [y, y])
    np.testing.assert_allclose(two.slope, fit.slope)
    assert (two.n, two.seeds) == (8, 2)


def test_slope_of_many_seeds_spreads_over_the_seeds_slopes():
    rng = np.random.default_rng(3)
    x = np.arange(5.0)
    ys = 1 + np.outer(rng.normal(2, 0.1, size=6), x)
    found = claims.slope(x, ys)
    expected = claims.interval([scipy.stats.linregress(x, y).slope for y in ys])
    np.testing.assert_allclose([found.slope, found.low, found.high], [expected.mean, expected.low, expected.high])
    assert "5 points x 6 seeds" in f"{found}"


@given(st.floats(-3, 3), st.floats(0.1, 10))
def test_power_law_finds_the_exponent(exponent, factor):
    x = np.array([16.0, 64.0, 256.0, 1024.0])
    found = claims.power_law(x, factor * x**exponent)
    np.testing.assert_allclose([found.slope, math.exp(found.intercept)], [exponent, factor], rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize(
    "call",
    [
        lambda: claims.power_law([1, 2, 3], [1, 0, 1]),
        lambda: claims.power_law([1, 2, 3], [1, math.nan, 1]),
        lambda: claims.slope([1, 2, 3], [[1, 2], [2, 3]]),
        lambda: claims.slope([1, 1, 1], [1, 2, 3]),
        lambda: claims.slope([1, 2], [1, 2]),
        lambda: claims.slope([1, 2, 3], [1, 2, math.inf]),
    ],
)
def test_slopes_refuse(call):
    with pytest.raises(InputError):
        call()
