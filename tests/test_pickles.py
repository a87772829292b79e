"""The reader of pickles: what it understands, what it refuses, and that nothing of that is run."""

from __future__ import annotations

import collections
import os
import pickle
import struct
import subprocess
import sys

import numpy as np
import pytest
from _python2 import write_pickle

from mlkernels.datasets.safe_pickle import reader
from mlkernels.datasets.safe_pickle.stored import Stored, StoredArray
from mlkernels.errors import InputError

IMAGES = np.random.default_rng(0).integers(0, 256, (40, 5, 7, 3), dtype=np.uint8)
CONTENT = {
    "image_data": IMAGES,
    "class_dict": {"n01532829": [0, 1, 2], "n01558993": list(range(3, 40))},
    "nested": [(1, (2.5, None)), [True, {"a": IMAGES[0]}]],
    "small": np.arange(6, dtype=np.int64).reshape(2, 3),
    "fortran": np.asfortranarray(np.arange(2000, dtype=np.float64).reshape(4, 500)),
    "channels last": np.arange(4000, dtype=np.uint16).reshape(5, 8, 10, 10).transpose(0, 2, 3, 1),
    "turned": np.arange(6000, dtype=np.uint16).reshape(5, 12, 100).transpose(1, 0, 2),
    "number": np.float32(0.5),
}


def same(found, wanted) -> bool:
    if isinstance(wanted, np.ndarray):
        return isinstance(found, np.ndarray) and found.dtype == wanted.dtype and np.array_equal(found, wanted)
    if isinstance(wanted, dict):
        return list(found) == list(wanted) and all(same(found[key], wanted[key]) for key in wanted)
    if isinstance(wanted, (list, tuple)):
        return type(found) is type(wanted) and len(found) == len(wanted) and all(map(same, found, wanted))
    return type(found) is type(wanted) and found == wanted


@pytest.mark.parametrize(("python", "protocol"), [(2, 2), (3, 1), (3, 2), (3, 3), (3, 4), (3, 5)])
def test_every_protocol_gives_the_same(tmp_path, python, protocol):
    path = write_pickle(tmp_path / "a.pkl", CONTENT, python, protocol)
    assert same(reader.load(path), CONTENT)
    lazy = reader.load(path, lazy=True)
    assert isinstance(lazy["image_data"], StoredArray)
    assert (len(lazy["image_data"]), lazy["image_data"].shape, lazy["image_data"].dtype) == (40, (40, 5, 7, 3), "u1")
    chunks = list(lazy["image_data"].chunks(17))
    assert [len(chunk) for chunk in chunks] == [17, 17, 6]
    assert np.array_equal(np.concatenate(chunks), IMAGES)
    assert np.array_equal(lazy["image_data"].read(), IMAGES)
    assert same(lazy["class_dict"], CONTENT["class_dict"])


def test_strings_sets_and_ordered_dicts(tmp_path):
    content = {
        "long": "a" * 3000 + "é",
        "bytes": bytes(range(256)) * 20,
        "set": {1, 2},
        "ordered": collections.OrderedDict([("b", 1), ("a", 2)]),
        "names": np.array(["one", "three"]),
        "big endian": np.arange(3, dtype=">i4"),
        "empty": [np.zeros((0, 3), np.uint8), b"", ""],
        "whole": 10**30,
    }
    for protocol in range(6):
        found = reader.load(write_pickle(tmp_path / "a.pkl", content, protocol=protocol))
        assert same(
            {key: found[key] for key in content if key != "ordered"},
            {k: v for k, v in content.items() if k != "ordered"},
        )
        assert list(found["ordered"].items()) == [("b", 1), ("a", 2)]


def test_python_2_strings_are_latin_1(tmp_path):
    content = {"data": "a\xe9" * 1000, "n": "\xe9"}
    path = write_pickle(tmp_path / "a.pkl", content, python=2)
    found = reader.load(path, lazy=True)
    assert found["n"] == "\xe9"
    assert isinstance(found["data"], Stored)
    assert found["data"].read() == content["data"].encode("latin-1")
    assert reader.load(path)["data"] == content["data"].encode("latin-1")


def test_get_takes_keys_of_both_pythons(tmp_path):
    path = tmp_path / "a.pkl"
    assert reader.get({"data": 1}, "data", path) == 1
    assert reader.get({b"data": 2}, "data", path) == 2
    with pytest.raises(InputError, match=r"a\.pkl: expected a dict with 'data', got keys labels, x"):
        reader.get({b"x": 2, "labels": 1}, "data", path)
    with pytest.raises(InputError, match="a dict with 'data', got list"):
        reader.get([1], "data", path)


# --- hostile ----------------------------------------------------------------------------------------------------------


