"""Drawings of cells: every edge is there, with its operation, and the words say the same."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.patches import FancyArrowPatch

from mlkernels.course.demos import search_replay
from mlkernels.course.plots import check_alt, figure
from mlkernels.course.plots.drawings import along, describe, draw_cell, draw_gates, draw_genotype, places_of
from mlkernels.course.plots.pruning import draw_pruning
from mlkernels.nas.space.genotype import SHORT, Genotype
from mlkernels.nas.space.search_space import SPACES

GENOTYPE = Genotype.parse("N: s3<0 s3<1 | s3<0 mp<2 | d3<2 s3<3 R: d3<0 s3<1 | f5<1 s3<2 | sk<0 s3<3")
STATES = ["input 1", "input 2", "node 1", "node 2", "node 3", "output"]


def words(ax):
    return sorted(text.get_text() for text in ax.texts)


def arrows(ax):
    return sum(isinstance(patch, FancyArrowPatch) for patch in ax.patches)


def test_a_genotype_is_drawn_and_told():
    cells = (GENOTYPE.normal, GENOTYPE.reduce)
    for ax, cell in zip(draw_genotype(GENOTYPE).axes, cells, strict=True):
        operations = [operation for chosen in cell for operation, _ in chosen]
        assert words(ax) == sorted(operations + STATES)
        assert arrows(ax) == 6 + 3
    told = check_alt(describe(GENOTYPE))
    assert "node 2 adds conv_1x5_5x1 of input 2 and sep_conv_3x3 of node 1" in told


def test_gates_are_drawn_with_how_many_are_left():
    space = SPACES["darts_fewshot"]
    gates = space.open_gates()
    gates[0, 3] = False
    gates[1, :, 1:] = False
    normal, reduce = draw_gates(space, gates).axes
    assert words(normal) == sorted(["7 operations"] * 8 + STATES)
    assert words(reduce) == sorted(["skip_connect"] * 9 + STATES)
    assert arrows(normal) == 8 + 3
    assert len(draw_gates(SPACES["darts"], SPACES["darts"].open_gates()).axes) == 2


def test_labels_stand_on_their_edges_and_apart_from_each_other():
    for space in SPACES.values():
        places = places_of(space.nodes)
        spots = {}
        for node, source in space.edges:
            spots[source, 2 + node] = x, y = along(source, 2 + node, space.nodes)
            (x0, y0), (x1, y1) = places[source], places[2 + node]
            np.testing.assert_allclose((x - x0) * (y1 - y0), (y - y0) * (x1 - x0), atol=1e-12)
            assert x0 < x < x1
        drawn = draw_cell(figure(6, 3)[1], "cell", [(*edge, "skip_connect") for edge in spots], space.nodes)
        assert {edge: label.xy for edge, label in drawn.labels.items()} == spots
        ahead = along(0, 2, space.nodes, ahead=0.3)
        np.testing.assert_allclose(np.hypot(*np.subtract(ahead, spots[0, 2])), 0.3)
    apart = [np.abs(np.subtract(a, b)) for a in spots.values() for b in spots.values() if a is not b]
    assert all(across > 0.5 or up > 0.15 for across, up in apart)


def test_a_search_is_drawn_whole_and_as_far_as_it_is():
    log, space = search_replay.unpack()
    for some, columns in ((log, 7), ([line for line in log if line.get("round", 9) <= 2], 2)):
        drawn = [words(ax) for ax in draw_pruning(some, space).axes]
        assert [len(each) for each in drawn] == [9 * columns] * 2
        gone = [SHORT[line["pruned"]] for line in some if line.get("pruned", "edge") != "edge"]
        if columns == 2:
            assert sorted([*drawn[0], *drawn[1]]) == sorted(gone)
        else:  # a row has every operation once
            assert sorted([*drawn[0], *drawn[1]]) == sorted(18 * [SHORT[name] for name in space.operations])


@pytest.mark.parametrize(("other", "framed"), [([0.0, 0.0], 1), ([0.0, 0.1], 0)], ids=["alike", "not alike"])
def test_decisions_that_every_repeat_would_take_are_framed(other, framed):
    changes = {"conv_3x3": [0.3, 0.05], "skip_connect": other}
    scores = {name: {"condition": {"change": change}} for name, change in changes.items()}
    line = {"round": 1, "cell": "normal", "node": 0, "input": 0, "pruned": "conv_3x3", "scores": scores}
    normal, reduction = draw_pruning([line], SPACES["darts_fewshot"]).axes
    assert [patch.get_edgecolor() == (0, 0, 0, 1) for patch in normal.patches] == [bool(framed)]
    assert not reduction.patches
