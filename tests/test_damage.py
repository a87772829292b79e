"""Every file that a command reads back, damaged in a dozen ways: the same result, or a line that says what is wrong."""

from __future__ import annotations

import functools
import hashlib
import io
import json
import math
import random
import re
import tarfile
import tempfile
import tracemalloc
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path

import jax
import numpy as np
import optax
import pytest
import test_history
from _cli import status_of
from _damage import TEXTS, flip, flips, huge, tally, ways
from _nas_search import settings, synthetic
from _nas_train import data as train_data
from _nas_train import network
from _nas_train import settings as train_settings
from test_prepared import ABOUT, make_parts

from mlkernels.commands import nas
from mlkernels.course.demos import search_replay
from mlkernels.course.live import SearchPicture
from mlkernels.datasets import folders, tieredimagenet
from mlkernels.datasets.importing.archives import unpack
from mlkernels.datasets.importing.write import write_prepared
from mlkernels.datasets.lazy_rows import Mapped
from mlkernels.datasets.prepared import open_prepared, verify_prepared
from mlkernels.errors import InputError
from mlkernels.learners.maml import InnerLoop, fit
from mlkernels.learners.outer_loop import history
from mlkernels.nas import SPACES, load_trained, search, train
from mlkernels.nas.searching.record import Record
from mlkernels.nas.searching.scorer import Scores
from mlkernels.networks import MLP
from mlkernels.runner import notebooks
from mlkernels.runner.editions import folder as export
from mlkernels.support import checked_arrays, results
from mlkernels.support.kept_rows import Kept
from mlkernels.tasks import sinusoid

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Case:
    """A file, what reads it, and the same file under other settings."""

    path: Path
    door: object
    others: tuple[bytes, ...] = ()
    ours: bool = True  # not a stranger's, which has no checksum of ours


def equal(one, other) -> bool:
    """Whether two results are the same to the bit."""
    return str(jax.tree.structure(one)) == str(jax.tree.structure(other)) and all(
        np.array_equal(np.asarray(a), np.asarray(b), equal_nan=np.asarray(a).dtype.kind == "f")
        for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    )


# --- one of each kind -------------------------------------------------------------------------------------------------


def search_state(folder: Path) -> Case:
    def record(about, folder):
        found = Record(folder, about)
        return [
            [[s.condition, s.regions, s.note] for s in rows] for rows in (*found.done, found.partial)
        ], found.seconds

    def write(folder, seed):
        record = Record(folder, {"seed": seed, "mean": [0.25]})
        record.add([Scores(2.72, 31, ""), Scores(float("inf"), 7, "one eigenvalue of 3 was dropped")], 1.25)
        record.close_round()
        record.add([Scores(None, 12, "")], 2.5)
        return folder / "state.json"

    other = write(folder / "other", 1).read_bytes()
    return Case(
        write(folder / "own", 0), functools.partial(record, {"seed": 0, "mean": [0.25]}, folder / "own"), (other,)
    )


def kept(kind: str, value, folder: Path) -> Case:
    def write(path, about):
        rows = Kept(path, kind, about)
        rows.diverged["two"] = "loss: expected a finite number, got nan"
        for name in ("one", "two"):
            rows.add(name, value)
        return path

    def door(path):
        found = Kept(path, kind, {"seed": 0})
        return found.rows, found.diverged

    path = write(folder / "own" / "kept.json", {"seed": 0})
    other = write(folder / "other" / "kept.json", {"seed": 1})
    swapped = "scores" if kind == "accuracy" else "accuracy"
    kinds = Kept(folder / "other" / "kinds.json", swapped, {"seed": 0})
    kinds.add("one", {"entropy": 1.0} if swapped == "scores" else 0.5)
    return Case(path, functools.partial(door, path), (other.read_bytes(), kinds.path.read_bytes()))


def result(folder: Path) -> Case:
    path = folder / "result.json"
    results.save(path, {"genotype": "N: c3<0 sk<1 R: mp<0 c3<1", "short": "N"}, seed=1)
    return Case(path, lambda: repr(nas._genotype(str(path))))


NETWORK, ADAM, INNER = MLP(3), optax.adam(1e-2), InnerLoop(0.02, 1)
TASKS = sinusoid(tasks=2, support=3, queries=3, key=jax.random.key(0))


