"""mlkernels data list | get | verify | path, as a user calls them."""

from __future__ import annotations

import functools
import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from _cli import status_of
from _pictures import picture
from _python2 import write_pickle

from mlkernels import datasets
from mlkernels.course import installation
from mlkernels.datasets import folders, omniglot
from mlkernels.datasets.importing import get
from mlkernels.datasets.importing.recipe import SPLITS, Download
from mlkernels.datasets.miniimagenet import recipe
from mlkernels.datasets.miniimagenet.classes import classes

WNIDS = list(classes())


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """An empty cache, no MLKERNELS_DATA, and no address that answers."""
    folder = tmp_path / "cache"
    folder.mkdir()
    monkeypatch.delenv(folders.VARIABLE, raising=False)
    monkeypatch.setattr(folders, "cache", lambda: folder)
    monkeypatch.setattr(omniglot, "OFFICIAL", replace(omniglot.OFFICIAL, url="http://127.0.0.1:9/"))
    for name in ("miniimagenet", "cifar_fs", "fc100"):
        point(monkeypatch, name, "http://127.0.0.1:9/")
    return folder


def point(monkeypatch, name: str, url: str) -> None:
    """Let a dataset's downloads come from another address."""
    module = get.import_module(f"mlkernels.datasets.{datasets.RECIPE_MODULES[name]}")
    recipe = module.RECIPES[name]
    downloads = tuple(replace(download, url=url + download.name) for download in recipe.downloads)
    monkeypatch.setitem(module.RECIPES, name, replace(recipe, downloads=downloads))


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    """miniImageNet in form A with one image a class."""
    folder = tmp_path_factory.mktemp("copy")
    for split in SPLITS:
        numbers = [number for number, wnid in enumerate(WNIDS) if classes()[wnid][0] == split]
        images = np.stack([picture(number, 0) for number in numbers])
        rows = {WNIDS[number]: [row] for row, number in enumerate(numbers)}
        name = {"val": "validation"}.get(split, split)
        write_pickle(folder / f"mini-imagenet-cache-{name}.pkl", {"image_data": images, "class_dict": rows}, python=2)
    return folder


def run(capsys, *arguments) -> tuple[int, str, str]:
    """Status, what was printed, and what was said on the error channel."""
    status, shown = status_of("data", *arguments), capsys.readouterr()
    return status, shown.out, shown.err


def tree(folder: Path) -> dict[str, tuple]:
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in sorted([folder, *folder.rglob("*")])}


def test_list_is_a_table_with_sizes_licences_and_states(home, capsys):
    status, out, _ = run(capsys, "list")
    assert status == 0
    lines = out.splitlines()
    assert lines[0].split() == ["name", "size", "on", "disk", "licence", "state"]
    rows = {line.split()[0]: line for line in lines[1:-1]}
    assert tuple(rows) == datasets.names()
    assert "made here" in rows["glyphs"]
    assert "to download: mlkernels data get omniglot" in rows["omniglot"]
    assert "ImageNet's terms, to be accepted" in rows["miniimagenet"]
    assert "1.3 GB" in rows["miniimagenet"]
    assert "to download: mlkernels data get miniimagenet" in rows["miniimagenet"]
    assert "give a local copy: mlkernels data get tieredimagenet --from PATH" in rows["tieredimagenet"]
    assert lines[-1] == f"read: {home}; written: {home}"


def test_get_imports_a_copy_and_says_what_it_found(home, copy, capsys):
    before = tree(copy)
    status, out, err = run(capsys, "get", "miniimagenet", "--from", copy, "--accept-licence")
    assert status == 0
    assert out.splitlines()[0] == f"miniimagenet: {home / 'miniimagenet'}"
    assert out.splitlines()[1].startswith("train 64 classes, 64 images (1 a class), channel means 0.4")
    assert "note: test: 20 of 20 classes have fewer than 600 images (1)" in out
    assert "equal pixels under two names: none" in out.splitlines()
    assert "the cache pickles" in err
    assert tree(copy) == before
    status, out, err = run(capsys, "get", "miniimagenet", "--from", copy)  # the same again, without a question
    assert status == 0
    assert "is there already" in err
    assert "ready" in next(line for line in run(capsys, "list")[1].splitlines() if line.startswith("mini"))
    assert datasets.load("miniimagenet", "test").images.shape == (20, 84, 84, 3)


