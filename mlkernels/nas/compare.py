"""Is a training-free score worth anything? Random architectures, scored, and how far that agrees with training them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
import numpy as np
from jax import Array
from scipy.stats import bootstrap, kendalltau

from mlkernels.datasets import Dataset
from mlkernels.errors import bad_input
from mlkernels.intervals import Interval
from mlkernels.nas.cost import flop_count, parameter_count
from mlkernels.nas.gram import sample_kernels
from mlkernels.nas.images import search_patches, search_tasks
from mlkernels.nas.layout import Layout
from mlkernels.nas.regions import linear_regions, thin
from mlkernels.nas.scores import gradient_norm, random_score, score_of, task_images
from mlkernels.nas.space import Genotype, Space
from mlkernels.nas.weights import init
from mlkernels.tasks._checks import whole

SCORES = ("metantk", "ntk", "regions", "gradient norm", "parameters", "FLOPs", "random")


def random_genotypes(space: Space, count: int, *, key: Array) -> list[Genotype]:
    """Architectures drawn at random, all different: at each node two inputs, on each of their edges an operation.

    Args:
        space: a search space.
        count: how many.
        key: a key.

    Raises:
        InputError: more than half of all that there are.

    Example:
        >>> from mlkernels.nas.space import SPACES
        >>> str(random_genotypes(SPACES["darts_fewshot"], 1, key=jax.random.key(0))[0])[:2]
        'N:'

    Source: notebooks/04_metantk_nas.
    """
    whole(count=count)
    if 2 * count > space.architectures:
        raise bad_input("count", f"at most half of the {space.architectures} there are", count, "ask for fewer")
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    found: dict[Genotype, None] = {}
    while len(found) < count:
        cells = [
            tuple(
                tuple((str(rng.choice(space.operations)), int(i)) for i in rng.choice(2 + node, 2, replace=False))
                for node in range(space.nodes)
            )
            for _ in range(2)
        ]
        found[Genotype(*cells)] = None
    return list(found)


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
        >>> from mlkernels import datasets
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


def agreement(score, accuracy, *, level: float = 0.95, seed: int = 0) -> Interval:
    r"""Kendall's tau-b between a score and the accuracy after training, with a bootstrap interval over architectures.

    .. math:: \tau = \frac{\text{pairs in the same order} - \text{pairs in the other}}{\text{pairs, corrected for ties}}

    Args:
        score: `[A]`, larger is held to be better; infinities may be among them.
        accuracy: `[A]`.
        level: of the interval (percentiles of 2000 resamples).
        seed: of the resampling.

    Returns:
        `Interval`; from -1 to 1, 0 for a score that knows nothing.

    Raises:
        InputError: other shapes, fewer than three architectures.

    Example:
        >>> agreement([1.0, 2.0, 3.0, 4.0], [0.1, 0.2, 0.3, 0.4]).mean
        1.0

    Source: Kendall 1945; notebooks/04_metantk_nas.
    """
    score, accuracy = np.asarray(score, float), np.asarray(accuracy, float)
    if score.shape != accuracy.shape or score.ndim != 1 or len(score) < 3:
        got = f"{list(score.shape)} and {list(accuracy.shape)}"
        raise bad_input("score and accuracy", "one number each for three architectures or more", got, "give as many")

    def tau(rows):
        value = kendalltau(score[rows], accuracy[rows]).statistic
        return 0.0 if np.isnan(value) else value  # all ties: nothing is told apart

    rows = np.arange(len(score))
    drawn = bootstrap(
        (rows,), tau, vectorized=False, n_resamples=2000, confidence_level=level, method="percentile",
        rng=np.random.default_rng(seed),
    )  # fmt: skip
    low, high = map(float, drawn.confidence_interval)
    return Interval(float(tau(rows)), low, high, len(score), level)