def fit_checkpoint(folder: Path, end: int = 3) -> Case:
    def door(path, rate=0.02):
        params = NETWORK.init(jax.random.key(1), (1,))
        found = fit(NETWORK.apply, params, TASKS, InnerLoop(rate, 1), ADAM, steps=end, checkpoint=path)
        return found.params, found.losses, found.opt_state

    door(folder / "other" / "run.npz", 0.03)
    return Case(
        folder / "own" / "run.npz",
        functools.partial(door, folder / "own" / "run.npz"),
        ((folder / "other" / "run.npz").read_bytes(),),
    )


def measurements(folder: Path) -> Case:
    def door(path, **more):
        found = test_history.run(path, steps=4, **more)
        return found.step, found.seconds, found.value

    door(folder / "other" / "run.npz", key=jax.random.key(3))
    other = (folder / "other" / "run.npz.history.json").read_bytes()
    return Case(folder / "own" / "run.npz.history.json", functools.partial(door, folder / "own" / "run.npz"), (other,))


def training(folder: Path) -> Case:
    def door():
        found = load_trained(folder / "own")
        return found.variables, list(found.history), found.mean, found.data, str(found.network.genotype)

    for name, seed in (("own", 3), ("other", 4)):
        train(network(), train_data(), train_settings(epochs=1, seed=seed), out=folder / name)
    return Case(folder / "own" / "checkpoint.npz", door)


def manifest(folder: Path, read=open_prepared) -> Case:
    for name in ("tiny", "other"):
        write_prepared(folder / name / "tiny", parts=make_parts(), **(ABOUT | {"name": name}))

    def door():
        found = read(folder / "tiny" / "tiny", name="tiny")
        if isinstance(found, dict):
            return found["mean"], found["splits"], found["equal"]
        splits = {split: ids.tolist() for split, ids in found.splits.items()}
        images = np.asarray(found.images) if read is not open_prepared else 0
        return images, found.labels, found.class_names, found.wnids, splits, found.mean, found.std, found.licence

    other = (folder / "other" / "tiny" / "manifest.json").read_bytes()
    return Case(folder / "tiny" / "tiny" / "manifest.json", door, (other,))


def pixels(name: str, folder: Path) -> Case:
    case = manifest(folder, verify_prepared)
    return replace(case, path=case.path.with_name(name), others=(case.path.with_name("test_images.npy").read_bytes(),))


def prepared_npz(folder: Path) -> Case:
    path = folder / "omniglot_28.npz"
    arrays = {"images": np.arange(24, dtype=np.uint8).reshape(6, 2, 2, 1), "class_names": np.array(["é", "b"])}
    checked_arrays.save(path, arrays, compressed=True)
    return Case(path, lambda: {name: array.tolist() for name, array in folders.read_npz(path, arrays, "it").items()})


ZIP_OR_TAR = ("zip", "gz", "bz2", "xz")  # a tar that nothing packs has no checksums
FILES = {"images/a.jpg": b"abc" * 50, "images/b.jpg": bytes(range(200))}


def archive(kind: str, folder: Path) -> Case:
    """Stands for all that `data get` reads of strangers."""

    def door():
        with tempfile.TemporaryDirectory() as scratch:
            unpack(path, Path(scratch))
            files = [file for file in Path(scratch).rglob("*") if file.is_file()]
            return {file.relative_to(scratch).as_posix(): file.read_bytes() for file in files}

    path = folder / f"a.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            for name, content in FILES.items():
                file.writestr(name, content)
    else:
        with tarfile.open(path, f"w:{kind}") as file:
            for name, content in FILES.items():
                about = tarfile.TarInfo(name)
                about.size = len(content)
                file.addfile(about, io.BytesIO(content))
    return Case(path, door, ours=False)


def tiered_npz(folder: Path) -> Case:
    path = folder / "train_images.npz"
    np.savez(path, images=np.arange(2 * 84 * 84 * 3, dtype=np.uint32).astype(np.uint8).reshape(2, 84, 84, 3))

    def door():
        count, pieces = tieredimagenet._npz(path)
        return count, list(pieces())

    return Case(path, door, ours=False)


def export_record(folder: Path) -> Case:
    """What it allows is to write over these files; that is right only as long as they are those of the record."""
    content = b"{}"
    record = {"edition": "students", "files": {"01_a.ipynb": hashlib.sha256(content).hexdigest()}}
    folder.joinpath("01_a.ipynb").write_bytes(content)
    folder.joinpath(export.RECORD).write_text(json.dumps(record))
    return Case(folder / export.RECORD, lambda: export._refuse_loss(folder, "students", {"01_a"}))