def test_equal_pixels_under_two_names_are_said_on_getting_and_verifying(home, copy, tmp_path, capsys):
    folder = shutil.copytree(copy, tmp_path / "copy")
    numbers = [number for number, wnid in enumerate(WNIDS) if classes()[wnid][0] == "test"]
    images = np.stack([picture(number, index % 2) for number in numbers for index in range(4)])
    rows = {WNIDS[number]: list(range(4 * place, 4 * place + 4)) for place, number in enumerate(numbers)}
    write_pickle(folder / "mini-imagenet-cache-test.pkl", {"image_data": images, "class_dict": rows})
    _, out, _ = run(capsys, "get", "miniimagenet", "--from", folder, "--accept-licence")
    assert "equal pixels under two names: 80 images in 40 sets (40 in test)" in out.splitlines()
    status, out, _ = run(capsys, "verify", "miniimagenet")
    assert status == 0
    assert out.splitlines()[1:] == ["      equal pixels under two names: 80 images in 40 sets (40 in test)"]


def test_a_second_copy_does_not_replace_the_first(home, copy, tmp_path, capsys):
    run(capsys, "get", "miniimagenet", "--from", copy, "--accept-licence")
    before = tree(home)
    other = shutil.copytree(copy, tmp_path / "other")
    status, _, err = run(capsys, "get", "miniimagenet", "--from", other, "--accept-licence")
    assert status == 2
    assert f"got one that was made from {copy}; to import this one instead, first rename or remove that folder" in err
    assert tree(home) == before


def test_a_damaged_copy_is_kept_aside_and_made_anew(home, copy, capsys):
    run(capsys, "get", "miniimagenet", "--from", copy, "--accept-licence")
    os.truncate(home / "miniimagenet" / "val_images.npy", 1000)
    status, out, err = run(capsys, "verify")
    assert status == 1
    assert out.splitlines() == ["ok    glyphs: drawn by mlkernels, seed 0"]
    assert "WRONG miniimagenet: " in err
    assert "`mlkernels data get miniimagenet`" in err
    assert "damaged" in next(line for line in run(capsys, "list")[1].splitlines() if line.startswith("mini"))
    status, _, err = run(capsys, "get", "miniimagenet", "--from", copy, "--accept-licence")
    assert status == 0
    assert "is damaged; it will be kept beside the new one" in err
    assert sorted(path.name for path in home.iterdir()) == ["miniimagenet", "miniimagenet.broken-1"]
    assert run(capsys, "verify", "miniimagenet")[:2] == (0, f"ok    miniimagenet: {home / 'miniimagenet'}\n")


def test_the_licence_is_asked_for_before_anything_is_written(home, copy, capsys, monkeypatch):
    arguments = ("get", "miniimagenet", "--from", copy)
    status, _, err = run(capsys, *arguments)  # nobody to ask
    assert status == 2
    assert "licence of miniimagenet: expected your consent to ImageNet's terms" in err
    assert "--accept-licence" in err
    for answer, expected in (("n\n", 2), ("", 130), ("y\n", 0)):
        assert list(home.iterdir()) == []
        with monkeypatch.context() as patch:
            terminal = Terminal(answer)
            patch.setattr("sys.stdin", terminal)
            patch.setattr("click.termui.visible_prompt_func", lambda text, terminal=terminal: terminal.answer())
            status, _, err = run(capsys, *arguments)
        assert status == expected
        assert "non-commercial research" in err
    assert (home / "miniimagenet").is_dir()


class Terminal:
    def __init__(self, answer: str):
        self._answer = answer

    def isatty(self) -> bool:
        return True

    def answer(self) -> str:
        if not self._answer:
            raise EOFError
        return self._answer.strip()


