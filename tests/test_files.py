"""Files and folders that are whole or as they were: full disks, missing rights, processes that were killed."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mlkernels.errors import InputError
from mlkernels.support import files
from mlkernels.support.files import alone, check_place, scratch_folder, set_aside, temporary_folder, write_atomically


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_an_atomic_write_that_fails_leaves_what_was_there(tmp_path):
    path = tmp_path / "file"
    path.write_text("before")

    def fail(temporary: Path) -> None:
        temporary.write_text("half")
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError):
        write_atomically(path, fail)
    assert path.read_text() == "before"
    write_atomically(path, lambda temporary: temporary.write_text("after") and None)
    assert path.read_text() == "after"
    assert names(tmp_path) == ["file"]


def test_a_place_that_cannot_be_written_to_is_named(tmp_path):
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "inside"
    with pytest.raises(InputError, match=f"{path}: expected to write it, got .*; make room or make the folder"):
        write_atomically(path, lambda temporary: None)
    with pytest.raises(InputError, match=f"{path}: expected to write it"), temporary_folder(path):
        pass


def test_a_place_is_looked_at_before_the_work(tmp_path):
    (tmp_path / "file").touch()
    check_place(tmp_path / "new" / "folders" / "result.json")
    check_place(tmp_path / "file")  # may be replaced
    assert names(tmp_path) == ["file"]
    with pytest.raises(InputError, match=f"{tmp_path / 'file'}: expected a folder, got a file; name another place"):
        check_place(tmp_path / "file" / "inside" / "result.json")
    with pytest.raises(InputError, match=f"{tmp_path}: expected a file, got a folder; name a file"):
        check_place(tmp_path)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "No space left on device; make room; what was there before is unchanged"),
        (errno.EROFS, "Read-only file system; make the folder writable, or choose another; what"),
        (errno.EACCES, "Permission denied; make the folder writable, or choose another; what"),
    ],
)
def test_a_full_disk_and_a_missing_right_are_named_and_leave_nothing(tmp_path, number, words):
    (tmp_path / "folder").mkdir()

    def fail(temporary: Path) -> None:
        temporary.write_text("half")
        raise OSError(number, os.strerror(number))

    with pytest.raises(InputError, match=words):
        write_atomically(tmp_path / "file", fail)
    with pytest.raises(InputError, match=words), temporary_folder(tmp_path / "folder") as temporary:
        fail(temporary / "inside")
    assert names(tmp_path) == ["folder"]
    assert names(tmp_path / "folder") == []


def test_what_is_set_aside_is_numbered(tmp_path):
    for number in (1, 2):
        (tmp_path / "a.npz").write_text(str(number))
        assert set_aside(tmp_path / "a.npz").name == f"a.npz.broken-{number}"
    assert names(tmp_path) == ["a.npz.broken-1", "a.npz.broken-2"]


def test_a_temporary_folder_gets_its_name_at_the_end_or_never(tmp_path):
    target = tmp_path / "new" / "set"
    with temporary_folder(target) as temporary:
        (temporary / "file").write_text("1")
        assert not target.exists()
    assert (target / "file").read_text() == "1"
    with pytest.raises(ZeroDivisionError), temporary_folder(target) as temporary:
        (temporary / "file").write_text(str(1 / 0))
    assert (target / "file").read_text() == "1"
    with temporary_folder(target) as temporary:
        (temporary / "file").write_text("3")
    assert names(tmp_path / "new") == ["set", "set.broken-1"]
    assert (target / "file").read_text() == "3"
    assert (tmp_path / "new" / "set.broken-1" / "file").read_text() == "1"


KILLED = """
import sys, time
from pathlib import Path
from mlkernels.support.files import temporary_folder
with temporary_folder(Path(sys.argv[1])) as temporary:
    (temporary / "half").write_text("x")
    print("there", flush=True)
    time.sleep(600)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on this system")
def test_what_a_killed_process_left_is_removed_and_a_living_one_is_let_be(tmp_path):
    target = tmp_path / "set"
    with subprocess.Popen([sys.executable, "-c", KILLED, target], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "there\n"
        (left,) = tmp_path.iterdir()
        assert left.name.startswith(".set.")
        with pytest.raises(InputError, match=f"process {process.pid} at work on it; wait"), temporary_folder(target):
            pass
        assert (left / "half").exists()
        process.kill()
    assert left.exists()
    with scratch_folder(target) as temporary:
        assert not left.exists()
        assert names(tmp_path) == [temporary.name]
    assert names(tmp_path) == []


def test_another_process_that_got_the_number_of_a_dead_one_is_no_obstacle(tmp_path):
    target = tmp_path / "set"
    left = tmp_path / f".set.{files._host()}-{os.getppid()}.part"
    left.mkdir()
    parent = os.getppid()

    class Later:
        def __init__(self, number):
            assert number == parent

        def create_time(self):
            return time.time() + 100

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("psutil.Process", Later)
        with temporary_folder(target):
            assert not left.exists()


def test_the_temporary_folder_of_another_machine_is_let_be(tmp_path):
    left = tmp_path / ".set.elsewhere-1.part"
    left.mkdir()
    with temporary_folder(tmp_path / "set"):
        assert left.exists()


HOLD = """import sys, time
from pathlib import Path
from mlkernels.support.files import alone
with alone(Path(sys.argv[1]), *sys.argv[2:]):
    print("at work", flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("name", ["", "result.json"])
def test_one_process_works_in_a_place_and_its_lock_goes_with_it_also_when_it_is_killed(tmp_path, name):
    place = tmp_path / "out"
    command = [sys.executable, "-c", HOLD, str(place), *filter(None, [name])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "at work\n"
            busy = f"one process at a time, got process {process.pid} .* at work there"
            with pytest.raises(InputError, match=busy), alone(place, name):
                pass
            with alone(place, "another.json"):
                pass
        finally:
            process.kill()
    with alone(place, name):
        assert len(names(place)) == 1
    assert names(place) == []


def test_a_lock_is_one_within_a_process_too_and_goes_with_an_error(tmp_path):
    with alone(tmp_path), pytest.raises(InputError, match=f"got process {os.getpid()} "), alone(tmp_path):
        pass
    with pytest.raises(RuntimeError), alone(tmp_path):
        raise RuntimeError
    with alone(tmp_path):
        pass
    assert names(tmp_path) == []


def test_a_place_without_locks_is_worked_in_all_the_same(tmp_path, monkeypatch):
    import fcntl

    def none(*given):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    with alone(tmp_path):
        pass
    assert names(tmp_path) == []


def test_a_system_that_knows_no_such_locks_works_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "fcntl", None)  # as on Windows
    with alone(tmp_path):
        pass
    assert names(tmp_path) == []


def test_each_process_has_its_own_folder_where_it_may_share_the_target(tmp_path):
    script = "import sys, time; from pathlib import Path; from mlkernels.support.files import scratch_folder\n"
    script += "with scratch_folder(Path(sys.argv[1]), shared=True): print('on', flush=True); time.sleep(600)"
    target = tmp_path / "target"
    command = [sys.executable, "-c", script, str(target)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "on\n"
            with scratch_folder(target, shared=True) as mine:
                assert len(names(tmp_path)) == 2
                assert mine.is_dir()
        finally:
            process.kill()
    with scratch_folder(target, shared=True):
        assert len(names(tmp_path)) == 1
    assert names(tmp_path) == []
