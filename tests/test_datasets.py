"""What all datasets share: names, the Dataset itself, and the store of files."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mlkernels import datasets
from mlkernels.datasets import _store
from mlkernels.datasets._dataset import Turned, pixel_statistics
from mlkernels.errors import InputError


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache and no MLKERNELS_DATA."""
    monkeypatch.delenv(_store.VARIABLE, raising=False)
    monkeypatch.setattr(_store, "cache", lambda: tmp_path / "cache")
    return tmp_path / "cache"


def make_dataset(counts: list[int]) -> datasets.Dataset:
    """A tiny dataset whose labels are shuffled; pixels are the row number."""
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    images = np.arange(len(labels), dtype=np.uint8).reshape(-1, 1, 1, 1)
    names = tuple(f"class{number}" for number in range(len(counts)))
    splits = {"train": np.arange(len(counts) - 1), "test": np.array([len(counts) - 1])}
    statistics = pixel_statistics(images, np.flatnonzero(labels < len(counts) - 1))
    return datasets.Dataset("tiny", images, labels, names, splits, *statistics, "a test", "none")


def test_unknown_names_list_what_exists(cache):
    for function in (datasets.load, datasets.available, datasets.first_available):
        with pytest.raises(InputError, match="dataset: expected omniglot or glyphs, got cifar"):
            function("cifar")


def test_unknown_options_list_what_exists(cache):
    with pytest.raises(InputError, match="expected splits or rotations or download, got split"):
        datasets.load("omniglot", split="train")


def test_available_and_first_available(cache, tmp_path, monkeypatch):
    assert datasets.available("omniglot") is None
    assert datasets.first_available("omniglot", "glyphs") == "glyphs"
    with pytest.raises(InputError, match="first_available: expected a dataset that is here, got omniglot"):
        datasets.first_available("omniglot")
    with pytest.raises(InputError, match="got no name"):
        datasets.first_available()
    cache.mkdir()
    (cache / "images_background.zip").touch()
    assert datasets.available("omniglot") is None  # half of the release is not enough
    (tmp_path / "omniglot_28.npz").touch()
    monkeypatch.setenv(_store.VARIABLE, str(tmp_path))
    assert datasets.first_available("omniglot", "glyphs") == "omniglot"


def test_images_and_rows_of_a_class():
    data = make_dataset([3, 1, 4])
    for class_id, count in enumerate([3, 1, 4]):
        rows = data.rows_of(class_id)
        assert len(rows) == count
        assert (data.labels[rows] == class_id).all()
        assert (np.diff(rows) > 0).all()
        assert np.array_equal(data.images_of(class_id).ravel(), rows)
    for wrong in (-1, 3, 1.0, "class0"):
        with pytest.raises(InputError, match="class_id: expected a whole number from 0 to 2"):
            data.images_of(wrong)


def test_splits_of_a_dataset():
    data = make_dataset([3, 1, 4])
    assert data.classes("train").tolist() == [0, 1]
    with pytest.raises(InputError, match="split: expected train or test, got validation"):
        data.classes("validation")


def test_a_dataset_is_short_to_print_and_frozen():
    data = make_dataset([3, 1, 4])
    assert repr(data) == "Dataset(tiny: 3 classes, 8 images 1x1x1)"
    for part in ("train 2, test 1", "source: a test", "licence: none", f"mean {data.mean[0]:.4f}"):
        assert part in data.summary()
    with pytest.raises(AttributeError):
        data.name = "other"


def test_images_may_be_a_memory_map(tmp_path):
    np.save(tmp_path / "images.npy", np.arange(24, dtype=np.uint8).reshape(6, 2, 2, 1))
    images = np.load(tmp_path / "images.npy", mmap_mode="r")
    data = datasets.Dataset("map", images, np.arange(6) % 2, ("a", "b"), {}, np.zeros(1), np.ones(1), "", "")
    assert data.images_of(1)[:, 0, 0, 0].tolist() == [4, 12, 20]
    turned = Turned(images)
    assert np.array_equal(turned[6:12], np.rot90(images, 1, axes=(1, 2)))
    assert np.array_equal(turned[-1], np.rot90(images[5], 3))


def test_pixel_statistics_are_those_of_numpy():
    images = np.random.default_rng(0).integers(0, 256, (2500, 3, 3, 2), dtype=np.uint8)
    mean, std = pixel_statistics(images, np.arange(1, 2500))
    np.testing.assert_allclose(mean, (images[1:] / 255).mean(axis=(0, 1, 2)))
    np.testing.assert_allclose(std, (images[1:] / 255).std(axis=(0, 1, 2)))


def test_several_folders_are_read_like_path(cache, tmp_path, monkeypatch):
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two, cache):
        folder.mkdir()
        (folder / "everywhere").touch()
    (two / "second").touch()
    (cache / "cached").touch()
    monkeypatch.setenv(_store.VARIABLE, os.pathsep.join(["", str(one), f" {two} ", ""]))
    assert _store.named_folders() == [one, two]
    assert _store.find("everywhere", "second", "cached") == [one / "everywhere", two / "second", cache / "cached"]
    assert _store.find("everywhere", "nowhere") is None
    monkeypatch.setenv(_store.VARIABLE, "~")
    assert _store.named_folders() == [Path.home()]
    monkeypatch.setenv(_store.VARIABLE, str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match=r"MLKERNELS_DATA: expected folders that exist, got .*nowhere; correct"):
        datasets.available("omniglot")


def test_the_cache_is_the_checkouts_data_folder_or_the_users(tmp_path, monkeypatch):
    root = Path(_store.__file__).parents[2]
    assert (root / "data").is_dir()
    assert _store.cache() == root / "data"
    monkeypatch.setattr(_store, "__file__", str(tmp_path / "site-packages" / "mlkernels" / "datasets" / "_store.py"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert root not in _store.cache().parents
    assert "mlkernels" in str(_store.cache())
    assert list(tmp_path.iterdir()) == []  # asking makes nothing


def test_an_atomic_write_that_fails_leaves_what_was_there(tmp_path):
    path = tmp_path / "file"
    path.write_text("before")

    def fail(temporary: Path) -> None:
        temporary.write_text("half")
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError):
        _store.write_atomically(path, fail)
    assert path.read_text() == "before"
    _store.write_atomically(path, lambda temporary: temporary.write_text("after") and None)
    assert path.read_text() == "after"
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path):
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "inside"
    with pytest.raises(
        InputError, match=f"{path}: expected to write it, got .*; make room or make the folder writable"
    ):
        _store.write_atomically(path, lambda temporary: None)


def test_a_full_disk_is_named_and_leaves_nothing(tmp_path):
    def fill(temporary: Path) -> None:
        temporary.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(InputError, match="No space left on device; make room"):
        _store.write_atomically(tmp_path / "file", fill)
    assert list(tmp_path.iterdir()) == []


def test_importing_datasets_is_cheap():
    heavy = ["jax", "matplotlib", "ipywidgets", "pandas", "pooch", "requests", "PIL"]
    code = f"import sys, mlkernels.datasets.omniglot, mlkernels.datasets.glyphs; print(set({heavy}) & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"
