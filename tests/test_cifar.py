"""CIFAR-FS and FC100: whose classes are whose, every form in its true layout, and what is wrong with broken ones."""

from __future__ import annotations

import pickle
import tarfile
from pathlib import Path

import jax
import numpy as np
import pytest
from _python2 import write_pickle

from mlkernels import datasets, tasks
from mlkernels.datasets import cifar, folders
from mlkernels.datasets.cifar import CLASSES, SUPERCLASS_OF, SUPERCLASSES, split_classes
from mlkernels.datasets.importing import get
from mlkernels.datasets.importing.write import write_prepared
from mlkernels.datasets.prepared import open_prepared, read_manifest
from mlkernels.errors import InputError

NAMES = ("cifar_fs", "fc100")
PER_CLASS = {"train": 4, "test": 2}


def batch(part: str, seed: int) -> dict:
    """What the official file `train` or `test` holds, with fewer images, in random order."""
    rng = np.random.default_rng(seed)
    fine = rng.permutation(np.repeat(np.arange(100), PER_CLASS[part]))
    data = rng.integers(0, 256, (len(fine), 3, 1024)).astype(np.uint8)
    data[:, 2] = fine[:, None]  # every image knows its class by its blue pixels, and its file by the last green one
    data[:, 1, -1] = part == "test"
    return {
        "data": data.reshape(-1, 3072),
        "batch_label": f"{part}ing batch 1 of 1",
        "fine_labels": fine.tolist(),
        "coarse_labels": np.array(SUPERCLASS_OF)[fine].tolist(),
        "filenames": [f"{CLASSES[label]}_s_{row:06d}.png" for row, label in enumerate(fine)],
    }


META = {"fine_label_names": list(CLASSES), "coarse_label_names": list(SUPERCLASSES)}


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory) -> Path:
    """The official archive, unpacked: the folder that has cifar-100-python in it."""
    folder = tmp_path_factory.mktemp("official")
    for seed, part in enumerate(PER_CLASS):
        write_pickle(folder / cifar.FOLDER / part, batch(part, seed), python=2)
    write_pickle(folder / cifar.FOLDER / "meta", META, python=2)
    (folder / cifar.FOLDER / "file.txt~").touch()
    return folder


@pytest.fixture
def own(unpacked, tmp_path) -> Path:
    """A copy of cifar-100-python to break."""
    for file in (unpacked / cifar.FOLDER).iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


@pytest.fixture
def empty(tmp_path, monkeypatch) -> Path:
    """An empty folder that MLKERNELS_DATA names, and an empty cache."""
    folder = tmp_path / "named"
    folder.mkdir()
    monkeypatch.setenv(folders.VARIABLE, str(folder))
    monkeypatch.setattr(folders, "cache", lambda: tmp_path / "cache")
    return folder


def write_small(path: Path, per_class: int = 2, **change) -> Path:
    labels = np.repeat(np.arange(100), per_class).astype(np.int16)
    images = np.broadcast_to(labels.astype(np.uint8)[:, None, None, None], (len(labels), 32, 32, 3))
    np.savez_compressed(path, **{"images": images, "labels": labels, "class_names": np.array(CLASSES), **change})
    return path


def prepare(name: str, path: Path, folder: Path) -> datasets.Dataset:
    recipe = cifar.RECIPES[name]
    form = recipe.recognise(path)
    assert form in recipe.forms
    about = {"name": name, "shape": recipe.expected.shape, "source": str(path), "licence": recipe.licence}
    write_prepared(folder, parts=recipe.splits_of(path, form), **about)
    return open_prepared(folder)


# --- whose classes are whose ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "sizes"), [("cifar_fs", (64, 16, 20)), ("fc100", (60, 20, 20))])
def test_splits_share_out_the_hundred_classes(name, sizes):
    splits = split_classes(name)
    assert tuple(splits) == ("train", "val", "test")
    assert tuple(map(len, splits.values())) == sizes == tuple(cifar.RECIPES[name].expected.classes.values())
    assert sorted(one for names in splits.values() for one in names) == list(CLASSES)
    assert all(names == tuple(sorted(names)) for names in splits.values())


