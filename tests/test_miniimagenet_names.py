"""miniImageNet: a copy that names an image twice, or calls it what its name contradicts, is refused in every form."""

from __future__ import annotations

import io
import shutil
import tarfile
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
    write_files,
    write_ilsvrc,
    write_lists,
    write_parquet,
)
from _pictures import picture
from _python2 import write_pickle
from test_miniimagenet import LAYOUTS, check, imported, small

from mlkernels import tasks
from mlkernels.datasets import folders
from mlkernels.datasets.importing import get
from mlkernels.datasets.importing.recipe import SPLITS
from mlkernels.datasets.prepared import read_manifest
from mlkernels.errors import InputError


@pytest.fixture
def target(tmp_path, monkeypatch) -> Path:
    """An empty cache, and no MLKERNELS_DATA."""
    monkeypatch.delenv(folders.VARIABLE, raising=False)
    monkeypatch.setattr(folders, "cache", lambda: tmp_path / "cache")
    return tmp_path / "cache" / "miniimagenet"


# --- what is right ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("header", ["filename,label\r\n", ""])
def test_csv_files_as_an_editor_saves_them(tmp_path, target, header):
    """With a byte order mark, other ends of lines, blank lines and spaces; with a header or without."""
    folder = write_files(tmp_path / "c", LAYOUTS["flat"])
    write_lists(folder)
    for split in SPLITS:
        rows = (folder / f"{split}.csv").read_text().splitlines()[1:]
        text = header + "".join(row.replace(",", ", ") + "\r\n" for row in [*rows, ""])
        (folder / f"{split}.csv").write_bytes(text.encode("utf-8-sig"))
    check(imported(folder, small()))


def test_names_that_every_class_has_are_found_in_their_class(tmp_path, target):
    folder = write_files(tmp_path / "c", "images/{wnid}/{rank}.jpg", each=3)
    for split in SPLITS:
        rows = [f"{rank}.jpg,{WNIDS[number]}" for number in OF[split] for rank in (2, 3)]
        (folder / f"{split}.csv").write_text("\n".join(rows))
    check(imported(folder, small()), indices=(1, 2))


def test_no_support_image_is_among_the_queries(tmp_path, target):
    folder = write_files(tmp_path / "c", LAYOUTS["flat"], each=3)
    write_lists(folder, take=lambda number: (1, 2, 3))
    data = imported(folder, small(3))
    assert read_manifest(target)["equal"]["sets"] == 0
    for split in SPLITS:
        batch = tasks.episodes(data, split, 5, 1, 2, 30, jax.random.key(0))
        for support, query in zip(np.asarray(batch.support_x), np.asarray(batch.query_x), strict=True):
            assert not {image.tobytes() for image in support} & {image.tobytes() for image in query}


def named_by_rank(number: int, index: int) -> str:
    return f"{WNIDS[number]}{index + 1:08d}.jpg"


@pytest.mark.parametrize("path", [named_by_rank, lambda number, index: f"{index}.jpg"])
def test_parquet_rows_with_names_of_their_own(tmp_path, target, path):
    few = write_parquet(tmp_path / "d", few_shot_rows(), lambda number: number, path=path)
    check(imported(few, small()), wnids=False)
    shutil.rmtree(target)
    check(imported(write_parquet(tmp_path / "e", supervised_rows(), sorted_place, path=path), small()))


@pytest.mark.parametrize("same", ["a.jpg", ""])
def test_a_path_that_every_row_has_names_no_image(tmp_path, target, same):
    folder = write_parquet(tmp_path / "d", few_shot_rows(), lambda number: number, WNIDS, path=lambda *_: same)
    check(imported(folder, small()))


@pytest.mark.parametrize("named", [True, False])
def test_parquet_files_that_number_their_classes_from_0(tmp_path, target, named):
    own = {{"val": "validation"}.get(split, split): [WNIDS[number] for number in OF[split]] for split in SPLITS}
    place = {number: place for split in SPLITS for place, number in enumerate(OF[split])}
    folder = write_parquet(tmp_path / "d", few_shot_rows(), place.get, own if named else None)
    check(imported(folder, small()), wnids=named)


