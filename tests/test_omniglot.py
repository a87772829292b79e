"""Omniglot: finding, fetching, converting, and what happens when any of that goes wrong."""

from __future__ import annotations

import functools
import hashlib
import http.server
import io
import os
import threading
import zipfile
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from mlkernels import datasets, tasks
from mlkernels.datasets import folders, omniglot
from mlkernels.errors import InputError
from mlkernels.support import checked_arrays

ZIPS = ("images_background.zip", "images_evaluation.zip")
SMALL = [("images_background", "Armenian"), ("images_background", "Greek"), ("images_evaluation", "Keble")]


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache, no MLKERNELS_DATA, and an official address that nothing answers."""
    folder = tmp_path / "cache"
    monkeypatch.delenv(folders.VARIABLE, raising=False)
    monkeypatch.setattr(folders, "cache", lambda: folder)
    monkeypatch.setattr(omniglot, "OFFICIAL", replace(omniglot.OFFICIAL, url="http://127.0.0.1:9/"))
    return folder


def png(ink: np.ndarray) -> bytes:
    """A drawing as the official zips have it: one bit a pixel, white paper."""
    file = io.BytesIO()
    Image.fromarray(np.where(ink, 0, 255).astype(np.uint8)).convert("1").save(file, "PNG")
    return file.getvalue()


def write_zip(path: Path, drawings: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{path.stem}/", b"")
        archive.writestr("__MACOSX/images_background/Greek/character01/._0001_01.png", b"not an image")
        archive.writestr(f"{path.stem}/.DS_Store", b"nor this")
        for name, data in sorted(drawings.items(), reverse=True):  # the order in the zip must not matter
            archive.writestr(name, data)


@pytest.fixture
def small_official(tmp_path, monkeypatch, cache):
    """A tiny release in the official structure: 3 alphabets, 2 characters each, 3 drawings, with its checksums."""
    folder = tmp_path / "release"
    folder.mkdir()
    drawings = {name: {} for name in ZIPS}
    rng = np.random.default_rng(0)
    for index, (part, alphabet) in enumerate(SMALL):
        for character in (1, 2):
            for drawer in (1, 2, 3):
                number = 500 - 10 * index + character
                name = f"{part}/{alphabet}/character{character:02d}/{number:04d}_{drawer:02d}.png"
                drawings[f"{part}.zip"][name] = png(rng.random((105, 105)) < 0.1 * (index + 1))
    for name in ZIPS:
        write_zip(folder / name, drawings[name])
    sha256 = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in ZIPS}
    official = replace(omniglot.OFFICIAL, sha256=sha256, characters=6, drawings=3)
    monkeypatch.setattr(omniglot, "OFFICIAL", official)
    return folder


@pytest.fixture
def serve(monkeypatch):
    """Let a folder be the official address, on this machine."""
    servers = []

    def start(folder: Path) -> None:
        handler = functools.partial(QuietHandler, directory=str(folder))
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/"
        monkeypatch.setattr(omniglot, "OFFICIAL", replace(omniglot.OFFICIAL, url=url))

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def send_header(self, keyword, value):
        if keyword == "Content-Length" and (Path(self.directory) / "cut").exists():
            value = str(int(value) + 1000)  # promises more than it sends
        super().send_header(keyword, value)


def make_prepared(folder: Path, small: Path) -> Path:
    """The prepared file of the tiny release, in a folder of the user's."""
    folder.mkdir(exist_ok=True)
    path = folder / omniglot.PREPARED
    checked_arrays.save(path, omniglot.convert([small / name for name in ZIPS]), compressed=True)
    return path


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_conversion_orders_inverts_and_averages(small_official, monkeypatch):
    arrays = omniglot.convert([small_official / name for name in ZIPS])
    expected = [f"{alphabet}/character{number:02d}" for _, alphabet in SMALL for number in (1, 2)]
    assert arrays["class_names"].tolist() == expected
    assert arrays["labels"].tolist() == np.repeat(np.arange(6), 3).tolist()
    assert arrays["drawer"].tolist() == [1, 2, 3] * 6
    assert arrays["char_id"][::3].tolist() == [501, 502, 491, 492, 481, 482]
    assert arrays["class_split"].tolist() == [0, 0, 0, 0, 1, 1]
    assert arrays["vinyals_class_split"].tolist() == [1, 1, 0, 0, 2, 2]
    ink = arrays["images"].reshape(6, -1).mean(axis=1) / 255
    np.testing.assert_allclose(ink, [0.1, 0.1, 0.2, 0.2, 0.3, 0.3], atol=0.01)  # white paper became 0


