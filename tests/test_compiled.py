"""JAX's cache of compiled programs: what a full disk cut goes, once, and nothing else."""

from __future__ import annotations

import os
import zlib

import pytest

from mlkernels.course.installation import check_cache
from mlkernels.runner.worker import kernel_environment, tidy_cache
from mlkernels.support import compiled

WHOLE = zlib.compress(bytes(range(256)) * 8)


PACKED_BY = compiled.packed_by


@pytest.fixture(autouse=True)
def _by_zlib(monkeypatch):
    """Where Zstandard is installed, too."""
    monkeypatch.setattr(compiled, "packed_by", lambda: "zlib")


def packed_by_zstandard(content):
    return pytest.importorskip("zstandard").ZstdCompressor().compress(content)


@pytest.mark.parametrize("content", [b"a" * 10**5, bytes(range(256)) * 50], ids=["one letter", "all bytes"])
def test_an_entry_of_zstandard_is_whole_as_a_whole_alone(content):
    packed = packed_by_zstandard(content)
    assert compiled._whole(packed, "zstandard")
    assert not compiled._whole(packed, "zlib")
    for damaged in (b"", packed[:3], packed[: len(packed) // 2], packed[:-1], bytes(len(packed))):
        assert not compiled._whole(damaged, "zstandard")


def test_entries_that_are_packed_otherwise_than_jax_unpacks_are_removed(tmp_path, monkeypatch):
    """As where zstandard was installed or removed since: JAX would warn of each in every run."""
    magic = b"\x28\xb5\x2f\xfd"
    (tmp_path / "zlib-cache").write_bytes(WHOLE)
    (tmp_path / "zstandard-cache").write_bytes(magic + b"more")
    monkeypatch.setattr(compiled, "_whole", lambda content, kind: content.startswith(magic) == (kind == "zstandard"))
    assert [path.name for path in compiled.unreadable(tmp_path)] == ["zstandard-cache"]
    assert compiled.remove_unreadable(tmp_path) == 1
    monkeypatch.setattr(compiled, "packed_by", lambda: "zstandard")
    assert compiled.remove_unreadable(tmp_path) == 1, "a look by the one is none by the other"
    assert not list(tmp_path.glob("*-cache"))


def test_jax_warns_in_the_words_that_runs_do_not_show(tmp_path):
    """Where another process is just writing an entry; so the words are held against JAX's own."""
    import inspect

    from jax._src import compiler

    source = inspect.getsource(compiler)
    filters = kernel_environment(tmp_path)["PYTHONWARNINGS"].split(",")
    ours = [each.removeprefix("ignore:") for each in filters if "persistent compilation cache" in each]
    assert {words in source for words in ours} == {True}


def test_what_jax_packs_is_whole():
    from jax._src import compilation_cache

    packed = compilation_cache.compress_executable(b"program" * 100)
    assert compiled._whole(packed, PACKED_BY())
    assert not compiled._whole(packed[:-1], PACKED_BY())


def entries(folder):
    found = {"a": WHOLE, "cut": WHOLE[:-9], "empty": b"", "zeros": b"x" + bytes(20)}
    for name, content in found.items():
        (folder / f"{name}-cache").write_bytes(content)
    (folder / "notes").write_bytes(b"")


def test_entries_that_do_not_unpack_are_removed_once(tmp_path):
    entries(tmp_path)
    assert {path.name for path in compiled.unreadable(tmp_path)} == {"cut-cache", "empty-cache", "zeros-cache"}
    assert compiled.remove_unreadable(tmp_path) == 3
    assert {path.name for path in tmp_path.glob("[!.]*")} == {"a-cache", "notes"}
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
    assert (finding.ok, "4 programs in " in finding.value, "3 of them damaged" in finding.value) == (True, True, True)
    told = tidy_cache(tmp_path)
    assert told.startswith("removed 3 damaged entries of JAX's cache in ")
    assert "\n" not in told
    assert tidy_cache(tmp_path) is None
    assert "damaged" not in check_cache(tmp_path).value
