"""Arrays in npy and npz files: read whole or refused, whatever is wrong, and without a place for what is not there."""

from __future__ import annotations

import hashlib
import io
import math
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import numpy as np

from mlkernels.support.file_faults import Fault, fault_of, one_error
from mlkernels.support.files import write_atomically

SUM = "sha256"  # the array that holds the checksum of all others


def save(path: Path, arrays: Mapping[str, np.ndarray], compressed: bool = False) -> None:
    """Write an npz file with a checksum of its arrays, whole or as it was before."""
    arrays = {name: np.asarray(array) for name, array in arrays.items()}
    write = np.savez_compressed if compressed else np.savez

    def fill(temporary: Path) -> None:
        with open(temporary, "wb") as file:  # a name would get .npz appended
            write(file, allow_pickle=False, **arrays, **{SUM: np.array(_sum(arrays))})

    write_atomically(path, fill)


def load(path: Path) -> dict[str, np.ndarray]:
    """All arrays of an npz file, which may be read-only; `SUM` is among them if the file has one, and is right.

    Each member is read to its end, so that its CRC is looked at, and an array takes exactly what its member holds.

    Raises:
        ValueError: the file is damaged; one line says how.
        OSError: the system does not let it be read.
    """
    if fault := fault_of(path, kind="zip"):
        raise Fault(fault)
    with open(path, "rb") as file, one_error():
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
            if len(set(names)) < len(names) or not all(name.endswith(".npy") for name in names):
                raise ValueError("members that are no arrays, or two of one name")
            arrays = {name.removesuffix(".npy"): _array(archive.read(name), name) for name in names}
        held = {name: array for name, array in arrays.items() if name != SUM}
        if SUM in arrays and str(arrays[SUM]) != _sum(held):
            raise ValueError("its checksum is that of other arrays")
    return arrays


def npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of the array in an opened npy file, then at its first number; a `ValueError` for anything else.

    Fortran's order and objects are such, too.
    """
    shape, fortran, dtype = _header(file)
    if fortran:
        raise ValueError("an array in Fortran's order")
    return shape, dtype


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    with one_error(), warnings.catch_warnings(action="ignore"):  # of what a damaged header looks like
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(file)
        if dtype.hasobject or any(size < 0 for size in shape):
            raise ValueError(f"no plain array: {dtype} {list(shape)}")
    return tuple(shape), fortran, dtype


def _array(data: bytes, name: str) -> np.ndarray:
    stream = io.BytesIO(data)
    shape, fortran, dtype = _header(stream)
    wanted, got = math.prod(shape) * dtype.itemsize, len(data) - stream.tell()
    if wanted != got:
        raise ValueError(f"{name}: {got} bytes, not {wanted}")
    return np.ndarray(shape, dtype, data, stream.tell(), order="F" if fortran else "C")


def _sum(arrays: Mapping[str, np.ndarray]) -> str:
    """Over names, types, shapes and numbers. Files have no name for some types, such as bfloat16, but their size."""
    total = hashlib.sha256()
    for name in sorted(arrays):
        array = arrays[name]
        total.update(f"{name} {array.dtype.kind}{array.dtype.itemsize} {array.shape} ".encode())
        total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()
