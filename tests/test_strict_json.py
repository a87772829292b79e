"""Every file that is kept can be read by whoever refuses NaN and Infinity: JavaScript, and so JupyterLab."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest

from benchmarks._measure import write
from mlkernels.learners import history
from mlkernels.nas import _record, _trained
from mlkernels.nas._scorer import Scores
from mlkernels.nas.compare import Kept
from mlkernels.strict_json import dumps

ROOT = Path(__file__).parents[1]
BAD = (math.inf, -math.inf, math.nan)


def strict(text):
    """A JSON text, read without the constants that Python adds."""

    def refuse(constant):
        raise AssertionError(f"the file holds {constant}")

    return json.loads(text, parse_constant=refuse)


@pytest.mark.parametrize("value", BAD)
def test_what_is_written_while_something_is_not_finite_is_strict_json(tmp_path, value):
    write({"seconds": value, "rows": [[value]]}, tmp_path / "bench.json")
    Kept(tmp_path / "kept.json", "scores", {"about": 1}).add("a", [value, 1.0])
    record = _record.Record(tmp_path, {"about": 1})
    record.add([Scores(value, 3, ""), Scores(None, None, "")], 1.0)
    history._save(tmp_path / "history.json", {0: (0.5, [value, 1.0])})
    _trained._log(tmp_path / "log.json", [{"epoch": 1, "loss": value}])
    kept = {path.name: strict(path.read_text(encoding="utf-8")) for path in tmp_path.iterdir()}
    assert set(kept) == {"bench.json", "kept.json", _record.STATE, "history.json", "log.json"}
    again = _record.Record(tmp_path, {"about": 1}).partial
    assert str(again[0].condition) == str(value)
    (seconds, values) = history._load(tmp_path / "history.json")[0]
    assert (seconds, [str(float(each)) for each in values]) == (0.5, [str(value), "1.0"])


def test_dumps_keeps_what_strict_json_has():
    assert strict(dumps({"é": [1, 2.5, None, True, "x"]})) == {"é": [1, 2.5, None, True, "x"]}
    assert dumps({"é": 1}) == '{"é": 1}'


def test_nothing_is_written_by_another_way():
    """json.dump and json.dumps are for a hash, a pipe or a comparison; a file gets strict_json.dumps."""
    allowed = {
        "mlkernels/strict_json.py", "mlkernels/provenance.py", "mlkernels/worker.py", "mlkernels/nas/_record.py",
        "mlkernels/nas/compare.py", "mlkernels/nas/_trained.py", "mlkernels/nas/_training.py",
        "mlkernels/learners/_checkpoint.py", "mlkernels/demos/_recording.py",
    }  # fmt: skip
    found = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "mlkernels").rglob("*.py")
        if re.search(r"\bjson\.dumps?\(", path.read_text(encoding="utf-8")) and "datasets" not in path.parts
    }
    assert found <= allowed
