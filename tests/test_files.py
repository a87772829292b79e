"""Files and folders that are whole or as they were: full disks, missing rights, processes that were killed."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mlkernels.errors import InputError
from mlkernels.support import files, strays
from mlkernels.support.files import alone, check_place, set_aside, temporary_folder, write_atomically


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
from mlkernels.support.files import scratch_folder, write_atomically
def wait(left):
    print("there", flush=True)
    time.sleep(600)
target = Path(sys.argv[1])
if sys.argv[2] == "file":
    write_atomically(target, wait)
else:
    with scratch_folder(target) as temporary:
        (temporary / "half").write_text("x")
        wait(temporary)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on this system")
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_a_killed_process_left_is_removed_and_a_living_one_is_let_be(tmp_path, kind):
    target = tmp_path / "set [1]"  # no pattern
    command = [sys.executable, "-c", KILLED, target, kind]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "there\n"
            (left,) = tmp_path.iterdir()
            assert left.name.startswith(".set [1].")
            write_atomically(target, "whole")
            assert left.exists()
            assert strays.remove_strays(target) == [process.pid]
        finally:
            process.kill()
    assert left.exists()
    write_atomically(tmp_path / "set", "another's name begins as this one")
    assert left.exists()
    write_atomically(target, "whole again")
    assert names(tmp_path) == ["set", "set [1]"]


def test_another_process_that_got_the_number_of_a_dead_one_is_no_obstacle(tmp_path):
    target, parent = tmp_path / "set", os.getppid()
    alive, dead = (f".set.{strays._host()}-{parent}-{start}-0.part" for start in (strays._start_of(parent), 10**9))
    for name in (alive, dead):
        (tmp_path / name).mkdir()
    write_atomically(target, "x")
    assert names(tmp_path) == sorted([alive, "set"])


def test_a_process_of_somebody_else_is_alive_though_it_may_not_be_asked(tmp_path, monkeypatch):
    def refuse(number, signal):
        raise PermissionError

    left = strays.unfinished(tmp_path / "set")
    left.touch()
    monkeypatch.setattr(os, "kill", refuse)
    assert strays.remove_strays(tmp_path / "set") == [os.getpid()]
    assert left.exists()


def test_two_writers_of_one_file_in_one_process_do_not_meet(tmp_path):
    def content(temporary):
        write_atomically(tmp_path / "file", "inner")
        assert temporary.exists()
        temporary.write_text("outer")

    write_atomically(tmp_path / "file", content)
    assert (tmp_path / "file").read_text() == "outer"
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("name", [".set.elsewhere-1-2-3.part", ".set.elsewhere-1.part", ".set.x7_4kdz1.part"])
def test_what_another_machine_or_version_left_goes_once_a_week_has_passed(tmp_path, name):
    left = tmp_path / name
    left.mkdir()
    (left / "inside").touch()
    week = time.time() - 8 * 24 * 3600
    os.utime(left, (week, week))
    with temporary_folder(tmp_path / "set"):
        assert left.exists()  # it is being written to
    os.utime(left / "inside", (week, week))
    with temporary_folder(tmp_path / "set"):
        assert not left.exists()


def test_a_file_is_on_the_disk_before_it_has_its_name_and_its_folder_after(tmp_path, monkeypatch):
    done, sync, replace = [], os.fsync, os.replace

    def synced(handle):
        about = os.fstat(handle)
        done.append("folder" if stat.S_ISDIR(about.st_mode) else f"{about.st_size} bytes")
        sync(handle)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", lambda *given: (done.append("name"), replace(*given)))
    write_atomically(tmp_path / "file", lambda temporary: temporary.write_text("content"))
    assert done == ["7 bytes", "name", "folder"]


def test_folders_that_were_made_in_vain_go_again(tmp_path):
    def fail(temporary):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(InputError, match="make room"):
        write_atomically(tmp_path / "a" / "b" / "file", fail)
    with alone(tmp_path / "a" / "b"):
        pass
    assert names(tmp_path) == []


def test_a_lock_that_cannot_say_whose_it_is_leaves_nothing(tmp_path, monkeypatch):
    def full(*given):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(InputError, match="No space left on device; make room"), alone(tmp_path / "new"):
            pass
    assert names(tmp_path) == []


def test_a_place_without_room_is_refused_before_the_work(tmp_path):
    check_place(tmp_path / "file", room=1)
    with pytest.raises(InputError, match=r"expected 8388608.0 GiB of room for it, got .* there; make room"):
        check_place(tmp_path / "file", room=2**53)
    assert names(tmp_path) == []


def test_what_a_copy_of_many_files_says_is_one_reason():
    error = shutil.Error([("from", "to", "[Errno 28] No space left on device: 'from' -> 'to'")] * 90)
    said = str(files.not_written(Path("mathjax"), error))
    assert said == "mathjax: expected to write it, got No space left on device; " + said.partition("device; ")[2]
    assert "make room;" in said
    assert "[Errno" not in str(files.not_written(Path("mathjax"), error))
    assert "odd" in str(files.not_written(Path("mathjax"), shutil.Error("odd")))


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
