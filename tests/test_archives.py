"""Archives: unpacked whole, or refused; nothing lands outside of the folder."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from mlkernels.datasets.importing import archives
from mlkernels.datasets.importing.archives import is_archive, unpack
from mlkernels.errors import InputError

FILES = {"images/a.jpg": b"a" * 5000, "images/b.txt": b"b", "c/d/e.csv": b"c"}
KINDS = ["zip", "tar", "tar.gz", "tar.bz2", "tar.xz"]


def pack(path: Path, files: dict[str, bytes], link: str | None = None, kind: bytes = tarfile.SYMTYPE) -> Path:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.mkdir("images")
            for name, data in files.items():
                archive.writestr(name, data)
            if link:
                member = zipfile.ZipInfo(link)
                member.external_attr = 0o120777 << 16
                archive.writestr(member, "/etc/passwd")
        return path
    with tarfile.open(path, f"w:{path.suffix[1:] if path.suffix != '.tar' else ''}") as archive:
        folder = tarfile.TarInfo("images")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
        if link:
            member = tarfile.TarInfo(link)
            member.type, member.linkname = kind, "/etc/passwd"
            archive.addfile(member)
    return path


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "inner" / "out").mkdir(parents=True)
    return tmp_path / "inner" / "out"


@pytest.mark.parametrize("kind", KINDS)
def test_archives_are_unpacked(tmp_path, folder, kind):
    path = pack(tmp_path / f"a.{kind}", FILES | {"__MACOSX/images/._a.jpg": b"x", "images/._a.jpg": b"x"})
    assert is_archive(path)
    assert unpack(path, folder) == 3
    assert files_in(folder) == FILES


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_file_that_comes_twice_is_named(tmp_path, folder, kind):
    path = pack(tmp_path / f"a.{kind}", FILES)
    if kind == "zip":
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("images/a.jpg", b"other")
    else:
        with tarfile.open(path, "a") as archive:
            archive.addfile(tarfile.TarInfo("images/a.jpg"), io.BytesIO(b""))
    with pytest.raises(InputError, match=r"expected an archive that has each file once, got 'images/a\.jpg' twice"):
        unpack(path, folder)


def test_only_what_is_wanted_is_unpacked(tmp_path, folder):
    path = pack(tmp_path / "a.zip", FILES | {"../evil.txt": b"x"})
    assert unpack(path, folder, (".jpg",)) == 1
    assert list(files_in(folder)) == ["images/a.jpg"]


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize("name", ["../evil.txt", "images/../../evil.txt", "/evil.txt", "C:/evil.txt", "..\\evil.txt"])
def test_a_member_outside_of_the_folder_is_refused(tmp_path, folder, kind, name):
    path = pack(tmp_path / f"a.{kind}", {name: b"evil"})
    with pytest.raises(InputError, match=r"expected an archive of files inside of its folder, got .*evil\.txt"):
        unpack(path, folder)
    assert list(files_in(tmp_path)) == [path.name]


@pytest.mark.parametrize(
    ("kind", "link"), [("zip", None), ("tar", tarfile.SYMTYPE), ("tar", tarfile.LNKTYPE), ("tar", tarfile.CHRTYPE)]
)
def test_links_and_devices_are_refused(tmp_path, folder, kind, link):
    path = pack(tmp_path / f"a.{kind}", {}, link="images/link.jpg", **({"kind": link} if link else {}))
    with pytest.raises(InputError, match=r"'images/link\.jpg', which is a link"):
        unpack(path, folder)
    assert not any(folder.rglob("*.jpg"))


@pytest.mark.parametrize("kind", KINDS)
def test_a_truncated_archive_is_named(tmp_path, folder, kind):
    path = pack(tmp_path / f"a.{kind}", {f"{n}.bin": bytes(range(256)) * 200 for n in range(20)})
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    if not is_archive(path):
        return  # a zip's list of contents is at its end
    with pytest.raises(InputError, match=rf"{path}: expected a whole archive, got a damaged or truncated one"):
        unpack(path, folder)


def test_a_damaged_member_is_named(tmp_path, folder):
    path = pack(tmp_path / "a.zip", {"a.bin": bytes(range(256)) * 20})
    data = bytearray(path.read_bytes())
    place = data.index(b"a.bin") + 20
    data[place : place + 20] = bytes(20)
    path.write_bytes(data)
    with pytest.raises(InputError, match="a damaged or truncated one"):
        unpack(path, folder)


def test_more_than_the_disk_holds_is_refused_before_it_is_written(tmp_path, folder, monkeypatch):
    path = pack(tmp_path / "a.zip", FILES)
    usage = archives.shutil.disk_usage(folder)._replace(free=100)
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(InputError, match=r"room for images/a\.jpg .*; make room"):
        unpack(path, folder)
    assert files_in(folder) == {}
