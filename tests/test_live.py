"""What a cell shows while it works: the picture after each round of a search, the line of a training."""

from __future__ import annotations

import json

import pytest

from mlkernels.course import live
from mlkernels.course.demos.search_replay import unpack
from mlkernels.support.progress import Progress


class Handle:
    """A cell's output that remembers what it showed."""

    def __init__(self, shown):
        self.shown = shown

    def update(self, data, **options):
        assert options["raw"]
        self.shown.append((data, options["metadata"]))


@pytest.fixture
def shown(monkeypatch):
    outputs = []

    def display(data, metadata, raw, display_id):
        assert raw
        assert display_id
        assert not outputs, "one output, that changes"
        outputs.append((data, metadata))
        return Handle(outputs)

    monkeypatch.setattr(live, "display", display)
    return outputs


def test_a_picture_for_each_round_of_the_search(shown, tmp_path):
    log, space = unpack()
    picture = live.SearchPicture(space, tmp_path)
    for rounds in (0, 0, 1, 1, 3, 10):
        lines = [line for line in log if line.get("round", 11) <= rounds]
        if rounds:
            (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        picture("whatever a search says of its progress")
        assert picture.rounds == rounds
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))
    picture()  # the line with the genotype is no round
    texts = [data["text/plain"] for data, _ in shown]
    assert [text.split()[5] for text in texts] == ["0:", "1:", "3:", "10:"]
    assert texts[0] == "[picture: The super-network after round 0: 126 operations are open.]"
    assert texts[-1] == "[picture: The super-network after round 10: 12 operations are open.]"
    for data, metadata in shown:
        assert data["image/png"].startswith(b"\x89PNG")
        assert metadata["image/png"]["width"] == 816
        assert f"[picture: {metadata['image/png']['alt']}]" == data["text/plain"]


def test_the_line_of_a_training(shown):
    line = live.TrainingLine()
    for left in (None, 75.0):
        line(Progress(6, 45, "epoch 2 of 9", "loss 0.700, 49 images a second", left))
    assert [data["text/plain"] for data, _ in shown] == [
        "training",
        "epoch 2 of 9; loss 0.700, 49 images a second",
        "epoch 2 of 9, 1 min 15 s left; loss 0.700, 49 images a second",
    ]
