"""Drawings of cells: every edge is there, with its operation, and the words say the same."""

from __future__ import annotations

from matplotlib.patches import FancyArrowPatch

from mlkernels.drawings import describe, draw_gates, draw_genotype
from mlkernels.nas.space import SPACES, Genotype
from mlkernels.plots import check_alt

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