def test_only_cifar_fs_tests_on_relatives_of_its_training_classes():
    assert [len(some.split()) for some in SUPERCLASSES.values()] == [5] * 20
    assert len(set(CLASSES)) == 100
    groups = {
        name: {
            split: {SUPERCLASS_OF[CLASSES.index(one)] for one in some} for split, some in split_classes(name).items()
        }
        for name in NAMES
    }
    assert [len(some) for some in groups["fc100"].values()] == [12, 4, 4]
    assert not groups["fc100"]["train"] & (groups["fc100"]["val"] | groups["fc100"]["test"])
    assert groups["cifar_fs"]["val"] | groups["cifar_fs"]["test"] <= groups["cifar_fs"]["train"]
    with pytest.raises(InputError, match="name: expected cifar_fs or fc100, got 'cifar'"):
        split_classes("cifar")


def test_class_lists_are_those_of_the_real_data(real_data):
    with np.load(real_data / cifar.SMALL, allow_pickle=False) as file:
        assert tuple(file["class_names"].tolist()) == CLASSES
        assert tuple(file["superclass"].tolist()) == tuple(tuple(SUPERCLASSES)[number] for number in SUPERCLASS_OF)
        for name, key in (("cifar_fs", "cifarfs_class_split"), ("fc100", "fc100_class_split")):
            for number, names in enumerate(split_classes(name).values()):
                assert file["class_names"][file[key] == number].tolist() == list(names)


# --- forms ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_the_official_files_make_either_dataset(name, unpacked, tmp_path):
    data = prepare(name, unpacked, tmp_path / name)
    assert data.images.shape == (600, 32, 32, 3)
    assert [len(ids) for ids in data.splits.values()] == [len(names) for names in split_classes(name).values()]
    both = {part: batch(part, seed) for seed, part in enumerate(PER_CLASS)}
    for class_id, one in enumerate(data.class_names):
        images = data.images_of(class_id)
        assert images.shape == (6, 32, 32, 3)
        assert (images[..., 2] == CLASSES.index(one)).all()
        assert images[:, -1, -1, 1].tolist() == [0] * 4 + [1] * 2  # CIFAR-100's training images, then its test images
        for part, rows in (("train", slice(4)), ("test", slice(4, 6))):
            own = np.flatnonzero(np.array(both[part]["fine_labels"]) == CLASSES.index(one))
            planes = both[part]["data"][own].reshape(-1, 3, 32, 32)
            assert all(np.array_equal(images[rows][..., channel], planes[:, channel]) for channel in range(3))
    assert data.classes("test").tolist() == list(range(80, 100))
    assert tuple(data.class_names[index] for index in data.classes("test")) == split_classes(name)["test"]


def test_forms_are_recognised_where_users_have_them(unpacked, tmp_path):
    for name in NAMES:
        recognise = cifar.RECIPES[name].recognise
        folder = unpacked / cifar.FOLDER
        assert [recognise(path) for path in (unpacked, folder, folder / "train", folder / "meta")] == ["official"] * 4
        assert recognise(tmp_path) is None
        assert recognise(tmp_path / "nothing") is None
        assert recognise(folder / "file.txt~") is None
        small = write_small(tmp_path / cifar.SMALL, 1)
        assert (recognise(small), recognise(tmp_path)) == ("small", None)  # a part is not taken unasked
        (tmp_path / "other.npz").touch()
        assert recognise(tmp_path / "other.npz") is None
        file = write_pickle(tmp_path / name / cifar.READY[name].format("val"), {}, python=2)
        assert (recognise(file), recognise(file.parent)) == ("ready", "ready")
        assert [cifar.RECIPES[other].recognise(file) for other in NAMES if other != name] == [None]
        small.unlink()


