"""Scores many candidates, some at a time, on all devices: the same arithmetic on one, on many, in many processes.

A batch of candidates is one pass through the super-network in which each sample knows its own candidate's gates. Its
first axis is spread over a mesh of devices; everything up to the kernels is done sample by sample.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from mlkernels.datasets import Dataset
from mlkernels.kernels import Kernels
from mlkernels.metantk import all_points
from mlkernels.nas.engine.ahead import compile_ahead
from mlkernels.nas.engine.devices import gathered, mesh_of, placed
from mlkernels.nas.engine.gram import bytes_needed, sample_kernels
from mlkernels.nas.engine.memory import scoring_bytes
from mlkernels.nas.engine.weights import head, init
from mlkernels.nas.pictures.search_images import search_patches, search_tasks
from mlkernels.nas.scores.first_order import change_without, first_order, mean_log_condition, role_orders
from mlkernels.nas.scores.kernel_scores import score_of
from mlkernels.nas.scores.regions import linear_regions, thin
from mlkernels.nas.scores.registry import SCORES, Draw
from mlkernels.nas.searching.ranking import Candidate, without
from mlkernels.nas.searching.settings import CONDITION_NUMBERS, SearchSettings
from mlkernels.support.memory import available_bytes, require

ROLES = 64  # orders of a batch's images, of which designs of ours take the mean
MOST_AT_ONCE = 8  # candidates a device; beyond it an accelerator is busy, and memory is better left free
BLIND = 1e5  # the published code's score for NaN, and where there are no features


@dataclass(frozen=True)
class Item:
    """A network to score.

    Attributes:
        gates: what is open.
        draw: which of the repeat's draws of images it is scored on.
        head: which of the heads it has, drawn for it alone; None is the one that all share.
        thin: the gates for the linear regions, where they are others.
    """

    gates: np.ndarray
    draw: int = 0
    head: int | None = None
    thin: np.ndarray | None = None


@dataclass(frozen=True)
class Scores:
    """What was found for an item: condition number (infinity is the worst) or the score in its place, what is wrong
    with it, linear regions."""

    condition: float | None
    regions: int | None
    note: str = ""


class Scorer:
    """Scores items of one round: `at_once` candidates a device in one pass.

    None is 1 on a CPU and as many as fit elsewhere, up to a few; of devices, all.
    """

    def __init__(
        self, settings: SearchSettings, dataset: Dataset, devices: int | None = None, at_once: int | None = None
    ):
        self.settings, self.dataset, self.mesh = settings, dataset, mesh_of(devices)
        self.spread = None if self.mesh.size == 1 else NamedSharding(self.mesh, PartitionSpec("candidates"))
        self.batch = self.mesh.size * (at_once or self._at_once())
        self.where = None
        alone = self.mesh.size == 1 and jax.process_count() == 1
        self.ahead = {"kernels", "regions"} if alone and jax.default_backend() != "cpu" else set()

    def _compile(self, what: str, function, *arrays) -> None:
        """Before a first pass, where that is worth it, all that it runs."""
        if what in self.ahead:
            self.ahead = self.ahead - {what}
            compile_ahead(function, *arrays)

    def _at_once(self) -> int:
        s = self.settings
        if s.condition == "none":
            return 1
        kernels, itemsize = s.condition in CONDITION_NUMBERS, np.dtype(s.dtype).itemsize
        needed = candidate_bytes(s) if kernels else scoring_bytes(s.layout, images_of(s), itemsize)
        require(needed, "scoring a network", "take fewer channels, cells, pixels or tasks")
        if not kernels:
            return 1
        return 1 if jax.default_backend() == "cpu" else max(1, min(MOST_AT_ONCE, available_bytes() // (2 * needed)))

    def begin(self, round_: int, repeat: int) -> None:
        """Draw the weights of a round's repeat; images are drawn when they are asked for.

        With `reference_quirks` a round's repeats share weights, and so do all rounds of edges; heads are drawn for each
        network, weights of thin networks for each candidate.
        """
        self.where, quirks = (round_, repeat), self.settings.reference_quirks
        own = jax.random.fold_in(jax.random.fold_in(self.settings.key, round_), repeat)
        thin_key, weights = own, own
        if quirks:
            thin_key, weights = (
                jax.random.fold_in(jax.random.fold_in(self.settings.key, shared), self.settings.repeats)
                for shared in (round_, min(round_, self.settings.edge_round))
            )
        self.thin_key = jax.random.split(jax.random.fold_in(thin_key, 0))[1]
        self.looks, self.heads, self.draws = jax.random.fold_in(own, 1), jax.random.fold_in(own, 2), {}
        layout, kind = self.settings.layout, self.settings.initialisation
        if self.settings.condition != "none":
            supernet = jax.random.split(jax.random.fold_in(weights, 0))[0]
            params = init(layout, key=supernet, initialisation=kind, dtype=self.settings.dtype)
            everywhere = NamedSharding(self.mesh, PartitionSpec())
            if self.spread is not None:
                params = jax.tree.map(lambda leaf: placed(np.asarray(leaf), everywhere), params)
            self.params = params
        if self.settings.regions:
            self.thin = thin(layout)
            self.thin_params = self._thin_weights(self.thin_key)

    def _thin_weights(self, key):
        s = self.settings
        return init(self.thin, key=key, initialisation=s.initialisation, dtype=s.dtype)

    def _images(self, draw: int):
        if draw not in self.draws:
            tasks, squares = jax.random.split(jax.random.fold_in(self.looks, draw))
            s = self.settings
            drawn = search_tasks(
                self.dataset, key=tasks, pixels=s.layout.pixels, way=s.layout.ways, shot=s.shot, queries=s.queries,
                tasks=s.tasks, dtype=s.dtype,
            )  # fmt: skip
            shown = None
            if s.regions:
                shape = {"batches": s.region_batches, "images": s.region_images}
                shown = search_patches(self.dataset, key=squares, **shape)
            self.draws = {draw: (drawn, shown), **dict(list(self.draws.items())[: self.batch])}
        return self.draws[draw]

    def __call__(self, items: Sequence[Item]) -> list[Scores]:
        """Scores of at most `batch` items."""
        conditions, notes = self._conditions(items)
        counts = self._regions(items)
        return [Scores(*found) for found in zip(conditions, counts, notes, strict=True)]

    def to_first_order(self, gates: np.ndarray, candidates: Sequence[Candidate]) -> list[Scores]:
        """About the scores of the network as it is and without each of some operations, by one derivative.

        The images change roles, as in `first_order.role_orders`. A draw whose spectrum has no condition number says
        nothing of any candidate: all are infinite. Linear regions are counted as ever, network by network.
        """
        s, (tasks, _) = self.settings, self._images(0)
        orders = self._orders(0)
        algorithm = s.algorithm if s.condition == "metantk" else "none"
        given = {"algorithm": algorithm, "inner_time": s.inner_time, "ridge": s.ridge, "orders": orders}
        found = first_order(s.layout, self.params, gates, tasks, **given)
        items = [Item(gates), *(Item(without(gates, each)) for each in candidates)]
        changes = [0.0, *(change_without(found.slopes, gates, each) for each in candidates)]
        parts = [items[i : i + self.batch] for i in range(0, len(items), self.batch)]
        counts = [count for part in parts for count in self._regions(part)]
        note = "" if math.isfinite(found.value) else "a smallest eigenvalue is not positive: the draw does not count"
        conditions = (_power(found.value + change) for change in changes)
        return [Scores(kappa, count, note) for kappa, count in zip(conditions, counts, strict=True)]

    def _conditions(self, items):
        s = self.settings
        if s.condition == "none":
            return [None] * len(items), [""] * len(items)
        if s.condition not in CONDITION_NUMBERS:
            return [float(SCORES[s.condition](self._draw(item.draw), item.gates)) for item in items], [""] * len(items)
        full = [*items, *[items[-1]] * (self.batch - len(items))]  # one shape, compiled once
        drawn = [self._images(item.draw)[0] for item in full]
        images = np.stack([np.asarray(all_points(tasks)) for tasks in drawn])
        gates = np.stack([item.gates for item in full])
        heads = None
        if s.condition == "metantk" and items[0].head is not None:
            heads = np.stack([head(s.layout, jax.random.fold_in(self.heads, item.head), s.dtype) for item in full])
        given = {"outputs": s.outputs, "heads": heads, "sharding": self.spread}
        kernels_of = partial(_kernels, s.layout, gates, given)
        self._compile("kernels", kernels_of, self.params, images)
        found = kernels_of(self.params, images)
        nngp, ntk = gathered((found.nngp, found.ntk))
        algorithm = s.algorithm if s.condition == "metantk" else "none"
        given = {"algorithm": algorithm, "inner_time": s.inner_time, "ridge": s.ridge, "precision": s.dtype}
        conditions, notes = [], []
        for number, tasks in enumerate(drawn[: len(items)]):
            kernels = Kernels(nngp[number], ntk[number])
            score = score_of(kernels, tasks, **given)
            kappa = blind(kernels, score.smallest, score.largest) if s.reference_quirks else score.value
            if s.design != "published":
                loop = {name: value for name, value in given.items() if name != "precision"}
                kappa = _power(mean_log_condition(kernels, tasks, orders=self._orders(items[number].draw), **loop))
            conditions.append(kappa)
            notes.append(score.note)
        return conditions, notes

    def _orders(self, draw: int) -> np.ndarray:
        """Ways to make support and queries of a draw's images."""
        return role_orders(self._images(draw)[0], ROLES, key=jax.random.fold_in(self.heads, draw))

    def _draw(self, draw: int) -> Draw:
        """What a score of the registry looks at."""
        s = self.settings
        inner_loop = {"algorithm": s.algorithm, "inner_time": s.inner_time, "ridge": s.ridge}
        return Draw(s.layout, self.params, self._images(draw)[0], luck=self.heads, inner_loop=inner_loop)

    def _regions(self, items) -> list[int | None]:
        if not self.settings.regions:
            return [None] * len(items)
        counts, processes = np.zeros(len(items), np.int64), jax.process_count()
        for draw in sorted({item.draw for item in items}):
            same = [n for n, item in enumerate(items) if item.draw == draw]
            mine = same[jax.process_index() :: processes]
            if mine:
                full = [*mine, *[mine[-1]] * (-(-self.batch // processes) - len(mine))]  # one shape here too
                gates = np.stack([items[n].gates if items[n].thin is None else items[n].thin for n in full])
                params = self.thin_params
                if self.settings.reference_quirks:
                    params = self._thin_weights(jax.random.fold_in(self.thin_key, draw))
                regions_of = partial(_counts, self.thin, gates)
                self._compile("regions", regions_of, params, self._images(draw)[1])
                counts[mine] = regions_of(params, self._images(draw)[1])[: len(mine)]
        return gathered(counts[None]).sum(0).tolist()


def images_of(settings: SearchSettings) -> int:
    """Images that a candidate is scored on."""
    return settings.tasks * settings.layout.ways * (settings.shot + settings.queries)


def _kernels(layout, gates, given: dict, params, images) -> Kernels:
    return sample_kernels(layout, params, gates, images, **given)


def _counts(layout, gates, params, images) -> list[int]:
    return linear_regions(layout, params, gates, images)


def _power(logarithm: float) -> float:
    """A condition number from its logarithm, which a slope may take anywhere."""
    return math.inf if math.isinf(logarithm) else math.exp(min(max(logarithm, -700.0), 700.0))


def candidate_bytes(settings: SearchSettings) -> int:
    """About how much memory scoring one candidate takes on a device."""
    ways = 1 if settings.outputs == "sum" else settings.layout.ways
    return bytes_needed(settings.layout, images_of(settings), ways, np.dtype(settings.dtype).itemsize)


def blind(kernels: Kernels, smallest: float, largest: float) -> float:
    """The condition number as the published code has it: 1e5 for NaN, and below zero where an eigenvalue is."""
    if math.isnan(smallest) or np.array_equal(kernels.ntk, kernels.nngp):
        return BLIND
    return largest / smallest if smallest else math.inf
