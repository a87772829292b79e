"""Files and folders that are there whole or as they were before, and damaged ones that are kept out of the way."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from mlkernels.errors import InputError, bad_input
from mlkernels.support.provenance import command
from mlkernels.support.strays import remove_strays, unfinished
from mlkernels.support.words import readable

_ROOM = {errno.ENOSPC, errno.EDQUOT} if hasattr(errno, "EDQUOT") else {errno.ENOSPC}
_LEAVE = {errno.EACCES, errno.EPERM, errno.EROFS}
_PLACE = _ROOM | _LEAVE | {errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY, errno.ENAMETOOLONG, errno.ELOOP}
_PLACE |= {errno.EFBIG}
_NO_LOCKS = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK}
_BLOCK = 4096  # bytes, the least that a disk gives


def not_written(path: Path, error: OSError) -> InputError:
    """The error for a file or folder that could not be written: a full disk has its own words."""
    number, said = error.errno, error.strerror or error
    if isinstance(error, shutil.Error):  # of many files that were copied, (from, to, what was wrong) each
        said = str(error.args[0][0][-1] if isinstance(error.args[0], list) else error)
        number = next((each for each in _PLACE if f"[Errno {each}]" in said), None)
        said = os.strerror(number) if number else said
    do = "make room" if number in _ROOM else "make the folder writable, or choose another"
    if number == errno.EFBIG:
        do = "raise the limit of a file's size (ulimit -f)"
    elif number not in _ROOM | _LEAVE:
        do = "make room or make the folder writable"
    return bad_input(str(path), "to write it", said, f"{do}; what was there before is unchanged")


def is_of_a_place(error: OSError) -> bool:
    """Whether an error comes from the place that is written to, and not from the program."""
    return error.errno in _PLACE


def check_no_folder(path: Path, do: str = "name a file") -> None:
    """Refuse a file's place where a folder is."""
    if path.is_dir():
        raise bad_input(str(path), "a file", "a folder", do)


def check_place(path: Path, do: str = "name a file", room: int = 0) -> None:
    """Refuse a file's place that cannot be written to before there is anything to write; leaves nothing behind.

    `room` are the bytes that the work is sure to take: a place that has fewer is refused too.
    """
    try:
        folder = next(each for each in path.absolute().parents if each.exists() or each.is_symlink())
        check_no_folder(path, do)
        if not folder.is_dir():
            raise bad_input(str(folder), "a folder", "a file", "name another place")
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(_BLOCK))  # where there is no room at all, an empty file may have its place
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise not_written(path, error) from error
    if free < room:
        do = "make room, or choose another; nothing was written"
        raise bad_input(str(path), f"{readable(room)} of room for it", f"{readable(free)} there", do)


def write_atomically(path: Path, content: str | bytes | Callable[[Path], object]) -> None:
    """Fill a temporary file beside `path`, then rename it: `path` is whole, or as it was before.

    That holds where the power fails, too: the file is on the disk before it gets its name, and the folder afterwards,
    so that what is written next cannot be there without it. It takes a disk's time, some milliseconds: what is written
    many times a second and may be lost does not belong here.

    The content is a text (UTF-8), bytes, or a function that writes to the temporary path; a missing folder is made.
    What processes that were killed left of the same file is removed.
    """
    temporary = unfinished(path)
    try:
        with _folder(path.parent):
            remove_strays(path)
            try:
                if callable(content):
                    temporary.touch()
                    content(temporary)
                else:
                    temporary.write_bytes(content.encode() if isinstance(content, str) else content)
                sync_file(temporary)
                os.replace(temporary, path)
                sync_folder(path.parent)
            finally:
                temporary.unlink(missing_ok=True)
    except OSError as error:
        raise not_written(path, error) from error


def sync_file(path: Path) -> None:
    """Bring a file to the disk: before it gets its name, so that the name is never that of half a file."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk; where a system has no way to, they get there by themselves."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextmanager
def _folder(folder: Path) -> Iterator[None]:
    """A folder that is made for the work, with those above it; the ones that are empty afterwards go again."""
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    finally:
        with suppress(OSError):
            for each in made:
                each.rmdir()


@contextmanager
def alone(folder: Path, name: str = "") -> Iterator[None]:
    """Work in a folder, or on a file of it (which need not exist), where no other process or thread works meanwhile.

    The lock belongs to the process: it is gone when that ends, however it ends. Its file says who is at work, and so
    does the error. A folder that is made for it and stays empty goes again.
    """
    place, lock = folder / name, folder / f".{name}{'.' if name else ''}lock"
    with ExitStack() as stack:
        try:
            stack.enter_context(_folder(folder))
            stack.enter_context(_locked(place, lock))
        except OSError as error:
            raise not_written(place, error) from error
        yield


@contextmanager
def _locked(place: Path, lock: Path) -> Iterator[None]:
    try:
        import fcntl
    except ModuleNotFoundError:  # Windows: nothing is kept apart there
        yield
        return
    while True:
        handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            who = os.pread(handle, 4096, 0).decode(errors="backslashreplace").strip() or "another one"
            os.close(handle)
            do = "wait until it is done, or choose another place"
            raise bad_input(str(place), "one process at a time", f"{who} at work there", do) from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:  # some network file systems have none
                os.close(handle)
                raise
        if lock.exists() and os.path.samestat(os.fstat(handle), lock.stat()):
            break
        os.close(handle)  # who had it has just removed it
    try:
        os.ftruncate(handle, 0)
        os.write(handle, f"process {os.getpid()} ({command()})".encode(errors="backslashreplace"))
        yield
    finally:
        lock.unlink(missing_ok=True)
        os.close(handle)


def set_aside(path: Path) -> Path:
    """Rename a damaged file or folder to `NAME.broken-N`, so that it is kept and no longer in the way; the new path."""
    number = 1
    while (aside := path.with_name(f"{path.name}.broken-{number}")).exists():
        number += 1
    os.replace(path, aside)
    return aside


@contextmanager
def scratch_folder(target: Path) -> Iterator[Path]:
    """A folder beside `target`, of this call alone, that is removed when the block ends.

    What a process that was killed left behind is removed by the next call for the same target.
    """
    temporary = unfinished(target)
    try:
        with _folder(target.parent):
            try:
                remove_strays(target)
                temporary.mkdir()
                yield temporary
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise not_written(target, error) from error


@contextmanager
def temporary_folder(target: Path) -> Iterator[Path]:
    """A `scratch_folder` that gets its target's name once the block has ended well, its files being on the disk.

    What lies at `target` then is kept as `NAME.broken-N`. Nobody else may work at it meanwhile: see `alone`.
    """
    with scratch_folder(target) as temporary:
        yield temporary
        sync_folder(temporary)
        if target.exists():
            set_aside(target)
        os.replace(temporary, target)
        sync_folder(target.parent)