def category_from_0(folder: Path, again: bool) -> Path:
    """Form B, its classes numbered from 0 in each split: the published ones, or the first of the training classes."""
    for split, name in (("train", "train_phase_train"), ("val", "val"), ("test", "test")):
        own = OF["train"][: len(OF[split])] if again else OF[split]
        images = np.stack([picture(number, index) for number in own for index in range(EACH)])
        content = {"data": images, "labels": np.repeat(np.arange(len(own)), EACH).tolist()}
        write_pickle(folder / f"miniImageNet_category_split_{name}.pickle", content, 2)
    return folder


def test_category_pickles_that_number_their_classes_from_0(tmp_path, target):
    check(imported(category_from_0(tmp_path / "b", again=False), small()), wnids=False)


def test_two_names_for_a_label_name_no_class(tmp_path, target):
    folder = category_from_0(tmp_path / "b", again=False)
    path = folder / "miniImageNet_category_split_val.pickle"
    images = np.stack([picture(number, index) for number in OF["val"] for index in range(EACH)])
    names = {WNIDS[number]: label for label, number in enumerate(OF["val"])} | {WNIDS[0]: 0}
    labels = np.repeat(np.arange(16), EACH).tolist()
    write_pickle(path, {"data": images, "labels": labels, "catname2label": names}, 2)
    check(imported(folder, small()), wnids=False)


def test_equal_pixels_under_two_names_are_counted_and_kept(tmp_path, target):
    folder = write_files(tmp_path / "c", each=3)
    for (number, index), (other, place) in (
        ((0, 0), (0, 1)),  # of one class
        ((1, 2), (2, 0)),  # of two
        ((4, 0), (OF["val"][0], 0)),  # of two splits
    ):
        shutil.copy(folder / named_by_rank(number, index), folder / named_by_rank(other, place))
    data = imported(folder, small(3))
    manifest = read_manifest(target)
    counts = {"train": 2, "train and val": 1}
    assert manifest["equal"] == {"images": 6, "sets": 3, "sets_of_two_classes": 2, "sets_by_split": counts}
    words = "equal pixels under two names: 6 images in 3 sets (2 in train, 1 in train and val; 2 of two classes)"
    assert words in get.described(manifest)
    assert len(data.images) == 300


# --- what is wrong ----------------------------------------------------------------------------------------------------


def files(tmp_path: Path, layout: str = "flat", **more) -> Path:
    return write_files(tmp_path / "c", LAYOUTS[layout], **more)


def listed(folder: Path, take=lambda number: range(1, EACH + 1), change=lambda rows: rows) -> Path:
    """A folder with the split's CSV files, whose rows [name, label] are changed."""
    write_lists(folder, take)
    for split in SPLITS:
        rows = [line.split(",") for line in (folder / f"{split}.csv").read_text().splitlines()[1:]]
        (folder / f"{split}.csv").write_text("\n".join(",".join(row) for row in change(rows)))
    return folder


def slid(rows: list[list[str]]) -> list[list[str]]:
    """Labels one row further down than their names."""
    return [[name, label] for (name, _), (_, label) in zip(rows, [rows[0], *rows], strict=False)]


def copied(folder: Path, source: str, place: str) -> Path:
    shutil.copy(folder / source, folder / place)
    return folder


def few_shot(tmp_path: Path, path, label=lambda number: number, names=None) -> Path:
    return write_parquet(tmp_path / "d", few_shot_rows(), label, names, path=path)


def supervised(tmp_path: Path, path) -> Path:
    return write_parquet(tmp_path / "e", supervised_rows(), sorted_place, path=path)


def of_another(number: int, index: int) -> str:
    """A name with the wnid of another class."""
    return named_by_rank(number ^ 1, index)


def one_twice(name):
    """Names by `name`, but class 5 has the first one twice."""
    return lambda number, index: name(number, 0 if number == 5 else index)


