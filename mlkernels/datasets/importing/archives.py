"""Archives, unpacked so that nothing lands outside of the folder that is meant, and nothing but files."""

from __future__ import annotations

import os
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from mlkernels.errors import InputError, bad_input
from mlkernels.support.file_faults import one_error


def is_archive(path: Path) -> bool:
    """Whether a file is a zip or a tar, compressed or not."""
    return path.is_file() and (zipfile.is_zipfile(path) or tarfile.is_tarfile(path))


def unpack(path: Path, folder: Path, wants: tuple[str, ...] = ("",)) -> int:
    """Unpack the files of a zip or tar whose names end as wanted, in small letters ("/" stands before each); how many.

    A damaged archive is refused, one with a link or a member outside of the folder (nothing of it is to be trusted), a
    member that comes twice, and more bytes than the disk has room for.
    """
    count = 0
    do = "nothing was imported; get the archive from its official place"
    try:
        with one_error():
            for name, size, opened in _members(path):
                inside = PurePosixPath(name.replace("\\", "/"))
                hidden = any(step.startswith("._") or step == "__MACOSX" for step in inside.parts)
                if hidden or not f"/{inside}".lower().endswith(wants):
                    continue
                if inside.is_absolute() or ".." in inside.parts or ":" in inside.parts[0] or opened is None:
                    what = f"{name[:100]!r}, which is a link" if opened is None else f"{name[:100]!r}"
                    raise bad_input(str(path), "an archive of files inside of its folder", what, do)
                if size > (free := shutil.disk_usage(folder).free):
                    got = f"{free / 1e9:.1f} GB free"
                    raise bad_input(str(folder.parent), f"room for {name} of {size / 1e9:.1f} GB", got, "make room")
                target = folder.joinpath(*inside.parts)
                target.parent.mkdir(parents=True, exist_ok=True)
                with opened() as source, open(target, "xb") as file:
                    shutil.copyfileobj(source, file, 1 << 20)
                if target.stat().st_size != size:
                    raise EOFError(f"{name} is cut short")
                count += 1
    except FileExistsError:
        raise bad_input(str(path), "an archive that has each file once", f"{name[:100]!r} twice", do) from None
    except InputError:
        raise
    except ValueError as error:
        raise bad_input(str(path), "a whole archive", f"a damaged or truncated one ({error})", do) from None
    return count


def _members(path: Path) -> Iterator[tuple[str, int, Callable[[], IO[bytes]] | None]]:
    """Name, size and a way to open each file; None in its place for what is neither a file nor a folder."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            archive.fp.seek(-22 - len(archive.comment), os.SEEK_END)  # its last record, whose counts zipfile lets be
            said = int.from_bytes(archive.fp.read(12)[10:], "little")
            if said not in (len(archive.infolist()), 0xFFFF):  # the latter where they are too many for two bytes
                raise zipfile.BadZipFile(f"{len(archive.infolist())} of {said} files are listed")
            for member in archive.infolist():
                if not member.is_dir():
                    is_link = (member.external_attr >> 16) & 0o170000 == 0o120000
                    yield member.filename, member.file_size, None if is_link else (lambda m=member: archive.open(m))
        return
    with tarfile.open(path) as archive:
        for member in archive:
            if not member.isdir():
                opened = (lambda m=member: archive.extractfile(m)) if member.isreg() else None
                yield member.name, member.size, opened
        while archive.fileobj.read(1 << 20):  # what packs a tar has its checksums behind the tar's own end
            pass
