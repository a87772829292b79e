"""The prepared form: written whole or not at all, opened at once, and every damage named."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from mlkernels import datasets, tasks
from mlkernels.datasets import folders, prepared
from mlkernels.datasets.importing.recipe import Part
from mlkernels.datasets.importing.write import source_checksums, write_prepared
from mlkernels.datasets.prepared import open_prepared, read_manifest, verify_prepared
from mlkernels.errors import InputError
from mlkernels.support.checked import signed
from mlkernels.support.file_faults import sha256_of

SHAPE = (4, 5, 3)
COUNTS = {"train": (7, 3, 9), "val": (6, 6), "test": (5, 8)}
ABOUT = {"name": "tiny", "shape": SHAPE, "source": "a test", "licence": "none"}


def make_images(split: str) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(len(split))
    labels = rng.permutation(np.repeat(np.arange(len(COUNTS[split])), COUNTS[split]))
    return rng.integers(0, 256, (len(labels), *SHAPE), dtype=np.uint8), labels


def make_part(split: str, **change) -> Part:
    images, labels = make_images(split)
    pieces = [images[start : start + 4] for start in range(0, len(labels), 4)]
    names = tuple(f"{split} {number}" for number in range(len(COUNTS[split])))
    wnids = tuple(f"n{len(split)}{number:07d}" for number in range(len(names)))
    return Part(**{"class_names": names, "labels": labels, "images": lambda: iter(pieces), "wnids": wnids, **change})


def make_parts(**change) -> dict[str, Part]:
    return {split: make_part(split, **change.get(split, {})) for split in COUNTS}


@pytest.fixture
def folder(tmp_path) -> Path:
    write_prepared(tmp_path / "tiny", parts=make_parts(), **ABOUT)
    return tmp_path / "tiny"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_was_written_is_opened_as_it_was(folder):
    data = open_prepared(folder)
    assert (data.name, data.source, data.licence) == ("tiny", str(folder), "none")
    assert repr(data) == "Dataset(tiny: 7 classes, 44 images 4x5x3)"
    assert {split: ids.tolist() for split, ids in data.splits.items()} == {
        "train": [0, 1, 2],
        "val": [3, 4],
        "test": [5, 6],
    }
    assert data.class_names[3] == "val 0"
    assert data.wnids[5] == "n40000000"
    for split in COUNTS:
        images, labels = make_images(split)
        for number, class_id in enumerate(data.classes(split)):
            assert np.array_equal(data.images_of(class_id), images[labels == number])
    train = make_images("train")[0] / 255
    np.testing.assert_allclose(data.mean, train.mean(axis=(0, 1, 2)))
    np.testing.assert_allclose(data.std, train.std(axis=(0, 1, 2)))
    assert names(folder.parent) == ["tiny"]


def test_the_files_are_plain_npy_files(folder):
    expected = [f"{split}_{what}.npy" for split in ("test", "train", "val") for what in ("images", "labels")]
    assert names(folder) == sorted(["manifest.json", *expected])
    images = np.load(folder / "val_images.npy", mmap_mode="r")
    assert (images.shape, images.dtype) == ((12, *SHAPE), np.uint8)
    assert np.load(folder / "val_labels.npy").tolist() == [0] * 6 + [1] * 6


def test_the_manifest_says_where_it_came_from_and_what_it_is(tmp_path):
    (tmp_path / "source").write_text("abc")
    parts = make_parts(train={"files": (tmp_path / "source",), "notes": ("a note",)}, val={"notes": ("a note",)})
    manifest = write_prepared(
        tmp_path / "tiny", parts=parts, form="a form", licence_accepted=True, notes=("first",), **ABOUT
    )
    assert manifest == read_manifest(tmp_path / "tiny") == json.loads((tmp_path / "tiny" / "manifest.json").read_text())
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert manifest["source_sha256"] == {"source": digest}
    assert (manifest["format"], manifest["form"], manifest["licence_accepted"]) == (2, "a form", True)
    assert manifest["notes"] == ["first", "a note"]
    train = manifest["splits"]["train"]
    assert train["counts"] == [7, 3, 9]
    assert train["sha256"]["train_images.npy"] == sha256_of(tmp_path / "tiny" / "train_images.npy")
    assert {"created", "made_by", "source", "licence", "mean", "std", "shape", "name"} <= manifest.keys()


def test_many_sources_are_noted_as_one(tmp_path):
    for number in range(21):
        (tmp_path / f"{number:02d}").write_text(str(number))
    found = source_checksums(sorted(tmp_path.iterdir()))
    assert list(found) == ["21 files, their list as sha256sum prints it"]
    assert found == source_checksums(sorted(tmp_path.iterdir(), reverse=True))
    (tmp_path / "07").write_text("other")
    assert found != source_checksums(sorted(tmp_path.iterdir()))


def test_equal_pixels_are_counted_when_written_and_when_verified(tmp_path):
    images, labels = make_images("train")
    images[3], images[5] = images[0], make_images("val")[0][2]
    manifest = write_prepared(tmp_path / "tiny", parts=make_parts(train={"images": lambda: iter([images])}), **ABOUT)
    two = labels[3] != labels[0]
    expected = {
        "images": 4,
        "sets": 2,
        "sets_of_two_classes": 1 + two,
        "sets_by_split": {"train": 1, "train and val": 1},
    }
    assert manifest["equal"] == expected
    edit(tmp_path / "tiny", lambda manifest: manifest.pop("equal"))  # as earlier versions wrote it
    assert verify_prepared(tmp_path / "tiny")["equal"] == expected


def test_one_split_alone(folder):
    data = open_prepared(folder, "test")
    assert repr(data) == "Dataset(tiny: 2 classes, 13 images 4x5x3)"
    assert data.labels.tolist() == [0] * 5 + [1] * 8
    assert (data.class_names, data.wnids) == (("test 0", "test 1"), ("n40000000", "n40000001"))
    assert np.array_equal(data.mean, open_prepared(folder).mean)  # of the training split
    with pytest.raises(
        InputError, match="split: expected train or val or test, got 'validation'; name a split of tiny"
    ):
        open_prepared(folder, "validation")


def test_load_finds_it_by_name_and_opens_one_split_or_all(tmp_path, monkeypatch):
    monkeypatch.setenv(folders.VARIABLE, str(tmp_path))
    monkeypatch.setattr(folders, "cache", lambda: tmp_path / "cache")
    with pytest.raises(
        InputError, match=r"a prepared copy, got none in .*; get it with `mlkernels data get miniimagenet`"
    ):
        datasets.load("miniimagenet")
    assert datasets.available("miniimagenet") is None
    write_prepared(tmp_path / "cache" / "miniimagenet", parts=make_parts(), **ABOUT | {"name": "miniimagenet"})
    assert datasets.available("miniimagenet") == str(tmp_path / "cache" / "miniimagenet")
    assert datasets.first_available("tieredimagenet", "miniimagenet") == "miniimagenet"
    assert len(datasets.load("miniimagenet").class_names) == 7
    assert len(datasets.load("miniimagenet", "val").class_names) == 2


def test_episodes_are_the_same_from_the_file_and_from_memory(folder):
    data = open_prepared(folder)
    held = datasets.Dataset(
        "held", data.images[:], data.labels, data.class_names, data.splits, data.mean, data.std, "", ""
    )
    for split in COUNTS:
        options = {"split": split, "way": 2, "shot": 1, "queries": 2, "tasks": 3, "key": jax.random.key(1)}
        one, other = (tasks.episodes(each, normalise="dataset", **options) for each in (data, held))
        assert all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True))


def test_opening_reads_no_image(folder, monkeypatch):
    read = []
    monkeypatch.setattr(prepared.Mapped, "read", lambda *_: read.append(1))
    open_prepared(folder)
    assert read == []


# --- writing fails ----------------------------------------------------------------------------------------------------


def test_a_part_that_yields_other_than_it_announced_is_refused(tmp_path):
    images, _ = make_images("train")
    wrong = {
        "another number": (lambda: iter([images[:-1]]), "expected the 19 images that its labels announce, got 18"),
        "too many": (lambda: iter([images, images[:1]]), "expected the 19 images that its labels announce, got 20"),
        "a type": (lambda: iter([images / 1.0]), r"images of train: expected uint8 \[4, 5, 3\], got float64"),
        "a size": (lambda: iter([images[:, 1:]]), r"got uint8 \[3, 5, 3\]"),
    }
    for pieces, words in wrong.values():
        with pytest.raises(InputError, match=words):
            write_prepared(tmp_path / "tiny", parts=make_parts(train={"images": pieces}), **ABOUT)
        assert names(tmp_path) == []


def test_a_check_that_fails_leaves_what_was_there(folder):
    def check(manifest: dict) -> None:
        assert manifest["name"] == "tiny"
        raise InputError("no")

    before = (folder / "manifest.json").read_text()
    with pytest.raises(InputError, match="no"):
        write_prepared(folder, parts=make_parts(), check=check, **ABOUT)
    assert names(folder.parent) == ["tiny"]
    assert (folder / "manifest.json").read_text() == before


@pytest.mark.parametrize(("number", "words"), [(errno.ENOSPC, "make room"), (errno.EROFS, "make the folder writable")])
def test_a_full_disk_while_images_are_written(folder, number, words):
    def images():
        yield from list(make_part("val").images())[:2]
        raise OSError(number, os.strerror(number))

    with pytest.raises(InputError, match=words):
        write_prepared(folder, parts=make_parts(val={"images": images}), **ABOUT)
    assert names(folder.parent) == ["tiny"]
    verify_prepared(folder)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="this user may write everywhere")
def test_a_read_only_folder_is_named(tmp_path):
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(InputError, match="Permission denied; make the folder writable"):
            write_prepared(tmp_path / "tiny", parts=make_parts(), **ABOUT)
    finally:
        tmp_path.chmod(0o755)


KILLED = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import test_prepared as t
def images():
    yield from list(t.make_part("val").images())[:2]
    print("half", flush=True)
    time.sleep(600)
t.write_prepared(Path(sys.argv[1]), parts=t.make_parts(val={"images": images}), **t.ABOUT)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on this system")
def test_an_import_that_is_killed_leaves_nothing_that_is_taken_for_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(folders, "cache", lambda: tmp_path)
    monkeypatch.delenv(folders.VARIABLE, raising=False)
    target = tmp_path / "miniimagenet"
    command = [sys.executable, "-c", KILLED, str(target), str(Path(__file__).parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "half\n"
        process.kill()
    assert len(names(tmp_path)) == 1
    assert datasets.available("miniimagenet") is None
    write_prepared(target, parts=make_parts(), **ABOUT)
    assert names(tmp_path) == ["miniimagenet"]


# --- damage -----------------------------------------------------------------------------------------------------------


def edit(folder: Path, change) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    (folder / "manifest.json").write_text(json.dumps(signed(manifest)))  # only what it says is wrong


DAMAGE = {
    "a file that is gone": (lambda f: (f / "val_images.npy").unlink(), r"val_images\.npy: expected a file that can be"),
    "a file cut short": (lambda f: os.truncate(f / "train_images.npy", 200), r"train_images\.npy: expected \d+ bytes"),
    "no json": (lambda f: (f / "manifest.json").write_text("<html>"), r"manifest\.json: expected a whole"),
    "half a manifest": (lambda f: os.truncate(f / "manifest.json", 300), r"manifest\.json: expected a whole"),
    "a list": (lambda f: (f / "manifest.json").write_text("[]"), r"manifest\.json: expected the manifest of a dataset"),
    "no splits": (lambda f: edit(f, lambda m: m.pop("splits")), "a whole file, got a damaged file .no 'splits'"),
    "a path as a split": (
        lambda f: edit(f, lambda m: m["splits"].update({"../x": m["splits"].pop("val")})),
        "the split '../x'",
    ),
    "a newer form": (
        lambda f: edit(f, lambda m: m.update(format=3)),
        "of version 2 or before, got version 3; update mlkernels",
    ),
    "another shape": (
        lambda f: edit(f, lambda m: m.update(shape=[5, 4, 3])),
        r"expected an array uint8 \[19, 5, 4, 3\]",
    ),
    "labels slid down by a row": (
        lambda f: np.save(f / "val_labels.npy", np.array([1] + [0] * 6 + [1] * 5, np.int32)),
        r"val_labels\.npy: expected the labels that the manifest counts",
    ),
    "other labels": (
        lambda f: np.save(f / "val_labels.npy", np.array([0] * 5 + [1] * 7, np.int32)),
        r"val_labels\.npy: expected the labels that the manifest counts",
    ),
}


@pytest.mark.parametrize("how", DAMAGE)
def test_damage_is_named_with_what_to_do(folder, how):
    damage, words = DAMAGE[how]
    damage(folder)
    with pytest.raises(InputError, match=words) as caught:
        open_prepared(folder)
    assert "\n" not in str(caught.value)
    assert "mlkernels" in str(caught.value)


def test_verify_reads_every_byte(folder):
    pieces = []
    assert verify_prepared(folder, pieces.append)["name"] == "tiny"
    assert sum(pieces) == sum(path.stat().st_size for path in folder.glob("*.npy"))
    data = bytearray((folder / "test_images.npy").read_bytes())
    data[-1] ^= 1
    (folder / "test_images.npy").write_bytes(data)
    open_prepared(folder)  # which reads no image
    with pytest.raises(InputError, match=r"test_images\.npy: expected SHA-256 [0-9a-f]{64}, got [0-9a-f]{64}; nothing"):
        verify_prepared(folder)
