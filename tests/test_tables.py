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
