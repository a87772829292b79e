"""Tables of accuracies as text: each number is the mean that it should be."""

from __future__ import annotations

import json

import numpy as np
import pytest

from mlkernels.course import tables
from mlkernels.errors import InputError
from mlkernels.nas import Evaluated


def test_recorded_results_come_by_name_and_a_missing_one_is_said():
    runs = tables.recorded("nas_table_*")
    assert [run["seed"] for run in runs] == [0, 1, 2, 3, 4]
    with pytest.raises(InputError, match="none for 'no_such_result'"):
        tables.recorded("no_such_result")


def test_accuracies_keep_the_order_of_the_evaluation_and_all_trainings():
    shapes = [("logistic", 1), ("centroid", 1), ("logistic", 5), ("centroid", 5)]
    evaluated = [Evaluated({each: np.array([0.25, 0.5]) + seed for each in shapes}) for seed in range(3)]
    found = tables.accuracies(evaluated)
    assert list(found) == ["logistic, 1 shot", "centroid, 1 shot", "logistic, 5 shot", "centroid, 5 shot"]
    assert found["centroid, 5 shot"] == [0.375, 1.375, 2.375]
    assert json.loads(json.dumps(found)) == found


def test_a_table_has_the_means_over_trainings_and_runs():
    runs = tables.recorded("nas_table_*")
    head, shots, methods, *rows = tables.accuracy_table("kept", runs).splitlines()
    assert head == "kept: glyphs, preset class, cpu; 3 cells, 4 channels, 14 train_pixels, 2 epochs, 3 seeds"
    columns = [f"{method}, {shot} shot" for method, shot in zip(methods.split()[1:], shots.split()[::2], strict=True)]
    assert columns == list(runs[0]["rows"]["searched here"]["accuracy"])
    assert [row[:27].strip() for row in rows] == list(runs[0]["rows"])
    for text in rows:
        name = text[:27].strip()
        same = [run["rows"][name] for run in runs]
        sizes = [row["parameters"] for row in same if "parameters" in row]
        assert text[27:38].strip() == (f"{np.mean(sizes):.0f}" if sizes else "")
        for number, column in enumerate(columns):
            cell = text[38 + 9 * number :][:9].strip()
            values = [row["accuracy"].get(column) for row in same]
            assert cell == ("" if None in values else f"{100 * np.mean(values):.1f}")


TIME = {"min_s": 0.00125, "median_s": 0.002, "runs": 3}


def row(mean, **others):
    found = {"interval": {"mean": mean, "low": mean - 0.5, "high": mean + 0.5}, "adapt": TIME, "step": TIME}
    return found | {"numbers": 1761, "step_temporary_bytes": 3 * 2**19} | others


MEASURED = {
    "settings": {"seeds": 3, "outer_steps": 300, "held_out": 100, "adapted": 64, "train_tasks": 50},
    "rows": {"MAML": row(1.5), "MetaNTK regression": row(12.25, training=TIME, step=None, step_temporary_bytes=None)},
}


def test_methods_stand_under_their_heads():
    device = {"kind": "cpu", "cores": 2}
    text = tables.methods_table("class", {"by_preset": {"class": MEASURED}, "device": device})
    head, _, columns, maml, regression, *notes = text.splitlines()
    assert head == "sinusoids, preset class: 3 seeds, 300 outer steps, 100 new tasks, cpu, 2 cores"
    assert maml.split() == ["MAML", "1.500", "1.000", "to", "2.000", "1.25", "1.25", "1.50", "1761"]
    assert regression.split()[2:] == ["12.250", "11.750", "to", "12.750", "1.25", "-", "-", "1761"]
    assert len(columns) == len(maml) == len(regression)
    assert max(map(len, text.splitlines())) <= 100
    assert notes[-1].endswith("trained once in 0.001 s on 50 tasks, which it keeps")


def test_a_preset_that_was_not_measured_is_said(monkeypatch, tmp_path):
    said = tables.methods_table("full", {"by_preset": {"class": MEASURED, "quick": MEASURED}})
    command = "python -m benchmarks.run methods --write --presets"
    assert said == f"not measured for preset full: {command} quick class full"  # those that are there as well
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    assert tables.methods_table("quick") == f"not measured for preset quick: {command} quick"
    (tmp_path / "bench_methods.json").write_text(json.dumps({"by_preset": {"quick": MEASURED}}))
    assert tables.methods_table("quick").startswith("sinusoids, preset quick")
    with pytest.raises(InputError, match="preset"):
        tables.methods_table("tiny")
