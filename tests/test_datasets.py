"""What all datasets share: names, the Dataset itself, mapped files, and which folders are read and written."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mlkernels import datasets
from mlkernels.datasets import folders, lazy_rows
from mlkernels.datasets.dataset import pixel_statistics
from mlkernels.datasets.lazy_rows import Chosen, Joined, Mapped, Turned
from mlkernels.errors import InputError


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache and no MLKERNELS_DATA."""
    monkeypatch.delenv(folders.VARIABLE, raising=False)
    monkeypatch.setattr(folders, "cache", lambda: tmp_path / "cache")
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
        with pytest.raises(InputError, match=r"dataset: expected omniglot or glyphs or .*, got 'cifar'"):
            function("cifar")


def test_unknown_options_list_what_exists(cache):
    with pytest.raises(InputError, match="expected split or splits or rotations or download, got part"):
        datasets.load("omniglot", part="train")
    with pytest.raises(InputError, match="options of miniimagenet: expected split alone, got rotations"):
        datasets.load("miniimagenet", rotations=True)


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
    monkeypatch.setenv(folders.VARIABLE, str(tmp_path))
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
    with pytest.raises(InputError, match="split: expected train or test, got 'validation'"):
        data.classes("validation")


def test_a_dataset_is_short_to_print_and_frozen():
    data = make_dataset([3, 1, 4])
    assert repr(data) == "Dataset(tiny: 3 classes, 8 images 1x1x1)"
    for part in ("train 2, test 1", "source: a test", "licence: none", f"mean {data.mean[0]:.4f}"):
        assert part in data.summary()
    with pytest.raises(AttributeError):
        data.name = "other"


def mapped_images(folder: Path, sizes=(6, 3, 4)) -> tuple[Joined, np.ndarray]:
    images = np.random.default_rng(0).integers(0, 256, (sum(sizes), 2, 3, 1), dtype=np.uint8)
    parts = np.split(images, np.cumsum(sizes)[:-1])
    for number, part in enumerate(parts):
        np.save(folder / f"{number}.npy", part)
    return Joined([Mapped(folder / f"{n}.npy", part.shape, np.uint8) for n, part in enumerate(parts)]), images


INDICES = [
    0,
    -1,
    np.int64(7),
    slice(None),
    slice(2, 11, 3),
    slice(None, None, -1),
    [],
    [12, 0, 5, 6, 6, -13],
    np.array([[0, 1], [7, 8]]),
    np.arange(5, 9),
    np.arange(13) % 3 == 0,
    np.zeros((0, 2), int),
]


@pytest.mark.parametrize("index", INDICES, ids=str)
@pytest.mark.parametrize("preadv", [True, False])
def test_mapped_arrays_are_read_as_if_they_were_one(tmp_path, monkeypatch, index, preadv):
    if not preadv:
        monkeypatch.delattr(lazy_rows.os, "preadv", raising=False)
    joined, images = mapped_images(tmp_path)
    assert (joined.shape, joined.dtype, joined.ndim, len(joined)) == (images.shape, images.dtype, 4, 13)
    wanted = images[np.asarray(index, dtype=int) if isinstance(index, list) else index]
    found = joined[index]
    assert type(found) is np.ndarray
    assert found.shape == wanted.shape
    assert np.array_equal(found, wanted)
    assert np.array_equal(np.asarray(joined), images)


def test_chosen_rows_are_read_as_if_they_were_all(tmp_path):
    joined, images = mapped_images(tmp_path)
    rows = np.array([1, 0, 12, 4, 7, 9, 3])
    chosen = Chosen(joined, rows)
    assert (chosen.shape, chosen.dtype, chosen.ndim, len(chosen)) == ((7, 2, 3, 1), np.uint8, 4, 7)
    for index in (0, -1, slice(1, 5), [2, 2, -1], np.array([[0, 6]])):
        assert np.array_equal(chosen[index], images[rows][index])
    assert np.array_equal(np.asarray(chosen), images[rows])


@pytest.mark.parametrize("index", [13, -14, [0, 13], 1.5, "a", np.array([True, False])], ids=str)
def test_rows_that_are_not_there_are_refused(tmp_path, index):
    joined, _ = mapped_images(tmp_path)
    with pytest.raises(IndexError):
        joined[index]


def test_a_mapped_file_is_what_it_should_be(tmp_path):
    path = tmp_path / "a.npy"
    with pytest.raises(InputError, match=r"a\.npy: expected an array uint8 \[3, 2\], got .*No such file"):
        Mapped(path, (3, 2), np.uint8)
    for wrong in (np.zeros((2, 3), np.uint8), np.zeros((3, 2)), np.zeros((3, 2), np.uint8, order="F")):
        np.save(path, wrong)
        with pytest.raises(InputError, match=r"a\.npy: expected an array uint8 \[3, 2\], got"):
            Mapped(path, (3, 2), np.uint8)
    path.write_bytes(b"\x93NUMPY\x01\x00 and no more")
    with pytest.raises(InputError, match="expected an array"):
        Mapped(path, (3, 2), np.uint8)


def test_a_file_that_becomes_shorter_is_named(tmp_path):
    if not hasattr(os, "preadv"):
        pytest.skip("this system has no preadv")
    joined, _ = mapped_images(tmp_path)
    path = tmp_path / "1.npy"
    os.truncate(path, path.stat().st_size - 1)
    assert joined[0].shape == (2, 3, 1)
    with pytest.raises(InputError, match=r"1\.npy: expected the file as it was opened, got a shorter one"):
        joined[8]