def test_a_copy_in_a_named_folder_is_found_and_that_folder_is_not_written_to(home, copy, capsys, monkeypatch):
    monkeypatch.setenv(folders.VARIABLE, str(copy))
    before = tree(copy)
    status, out, err = run(capsys, "get", "miniimagenet", "--accept-licence")
    assert status == 0
    assert f"{copy} is only read: it came with files in it; what is new goes to {home}" in err
    assert f"found {NAMES[0]} in {copy}" in err
    assert out.startswith(f"miniimagenet: {home / 'miniimagenet'}\n")
    assert tree(copy) == before


def test_get_writes_to_the_first_folder_that_is_ours(home, copy, tmp_path, capsys, monkeypatch):
    (tmp_path / "mine").mkdir()
    monkeypatch.setenv(folders.VARIABLE, os.pathsep.join([str(copy), str(tmp_path / "mine")]))
    assert run(capsys, "path")[:2] == (0, f"{tmp_path / 'mine'}\n")
    assert list((tmp_path / "mine").iterdir()) == []
    assert run(capsys, "get", "miniimagenet", "--accept-licence")[0] == 0
    assert sorted(path.name for path in (tmp_path / "mine").iterdir()) == ["miniimagenet", "mlkernels-data.json"]
    assert run(capsys, "path")[1] == f"{tmp_path / 'mine'}\n"
    assert list(home.iterdir()) == []


def test_nothing_is_written_into_prepared_data(home, copy, tmp_path, capsys, monkeypatch):
    run(capsys, "get", "miniimagenet", "--from", copy, "--accept-licence")
    given = tmp_path / "given"
    home.rename(given)
    home.mkdir()
    np.savez(given / "omniglot_28.npz", images=np.zeros(3))  # and a damaged file
    monkeypatch.setenv(folders.VARIABLE, str(given))
    before = tree(given)
    for arguments in (
        ["get", "miniimagenet"],
        ["verify"],
        ["get", "omniglot"],
        ["get", "cifar_fs"],
        ["list"],
        ["path"],
    ):
        run(capsys, *arguments, *(["--accept-licence"] if arguments[0] == "get" else []))
    assert tree(given) == before
    os.truncate(given / "miniimagenet" / "val_images.npy", 1000)
    before = tree(given)
    status, _, err = run(capsys, "get", "miniimagenet", "--from", copy, "--accept-licence")
    assert status == 2
    assert (
        "expected a whole prepared copy, got a damaged one; replace it, or take its folder out of MLKERNELS_DATA" in err
    )
    assert tree(given) == before


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def served(copy, monkeypatch, tmp_path):
    """A folder of the files that miniImageNet's downloads are, on a server of this machine."""
    folder = shutil.copytree(copy, tmp_path / "served")
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        point(monkeypatch, "miniimagenet", f"http://127.0.0.1:{server.server_port}/")
        yield folder
        server.shutdown()


NAMES = [download.name for download in recipe.RECIPES["miniimagenet"].downloads]


def test_get_downloads_and_imports(home, served, capsys):
    status, out, err = run(capsys, "get", "miniimagenet", "--accept-licence")
    assert status == 0
    assert "no checksum of it is known; its contents are checked after the download" in err
    assert out.startswith(f"miniimagenet: {home / 'miniimagenet'}\n")
    assert sorted(path.name for path in home.iterdir()) == sorted(["miniimagenet", *NAMES])
    shutil.rmtree(home / "miniimagenet")
    shutil.rmtree(served)
    assert run(capsys, "get", "miniimagenet", "--accept-licence")[0] == 0  # what is there is not fetched again


def test_a_download_that_is_no_such_file_leaves_nothing_that_is_taken_for_data(home, copy, served, capsys):
    (served / NAMES[1]).write_text("<html>quota exceeded</html>")
    status, _, err = run(capsys, "get", "miniimagenet", "--accept-licence")
    assert status == 2
    assert "an HTML page" in err
    assert sorted(path.name for path in home.iterdir()) == sorted([NAMES[0], f"{NAMES[1]}.broken-1"])
    assert datasets.available("miniimagenet") is None
    shutil.copy(copy / NAMES[1], served / NAMES[1])
    assert run(capsys, "get", "miniimagenet", "--accept-licence")[0] == 0  # the next try goes on with the second file
    assert (home / "miniimagenet").is_dir()