@pytest.mark.parametrize("name", NAMES)
def test_the_archive_is_imported_and_opened(name, unpacked, empty, tmp_path):
    archive = tmp_path / "cifar-100-python.tar.gz"
    with tarfile.open(archive, "w:gz") as file:
        file.add(unpacked / cifar.FOLDER, cifar.FOLDER)
        members = [member.name for member in file.getmembers() if member.isfile()]
    recipe = cifar.RECIPES[name]
    wanted = sorted(name for name in members if f"/{name}".endswith(recipe.wants))
    assert wanted == [f"{cifar.FOLDER}/{part}" for part in ("meta", "test", "train")]
    (empty / "mine.txt").touch()  # so that the folder came with something in it, and the cache is written to
    folder = get.get(recipe, archive)
    assert folder == tmp_path / "cache" / name
    data = datasets.load(name)
    assert data.images.shape == (600, 32, 32, 3)
    assert all(
        (data.images_of(number)[..., 2] == CLASSES.index(one)).all() for number, one in enumerate(data.class_names)
    )
    manifest = read_manifest(folder)
    assert "train: " in manifest["notes"][0]
    assert "fewer than 600 images (6)" in manifest["notes"][0]
    assert manifest["form"] == "the official CIFAR-100 (cifar-100-python)"
    write_small(empty / cifar.SMALL)
    assert datasets.load(name).source == str(folder)  # the whole dataset is preferred to a part of it
    assert [file.name for file in sorted(tmp_path.iterdir())] == ["cache", "cifar-100-python.tar.gz", "named"]


def test_images_come_in_chunks_and_more_than_once(unpacked, monkeypatch):
    monkeypatch.setattr(cifar, "CHUNK", 7)
    part = cifar.RECIPES["fc100"].splits_of(unpacked, "official")["val"]
    for _ in range(2):
        assert {len(images) for images in part.images()} == {7, 400 % 7, 200 % 7}
        sizes = [(len(images), len(labels)) for images, labels in part.chunks()]
        assert all(images == labels <= 7 for images, labels in sizes)
        assert sum(size for size, _ in sizes) == sum(part.counts) == 120
    assert [file.name for file in part.files] == ["train", "test", "meta"]


@pytest.mark.parametrize("python", [2, 3])
@pytest.mark.parametrize("name", NAMES)
def test_the_pickles_of_metaoptnet(name, python, tmp_path):
    rng = np.random.default_rng(0)
    for split, names in split_classes(name).items():
        labels = rng.permutation(np.repeat([CLASSES.index(one) for one in names], 3))
        data = np.broadcast_to(labels.astype(np.uint8)[:, None, None, None], (len(labels), 32, 32, 3))
        content = {"data": np.ascontiguousarray(data), "labels": labels.tolist()}
        write_pickle(tmp_path / cifar.READY[name].format(split), content, python=python)
    data = prepare(name, tmp_path, tmp_path / "out")
    assert data.class_names == tuple(one for names in split_classes(name).values() for one in names)
    for class_id, one in enumerate(data.class_names):
        assert (data.images_of(class_id) == CLASSES.index(one)).all()


def test_pickles_with_labels_of_their_own_are_named_by_number(tmp_path):
    for split, count in cifar.RECIPES["cifar_fs"].expected.classes.items():
        labels = np.repeat(3 * np.arange(count), 2)[::-1]
        data = np.broadcast_to(labels.astype(np.uint8)[:, None, None, None], (len(labels), 32, 32, 3)).copy()
        write_pickle(tmp_path / f"CIFAR_FS_{split}.pickle", {"labels": labels, "data": data}, python=2)
    parts = cifar.RECIPES["cifar_fs"].splits_of(tmp_path, "ready")
    assert list(parts["test"].class_names[:2]) == ["class 0", "class 3"]
    assert "called by their numbers" in parts["test"].notes[0]
    assert all((images[:, 0, 0, 0] == 3 * labels).all() for images, labels in parts["test"].chunks())


def write_ready(folder: Path, name: str, classes: dict, number, per_class: int = 3, noise: int = 0) -> Path:
    """Pickles of a split each: smooth reddish pictures of the classes, with noise of up to so many levels."""
    random = np.random.default_rng(0)
    for split, names in classes.items():
        labels, images = [], []
        for place, one in enumerate(names):
            rng = np.random.default_rng(CLASSES.index(one))
            own = np.kron(rng.integers(60, 120, (4, 4, 1)), np.ones((8, 8, 1), int)) + np.array([60, 30, 0])
            images += [own + random.integers(-noise, noise + 1, own.shape) + index for index in range(per_class)]
            labels += [number(place, one)] * per_class
        content = {"data": np.stack(images).astype(np.uint8), "labels": labels}
        write_pickle(folder / cifar.READY[name].format(split), content, python=2)
    return folder


