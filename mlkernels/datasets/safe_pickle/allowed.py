"""What a pickle may name, and the harmless functions of ours that stand for it."""

from __future__ import annotations

import re
from collections import OrderedDict
from dataclasses import replace

import numpy as np

from mlkernels.datasets.safe_pickle.stored import Refused, Stored, make_array

_KIND = re.compile(r"[biuf][1248]|[SU]\d{1,4}")


def text(name: str | bytes) -> str:
    """A string from Python 3 or 2."""
    return name.decode("latin-1") if isinstance(name, bytes) else str(name)


class EmptyArray:
    """What `numpy._reconstruct` makes here: empty until its state comes."""

    value = None

    def set_state(self, state, axes=None) -> None:
        _, shape, dtype, fortran, raw = state if len(state) == 5 else (1, *state)
        if not isinstance(dtype, Kind):
            raise Refused("an array of an unknown type")
        if isinstance(raw, str):  # Python 2's bytes
            raw = raw.encode("latin-1")
        if isinstance(raw, Stored) and raw.text and not raw.decoded:
            raw = replace(raw, decoded=True)
        if isinstance(raw, list):
            raise Refused("an array of objects")
        self.value = make_array(shape, dtype.value, raw, "F" if fortran else "C", axes)


class Kind:
    """What `numpy.dtype` makes here: numbers and strings of fixed size alone."""

    def __init__(self, kind: str):
        if isinstance(kind, bytes):
            kind = kind.decode("latin-1")
        if not isinstance(kind, str) or not _KIND.fullmatch(kind.lstrip("<>|=")):
            raise Refused(f"an array of type {str(kind)[:40]!r}")
        self.value = np.dtype(kind)

    def set_state(self, state) -> None:
        if any(part is not None for part in state[2:5]):
            raise Refused("an array of a compound type")
        order = text(state[1])
        self.value = self.value.newbyteorder(order) if order in "<>" else self.value


def _reconstruct(kind=None, shape=(0,), code=b"b") -> EmptyArray:
    if kind is not _ndarray or tuple(shape) != (0,):
        raise Refused(f"an array of shape {str(shape)[:60]} without its contents")
    return EmptyArray()


def _ndarray(*arguments):
    raise Refused(f"numpy.ndarray{str(arguments)[:60]}, an array without contents")


def _dtype(kind, *_) -> Kind:
    return Kind(kind)


def _scalar(dtype, raw=None):
    raw = raw.encode("latin-1") if isinstance(raw, str) else raw
    if not isinstance(dtype, Kind) or not isinstance(raw, bytes):
        raise Refused("a scalar of an unknown type")
    return make_array((1,), dtype.value, raw)[0]


def _frombuffer(raw, dtype, shape, order="C", axes=None) -> EmptyArray:
    array = EmptyArray()
    array.set_state((1, shape, dtype, order == "F", raw), axes if order == "K" else None)
    return array


def _encode(value, encoding="latin1"):  # how Python 3 writes bytes for Python 2
    if text(encoding) not in ("latin1", "latin-1"):
        raise Refused(f"_codecs.encode to {text(encoding)[:40]}")
    if isinstance(value, Stored):
        return replace(value, decoded=True)
    return value.encode("latin-1")


def _bytes(*arguments) -> bytes:
    if arguments:
        raise Refused(f"builtins.bytes of {type(arguments[0]).__name__}")
    return b""


def _of_items(make, items=()):
    if not isinstance(items, (list, tuple)):
        raise Refused(f"a {make.__name__} of {type(items).__name__}")
    return make(items)


_NUMPY = {"_reconstruct": _reconstruct, "scalar": _scalar}
ALLOWED = {
    **{(f"numpy.{core}.multiarray", name): call for core in ("core", "_core") for name, call in _NUMPY.items()},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _frombuffer for core in ("core", "_core")},
    **{("numpy", "ndarray"): _ndarray, ("numpy", "dtype"): _dtype, ("_codecs", "encode"): _encode},
    **{(module, "bytes"): _bytes for module in ("builtins", "__builtin__")},
    **{(module, "set"): lambda items=(): _of_items(set, items) for module in ("builtins", "__builtin__")},
    ("collections", "OrderedDict"): lambda items=(): _of_items(OrderedDict, items),
}
CALLS = set(ALLOWED.values())
