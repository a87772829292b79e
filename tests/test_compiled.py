"""JAX's cache of compiled programs: what a full disk cut goes, once, and nothing else."""

from __future__ import annotations

import os
import zlib

from mlkernels.course.installation import check_cache
from mlkernels.runner.worker import tidy_cache
from mlkernels.support import compiled

WHOLE = zlib.compress(bytes(range(256)) * 8)


def entries(folder):
    found = {"a": WHOLE, "cut": WHOLE[:-9], "empty": b"", "zeros": b"x" + bytes(20), "other": b"(\xb5/\xfd cut"}
    for name, content in found.items():
        (folder / f"{name}-cache").write_bytes(content)
    (folder / "notes").write_bytes(b"")


def test_entries_that_do_not_unpack_are_removed_once(tmp_path):
    entries(tmp_path)
    assert {path.name for path in compiled.unreadable(tmp_path)} == {"cut-cache", "empty-cache", "zeros-cache"}
    assert compiled.remove_unreadable(tmp_path) == 3
    assert {path.name for path in tmp_path.glob("[!.]*")} == {"a-cache", "other-cache", "notes"}
    assert compiled.remove_unreadable(tmp_path) == 0


def test_what_was_looked_at_is_not_read_again(tmp_path):
    """A cache may hold thousands of entries: each is read once, and after that only what is new."""
    entries(tmp_path)
    compiled.remove_unreadable(tmp_path)
    (tmp_path / "old-cache").write_bytes(b"")
    os.utime(tmp_path / "old-cache", (1.0, 1.0))
    assert compiled.unreadable(tmp_path) == []
    os.utime(tmp_path / "old-cache")
    assert [path.name for path in compiled.unreadable(tmp_path)] == ["old-cache"]


def test_a_cache_that_is_not_there_or_elsewhere_is_no_obstacle(tmp_path, monkeypatch):
    assert compiled.remove_unreadable(tmp_path / "none") == 0
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "gs://bucket/cache")
    assert tidy_cache(tmp_path) is None


def test_a_run_says_in_one_line_what_it_removed_and_check_looks(tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path))
    entries(tmp_path)
    finding = check_cache(tmp_path)
    assert (finding.ok, "5 programs in " in finding.value, "3 of them damaged" in finding.value) == (True, True, True)
    told = tidy_cache(tmp_path)
    assert told.startswith("removed 3 damaged entries of JAX's cache in ")
    assert "\n" not in told
    assert tidy_cache(tmp_path) is None
    assert "damaged" not in check_cache(tmp_path).value