def place_in_split(place: int, one: str) -> int:
    return place


def number_of(place: int, one: str) -> int:
    return CLASSES.index(one)


def imported(name: str, folder: Path) -> datasets.Dataset:
    return open_prepared(get.get(cifar.RECIPES[name], folder))


@pytest.mark.parametrize("name", NAMES)
def test_pickles_that_number_each_split_from_0_are_imported(name, empty, tmp_path):
    folder = write_ready(tmp_path / "own", name, split_classes(name), place_in_split, per_class=12, noise=20)
    data = imported(name, folder)
    sizes = [len(names) for names in split_classes(name).values()]
    assert [len(ids) for ids in data.splits.values()] == sizes
    assert data.class_names[sizes[0]] == "class 0"
    assert read_manifest(Path(data.source))["same_classes"] == {}


@pytest.mark.parametrize("noise", [0, 20])
@pytest.mark.parametrize("name", NAMES)
def test_a_supervised_split_is_told_by_its_pixels(name, noise, empty, tmp_path):
    """The images of two splits are the same, or others of the same classes."""
    train = split_classes(name)["train"]
    classes = {split: train[: len(names)] for split, names in split_classes(name).items()}
    folder = write_ready(tmp_path / "own", name, classes, place_in_split, per_class=12, noise=noise)
    size = len(classes["val"])
    words = (
        f"a supervised split, with the same classes in train and val: by their pixels class 0 is class 0, {size} such"
    )
    with pytest.raises(InputError, match=words):
        imported(name, folder)
    assert not (empty / name).exists()
    assert not (tmp_path / "cache" / name).exists()


def test_a_supervised_split_is_told_whatever_its_numbers(empty, tmp_path):
    classes = {**split_classes("cifar_fs"), "val": split_classes("cifar_fs")["train"][:16]}
    numbers = iter(range(10000))
    folder = write_ready(tmp_path / "own", "cifar_fs", classes, lambda place, one: next(numbers))
    with pytest.raises(InputError, match="the same classes in train and val: by their pixels class 0 is class 64"):
        imported("cifar_fs", folder)


def test_an_image_that_two_splits_share_is_counted_and_kept(empty, tmp_path):
    """As one of `girl`, to train on, is one of `baby`, to test on."""
    folder = write_ready(tmp_path / "own", "cifar_fs", split_classes("cifar_fs"), number_of)
    files = {split: folder / cifar.READY["cifar_fs"].format(split) for split in ("train", "test")}
    contents = {split: pickle.loads(file.read_bytes(), encoding="latin-1") for split, file in files.items()}
    baby, girl = (
        contents[split]["labels"].index(CLASSES.index(one)) for split, one in (("test", "baby"), ("train", "girl"))
    )
    contents["test"]["data"][baby] = contents["train"]["data"][girl]
    write_pickle(files["test"], contents["test"], python=2)
    counts = {"images": 2, "sets": 1, "sets_of_two_classes": 1, "sets_by_split": {"train and test": 1}}
    assert read_manifest(Path(imported("cifar_fs", folder).source))["equal"] == counts


@pytest.mark.parametrize("pixels", ["equal", "others"])
def test_an_image_that_the_official_files_have_twice_is_refused(pixels, own):
    content = batch("test", 1)
    content["filenames"][7] = content["filenames"][3]
    if pixels == "equal":
        for key in ("data", "fine_labels", "coarse_labels"):
            content[key][7] = content[key][3]
    write_pickle(own / "test", content, python=2)
    if pixels == "equal":
        refused(own, f"test: expected each image once, got {content['filenames'][3]} twice")
    else:
        parts = cifar.RECIPES["cifar_fs"].splits_of(own, "official")
        assert sum(part.counts.sum() for part in parts.values()) == 600


