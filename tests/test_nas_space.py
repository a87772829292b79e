"""The search space: gates, genotypes in both notations, and what networks cost."""

from __future__ import annotations

import re
from collections import namedtuple

import numpy as np
import pytest

from mlkernels.errors import InputError
from mlkernels.nas.space.blocks import Conv, Pool, operation
from mlkernels.nas.space.genotype import Genotype
from mlkernels.nas.space.layout import Layout, flop_count, parameter_count
from mlkernels.nas.space.published import PUBLISHED as PUBLISHED_GENOTYPES
from mlkernels.nas.space.search_space import SPACES

# The genotypes that the reference's scripts carry: cells, base classes, parameters in millions without and with a head.
PUBLISHED = """
5  64 | s3<0 s3<1 | s3<1 s3<2 | c3<0 s3<2 | s3<0 s3<1 | f5<1 d3<2 | d3<2 d3<3 | 1.724 1.761
5  64 | s3<0 s3<1 | s3<1 s3<2 | c3<2 s3<3 | s3<0 d3<1 | f5<1 s3<2 | s3<1 f5<3 | 2.185 2.222
5  64 | s3<0 s3<1 | s3<0 mp<2 | d3<2 s3<3 | d3<0 s3<1 | c3<1 s3<2 | s3<2 s3<3 | 1.307 1.344
8  64 | s3<0 mp<1 | f5<0 s3<1 | s3<2 c3<3 | sk<0 s3<1 | c3<1 s3<2 | d3<0 f5<1 | 3.144 3.181
8  64 | c3<0 s3<1 | f5<0 c3<1 | s3<0 d3<2 | s3<0 s3<1 | s3<0 s3<2 | s3<0 s3<2 | 2.930 2.967
8  64 | s3<0 f5<1 | s3<0 s3<1 | c3<0 s3<1 | s3<0 s3<1 | f5<1 s3<2 | c3<0 s3<3 | 3.452 3.489
5 351 | c3<0 d3<1 | s3<1 s3<2 | s3<0 s3<3 | sk<0 d3<1 | s3<0 f5<2 | mp<2 f5<3 | 1.983 2.186
5 351 | s3<0 s3<1 | s3<1 mp<2 | c3<2 c3<3 | d3<0 f5<1 | c3<0 s3<1 | s3<2 s3<3 | 1.618 1.820
5 351 | s3<0 f5<1 | d3<0 s3<2 | s3<0 mp<3 | s3<0 s3<1 | f5<0 f5<2 | d3<1 s3<3 | 2.462 2.665
8 351 | f5<0 s3<1 | f5<0 f5<1 | s3<0 f5<2 | sk<0 c3<1 | c3<0 f5<1 | s3<0 s3<3 | 5.737 5.940
8 351 | f5<0 d3<1 | s3<0 s3<1 | s3<0 c3<2 | c3<0 s3<1 | s3<1 s3<2 | c3<0 s3<1 | 2.936 3.138
8 351 | f5<0 f5<1 | s3<0 f5<2 | s3<2 s3<3 | c3<0 c3<1 | s3<0 s3<1 | s3<1 f5<3 | 5.029 5.231
"""
ROWS = [[part.strip() for part in line.split("|")] for line in PUBLISHED.strip().splitlines()]
FEWSHOT = SPACES["darts_fewshot"]


def genotype(row) -> Genotype:
    return Genotype.parse(f"N: {' | '.join(row[1:4])} R: {' | '.join(row[4:7])}")


@pytest.mark.parametrize("row", ROWS, ids=range(12))
def test_parameters_of_the_published_genotypes(row):
    cells, classes = map(int, row[0].split())
    layout, gates = Layout(cells=cells, channels=48), FEWSHOT.gates_of(genotype(row))
    counts = parameter_count(layout, gates), parameter_count(layout, gates, classes=classes)
    assert " ".join(f"{count / 1e6:.3f}" for count in counts) == row[7]
    assert parameter_count(layout, gates, norms=False) < counts[0]


def test_published_genotypes_are_those_of_the_scripts():
    for (data, cells), found in PUBLISHED_GENOTYPES.items():
        classes = {"miniimagenet": 64, "tieredimagenet": 351}[data]
        assert list(found) == [genotype(row) for row in ROWS if row[0].split() == [str(cells), str(classes)]]
    assert sum(map(len, PUBLISHED_GENOTYPES.values())) == len(ROWS)


