"""The cell editor: its numbers are the search's scores, its wiring is a published one, and no change compiles."""

from __future__ import annotations

import math

import jax
import numpy as np
import pytest

from mlkernels.course.demos import cell_editor
from mlkernels.course.demos.cell_editor import DEMO, EDGES, LAYOUT, NONE, PUBLISHED, SPACE
from mlkernels.nas import Genotype
from mlkernels.nas.engine import operations
from mlkernels.nas.scores.kernel_scores import metantk_score


def settings(seed):
    rng = np.random.default_rng(seed)
    return {name: str(rng.choice(cell_editor.OPERATIONS)) for name in EDGES}


def test_the_scores_are_those_of_the_search():
    for cell in (PUBLISHED, settings(0)):
        n, gates = DEMO.compute(**cell), cell_editor.gates_of(**cell)
        for number, (tasks, params) in enumerate(cell_editor.problem()):
            for ours, algorithm in ((n.scores, "maml"), (n.ntk_scores, "none")):
                theirs = metantk_score(LAYOUT, params, gates, tasks, algorithm=algorithm)
                np.testing.assert_allclose(ours[number].value, theirs.value, rtol=1e-9)


def test_the_spectra_end_where_the_condition_numbers_say():
    n = DEMO.compute(**settings(1))
    for spectra, scores in ((n.metantk, n.scores), (n.ntk, n.ntk_scores)):
        np.testing.assert_allclose(spectra[:, -1] / spectra[:, 0], [score.value for score in scores], rtol=1e-6)
    assert len({score.value for score in n.scores}) == cell_editor.DRAWS


def test_it_begins_with_the_published_cell():
    genotype = Genotype.parse("N: s3<0 s3<1 | s3<1 s3<2 | c3<0 s3<2   R: s3<0 s3<1 | f5<1 d3<2 | d3<2 d3<3")
    gates = cell_editor.gates_of(**DEMO.settings())
    np.testing.assert_array_equal(gates[0], SPACE.gates_of(genotype)[0])
    assert not gates[1].any()
    assert [cell.kind for cell in LAYOUT.stack] == [0, 0]


def test_a_cell_without_edges_has_the_worst_score_and_says_so():
    nothing = dict.fromkeys(EDGES, NONE)
    n = DEMO.compute(**nothing)
    assert all(math.isinf(score.value) for score in (*n.scores, *n.ntk_scores))
    assert "not positive" in DEMO.readout(n)
    assert "∞ to ∞" not in DEMO.describe(n)
    assert "∞" in DEMO.describe(n)
    assert n.parameters == DEMO.compute(**dict.fromkeys(EDGES, "skip_connect")).parameters


def test_an_edge_shows_its_operation_and_one_without_is_dotted():
    stage = DEMO.build()
    DEMO.frame(stage, edge_2=NONE)
    assert [label.get_text() for label in stage["labels"]] == list((PUBLISHED | {"edge_2": NONE}).values())
    assert [arrow.get_linestyle() for arrow in stage["arrows"]] == ["-", ":", "-", "-", "-", "-"]


def signature(leaf):
    """What decides whether a call is compiled anew."""
    return (leaf.shape, leaf.dtype, leaf.weak_type) if isinstance(leaf, jax.Array) else type(leaf)


def test_what_is_warm_is_all_that_is_asked_for(monkeypatch):
    seen, jitted = set(), operations.jitted

    def spy(function, *static):
        def run(*arrays):
            leaves, tree = jax.tree.flatten(arrays)
            seen.add((function.__name__, static, tree, tuple(map(signature, leaves))))
            return jitted(function, *static)(*arrays)

        return run

    monkeypatch.setattr(operations, "jitted", spy)
    cell_editor._compiled.cache_clear()
    cell_editor._ready.cache_clear()
    list(DEMO.warm())
    warm = len(seen)
    assert warm >= 2 * 8
    for seed in range(12):
        DEMO.compute(**settings(seed))
    assert len(seen) == warm


@pytest.mark.parametrize("value", ["zeros", "conv_7x7"])
def test_what_is_no_option_is_refused(value):
    with pytest.raises(ValueError, match="not in tuple"):
        DEMO.compute(**PUBLISHED | {"edge_1": value})
