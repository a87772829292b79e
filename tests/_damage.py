"""Files damaged in a dozen ways, and what a command makes of each: the same result, a refusal, or a fault of ours."""

from __future__ import annotations

import copy
import io
import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mlkernels.errors import InputError

TEXTS = ("", "[]", "{}", "null", "3", '"abc"', "[" * 100_000, '{"a":' * 100_000, "<html>not found</html>", "NaN")


def flip(content: bytes, place: int, bit: int) -> bytes:
    """One bit turned round."""
    damaged = bytearray(content)
    damaged[place] ^= 1 << bit
    return bytes(damaged)


def flips(content: bytes, rng: random.Random, count: int | None = None) -> Iterator[tuple[str, bytes]]:
    """Some flips of a bit, or one in each byte."""
    places = range(len(content)) if count is None else [rng.randrange(len(content)) for _ in range(count)]
    for place in places:
        bit = rng.randrange(8)
        yield f"bit {bit} of byte {place}", flip(content, place, bit)


def ways(
    content: bytes, rng: random.Random, others: tuple[bytes, ...] = (), ours: bool = True
) -> Iterator[tuple[str, bytes]]:
    """The same file damaged in many ways, each with a name; `others` are files of other settings.

    What says another thing in a right form is not among them where a file is not `ours`, and so has no checksum of it.
    """
    half, size = len(content) // 2, max(1, len(content) // 8)
    yield from ((f"{text[:20]} in its place", text.encode()) for text in TEXTS)
    yield "cut in half", content[:half]
    yield "its last byte gone", content[:-1]
    yield "its first byte gone", content[1:]
    yield "a piece gone", content[:half] + content[half + size :]
    yield "a piece twice", content[: half + size] + content[half:]
    yield "zeros in its midst", content[:half] + bytes(size) + content[half + size :]
    yield "more at its end", content + content[:size]
    yield "no text", b"\xff\xfe" + content
    yield from flips(content, rng, 12)
    yield from ((f"that of other settings {number}", other) for number, other in enumerate(others))
    if ours and content[:1] in b"{[":
        yield from _wrong_json(json.loads(content), rng)
    if ours and content[:2] == b"PK":
        yield from _wrong_arrays(content, rng)


def _wrong_json(content, rng: random.Random) -> Iterator[tuple[str, bytes]]:
    """Strict JSON that says something else: another number, another type, a name less."""
    places = list(_places(content, ()))
    for value in (None, "abc", [], {}, True, -1, 1e300, 10**400, "inf"):
        where = rng.choice(places)
        yield f"{value!r:.10} at {where}", _dumps(_changed(content, where, lambda _, value=value: value))
    numbers = [where for where in places if type(_at(content, where)) in (int, float)]
    for where in rng.sample(numbers, min(5, len(numbers))):
        yield f"another number at {where}", _dumps(_changed(content, where, lambda number: number * 1.25 + 0.3))
    for where in rng.sample(places, min(5, len(places))):
        other = copy.deepcopy(content)
        parent = _at(other, where[:-1])
        del parent[where[-1]]
        yield f"without {where}", _dumps(other)


def _dumps(content) -> bytes:
    return json.dumps(content).encode()


def _places(content, here: tuple) -> Iterator[tuple]:
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in items:
        yield (*here, key)
        yield from _places(value, (*here, key))


def _at(content, where: tuple):
    for key in where:
        content = content[key]
    return content


def _changed(content, where: tuple, change: Callable):
    other = copy.deepcopy(content)
    _at(other, where[:-1])[where[-1]] = change(_at(other, where))
    return other


def _wrong_arrays(content: bytes, rng: random.Random) -> Iterator[tuple[str, bytes]]:
    """An npz file that NumPy reads, with another number, type, shape or name, or an array less."""
    with np.load(io.BytesIO(content)) as file:
        arrays = dict(file)
    changes = {
        "another number": lambda array: _other_number(array, rng),
        "another type": lambda array: array.astype("U8") if array.dtype.kind != "U" else np.zeros(3),
        "another shape": lambda array: np.stack([array, array]),
        "no numbers": lambda array: array.ravel()[:0],
    }
    for what, change in changes.items():
        for name in rng.sample(sorted(arrays), min(4, len(arrays))):
            yield f"{what} in {name}", _npz(arrays | {name: change(arrays[name])})
    for name in rng.sample(sorted(arrays), min(4, len(arrays))):
        yield f"without {name}", _npz({key: array for key, array in arrays.items() if key != name})
    name = rng.choice(sorted(arrays))
    yield f"{name} that is huge", _npz(arrays, {name: huge(arrays[name])})
    yield f"objects in {name}", _npz(arrays, {name: _npy(arrays[name]).replace(b"'<", b"'|O", 1)})


def _other_number(array: np.ndarray, rng: random.Random) -> np.ndarray:
    if not array.size:
        return np.zeros(1, array.dtype)
    data = bytearray(np.ascontiguousarray(array).tobytes())
    data[rng.randrange(len(data))] ^= 1
    return np.frombuffer(bytes(data), array.dtype).reshape(array.shape)


def huge(array: np.ndarray) -> bytes:
    """An npy file that says that it holds more numbers than any machine has room for."""
    file = io.BytesIO()
    header = {"descr": np.lib.format.dtype_to_descr(array.dtype), "fortran_order": False, "shape": (2**60,)}
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue() + array.tobytes()


def _npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def _npz(arrays: dict[str, np.ndarray], instead: dict[str, bytes] | None = None) -> bytes:
    import zipfile

    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            archive.writestr(f"{name}.npy", (instead or {}).get(name) or _npy(array))
    return file.getvalue()


@dataclass
class Tally:
    """What became of damaged files: how often each, and what went wrong."""

    counts: Counter = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return ", ".join(f"{count} {what}" for what, count in sorted(self.counts.items()))


def tally(path: Path, door: Callable[[], object], damages: Iterator[tuple[str, bytes]], equal: Callable) -> Tally:
    """Damage a file in each way and call what reads it: the same result, a refusal in one line, or a fault.

    Args:
        path: the file; all of its folder is put back after each call.
        door: reads it, and gives what the command would go on with.
        damages: name and content.
        equal: whether two such results are the same.
    """
    folder, found = path.parent, Tally()
    before = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    expected = door()
    for name, content in damages:
        path.write_bytes(content)
        try:
            outcome = "same" if equal(door(), expected) else "silent"
        except InputError as error:
            said = str(error)
            outcome = "refused" if "\n" not in said and len(said) < 1500 else "refused in many lines"
            aside = path.with_name(f"{path.name}.broken-1")
            if f"kept as {aside.name}" in said:
                outcome = "set aside" if aside.read_bytes() == content and not path.exists() else "lost"
        except Exception as error:
            outcome = "traceback"
            name += f" ({type(error).__name__}: {error})"
        found.counts[outcome] += 1
        if outcome not in ("same", "refused", "set aside"):
            found.faults.append(f"{outcome}: {path.name} with {name}")
        for file in [*folder.rglob("*")]:
            if file.is_file() and file not in before:
                file.unlink()
        for file, was in before.items():
            file.write_bytes(was)
    return found
