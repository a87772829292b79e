"""Pickles read without running them: arrays, strings, numbers and plain containers, and nothing else.

A pickle is a programme: it may name any function of any module and call it. Here it may name what is in `ALLOWED` and
nothing else, and these stand for harmless functions of ours. Large arrays and strings are not read but noted: where in
the file they lie. So a set that is larger than the memory can be imported, and what a pickle claims to hold is held
against the size of its file before any memory is taken.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from types import FunctionType
from typing import ClassVar

from mlkernels.datasets.safe_pickle.allowed import ALLOWED, CALLS, EmptyArray, Kind, text
from mlkernels.datasets.safe_pickle.stored import Refused, Stored, StoredArray
from mlkernels.errors import InputError, bad_input
from mlkernels.support.file_faults import fault_of

LARGE = 1024  # bytes; what is longer stays in the file
LINE = 1 << 20  # bytes of a line, in the pickles of protocol 0 that consist of lines
_EXPECTED = "a pickle of arrays and plain containers alone"


def load(path: Path, *, lazy: bool = False):
    """Read a pickle of Python 2 or 3, any protocol, without running anything that it names.

    It gives arrays (`lazy`: those of more than `LARGE` bytes as `StoredArray`, to be read in chunks), strings (those of
    Python 2 as Latin-1), numbers, and lists, tuples, dicts and sets of them. Anything else is refused by its name.
    """
    path = Path(path)
    do = "nothing of it was run or loaded; get the file from its official place"
    damage = (ValueError, TypeError, LookupError, AttributeError, AssertionError, RecursionError, OverflowError)
    try:
        if fault := fault_of(path, kind="any"):
            raise bad_input(str(path), _EXPECTED, fault, do)
        with open(path, "rb") as file:
            return _finished(_Reader(file, path).load(), lazy)
    except Refused as error:
        raise bad_input(str(path), _EXPECTED, f"one that asks for {error}", do) from None
    except (EOFError, pickle.UnpicklingError) as error:
        short = f"a truncated file or none of its kind ({path.stat().st_size} bytes: {str(error) or 'it ends early'})"
        raise bad_input(str(path), _EXPECTED, short, do) from None
    except OSError as error:
        raise bad_input(str(path), "a file that can be read", error.strerror, "give its path") from None
    except InputError:
        raise
    except damage as error:
        reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0][:80]}"
        raise bad_input(str(path), _EXPECTED, f"a damaged file ({reason})", do) from None


def get(content, key: str, path: Path):
    """`content[key]`, where the key may be a string or, from Python 2, bytes."""
    if not isinstance(content, dict):
        do = "give the pickle of the dataset that is to be imported"
        raise bad_input(str(path), f"a dict with {key!r}", type(content).__name__, do)
    for name in (key, key.encode()):
        if name in content:
            return content[name]
    keys = ", ".join(sorted(text(name) if isinstance(name, (str, bytes)) else repr(name)[:40] for name in content)[:20])
    raise bad_input(str(path), f"a dict with {key!r}", f"keys {keys or 'none'}", "give the dataset's own pickle")


class _File:
    """A file whose reads are held against its size."""

    def __init__(self, file, path: Path):
        self.file, self.path, self.size = file, path, path.stat().st_size

    def check(self, count: int) -> None:
        left = self.size - self.file.tell()
        if count > left:
            raise EOFError(f"{count} bytes are announced where {left} are left")

    def read(self, count: int) -> bytes:
        if count > LARGE:  # small reads are many, and take no memory to speak of
            self.check(count)
        data = self.file.read(count)
        if len(data) < count:
            raise EOFError
        return data

    def readinto(self, buffer) -> int:
        self.check(len(buffer))
        return self.file.readinto(buffer)

    def readline(self) -> bytes:
        line = self.file.readline(LINE)
        if len(line) == LINE:
            raise pickle.UnpicklingError(f"a line of more than {LINE} bytes")
        return line

    def skip(self, count: int, is_text: bool) -> Stored:
        self.check(count)
        start = self.file.tell()
        self.file.seek(count, 1)
        return Stored(self.path, start, count, is_text, not is_text)


class _Reader(pickle._Unpickler):  # the one in Python: that in C cannot be told to leave large things in the file
    dispatch: ClassVar[dict] = dict(pickle._Unpickler.dispatch)

    def __init__(self, file, path: Path):
        self._source = _File(file, path)
        super().__init__(self._source, encoding="latin-1")

    def find_class(self, module: str, name: str):
        if (module, name) not in ALLOWED:
            raise Refused(f"{module}.{name}"[:200])
        return ALLOWED[module, name]

    def _call(self, function, arguments) -> None:
        if not isinstance(function, FunctionType) or function not in CALLS:
            raise Refused(f"a call of {type(function).__name__}")
        if not isinstance(arguments, tuple):
            raise pickle.UnpicklingError("arguments that are no tuple")
        self.append(function(*arguments))

    def load_reduce(self) -> None:
        arguments = self.stack.pop()
        self._call(self.stack.pop(), arguments)

    def _instantiate(self, function, arguments) -> None:
        self._call(function, tuple(arguments))

    def load_build(self) -> None:
        state = self.stack.pop()
        if not isinstance(self.stack[-1], (EmptyArray, Kind)) or not isinstance(state, tuple):
            raise Refused(f"a state of {type(self.stack[-1]).__name__}")
        self.stack[-1].set_state(state)

    def load_frame(self) -> None:
        self._source.check(int.from_bytes(self.read(8), "little"))  # a frame only says how much to read at once

    def _long(self, width: int, what: str) -> None:
        count = int.from_bytes(self.read(width), "little", signed=what == "string" and width == 4)
        if count < 0:
            raise pickle.UnpicklingError("a string of negative length")
        if count > LARGE:
            self.append(self._source.skip(count, what == "text"))
            return
        data = self.read(count)
        if what == "text":
            self.append(str(data, "utf-8", "surrogatepass"))
        elif what == "string":
            self.append(data.decode("latin-1"))
        else:
            self.append(data)

    def load_newobj_ex(self) -> None:
        raise Refused("an object made with keywords")

    def load_other(self) -> None:
        raise Refused("an extension, a buffer or an object from outside of the file")


def _leaving(width: int, what: str):
    return lambda reader: reader._long(width, what)


_Reader.dispatch |= {  # one byte -> what it does
    code[0]: act
    for codes, act in (
        ([pickle.REDUCE, pickle.NEWOBJ], _Reader.load_reduce),
        ([pickle.BUILD], _Reader.load_build),
        ([pickle.FRAME], _Reader.load_frame),
        ([pickle.BINSTRING], _leaving(4, "string")),
        ([pickle.BINBYTES], _leaving(4, "bytes")),
        ([pickle.BINBYTES8, pickle.BYTEARRAY8], _leaving(8, "bytes")),
        ([pickle.BINUNICODE], _leaving(4, "text")),
        ([pickle.BINUNICODE8], _leaving(8, "text")),
        ([pickle.EXT1, pickle.EXT2, pickle.EXT4, pickle.PERSID, pickle.BINPERSID], _Reader.load_other),
        ([pickle.NEXT_BUFFER, pickle.READONLY_BUFFER], _Reader.load_other),
        ([pickle.NEWOBJ_EX], _Reader.load_newobj_ex),
    )
    for code in codes
}


def _finished(content, lazy: bool):
    """The content with arrays in the place of what stood for them; containers are changed in place."""
    done: dict[int, object] = {}

    def value(thing):
        if isinstance(thing, (EmptyArray, Kind)):
            thing = thing.value
        if isinstance(thing, (Stored, StoredArray)) and not lazy:
            is_text = isinstance(thing, Stored) and not thing.decoded
            return thing.read().decode("latin-1") if is_text else thing.read()
        if not isinstance(thing, (list, dict, tuple)):
            return thing
        if id(thing) in done:
            return done[id(thing)]
        if isinstance(thing, tuple):
            done[id(thing)] = new = tuple(map(value, thing))
            return new
        done[id(thing)] = thing
        if isinstance(thing, list):
            thing[:] = map(value, thing)
        else:
            for name, item in thing.items():
                thing[name] = value(item)
        return thing

    return value(content)
