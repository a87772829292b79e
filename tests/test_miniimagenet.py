"""miniImageNet: every form in its true layout becomes the same dataset, and what is none of them is refused by name."""

from __future__ import annotations

import pickle
import shutil
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from _mini_forms import (
    EACH,
    OF,
    WNIDS,
    few_shot_rows,
    sorted_place,
    supervised_rows,
    tarred,
    write_cache,
    write_category,
    write_files,
    write_ilsvrc,
    write_lists,
    write_parquet,
)
from _pictures import DARK, known, picture
from _python2 import write_pickle

from mlkernels import datasets, tasks
from mlkernels.datasets import folders, lazy_rows
from mlkernels.datasets.importing import get
from mlkernels.datasets.importing.recipe import SPLITS
from mlkernels.datasets.miniimagenet import recipe
from mlkernels.datasets.miniimagenet.classes import classes
from mlkernels.datasets.prepared import open_prepared, read_manifest
from mlkernels.errors import InputError

RECIPE = recipe.RECIPES["miniimagenet"]


@pytest.fixture
def target(tmp_path, monkeypatch) -> Path:
    """An empty cache, and no MLKERNELS_DATA."""
    monkeypatch.delenv(folders.VARIABLE, raising=False)
    monkeypatch.setattr(folders, "cache", lambda: tmp_path / "cache")
    return tmp_path / "cache" / "miniimagenet"


def small(images: int = EACH):
    """The recipe of a set that is complete with a few images a class."""
    return replace(RECIPE, expected=replace(RECIPE.expected, images=images, means={}))


def imported(path: Path, recipe=RECIPE) -> datasets.Dataset:
    return open_prepared(get.get(recipe, path, accept=lambda recipe: True))


def check(data: datasets.Dataset, wnids: bool = True, indices=range(EACH)) -> None:
    """Every class is there under its name, in its split, with its own images."""
    assert {split: len(ids) for split, ids in data.splits.items()} == {"train": 64, "val": 16, "test": 20}
    for split in SPLITS:
        for class_id, number in zip(data.classes(split), OF[split], strict=True):
            assert sorted(known(data.images_of(class_id))) == [(number, index) for index in indices]
    if wnids:
        assert data.wnids == tuple(WNIDS)
        assert data.class_names == tuple(name for _, name in classes().values())
    else:
        assert data.wnids is None
        assert data.class_names[0].startswith("train")


# --- each is understood -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("python", "protocol", "val"), [(2, 2, "val"), (3, 2, "validation"), (3, 5, "valid")])
def test_cache_pickles(tmp_path, target, python, protocol, val):
    folder = write_cache(tmp_path / "a", python, protocol, val)
    check(imported(folder, small()))
    manifest = read_manifest(target)
    assert manifest["form"].startswith("the cache pickles")
    assert len(manifest["source_sha256"]) == 3
    assert manifest["notes"] == []
    assert manifest["licence_accepted"] is True


def test_one_of_the_files_stands_for_its_folder(tmp_path, target):
    folder = write_cache(tmp_path / "a")
    check(imported(folder / "mini-imagenet-cache-train.pkl"))
    assert read_manifest(target)["notes"][0] == "train: 64 of 64 classes have fewer than 600 images (2)"


def test_blue_first_is_turned_round_and_said(tmp_path, target):
    data = imported(write_cache(tmp_path / "a", blue_first=True))
    assert data.mean[0] > data.mean[1] > data.mean[2]
    assert np.abs(data.images[0].reshape(-1, 3).min(axis=0) - DARK).max() == 0
    assert any("blue, green, red" in note for note in read_manifest(target)["notes"])


def test_val_and_test_the_wrong_way_round_are_put_right(tmp_path, target):
    folder = write_cache(tmp_path / "a")
    names = [folder / f"mini-imagenet-cache-{split}.pkl" for split in ("val", "test", "other")]
    for old, new in ((names[0], names[2]), (names[1], names[0]), (names[2], names[1])):
        old.rename(new)
    check(imported(folder))
    assert "mini-imagenet-cache-test.pkl holds the val split, by its wnids" in read_manifest(target)["notes"]


@pytest.mark.parametrize("named", [False, True])
def test_category_pickles(tmp_path, target, named):
    folder = write_category(tmp_path / "b", **({"names": True} if named else {}))
    check(imported(folder, small()), wnids=named)
    assert bool(read_manifest(target)["notes"]) is not named
    assert len(read_manifest(target)["source_sha256"]) == 3  # train_phase_val is not read


