"""What a search will cost here: two networks are scored, and the rest follows from the operations that are open."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import jax
import numpy as np

from mlkernels.datasets import Dataset
from mlkernels.nas.scores.regions import thin
from mlkernels.nas.searching.ranking import choose, edges_left, operations_left, without
from mlkernels.nas.searching.scorer import Item, Scorer, candidate_bytes
from mlkernels.nas.searching.settings import SearchSettings
from mlkernels.nas.space.layout import flop_count


@dataclass(frozen=True)
class Estimate:
    """What a search will cost.

    Attributes:
        evaluations: networks that are scored, or what derivatives cost as much as.
        flops: floating-point operations of all of them.
        bytes: memory at once on each device.
        compile_seconds: measured, of what is compiled once.
        seconds: about, the whole search with that.
        devices: over how many it is spread.
    """

    evaluations: int
    flops: float
    bytes: int
    compile_seconds: float
    seconds: float
    devices: int


def flops_of(settings: SearchSettings, gates) -> float:
    """Floating-point operations of scoring one network: four times the forward pass.

    Forwards, forwards again block by block on the way back, and backwards twice, by inputs and by weights.
    """
    total = 0.0
    if settings.condition != "none":
        images = settings.tasks * settings.layout.ways * (settings.shot + settings.queries)
        back = 1 if settings.outputs == "sum" else settings.layout.ways
        total += (2 + 2 * back) * images * flop_count(settings.layout, gates)
    if settings.regions:
        total += settings.region_batches * settings.region_images * flop_count(thin(settings.layout), gates)
    return total


def round_flops(settings: SearchSettings) -> list[float]:
    """Floating-point operations of scoring one network in each round, where the first operations and edges go first."""
    space, found = settings.layout.space, []
    gates = space.open_gates()
    for _ in settings.candidates:
        found.append(flops_of(settings, gates))
        left = operations_left(gates) or edges_left(space, gates)
        for each in choose(left, range(len(left))):  # the first ones
            gates = without(gates, each)
    return found


def estimate(
    settings: SearchSettings, dataset: Dataset, *, devices: int | None = None, at_once: int | None = None
) -> Estimate:
    """Measure what a search will cost here, in about the time of its compilation.

    The network with all operations is scored twice, the first time with compilation, and one with a single operation an
    edge once it is compiled too; time is taken to be linear in the floating-point operations between them.

    Args:
        settings, dataset, devices, at_once: as in `search`.

    Returns:
        An `Estimate`.

    Raises:
        InputError: as `search`.

    Source: the rounds of `search`; notebook 04.
    """
    scorer = Scorer(settings, dataset, devices, at_once)
    scorer.begin(0, 0)
    full = settings.layout.space.open_gates()
    single = full & (np.arange(full.shape[-1]) == full.shape[-1] - 1)
    first, *times = [_timed(scorer, gates) for gates in (full, full, single)]
    counting = _timed(scorer, full, scorer._regions) if settings.cost != settings.evaluations else 0.0
    whole, part = flops_of(settings, full), flops_of(settings, single)
    slope = max((times[0] - times[1]) / (whole - part), 0.0) if whole > part else 0.0
    passes, seconds, flops = settings.cost, 0.0, 0.0
    for count, networks, each in zip(passes, settings.evaluations, round_flops(settings), strict=True):
        seconds += -(-count // scorer.batch) * (times[1] + slope * (each - part))
        seconds += max(networks - count, 0) / scorer.batch * counting  # regions, of which there is no derivative
        flops += count * each
    needed = candidate_bytes(settings) * (scorer.batch // scorer.mesh.size)
    compiling = max(first - times[0], 0.0)
    return Estimate(sum(passes), flops, needed, compiling, compiling + seconds, scorer.mesh.size)


def _timed(scorer: Scorer, gates, score: Callable | None = None) -> float:
    start = time.perf_counter()
    (score or scorer)([Item(gates)] * scorer.batch)
    jax.effects_barrier()
    return time.perf_counter() - start
