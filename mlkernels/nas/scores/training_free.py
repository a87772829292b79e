"""All training-free scores of architectures at once: the MetaNTK's, and the baselines that it has to beat."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import jax
import numpy as np
from jax import Array

from mlkernels.datasets import Dataset
from mlkernels.datasets.fingerprint import described
from mlkernels.nas.engine.gram import bytes_needed
from mlkernels.nas.engine.weights import init
from mlkernels.nas.pictures.search_images import LOOK, search_patches, search_tasks
from mlkernels.nas.scores.kernel_scores import ALGORITHMS
from mlkernels.nas.scores.regions import thin
from mlkernels.nas.scores.registry import SCORES, Draw
from mlkernels.nas.space.genotype import Genotype
from mlkernels.nas.space.layout import Layout
from mlkernels.support.arguments import one_of, whole
from mlkernels.support.kept_rows import alone_with
from mlkernels.support.memory import require
from mlkernels.support.progress import Progress


@dataclass(frozen=True)
class ScoreSettings:
    """How architectures are scored.

    Args:
        layout: the stack, with group normalisation.
        tasks: tasks in the batch of one repeat.
        repeats: draws of weights and images.
        region_images: of each of three batches of patches.
        algorithm, inner_time, ridge: of the inner loop, as in `scores.metantk_score` and with the search's defaults.

    Raises:
        InputError: another algorithm, no task or repeat, or a single image.
    """

    layout: Layout
    tasks: int = 3
    repeats: int = 3
    region_images: int = 1000
    algorithm: str = "maml"
    inner_time: float = math.inf
    ridge: float = 1e-3

    def __post_init__(self) -> None:
        one_of("algorithm", self.algorithm, ALGORITHMS)
        for name, least in (("tasks", 1), ("repeats", 1), ("region_images", 2)):
            whole(name, getattr(self, name), least)


def training_free_scores(
    genotypes: Sequence[Genotype],
    dataset: Dataset,
    settings: ScoreSettings,
    *,
    key: Array,
    out: Path | str | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> dict[str, np.ndarray]:
    """All scores of architectures, each turned so that larger is held to be better.

    Architectures share a repeat's weights and images. Condition numbers count as minus their logarithm. A score that
    is not finite is the worst there is, minus infinity.

    Args:
        genotypes: A architectures of the layout's space.
        dataset: its first split is looked at.
        settings: how.
        key: a key.
        out: a JSON file that keeps what is done, from which the same call, or one of more repeats, goes on.
        progress: is called after each architecture of each repeat.

    Returns:
        Name, as in `SCORES`, -> float `[A, repeats]`.

    Raises:
        InputError: a file of other settings, another key or other data; as the single scores.

    Example:
        >>> jax.config.update("jax_enable_x64", True)
        >>> from mlkernels import datasets
        >>> from mlkernels.nas.space.search_space import random_genotypes
        >>> layout = Layout(cells=2, channels=1, pixels=8, ways=2, colours=1)
        >>> genotypes = random_genotypes(layout.space, 1, key=jax.random.key(0))
        >>> settings = ScoreSettings(layout, tasks=1, repeats=1, region_images=10)
        >>> sorted(training_free_scores(genotypes, datasets.load("glyphs"), settings, key=jax.random.key(1)))[:3]
        ['FLOPs', 'entropy', 'gradient norm']

    Source: notebooks/04_metantk_nas; Abdelfattah et al. 2021, for which baselines such a score has to beat.
    """
    gates = [settings.layout.space.gates_of(genotype) for genotype in genotypes]
    names = [[f"{i}: {genotype} repeat {r}" for r in range(settings.repeats)] for i, genotype in enumerate(genotypes)]
    with alone_with(out, "scores", _about(settings, dataset, key)) as kept:
        for repeat in range(settings.repeats):
            score = None
            for number, each in enumerate(gates):
                name = names[number][repeat]
                if (
                    not SCORES.keys() <= kept.rows.get(name, {}).keys()
                ):  # none there, or one of before a score was added
                    score = score or _scorer(settings, dataset, key=jax.random.fold_in(key, repeat))
                    kept.add(name, {kind: float(value) for kind, value in score(each).items()})
                if progress is not None:
                    progress(Progress(repeat * len(gates) + number + 1, len(gates) * settings.repeats, "scored"))
    table = [[kept.rows[name] for name in row] for row in names]
    return {kind: np.array([[float(each[kind]) for each in row] for row in table]) for kind in SCORES}


def check_scoring(dataset: Dataset, settings: ScoreSettings) -> None:
    """Refuse what `training_free_scores` would refuse, or has no memory for, before hours of something else."""
    layout, key = settings.layout, jax.random.key(0)
    needed = bytes_needed(layout, settings.tasks * layout.ways * 2)
    require(needed, "scoring a network", "take fewer channels, cells, pixels or tasks")
    search_tasks(dataset, key=key, pixels=layout.pixels, way=layout.ways, tasks=settings.tasks)
    search_patches(dataset, key=key, images=settings.region_images)


def _about(settings: ScoreSettings, dataset: Dataset, key: Array) -> dict:
    """All that a repeat's scores follow from, for a file."""
    about = asdict(settings) | {"data": described(dataset)}
    about["layout"]["space"] = settings.layout.space.described
    about["images"] = LOOK
    about["key"] = np.asarray(jax.random.key_data(key)).tolist()
    return {name: value for name, value in about.items() if name != "repeats"}


def _scorer(settings: ScoreSettings, dataset: Dataset, *, key: Array) -> Callable[[np.ndarray], dict[str, float]]:
    """A repeat: the scores of an architecture by its gates, all with the same weights and images."""
    layout = settings.layout
    weights, looks, patches, thin_key, luck = jax.random.split(key, 5)
    small = thin(layout)
    draw = Draw(
        layout, init(layout, key=weights),
        search_tasks(dataset, key=looks, pixels=layout.pixels, way=layout.ways, tasks=settings.tasks),
        small, init(small, key=thin_key), search_patches(dataset, key=patches, images=settings.region_images), luck,
        {name: getattr(settings, name) for name in ("algorithm", "inner_time", "ridge")},
    )  # fmt: skip

    def scores(gates: np.ndarray) -> dict[str, float]:
        row = {name: score(draw, gates) for name, score in SCORES.items()}
        return {name: float(value) if np.isfinite(value) else -math.inf for name, value in row.items()}

    return scores
