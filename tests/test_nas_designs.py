"""The derivative design of a search: it goes on where it was stopped, and finds what scoring every network finds."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from _nas_search import settings, synthetic

from mlkernels.errors import InputError
from mlkernels.kernels import Kernels
from mlkernels.metantk import all_points
from mlkernels.nas import Layout, Space, sample_kernels, score_of, search
from mlkernels.nas.searching import record
from mlkernels.nas.searching import search as module
from mlkernels.nas.searching.record import Record
from mlkernels.support import checked

# In the reduction cells "ones" makes all images nearly alike, and the NTK's condition number a billion: there it is by
# far the best to go, in every draw. (The MetaNTK's has adapted to what all images share.)
SPACE = Space("told apart", ("skip_connect", "conv_3x3", "ones"), 1)
LAYOUT = Layout(SPACE, cells=2, channels=4, pixels=8, ways=3)  # two reduction cells and no other: less to compile
SETTINGS = settings(layout=LAYOUT, repeats=1, regions=False, condition="ntk", design="derivative")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("derivative")
    return search(SETTINGS, synthetic(), out=folder), folder


def first_round(found):
    return {(line["cell"], line["input"]): line["pruned"] for line in found.log if line.get("round") == 1}


def test_it_finds_what_scoring_every_candidate_finds(whole):
    exact = search(replace(SETTINGS, design="published"), synthetic())
    clear = {("reduce", 0): "ones", ("reduce", 1): "ones"}
    assert clear.items() <= first_round(exact).items()
    assert clear.items() <= first_round(whole[0]).items()


def test_the_mean_over_roles_is_of_the_same_kernels():
    from mlkernels.nas.searching.scorer import Item, Scorer

    both = {design: replace(SETTINGS, condition="metantk", design=design) for design in ("published", "roles")}
    gates, values = SPACE.open_gates(), {}
    for design, each in both.items():
        scorer = Scorer(each, synthetic())
        scorer.begin(1, 0)
        (values[design],) = scorer([Item(gates)])
        if design == "roles":
            orders = scorer._orders(0)
            tasks = scorer._images(0)[0]
            kernels = sample_kernels(LAYOUT, scorer.params, gates, all_points(tasks))
            own = [
                score_of(Kernels(*(k[order][:, order] for k in kernels)), tasks, precision=np.float64).value
                for order in orders
            ]
    assert values["roles"].condition == pytest.approx(np.exp(np.mean(np.log(own))), rel=1e-8)
    assert values["published"].condition == pytest.approx(own[0], rel=1e-8)  # the first order is the batch's own


def test_a_round_has_as_many_draws_as_cost_the_same():
    from mlkernels.nas import SearchSettings
    from mlkernels.nas.searching.settings import PASSES

    both = [SearchSettings(repeats=2, design=design) for design in ("published", "derivative")]
    assert both[0].draws == (2,) * len(both[0].candidates)
    for number, (draws, candidates) in enumerate(zip(both[1].draws, both[1].candidates, strict=True)):
        expected = 2 * max(1, (candidates + 1) // PASSES) if number < both[1].edge_round - 1 else 2
        assert draws == expected
    assert both[0].cost == both[0].evaluations
    assert both[1].cost[0] == 2 * (127 // PASSES) * PASSES  # as two repeats, or a little less


def test_what_is_written_down_is_what_was_decided(whole):
    found, folder = whole
    lines = [line for line in found.log if line.get("round") == 1]
    row = lines[0]["scores"]["conv_3x3"]["condition"]
    draws = SETTINGS.draws[0]
    assert len(row["with"]) == len(row["without"]) == len(row["change"]) == draws
    np.testing.assert_allclose(row["change"], np.log(row["with"]) - np.log(row["without"]))
    assert len(np.unique(row["with"])) == draws  # each draw has its own weights and images
    assert json.loads((folder / "result.json").read_text())["settings"]["design"] == "derivative"


def test_it_goes_on_where_it_was_stopped(whole, tmp_path, monkeypatch):
    add, done = Record.add, []

    def stopped(self, scores, seconds):
        add(self, scores, seconds)
        done.append(len(scores))
        if len(done) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(Record, "add", stopped)
    with pytest.raises(KeyboardInterrupt):
        search(SETTINGS, synthetic(), out=tmp_path)
    monkeypatch.setattr(Record, "add", add)
    drawn = []
    begin = module.Scorer.begin
    monkeypatch.setattr(module.Scorer, "begin", lambda self, *at: (drawn.append(at), begin(self, *at))[1])
    again = search(SETTINGS, synthetic(), out=tmp_path)
    assert drawn[0] == (1, 1)  # one of two draws is kept
    assert again.genotype == whole[0].genotype
    assert again.log == whole[0].log


def test_another_design_is_refused_and_an_older_state_is_of_the_published_one(whole, tmp_path):
    state = json.loads((whole[1] / "state.json").read_text())
    with pytest.raises(InputError, match="a search of design published, got design derivative"):
        Record(whole[1], state["about"] | {"design": "published"})
    del state["about"]["design"]
    rest = {name: state[name] for name in ("about", "seconds", "done", "partial")}
    checked.write(tmp_path / "state.json", record._KIND, rest)
    assert len(Record(tmp_path, state["about"] | {"design": "published"}).done) == len(state["done"])
    with pytest.raises(InputError, match="got design published"):
        Record(tmp_path, state["about"] | {"design": "derivative"})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"condition": "synflow"}, "condition: expected metantk or ntk with the design derivative, got synflow"),
        ({"outputs": "trace"}, "outputs: expected sum with"),
        ({"reference_quirks": True}, "reference_quirks: expected False with"),
    ],
)
def test_what_has_no_derivative_is_refused(changes, words):
    with pytest.raises(InputError, match=words):
        replace(SETTINGS, **changes)
