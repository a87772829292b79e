"""Images whose rows are read when an episode asks for them: of .npy files, some rows of others, quarter turns."""

from __future__ import annotations

import math
import mmap
import os
import weakref
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mlkernels.errors import bad_input
from mlkernels.support.checked_arrays import npy_header

CHUNK = 256  # images that are held at a time


class Mapped:
    """A memory-mapped .npy file, of that shape and dtype: `array` costs no memory, `read` copies rows out of it.

    Where the system can read at a place (`preadv`), rows are read from the file and not through the map. The system
    maps far more around a row than the row (0.7 MB for an image of 21 kB on Linux 6.18) and counts that as this
    process's memory; a read takes none, and half the time.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], dtype):
        self._path = path
        try:
            with open(path, "rb") as file:
                held, kind = npy_header(file)
                if (held, kind) != (tuple(shape), np.dtype(dtype)):
                    raise ValueError(f"{kind} {list(held)}")
                self._start, size = file.tell(), os.fstat(file.fileno()).st_size
                if self._start + math.prod(held) * kind.itemsize != size:  # a damaged length of the header shifts all
                    raise ValueError(f"{size - self._start} bytes of numbers")
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


class LazyRows:
    """An array-like of images `[N, ...]`; what inherits from it says in `__getitem__` how rows are read."""

    def __init__(self, dtype: np.dtype, shape: tuple[int, ...]):
        self.dtype, self.shape, self.ndim = dtype, shape, len(shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype=dtype)


class Joined(LazyRows):
    """Mapped arrays end to end as one."""

    def __init__(self, maps: Sequence[Mapped]):
        self._maps = tuple(maps)
        self._ends = np.cumsum([len(mapped.array) for mapped in self._maps])
        first = self._maps[0].array
        super().__init__(first.dtype, (int(self._ends[-1]), *first.shape[1:]))
        self._numbers = np.arange(len(self))

    def __getitem__(self, index: int | slice | np.ndarray) -> np.ndarray:
        rows = self._numbers[index]  # NumPy's own rules, whatever the index is
        flat = np.atleast_1d(rows).ravel()
        out = np.empty((len(flat), *self.shape[1:]), self.dtype)
        which = np.searchsorted(self._ends, flat, side="right")
        for number in np.unique(which):
            mapped, chosen = self._maps[number], which == number
            first = self._ends[number] - len(mapped.array)
            if chosen.all():  # the usual case: an episode is of one split
                mapped.read(flat - first, out)
            else:
                images = np.empty((int(chosen.sum()), *self.shape[1:]), self.dtype)
                mapped.read(flat[chosen] - first, images)
                out[chosen] = images
        return out.reshape(*rows.shape, *self.shape[1:])


class Chosen(LazyRows):
    """Some rows of an array or array-like as if they were all of it."""

    def __init__(self, images, rows: np.ndarray):
        self._images, self._chosen = images, rows
        super().__init__(images.dtype, (len(rows), *images.shape[1:]))

    def __getitem__(self, index: int | slice | np.ndarray) -> np.ndarray:
        return self._images[self._chosen[index]]


class Turned(LazyRows):
    """`images` and their quarter turns: rows `t*N` to `(t+1)*N` are turned t times.

    Turns go anticlockwise. A turned character is a new class: whole classes are turned, never single drawings.
    """

    def __init__(self, images: np.ndarray):
        self._images = images
        super().__init__(images.dtype, (4 * len(images), *images.shape[1:]))

    def __getitem__(self, index: int | slice | np.ndarray) -> np.ndarray:
        turns, rows = np.divmod(np.arange(len(self))[index], len(self._images))
        if rows.ndim == 0:
            return np.rot90(self._images[rows], turns)
        out = np.array(self._images[rows])
        for turn in (1, 2, 3):
            chosen = turns == turn
            out[chosen] = np.rot90(out[chosen], turn, axes=(-3, -2))
        return out
