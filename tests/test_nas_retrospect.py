"""A recorded search looked at again: its decisions come out again, noise agrees as guesses do, a signal agrees."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from mlkernels.course.demos import search_replay
from mlkernels.errors import InputError
from mlkernels.nas import CELL_TYPES, SPACES, Genotype, close_calls, compared, in_common, random_genotypes, survivors
from mlkernels.nas.searching.ranking import edges_left, operations_left
from mlkernels.nas.searching.retrospect import Compared, _calls

LOG, SPACE = search_replay.unpack()
ROUNDS = compared(LOG, SPACE)


def logged(number):
    """What went in a round, by the log's own words."""
    for line in LOG:
        if line.get("round") == number:
            edge = SPACE.edges.index((line["node"], line["input"]))
            operation = None if line["pruned"] == "edge" else SPACE.operations.index(line["pruned"])
            yield CELL_TYPES.index(line["cell"]), edge, operation


@pytest.mark.parametrize("found", ROUNDS, ids=lambda found: str(found.number))
def test_the_rule_applied_again_gives_the_logged_decisions(found):
    assert set(found.decided()) == set(logged(found.number))


def of_changes(changes, candidates=None) -> Compared:
    """A first round of the whole space with such changes of both scores."""
    candidates = tuple(candidates or operations_left(SPACE.open_gates()))
    return Compared(1, candidates, dict(zip(("condition", "regions"), changes, strict=True)))


@pytest.mark.parametrize("edges", [False, True], ids=["operations", "edges"])
def test_noise_agrees_as_guesses_do(edges):
    candidates = operations_left(SPACE.open_gates())
    if edges:
        two_left = SPACE.open_gates()
        two_left[:, : SPACE.into(2)[0]] = False  # nodes before the last one are settled
        candidates = edges_left(SPACE, two_left)
    rng, shares = np.random.default_rng(0), []
    for _ in range(400 if edges else 60):
        found = _calls(of_changes(rng.normal(size=(2, len(candidates), 3)), candidates))
        shares.append(found.alike)
    mean, error = np.mean(shares), np.std(np.mean(shares, axis=1)) / np.sqrt(len(shares))
    assert found.chance == (0.5 if edges else 1 / 7)
    assert abs(mean - found.chance) < 4 * error


def test_a_signal_agrees_in_every_repeat():
    own = 10 * np.random.default_rng(0).permuted(np.arange(2 * 126.0)).reshape(2, 126, 1)
    noise = np.random.default_rng(1).uniform(-1, 1, size=(2, 126, 3))
    found = of_changes(own + noise)
    assert _calls(found).decisions == 18
    np.testing.assert_array_equal(_calls(found).alike, 1.0)
    assert found.decided() == of_changes(own).decided() == found.decided([1])


def test_survivors_are_what_the_genotype_is_made_of():
    left = survivors(LOG, SPACE)
    genotype = Genotype.parse(LOG[-1]["short"])
    for kind, name in enumerate(CELL_TYPES):
        for node, chosen in enumerate(getattr(genotype, name)):
            for operation, source in chosen:
                assert left[kind, SPACE.edges.index((node, source))] == operation
    assert len(left) == 18


def test_in_common_is_symmetric_and_has_its_expectation():
    ours, *others = random_genotypes(SPACE, 400, key=jax.random.key(3))
    counts = [in_common(ours, other) for other in others]
    assert in_common(ours, ours) == 12
    assert counts == [in_common(other, ours) for other in others]
    expected = sum(2 * 2 * 2 / (2 + node) / 7 for node in range(3))  # of two edges a node, in both cells
    assert abs(np.mean(counts) - expected) < 4 * np.std(counts) / np.sqrt(len(counts))


@pytest.mark.parametrize(
    ("log", "what"),
    [
        ([{"round": 1, "cell": "normal"}], "decisions of a search"),
        (LOG, "two repeats or more"),
        ([{"round": 1, "cell": "upper", "node": 0, "input": 0, "pruned": "edge", "scores": {}}], "decisions of"),
    ],
    ids=["half a line", "one repeat", "another cell"],
)
def test_what_is_no_log_is_refused(log, what):
    with pytest.raises(InputError, match=what):
        close_calls(log, SPACE)


def test_an_unfinished_search_has_no_survivors():
    with pytest.raises(InputError, match="one operation an edge"):
        survivors([line for line in LOG if line.get("round", 9) < 3], SPACES["darts_fewshot"])
