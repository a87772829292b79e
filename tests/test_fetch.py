"""Downloads from a server on this machine: whole, cut off and resumed, changed in between, broken."""

from __future__ import annotations

import errno
import hashlib
import http.server
import os
import re
import threading
from pathlib import Path

import numpy as np
import pytest

from mlkernels.datasets import folders
from mlkernels.datasets.fetch import fetch
from mlkernels.errors import InputError
from mlkernels.support.files import alone

DATA = np.random.default_rng(0).bytes(400_000)
SHA256 = hashlib.sha256(DATA).hexdigest()


class Server(http.server.BaseHTTPRequestHandler):
    """Sends `data`; breaks off after `cut` bytes; knows ranges if `ranges`."""

    data, cut, ranges, status, asked = DATA, None, True, 200, ()

    def do_GET(self):
        own = type(self)
        wanted = self.headers.get("Range")
        own.asked = (*own.asked, wanted)
        start = 0
        if wanted and own.ranges:
            start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1])
        if own.status != 200 or (start > 0 and start >= len(own.data)):
            self.send_error(416 if own.status == 200 else own.status)
            return
        body = own.data[start:]
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(own.data) - 1}/{len(own.data)}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body if own.cut is None else body[: own.cut])

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    """The class of a running server, and its address."""
    handler = type("Own", (Server,), {})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield handler, f"http://127.0.0.1:{running.server_port}/data.bin"
        running.shutdown()


@pytest.fixture
def path(tmp_path, monkeypatch):
    """Where the file goes, in a folder that is ours."""
    monkeypatch.delenv(folders.VARIABLE, raising=False)
    monkeypatch.setattr(folders, "cache", lambda: tmp_path / "cache")
    return tmp_path / "cache" / "data.bin"


def names(path: Path) -> list[str]:
    return sorted(file.name for file in path.parent.glob("*"))


def test_a_download_is_checked_and_shows_its_progress(server, path, capsys):
    fetch(server[1], path, SHA256)
    assert path.read_bytes() == DATA
    assert names(path) == ["data.bin"]
    assert "100%" in capsys.readouterr().err


@pytest.mark.parametrize("ranges", [True, False])
def test_a_download_that_was_cut_off_goes_on(server, path, ranges):
    handler, url = server
    handler.cut = 250_000
    with pytest.raises(InputError, match=r"expected a download, got none \(.*\); call again, and the download goes on"):
        fetch(url, path, SHA256)
    assert names(path) == ["data.bin.part"]
    have = (path.parent / "data.bin.part").read_bytes()
    assert 0 < len(have) <= 250_000
    assert DATA.startswith(have)
    handler.cut, handler.ranges = None, ranges
    fetch(url, path, SHA256)
    assert path.read_bytes() == DATA
    assert names(path) == ["data.bin"]
    assert handler.asked == (None, f"bytes={len(have)}-")


def test_a_file_that_changed_between_the_halves_is_fetched_anew(server, path):
    handler, url = server
    path.parent.mkdir()
    path.with_name("data.bin.part").write_bytes(b"another file" * 1000)
    fetch(url, path, SHA256)
    assert path.read_bytes() == DATA
    assert handler.asked == ("bytes=12000-", None)


def test_a_part_that_is_all_of_it_is_taken(server, path):
    path.parent.mkdir()
    path.with_name("data.bin.part").write_bytes(DATA)
    fetch(server[1], path, SHA256)
    assert path.read_bytes() == DATA
    assert names(path) == ["data.bin"]


def test_a_part_that_is_longer_than_the_file_is_fetched_anew(server, path):
    path.parent.mkdir()
    path.with_name("data.bin.part").write_bytes(DATA + b"more")
    fetch(server[1], path, SHA256)
    assert path.read_bytes() == DATA


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("a.pkl", b"\n<html>quota exceeded</html>", "an HTML page"),
        ("a.pkl", b"\x80\x02K", "a truncated file"),
        ("a.zip", b"PK\x03\x04 and no more", "a truncated file"),
        ("a.tar.gz", b"\x1f\x8b and no more", "a truncated file"),
        ("a.bin", b"", "an empty file"),
    ],
    ids=["html", "pickle", "zip", "tar", "empty"],
)
def test_what_is_no_such_file_is_kept_aside(server, path, name, data, words):
    handler, url = server
    handler.data = data
    path = path.with_name(name)
    with pytest.raises(InputError, match=rf"{words}.*{name}\.broken-1"):
        fetch(url, path, None)
    assert names(path) == [f"{name}.broken-1"]


def test_a_wrong_checksum_is_named_and_what_was_there_stays(server, path):
    path.parent.mkdir()
    (path.parent / "other").touch()
    with pytest.raises(InputError, match=r"another file \(SHA-256 .*, not 00.*data\.bin\.broken-1"):
        fetch(server[1], path, "00")
    assert names(path) == ["data.bin.broken-1", "other"]


@pytest.mark.parametrize("status", [404, 500])
def test_an_answer_that_is_no_file_is_named(server, path, status):
    server[0].status = status
    with pytest.raises(InputError, match=rf"expected a download, got none \(HTTP {status}\); without a network, put"):
        fetch(server[1], path, SHA256)
    assert names(path) == []


def test_without_a_network_the_part_stays(path):
    path.parent.mkdir()
    path.with_name("data.bin.part").write_bytes(b"abc")
    with pytest.raises(InputError, match=r"ConnectionError.*goes on after the 3 bytes that are here"):
        fetch("http://127.0.0.1:9/data.bin", path, SHA256)
    assert path.with_name("data.bin.part").read_bytes() == b"abc"


def test_a_full_disk_leaves_nothing(server, path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(InputError, match="No space left on device; make room"):
        fetch(server[1], path, SHA256)
    assert names(path) == []


def test_two_processes_do_not_write_one_file(server, path):
    pytest.importorskip("fcntl")
    with (
        alone(path.parent, "data.bin.part"),
        pytest.raises(InputError, match=r"one process at a time, got process \d+"),
    ):
        fetch(server[1], path, SHA256)
    assert names(path) == []
    fetch(server[1], path, SHA256)
    assert path.read_bytes() == DATA
