"""Arrays and strings that lie in a file and are read in pieces, so that a set may be larger than the memory."""

from __future__ import annotations

import codecs
import math
import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mlkernels.errors import InputError, bad_input


class Refused(pickle.UnpicklingError):
    """A pickle that asks for what is no data; the message names it."""


def _damaged(path: Path, got: str) -> InputError:
    return bad_input(str(path), "a whole file", got, "nothing was imported; get it again")


@dataclass(frozen=True)
class Stored:
    """Bytes that lie in a file. With `text` they are UTF-8 and mean a string of Latin-1 characters, a byte each."""

    path: Path
    start: int
    length: int
    text: bool = False
    decoded: bool = True

    def pieces(self, size: int) -> Iterator[bytes]:
        """The bytes, `size` at a time."""
        decode = codecs.getincrementaldecoder("utf-8")().decode
        left, kept = self.length, b""
        with open(self.path, "rb") as file:
            file.seek(self.start)
            while left:
                piece = file.read(min(size, left))
                if not piece:
                    raise _damaged(self.path, f"{left} bytes fewer")
                left -= len(piece)
                try:
                    kept += decode(piece, left == 0).encode("latin-1") if self.text else piece
                except UnicodeError as error:
                    raise _damaged(self.path, f"other text ({error.reason})") from None
                while len(kept) >= size:
                    yield kept[:size]
                    kept = kept[size:]
        if kept:
            yield kept

    def read(self) -> bytes:
        """All of the bytes."""
        return b"".join(self.pieces(1 << 20))


@dataclass(frozen=True)
class StoredArray:
    """An array that lies in a pickle's file; `axes` says how what lies there is transposed, its first axis never."""

    shape: tuple[int, ...]
    dtype: np.dtype
    raw: Stored
    axes: tuple[int, ...]

    def __len__(self) -> int:
        return self.shape[0]

    def chunks(self, rows: int) -> Iterator[np.ndarray]:
        """The array from its beginning, `rows` at a time."""
        lying = [self.shape[place] for place in np.argsort(self.axes)][1:]
        row = math.prod(lying) * self.dtype.itemsize
        count = 0
        for piece in self.raw.pieces(rows * row):
            if len(piece) % row:
                break
            count += len(piece) // row
            yield np.frombuffer(piece, self.dtype).reshape(-1, *lying).transpose(self.axes)
        if count != len(self):
            raise _damaged(self.raw.path, f"{count} of {len(self)} rows of an array")

    def read(self) -> np.ndarray:
        """All of the array."""
        return np.concatenate(list(self.chunks(max(1, len(self) // 16))))


def make_array(shape, dtype: np.dtype, raw, order: str = "C", axes=None) -> np.ndarray | StoredArray:
    """An array from its bytes or a `Stored`, checked before memory is taken; `axes` says how it is transposed."""
    if not all(type(size) is int and size >= 0 for size in shape):
        raise Refused(f"an array of shape {str(shape)[:60]}")
    axes = tuple(range(len(shape)) if axes is None else axes)
    if sorted(axes) != list(range(len(shape))):
        raise Refused(f"an array of shape {str(shape)[:60]} with axes {str(axes)[:60]}")
    size = math.prod(shape) * dtype.itemsize
    have = raw.length if isinstance(raw, Stored) else len(raw)
    fits = size <= have <= 2 * size if isinstance(raw, Stored) and raw.text else size == have
    if not fits:
        raise Refused(f"an array of {size} bytes, of which it holds {have}")
    if isinstance(raw, Stored):
        if order == "C" and shape and size and axes[0] == 0:
            return StoredArray(tuple(shape[place] for place in axes), dtype, raw, axes)
        raw = raw.read()
    return np.frombuffer(raw, dtype).reshape(shape, order=order).transpose(axes)


def as_array(thing) -> np.ndarray:
    """A list or an array, wherever it lies, as an array in memory."""
    return thing.read() if isinstance(thing, StoredArray) else np.asarray(thing)


def pieces_of(images, rows: int) -> Iterator[np.ndarray]:
    """An array of images, wherever it lies, `rows` at a time."""
    if isinstance(images, StoredArray):
        yield from images.chunks(rows)
    else:
        for start in range(0, len(images), rows):
            yield images[start : start + rows]