def test_files_are_closed_when_nobody_reads_them_any_more(tmp_path):
    listing = Path("/proc/self/fd")
    if not listing.exists():
        pytest.skip("this system does not list open files")
    gc.collect()
    before = len(list(listing.iterdir()))
    joined, _ = mapped_images(tmp_path)
    assert len(list(listing.iterdir())) > before
    del joined
    gc.collect()
    assert len(list(listing.iterdir())) == before


def test_one_split_as_a_dataset():
    data = make_dataset([3, 1, 4])
    train, test = (data.only(split) for split in ("train", "test"))
    assert (train.class_names, test.class_names) == (("class0", "class1"), ("class2",))
    assert {name: ids.tolist() for name, ids in test.splits.items()} == {"test": [0]}
    assert np.array_equal(test.images_of(0), data.images_of(2))
    assert np.array_equal(train.images_of(1), data.images_of(1))
    assert test.mean == data.mean
    with pytest.raises(InputError, match="split: expected train or test, got 'val'"):
        data.only("val")
    assert repr(datasets.load("glyphs", "val")) == "Dataset(glyphs: 40 classes, 800 images 28x28x1)"


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
    monkeypatch.setenv(folders.VARIABLE, os.pathsep.join(["", str(one), f" {two} ", ""]))
    assert folders.named_folders() == [one, two]
    assert folders.find("everywhere", "second", "cached") == [one / "everywhere", two / "second", cache / "cached"]
    assert folders.find("everywhere", "nowhere") == []
    monkeypatch.setenv(folders.VARIABLE, "~")
    assert folders.named_folders() == [Path.home()]
    monkeypatch.setenv(folders.VARIABLE, str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match=r"MLKERNELS_DATA: expected folders that exist, got .*nowhere; correct"):
        datasets.available("omniglot")


def tree(folder: Path) -> dict[str, tuple]:
    """All that lies in a folder, with sizes and times."""
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in sorted([folder, *folder.rglob("*")])}


def test_the_first_folder_that_is_ours_is_written_to(cache, tmp_path, monkeypatch):
    full, empty, other = (tmp_path / name for name in ("full", "empty", "other"))
    for folder in (full, empty, other):
        folder.mkdir()
    (full / "theirs").touch()
    assert folders.writing_folder() == cache
    monkeypatch.setenv(folders.VARIABLE, os.pathsep.join(map(str, (full, empty, other))))
    assert folders.writing_folder() == empty
    assert folders.why_not(full) == "it came with files in it"
    assert tree(empty).keys() == {str(empty)}  # asking marks nothing
    assert folders.claim(folders.writing_folder()) == empty
    (empty / "ours").touch()
    assert folders.writing_folder() == empty  # it is not empty any more, but marked
    monkeypatch.setenv(folders.VARIABLE, str(full))
    assert folders.writing_folder() == cache
    assert folders.claim(cache) == cache
    assert tree(cache).keys() == {str(cache)}  # which needs no mark


def test_a_marked_folder_that_was_copied_or_is_anothers_is_not_ours(cache, tmp_path, monkeypatch):
    mine, copy = tmp_path / "mine", tmp_path / "copy"
    mine.mkdir()
    monkeypatch.setenv(folders.VARIABLE, str(mine))
    folders.claim(mine)
    shutil.copytree(mine, copy)
    assert folders.why_not(mine) is None
    assert folders.why_not(copy) == "it came with files in it"
    (copy / folders.MARK).write_text("no json")
    assert folders.why_not(copy).endswith("is damaged")
    monkeypatch.setattr(folders.os, "getuid", lambda: 12345, raising=False)
    assert folders.why_not(mine) == "it came with files in it"


def test_a_folder_that_may_not_be_written_to_is_only_read(cache, tmp_path, monkeypatch):
    folder = tmp_path / "empty"
    folder.mkdir()
    monkeypatch.setenv(folders.VARIABLE, str(folder))
    monkeypatch.setattr(folders.os, "access", lambda path, mode: Path(path) != folder)
    assert folders.why_not(folder) == "this user may not write there"
    assert folders.writing_folder() == cache


def test_the_cache_is_ours_though_it_is_named(cache, monkeypatch):
    cache.mkdir()
    (cache / "file").touch()
    monkeypatch.setenv(folders.VARIABLE, str(cache))
    assert folders.writing_folder() == cache


def test_a_folder_that_cannot_be_made_is_named(cache, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file/inside: expected to write it"):
        folders.claim(tmp_path / "file" / "inside")


def test_nothing_is_written_into_a_folder_that_came_prepared(cache, real_data, monkeypatch):
    monkeypatch.setenv(folders.VARIABLE, str(real_data))
    before = tree(real_data)
    assert folders.writing_folder() == cache
    assert folders.why_not(real_data) is not None
    for name in datasets.names():
        if datasets.available(name):
            datasets.load(name)
    assert tree(real_data) == before


def test_the_cache_is_the_checkouts_data_folder_or_the_users(tmp_path, monkeypatch):
    root = Path(folders.__file__).parents[2]
    assert (root / "data").is_dir()
    assert folders.cache() == root / "data"
    monkeypatch.setattr(folders, "__file__", str(tmp_path / "site-packages" / "mlkernels" / "datasets" / "folders.py"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert root not in folders.cache().parents
    assert "mlkernels" in str(folders.cache())
    assert list(tmp_path.iterdir()) == []  # asking makes nothing


def test_importing_datasets_is_cheap():
    heavy = ["jax", "matplotlib", "ipywidgets", "pandas", "pooch", "requests", "PIL", "pyarrow"]
    modules = "omniglot, glyphs, miniimagenet, tieredimagenet, cifar"
    code = f"import sys; from mlkernels.datasets import {modules}; print(set({heavy}) & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"
