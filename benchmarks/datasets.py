"""miniImageNet's episodes from the prepared form: time and memory against the cache pickle and against JPEG files."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import jax
import numpy as np
from PIL import Image

from benchmarks._measure import ROOT, alternate, peak_rss, ratios, summary, table
from mlkernels import datasets, tasks
from mlkernels.datasets.folders import VARIABLE
from mlkernels.datasets.importing.recipe import Part
from mlkernels.datasets.importing.write import write_prepared
from mlkernels.datasets.lazy_rows import CHUNK

NAME = "miniimagenet"
CLASSES = {"train": 64, "val": 16, "test": 20}
SHAPE = (84, 84, 3)
WAY, SHOT, QUERIES = 5, 1, 15
OURS, PICKLE = "prepared form, memory-mapped", "cache pickle, held in memory"
JPEG, LARGE_JPEG = "JPEG files of 84x84, Pillow", "JPEG files of 500x375, resized"
SIZES = {JPEG: (84, 84), LARGE_JPEG: (500, 375)}
PICKLED = "mini-imagenet-cache-train.pkl"
GOAL = {"times_faster": 5.0, "peak_bytes": 500_000_000}


class Jpegs:
    """JPEG files as an array-like of images: what is asked for is opened and decoded."""

    def __init__(self, folder: Path, count: int):
        self._files = [folder / f"{number:05d}.jpg" for number in range(count)]
        self.shape, self.dtype = (count, *SHAPE), np.dtype(np.uint8)

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        return np.stack([self._open(self._files[row]) for row in rows])

    def _open(self, file: Path) -> np.ndarray:
        with Image.open(file) as image:
            small = image if image.size == SHAPE[:2] else image.resize(SHAPE[:2], Image.Resampling.BILINEAR)
            return np.asarray(small.convert("RGB"))


def smooth_images(seed: int, count: int) -> np.ndarray:
    """Smooth random images, which JPEG packs as it does photographs: uint8 `[count, 84, 84, 3]`."""
    coarse = np.random.default_rng(seed).integers(0, 256, (count, 12, 12, 3)).astype(np.uint8)
    return np.stack([np.asarray(Image.fromarray(one).resize(SHAPE[:2], Image.Resampling.BICUBIC)) for one in coarse])


def make_set(folder: Path, seed: int, per_class: int) -> None:
    """A set of miniImageNet's size in the prepared form, of synthetic images that repeat."""
    pool = smooth_images(seed, CHUNK)

    def images(count: int) -> Iterator[np.ndarray]:
        for start in range(0, count, CHUNK):
            yield np.roll(pool, start // CHUNK, axis=1)[: count - start]

    parts = {
        split: Part(
            class_names=[f"{split}{number}" for number in range(classes)],
            labels=np.repeat(np.arange(classes), per_class),
            images=partial(images, classes * per_class),
        )
        for split, classes in CLASSES.items()
    }
    write_prepared(folder / NAME, name=NAME, parts=parts, shape=SHAPE, source="synthetic", licence="none")


def write_others(data: datasets.Dataset, folder: Path, jpegs: int) -> None:
    """The training split as a cache pickle, and `jpegs` images of each of its classes as JPEG files of both sizes."""
    rows = np.arange(len(data.images)).reshape(len(data.class_names), -1)
    classes = {f"n{number:08d}": row.tolist() for number, row in enumerate(rows)}
    with open(folder / PICKLED, "wb") as file:  # protocol 4, which loads faster than the published files' 2
        pickle.dump({"image_data": np.asarray(data.images[:]), "class_dict": classes}, file, protocol=4)
    for label, size in SIZES.items():
        (folder / label).mkdir()
        for number, row in enumerate(rows[:, :jpegs].ravel()):
            image = Image.fromarray(np.asarray(data.images[row]))
            image.resize(size, Image.Resampling.BICUBIC).save(folder / label / f"{number:05d}.jpg", quality=90)


def opened(kind: str, folder: Path, jpegs: int) -> datasets.Dataset:
    """The training split, opened in one of the ways."""
    if kind == OURS:
        return datasets.load(NAME, "train")
    if kind == PICKLE:
        with open(folder / PICKLED, "rb") as file:
            content = pickle.load(file)
        images, per_class = content["image_data"], len(next(iter(content["class_dict"].values())))
    else:
        images, per_class = Jpegs(folder / kind, CLASSES["train"] * jpegs), jpegs
    names = tuple(map(str, range(CLASSES["train"])))
    labels = np.repeat(np.arange(len(names)), per_class)
    splits = {"train": np.arange(len(names))}
    return datasets.Dataset(
        NAME, images, labels, names, splits, np.full(3, 0.45), np.full(3, 0.27), str(folder), "none"
    )


def sample(data: datasets.Dataset, seed: int, count: int) -> jax.Array:
    """Episodes one after the other, each on the device, in float32, normalised."""
    for key in jax.random.split(jax.random.key(seed), count):
        options = {"normalise": "dataset", "dtype": np.float32}
        batch = jax.block_until_ready(tasks.episodes(data, "train", WAY, SHOT, QUERIES, 1, key, **options))
    return batch.query_x


def fresh(kind: str, folder: Path, jpegs: int, episodes: int, seed: int) -> dict:
    """In this process: seconds to open, memory at the peak of opening and many episodes, all of the process counted."""
    jax.block_until_ready(jax.numpy.zeros(1))  # so that no device is set up within what is timed
    start = time.perf_counter()
    data = opened(kind, folder, jpegs)
    seconds = time.perf_counter() - start
    before = peak_rss()
    sample(data, seed, episodes)
    return {"open_s": round(seconds, 4), "peak_after_opening_bytes": before, "peak_bytes": peak_rss()}


def in_fresh_process(kind: str, folder: Path, jpegs: int, episodes: int, seed: int) -> dict:
    """`fresh` in a process of its own."""
    words = [kind, str(folder), str(jpegs), str(episodes), str(seed)]
    command = [sys.executable, "-m", "benchmarks.datasets", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def measure(
    seed: int = 0, runs: int = 5, per_class: int = 600, jpegs: int = 20, episodes: int = 10, opens: int = 3
) -> dict:
    """Times in this process, the ways in turn; opening time and peak memory each in fresh processes.

    Takes the user's miniImageNet where it is in the prepared form, else makes a synthetic set of its size. Needs about
    2.5 GB in the folder for temporary files.

    Returns:
        `settings`, `times` of `episodes` episodes, `episodes_per_second`, `times_faster` than each other way, `fresh`
        (opening times, peak memory), and whether the goals are met.
    """
    ways = (OURS, PICKLE, JPEG, LARGE_JPEG)
    with tempfile.TemporaryDirectory(prefix="bench-") as name, _found_in(Path(name)) as where:
        folder = Path(name)
        if where is None:
            make_set(folder, seed, per_class)
        data = datasets.load(NAME, "train")
        write_others(data, folder, jpegs)
        processes = {}
        for way in ways:
            count = episodes if way in SIZES else 10 * episodes
            found = [in_fresh_process(way, folder, jpegs, count, seed + turn) for turn in range(opens)]
            seconds = summary({way: [one["open_s"] for one in found]})[way]
            peaks = {key: max(one[key] for one in found) for key in ("peak_after_opening_bytes", "peak_bytes")}
            processes[way] = {"open": seconds, **peaks}
        calls = {way: partial(sample, opened(way, folder, jpegs), seed, episodes) for way in ways}
        times = summary(alternate(calls, runs))
        images = {"images": len(data.images), "source": "synthetic" if where is None else "a user's copy"}
    faster = {way: ratios(times, way, OURS) for way in ways[1:]}
    rate = {way: {kind: round(episodes / times[way][f"{kind}_s"], 1) for kind in ("min", "median")} for way in ways}
    how = (
        f"{WAY}-way {SHOT}-shot {QUERIES}-query episodes of 84x84x3 in float32 on the device, normalised, one at a "
        "time; files in the system's cache; JPEG quality 90; peak_bytes: largest resident memory of a fresh process, "
        f"Python and JAX counted, that opens the set and makes {10 * episodes} episodes, "
        f"{episodes} from JPEG files"
    )
    met = {
        "times_faster": all(faster[JPEG][kind] >= GOAL["times_faster"] for kind in ("min", "median")),
        "peak_bytes": processes[OURS]["peak_bytes"] < GOAL["peak_bytes"],
    }
    return {
        "settings": {**images, "jpegs_a_class": jpegs, "episodes": episodes, "how": how},
        "times": times,
        "episodes_per_second": rate,
        "times_faster": faster,
        "fresh": processes,
        "goal": {**GOAL, "met": met},
    }


@contextmanager
def _found_in(folder: Path) -> Iterator[str | None]:
    """Where the user has the set in its prepared form; if nowhere, None, and it is looked for in `folder` meanwhile."""
    before, found = os.environ.get(VARIABLE), datasets.available(NAME)
    if found is None:
        os.environ[VARIABLE] = str(folder)
    try:
        yield found
    finally:
        os.environ.pop(VARIABLE, None)
        if before is not None:
            os.environ[VARIABLE] = before


def report(result: dict) -> str:
    """The result for people."""
    rows = [["way", "episodes/s (best)", "median", "opening s", "peak MB"]]
    for way, rate in result["episodes_per_second"].items():
        process = result["fresh"][way]
        numbers = (f"{rate['min']:.1f}", f"{rate['median']:.1f}", f"{process['open']['median_s']:.3f}")
        rows.append([way, *numbers, f"{process['peak_bytes'] / 1e6:.0f}"])
    lines = [f"{result['settings']['images']} images ({result['settings']['source']})"]
    for way, ratio in result["times_faster"].items():
        lines.append(f"{ratio['min']} times the episodes per second of: {way} (median {ratio['median']})")
    met = result["goal"]["met"]
    for name, words in (("times_faster", "5 times JPEG reading"), ("peak_bytes", "peak below 500 MB")):
        lines.append(f"goal, {words}: {'met' if met[name] else 'NOT met'}")
    return "\n".join([table(rows), *lines])


if __name__ == "__main__":
    found = fresh(sys.argv[1], Path(sys.argv[2]), *map(int, sys.argv[3:6]))
    print(json.dumps(found))
