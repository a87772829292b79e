"""The search: prune the super-network to one operation an edge, then to two inputs a node, without training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mlkernels.datasets import Dataset
from mlkernels.datasets.fingerprint import described
from mlkernels.nas.searching.clock import Clock
from mlkernels.nas.searching.ranking import (
    OLD_RULE,
    RULE,
    Candidate,
    choose,
    edges_left,
    operations_left,
    rank_sums,
    without,
)
from mlkernels.nas.searching.record import LOG, RESULT, Record
from mlkernels.nas.searching.scorer import Item, Scorer, Scores
from mlkernels.nas.searching.settings import SearchSettings
from mlkernels.nas.space.genotype import CELL_TYPES, Genotype
from mlkernels.nas.space.search_space import Space, check_space
from mlkernels.support import results
from mlkernels.support.progress import Progress
from mlkernels.support.strict_json import dumps


@dataclass(frozen=True)
class Found:
    """What a search found.

    Attributes:
        genotype: the architecture.
        log: one dict a decision, as in the log file, where infinities are texts.
        gates: the gates after each round, the open ones first: bool `[cell type, edge, operation]` each.
        seconds: what it took, all sessions together.
    """

    genotype: Genotype
    log: tuple[dict, ...]
    gates: tuple[np.ndarray, ...]
    seconds: float


def search(
    settings: SearchSettings,
    dataset: Dataset,
    *,
    out: Path | str | None = None,
    devices: int | None = None,
    at_once: int | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Found:
    """Search for an architecture without training any.

    In each round every open operation is taken out by turns, and the condition number of the MetaNTK and the count of
    linear regions are compared with those of the network that has it; on each edge the operation goes that is missed
    least (with the derivative design the first of the two is had to first order, for all candidates at once, from many
    draws). When one is left on every edge, a node a round loses edges by the same rule: those into it are compared with
    each other, all but the two that are missed most go, and the next node is scored on the network as it is then.

    Args:
        settings: what to search for and how.
        dataset: its first split is looked at, labels and images.
        out: a folder for `state.json` (after each batch of candidates), `log.jsonl` (a line a decision) and
            `result.json`. The same call goes on where it was stopped, to the same result, on the same images alone.
        devices: how many to spread candidates over; all there are by default, in all processes of `jax.distributed`.
        at_once: candidates a device in one pass; None leaves it to the device.
        progress: is called after every batch.

    Returns:
        `Found`.

    Raises:
        InputError: a folder of another search or of other images, too few images or classes, too little memory, too
            many devices.

    Example:
        >>> from mlkernels import datasets
        >>> from mlkernels.nas import Layout
        >>> space = Space("two", ("skip_connect", "max_pool_3x3"), 1)
        >>> layout = Layout(space, cells=2, channels=2, pixels=8, ways=2, colours=1)
        >>> settings = SearchSettings(layout, repeats=1, region_images=20, tasks=1)
        >>> found = search(settings, datasets.load("glyphs"))
        >>> found.genotype.nodes, len(found.log)
        (1, 5)

    Source: Wang et al. 2022 (MetaNTK-NAS).
    """
    about = settings.described() | _data(dataset)
    record = Record(None if out is None else Path(out), about)
    scorer = Scorer(settings, dataset, devices, at_once)
    space, gates, log, history = settings.layout.space, settings.layout.space.open_gates(), [], []
    clock = Clock(settings, record, progress)
    while candidates := operations_left(gates) or edges_left(space, gates):
        history.append(gates)
        items = _score_round(settings, scorer, record, clock, history, candidates)
        log += _decide(settings, len(history), candidates, items)
        gates = _pruned(gates, log, len(history), space)
        record.write(LOG, "".join(dumps(line) + "\n" for line in log))
    genotype = space.genotype_of(gates)
    log.append({"genotype": repr(genotype), "short": str(genotype), "rule": RULE})
    record.write(LOG, "".join(dumps(line) + "\n" for line in log))
    if record.folder is not None:
        more = {"seconds": round(record.seconds, 1), "settings": about, "devices": int(scorer.mesh.size)}
        results.save(record.folder / RESULT, log[-1] | more, seed=settings.seed)
    return Found(genotype, tuple(log), (*history, gates), record.seconds)


def _data(dataset: Dataset) -> dict:
    """What tells the images that a search looks at from others, for its folder."""
    about = described(dataset.only(next(iter(dataset.splits))))
    count, classes, images = next(iter(about["splits"].values()))
    size = list(dataset.images.shape[1:])
    data = f"{dataset.name}: {count} images {size} of {classes} classes"
    return {"data": data, "images": images, "mean": about["mean"], "std": about["std"]}


def _items(settings: SearchSettings, history: list[np.ndarray], candidates: list[Candidate]) -> list[Item]:
    """What is scored in each repeat: the network as it is, once or for each candidate, and without each candidate."""
    gates = history[-1]
    if settings.reference_quirks:
        stale = history[min(len(history), settings.edge_round) - 1]  # what edges are compared with keeps them all
        return [
            item
            for number, each in enumerate(candidates, start=1)
            for item in (Item(stale, number, 2 * number, gates), Item(without(gates, each), number, 2 * number + 1))
        ]
    return [Item(gates), *(Item(without(gates, each)) for each in candidates)]


def _score_round(settings, scorer, record, clock, history, candidates) -> list[list[Scores]]:
    """Scores `[repeat][item]` of the last round of those that began with such gates, those in the record included."""
    number, items = len(history), _items(settings, history, candidates)
    at_once = settings.design == "derivative" and candidates[0][2] is not None
    draws = settings.draws[number - 1]
    if len(record.done) < number:
        for repeat in range(draws):
            start = max(0, len(record.partial) - repeat * len(items))
            if start >= len(items):
                continue
            scorer.begin(number, repeat)
            if at_once:
                record.add(scorer.to_first_order(history[-1], candidates), clock.seconds())
                clock.tell(number, candidates, len(items))
                continue
            while start < len(items):
                batch = items[start : start + scorer.batch]
                record.add(scorer(batch), clock.seconds())
                start += len(batch)
                clock.tell(number, candidates, len(items))
        record.close_round()
    has = settings.condition != "none", settings.regions
    rows = record.round(number, draws * len(items), has)
    return [rows[i * len(items) : (i + 1) * len(items)] for i in range(draws)]


def _changes(settings, scores: list[list[Scores]], attribute: str) -> tuple[list, list, list]:
    """Values with and without each candidate, and the relative changes, each `[candidate][repeat]`."""
    rows = [[getattr(each, attribute) for each in repeat] for repeat in scores]
    if settings.reference_quirks:
        origins, others = [row[::2] for row in rows], [row[1::2] for row in rows]
    else:
        others = [row[1:] for row in rows]
        origins = [[row[0]] * (len(row) - 1) for row in rows]
    origins, others = list(zip(*origins, strict=True)), list(zip(*others, strict=True))
    change = [list(map(settings.change(attribute), *pair)) for pair in zip(origins, others, strict=True)]
    return origins, others, change


def _decide(settings, number: int, candidates, scores) -> list[dict]:
    """The log's lines of a round: for each candidate that goes, what was compared on its edge or at its node."""
    table = [{} for _ in candidates]
    changes = {}
    for name, used in (("condition", settings.condition != "none"), ("regions", settings.regions)):
        if not used:
            continue
        origins, others, changes[name] = _changes(settings, scores, name)
        for row, origin, other, change in zip(table, origins, others, changes[name], strict=True):
            row[name] = {"with": list(origin), "without": list(other), "change": list(change)}
    given = {"precision": settings.precision, "larger": settings.larger}
    sums, *ranks = rank_sums(changes.get("condition"), changes.get("regions"), **given)
    for name, ranked in zip(("condition", "regions"), ranks, strict=True):
        for row, rank in zip(table, ranked if ranked is not None else (), strict=False):
            row[name]["rank"] = int(rank)
    for row, total in zip(table, sums, strict=True):
        row["rank_sum"] = int(total)
    _note(settings, table, scores)
    space, lines = settings.layout.space, []
    for kind, edge, operation in choose(candidates, sums, ranks[0]):
        node, source = space.edges[edge]
        line = {"round": number, "cell": CELL_TYPES[kind], "node": node, "input": source}
        if operation is None:
            peers = {str(space.edges[e][1]): row for (k, e, _), row in zip(candidates, table, strict=True)
                     if k == kind and space.edges[e][0] == node}  # fmt: skip
            line |= {"pruned": "edge", "scores": peers}
        else:
            names = space.operations
            peers = {
                names[op]: row for (k, e, op), row in zip(candidates, table, strict=True) if (k, e) == (kind, edge)
            }
            line |= {"pruned": names[operation], "scores": peers}
        lines.append(line)
    return lines