def test_a_download_that_is_damaged_afterwards_is_kept_aside(home, served, capsys):
    run(capsys, "get", "miniimagenet", "--accept-licence")
    shutil.rmtree(home / "miniimagenet")
    os.truncate(home / NAMES[2], 1000)
    (home / NAMES[1]).unlink()
    status, _, err = run(capsys, "get", "miniimagenet", "--accept-licence")
    assert status == 2
    assert (
        f"a truncated file or none of its kind (1000 bytes); nothing was loaded; it is kept as {NAMES[2]}.broken-1"
        in err
    )
    assert run(capsys, "get", "miniimagenet", "--accept-licence")[0] == 0


def test_without_a_network_it_says_what_to_do(home, capsys):
    status, _, err = run(capsys, "get", "miniimagenet", "--accept-licence")
    assert status == 2
    assert f"{NAMES[0]}: expected a download, got none (ConnectionError)" in err
    assert f"put that file into {home}" in err
    assert run(capsys, "get", "omniglot")[0] == 2
    assert list(home.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["get", "imagenet"],
            "dataset: expected omniglot or glyphs or miniimagenet or tieredimagenet or cifar_fs or fc100",
        ),
        (["verify", "imagenet"], "dataset: expected omniglot"),
        (["get", "miniimagenet", "--from", "nowhere"], "nowhere: expected a file or folder, got nothing of that name"),
        (["get", "tieredimagenet"], "tieredimagenet: expected a local copy, got none"),
        (["get", "glyphs", "--from", "."], "glyphs --from: expected a dataset that is imported"),
        (["verify", "fc100"], "fc100: expected a dataset that is here, got none in"),
        (["get"], "Missing argument 'NAME'"),
    ],
)
def test_what_is_refused_gets_one_line_and_status_2(home, tmp_path, capsys, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    status, out, err = run(capsys, *arguments)
    assert status == 2
    assert out == ""
    assert said in err
    assert err.count("\n") == 1
    assert list(home.iterdir()) == []


def test_get_of_what_is_made_or_there(home, capsys):
    status, out, _ = run(capsys, "get", "glyphs")
    assert status == 0
    assert out.startswith("glyphs: 4800 images 28x28x1 of 240 classes")
    assert out.splitlines()[-1] == "equal pixels under two names: none"


def test_get_omniglot_where_there_is_one(home, real_data, capsys, monkeypatch):
    monkeypatch.setenv(folders.VARIABLE, str(real_data))
    before = tree(real_data)
    status, out, _ = run(capsys, "get", "omniglot")
    assert status == 0
    assert f"source: {real_data / omniglot.PREPARED}" in out
    assert run(capsys, "verify", "omniglot")[:2] == (0, f"ok    omniglot: {real_data / omniglot.PREPARED}\n")
    assert tree(real_data) == before
    assert list(home.iterdir()) == []


def test_a_named_folder_that_is_not_there(home, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv(folders.VARIABLE, str(tmp_path / "nowhere"))
    for arguments in (["list"], ["path"], ["get", "glyphs"], ["verify"]):
        status, _, err = run(capsys, *arguments)
        assert status == 2
        assert f"MLKERNELS_DATA: expected folders that exist, got {tmp_path / 'nowhere'}; correct the path" in err
    finding = next(finding for finding in installation.check() if finding.name == "data")
    assert not finding.ok
    assert finding.remedy == "correct the path, make the folder, or unset the variable"


def test_the_command_line_imports_nothing_heavy():
    heavy = ["jax", "numpy", "pooch", "requests", "PIL", "pyarrow", "tqdm"]
    code = f"import sys, mlkernels.commands.main; print(set({heavy}) & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"


def test_the_manifest_notes_consent_and_version(home, copy, capsys):
    run(capsys, "get", "miniimagenet", "--from", copy, "--accept-licence")
    manifest = json.loads((home / "miniimagenet" / "manifest.json").read_text())
    assert manifest["licence_accepted"] is True
    assert manifest["made_by"].startswith("mlkernels ")
    assert set(manifest["source_sha256"]) == set(NAMES)
    assert isinstance(get.recipe_of("miniimagenet").downloads[0], Download)
