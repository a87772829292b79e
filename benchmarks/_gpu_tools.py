"""What `benchmarks.gpu` measures with: sizes, data, the clock of a call, compilations, peaks of devices."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import jax
import numpy as np

from benchmarks._gpu_known import GENOTYPE
from mlkernels import datasets, nas
from mlkernels.datasets import Dataset
from mlkernels.support.progress import Progress

# TFLOP/s of dense products, by the vendor's data sheets (which name the double of it, for sparse ones): bfloat16,
# float32 in TensorFloat-32, float32 outside of the tensor cores.
PEAKS = {
    "NVIDIA H200": (989.4, 494.7, 66.9),
    "NVIDIA H100 80GB HBM3": (989.4, 494.7, 66.9),
    "NVIDIA H100 PCIe": (756.0, 378.0, 51.0),
    "NVIDIA A100-SXM4-80GB": (312.0, 156.0, 19.5),
    "NVIDIA A100-SXM4-40GB": (312.0, 156.0, 19.5),
    "NVIDIA A100 80GB PCIe": (312.0, 156.0, 19.5),
}
KINDS = ("bfloat16", "float32, as JAX multiplies it", "float32, exact")


@dataclass(frozen=True)
class Sizes:
    """What is searched, trained and evaluated; the defaults are the paper's."""

    search: nas.SearchSettings = field(default_factory=nas.SearchSettings)
    network: nas.Layout = field(default_factory=lambda: nas.Layout(pixels=84, ways=64, norm="batch"))
    genotype: str = GENOTYPE
    train: nas.TrainSettings = field(default_factory=nas.TrainSettings)
    evaluate: dict = field(default_factory=dict)
    matrix: int = 8192
    train_ways: tuple = (("bfloat16", "auto"), ("float32", "auto"), ("bfloat16", "shifts"))
    ways: tuple = ((8, "lax", "default"), (8, "lax", "highest"), (8, "shifts", "default"), (32, "lax", "default"))


def small() -> Sizes:
    """What a CPU does in a minute."""
    space = nas.Space("small", ("skip_connect", "conv_3x3"), 1)
    layout = nas.Layout(space, cells=2, channels=2, pixels=8, ways=2)
    search = nas.SearchSettings(layout, repeats=1, region_batches=1, region_images=20, tasks=1)
    network = nas.Layout(space, cells=2, channels=2, pixels=8, ways=7, norm="batch")
    train = nas.TrainSettings(epochs=3, batch=16, padding=1)
    train_ways, ways = (("bfloat16", "auto"), ("float32", "auto")), ((1, "shifts", "default"),)
    few = {"episodes": 4, "queries": 3, "copies": 1, "way": 2, "block": 20}
    return Sizes(search, network, "N: c3<0 sk<1 R: c3<0 c3<1", train, few, 64, train_ways, ways)


def data_of(name: str, little: bool = False) -> tuple[Dataset, str]:
    """The dataset, and in words what it is: miniImageNet where it is found, or glyphs in its form."""
    if name == "miniimagenet" or (name == "auto" and not little and datasets.available("miniimagenet")):
        return datasets.load("miniimagenet"), "miniImageNet"
    how_many = {"classes": 12, "drawings": 10} if little else {"classes": 103, "drawings": 60}
    glyphs = datasets.load("glyphs", **how_many)
    three = {"images": np.repeat(glyphs.images, 3, axis=-1), "mean": np.repeat(glyphs.mean, 3)}
    coloured = replace(glyphs, **three, std=np.repeat(glyphs.std, 3))
    return coloured, f"{coloured} in three equal colours, which stand in for miniImageNet: accuracies are not its"


class OutOfTime(Exception):
    """What a part's share of the time is over with."""


@dataclass
class Run:
    """One call: its sizes, its data, its time, and whoever keeps what is known so far."""

    sizes: Sizes
    dataset: Dataset
    seed: int
    end: float
    keep: Callable[[dict], object]
    result: dict
    model: nas.Trained | None = None

    def left(self) -> float:
        return self.end - time.monotonic()

    def watch(self, part: str, share: float) -> Callable[[Progress], None]:
        """For `progress`: notes how far a part is, and ends it when its share of what was left is over."""
        stop, told = time.monotonic() + share * self.left(), [time.monotonic()]

        def progress(state: Progress) -> None:
            now = time.monotonic()
            if now - told[0] > 10:
                told[0] = now
                self.keep(
                    {
                        **self.result,
                        part: {"so_far": [state.done, state.total], "about_seconds_left": state.seconds_left},
                    }
                )
            if now > stop:
                raise OutOfTime(f"{state.done} of {state.total} {state.text}".strip())

        return progress


class Compiled:
    """The compilations within a context: how many programs, seconds of them all, and those of everything."""

    def __init__(self):
        self.programs, self.seconds, self.on = 0, 0.0, False
        jax.monitoring.register_event_duration_secs_listener(self._told)

    def _told(self, event: str, seconds: float, **_) -> None:
        if self.on and event.endswith("backend_compile_duration"):
            self.programs, self.seconds = self.programs + 1, self.seconds + seconds

    def __enter__(self):
        self.on, self.programs, self.seconds, self.start = True, 0, 0.0, time.monotonic()
        return self

    def __exit__(self, *_):
        self.on, self.wall = False, time.monotonic() - self.start

    def described(self) -> dict:
        """Compilations of several threads count each, so that they may be more than the wall's seconds."""
        times = {"wall_s": round(self.wall, 2), "compile_s_of_all_threads": round(self.seconds, 2)}
        return times | {"programs_compiled": self.programs}


def timed(call: Callable, runs: int = 5) -> float:
    """Seconds of the quickest of some calls, after one that compiles."""
    jax.block_until_ready(call())
    seconds = []
    for _ in range(runs):
        start = time.perf_counter()
        jax.block_until_ready(call())
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def share_of(run: Run, flops_a_second: float, kind: str) -> dict:
    """Of the peaks of one kind, the measured one and that of the data sheet."""
    of = run.result.get("peak", {}).get("by_kind", {}).get(kind, {})
    shares = {"tflops": round(flops_a_second / 1e12, 5)}
    for name, words in (
        ("tflops_measured", "share_of_measured_peak"),
        ("tflops_of_the_data_sheet", "share_of_data_sheet"),
    ):
        shares[words] = round(flops_a_second / 1e12 / of[name], 5) if of.get(name) else None
    return shares


def memory() -> dict:
    """The most that the device has held so far, where it says so."""
    stats = jax.devices()[0].memory_stats() or {}
    return {"peak_bytes_so_far": stats.get("peak_bytes_in_use"), "bytes_limit": stats.get("bytes_limit")}