CASES = {
    "state of a search": search_state,
    "kept accuracies": functools.partial(kept, "accuracy", 0.5),
    "kept scores": functools.partial(kept, "scores", {"entropy": 1.5, "FLOPs": float("-inf")}),
    "result": result,
    "checkpoint of fit": fit_checkpoint,
    "measurements": measurements,
    "checkpoint of a training": training,
    "manifest, opened": manifest,
    "manifest, verified": functools.partial(manifest, read=verify_prepared),
    "images, verified": functools.partial(pixels, "val_images.npy"),
    "labels, verified": functools.partial(pixels, "val_labels.npy"),
    "prepared npz": prepared_npz,
    "record of an export": export_record,
    "npz of images": tiered_npz,
    **{f"archive, {kind}": functools.partial(archive, kind) for kind in ZIP_OR_TAR},
}
SLOW = {  # every so manieth damage alone
    "npz of images": 3,
    "measurements": 6,
    "checkpoint of fit": 3,
    "checkpoint of a training": 3,
}


@pytest.mark.parametrize("kind", CASES)
def test_a_damaged_file_is_named_or_does_no_harm(kind, tmp_path):
    case = CASES[kind](tmp_path)
    case.door()
    rng = random.Random(kind)
    damages = list(ways(case.path.read_bytes(), rng, case.others, case.ours))
    damages = damages[:: SLOW.get(kind, 1)]
    found = tally(case.path, case.door, iter(damages), equal)
    assert not found.faults, f"{found}; {found.faults[:5]}"
    assert found.counts["same"] < len(damages) / 4, f"{found}: the damage did not reach what is read"


OLD = {"state of a search": 3, "kept accuracies": 2, "kept scores": 2, "result": None, "manifest, opened": 1}


@pytest.mark.parametrize("kind", OLD)
def test_a_file_of_before_checksums_is_read_and_its_form_is_looked_at(kind, tmp_path):
    """Another number in it cannot be told, but what has another form is said as in those of today."""
    case = CASES[kind](tmp_path)
    content = json.loads(case.path.read_text())
    old = {name: value for name, value in content.items() if name not in ("kind", "format", "sha256")}
    old |= {} if OLD[kind] is None else {"format": OLD[kind]}
    expected = case.door()
    case.path.write_text(json.dumps(old))
    assert equal(case.door(), expected)
    found = tally(case.path, case.door, ways(case.path.read_bytes(), random.Random(kind)), equal)
    assert not [fault for fault in found.faults if not fault.startswith("silent")]
    assert found.counts["refused"] + found.counts["set aside"] > 20


@pytest.mark.once
@pytest.mark.parametrize("kind", CASES)
def test_a_flipped_bit_in_any_byte_or_in_many_is_named_or_does_no_harm(kind, tmp_path):
    case = CASES[kind](tmp_path)
    case.door()
    count = 600 // SLOW[kind] if kind in SLOW else None
    found = tally(case.path, case.door, flips(case.path.read_bytes(), random.Random(kind), count), equal)
    print(f"{kind}, {case.path.stat().st_size} bytes: {found}")
    assert not found.faults, f"{found}; {found.faults[:5]}"


# --- what becomes of it -----------------------------------------------------------------------------------------------


def flipped(path: Path, old: bytes, new: bytes) -> bytes:
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new, 1))
    return path.read_bytes()


def test_a_search_whose_state_is_damaged_stops_and_then_begins_anew(tmp_path):
    class Stop(Exception):
        pass

    def until(number, progress):
        if progress.done >= number:
            raise Stop

    def run(number):
        told = settings(repeats=1, region_images=20, tasks=1, condition="none")
        with pytest.raises(Stop):
            search(told, synthetic(), out=tmp_path, progress=functools.partial(until, number))

    run(3)
    state = tmp_path / "state.json"
    number = json.loads(state.read_text())["partial"][1][1]
    content = flipped(state, f"[null, {number}".encode(), f"[null, {number + 4}".encode())
    with pytest.raises(InputError, match=r"got a damaged .*checksum.*kept as state.json.broken-1; call again"):
        run(5)
    assert (tmp_path / "state.json.broken-1").read_bytes() == content
    seen = []
    with pytest.raises(Stop):
        search(
            settings(repeats=1, region_images=20, tasks=1, condition="none"), synthetic(), out=tmp_path,
            progress=lambda progress: (seen.append(progress.done), until(1, progress)),
        )  # fmt: skip
    assert seen == [1]


