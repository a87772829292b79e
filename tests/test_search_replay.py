"""The replay of a search: its rounds are those of the log, what went is what the rule says, and a file keeps it."""

from __future__ import annotations

import json
import math

import jax
import numpy as np
import pytest

from mlkernels import nas
from mlkernels.course import live, widgets
from mlkernels.course.demos import search_replay
from mlkernels.course.demos.search_replay import rounds_of
from mlkernels.course.plots import drawings
from mlkernels.errors import InputError
from mlkernels.nas import CELL_TYPES, SPACES, Genotype, Space, rule_of
from mlkernels.nas.searching.ranking import OLD_RULE, RULE, choose, edges_left, operations_left, relative_change
from tools.pack_search import pack

LOG, SPACE = search_replay.unpack()
ROUNDS = rounds_of(LOG, SPACE)
TINY = Space("tiny", ("skip_connect", "conv_3x3"), 1)


def tiny(*changes):
    """A log of one round; each change is (without, with) of the condition number."""
    lines = []
    for cell in CELL_TYPES:
        for source in range(2):
            scores = {
                name: {"condition": {"change": list(change)}}
                for name, change in zip(TINY.operations, changes, strict=True)
            }
            lines.append({"round": 1, "cell": cell, "node": 0, "input": source, "pruned": "conv_3x3", "scores": scores})
    return [*lines, {"genotype": "...", "short": "..."}]


@pytest.mark.parametrize("number", range(1, len(ROUNDS)))
def test_a_round_tries_what_was_open_and_prunes_by_the_rule(number):
    found, before = ROUNDS[number], ROUNDS[number - 1].gates
    np.testing.assert_array_equal(found.before, before)
    expected = operations_left(before) or edges_left(SPACE, before)
    assert sorted(found.candidates, key=str) == sorted(expected, key=str)
    rows = [line for line in LOG if line.get("round") == number]
    assert len(found.pruned) == len(rows) == (18 if number < 7 else (1, 2)[number % 2 == 0])
    table = {}
    for line in rows:
        kind, node = CELL_TYPES.index(line["cell"]), line["node"]
        for name, row in line["scores"].items():
            if line["pruned"] == "edge":
                table[kind, SPACE.edges.index((node, int(name))), None] = row
            else:
                edge = SPACE.edges.index((node, line["input"]))
                table[kind, edge, SPACE.operations.index(name)] = row
    sums, ranks = (
        [table[each]["rank_sum"] for each in expected],
        [table[each]["condition"]["rank"] for each in expected],
    )
    assert set(found.pruned) == set(choose(expected, sums, ranks))


def test_it_ends_with_what_was_found():
    assert SPACE.genotype_of(ROUNDS[-1].gates) == Genotype.parse(LOG[-1]["genotype"])
    assert not ROUNDS[0].candidates
    assert not ROUNDS[0].pruned


def test_ratios_are_without_over_with():
    rows = {}
    for line in LOG:
        if line.get("round") == 1:
            edge = SPACE.edges.index((line["node"], line["input"]))
            for name, row in line["scores"].items():
                rows[CELL_TYPES.index(line["cell"]), edge, SPACE.operations.index(name)] = row
    for score in ("condition", "regions"):
        told = [rows[each][score] for each in ROUNDS[1].candidates]
        expected = [row["without"][0] / row["with"][0] for row in told]
        np.testing.assert_allclose(getattr(ROUNDS[1], score), expected, rtol=1e-4)
        changes = [relative_change(row["with"][0], row["without"][0]) for row in told]
        np.testing.assert_allclose([row["change"][0] for row in told], changes, rtol=1e-3, atol=1e-5)


def test_a_score_that_was_not_used_and_one_without_a_number_have_a_place():
    for none in (None, "-inf", -math.inf):  # in old logs, in new ones, before they are written
        demo = search_replay.make_demo(tiny((0.5, 0.7), (none, 0.0)), TINY)
        n = demo.compute(**demo.settings())
        np.testing.assert_allclose(n.condition[:2], [0.4, 25.5])
    np.testing.assert_array_equal(n.regions, 1.0)
    assert demo.controls[0].values == (0, 1)
    assert len(demo.twin) == 3
    assert all(demo.frame(demo.build(), **values).png for values in demo.twin)


@pytest.mark.parametrize(
    ("log", "space"),
    [([], SPACE), ([{"genotype": "..."}], SPACE), (LOG, SPACES["darts"]), ([{"round": 1}], SPACE), (None, SPACE)],
)
def test_what_is_no_log_of_this_space_is_refused(log, space):
    with pytest.raises(InputError, match="log: expected"):
        search_replay.make_demo(log, space)


@pytest.mark.parametrize(
    "take",
    [
        lambda space: search_replay.make_demo(LOG, space),
        lambda space: nas.replay(LOG, space),
        lambda space: nas.random_genotypes(space, 1, key=jax.random.key(0)),
        lambda space: drawings.draw_gates(space, SPACE.open_gates()),
        lambda space: live.SearchPicture(space, "folder"),
    ],
    ids=["make_demo", "replay", "random_genotypes", "draw_gates", "SearchPicture"],
)
def test_a_spaces_name_is_no_space(take):
    with pytest.raises(InputError, match=r"space: expected a Space, got 'darts'; give SPACES\['darts'\]"):
        take("darts")
    with pytest.raises(InputError, match="got 'drats'; give one of SPACES: darts_fewshot, darts"):
        take("drats")


