"""Commands on disks without room, and in places that cannot be written to: one line, and nothing stays."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest
from _kills import RESULTS, Commands, home_of, names, trained, unbroken

SIZE = 1 << 21  # bytes of the disk


@pytest.fixture(scope="module")
def commands(tmp_path_factory):
    with Commands(home_of(tmp_path_factory.mktemp("home"))) as commands:
        yield commands


@pytest.fixture
def disk(tmp_path):
    """A disk of 2 MB, or a skip that says why there is none."""
    place = tmp_path / "disk"
    place.mkdir()
    line = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(place)]
    if not hasattr(os, "geteuid") or os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("only root can mount a small disk; the limit on files stands in for it")
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no small disk can be mounted here: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def check(folder, ended, status=(1, 2), points=0):
    """One line of the command's own says what is wrong, and nothing stays that is not a result."""
    assert ended.status in status, ended.said
    assert "Traceback" not in ended.said, ended.said
    if ended.status:
        lines = ended.said.splitlines()
        said = [
            line for line in lines if line.startswith("mlkernels: ") or (points and ": expected to write it" in line)
        ]
        assert len(said) == (points or 1), ended.said
        assert "make room" in said[0] or "raise the limit" in said[0], ended.said
    left = names(folder) if folder.exists() else []
    hidden = {name for name in left if name.rpartition("/")[2].startswith(".")}
    assert hidden <= {"out/.mlkernels-export.json"}, left
    return left


# two are parts of commands, or of notebooks; one wants a trained network first: see the disks that fill up
COMMANDS = [work for work in RESULTS if work not in ("fit", "frames", "evaluate")]


@pytest.mark.parametrize("work", COMMANDS)
def test_where_nothing_can_be_written_no_command_begins(work, commands, tmp_path):
    """As on a full disk, for every user: no file may have a byte."""
    ended = commands.run(work, tmp_path / "out", limit=0)
    assert not check(tmp_path / "out", ended, status=(2,))


@pytest.mark.parametrize(
    ("work", "free"),
    [(work, free) for work in ("run", "sweep", "export", "get") for free in (0, 8192)]
    + [(work, 1200 * 1024) for work in ("run", "export", "get")],
)
def test_a_disk_without_room(work, free, commands, disk):
    (disk / "full").write_bytes(bytes(SIZE - free))
    ended = commands.run(work, disk / "out")
    left = check(disk / "out", ended, status=(0, 2))
    assert ended.status or (work, free) == ("export", 1200 * 1024)
    assert not (ended.status and left), left


def test_a_run_stops_where_there_is_no_room_for_the_first_page(commands, tmp_path):
    ended = commands.run("run", tmp_path / "out", limit=100_000)
    assert not check(tmp_path / "out", ended, status=(2,))  # a notebook without its page is none
    assert "00_a.ipynb: expected to write it, got File too large; raise the limit" in ended.said
    assert "01_b" not in ended.said


@pytest.mark.once
@pytest.mark.parametrize("work", RESULTS)
def test_a_disk_that_fills_up_in_the_middle(work, commands, tmp_path):
    """Once there is room again, the next run makes what it would have made."""
    if work == "evaluate":
        trained(commands)
    whole = unbroken(commands, work)
    for limit in (4096, 100_000):
        ended = commands.run(work, tmp_path / "out", limit=limit)
        points = 2 if work == "sweep" and ended.status == 1 else 0  # one that fails is named and stops no other
        assert set(check(tmp_path / "out", ended, status=(0, 1, 2), points=points)) <= set(names(whole))
    assert commands.run(work, tmp_path / "out").status == 0
    assert names(tmp_path / "out") == names(whole)
    assert RESULTS[work](tmp_path / "out") == RESULTS[work](whole)