def whole_tar(tmp_path: Path) -> Path:
    """ILSVRC's tar of tars."""
    folder = write_ilsvrc(tmp_path / "f", tars=True)
    path = tmp_path / "ILSVRC2012_img_train.tar"
    path.write_bytes(tarred({file.name: file.read_bytes() for file in sorted(folder.iterdir())}))
    return path


def repeated(path: Path, name: str) -> Path:
    """A tar file that has a member twice."""
    with tarfile.open(path) as archive:
        member = archive.getmember(name)
        data = archive.extractfile(member).read()
    with tarfile.open(path, "a") as archive:
        archive.addfile(member, io.BytesIO(data))
    return path


ONE, TWO = WNIDS[:2]
WRONG = {
    "a name twice in a CSV file": (
        lambda t: listed(files(t, each=3), lambda number: (1, 1, 3)),
        rf"train\.csv: expected each image once, got {ONE}00000001\.jpg twice",
    ),
    "labels slid down by a row": (
        lambda t: listed(files(t), change=slid),
        rf"train\.csv: expected the label {TWO} of {TWO}00000001\.jpg, as its name says, got {ONE}",
    ),
    "CSV lines of three": (
        lambda t: listed(files(t), change=lambda rows: [[*row, "x"] for row in rows]),
        rf"train\.csv: expected lines `filename,label`, got '{ONE}00000001\.jpg,{ONE},x'",
    ),
    "an image in two places": (
        lambda t: copied(files(t), f"images/{TWO}00000002.jpg", f"{TWO}00000002.jpg"),
        rf"c: expected each image of {TWO} once, got .*/{TWO}00000002\.jpg and .*/images/{TWO}00000002\.jpg; .*take",
    ),
    "an image in two encodings": (
        lambda t: copied(files(t, "at the top"), f"{TWO}00000002.jpg", f"{TWO}00000002.JPEG"),
        rf"c: expected each image of {TWO} once, got .*\.JPEG and .*\.jpg; .*take one",
    ),
    "an image of another class in a folder": (
        lambda t: copied(files(t, "by class"), f"{ONE}/{ONE}00000001.jpg", f"{TWO}/{ONE}00000001.jpg"),
        rf"{ONE}00000001\.jpg: expected an image of {TWO}, as its folder says, got one of {ONE}",
    ),
    "a number of ILSVRC twice": (
        lambda t: copied(write_ilsvrc(t / "f"), f"{TWO}/{TWO}_9.JPEG", f"{TWO}/{TWO}_0009.jpg"),
        rf"expected each image of {TWO} once, got {TWO}_\w+\.\w+ twice",
    ),
    "an image of another class of ILSVRC": (
        lambda t: copied(write_ilsvrc(t / "f"), f"{ONE}/{ONE}_9.JPEG", f"{TWO}/{ONE}_5.JPEG"),
        rf"expected images of {TWO}, got {ONE}_5\.JPEG",
    ),
    "a member of a class's tar twice": (
        lambda t: repeated(write_ilsvrc(t / "f", tars=True) / f"{TWO}.tar", f"{TWO}_9.JPEG").parent,
        rf"{TWO}\.tar: expected each image of {TWO} once, got {TWO}_9\.JPEG twice",
    ),
    "a class's tar twice": (
        lambda t: repeated(whole_tar(t), f"{TWO}.tar"),
        rf"expected one tar file a class, got {TWO}\.tar twice",
    ),
    "a name twice for ILSVRC": (
        lambda t: listed(write_ilsvrc(t / "f"), lambda number: (1, 2, 2)),
        rf"train\.csv: expected each image once, got {ONE}00000002\.jpg twice",
    ),
    "a rank twice for ILSVRC": (
        lambda t: listed(write_ilsvrc(t / "f"), lambda number: (1, 10001)),
        f"expected each image of {ONE} once in the CSV files, got rank 1 twice",
    ),
    "names without a rank for ILSVRC": (
        lambda t: listed(
            write_ilsvrc(t / "f"), lambda number: (1,), lambda rows: [[f"{row[1]}_1002.JPEG", row[1]] for row in rows]
        ),
        rf"expected names with a rank in the class, as {ONE}00000005\.jpg, got {ONE}_1002\.JPEG",
    ),
    "a name of two parquet rows": (
        lambda t: few_shot(t, one_twice(named_by_rank)),
        rf"expected each image once, got {WNIDS[5]}00000001\.jpg of label 5 twice",
    ),
    "a name without a wnid of two parquet rows": (
        lambda t: few_shot(t, one_twice(lambda number, index: f"{index}.jpg")),
        r"expected each image once, got 0\.jpg of label 5 twice",
    ),
    "a name in both files of the supervised parquet": (
        lambda t: supervised(t, lambda number, index: named_by_rank(number, 0)),
        r"expected each image once, got n\d{8}00000001\.jpg twice",
    ),
    "a label of parquet that the name contradicts": (
        lambda t: few_shot(t, of_another, names=WNIDS),
        rf"expected the label of {TWO} for {TWO}00000001\.jpg, as its name says, got label 0, which is {ONE}",
    ),
    "labels of parquet slid down by a row": (
        lambda t: few_shot(t, named_by_rank, lambda number: max(number - 1, 0) if number < 64 else number),
        rf"expected the label of {TWO} for .*, as its name says, got label 0, which is {ONE}",
    ),
    "a class of parquet under two labels": (
        lambda t: few_shot(t, lambda number, index: named_by_rank(number - (number == 1), index + 2 * (number == 1))),
        rf"expected the label of {ONE} for {ONE}00000003\.jpg, as its name says, got label 1 besides another",
    ),
    "a label of supervised parquet that the name contradicts": (
        lambda t: supervised(t, of_another),
        r"expected the label of n\d{8} for .*, as its name says, got label \d+, which is n\d{8}",
    ),
    "labels of supervised parquet beyond its names": (
        lambda t: write_parquet(t / "e", supervised_rows(), lambda number: 2 * number),
        "expected labels 0 to 99, got 198",
    ),
    "a class of parquet twice": (
        lambda t: few_shot(t, lambda *_: None, names=[TWO, *WNIDS[1:]]),
        f"expected different classes in train, got {TWO} twice",
    ),
    "a supervised split that is numbered from 0": (
        lambda t: category_from_0(t / "b", again=True),
        "a supervised split, with the same classes in train and val: "
        "by their pixels train class 0 is val class 0, 16 such",
    ),
}


