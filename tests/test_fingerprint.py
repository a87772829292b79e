"""A dataset's fingerprint: what it notices, what it does not look at, and what the runner takes for its data."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from mlkernels import datasets
from mlkernels.datasets import fingerprint as module
from mlkernels.datasets.fingerprint import described, files, fingerprint
from mlkernels.datasets.omniglot import PREPARED

GLYPHS = datasets.load("glyphs", classes=24, drawings=6)


def with_one_pixel(row):
    images = np.array(GLYPHS.images)
    images[row, 3, 4, 0] ^= 1
    return replace(GLYPHS, images=images)


def of_classes(*chosen):
    return replace(GLYPHS, splits={"train": np.array(chosen)})


def test_each_pixel_and_each_label_of_the_first_split_is_looked_at():
    first = len(GLYPHS.only("train").labels)
    marks = [fingerprint(with_one_pixel(row)) for row in range(first)]
    labels = np.array(GLYPHS.labels)
    labels[[5, 6]] = labels[[6, 5]]
    marks += [fingerprint(GLYPHS), fingerprint(replace(GLYPHS, labels=labels))]
    assert len(set(marks)) == first + 2
    assert fingerprint(with_one_pixel(first)) == fingerprint(GLYPHS)  # of another split
    renamed = replace(GLYPHS, name="other", class_names=tuple(map(str, range(24))))
    assert fingerprint(renamed) == fingerprint(GLYPHS) == fingerprint(GLYPHS.only("train"))


def test_subsets_of_as_many_classes_are_told_apart_and_so_is_their_order():
    marks = [fingerprint(of_classes(*chosen)) for chosen in ((0, 1, 2), (0, 1, 3), (0, 2, 1), (0, 1))]
    assert len(set(marks)) == 4


def test_of_a_large_split_an_image_of_each_class_is_read(monkeypatch):
    whole = fingerprint(GLYPHS)
    monkeypatch.setattr(module, "MOST", 3 * 28 * 28)  # of three images
    marks = [fingerprint(of_classes(*set(range(15)) - {left})) for left in range(15)]
    assert len({*marks, whole, fingerprint(GLYPHS)}) == 17


def test_images_in_pieces_have_the_same_fingerprint(monkeypatch):
    whole = fingerprint(GLYPHS)
    monkeypatch.setattr(module, "_AT_ONCE", 7)
    assert fingerprint(GLYPHS) == whole


def test_the_description_holds_how_images_are_normalised():
    others = [GLYPHS, with_one_pixel(-1), replace(GLYPHS, mean=GLYPHS.mean + 0.1), replace(GLYPHS, std=2 * GLYPHS.std)]
    texts = [json.dumps(described(each)) for each in others]
    assert len(set(texts)) == 4


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MLKERNELS_DATA", str(tmp_path))
    return tmp_path


def test_files_are_those_that_a_dataset_is_loaded_from(folder):
    marks = [files()]
    for content in (b"one", b"two"):
        (folder / PREPARED).write_bytes(content)
        marks.append(files())
        (folder / "miniimagenet").mkdir(exist_ok=True)
        (folder / "miniimagenet" / "manifest.json").write_bytes(content)
        marks.append(files())
    assert [len({mark["omniglot"] for mark in marks}), len({mark["miniimagenet"] for mark in marks})] == [3, 3]
    assert len({json.dumps(mark) for mark in marks}) == 5
    assert files() == marks[-1]


def test_files_that_cannot_be_looked_at_are_no_error(folder, monkeypatch):
    monkeypatch.setenv("MLKERNELS_DATA", str(folder / "missing"))
    assert "expected folders that exist" in files()["omniglot"]
