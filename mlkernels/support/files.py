"""Files and folders that are there whole or as they were before, and damaged ones that are kept out of the way."""

from __future__ import annotations

import errno
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mlkernels.errors import InputError, bad_input
from mlkernels.support.provenance import command

_ROOM = {errno.ENOSPC, errno.EDQUOT} if hasattr(errno, "EDQUOT") else {errno.ENOSPC}
_LEAVE = {errno.EACCES, errno.EPERM, errno.EROFS}
_PLACE = _ROOM | _LEAVE | {errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY, errno.ENAMETOOLONG, errno.ELOOP}
_NO_LOCKS = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK}


def not_written(path: Path, error: OSError) -> InputError:
    """The error for a file or folder that could not be written: a full disk has its own words."""
    do = "make room" if error.errno in _ROOM else "make the folder writable, or choose another"
    if error.errno not in _ROOM | _LEAVE:
        do = "make room or make the folder writable"
    return bad_input(str(path), "to write it", error.strerror or error, f"{do}; what was there before is unchanged")


def is_of_a_place(error: OSError) -> bool:
    """Whether an error comes from the place that is written to, and not from the program."""
    return error.errno in _PLACE


def check_no_folder(path: Path, do: str = "name a file") -> None:
    """Refuse a file's place where a folder is."""
    if path.is_dir():
        raise bad_input(str(path), "a file", "a folder", do)


def check_place(path: Path, do: str = "name a file") -> None:
    """Refuse a file's place that cannot be written to before there is anything to write; leaves nothing behind."""
    try:
        folder = next(each for each in path.absolute().parents if each.exists() or each.is_symlink())
        check_no_folder(path, do)
        if not folder.is_dir():
            raise bad_input(str(folder), "a folder", "a file", "name another place")
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise not_written(path, error) from error


def write_atomically(path: Path, content: str | bytes | Callable[[Path], object]) -> None:
    """Fill a temporary file beside `path`, then rename it: `path` is whole, or as it was before.

    The content is a text (UTF-8), bytes, or a function that writes to the temporary path; a missing folder is made.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        if callable(content):
            content(temporary)
        else:
            temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        temporary.chmod(0o644)  # mkstemp's files are private; data may be shared
        os.replace(temporary, path)
    except OSError as error:
        raise not_written(path, error) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


@contextmanager
def alone(folder: Path, name: str = "") -> Iterator[None]:
    """Work in a folder, or on a file of it (which need not exist), where no other process works meanwhile.

    The lock belongs to the process: it is gone when that ends, however it ends. Its file says who is at work, and so
    does the error.
    """
    try:
        import fcntl
    except ModuleNotFoundError:  # Windows: nothing is kept apart there
        yield
        return
    place, lock = folder / name, folder / f".{name}{'.' if name else ''}lock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        while True:
            stream = open(lock, "a+", encoding="utf-8", errors="backslashreplace")  # noqa: SIM115
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                stream.seek(0)
                who = stream.read().strip() or "another one"
                stream.close()
                do = "wait until it is done, or choose another place"
                raise bad_input(str(place), "one process at a time", f"{who} at work there", do) from None
            except OSError as error:
                if error.errno not in _NO_LOCKS:  # some network file systems have none
                    stream.close()
                    raise
            if lock.exists() and os.path.samestat(os.fstat(stream.fileno()), lock.stat()):
                break
            stream.close()  # who had it has just removed it
        stream.truncate(0)
        stream.write(f"process {os.getpid()} ({command()})")
        stream.flush()
    except OSError as error:
        raise not_written(place, error) from error
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
        stream.close()


def set_aside(path: Path) -> Path:
    """Rename a damaged file or folder to `NAME.broken-N`, so that it is kept and no longer in the way; the new path."""
    number = 1
    while (aside := path.with_name(f"{path.name}.broken-{number}")).exists():
        number += 1
    os.replace(path, aside)
    return aside


@contextmanager
def scratch_folder(target: Path, shared: bool = False) -> Iterator[Path]:
    """A folder beside `target` that is removed when the block ends.

    What a process that was killed left behind is removed by the next call for the same target. If `shared`, other
    processes may work for the same target, each in a folder of its own; else that is refused.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        for left in target.parent.glob(f".{target.name}.*.part"):
            if (number := _owner(left, target.name)) and not shared:
                do = "wait until it is done"
                raise bad_input(str(target), "one process at a time", f"process {number} at work on it", do)
        temporary = target.with_name(f".{target.name}.{_host()}-{os.getpid()}.part")
        temporary.mkdir()
    except OSError as error:
        raise not_written(target, error) from error
    try:
        yield temporary
    except OSError as error:
        raise not_written(target, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def temporary_folder(target: Path) -> Iterator[Path]:
    """A `scratch_folder` that gets its target's name once the block has ended well.

    What lies at `target` then is kept as `NAME.broken-N`.
    """
    with scratch_folder(target) as temporary:
        yield temporary
        if target.exists():
            set_aside(target)
        os.replace(temporary, target)


def _host() -> str:
    return re.sub(r"[^A-Za-z0-9]+", "_", platform.node()) or "here"


def _owner(left: Path, name: str) -> int | None:
    """The living process that a temporary folder belongs to; a dead one's is removed, another machine's is let be."""
    import psutil

    match = re.fullmatch(rf"\.{re.escape(name)}\.{re.escape(_host())}-(\d+)\.part", left.name)
    if match is None:
        return None
    number = int(match[1])
    try:  # a process younger than the folder only has the number of the one that made it
        if number != os.getpid() and psutil.Process(number).create_time() <= left.stat().st_ctime + 1:
            return number
    except (psutil.Error, OSError):
        pass
    shutil.rmtree(left, ignore_errors=True)
    return None
