"""How reliable a round of the architecture search is, for designs of draws: published, and by one derivative.

    python -m benchmarks.nas_designs draws --kind exact --count 4          # each an hour of a slow core, or less
    python -m benchmarks.nas_designs draws --kind derivative --count 150
    python -m benchmarks.nas_designs summary

Draws are kept, one a file, in build/nas_designs, so that a stopped run goes on; the summary is a file of data/results.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import jax
import numpy as np

from benchmarks._measure import ROOT
from mlkernels import datasets
from mlkernels.metantk import all_points
from mlkernels.nas import Layout, init, sample_kernels, search_tasks
from mlkernels.nas.pictures.search_images import search_patches
from mlkernels.nas.scores.first_order import change_without, first_order, mean_log_condition, role_orders
from mlkernels.nas.scores.regions import linear_regions, thin
from mlkernels.nas.searching.ranking import operations_left, without
from mlkernels.support.memory import keep_freed

ROLES = 64
LOOP = {"algorithm": "maml", "inner_time": np.inf, "ridge": 1e-3}


def keys_of(seed: int, number: int):
    """For weights, tasks, thin weights, patches and roles of a draw."""
    return jax.random.split(jax.random.fold_in(jax.random.key(seed), number), 5)


def exact(layout, data, keys) -> dict:
    """Kernels `[127, 30, 30]` of the network as it is and without each candidate."""
    params, tasks = init(layout, key=keys[0]), search_tasks(data, key=keys[1], pixels=layout.pixels)
    gates, images = layout.space.open_gates(), all_points(tasks)
    each = [gates, *(without(gates, candidate) for candidate in operations_left(gates))]
    kernels, orders = [], role_orders(tasks, ROLES, key=keys[4])
    kernels = [sample_kernels(layout, params, one, images) for one in each]
    found = {"own": orders[:1], "roles": orders}
    return {
        name: np.array([mean_log_condition(k, tasks, orders=order, **LOOP) for k in kernels])
        for name, order in found.items()
    } | {"ntk": np.stack([np.asarray(k.ntk) for k in kernels]).astype(np.float32)}


def derivative(layout, data, keys, width: float = 0.0) -> dict:
    """The value, and the first-order change without each candidate, of the batch's own roles or over many."""
    params, tasks = init(layout, key=keys[0]), search_tasks(data, key=keys[1], pixels=layout.pixels)
    gates = layout.space.open_gates()
    orders = role_orders(tasks, ROLES, key=keys[4])
    given = {**LOOP, "width": width}
    found = first_order(layout, params, gates, tasks, orders=orders, **given)
    changes = [change_without(found.slopes, gates, each) for each in operations_left(gates)]
    return {"roles": np.array([found.value, *changes])}


def regions(layout, data, keys) -> dict:
    """Counts of the thin network as it is and without each candidate."""
    small, gates = thin(layout), layout.space.open_gates()
    params, patches = init(small, key=keys[2]), search_patches(data, key=keys[3])
    each = [gates, *(without(gates, candidate) for candidate in operations_left(gates))]
    return {"counts": np.array([linear_regions(small, params, one, patches) for one in each])}


KINDS = {"exact": exact, "derivative": derivative, "regions": regions}


def draws(kind: str, count: int, *, channels: int, data: str, seed: int, folder: Path) -> None:
    """Make the draws that are missing."""
    folder.mkdir(parents=True, exist_ok=True)
    dataset, layout = datasets.load(data), Layout(channels=channels)
    for number in range(count):
        path = folder / f"{kind}_{channels}_{seed}_{number}.npz"
        if path.exists():
            continue
        start = time.process_time()
        found = KINDS[kind](layout, dataset, keys_of(seed, number))
        np.savez(path.with_suffix(".part.npz"), **found, seconds=time.process_time() - start)
        path.with_suffix(".part.npz").replace(path)
        print(f"{path.name}: {time.process_time() - start:.1f} s of processor time", flush=True)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("draws", "summary"))
    parser.add_argument("--kind", choices=tuple(KINDS), default="derivative")
    parser.add_argument("--count", type=int, default=10)
    parser.add_argument("--channels", type=int, default=16)
    parser.add_argument("--data", default="miniimagenet")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "nas_designs")
    given = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    keep_freed()
    if given.what == "draws":
        options = {name: getattr(given, name) for name in ("channels", "data", "seed", "folder")}
        draws(given.kind, given.count, **options)


if __name__ == "__main__":
    main()