def test_a_state_of_before_checksums_is_read_and_its_form_is_looked_at(tmp_path):
    case = search_state(tmp_path)
    expected, saved = case.door(), json.loads(case.path.read_text())
    old = {name: value for name, value in saved.items() if name not in ("kind", "sha256")} | {"format": 3}
    case.path.write_text(json.dumps(old))
    assert case.door() == expected
    huge = 10**400  # JSON has it, floating point has not
    for name, value in (
        ("done", [[["abc", 3, ""]]]), ("done", [[[2.5, True, ""]]]), ("partial", [[1.0]]),
        ("done", [[[huge, 3, ""]]]), ("partial", [[2.5, -huge, ""]]), ("seconds", huge), ("seconds", math.inf),
    ):  # fmt: skip
        case.path.write_text(json.dumps(old | {name: value}))
        with pytest.raises(InputError, match="a whole file, got a damaged file"):
            case.door()
    case.path.write_text(json.dumps(saved | {"format": 3}))  # which has a checksum: of another content
    with pytest.raises(InputError, match="its checksum is that of another content"):
        case.door()


def test_a_checkpoint_of_before_checksums_is_read(tmp_path):
    case = training(tmp_path)
    expected = case.door()
    with np.load(case.path) as file:
        arrays = {name: file[name] for name in file.files if name != checked_arrays.SUM}
    about = json.loads(arrays["about"].tobytes())
    for number in (1, 2):
        about["format"] = number
        np.savez(case.path, **arrays | {"about": np.frombuffer(json.dumps(about).encode(), np.uint8)})
        if number == 1:
            assert equal(case.door(), expected)
    with pytest.raises(InputError, match=r"it has no checksum.*kept as checkpoint.npz.broken-1"):
        case.door()


def test_a_round_that_lacks_scores_is_a_damaged_state(tmp_path):
    search_state(tmp_path)
    record = Record(tmp_path / "own", {"seed": 0, "mean": [0.25]})
    assert len(record.round(1, 2, (True, True))) == 2
    for count, has in ((3, (True, True)), (2, (False, True))):
        with pytest.raises(InputError, match="not all scores of round 1"):
            record.round(1, count, has)
        (tmp_path / "own" / "state.json.broken-1").rename(tmp_path / "own" / "state.json")


@pytest.mark.parametrize("value", [0.9, "abc", None, 1.5, -0.1, True])
def test_kept_rows_of_before_checksums_take_no_other_values(value, tmp_path):
    case = kept("accuracy", 0.5, tmp_path)
    found = json.loads(case.path.read_text())
    old = {name: item for name, item in found.items() if name not in ("kind", "sha256")} | {"format": 2}
    case.path.write_text(json.dumps(old | {"accuracy": {"one": value, "two": 0.5}}))
    if value == 0.9:  # nothing can tell
        assert case.door()[0]["one"] == value
        return
    with pytest.raises(InputError, match=f"{value!r} as accuracy of one"):
        case.door()


