"""Arrays in .npy files that are opened at once and read in rows, when an episode asks for them."""

from __future__ import annotations

import mmap
import os
import weakref
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mlkernels.errors import bad_input

CHUNK = 256  # images that are held at a time


class Mapped:
    """A memory-mapped .npy file: `array` is read-only and costs no memory; `read` copies rows out of it.

    Where the system can read at a place (`preadv`), rows are read from the file and not through the map. The system
    maps far more around a row than the row (0.7 MB for an image of 21 kB on Linux 6.18) and counts that as this
    process's memory; a read takes none, and half the time.

    Args:
        path: the file.
        shape: that it must have.
        dtype: that it must have.

    Raises:
        InputError: it is another array, or none.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], dtype):
        self._path = path
        try:
            with open(path, "rb") as file:
                version = np.lib.format.read_magic(file)
                read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                found, fortran, kind = read(file)
                if (tuple(found), fortran, kind) != (tuple(shape), False, np.dtype(dtype)):
                    raise ValueError(f"{kind} {list(found)}")
                self._start = file.tell()
                pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
                self.array = np.frombuffer(pages, dtype, int(np.prod(shape)), self._start).reshape(shape)
                self._file = os.dup(file.fileno())
        except (OSError, ValueError) as error:
            do = "nothing was loaded; get the dataset again with `mlkernels data get`"
            raise bad_input(str(path), f"an array {np.dtype(dtype)} {list(shape)}", error, do) from None
        weakref.finalize(self, os.close, self._file)

    def read(self, rows: np.ndarray, out: np.ndarray) -> None:
        """Copy rows `[n]` into `out` `[n, ...]`, which is contiguous."""
        if not hasattr(os, "preadv"):  # Windows
            np.take(self.array, rows, axis=0, out=out, mode="clip")  # with "raise", `out` would be buffered
            return
        size = self.array[:1].nbytes
        target = memoryview(out.reshape(-1)).cast("B")
        starts = np.flatnonzero(np.diff(rows, prepend=-2) != 1)  # of runs of rows that lie together
        for start, stop in zip(starts.tolist(), [*starts[1:].tolist(), len(rows)], strict=True):
            done, end, place = start * size, stop * size, self._start + int(rows[start]) * size
            while done < end:
                count = os.preadv(self._file, [target[done:end]], place)
                if count == 0:
                    do = "nothing of it is used; get the dataset again with `mlkernels data get`"
                    raise bad_input(str(self._path), "the file as it was opened", "a shorter one", do)
                done, place = done + count, place + count


class Joined:
    """Mapped arrays end to end as one; only the rows that are asked for are read."""

    def __init__(self, maps: Sequence[Mapped]):
        self._maps = tuple(maps)
        self._ends = np.cumsum([len(part.array) for part in self._maps])
        first = self._maps[0].array
        self.dtype = first.dtype
        self.shape = (int(self._ends[-1]), *first.shape[1:])
        self.ndim = first.ndim

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: int | slice | np.ndarray) -> np.ndarray:
        rows = _rows(index, len(self))
        flat = np.atleast_1d(rows).ravel()
        out = np.empty((len(flat), *self.shape[1:]), self.dtype)
        which = np.searchsorted(self._ends, flat, side="right")
        for number in np.unique(which):
            part, chosen = self._maps[number], which == number
            first = self._ends[number] - len(part.array)
            if chosen.all():  # the usual case: an episode is of one split
                part.read(flat - first, out)
            else:
                own = np.empty((int(chosen.sum()), *self.shape[1:]), self.dtype)
                part.read(flat[chosen] - first, own)
                out[chosen] = own
        return out.reshape(*rows.shape, *self.shape[1:])

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype=dtype)


class Chosen:
    """Some rows of an array or array-like as if they were all of it; read when they are asked for."""

    def __init__(self, images, rows: np.ndarray):
        self._images, self._chosen = images, rows
        self.dtype = images.dtype
        self.shape = (len(rows), *images.shape[1:])
        self.ndim = len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: int | slice | np.ndarray) -> np.ndarray:
        return self._images[self._chosen[index]]

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype=dtype)


def _rows(index: int | slice | np.ndarray, count: int) -> np.ndarray:
    """What an index means, as row numbers from 0."""
    if isinstance(index, slice):
        return np.arange(*index.indices(count))
    rows = np.asarray(index)
    if rows.dtype == bool:
        if rows.shape != (count,):
            raise IndexError(f"a mask of shape {list(rows.shape)} for {count} images")
        return np.flatnonzero(rows)
    if rows.size == 0:
        rows = rows.astype(np.intp)
    if rows.dtype.kind not in "iu":
        raise IndexError(f"an index of type {rows.dtype}")
    outside = (rows < -count) | (rows >= count)
    if outside.any():
        raise IndexError(f"row {rows[outside].ravel()[0]} of {count} images")
    return np.where(rows < 0, rows + count, rows)