# --- the npz ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_the_npz_is_read_where_it_lies(name, empty):
    assert datasets.available(name) is None
    with pytest.raises(InputError, match=f"{name}: expected a prepared copy, got none in"):
        datasets.load(name)
    path = write_small(empty / cifar.SMALL)
    assert datasets.available(name) == str(path)
    assert datasets.first_available(name, "glyphs") == name
    data = datasets.load(name)
    assert data.class_names == tuple(one for names in split_classes(name).values() for one in names)
    for class_id, one in enumerate(data.class_names):
        assert (data.images_of(class_id) == CLASSES.index(one)).all()
    assert f"{path} (2 images a class instead of 600)" in data.summary()
    assert "none stated by its authors" in data.summary()
    test = datasets.load(name, "test")
    assert (len(test.class_names), len(test.images)) == (20, 40)
    np.testing.assert_array_equal(test.mean, data.mean)
    assert list(empty.iterdir()) == [path]
    with pytest.raises(ValueError, match="read-only"):
        data.images[0] = 0


def test_the_npz_can_be_imported_too(empty, tmp_path):
    path = write_small(empty / cifar.SMALL, 3)
    direct = cifar.load_small("fc100", path)
    prepared = prepare("fc100", path, tmp_path / "out")
    assert prepared.class_names == direct.class_names
    np.testing.assert_allclose(prepared.mean, direct.mean)
    np.testing.assert_allclose(prepared.std, direct.std)
    assert all(np.array_equal(prepared.images_of(number), direct.images_of(number)) for number in range(100))
    notes = cifar.RECIPES["fc100"].splits_of(path, "small")["train"].notes
    assert notes == ("This copy holds a part of CIFAR-100.",)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"class_names": np.array([f"class{number}" for number in range(100)])}, "got other class names"),
        ({"images": np.zeros((200, 32, 32, 3))}, r"got float64 \[200, 32, 32, 3\]"),
        ({"images": np.zeros((200, 3, 32, 32), np.uint8)}, r"images uint8 \[N, 32, 32, 3\], got"),
        ({"labels": np.zeros(200, np.int16)}, "labels that are not 0 to 99"),
        ({"labels": np.zeros(7, np.int16)}, "expected 200 whole numbers as labels"),
    ],
)
def test_another_npz_is_refused(change, words, empty):
    write_small(empty / cifar.SMALL, **change)
    with pytest.raises(InputError, match=words):
        datasets.load("cifar_fs")


def test_a_truncated_npz_is_refused(empty):
    path = write_small(empty / cifar.SMALL)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(InputError, match="got a truncated file"):
        datasets.load("cifar_fs")


# --- what is wrong with a copy ----------------------------------------------------------------------------------------


def refused(path: Path, words: str) -> None:
    with pytest.raises(InputError, match=words):
        cifar.RECIPES["cifar_fs"].splits_of(path, cifar.RECIPES["cifar_fs"].recognise(path))


@pytest.mark.parametrize(
    ("file", "change", "words"),
    [
        ("train", {"coarse_labels": [0] * 400}, "train: expected the superclasses of CIFAR-100, got others"),
        ("test", {"fine_labels": [100] * 200}, "test: expected fine labels 0 to 99, got 100 to 100"),
        ("test", {"fine_labels": [0]}, r"expected 200 whole numbers as labels, one for each image, got int64 \[1\]"),
        ("test", {"fine_labels": [[0], [0, 1]]}, "expected 200 whole numbers"),
        ("train", {"data": np.zeros((400, 3072))}, r"images uint8 \[N, 3072\], got float64 \[400, 3072\]"),
        ("train", {"data": "none"}, r"images uint8 \[N, 3072\], got str"),
        (
            "meta",
            {"fine_label_names": ["airplane", "automobile", "bird"]},
            "the fine_label_names of CIFAR-100, got airp",
        ),
        ("meta", {"coarse_label_names": 3}, "the coarse_label_names of CIFAR-100, got int"),
    ],
)
def test_other_contents_are_refused(file, change, words, own):
    content = META if file == "meta" else batch(file, list(PER_CLASS).index(file))
    write_pickle(own / file, {**content, **change}, python=2)
    refused(own, words)


