"""tieredImageNet: both forms in their true layout, channels in either order, and what is wrong with others."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from _pictures import DARK, encoded, known, picture
from _python2 import write_pickle

from mlkernels import datasets
from mlkernels.datasets import folders, tieredimagenet
from mlkernels.datasets.importing import get
from mlkernels.datasets.prepared import open_prepared, read_manifest
from mlkernels.errors import InputError

RECIPE = tieredimagenet.RECIPES["tieredimagenet"]
SIZES = {"train": 5, "val": 3, "test": 4}
FIRST = {"train": 0, "val": 5, "test": 8}
EACH = {"train": 6, "val": 4, "test": 3}


@pytest.fixture
def target(tmp_path, monkeypatch) -> Path:
    """An empty cache, and no MLKERNELS_DATA."""
    monkeypatch.delenv(folders.VARIABLE, raising=False)
    monkeypatch.setattr(folders, "cache", lambda: tmp_path / "cache")
    return tmp_path / "cache" / "tieredimagenet"


def small(**change):
    totals = {split: SIZES[split] * EACH[split] for split in SIZES}
    return replace(
        RECIPE, expected=replace(RECIPE.expected, **{"classes": SIZES, "totals": totals, "means": {}, **change})
    )


def pairs(split: str) -> list[tuple[int, int]]:
    """Class and number of each image, classes mixed."""
    rng = np.random.default_rng(len(split))
    every = [(FIRST[split] + label, index) for label in range(SIZES[split]) for index in range(EACH[split])]
    return [every[place] for place in rng.permutation(len(every))]


def write_labels(path: Path, split: str, form: str, python: int) -> None:
    labels = [number - FIRST[split] for number, _ in pairs(split)]
    if form == "npz":
        first = {"train": 0, "val": 351, "test": 448}[split]  # as if they were numbered over all splits
        content = {"labels": [first + label for label in labels]}
    else:
        content = {
            "label_specific": np.array(labels, np.int32),
            "label_general": np.zeros(len(labels), np.int32),
            "label_specific_str": [f"{split} animal {label}" for label in range(SIZES[split])],
            "label_general_str": [f"{split} animals"],
        }
    write_pickle(path, content, python)


def write_png(folder: Path, python: int = 2, prefix: str = "") -> Path:
    """The form of few-shot-ssl: a list of PNG files as arrays of bytes."""
    for split in SIZES:
        files = [np.frombuffer(encoded(picture(*pair), "PNG"), np.uint8) for pair in pairs(split)]
        write_pickle(folder / f"{prefix}{split}_images_png.pkl", files, python)
        write_labels(folder / f"{prefix}{split}_labels.pkl", split, "png", python)
    return folder


def write_npz(folder: Path, blue_first: bool = False, save=np.savez) -> Path:
    """The form of MetaOptNet and RFS: arrays."""
    folder.mkdir(parents=True)
    for split in SIZES:
        images = np.stack([picture(*pair) for pair in pairs(split)])
        save(folder / f"{split}_images.npz", images=np.ascontiguousarray(images[..., ::-1] if blue_first else images))
        write_labels(folder / f"{split}_labels.pkl", split, "npz", 3)
    return folder


def imported(path: Path, recipe=None) -> datasets.Dataset:
    return open_prepared(get.get(recipe or small(), path, accept=lambda recipe: True))


def check(data: datasets.Dataset) -> None:
    assert {split: len(ids) for split, ids in data.splits.items()} == SIZES
    for split in SIZES:
        for label, class_id in enumerate(data.classes(split)):
            found = sorted(known(data.images_of(class_id)))
            assert found == [(FIRST[split] + label, index) for index in range(EACH[split])]
    assert data.mean[0] > data.mean[1] > data.mean[2]
    assert np.abs(data.images[:].reshape(-1, 3).min(axis=0) - DARK).max() == 0


@pytest.mark.parametrize("python", [2, 3])
@pytest.mark.parametrize("prefix", ["", "tiered-imagenet-"])
def test_png_pickles(tmp_path, target, python, prefix):
    folder = write_png(tmp_path / "tiered-imagenet", python, prefix)
    data = imported(folder)
    check(data)
    assert data.class_names[5] == "val animal 0"
    assert data.wnids is None
    manifest = read_manifest(target)
    assert len(manifest["source_sha256"]) == 6
    assert manifest["notes"] == []


def test_the_lists_of_names_beside_it_give_wnids(tmp_path, target):
    folder = write_png(tmp_path / "a")
    names = [f"{split} animal {label}" for split in SIZES for label in range(SIZES[split])]
    (folder / "class_names.txt").write_text("\n".join([*names, "another", "another", ""]))
    (folder / "synsets.txt").write_text("\n".join(f"n{number:08d}" for number in range(len(names) + 2)))
    assert imported(folder).wnids == tuple(f"n{number:08d}" for number in range(len(names)))
    for file in ("class_names.txt", "synsets.txt"):  # as some editors save them
        (folder / file).write_text((folder / file).read_text(), encoding="utf-8-sig")
    shutil.rmtree(target)
    assert imported(folder).wnids == tuple(f"n{number:08d}" for number in range(len(names)))
    (folder / "class_names.txt").write_text("\n".join([names[0], *names, ""]))  # a name that means two
    shutil.rmtree(target)
    assert imported(folder).wnids is None
    (folder / "class_names.txt").write_text("\n".join(names[1:]))  # a line too few: which one is not known
    shutil.rmtree(target)
    assert imported(folder).wnids is None


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("blue_first", [False, True])
def test_npz_files_in_either_order_of_channels(tmp_path, target, save, blue_first):
    data = imported(write_npz(tmp_path / "a", blue_first, save))
    check(data)
    assert data.class_names[5] == "val class 351"
    notes = read_manifest(target)["notes"]
    assert any("blue, green, red" in note for note in notes) is blue_first


def test_one_of_the_files_stands_for_its_folder(tmp_path, target):
    check(imported(write_npz(tmp_path / "a") / "val_labels.pkl"))


def test_splits_that_number_their_classes_from_0_are_told_apart_by_pixels(tmp_path, target):
    folder = write_npz(tmp_path / "a")
    for split in SIZES:
        labels = [number - FIRST[split] for number, _ in pairs(split)]
        write_pickle(folder / f"{split}_labels.pkl", {"labels": labels})
    check(imported(folder))
    shutil.rmtree(target)
    for file in ("val_images.npz", "val_labels.pkl"):
        shutil.copy(folder / file, folder / file.replace("val", "test"))
    with pytest.raises(InputError, match="same classes in val and test: by their pixels val class 0 is test class 0"):
        imported(folder, small(classes={**SIZES, "test": 3}))


def test_an_archive_of_the_files(tmp_path, target):
    folder = write_png(tmp_path / "in" / "tiered-imagenet")
    shutil.make_archive(str(tmp_path / "tiered-imagenet"), "tar", folder.parent)
    check(imported(tmp_path / "tiered-imagenet.tar"))


def test_fewer_images_are_said_and_more_are_an_error(tmp_path, target):
    folder = write_npz(tmp_path / "a")
    with pytest.raises(InputError, match="expected 11 images in val, got 12"):
        imported(folder, small(totals={"val": 11}))
    imported(folder, small(totals={"train": 30, "val": 12, "test": 13}))
    assert read_manifest(target)["notes"] == ["test: 12 images, fewer than 13"]


def test_it_is_told_where_to_get_a_copy(target):
    with pytest.raises(
        InputError, match=r"take it from .*few-shot-ssl.*`mlkernels data get tieredimagenet --from PATH`"
    ):
        get.get(RECIPE, accept=lambda recipe: True)


WRONG = {
    "other sizes": (
        write_png,
        lambda f: None,
        "expected classes train 351, val 97, test 160, got train 5, val 3, test 4",
    ),
    "no labels": (
        write_png,
        lambda f: (f / "val_labels.pkl").unlink(),
        r"got no val_labels\.pkl; .*put all of these files into",
    ),
    "no images": (write_npz, lambda f: (f / "test_images.npz").unlink(), r"got no test_images\.npz"),
    "labels of another copy": (
        write_png,
        lambda f: shutil.copy(f / "test_labels.pkl", f / "val_labels.pkl"),
        r"val_labels\.pkl: expected 12 whole numbers|a supervised split",
    ),
    "too few labels": (
        write_png,
        lambda f: write_pickle(f / "val_labels.pkl", {"labels": [0, 1, 2]}),
        r"val_labels\.pkl: expected 12 whole numbers as labels, one for each image, got int64 \[3\]",
    ),
    "too few names": (
        write_png,
        lambda f: write_pickle(
            f / "val_labels.pkl", {"label_specific": np.arange(12) % 3, "label_specific_str": ["a", "b"]}
        ),
        r"val_labels\.pkl: expected a name for each of 3 classes, got 2",
    ),
    "no list": (write_png, lambda f: write_pickle(f / "val_images_png.pkl", {"a": 1}), "a list of PNG files, got dict"),
    "no image": (
        write_png,
        lambda f: write_pickle(f / "val_images_png.pkl", [np.zeros(2000, np.uint8)] * 12),
        r"image 0 of .*val_images_png\.pkl: expected an image, got cannot identify",
    ),
    "a page": (write_npz, lambda f: (f / "val_images.npz").write_text("<html>"), r"val_images\.npz: .* an HTML page"),
    "a cut npz": (
        write_npz,
        lambda f: os.truncate(f / "val_images.npz", 50000),
        r"val_images\.npz: expected an npz file with the array images, got a truncated file",
    ),
    "another array": (
        write_npz,
        lambda f: np.savez(f / "val_images.npz", data=np.zeros(3)),
        r"val_images\.npz: .* There is no item named 'images\.npy'",
    ),
    "other shapes": (
        write_npz,
        lambda f: np.savez(f / "val_images.npz", images=np.zeros((12, 80, 80, 3), np.uint8)),
        r"expected images uint8 \[N, 84, 84, 3\], got uint8 \[12, 80, 80, 3\]",
    ),
    "a hostile pickle": (
        write_png,
        lambda f: (f / "test_images_png.pkl").write_bytes(b"c__builtin__\neval\n(S'1'\ntR."),
        r"test_images_png\.pkl: .* one that asks for __builtin__\.eval",
    ),
}


@pytest.mark.parametrize("how", WRONG)
def test_what_is_wrong_is_named_and_nothing_is_left(tmp_path, target, how):
    write, spoil, words = WRONG[how]
    folder = write(tmp_path / "a")
    spoil(folder)
    with pytest.raises(InputError, match=words) as caught:
        imported(folder, RECIPE if how == "other sizes" else None)
    assert "\n" not in str(caught.value)
    assert list(target.parent.iterdir()) == []


def test_a_damaged_row_of_an_npz_is_named(tmp_path, target):
    folder = write_npz(tmp_path / "a", save=np.savez_compressed)
    path = folder / "test_images.npz"
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 40] = bytes(40)
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"test_images\.npz: expected a whole npz file, got a damaged one"):
        imported(folder)
    assert list(target.parent.iterdir()) == []


def test_what_is_expected_is_the_published_set():
    expected = RECIPE.expected
    assert (sum(expected.classes.values()), sum(expected.totals.values())) == (608, 779165)
    assert RECIPE.restricted
    assert RECIPE.downloads == ()