def test_a_manifest_of_before_checksums_opens_and_is_held_against_the_pixels(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "fc100"
    write_prepared(folder, parts=make_parts(), **(ABOUT | {"name": "fc100"}))
    path, expected = folder / "manifest.json", open_prepared(folder)
    old = {name: value for name, value in json.loads(path.read_text()).items() if name not in ("kind", "sha256")}
    old["format"] = 1
    path.write_text(json.dumps(old))
    assert open_prepared(folder).class_names == expected.class_names
    monkeypatch.setenv("MLKERNELS_DATA", str(tmp_path))
    assert status_of("data", "verify", "fc100") == 0
    assert "of an earlier version, without a checksum" in capsys.readouterr().out
    old["mean"][0] += 0.3
    path.write_text(json.dumps(old))
    with pytest.raises(InputError, match="means or deviations other than those of the first split"):
        open_prepared(folder)
    old["splits"]["train"]["mean"][0] += 0.3
    path.write_text(json.dumps(old))
    open_prepared(folder)  # which reads no pixel
    assert status_of("data", "verify", "fc100") == 1
    assert "mean" in capsys.readouterr().err


def test_a_manifest_of_another_dataset_is_refused(tmp_path):
    write_prepared(tmp_path / "fc100", parts=make_parts(), **ABOUT)
    with pytest.raises(InputError, match="expected the manifest of fc100, got that of tiny"):
        open_prepared(tmp_path / "fc100", name="fc100")


def test_the_command_line_says_it_in_one_line(tmp_path, capsys):
    path = result(tmp_path).path
    assert status_of("nas", "genotype", path) == 0
    capsys.readouterr()
    flipped(path, b"c3<0", b"c3<1")
    assert status_of("nas", "genotype", path) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "its checksum is that of another content" in " ".join(said.err.split())
    assert path.exists()  # a result that somebody names is not moved


def test_a_folder_that_cannot_be_renamed_in_says_so(tmp_path, monkeypatch):
    case = search_state(tmp_path)
    case.path.write_text("{")

    def refuse(*given):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.replace", refuse)
    with pytest.raises(InputError, match=r"move it away yourself \(Permission denied\), then call again"):
        case.door()


def test_a_damaged_mark_of_a_data_folder_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("MLKERNELS_DATA", str(tmp_path))
    folders.claim(tmp_path)
    assert folders.why_not(tmp_path) is None
    for text in ("[" * 100_000, "{}", ""):
        (tmp_path / folders.MARK).write_text(text)
        assert folders.why_not(tmp_path).endswith("is damaged")


# --- headers of arrays, and nested JSON -------------------------------------------------------------------------------


def test_a_damaged_header_of_an_array_is_one_kind_of_error(tmp_path):
    """Each bit of the first 128 bytes."""
    path = tmp_path / "a.npy"
    np.save(path, np.arange(12, dtype=np.uint8).reshape(3, 4))
    content = path.read_bytes()
    damages = ((f"bit {bit}", flip(content, bit // 8, bit % 8)) for bit in range(8 * 128))
    found = tally(path, lambda: Mapped(path, (3, 4), np.uint8).array.tolist(), damages, equal)
    assert not found.faults, found.faults[:5]
    assert found.counts["refused"] > 600  # the rest is space


@pytest.mark.parametrize("dtype", [np.uint8, np.float64, "U8"])
def test_an_array_that_says_it_is_huge_takes_no_room(dtype, tmp_path):
    (tmp_path / "a.npy").write_bytes(huge(np.zeros(2, dtype)))
    with pytest.raises(InputError, match=r"a\.npy"):
        Mapped(tmp_path / "a.npy", (2,), dtype)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.write(tmp_path / "a.npy", "a.npy")
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"a\.npy: .* bytes, not"):
        checked_arrays.load(tmp_path / "a.npz")
    assert tracemalloc.get_traced_memory()[1] < 1e7
    tracemalloc.stop()


READERS = {
    "a notebook": lambda path: notebooks.read_notebook(path),
    "a recorded search": lambda path: search_replay.unpack(path),
    "a search's result": lambda path: nas._genotype(str(path)),
    "a manifest": lambda path: open_prepared(path.parent),
    "measurements": lambda path: history._load(path, np.zeros(0), path),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("text", TEXTS)
def test_other_json_is_one_kind_of_error(reader, text, tmp_path):
    path = tmp_path / "manifest.json"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        READERS[reader](path)
    assert "\n" not in str(caught.value)


def test_a_notebook_that_is_a_folder_or_a_link_to_nothing_is_one_kind_of_error(tmp_path):
    (tmp_path / "01_a.ipynb").mkdir()
    for path in (tmp_path / "01_a.ipynb", tmp_path / "02_nowhere.ipynb"):
        with pytest.raises(InputError, match=r"expected a notebook .*; restore the file"):
            notebooks.read_notebook(path)


def test_a_damaged_log_draws_nothing(tmp_path):
    picture = SearchPicture(SPACES["darts_fewshot"], tmp_path)
    for text in ("{", "[" * 100_000, "[]", '{"round": 1}', '{"round": "x"}'):
        (tmp_path / "log.jsonl").write_text(text)
        picture()
    assert picture.rounds == -1


def test_every_reader_is_a_shared_one():
    """json.loads, np.load and zipfile each raise errors of their own; what reads files goes through support."""
    allowed = {
        "mlkernels/support/strict_json.py", "mlkernels/support/checked_arrays.py", "mlkernels/support/file_faults.py",
        "mlkernels/runner/worker.py", "mlkernels/runner/execute.py", "mlkernels/runner/jobs.py",
        "mlkernels/runner/report.py", "mlkernels/runner/point.py", "mlkernels/nas/engine/devices.py",
        "mlkernels/nas/training/trained.py", "mlkernels/nas/training/settings.py",
    }  # fmt: skip
    found = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "mlkernels").rglob("*.py")
        if re.search(r"\bjson\.loads?\(|\bnp\.load\(", path.read_text(encoding="utf-8"))
    }
    assert found <= allowed