def test_missing_and_broken_files_are_named(own):
    (own / "meta").rename(own / "elsewhere")
    refused(own, "expected train, test, meta, got no meta; nothing was imported; put all of these files into")
    (own / "elsewhere").rename(own / "meta")
    whole = (own / "test").read_bytes()
    for content, words in (
        (whole[: len(whole) // 2], "test: expected a pickle.*got a truncated file"),
        (b"<!DOCTYPE html><html>Sign in</html>", "test: expected a pickle.*got an HTML page"),
        (b"", "test: expected a pickle.*got an empty file"),
        (pickle.dumps({"data": [1]}), "test: expected a dict with 'fine_labels', got keys data"),
        (b"cos\nsystem\n(S'touch hacked'\ntR.", "test: expected a pickle.*got one that asks for os.system"),
    ):
        (own / "test").write_bytes(content)
        refused(own, words)


def test_a_missing_split_is_named(tmp_path):
    def write(*shape):
        content = {"data": np.zeros(shape, np.uint8), "labels": [0, 1]}
        write_pickle(tmp_path / "CIFAR_FS_train.pickle", content, python=2)

    write(2, 32, 32, 3)
    refused(tmp_path, "CIFAR_FS_test.pickle, got no CIFAR_FS_val.pickle")
    for split in ("val", "test"):
        (tmp_path / f"CIFAR_FS_{split}.pickle").touch()
    write(2, 3, 32, 32)
    refused(tmp_path, r"images uint8 \[N, 32, 32, 3\], got uint8 \[2, 3, 32, 32\]")


# --- real data --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("supervised", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_real_classes_that_are_numbered_from_0_are_told_apart(real_data, name, supervised, empty, tmp_path):
    """Few-shot splits, and a supervised one of 100 and 20 images of the same classes, none of them in both."""
    with np.load(real_data / cifar.SMALL, allow_pickle=False) as file:
        images, labels = file["images"], file["labels"]
    for split, names in split_classes(name).items():
        chosen = split_classes(name)["train"][: len(names)] if supervised else names
        take = (slice(0, 100) if split == "train" else slice(100, 120)) if supervised else slice(0, 120)
        rows = np.concatenate([np.flatnonzero(labels == CLASSES.index(one))[take] for one in chosen])
        own = np.repeat(np.arange(len(chosen)), len(rows) // len(chosen))
        content = {"data": images[rows], "labels": own.tolist()}
        write_pickle(tmp_path / "own" / cifar.READY[name].format(split), content, python=2)
    if supervised:
        with pytest.raises(InputError, match="a supervised split, with the same classes in train and val"):
            imported(name, tmp_path / "own")
    else:
        data = imported(name, tmp_path / "own")
        assert data.images.shape == (12000, 32, 32, 3)
        assert read_manifest(Path(data.source))["equal"]["sets"] == 1  # `baby` and `girl`


@pytest.mark.parametrize(
    ("name", "shot", "known"), [("cifar_fs", 1, 0.318), ("cifar_fs", 5, 0.416), ("fc100", 5, 0.368)]
)
def test_nearest_centroid_matches_the_known_accuracy(real_data, name, shot, known):
    """Known: of 3000 episodes from another sampler, +- 0.003."""
    data = datasets.load(name)
    batch = tasks.episodes(data, "test", 5, shot, 15, 300, jax.random.key(shot), one_hot="plain", dtype=np.float32)
    accuracy = nearest_centroid(batch)
    interval = 1.96 * accuracy.std(ddof=1) / np.sqrt(len(accuracy))
    assert abs(accuracy.mean() - known) < 2 * interval
    assert interval < 0.015


def nearest_centroid(batch: tasks.TaskBatch) -> np.ndarray:
    """Accuracy of each episode, raw pixels, Euclidean distance."""
    support, query = (np.asarray(x).reshape(*x.shape[:2], -1) for x in (batch.support_x, batch.query_x))
    labels = np.asarray(batch.support_y)
    centroids = np.einsum("bmk,bmd->bkd", labels, support) / labels.sum(axis=1)[..., None]
    scores = query @ centroids.swapaxes(1, 2) - (centroids**2).sum(axis=-1)[:, None] / 2
    return (scores.argmax(axis=-1) == np.asarray(batch.query_y).argmax(axis=-1)).mean(axis=1)
