"""Archives, unpacked so that nothing lands outside of the folder that is meant, and nothing but files."""

from __future__ import annotations

import gzip
import lzma
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from mlkernels.errors import bad_input

_TAR = (tarfile.TarError, gzip.BadGzipFile, lzma.LZMAError, EOFError)
_DAMAGE = (*_TAR, zipfile.BadZipFile, zlib.error, RuntimeError)  # no ValueError, of which our own errors are


def is_archive(path: Path) -> bool:
    """Whether a file is a zip or a tar, compressed or not."""
    return path.is_file() and (zipfile.is_zipfile(path) or tarfile.is_tarfile(path))


def unpack(path: Path, folder: Path, wants: tuple[str, ...] = ("",)) -> int:
    """Unpack an archive's members whose names, with "/" before, end in `wants` (small letters); returns how many.

    Refuses links, members outside of the folder or there twice, damage, and more bytes than there is room for.
    """
    count = 0
    do = "nothing was imported; get the archive from its official place"
    try:
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
    except _DAMAGE as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise bad_input(str(path), "a whole archive", f"a damaged or truncated one ({reason})", do) from None
    return count


def _members(path: Path) -> Iterator[tuple[str, int, Callable[[], IO[bytes]] | None]]:
    """Name, size and a way to open each file; None in its place for what is neither a file nor a folder."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
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