def test_one_cell_shows_its_own_candidates():
    both, normal, reduce = (search_replay.DEMO.compute(2, cell) for cell in ("both", *CELL_TYPES))
    assert set(normal.candidates) | set(reduce.candidates) == set(both.candidates)
    assert {kind for kind, *_ in normal.candidates} == {0}
    np.testing.assert_array_equal(normal.gates, both.gates)


def words(stage, kind):
    return sorted(label.get_text() for label in stage[f"{kind} labels"] if label.get_text())


def test_the_picture_has_a_mark_for_all_that_is_open_and_a_cross_on_all_that_goes():
    stage = search_replay.DEMO.build()
    for number in (0, 3, 6):
        search_replay.DEMO.frame(stage, round=number)
        for kind, name in enumerate(CELL_TYPES):
            shown = sum(len(line.get_xdata()) for line in stage[f"{name} beads"])
            assert shown == ROUNDS[number].before[kind].sum()
            assert len(stage[f"{name} gone"][0].get_xdata()) == (9 if number else 0)
            assert not words(stage, name)
        assert len(stage["gone"][0].get_xdata()) == len(ROUNDS[number].pruned)
    search_replay.DEMO.frame(stage, round=10)
    genotype = SPACE.genotype_of(ROUNDS[-1].gates)
    for name, cell in zip(CELL_TYPES, (genotype.normal, genotype.reduce), strict=True):
        shown = words(stage, name)
        assert [word for word in shown if "✗" not in word] == sorted(op for chosen in cell for op, _ in chosen)
        assert sum("✗" in word for word in shown) == 3
        assert not any(len(line.get_xdata()) for line in stage[f"{name} beads"])


def test_what_is_said_counts_what_went():
    n = search_replay.DEMO.compute(**search_replay.DEMO.settings())
    told = "108 of 126 operations are open · 126 candidates, 18 pruned: 5 max_pool_3x3BN"
    assert told in search_replay.DEMO.readout(n)
    assert "2 a whole edge" in search_replay.DEMO.describe(search_replay.DEMO.compute(10, "both"))
    assert search_replay.DEMO.readout(ROUNDS[0]).startswith("before the first round: 126 of 126")


def test_a_finished_search_is_packed_and_replayed(tmp_path):
    result = {"seconds": 1.0, "settings": {"space": "darts_fewshot"}, "command": "a", "versions": {}, "device": {}}
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LOG), encoding="utf-8")
    (tmp_path / "result.json").write_text(json.dumps(result | {"devices": 1}), encoding="utf-8")
    pack(tmp_path, tmp_path / "out.json", commit="c")
    assert search_replay.unpack(tmp_path / "out.json") == (LOG, SPACE)
    where = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))["provenance"]
    assert where == {"commit": "c", "command": "a", "versions": {}, "device": {}, "devices": 1}
    view = widgets.explore(search_replay.make_demo(*search_replay.unpack(tmp_path / "out.json")))
    view.set(round=10)
    assert view.error is None
    assert "12 of 126" in view.readout


def test_of_an_unfinished_search_its_rounds_are_packed(tmp_path):
    rounds = [line for line in LOG if line.get("round", 9) <= 2]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in rounds), encoding="utf-8")
    state = {"about": {"space": "darts_fewshot"}, "seconds": 1.0, "done": [], "partial": []}
    (tmp_path / "state.json").write_text(json.dumps(state), encoding="utf-8")
    pack(tmp_path, tmp_path / "out.json")
    assert search_replay.unpack(tmp_path / "out.json") == (rounds, SPACE)
    assert json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))["rounds"] == "2, not finished"


def test_what_cannot_be_packed_or_read_is_said(tmp_path):
    with pytest.raises(InputError, match="first round"):
        pack(tmp_path, tmp_path / "out.json")
    with pytest.raises(InputError, match="No such file"):
        search_replay.unpack(tmp_path / "none.json")
    (tmp_path / "other.json").write_text("")
    with pytest.raises(InputError, match="a whole file, got a damaged file"):
        search_replay.unpack(tmp_path / "other.json")
    for text in ("[]", "{}", '{"log": [], "settings": {"space": "mine"}}'):
        (tmp_path / "other.json").write_text(text)
        with pytest.raises(InputError, match="something else"):
            search_replay.unpack(tmp_path / "other.json")


def test_the_recorded_search_says_where_it_comes_from():
    found = json.loads(search_replay.GLYPHS.read_text(encoding="utf-8"))
    assert {"commit", "date", "command", "versions", "device", "package_sha256"} <= set(found["provenance"])
    assert found["short"] == LOG[-1]["short"]
    assert [each.gates.sum() for each in ROUNDS] == [126, 108, 90, 72, 54, 36, 18, 17, 15, 14, 12]
    assert found["rule"] == rule_of(LOG) == RULE


def test_a_search_by_the_older_rule_is_replayed_and_says_so():
    """All edges in one round, as older searches pruned them; their logs named no rule."""
    edges = [line for line in LOG if line.get("pruned") == "edge"]
    old = [line for line in LOG if line.get("pruned", "edge") != "edge"] + [line | {"round": 7} for line in edges]
    old.append({name: text for name, text in LOG[-1].items() if name != "rule"})
    demo = search_replay.make_demo(old, SPACE)
    assert demo.controls[0].values == tuple(range(8))
    assert SPACE.genotype_of(demo.compute(7, "both").gates) == Genotype.parse(LOG[-1]["genotype"])
    assert f"older rule: {OLD_RULE}" in demo.readout(demo.compute(7, "both"))
    assert "rule" not in search_replay.DEMO.readout(ROUNDS[7])