LAYOUTS = {
    "flat": "images/{wnid}{rank:08d}.jpg",
    "at the top": "{wnid}{rank:08d}.jpg",
    "by class": "{wnid}/{wnid}{rank:08d}.jpg",
    "by class, other names": "images/{wnid}/{rank}.jpg",
    "by split and class": "{split}/{wnid}/{rank}.jpg",
    "by split and class, ILSVRC's names": "{split}/{wnid}/{wnid}_{rank}.JPEG",
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_image_files(tmp_path, target, layout):
    check(imported(write_files(tmp_path / "c", LAYOUTS[layout]), small()))
    assert list(read_manifest(target)["source_sha256"]) == ["200 files, their list as sha256sum prints it"]


def test_image_files_of_another_size_are_squashed(tmp_path, target):
    check(imported(write_files(tmp_path / "c", size=(200, 120)), small()))


def test_the_csv_files_choose_among_the_images(tmp_path, target):
    folder = write_files(tmp_path / "c", "images/{wnid}{rank:08d}.jpg", each=3)
    write_lists(folder, take=lambda number: (2, 3))
    check(imported(folder, small()), indices=(1, 2))


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
@pytest.mark.parametrize("form", ["images", "cache"])
def test_archives(tmp_path, target, kind, form):
    write = {"images": lambda f: write_files(f, LAYOUTS["flat"]), "cache": write_cache}[form]
    folder = write(tmp_path / "in" / "miniImageNet")
    path = tmp_path / f"mini.{kind}"
    files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for file in files:
                archive.write(file, file.relative_to(folder.parent))
            archive.writestr("__MACOSX/miniImageNet/._train.csv", b"x")
    else:
        with tarfile.open(path, "w:gz") as archive:
            for file in files:
                archive.add(file, file.relative_to(folder.parent))
    check(imported(path, small()))
    assert list(read_manifest(target)["source_sha256"]) == [path.name]
    assert [file.name for file in target.parent.iterdir()] == ["miniimagenet"]


def test_parquet_in_the_few_shot_split(tmp_path, target):
    folder = write_parquet(tmp_path / "d" / "data", few_shot_rows(), lambda number: number)
    check(imported(folder.parent, small()), wnids=False)
    assert read_manifest(target)["notes"] == ["it does not say which class of ImageNet a label means"]


def test_parquet_in_the_few_shot_split_with_wnids(tmp_path, target):
    folder = write_parquet(tmp_path / "d", few_shot_rows(), lambda number: number, names=WNIDS)
    check(imported(folder / "train-00000-of-00002-0123456789abcdef.parquet", small()))


@pytest.mark.parametrize("named", [True, False])
def test_parquet_in_the_supervised_split_is_divided_by_class(tmp_path, target, named):
    names = sorted(WNIDS) if named else None
    folder = write_parquet(tmp_path / "e", supervised_rows(), sorted_place, names=names)
    check(imported(folder, small()))
    assert any("supervised split of all 100 classes" in note for note in read_manifest(target)["notes"])


def test_without_pyarrow_there_is_one_clear_error(tmp_path, target, monkeypatch):
    (tmp_path / "d").mkdir()
    for split in ("train", "validation", "test"):
        (tmp_path / "d" / f"{split}-00000-of-00001.parquet").touch()
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"pyarrow.*install it: python -m pip install 'mlkernels\[parquet\]'"):
        imported(tmp_path / "d")


ILSVRC = {
    "class folders": lambda f: write_ilsvrc(f),
    "below train": lambda f: write_ilsvrc(f / "ILSVRC" / "Data" / "CLS-LOC" / "train") and f,
    "class tars": lambda f: write_ilsvrc(f, tars=True),
}


@pytest.mark.parametrize("layout", ILSVRC)
def test_ilsvrc_takes_the_first_600_by_number_and_says_so(tmp_path, target, layout):
    check(imported(ILSVRC[layout](tmp_path / "f"), small(4)), indices=range(4))
    assert read_manifest(target)["form"].startswith("the training images of ILSVRC")
    assert any("not the published choice" in note for note in read_manifest(target)["notes"])


@pytest.mark.parametrize("kind", ["folders", "tars", "a tar of tars"])
def test_ilsvrc_with_the_csv_files_takes_the_published_images(tmp_path, target, kind):
    folder = write_ilsvrc(tmp_path / "f", tars=kind != "folders")
    write_lists(tmp_path, take=lambda number: (1 + number % 3, 4))
    source = folder
    if kind == "a tar of tars":
        source = tmp_path / "ILSVRC2012_img_train.tar"
        tars = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
        source.write_bytes(tarred({"n00000001.tar": tarred({"n00000001_1.JPEG": b"x"}), **tars}))
        shutil.rmtree(folder)
    data = imported(source, small())
    for class_id, number in enumerate(OF["train"] + OF["val"] + OF["test"]):
        assert known(data.images_of(class_id)) == [(number, number % 3), (number, 3)]
    assert read_manifest(target)["notes"] == []


