"""How reliable a round of the architecture search is, for designs of draws: published, and by one derivative.

    python -m benchmarks.nas_designs draws --kind exact --count 4          # each an hour of a slow core, or less
    python -m benchmarks.nas_designs draws --kind derivative --count 150
    python -m benchmarks.nas_designs draws --kind crossed --count 16       # as long as exact ones
    python -m benchmarks.nas_designs summary
    python -m benchmarks.nas_designs rounds --log FOLDER/log.jsonl         # the changes of a search's rounds

Draws are kept, one a file, in build/nas_designs, so that a stopped run goes on; the summary is a file of data/results.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import jax
import numpy as np

from benchmarks._measure import ROOT
from mlkernels import datasets
from mlkernels.metantk import all_points
from mlkernels.nas import Layout, init, init_head, sample_kernels, search_tasks
from mlkernels.nas.evaluation.reliability import log_changes
from mlkernels.nas.pictures.search_images import search_patches
from mlkernels.nas.scores.first_order import change_without, first_order, mean_log_condition, role_orders
from mlkernels.nas.scores.regions import linear_regions, thin
from mlkernels.nas.searching.ranking import operations_left, without
from mlkernels.nas.searching.search import rule_of
from mlkernels.support import results
from mlkernels.support.memory import keep_freed

ROLES = 64
NOTE = "miniImageNet from a re-compressed copy: its images are not those of the original to the last bit"
LOOP = {"algorithm": "maml", "inner_time": np.inf, "ridge": 1e-3}


def keys_of(seed: int, number: int):
    """For weights, tasks, thin weights, patches and roles of a draw."""
    return jax.random.split(jax.random.fold_in(jax.random.key(seed), number), 5)


def drawn(layout, data, keys, head=None):
    """Weights, of which the head may have its own key, and tasks of a draw."""
    params, tasks = init(layout, key=keys[0]), search_tasks(data, key=keys[1], pixels=layout.pixels)
    if head is not None:
        params = params | {"head": (init_head(layout, head),)}
    return params, tasks


def exact(layout, data, keys, every: int = 1, head=None) -> dict:
    """The mean of log kappa with and without candidates, or every fourth, say: of the batch's roles, and of many."""
    params, tasks = drawn(layout, data, keys, head)
    gates, images = layout.space.open_gates(), all_points(tasks)
    each = [gates, *(without(gates, candidate) for candidate in operations_left(gates)[::every])]
    orders = role_orders(tasks, ROLES, key=keys[4])
    kernels = [sample_kernels(layout, params, one, images) for one in each]
    own = [mean_log_condition(kernel, tasks, orders=orders[:1], **LOOP) for kernel in kernels]
    roles = [mean_log_condition(kernel, tasks, orders=orders, **LOOP) for kernel in kernels]
    return {"own": np.array(own), "roles": np.array(roles), "every": every}


def derivative(layout, data, keys) -> dict:
    """The value, and the first-order change without each candidate, the mean over many roles of the images."""
    params, tasks = drawn(layout, data, keys)
    gates, orders = layout.space.open_gates(), role_orders(tasks, ROLES, key=keys[4])
    found = first_order(layout, params, gates, tasks, orders=orders, **LOOP)
    changes = [change_without(found.slopes, gates, each) for each in operations_left(gates)]
    return {"roles": found.value + np.array([0.0, *changes])}


