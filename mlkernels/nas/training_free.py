"""All training-free scores of architectures at once: the MetaNTK's, and the baselines that it has to beat."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
import numpy as np
from jax import Array

from mlkernels.datasets import Dataset
from mlkernels.nas.cost import flop_count, parameter_count
from mlkernels.nas.gram import sample_kernels
from mlkernels.nas.images import search_patches, search_tasks
from mlkernels.nas.layout import Layout
from mlkernels.nas.regions import linear_regions, thin
from mlkernels.nas.scores import gradient_norm, random_score, score_of, task_images
from mlkernels.nas.space import Genotype
from mlkernels.nas.weights import init

SCORES = ("metantk", "ntk", "regions", "gradient norm", "parameters", "FLOPs", "random")


@dataclass(frozen=True)
class ScoreSettings:
    """How architectures are scored.

    Args:
        layout: the stack, with group normalisation.
        tasks: tasks in the batch of one repeat.
        repeats: of weights and images.
        region_images: of each of three batches of patches.
        inner_time, ridge: as in `scores.metantk_score`.
    """

    layout: Layout
    tasks: int = 3
    repeats: int = 3
    region_images: int = 1000
    inner_time: float = float("inf")
    ridge: float = 1e-3


def training_free_scores(
    genotypes: Sequence[Genotype],
    dataset: Dataset,
    settings: ScoreSettings,
    *,
    key: Array,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, np.ndarray]:
    """All scores of architectures, each turned so that larger is held to be better.

    Architectures share a repeat's weights and images. Condition numbers count as minus their logarithm; infinity, the
    worst there is, stays so.

    Args:
        genotypes: A architectures of the layout's space.
        dataset: its first split is looked at.
        settings: how.
        key: a key.
        progress: is called as `progress(done, total)`.

    Returns:
        Name, as in `SCORES`, -> float `[A, repeats]`.

    Example:
        >>> jax.config.update("jax_enable_x64", True)
        >>> from mlkernels import datasets
        >>> from mlkernels.nas.compare import random_genotypes
        >>> layout = Layout(cells=2, channels=1, pixels=8, ways=2, colours=1)
        >>> genotypes = random_genotypes(layout.space, 1, key=jax.random.key(0))
        >>> settings = ScoreSettings(layout, tasks=1, repeats=1, region_images=10)
        >>> sorted(training_free_scores(genotypes, datasets.load("glyphs"), settings, key=jax.random.key(1)))[:3]
        ['FLOPs', 'gradient norm', 'metantk']

    Source: notebooks/04_metantk_nas; Abdelfattah et al. 2021, for which baselines such a score has to beat.
    """
    layout, found = settings.layout, {name: np.zeros((len(genotypes), settings.repeats)) for name in SCORES}
    gates = [layout.space.gates_of(genotype) for genotype in genotypes]
    for repeat in range(settings.repeats):
        weights, looks, patches, thin_key, luck = jax.random.split(jax.random.fold_in(key, repeat), 5)
        params, small = init(layout, key=weights), thin(layout)
        small_params = init(small, key=thin_key)
        tasks = search_tasks(dataset, key=looks, pixels=layout.pixels, way=layout.ways, tasks=settings.tasks)
        squares = search_patches(dataset, key=patches, images=settings.region_images)
        for number, each in enumerate(gates):
            kernels = sample_kernels(layout, params, each, task_images(tasks))
            told = {"inner_time": settings.inner_time, "ridge": settings.ridge, "precision": params["head"][0].dtype}
            row = {
                "metantk": -np.log(score_of(kernels, tasks, **told).value),
                "ntk": -np.log(score_of(kernels, tasks, algorithm="none", precision=told["precision"]).value),
                "regions": linear_regions(small, small_params, each, squares),
                "gradient norm": gradient_norm(layout, params, each, tasks),
                "parameters": parameter_count(layout, each),
                "FLOPs": flop_count(layout, each),
                "random": random_score(key=jax.random.fold_in(luck, number)),
            }
            for name, value in row.items():
                found[name][number, repeat] = value
            if progress is not None:
                progress(repeat * len(gates) + number + 1, len(gates) * settings.repeats)
    return found