def test_a_class_of_ilsvrc_that_is_incomplete_is_named(tmp_path, target):
    folder = write_ilsvrc(tmp_path / "f")
    write_lists(folder, take=lambda number: (1, 5))
    with pytest.raises(InputError, match="at least 5 images of n01532829, as the CSV files choose among them, got 4"):
        imported(folder)


# --- and what is none of them -----------------------------------------------------------------------------------------


def spoil_cache(tmp_path: Path, change, split: str = "train") -> Path:
    """Form A with one file changed."""
    folder = write_cache(tmp_path / "a", 3)
    path = folder / f"mini-imagenet-cache-{split}.pkl"
    content = pickle.loads(path.read_bytes())
    change(content)
    write_pickle(path, content)
    return folder


def supervised(folder: Path) -> Path:
    """Every class in each file."""
    images = np.stack([picture(number, 0) for number in range(100)])
    for split in SPLITS:
        content = {"image_data": images, "class_dict": {wnid: [n] for n, wnid in enumerate(WNIDS)}}
        write_pickle(folder / f"mini-imagenet-cache-{split}.pkl", content)
    return folder


def cut(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[:-5000])
    return path


def page(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("<!DOCTYPE html><html>Google Drive - Virus scan warning</html>")
    return path


def drop(content: dict, key: str, wnid: str) -> None:
    content[key].pop(wnid)


WRONG = {
    "a page": (lambda t: page(write_cache(t / "a") / "mini-imagenet-cache-train.pkl"), "an HTML page"),
    "a page as an archive": (lambda t: page(t / "mini-imagenet.tar.gz"), "an HTML page"),
    "a cut pickle": (lambda t: cut(write_cache(t / "a") / "mini-imagenet-cache-val.pkl"), "a truncated file"),
    "one file alone": (
        lambda t: (write_cache(t / "a") / "mini-imagenet-cache-val.pkl").unlink() or t / "a",
        r"got no mini-imagenet-cache-val\.pkl; .*put all of these files into one folder",
    ),
    "a missing class": (
        lambda t: spoil_cache(t, lambda c: drop(c, "class_dict", WNIDS[0])),
        "expected classes train 64, val 16, test 20, got train 63, val 16, test 20",
    ),
    "a supervised split": (lambda t: supervised(t / "a"), r"a supervised split, with the same classes .*\(n01532829\)"),
    "a supervised split in folders": (
        lambda t: (
            write_files(t / "c", "{split}/{wnid}/{rank}.jpg")
            and (shutil.copytree(t / "c" / "train" / WNIDS[0], t / "c" / "test" / WNIDS[0]) and t / "c")
        ),
        "a supervised split: n01532829 is in train and in test",
    ),
    "floats": (
        lambda t: spoil_cache(t, lambda c: c.update(image_data=c["image_data"] / np.float32(255))),
        r"expected images uint8 \[N, 84, 84, 3\], got float32 \[128, 84, 84, 3\]",
    ),
    "channels first": (
        lambda t: spoil_cache(t, lambda c: c.update(image_data=c["image_data"].transpose(0, 3, 1, 2).copy())),
        r"got uint8 \[128, 3, 84, 84\]",
    ),
    "another key": (
        lambda t: spoil_cache(t, lambda c: c.update(data=c.pop("image_data"))),
        "got keys class_dict, data",
    ),
    "rows that are not there": (
        lambda t: spoil_cache(t, lambda c: c["class_dict"].update({WNIDS[3]: [5000]})),
        "expected rows 0 to 127 for",
    ),
    "a row of two classes": (
        lambda t: spoil_cache(t, lambda c: c["class_dict"].update({WNIDS[3]: c["class_dict"][WNIDS[2]]})),
        "one class for each image",
    ),
    "a folder with nothing": (lambda t: (t / "empty").mkdir() or t / "empty", "a folder with none of these"),
    "no folder": (lambda t: t / "nowhere", "nowhere: expected a file or folder, got nothing of that name"),
    "another file": (lambda t: (t / "a.txt").write_text("x") and t / "a.txt", "a file of another kind"),
    "an archive of others": (
        lambda t: zipfile.ZipFile(t / "a.zip", "w").writestr("a.txt", "x") or t / "a.zip",
        "expected the cache pickles",
    ),
    "csv files of another split": (
        lambda t: write_lists(write_files(t / "c", LAYOUTS["flat"])) or swap_lists(t / "c"),
        r"train\.csv: expected classes of the train split of Ravi and Larochelle, got n\d{8}, which is in its test",
    ),
    "csv files that name more": (
        lambda t: write_lists(write_files(t / "c", LAYOUTS["flat"]), lambda number: (1, 2, 3)) or t / "c",
        "expected the 300 images of the CSV files, got 100 fewer",
    ),
    "one csv file": (
        lambda t: write_lists(write_files(t / "c", LAYOUTS["flat"])) or (t / "c" / "val.csv").unlink() or t / "c",
        r"expected train\.csv, val\.csv and test\.csv, got train and test alone",
    ),
    "an image that is none": (
        lambda t: page(write_files(t / "c") / f"{WNIDS[5]}00000001.jpg").parent,
        rf"{WNIDS[5]}00000001\.jpg: expected an image, got",
    ),
    "an image cut short": (
        lambda t: cut_image(write_files(t / "c") / f"{WNIDS[5]}00000001.jpg").parent,
        rf"{WNIDS[5]}00000001\.jpg: expected an image, got .*truncated",
    ),
    "classes of a folder that are missing": (
        lambda t: [shutil.rmtree(write_files(t / "c", "{wnid}/{rank}.jpg") / WNIDS[0]), t / "c"][1],
        "expected classes train 64, .* got train 63",
    ),
}


def swap_lists(folder: Path) -> Path:
    (folder / "test.csv").replace(folder / "train.csv")
    write_lists(folder / "more")
    shutil.copy(folder / "more" / "test.csv", folder / "test.csv")
    return folder


def cut_image(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[:-400])
    return path


@pytest.mark.parametrize("how", WRONG)
def test_what_is_wrong_is_named_and_nothing_is_left(tmp_path, target, how):
    make, words = WRONG[how]
    path = make(tmp_path)
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")}
    with pytest.raises(InputError, match=words) as caught:
        imported(path)
    assert "\n" not in str(caught.value)
    left = {
        file: file.stat().st_mtime_ns for file in tmp_path.rglob("*") if "cache" not in file.relative_to(tmp_path).parts
    }
    assert left == {file: time for file, time in before.items() if file.name != "cache"}
    assert not target.parent.exists() or list(target.parent.iterdir()) == []


def test_hostile_pickles_are_refused_at_the_door(tmp_path, target):
    folder = write_cache(tmp_path / "a")
    (folder / "mini-imagenet-cache-val.pkl").write_bytes(b"cos\nsystem\n(S'touch ran'\ntR.")
    with pytest.raises(InputError, match=r"mini-imagenet-cache-val\.pkl: .* one that asks for os\.system"):
        imported(folder)


@pytest.mark.parametrize(("images", "words"), [(1, "expected 1 images a class, got 2 of house finch"), (2, "")])
def test_more_images_than_there_are_is_an_error_and_fewer_is_said(tmp_path, target, images, words):
    folder = write_cache(tmp_path / "a")
    if words:
        with pytest.raises(InputError, match=words):
            imported(folder, small(images))
    else:
        assert imported(folder, small(images)).images.shape == (200, 84, 84, 3)


def test_other_images_are_known_by_their_means(tmp_path, target):
    recipe = small()
    recipe = replace(recipe, expected=replace(recipe.expected, means=RECIPE.expected.means))
    with pytest.raises(
        InputError, match=r"expected means of train near 0\.472 0\.453 0\.410, got .*; these are other images"
    ):
        imported(write_cache(tmp_path / "a"), recipe)
    assert not target.exists()


def test_a_supervised_parquet_of_other_classes_is_refused(tmp_path, target):
    rows = {split: [(n, 0) for n in range(100)] for split in ("train", "validation", "test")}
    names = [f"n{number:08d}" for number in range(100)]
    folder = write_parquet(tmp_path / "e", rows, lambda number: number, names=names)
    with pytest.raises(
        InputError, match="64 training classes, or all of its 100, got 100 classes, n00000000 to n00000099"
    ):
        imported(folder)


@pytest.mark.parametrize("how", ["page", "cut", "columns"])
def test_broken_parquet_files(tmp_path, target, how):
    folder = write_parquet(tmp_path / "d", few_shot_rows(), lambda number: number, pieces=1)
    path = folder / "validation-00000-of-00001-0123456789abcdef.parquet"
    if how == "columns":
        import pyarrow
        from pyarrow import parquet

        parquet.write_table(pyarrow.table({"img": [1], "label": [2]}), path)
    else:
        page(path) if how == "page" else path.write_bytes(path.read_bytes()[:-100])
    words = {
        "page": "an HTML page",
        "cut": "a truncated or damaged one",
        "columns": "expected the columns image and label",
    }
    with pytest.raises(InputError, match=words[how]):
        imported(folder)


def test_no_room_is_said_before_anything_is_written(tmp_path, target, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(get.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(
        InputError, match=r"room for the prepared form, got 0\.00 GB; make room, or name another folder"
    ):
        imported(write_cache(tmp_path / "a"))
    assert list(target.parent.iterdir()) == []


def test_the_classes_are_those_of_the_published_split():
    assert [len(OF[split]) for split in SPLITS] == [64, 16, 20]
    assert all(WNIDS[number] < WNIDS[number + 1] for number in range(63))
    assert classes()["n13133613"][0] == "train"
    assert {split: WNIDS[OF[split][0]] for split in SPLITS} == {
        "train": "n01532829",
        "val": "n01855672",
        "test": "n01930112",
    }


# --- the real thing ---------------------------------------------------------------------------------------------------


IMPORT = """
import sys
from pathlib import Path
from mlkernels.datasets.importing import get
try:  # not ru_maxrss: on Linux a child begins with its parent's
    Path("/proc/self/clear_refs").write_text("5")
    lines = lambda: Path("/proc/self/status").read_text().splitlines()
except OSError:
    lines = lambda: ["VmHWM: 0"]
get.get(get.recipe_of("miniimagenet"), Path(sys.argv[1]), accept=lambda recipe: True)
print(next(int(line.split()[1]) for line in lines() if line.startswith("VmHWM")))
"""


@pytest.mark.slow
def test_the_real_copy(unpacked_miniimagenet, tmp_path, monkeypatch):
    real = tmp_path
    (real / "data").mkdir()
    monkeypatch.setenv(folders.VARIABLE, str(real / "data"))
    command = [sys.executable, "-c", IMPORT, str(unpacked_miniimagenet)]
    peak = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    if sys.platform == "linux":  # where the number is in kB
        assert peak < 300_000  # of 1.27 GB
    manifest = read_manifest(real / "data" / "miniimagenet")
    assert manifest["notes"] == []
    for split, mean in (("val", [0.4746, 0.4670, 0.4360]), ("test", [0.4748, 0.4268, 0.3709])):
        np.testing.assert_allclose(manifest["splits"][split]["mean"], mean, atol=0.01)  # a re-compressed copy
    with monkeypatch.context() as patched:  # opening reads no image
        patched.setattr(lazy_rows.Mapped, "read", lambda *_: pytest.fail("images are read"))
        data = datasets.load("miniimagenet")
    assert repr(data) == "Dataset(miniimagenet: 100 classes, 60000 images 84x84x3)"
    assert data.wnids == tuple(WNIDS)
    held = {split: set(data.classes(split).tolist()) for split in SPLITS}
    assert not held["train"] & held["test"]
    for shot, published in ((1, 0.249), (5, 0.303)):
        accuracy = nearest_centroid(data, shot)
        interval = 1.96 * accuracy.std(ddof=1) / np.sqrt(len(accuracy))
        assert abs(accuracy.mean() - published) < 2 * interval  # the published one has its own interval
        assert interval < 0.01


def nearest_centroid(data: datasets.Dataset, shot: int, episodes: int = 600) -> np.ndarray:
    """Accuracy of 5-way episodes with 15 queries, raw pixels, Euclidean distance."""
    accuracies = []
    for start in range(0, episodes, 20):
        batch = tasks.episodes(
            data, "test", 5, shot, 15, 20, jax.random.key(1000 * shot + start), one_hot="plain", dtype=np.float32
        )
        support, query = (np.asarray(x).reshape(*x.shape[:2], -1) for x in (batch.support_x, batch.query_x))
        labels = np.asarray(batch.support_y)
        centroids = np.einsum("bmk,bmd->bkd", labels, support) / labels.sum(axis=1)[..., None]
        scores = np.einsum("bnd,bkd->bnk", query, centroids) - (centroids**2).sum(axis=-1)[:, None] / 2
        accuracies.append((scores.argmax(axis=-1) == np.asarray(batch.query_y).argmax(axis=-1)).mean(axis=1))
    return np.concatenate(accuracies)
