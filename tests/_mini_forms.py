"""miniImageNet with two images a class in the true layout of each of its forms, for tests."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from _pictures import jpeg, picture
from _python2 import write_pickle

from mlkernels.datasets.importing.recipe import SPLITS
from mlkernels.datasets.miniimagenet.classes import classes

WNIDS = list(classes())
OF = {split: [number for number, wnid in enumerate(WNIDS) if classes()[wnid][0] == split] for split in SPLITS}
EACH = 2  # images a class, in the place of 600


def write_cache(folder: Path, python: int = 2, protocol: int = 4, val: str = "val", blue_first: bool = False) -> Path:
    """Form A."""
    for split in SPLITS:
        pairs = [(number, index) for index in range(EACH) for number in reversed(OF[split])]  # mixed, as it may be
        images = np.stack([picture(*pair) for pair in pairs])
        rows = {WNIDS[number]: [row for row, pair in enumerate(pairs) if pair[0] == number] for number in OF[split]}
        content = {"image_data": images[..., ::-1] if blue_first else images, "class_dict": rows}
        name = f"mini-imagenet-cache-{val if split == 'val' else split}.pkl"
        write_pickle(folder / name, content, python, protocol)
    return folder


def write_category(folder: Path, python: int = 2, **more) -> Path:
    """Form B: labels are numbered over all splits; the other files hold more images of the training classes."""
    for split, name in (("train", "train_phase_train"), ("train", "train_phase_val"), ("val", "val"), ("test", "test")):
        first = EACH if name == "train_phase_val" else 0
        pairs = [(number, first + index) for number in OF[split] for index in range(EACH)]
        content = {"data": np.stack([picture(*pair) for pair in pairs]), "labels": [number for number, _ in pairs]}
        more = {"catname2label": {WNIDS[number]: number for number in OF[split]}} if more else {}
        write_pickle(folder / f"miniImageNet_category_split_{name}.pickle", content | more, python)
    return folder


def write_lists(folder: Path, take=lambda number: range(1, EACH + 1)) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for split in SPLITS:
        rows = [f"{WNIDS[n]}{rank:08d}.jpg,{WNIDS[n]}" for n in OF[split] for rank in take(n)]
        (folder / f"{split}.csv").write_text("\n".join(["filename,label", *rows, ""]))


def write_files(folder: Path, name="{wnid}{rank:08d}.jpg", size=(84, 84), each: int = EACH) -> Path:
    """Form C: image files, the first of each class under rank 1."""
    for split in SPLITS:
        for number in OF[split]:
            for index in range(each):
                path = folder / name.format(wnid=WNIDS[number], rank=index + 1, split=split)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(jpeg(number, index, size))
    return folder


def write_ilsvrc(folder: Path, each: int = 4, tars: bool = False) -> Path:
    """Form F: names carry numbers with gaps, and images are of any size. The order of names is not that of numbers."""
    numbers = (9, 10, 101, 1002, 20003)[:each]
    folder.mkdir(parents=True, exist_ok=True)
    for number, wnid in enumerate(WNIDS):
        images = {f"{wnid}_{n}.JPEG": jpeg(number, i, (90 + number, 130)) for i, n in enumerate(numbers)}
        if tars:
            (folder / f"{wnid}.tar").write_bytes(tarred(images))
        else:
            (folder / wnid).mkdir()
            for name, data in images.items():
                (folder / wnid / name).write_bytes(data)
    return folder


def tarred(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return out.getvalue()


def write_parquet(
    folder: Path, rows: dict[str, list[tuple[int, int]]], label, names=None, pieces: int = 2, path=lambda *pair: None
) -> Path:
    """Forms D and E: a struct of bytes and path, and a label whose names the datasets library notes."""
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    folder.mkdir(parents=True, exist_ok=True)
    for split, pairs in rows.items():
        own = names[split] if isinstance(names, dict) else names
        kind = {"names": own, "_type": "ClassLabel"} if own else {"dtype": "int64", "_type": "Value"}
        about = {"info": {"features": {"image": {"_type": "Image"}, "label": kind}}}
        for piece in range(pieces):
            own = pairs[piece::pieces]
            files = [{"bytes": jpeg(*pair, (100, 120)), "path": path(*pair)} for pair in own]
            table = pyarrow.table({"image": files, "label": [label(number) for number, _ in own]})
            table = table.replace_schema_metadata({"huggingface": json.dumps(about)})
            parquet.write_table(table, folder / f"{split}-{piece:05d}-of-{pieces:05d}-0123456789abcdef.parquet")
    return folder


def few_shot_rows() -> dict[str, list[tuple[int, int]]]:
    return {
        {"val": "validation"}.get(split, split): [(number, index) for index in range(EACH) for number in OF[split]]
        for split in SPLITS
    }


def supervised_rows(train: int = EACH - 1) -> dict[str, list[tuple[int, int]]]:
    every = range(len(WNIDS))
    return {
        "train": [(number, index) for index in range(train) for number in every],
        "validation": [(number, train) for number in every],
        "test": [(number, 99) for number in every],
    }


def sorted_place(number: int) -> int:
    return sorted(WNIDS).index(WNIDS[number])
