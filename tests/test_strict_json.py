"""Every file that is kept can be read by whoever refuses NaN and Infinity: JavaScript, and so JupyterLab."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest

from mlkernels.learners.outer_loop import history
from mlkernels.nas.searching import record
from mlkernels.nas.searching.scorer import Scores
from mlkernels.nas.training import trained
from mlkernels.support import results
from mlkernels.support.kept_rows import Kept
from mlkernels.support.strict_json import dumps

ROOT = Path(__file__).parents[1]
BAD = (math.inf, -math.inf, math.nan)


def strict(text):
    """A JSON text, read without the constants that Python adds."""

    def refuse(constant):
        raise AssertionError(f"the file holds {constant}")

    return json.loads(text, parse_constant=refuse)


@pytest.mark.parametrize("value", BAD)
def test_what_is_written_while_something_is_not_finite_is_strict_json(tmp_path, value):
    results.save(tmp_path / "bench.json", {"seconds": value, "rows": [[value]]})
    Kept(tmp_path / "kept.json", "scores", {"about": 1}).add("a", {"entropy": value})
    kept_scores = record.Record(tmp_path, {"about": 1})
    kept_scores.add([Scores(value, 3, ""), Scores(None, None, "")], 1.0)
    history._save(tmp_path / "history.json", {0: (0.5, [value, 1.0], None)})
    trained._log(tmp_path / "log.json", [{"epoch": 1, "loss": value}])
    kept = {path.name: strict(path.read_text(encoding="utf-8")) for path in tmp_path.iterdir()}
    assert set(kept) == {"bench.json", "kept.json", record.STATE, "history.json", "log.json"}
    again = record.Record(tmp_path, {"about": 1}).partial
    assert str(again[0].condition) == str(value)
    seconds, values, _ = history._load(tmp_path / "history.json", np.zeros(0), tmp_path)[0]
    assert (seconds, [str(float(each)) for each in values]) == (0.5, [str(value), "1.0"])


def test_a_result_says_where_it_comes_from_unless_its_content_does(tmp_path):
    found = results.save(tmp_path / "a.json", {"rate": math.inf, "rows": ((1, 2),)}, seed=3, command="make a")
    assert strict((tmp_path / "a.json").read_text(encoding="utf-8")) == found
    assert list(found) == ["created", "command", "seed", "versions", "device", "rate", "rows", "sha256"]
    assert (found["command"], found["seed"], found["rate"], found["rows"]) == ("make a", 3, "inf", [[1, 2]])
    assert {"jax", "numpy", "mlkernels"} <= found["versions"].keys()
    gathered = results.save(tmp_path / "b.json", {"versions": {}, "device": {"kind": "x"}})
    assert (gathered["versions"], gathered["device"], "seed" in gathered) == ({}, {"kind": "x"}, False)
    assert gathered["command"]
    assert {path.name for path in tmp_path.iterdir()} == {"a.json", "b.json"}


def test_dumps_keeps_what_strict_json_has():
    assert strict(dumps({"é": [1, 2.5, None, True, "x"]})) == {"é": [1, 2.5, None, True, "x"]}
    assert dumps({"é": 1}) == '{"é": 1}'


def test_nothing_is_written_by_another_way():
    """json.dump and json.dumps are for a hash, a pipe or a comparison; a file gets strict_json.dumps."""
    allowed = {
        "mlkernels/support/strict_json.py", "mlkernels/support/checked.py", "mlkernels/runner/jobs.py",
        "mlkernels/runner/worker.py", "mlkernels/runner/kept.py",
        "mlkernels/nas/engine/devices.py", "mlkernels/nas/training/trained.py", "mlkernels/nas/training/settings.py",
        "mlkernels/learners/outer_loop/checkpoint.py", "mlkernels/runner/site_frames.py",
    }  # fmt: skip
    found = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "mlkernels").rglob("*.py")
        if re.search(r"\bjson\.dumps?\(", path.read_text(encoding="utf-8")) and "datasets" not in path.parts
    }
    assert found <= allowed