def _note(settings, table: list[dict], scores) -> None:
    """Say of each candidate what was wrong with its spectra."""
    step = 2 if settings.reference_quirks else 1
    for number, row in enumerate(table):
        found = [repeat[1 + number * step].note for repeat in scores]
        if any(found):
            row["notes"] = found


def _pruned(gates: np.ndarray, log: list[dict], number: int, space: Space) -> np.ndarray:
    """The gates after a round, from its lines in the log."""
    for line in log:
        if line.get("round") == number:
            edge = space.edges.index((line["node"], line["input"]))
            operation = None if line["pruned"] == "edge" else space.operations.index(line["pruned"])
            gates = without(gates, (CELL_TYPES.index(line["cell"]), edge, operation))
    return gates


def rule_of(log) -> str:
    """The rule by which a recorded search has pruned, as its last line says; those of older searches name none.

    Example:
        >>> rule_of([{"genotype": "...", "short": "..."}])
        'all edges in one pool; of equal sums the first candidate'
    """
    last = log[-1]
    return last.get("rule", OLD_RULE if "genotype" in last else RULE)  # one that is not finished is of this version


def replay(log, space: Space) -> list[np.ndarray]:
    """The gates after each round of a recorded search, the open ones first; whatever its rule (`rule_of`) was.

    Args:
        log: the log's lines, as dicts.
        space: the search space.

    Raises:
        InputError: what is no `Space`.

    Example:
        >>> from mlkernels.nas.space.search_space import SPACES
        >>> line = {"round": 1, "cell": "normal", "node": 0, "input": 1, "pruned": "conv_3x3"}
        >>> [int(gates.sum()) for gates in replay([line], SPACES["darts_fewshot"])]
        [126, 125]
    """
    states = [check_space(space).open_gates()]
    for number in range(1, 1 + max((line.get("round", 0) for line in log), default=0)):
        states.append(_pruned(states[-1], list(log), number, space))
    return states
