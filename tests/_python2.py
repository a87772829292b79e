"""Pickles as Python 2 and NumPy 1 wrote them, for tests of what reads them."""

from __future__ import annotations

import pickle
import struct
from pathlib import Path
from typing import ClassVar


class Python2(pickle._Pickler):
    """Strings are bytes, and NumPy's core has its old name."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)

    def __init__(self, file):
        super().__init__(file, protocol=2)

    def save_string(self, value) -> None:
        data = value.encode("latin-1") if isinstance(value, str) else value
        self.write(b"U" + bytes([len(data)]) + data if len(data) < 256 else b"T" + struct.pack("<i", len(data)) + data)
        self.memoize(value)

    def save_global(self, value, name=None) -> None:
        module = value.__module__.replace("numpy._core", "numpy.core")
        self.write(f"c{module}\n{name or value.__name__}\n".encode())
        self.memoize(value)

    dispatch[str] = dispatch[bytes] = save_string


def write_pickle(path: Path, content, python: int = 3, protocol: int = 4) -> Path:
    """Write a pickle of Python 2 or 3."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        Python2(file).dump(content) if python == 2 else pickle.dump(content, file, protocol=protocol)
    return path