def levels(number: int) -> tuple[int, ...]:
    """Which draw of weights, of head and of tasks a crossed one takes: eight after the other have two of each."""
    return tuple(2 * (number // 8) + (number >> cause & 1) for cause in range(3))


def crossed(layout, data, seed: int, number: int, every: int = 1) -> dict:
    """As `exact`, of draws of weights, of heads and of tasks in all combinations; which roles there are is shared."""
    base = jax.random.fold_in(jax.random.key(seed), 10**6)
    weights, head, tasks = (
        jax.random.fold_in(jax.random.fold_in(base, cause), level) for cause, level in enumerate(levels(number))
    )
    return exact(layout, data, (weights, tasks, None, None, base), every, head)


def regions(layout, data, keys) -> dict:
    """Counts of the thin network as it is and without each candidate."""
    small, gates = thin(layout), layout.space.open_gates()
    params, patches = init(small, key=keys[2]), search_patches(data, key=keys[3])
    each = [gates, *(without(gates, candidate) for candidate in operations_left(gates))]
    return {"counts": np.array([linear_regions(small, params, one, patches) for one in each])}


KINDS = {"exact": exact, "derivative": derivative, "crossed": crossed, "regions": regions}


def draws(kind: str, first: int, count: int, *, every: int, channels: int, data: str, seed: int, folder: Path) -> None:
    """Make the draws that are missing."""
    folder.mkdir(parents=True, exist_ok=True)
    dataset, layout = datasets.load(data), Layout(channels=channels)
    for number in range(first, count):
        path = folder / f"{kind}_{channels}_{seed}_{number}.npz"
        if path.exists():
            continue
        start = time.process_time()
        more = {"every": every} if kind in ("exact", "crossed") else {}
        which = (seed, number) if kind == "crossed" else (keys_of(seed, number),)
        found = KINDS[kind](layout, dataset, *which, **more)
        np.savez(path.with_suffix(".part.npz"), **found, seconds=time.process_time() - start)
        path.with_suffix(".part.npz").replace(path)
        print(f"{path.name}: {time.process_time() - start:.1f} s of processor time", flush=True)


def summary(*, channels: int, data: str, seed: int, folder: Path) -> dict:
    """All draws that are kept, as plain numbers: changes of log kappa `[draw][candidate]`, and what a draw cost."""
    found: dict = {"channels": channels, "data": data, "note": NOTE, "roles": ROLES, "candidates": 126}
    for kind in KINDS:
        rows, seconds = [], []
        for number in range(10**4):
            path = folder / f"{kind}_{channels}_{seed}_{number}.npz"
            if path.exists():
                kept = dict(np.load(path))
                seconds.append(float(kept.pop("seconds")))
                about = {"levels": levels(number)} if kind == "crossed" else {}
                rows.append(
                    {"number": number} | about | {name: _changes(name, values) for name, values in kept.items()}
                )
        found[kind] = {"draws": rows, "seconds": [round(each, 2) for each in seconds]}
    return found


def _changes(name: str, values: np.ndarray):
    """The first of the values is that of the network as it is."""
    if name == "every":
        return int(values)
    logs = np.log(values) if name == "counts" else values
    return [round(float(each), 5) for each in logs[1:] - logs[0]]


def packed(log: Path) -> dict:
    """The changes of a recorded search's rounds, from its log.jsonl."""
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    rounds = {
        str(number): {name: np.round(changes, 5).tolist() for name, changes in each.items()}
        for number, each in log_changes(lines).items()
    }
    return {"log": log.name, "rule": rule_of(lines), "note": NOTE, "rounds": rounds}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("draws", "summary", "rounds"))
    parser.add_argument("--log", type=Path, help="of a search, for rounds")
    parser.add_argument("--name", default="miniimagenet_5x48", help="of that search")
    parser.add_argument("--kind", choices=tuple(KINDS), default="derivative")
    parser.add_argument("--count", type=int, default=10)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--channels", type=int, default=16)
    parser.add_argument("--data", default="miniimagenet")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "nas_designs")
    given = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    keep_freed()
    options = {name: getattr(given, name) for name in ("channels", "data", "seed", "folder")}
    if given.what == "draws":
        draws(given.kind, given.first, given.count, every=given.every, **options)
        return
    if given.what == "rounds":
        content, name = packed(given.log), f"nas_rounds_{given.name}_seed{given.seed}"
        command = f"python -m benchmarks.nas_designs rounds --log {given.log.name} --name {given.name}"
    else:
        content, name = summary(**options), f"nas_designs_{given.data}_{given.channels}"
        command = f"python -m benchmarks.nas_designs summary --channels {given.channels}"
    results.save(ROOT / "data" / "results" / f"{name}.json", content, seed=given.seed, command=command)


if __name__ == "__main__":
    main()