def test_drawings_of_16_bits_are_scaled_and_transparent_ones_refused(tmp_path):
    name = "images_background/Greek/character01/0001_01.png"
    for image, ink in ((Image.new("I;16", (105, 105), 32639), 128), (Image.new("LA", (105, 105), (255, 0)), None)):
        file = io.BytesIO()
        image.save(file, "PNG")
        write_zip(tmp_path / "images_background.zip", {name: file.getvalue()})
        if ink is None:
            with pytest.raises(ValueError, match="mode LA with 11025 transparent pixels"):
                omniglot._read_zip(tmp_path / "images_background.zip")
        else:
            ((_, drawing),) = omniglot._read_zip(tmp_path / "images_background.zip")
            assert (drawing == ink).all()


def test_the_order_of_the_archives_does_not_matter(small_official):
    one, two = (omniglot.convert([small_official / name for name in order]) for order in (ZIPS, ZIPS[::-1]))
    assert set(one) == {*omniglot.KEYS, "split_names", "vinyals_split_names"}
    assert all(np.array_equal(one[key], two[key]) for key in one)


def test_local_zips_are_converted_once_into_the_cache(small_official, cache, monkeypatch):
    monkeypatch.setenv(folders.VARIABLE, str(small_official))
    before = files(small_official)
    assert datasets.available("omniglot") == " + ".join(str(small_official / name) for name in ZIPS)
    data = datasets.load("omniglot", download=False)
    assert data.source == str(cache / omniglot.PREPARED)
    assert {name: len(ids) for name, ids in data.splits.items()} == {"train": 2, "val": 2, "test": 2}
    assert files(small_official) == before
    assert files(cache) == [omniglot.PREPARED]
    monkeypatch.setattr(omniglot, "convert", None)
    again = datasets.load("omniglot", download=False)
    assert np.array_equal(again.images, data.images)


def test_prepared_file_of_mlkernels_data_comes_first(small_official, cache, tmp_path, monkeypatch):
    path = make_prepared(tmp_path / "mine", small_official)
    make_prepared(cache, small_official)
    (tmp_path / "empty").mkdir()
    places = [str(tmp_path / "empty"), str(small_official), str(path.parent)]
    monkeypatch.setenv(folders.VARIABLE, os.pathsep.join(places))
    assert datasets.available("omniglot") == str(path)
    assert datasets.load("omniglot").source == str(path)


def test_download_fetches_checks_and_converts(small_official, cache, serve, capsys):
    serve(small_official)
    assert datasets.available("omniglot") is None
    data = datasets.load("omniglot", splits="lake")
    assert [len(ids) for ids in data.splits.values()] == [4, 2]
    assert files(cache) == sorted([omniglot.PREPARED, *ZIPS])
    assert "100%" in capsys.readouterr().err  # a progress bar
    assert datasets.available("omniglot") == str(cache / omniglot.PREPARED)


def test_a_zip_that_is_there_is_not_fetched_again(small_official, cache, serve, tmp_path):
    cache.mkdir()
    (cache / ZIPS[0]).write_bytes((small_official / ZIPS[0]).read_bytes())
    (small_official / ZIPS[0]).unlink()
    serve(small_official)
    assert len(datasets.load("omniglot").class_names) == 6


def test_without_a_network_the_error_says_what_to_put_where(cache):
    with pytest.raises(InputError) as caught:
        datasets.load("omniglot")
    message = str(caught.value)
    assert "\n" not in message
    for part in ("images_background.zip", "ConnectionError", str(cache), "MLKERNELS_DATA"):
        assert part in message
    assert files(cache) == []  # nothing is left of the attempt