class Call:
    """Pickles to a call."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


CHAIN = b"c__builtin__\ngetattr\n(c__builtin__\n__import__\n(S'os'\ntRS'system'\ntR(S'touch ran'\ntR."
HUGE = b"\x80\x02cnumpy\nndarray\n(\x8a\x07" + (10**15).to_bytes(7, "little") + b"t\x85R."
ARRAY = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n%sU\x01b\x87R"
DTYPE = b"cnumpy\ndtype\nU\x02%sK\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"


def array_state(shape: bytes, kind: bytes = b"u1", raw: bytes = b"U\x03abc") -> bytes:
    return b"\x80\x02" + ARRAY % b"K\x00\x85" + b"(K\x01" + shape + DTYPE % kind + b"\x89" + raw + b"tb."


HOSTILE = {
    "os.system": (pickle.dumps(Call(os.system, "touch ran")), f"{os.name}.system"),
    "os.system of Python 2": (b"cos\nsystem\n(S'touch ran'\ntR.", "os.system"),
    "builtins.eval": (pickle.dumps(Call(eval, "open('ran', 'w')")), "builtins.eval"),
    "eval of Python 2": (b'c__builtin__\neval\n(S\'open("ran", "w")\'\ntR.', "__builtin__.eval"),
    "exec": (pickle.dumps(Call(exec, "open('ran', 'w')")), "builtins.exec"),
    "subprocess": (pickle.dumps(Call(subprocess.call, ["touch", "ran"])), "subprocess.call"),
    "open": (pickle.dumps(Call(open, "ran", "w")), "(_io|io).open"),
    "a reduce chain": (CHAIN, "__builtin__.getattr"),
    "its inner part": (b"c__builtin__\n__import__\n(S'os'\ntR.", "__builtin__.__import__"),
    "an instance": (b"(S'touch ran'\nios\nsystem\n.", "os.system"),
    "an object": (b"(cos\nsystem\nS'touch ran'\no.", "os.system"),
    "inside of an array": (pickle.dumps({"data": [IMAGES, Call(os.system, "touch ran")]}), "system"),
    "a dotted name": (b"\x80\x04\x8c\x05numpy\x8c\x0bcore.os.sys\x93.", "numpy.core.os.sys"),
    "numpy's own loader": (b"\x80\x02cnumpy\nload\nU\x01x\x85R.", "numpy.load"),
    "numpy.core's own doors": (b"\x80\x02cnumpy.core.multiarray\nfromfile\nU\x01x\x85R.", "fromfile"),
    "numpy.f2py": (b"\x80\x02cnumpy.testing._private.utils\nrunstring\nU\x01x\x85R.", "runstring"),
    "bytearray of 10**12": (pickle.dumps(Call(bytearray, 10**12)), "builtins.bytearray"),
    "bytes of 10**12": (
        b"\x80\x02cbuiltins\nbytes\n\x8a\x06" + (10**12).to_bytes(6, "little") + b"\x85R.",
        "builtins.bytes",
    ),
    "numpy.zeros": (b"\x80\x02cnumpy\nzeros\n\x8a\x07" + (10**15).to_bytes(7, "little") + b"\x85R.", "numpy.zeros"),
    "an empty array of 10**15": (HUGE, "numpy.ndarray"),
    "an array of 10**15 reconstructed": (
        b"\x80\x02" + ARRAY % (b"\x8a\x07" + (10**15).to_bytes(7, "little") + b"\x85") + b".",
        "1000000000000000",
    ),
    "an array of 10**15 with a state": (
        array_state(b"\x8a\x07" + (10**15).to_bytes(7, "little") + b"\x85"),
        "an array of 1000000000000000 bytes, of which it holds 3",
    ),
    "an array of negative shape": (array_state(b"J\xff\xff\xff\xff\x85"), "shape"),
    "an array of objects": (array_state(b"K\x01\x85", b"O8", b"]K\x01a"), "an array of type 'O8'"),
    "a list in the place of bytes": (array_state(b"K\x01\x85", b"u1", b"]K\x01a"), "an array of objects"),
    "an encoder": (b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aU\x03bz2\x86R.", "_codecs.encode to bz2"),
    "a state for a function": (b"\x80\x02c_codecs\nencode\nN}U\x0c__defaults__Ns\x86b.", "a state of function"),
    "a call of a string": (b"\x80\x02U\x01a)R.", "a call of str"),
    "an object with keywords": (b"\x80\x04ccollections\nOrderedDict\n)}\x92.", "keywords"),
    "a persistent id": (b"Pabc\n.", "outside of the file"),
    "an extension": (b"\x80\x02\x82\x01.", "an extension"),
}


@pytest.mark.parametrize("how", HOSTILE)
def test_what_is_no_data_is_refused_by_name(tmp_path, monkeypatch, how):
    data, named = HOSTILE[how]
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "bad.pkl"
    path.write_bytes(data)
    with pytest.raises(
        InputError, match=rf"bad\.pkl: expected a pickle of arrays .*, got one that asks for .*{named}"
    ) as caught:
        reader.load(path)
    assert "\n" not in str(caught.value)
    assert [file.name for file in tmp_path.iterdir()] == ["bad.pkl"]  # nothing ran


ANNOUNCED = {
    "bytes": b"\x80\x04\x8e" + struct.pack("<Q", 10**15),
    "bytes of a medium size": b"\x80\x03B" + struct.pack("<I", 2**31),
    "a bytearray": b"\x80\x05\x96" + struct.pack("<Q", 10**15),
    "text": b"\x80\x04\x8d" + struct.pack("<Q", 10**15),
    "a frame": b"\x80\x04\x95" + struct.pack("<Q", 10**15),
    "a string of Python 2": b"\x80\x02T" + struct.pack("<i", 2**31 - 1),
    "a string of negative length": b"\x80\x02T" + struct.pack("<i", -5),
    "a whole number": b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1),
    "a line": b"S'" + b"a" * (2 << 20),
}


@pytest.mark.parametrize("what", ANNOUNCED)
def test_what_is_announced_and_not_there_takes_no_memory(tmp_path, what):
    path = tmp_path / "bad.pkl"
    path.write_bytes(ANNOUNCED[what] + b"abc.")
    with pytest.raises(InputError, match="a truncated file or none of its kind"):
        reader.load(path)


def test_a_memo_of_huge_numbers_takes_no_memory(tmp_path):
    path = tmp_path / "a.pkl"
    path.write_bytes(b"\x80\x02K\x01r\xff\xff\xff\xff.")
    assert reader.load(path) == 1


def test_only_functions_of_ours_can_be_called():
    assert {function.__module__ for function in reader.CALLS} == {"mlkernels.datasets.safe_pickle.allowed"}


# --- damaged ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "an empty file"),
        (b"\n  <!DOCTYPE html><html>quota exceeded</html>", "an HTML page"),
        (pickle.dumps(CONTENT)[:-4000], "a truncated file"),
        (pickle.dumps(CONTENT)[:50], "a truncated file"),
        (b"\x80\x04K\x01", "a truncated file"),
        (b"not a pickle at all", "a damaged file|a truncated file"),
        (b"\x80\x09K\x01.", "a damaged file .ValueError"),
        (b"\x80\x02(K\x01u.", "a damaged file|a truncated file"),
    ],
)
def test_a_file_that_is_damaged_or_none(tmp_path, data, words):
    path = tmp_path / "bad.pkl"
    path.write_bytes(data)
    with pytest.raises(InputError, match=words):
        reader.load(path)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match=r"none\.pkl: expected a file that can be read, got No such file"):
        reader.load(tmp_path / "none.pkl")


def test_an_array_that_is_cut_short_after_it_was_opened(tmp_path):
    path = write_pickle(tmp_path / "a.pkl", CONTENT, python=2)
    images = reader.load(path, lazy=True)["image_data"]
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match=r"a\.pkl: expected a whole file, got \d+ bytes fewer"):
        list(images.chunks(10))


@pytest.mark.parametrize("change", [(b"\xc3", b"\xff"), (b"\xc3", b"a")])
def test_text_that_stands_for_bytes_and_is_damaged(tmp_path, change):
    path = write_pickle(tmp_path / "a.pkl", {"data": np.full((20, 100), 200, np.uint8)}, protocol=2)
    path.write_bytes(path.read_bytes().replace(*change, 1))
    images = reader.load(path, lazy=True)["data"]
    with pytest.raises(InputError, match=r"a\.pkl: expected a whole file, got"):
        list(images.chunks(3))


def test_reading_a_large_array_takes_no_memory(tmp_path):
    code = (
        "import resource, sys, pathlib\nfrom mlkernels.datasets.safe_pickle import reader\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "images = reader.load(pathlib.Path(sys.argv[1]), lazy=True)['data']\n"
        "total = sum(int(chunk[:, 0, 0, 0].sum()) for chunk in images.chunks(256))\n"
        "print(total, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    images = np.ones((5000, 84, 84, 3), np.uint8) * 200  # 106 MB, and more in a pickle for Python 2
    path = write_pickle(tmp_path / "a.pkl", {"data": images}, protocol=2)
    out = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True).stdout
    total, grown = map(int, out.split())
    assert total == 5000 * 200
    if sys.platform == "linux":  # where the number is in kB
        assert grown < 60_000