@pytest.mark.parametrize("how", WRONG)
def test_what_is_wrong_is_named_and_nothing_is_left(tmp_path, target, how):
    make, words = WRONG[how]
    path = make(tmp_path)
    with pytest.raises(InputError, match=words) as caught:
        imported(path, small(3))
    assert "\n" not in str(caught.value)
    assert not target.parent.exists() or list(target.parent.iterdir()) == []


def test_a_parquet_file_that_holds_only_paths_is_named_so(tmp_path, target):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    folder = write_parquet(tmp_path / "d", few_shot_rows(), lambda number: number, pieces=1)
    path = folder / "train-00000-of-00001-0123456789abcdef.parquet"
    labels = parquet.read_table(path)["label"]
    names = [f"n01532829/{row}.jpg" for row in range(len(labels))]
    words = (
        r"train-.*: expected the bytes of an image, got its path alone \(n01532829/0\.jpg\); .*give a copy that holds"
    )
    for images in (
        [{"bytes": None, "path": name} for name in names],
        [{"path": name} for name in names],
        names,
    ):
        parquet.write_table(pyarrow.table({"image": images, "label": labels}), path)
        with pytest.raises(InputError, match=rf"row 1 of .*{words}"):
            imported(folder)
    parquet.write_table(pyarrow.table({"image": [[1]] * len(labels), "label": labels}), path)
    with pytest.raises(InputError, match=r"row 1 of .*train-.*: expected the bytes of an image, got none"):
        imported(folder)
