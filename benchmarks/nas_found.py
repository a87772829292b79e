"""Does a ranking that repeats find better architectures? Searches by each design, what they find trained on one budget.

    python -m benchmarks.nas_found --seeds 6        # Omniglot; about an hour of a core, goes on where it was stopped

At the size, on the images and with the trainings of `nas compare`, so that its random architectures stand beside them.
Searches and trainings are kept in build/nas_found; the result is a file of data/results.
"""

from __future__ import annotations

import argparse
import time
from itertools import combinations
from pathlib import Path

import jax
import numpy as np

from benchmarks._measure import ROOT
from mlkernels import datasets, nas
from mlkernels.support import results
from mlkernels.support.memory import keep_freed

DESIGNS = ("published", "derivative")
SIZE = {"cells": 3, "channels": 4, "pixels": 14}  # as `nas compare`
BUDGET = {"epochs": 1, "rate": 0.1, "milestones": (), "drop_path": 0.0, "padding": 2, "flip": 0.0}


def searched(dataset, design: str, seeds: int, folder: Path, size: dict, **settings) -> tuple[list, list[float]]:
    """What searches with so many seeds find, and the seconds of each where it was made in one go."""
    found, seconds = [], []
    layout = nas.Layout(**size, colours=dataset.images.shape[-1])
    for seed in range(seeds):
        start = time.perf_counter()
        each = nas.SearchSettings(layout, seed=seed, design=design, **settings)
        found.append(nas.search(each, dataset, out=folder / f"{design}_{seed}").genotype)
        seconds.append(round(time.perf_counter() - start, 1))
        print(f"{design}, seed {seed}: {found[-1]}", flush=True)
    return found, seconds


def measure(
    data: str = "omniglot", seeds: int = 6, trainings: int = 3, episodes: int = 300, folder: Path | None = None,
    size: dict | None = None, budget: dict | None = None, **settings,
) -> dict:  # fmt: skip
    """Of each design the architectures, their accuracies `[seed][training]`, and edges that two seeds have in common.

    Args:
        data: a dataset's name.
        seeds: searches by each design.
        trainings: of each architecture that is found.
        episodes: of the test, 5-way 1-shot.
        folder: for what is done so far.
        size: cells, channels and pixels.
        budget: of a training.
        settings: other ones of the searches.
    """
    dataset, size, folder = datasets.load(data), size or SIZE, folder or ROOT / "build" / "nas_found"
    folder.mkdir(parents=True, exist_ok=True)
    ways = len(dataset.classes(next(iter(dataset.splits))))
    layout = nas.Layout(**size, colours=dataset.images.shape[-1], ways=ways, norm="batch")
    rows = {}
    for design in DESIGNS:
        found, seconds = searched(dataset, design, seeds, folder, size, **settings)
        accuracy = nas.trained_accuracies(
            found, dataset, layout, nas.TrainSettings(**(budget or BUDGET)), seeds=trainings, episodes=episodes,
            out=folder / f"{design}.part",
        )  # fmt: skip
        rows[design] = {
            "genotypes": list(map(str, found)),
            "accuracy": accuracy.round(6).tolist(),
            "in_common": [nas.in_common(*pair) for pair in combinations(found, 2)],
            "search_s": seconds,
        }
        print(f"{design}: accuracy {np.mean(accuracy):.4f}", flush=True)
    about = {"data": data, "seeds": seeds, "trainings": trainings, "episodes": episodes, **size}
    return {"settings": about, "designs": rows}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="omniglot")
    parser.add_argument("--seeds", type=int, default=6)
    given = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    keep_freed()
    command = f"python -m benchmarks.nas_found --data {given.data} --seeds {given.seeds}"
    content = measure(given.data, given.seeds)
    results.save(ROOT / "data" / "results" / f"nas_found_{given.data}.json", content, seed=0, command=command)


if __name__ == "__main__":
    main()
