"""Reliability of rankings: against plain formulas and against draws of which the truth is known."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from scipy.stats import f_oneway, kendalltau

from mlkernels import nas
from mlkernels.errors import InputError


def noisy(share, A, R, seed=0):
    rng = np.random.default_rng(seed)
    signal, noise = rng.normal(size=(A, 1)), rng.normal(size=(A, R))
    return np.sqrt(share) * signal + np.sqrt(1 - share) * noise


def test_the_share_is_that_of_the_draws_and_draws_effects_do_not_count():
    values = noisy(0.2, 2000, 6)
    found = nas.share_between(values)
    assert found.low < 0.2 < found.high
    assert found.high - found.low < 0.06
    again = nas.share_between(values + 100 * np.arange(6))
    assert again.mean == pytest.approx(found.mean)


def test_the_share_interval_covers_as_often_as_it_says():
    inside = [0.1 in nas.share_between(noisy(0.1, 30, 4, seed)) for seed in range(400)]
    assert 0.92 < np.mean(inside) < 0.98


def test_the_share_follows_from_the_f_of_a_one_way_analysis_where_draws_have_no_effect():
    values = noisy(0.3, 5, 400)
    values -= values.mean(0)
    F = f_oneway(*values).statistic * (4 * 399) / (400 * 5 - 5)  # it counts the draws' freedom as noise, too
    assert nas.share_between(values).mean == pytest.approx((F - 1) / (F + 399), rel=1e-9)


def test_halves_agree_as_spearman_and_brown_say():
    values = noisy(0.1, 2000, 40)
    for size in (1, 4, 20):
        assert nas.tau_of_halves(values, size, splits=10).mean == pytest.approx(nas.expected_tau(0.1, size), abs=0.03)
    assert nas.draws_for(0.1, nas.expected_tau(0.1, 20)) == pytest.approx(20)
    assert nas.draws_for(0.0) == np.inf


def test_halves_share_no_draw_and_take_another_mean():
    values = noisy(0.5, 30, 4)
    pairs = [
        kendalltau(*(values[:, list(part)].max(1) for part in (pair, sorted({0, 1, 2, 3} - set(pair))))).statistic
        for pair in combinations(range(4), 2)
    ]
    found = nas.tau_of_halves(values, 2, splits=400, mean=lambda part: part.max(1))
    assert min(pairs) <= found.low <= found.high <= max(pairs)
    assert found.mean == pytest.approx(np.mean(pairs), abs=0.02)
    assert found.n == 1
    with pytest.raises(InputError, match="size"):
        nas.tau_of_halves(values, 3)


def test_chance_covers_unrelated_rankings():
    rng = np.random.default_rng(0)
    taus = [kendalltau(*rng.normal(size=(2, 40))).statistic for _ in range(600)]
    assert np.mean(np.abs(taus) < nas.chance_tau(40)) == pytest.approx(0.95, abs=0.03)


def test_components_are_those_that_were_put_in():
    rng, A, sizes = np.random.default_rng(1), 3000, (3, 2, 4)
    spreads = {(): 1.0, (1,): 2.0, (3,): 0.5, (1, 3): 3.0, (1, 2, 3): 1.5}
    values = np.zeros((A, *sizes))
    for axes, spread in spreads.items():
        shape = [A, *(n if axis in axes else 1 for axis, n in enumerate(sizes, 1))]
        values += spread * rng.normal(size=shape)
    values += 50 * rng.normal(size=(1, *sizes))  # what moves all candidates alike
    found = nas.variance_components(values, ("weights", "head", "tasks"), resamples=20)
    names = {(): "candidates", (1,): "weights", (2,): "head", (3,): "tasks", (1, 2): "weights x head",
             (1, 3): "weights x tasks", (2, 3): "head x tasks", (1, 2, 3): "weights x head x tasks"}  # fmt: skip
    assert set(found) == set(names.values())
    for axes, name in names.items():
        assert found[name].mean == pytest.approx(spreads.get(axes, 0.0) ** 2, abs=0.5), name
        assert found[name].low <= found[name].mean <= found[name].high
    with pytest.raises(InputError, match="values"):
        nas.variance_components(values, ("weights", "head"))


def test_rounds_of_a_log_are_those_of_operations():
    pair = {"with": [2.0, 4.0], "without": [1.0, "inf"], "change": [0.5, "-inf"]}
    rows = {"a": {"condition": pair, "regions": {"with": [10, 10], "without": [11, 10]}}}
    log = [{"round": 1, "pruned": "a", "scores": rows | {"b": rows["a"]}},
           {"round": 2, "pruned": "edge", "scores": rows}, {"genotype": "..."}]  # fmt: skip
    found = nas.log_changes(log)
    assert list(found) == [1]
    np.testing.assert_allclose(found[1]["condition"], [[-np.log(2), 0.0]] * 2)
    np.testing.assert_allclose(found[1]["regions"], [[np.log(1.1), 0.0]] * 2)