def test_without_leave_to_download_the_error_says_where_it_looked(cache, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv(folders.VARIABLE, str(tmp_path / "empty"))
    with pytest.raises(InputError) as caught:
        datasets.load("omniglot", download=False)
    message = str(caught.value)
    for part in ("omniglot_28.npz", *ZIPS, str(tmp_path / "empty"), str(cache)):
        assert part in message
    assert datasets.first_available("omniglot", "glyphs") == "glyphs"


def test_an_http_error_is_named(small_official, cache, serve, tmp_path):
    serve(cache.parent / "empty")
    with pytest.raises(InputError, match="HTTP 404"):
        datasets.load("omniglot")


def test_a_download_that_breaks_off_leaves_nothing(small_official, cache, serve):
    (small_official / "cut").touch()
    serve(small_official)
    with pytest.raises(InputError, match="expected a download, got none"):
        datasets.load("omniglot")
    assert files(cache) == []


def test_a_downloaded_page_is_kept_aside_and_named(small_official, cache, serve):
    good = (small_official / ZIPS[0]).read_bytes()
    (small_official / ZIPS[0]).write_bytes(b"\n<!DOCTYPE html><html>quota exceeded</html>")
    serve(small_official)
    with pytest.raises(InputError, match=r"HTML page.*images_background\.zip\.broken-1"):
        datasets.load("omniglot")
    assert files(cache) == [f"{ZIPS[0]}.broken-1"]
    (small_official / ZIPS[0]).write_bytes(good)
    assert len(datasets.load("omniglot").class_names) == 6  # the next try works


BREAKAGES = {
    "empty": (lambda data: b"", "an empty file"),
    "html": (lambda data: b"<html>sorry</html>", "an HTML page"),
    "truncated": (lambda data: data[: len(data) // 2], "a truncated file"),
    "flipped": (lambda data: data[:100] + bytes([data[100] ^ 255]) + data[101:], "another file"),
}


@pytest.mark.parametrize("how", BREAKAGES)
def test_a_broken_zip_in_the_cache_is_kept_aside(how, small_official, cache):
    damage, words = BREAKAGES[how]
    cache.mkdir()
    for name in ZIPS:
        (cache / name).write_bytes((small_official / name).read_bytes())
    broken = damage((cache / ZIPS[1]).read_bytes())
    (cache / ZIPS[1]).write_bytes(broken)
    (cache / f"{ZIPS[1]}.broken-1").write_text("an earlier one")
    with pytest.raises(InputError, match=rf"{words}.*images_evaluation\.zip\.broken-2"):
        datasets.load("omniglot", download=False)
    assert files(cache) == sorted([ZIPS[0], f"{ZIPS[1]}.broken-1", f"{ZIPS[1]}.broken-2"])
    assert (cache / f"{ZIPS[1]}.broken-2").read_bytes() == broken


@pytest.mark.parametrize("how", BREAKAGES)
def test_a_broken_zip_of_the_users_stays_where_it_is(how, small_official, cache, monkeypatch):
    damage, words = BREAKAGES[how]
    path = small_official / ZIPS[0]
    path.write_bytes(damage(path.read_bytes()))
    monkeypatch.setenv(folders.VARIABLE, str(small_official))
    before = files(small_official)
    with pytest.raises(InputError, match=rf"{path}.*{words}.*replace the file"):
        datasets.load("omniglot")
    assert files(small_official) == before
    assert not cache.exists()


@pytest.mark.parametrize("how", ["empty", "html", "truncated", "flipped"])
@pytest.mark.parametrize("mine", [True, False])
def test_a_broken_prepared_file(how, mine, small_official, cache, tmp_path, monkeypatch):
    damage, _ = BREAKAGES[how]
    path = make_prepared(tmp_path / "mine" if mine else cache, small_official)
    path.write_bytes(damage(path.read_bytes()))
    if mine:
        monkeypatch.setenv(folders.VARIABLE, str(path.parent))
    with pytest.raises(InputError, match=rf"{path}: expected Omniglot's prepared file with 6 characters"):
        datasets.load("omniglot", download=False)
    assert files(path.parent) == [omniglot.PREPARED if mine else f"{omniglot.PREPARED}.broken-1"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"images": None}, "without the array 'images'"),
        ({"images": np.zeros((18, 28, 28, 1))}, "images float64"),
        ({"images": np.zeros((17, 28, 28, 1), np.uint8)}, "17 images with labels"),
        ({"class_names": np.array(["a", "b"])}, "2 characters"),
        ({"labels": np.zeros(18, np.int16)}, "labels that are not 0 to 5"),
        ({"labels": np.arange(18) // 3 % 6 * (np.arange(18) > 0) + (np.arange(18) == 0) * 5}, "2 to 4 drawings"),
        ({"drawer": np.array([1, 2, 2] * 6, np.uint8)}, "two drawings of a character by one drawer"),
        ({"drawer": np.zeros(3, np.uint8)}, r"drawers \[3\] of 18 drawings"),
        ({"class_names": np.array(["a", "b", "c", "d", "e", "a"])}, "a character's name twice"),
        ({"class_split": np.zeros(5, np.uint8)}, "a class_split"),
        ({"vinyals_class_split": np.full(6, 3)}, "a vinyals_class_split"),
        ({"images": np.array([{}], dtype=object)}, "a damaged file"),
    ],
)
def test_a_prepared_file_with_other_contents(change, words, small_official, cache, tmp_path, monkeypatch):
    path = make_prepared(tmp_path / "mine", small_official)
    with np.load(path) as file:
        arrays = {**file, checked_arrays.SUM: None, **change}  # as earlier versions wrote it
    np.savez(path, **{key: array for key, array in arrays.items() if array is not None})
    monkeypatch.setenv(folders.VARIABLE, str(path.parent))
    with pytest.raises(InputError, match=words):
        datasets.load("omniglot")


def test_an_incomplete_release_is_refused(small_official, cache, monkeypatch):
    monkeypatch.setattr(omniglot, "OFFICIAL", replace(omniglot.OFFICIAL, characters=7))
    monkeypatch.setenv(folders.VARIABLE, str(small_official))
    with pytest.raises(InputError, match="expected 7 characters of 3 drawings, got 6 characters"):
        datasets.load("omniglot")
    assert not (cache / omniglot.PREPARED).exists()


def test_a_drawing_of_a_zip_that_comes_twice_is_refused(small_official, cache, monkeypatch):
    with zipfile.ZipFile(small_official / ZIPS[1]) as archive:
        drawings = {name: archive.read(name) for name in archive.namelist() if omniglot.MEMBER.fullmatch(name)}
    drawings["images_evaluation/Keble/character01/0481_03.png"] = drawings.pop(
        "images_evaluation/Keble/character01/0481_02.png"
    )
    drawings["images_evaluation/Keble/character01/0999_03.png"] = png(np.ones((105, 105), bool))
    write_zip(small_official / ZIPS[1], drawings)
    monkeypatch.setattr(omniglot, "OFFICIAL", replace(omniglot.OFFICIAL, sha256=dict.fromkeys(ZIPS)))
    monkeypatch.setenv(folders.VARIABLE, str(small_official))
    with pytest.raises(InputError, match="got two drawings of a character by one drawer"):
        datasets.load("omniglot")
    assert not (cache / omniglot.PREPARED).exists()


def test_images_of_another_size_are_refused(small_official, cache, monkeypatch):
    name = ZIPS[0]
    write_zip(small_official / name, {"images_background/Greek/character01/0001_01.png": png(np.ones((28, 28), bool))})
    monkeypatch.setattr(omniglot, "OFFICIAL", replace(omniglot.OFFICIAL, sha256=dict.fromkeys(ZIPS)))
    monkeypatch.setenv(folders.VARIABLE, str(small_official))
    with pytest.raises(InputError, match="28x28, not 105x105"):
        datasets.load("omniglot")


def test_rotations_are_new_classes(small_official, monkeypatch):
    monkeypatch.setenv(folders.VARIABLE, str(small_official))
    upright, data = (datasets.load("omniglot", rotations=turned) for turned in (False, True))
    assert len(data.class_names) == 24
    assert data.images.shape == (72, 28, 28, 1)
    assert data.images.dtype == np.uint8
    assert [len(ids) for ids in data.splits.values()] == [8, 8, 8]
    for class_id in (0, 5):
        for turn in range(4):
            expected = np.rot90(upright.images_of(class_id), turn, axes=(1, 2))
            assert np.array_equal(data.images_of(turn * 6 + class_id), expected)
    assert data.class_names[6:8] == ("Armenian/character01 turned 90", "Armenian/character02 turned 90")
    whole = np.asarray(data.images)
    assert np.array_equal(whole[30], data.images[30])
    assert np.array_equal(whole[::5], data.images[::5])
    assert data.mean == upright.mean
    np.testing.assert_allclose(whole[np.isin(data.labels, data.classes("train"))].mean() / 255, data.mean[0])


def test_unknown_splits_are_refused(cache):
    with pytest.raises(InputError, match="splits: expected vinyals or lake, got 'train'"):
        datasets.load("omniglot", splits="train")


@pytest.fixture
def packed(real_data):
    """The original 105x105 bitmaps, and the prepared file that was made of them."""
    path = real_data / "omniglot_105_packed.npz"
    if not path.exists():
        pytest.skip(f"no {path}")
    with np.load(path) as file, np.load(real_data / omniglot.PREPARED) as prepared:
        return dict(file), dict(prepared)


def test_conversion_reproduces_the_prepared_file(packed, tmp_path, monkeypatch):
    source, prepared = packed
    names = source["class_names"]
    wanted = np.flatnonzero(np.isin(names, ["Armenian/character07", "Tifinagh/character55", "Angelic/character01"]))
    wanted = np.union1d(wanted, np.flatnonzero(np.char.startswith(names, "Gurmukhi/character4")))
    rows = np.flatnonzero(np.isin(source["labels"], wanted))
    bits = np.unpackbits(source["packed"][rows], axis=1)[:, : 105 * 105].reshape(-1, 105, 105)
    drawings = {name: {} for name in ZIPS}
    for row, ink in zip(rows, bits, strict=True):
        label = source["labels"][row]
        part = "images_evaluation" if source["class_split"][label] else "images_background"
        name = f"{part}/{names[label]}/{source['char_id'][row]:04d}_{source['drawer'][row]:02d}.png"
        drawings[f"{part}.zip"][name] = png(ink == 1)
    for name in ZIPS:
        write_zip(tmp_path / name, drawings[name])
    official = replace(omniglot.OFFICIAL, sha256=dict.fromkeys(ZIPS), characters=len(wanted))
    monkeypatch.setattr(omniglot, "OFFICIAL", official)
    arrays = omniglot.convert([tmp_path / name for name in ZIPS])
    for key in ("images", "drawer", "char_id"):
        assert np.array_equal(arrays[key], prepared[key][rows])
    for key in ("class_names", "class_split", "vinyals_class_split"):
        assert np.array_equal(arrays[key], prepared[key][wanted])
    assert all(arrays[key].dtype.kind == prepared[key].dtype.kind for key in arrays)


def test_the_split_rule_gives_the_published_split(packed):
    _, prepared = packed
    ours = omniglot._vinyals(prepared["class_names"], prepared["class_split"])
    assert np.array_equal(ours, prepared["vinyals_class_split"])


@pytest.mark.parametrize(
    ("splits", "sizes"),
    [("vinyals", {"train": 1028, "val": 172, "test": 423}), ("lake", {"background": 964, "evaluation": 659})],
)
def test_real_splits(real_data, splits, sizes):
    data = datasets.load("omniglot", splits=splits)
    assert {name: len(data.classes(name)) for name in data.splits} == sizes
    assert len(np.unique(np.concatenate(list(data.splits.values())))) == 1623
    assert repr(data) == "Dataset(omniglot: 1623 classes, 32460 images 28x28x1)"
    train = data.images[np.isin(data.labels, next(iter(data.splits.values())))] / 255
    np.testing.assert_allclose([data.mean[0], data.std[0]], [train.mean(), train.std()])
    turned = datasets.load("omniglot", splits=splits, rotations=True)
    assert {name: len(turned.classes(name)) for name in turned.splits} == {name: 4 * n for name, n in sizes.items()}


@pytest.mark.parametrize(("shot", "published"), [(1, 0.422), (5, 0.689)])
def test_nearest_centroid_matches_the_known_accuracy(real_data, shot, published):
    data = datasets.load("omniglot", splits="lake")
    batch = tasks.episodes(data, "evaluation", 5, shot, 15, 600, jax.random.key(shot), one_hot="plain")
    accuracy = nearest_centroid(batch)
    interval = 1.96 * accuracy.std(ddof=1) / np.sqrt(len(accuracy))
    assert abs(accuracy.mean() - published) < 2 * interval  # the published one has its own interval
    assert interval < 0.01


def nearest_centroid(batch: tasks.TaskBatch) -> np.ndarray:
    """Accuracy of each episode, raw pixels, Euclidean distance."""
    support, query = (np.asarray(x).reshape(*x.shape[:2], -1) for x in (batch.support_x, batch.query_x))
    labels = np.asarray(batch.support_y)
    centroids = np.einsum("bmk,bmd->bkd", labels, support) / labels.sum(axis=1)[..., None]
    scores = np.einsum("bnd,bkd->bnk", query, centroids) - (centroids**2).sum(axis=-1)[:, None] / 2
    return (scores.argmax(axis=-1) == np.asarray(batch.query_y).argmax(axis=-1)).mean(axis=1)