def test_genotypes_in_both_notations_and_as_gates():
    for row in ROWS:
        chosen = genotype(row)
        assert Genotype.parse(str(chosen)) == Genotype.parse(repr(chosen)) == chosen
        gates = FEWSHOT.gates_of(chosen)
        assert gates.sum() == 12
        assert FEWSHOT.genotype_of(gates) == chosen
    published = (
        "Genotype(normal=[('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('sep_conv_3x3', 0), ('sep_conv_3x3', 1), "
        "('sep_conv_3x3', 1), ('skip_connect', 0), ('skip_connect', 0), ('dil_conv_3x3', 2)], "
        "normal_concat=range(2, 6), reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 2), "
        "('max_pool_3x3', 1), ('max_pool_3x3', 0), ('skip_connect', 2), ('skip_connect', 2), ('max_pool_3x3', 1)], "
        "reduce_concat=range(2, 6))"
    )  # DARTS, second order
    darts = Genotype.parse(published)
    assert darts.nodes == 4
    assert darts.normal[0] == (("sep_conv_3x3", 0), ("sep_conv_3x3", 1))  # in the order of the inputs
    assert SPACES["darts"].genotype_of(SPACES["darts"].gates_of(darts)) == darts


DARTS = """
DARTS_V1 = Genotype(normal=[('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('skip_connect', 0), ('sep_conv_3x3', 1),
('skip_connect', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('skip_connect', 2)], normal_concat=[2, 3, 4, 5],
reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 2), ('max_pool_3x3', 0), ('max_pool_3x3', 0),
('skip_connect', 2), ('skip_connect', 2), ('avg_pool_3x3', 0)], reduce_concat=[2, 3, 4, 5])

DARTS_V2 = Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('sep_conv_3x3', 1),
('sep_conv_3x3', 1), ('skip_connect', 0), ('skip_connect', 0), ('dil_conv_3x3', 2)], normal_concat=[2, 3, 4, 5],
reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 2), ('max_pool_3x3', 1), ('max_pool_3x3', 0),
('skip_connect', 2), ('skip_connect', 2), ('max_pool_3x3', 1)], reduce_concat=[2, 3, 4, 5])
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (DARTS.strip().split("\n\n")[0],
         "N: s3<0 s3<1 | sk<0 s3<1 | sk<0 s3<1 | s3<0 sk<2 R: m3<0 m3<1 | m3<0 sk<2 | m3<0 sk<2 | a3<0 sk<2"),
        (DARTS.strip().split("\n\n")[1],
         "N: s3<0 s3<1 | s3<0 s3<1 | sk<0 s3<1 | sk<0 d3<2 R: m3<0 m3<1 | m3<1 sk<2 | m3<0 sk<2 | m3<1 sk<2"),
    ],
    ids=["V1", "V2"],
)  # fmt: skip
def test_the_published_genotypes_of_darts_with_their_assignments(text, expected):
    assert str(Genotype.parse(text)) == expected
    assert Genotype.parse(text) == Genotype.parse(text.partition("=")[2])


def test_what_a_script_of_the_published_code_takes_and_gives():
    """A list a node: read with or without a name, and written so that its network finds what it asks for."""
    text = (
        "Genotype(normal=[[('sep_conv_3x3', 0), ('sep_conv_3x3', 1)], [('sep_conv_3x3', 1), ('sep_conv_3x3', 2)], "
        "[('conv_3x3', 0), ('sep_conv_3x3', 2)]], normal_concat=[2, 3, 4], reduce=[[('sep_conv_3x3', 0), "
        "('sep_conv_3x3', 1)], [('conv_1x5_5x1', 1), ('dil_conv_3x3', 2)], [('dil_conv_3x3', 2), ('dil_conv_3x3', 3)]],"
        " reduce_concat=[2, 3, 4])"
    )  # the first of script_mini_5cell.sh
    chosen = Genotype.parse(text)
    assert chosen == genotype(ROWS[0]) == Genotype.parse(f"searched = {text}")
    assert chosen.nested == text
    theirs = eval(chosen.nested, {"Genotype": namedtuple("Genotype", "normal normal_concat reduce reduce_concat")})
    for cell, ours in ((theirs.normal, chosen.normal), (theirs.reduce, chosen.reduce)):
        assert [[(name, source) for name, source in edges] for edges in cell] == [list(node) for node in ours]
    assert theirs.normal_concat == theirs.reduce_concat == [2, 3, 4]


GOOD = "N: s3<0 s3<1 | s3<1 s3<2 R: s3<0 s3<1 | s3<1 s3<2"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "genotype: expected Genotype"),
        ("N: s3<0 s3<1", "mend it: its R part is missing, the reduction cell"),
        ("N: s3<0 s3<1 R: ", "its R part is missing"),
        ("R: s3<0 s3<1", "mend it: its N part is missing, the normal cell"),
        (GOOD + " R: s3<0 s3<1", "R: stands more than once"),
        ("Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1)])", r"mend it: reduce=\[...\] is missing"),
        (GOOD.replace("s3<2", "s3"), "genotype: expected Genotype"),
        (
            GOOD.replace("s3<2", "s9<2"),
            "operations sk, s3, s5, d3, d5, c3, f5, ap, mp, .*, got 's9'",
        ),
        (GOOD.replace("s3<2", "s3<3"), "inputs from 0 to 2 at node 2, got 3"),
        (GOOD.replace("s3<1 s3<2", "s3<1"), r"two edges from different inputs at node 2, got \[1\]"),
        (GOOD.replace("s3<1 s3<2", "s3<1 mp<1"), "two edges from different inputs"),
        (GOOD.replace("R: s3<0 s3<1 |", "R:"), "as many nodes"),
        ("Genotype(normal=[('none', 0), ('none', 1)], reduce=[('none', 0), ('none', 1)])", "'none'"),
        ("Genotype(normal=[('none', 0)], reduce=[])", "two a node"),
        ("Genotype(normal=x, reduce=x)", "genotype: expected Genotype"),
        (
            repr(Genotype.parse(GOOD)).replace("[2, 3]", "[3]"),
            r"normal_concat=\[2, 3\], got \[3\]; .* all nodes of a cell",
        ),
        (
            Genotype.parse(GOOD).nested.replace("reduce_concat=[2, 3]", "reduce_concat=[2]"),
            r"reduce_concat=\[2, 3\], got",
        ),
        (Genotype.parse(GOOD).nested.replace("[('sep_conv_3x3', 0), ", "[", 1), "two edges from different inputs"),
        (f"a = {Genotype.parse(GOOD)!r}; b = 3", "genotype: expected Genotype"),
        ("a = 3  # Genotype(", "genotype: expected Genotype"),
    ],
)
def test_text_that_is_no_genotype(text, said):
    with pytest.raises(InputError, match=said):
        Genotype.parse(text)


def test_a_genotypes_file_name_is_safe_and_its_own():
    published = [Genotype.parse(text) for text in ("N: s3<0 s3<1 R: sk<0 s3<1", "N: s3<0 s3<1 R: sk<0 d3<1")]
    assert [genotype.file_name for genotype in published] == ["N__s3_0_s3_1_R__sk_0_s3_1", "N__s3_0_s3_1_R__sk_0_d3_1"]


def test_gates_that_are_no_architecture():
    gates = FEWSHOT.open_gates()
    with pytest.raises(InputError, match="at most one operation an edge, got 7"):
        FEWSHOT.genotype_of(gates)
    gates[..., 1:] = False
    with pytest.raises(InputError, match="two edges into each node, got 3 into node 1"):
        FEWSHOT.genotype_of(gates)
    with pytest.raises(InputError, match="gates: expected bool"):
        FEWSHOT.check_gates(gates.astype(int))
    with pytest.raises(InputError, match="gates: expected bool"):
        SPACES["darts"].check_gates(gates)
    pools = " | ".join(["m3<0 m3<1"] * 3)
    with pytest.raises(InputError, match="max_pool_3x3<0 at node 0"):
        FEWSHOT.gates_of(Genotype.parse(f"N: {pools} R: {pools}"))
    with pytest.raises(InputError, match="3 nodes a cell, got 2"):
        FEWSHOT.gates_of(Genotype.parse(GOOD))


def test_the_stack_for_any_number_of_cells():
    for cells, reductions in {2: (0, 1), 3: (1, 2), 4: (1, 2), 5: (1, 3), 6: (2, 4), 7: (2, 4), 8: (2, 5)}.items():
        assert Layout(cells=cells).reductions == reductions
    for n in range(9):  # where the network that is searched and the one that is trained have one rule
        assert Layout(cells=3 * n + 2).reductions == (n, 2 * n + 1)
    layout = Layout(cells=8, channels=8, pixels=21)
    assert [cell.pixels for cell in layout.stack] == [21, 21, 11, 11, 11, 6, 6, 6]
    assert layout.features == 3 * 32
    for cell, (one, two) in zip(layout.stack, zip(layout.stack, layout.stack[1:], strict=False), strict=False):
        assert two.before[1] == (3 * one.channels, one.pixels), cell
    thin = Layout(channels=1, pixels=3, colours=1, norm="batch", stem=False, depth=2)
    assert [(cell.kind, cell.channels, cell.pixels) for cell in thin.stack] == [(0, 1, 3), (1, 2, 2)]


def test_weights_of_operations():
    """Multiples of C squared, and of C, by hand."""
    expected = {
        "skip_connect": [(0, 0), (1, 0)],
        "conv_3x3": [(1, 9)] * 2,
        "dil_conv_3x3": [(1, 9)] * 2,
        "dil_conv_5x5": [(1, 25)] * 2,
        "sep_conv_3x3": [(2, 18)] * 2,
        "sep_conv_5x5": [(2, 50)] * 2,
        "conv_1x5_5x1": [(10, 0)] * 2,
        **{f"{kind}_pool_3x3{norm}": [(0, 0)] * 2 for kind in ("max", "avg") for norm in ("", "BN")},
    }
    assert set(expected) == {name for space in SPACES.values() for name in space.operations}
    for name, both in expected.items():
        for stride, (square, linear) in zip((1, 2), both, strict=True):
            steps = [step for block in operation(name, 6, stride) for step in block]
            assert sum(np.prod(shape) for step in steps for shape in step.weights) == 36 * square + 6 * linear, name
            assert np.prod([step.stride for step in steps]) == (stride**2 if steps else 1), name
    assert operation("max_pool_3x3", 6) == ((Pool("max"),),)


def test_flops_by_hand():
    layout = Layout(channels=4, pixels=8, depth=2, norm="batch")
    closed = FEWSHOT.open_gates() & False
    stem, first = 64 * 9 * 3 * 4, 2 * 64 * 4 * 4
    second = 64 * 4 * 8 + 64 * 12 * 8
    head = 3 * 8 * 5
    assert flop_count(layout, closed) == 2 * (stem + first + second + head)
    gates = closed.copy()
    gates[1, 0, FEWSHOT.operations.index("conv_1x5_5x1")] = True  # into a reduction cell: 8 to 4 pixels, 8 channels
    assert flop_count(layout, gates) - flop_count(layout, closed) == 2 * 16 * 10 * 8 * 8
    assert Conv(2, 3, (3, 3)).multiply_adds((5, 5)) == 25 * 54


@pytest.mark.parametrize("cells", [2, 5, 8])
@pytest.mark.parametrize("space", ["darts_fewshot", "darts"])
def test_channels_that_do_not_fit_are_refused_with_some_that_do(space, cells):
    refused = 0
    for channels in range(1, 40):
        try:
            Layout(space, cells=cells, channels=channels)
        except InputError as error:
            refused += 1
            near = [int(number) for number in re.findall(r"\d+", str(error).split(";")[-1])]
            assert near
            assert channels not in near
            for other in near:
                Layout(space, cells=cells, channels=other)
    assert refused


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ({"space": "nasbench"}, "space: expected darts_fewshot or darts"),
        ({"cells": 1}, "cells: expected a whole number from 2 to 1000, got 1"),
        ({"cells": 100_000}, "cells: expected a whole number from 2 to 1000, got 100000"),
        ({"channels": 0}, "channels: expected"),
        ({"channels": 24}, "channels: expected widths of a multiple of 16"),
        ({"channels": 5}, "got 20 channels"),
        ({"channels": 4, "depth": 2}, "got 24 channels"),
        ({"pixels": 8.0}, "pixels: expected"),
        ({"norm": "layer"}, "norm: expected group or batch"),
        ({"cells": 5, "depth": 6}, "depth: expected at most cells = 5"),
    ],
)
def test_impossible_sizes(sizes, said):
    with pytest.raises(InputError, match=said):
        Layout(**sizes)


def test_an_unknown_operation():
    with pytest.raises(InputError, match="operation: expected"):
        operation("conv_9x9", 4)
