"""Is a training-free score worth anything? Random architectures, trained on one budget, and how far a score agrees."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import ArrayLike, Float, Num
from scipy.stats import bootstrap, kendalltau, rankdata

from mlkernels.datasets import Dataset
from mlkernels.datasets.fingerprint import described
from mlkernels.errors import InputError, bad_input
from mlkernels.nas.engine.network import Network
from mlkernels.nas.evaluation.evaluate import evaluate
from mlkernels.nas.space.genotype import Genotype
from mlkernels.nas.space.layout import Layout
from mlkernels.nas.training.train import TrainSettings, require_memory, train
from mlkernels.support.arguments import whole
from mlkernels.support.intervals import Interval
from mlkernels.support.kept_rows import Kept
from mlkernels.support.progress import Progress
from mlkernels.support.typed import typed
from mlkernels.tasks.image_episodes import episode_rows

_WAY = 5  # of the episodes that trained architectures are tested on
_AT_ONCE = 2**20  # pairs of architectures, all resamples of a batch together: about 50 bytes each
# as `train` and `evaluate` say it:
_DIVERGED = re.compile(r"(loss|parameters|statistics|features)\b.*: expected (a )?finite number")


@typed
def trained_accuracies(
    genotypes: Sequence[Genotype],
    dataset: Dataset,
    layout: Layout,
    settings: TrainSettings,
    *,
    seeds: int = 1,
    shot: int = 1,
    method: str = "centroid",
    episodes: int = 100,
    queries: int = 15,
    out: Path | str | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Float[np.ndarray, "A seeds"]:
    """Train architectures, all on the same budget, and test each on the same new episodes of five classes.

    Blocks are compiled once for all of them (`train` with `compiled="blocks"`). One whose training diverges counts as
    the worst there is, with the accuracy of chance, and the file notes it under `diverged`.

    Args:
        genotypes: A architectures of the layout's space.
        dataset: trained on its first split, tested on "test".
        layout: the stack, with `norm="batch"`.
        settings: of each training; their seed is the first.
        seeds: trainings of each.
        shot, method, episodes, queries: of the evaluation, as in `evaluate`; images as they are, without copies.
        out: a JSON file that keeps what is done, from which the same call goes on.
        progress: is called after each training.

    Returns:
        Mean accuracy of each training, float `[A, seeds]`.

    Raises:
        InputError: a file of other settings or other data; as `train` and `evaluate`.

    Example:
        >>> from mlkernels import datasets
        >>> glyphs = datasets.load("glyphs", classes=24, drawings=6)
        >>> layout = Layout(cells=2, channels=1, pixels=4, ways=15, colours=1, norm="batch")
        >>> one = [Genotype.parse("N: sk<0 mp<1 | sk<1 mp<2 | sk<0 sk<2 R: mp<0 mp<1 | mp<1 sk<2 | sk<2 sk<3")]
        >>> settings = TrainSettings(epochs=1, batch=10, padding=1)
        >>> trained_accuracies(one, glyphs, layout, settings, episodes=10, queries=3).shape
        (1, 1)

    Source: notebooks/04_metantk_nas.
    """
    tested = {"shot": shot, "method": method, "episodes": episodes, "queries": queries}
    stack = asdict(layout) | {"space": layout.space.described}
    about = {"layout": stack, "train": asdict(settings), "test": tested, "data": described(dataset)}
    kept = Kept(out, "accuracy", about)
    for number, genotype in enumerate(genotypes):
        for seed in range(settings.seed, settings.seed + seeds):
            name = f"{genotype} seed {seed}"
            if name not in kept.rows:
                network = Network(layout, genotype)
                asked = {"way": _WAY, "shots": (shot,), "queries": queries, "episodes": episodes, "methods": (method,)}
                try:
                    trained = train(network, dataset, replace(settings, seed=seed), compiled="blocks")
                    value = evaluate(trained, dataset, copies=0, **asked).interval(method, shot).mean
                except InputError as error:
                    if not _DIVERGED.match(str(error)):
                        raise
                    value, kept.diverged[name] = 1 / _WAY, str(error)
                kept.add(name, value)
            if progress is not None:
                progress(Progress(number * seeds + seed - settings.seed + 1, len(genotypes) * seeds, "trained"))
    return np.array([[kept.rows[f"{g} seed {settings.seed + seed}"] for seed in range(seeds)] for g in genotypes])


def check_trainings(
    genotypes: Sequence[Genotype], dataset: Dataset, layout: Layout, settings: TrainSettings, *, shot: int = 1,
    queries: int = 15,
) -> None:  # fmt: skip
    """Refuse what `trained_accuracies` would refuse, or has no memory for, only once it has trained something."""
    for genotype in genotypes:
        require_memory(Network(layout, genotype), settings)
    episode_rows(dataset, "test", _WAY, shot + queries, 1, jax.random.key(0))


@typed
def agreement(
    score: Num[ArrayLike, " A"], accuracy: Num[ArrayLike, " A"], *, level: float = 0.95, seed: int = 0
) -> Interval:
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
        InputError: other shapes, fewer than three architectures, NaN.

    Example:
        >>> agreement([1.0, 2.0, 3.0, 4.0], [0.1, 0.2, 0.3, 0.4]).mean
        1.0

    Source: Kendall 1945; notebooks/04_metantk_nas.
    """
    drawn = _resampled(_signs(score, accuracy), 2000, level, seed)
    return Interval(_tau(score, accuracy), *drawn, len(score), level)


@typed
def agreement_gain(
    score: Num[ArrayLike, " A"], other: Num[ArrayLike, " A"], accuracy: Num[ArrayLike, " A"], *, level: float = 0.95,
    seed: int = 0,
) -> Interval:  # fmt: skip
    r"""How much better one score agrees with the accuracy than another: the difference of their `agreement`.

    .. math:: \tau(s, a) - \tau(s', a)

    Args:
        score, other: `[A]`, larger is held to be better.
        accuracy: `[A]`.
        level: of the interval (percentiles over 1000 resamples of the architectures, the same for both scores).
        seed: of the resampling.

    Returns:
        `Interval`; above 0 where `score` ranks better.

    Raises:
        InputError: as `agreement`.

    Example:
        >>> agreement_gain([1.0, 2.0, 3.0, 4.0], [4.0, 3.0, 2.0, 1.0], [0.1, 0.2, 0.3, 0.4]).mean
        2.0

    Source: notebooks/04_metantk_nas.
    """
    drawn = _resampled((*_signs(score, accuracy), *_signs(other, accuracy)), 1000, level, seed)
    return Interval(_tau(score, accuracy) - _tau(other, accuracy), *drawn, len(score), level)


def _tau(score, accuracy) -> float:
    tau = kendalltau(score, accuracy).statistic
    return 0.0 if np.isnan(tau) else float(tau)  # all ties: nothing is told apart


def _signs(score, accuracy) -> tuple[np.ndarray, np.ndarray]:
    """The order of each pair of architectures, -1, 0 or 1, by score and by accuracy, once both are checked."""
    score, accuracy = np.asarray(score, float), np.asarray(accuracy, float)
    if score.shape != accuracy.shape or score.ndim != 1 or len(score) < 3:
        got = f"{list(score.shape)} and {list(accuracy.shape)}"
        raise bad_input("score and accuracy", "one number each for three architectures or more", got, "give as many")
    for name, values in (("score", score), ("accuracy", accuracy)):
        if np.isnan(values).any():
            got = f"NaN for {int(np.isnan(values).sum())} of {len(values)} architectures"
            raise bad_input(name, "numbers or infinities", got, "leave these architectures out")
    return tuple(np.sign(np.subtract.outer(ranks, ranks)) for ranks in map(rankdata, (score, accuracy)))


def _resampled(signs: Sequence[np.ndarray], resamples: int, level: float, seed: int) -> tuple[float, float]:
    """The interval of a tau, with four `signs` of a difference of two: as SciPy's kendalltau, all resamples at once."""

    def tau(pairs, first, second):
        first, second = (signs[pairs].reshape(*pairs[0].shape[:-2], -1) for signs in (first, second))
        norm = np.sqrt((first**2).sum(-1) * (second**2).sum(-1))
        return (first * second).sum(-1) / np.where(norm == 0, 1, norm)

    def statistic(rows, axis=-1):
        pairs = rows[..., :, None], rows[..., None, :]
        return tau(pairs, *signs[:2]) - (tau(pairs, *signs[2:]) if signs[2:] else 0.0)

    number = len(signs[0])
    drawn = bootstrap(
        (np.arange(number),), statistic, vectorized=True, n_resamples=resamples, confidence_level=level,
        method="percentile", batch=max(1, _AT_ONCE // number**2), rng=np.random.default_rng(seed),
    )  # fmt: skip
    return tuple(map(float, drawn.confidence_interval))


class Spread(NamedTuple):
    """How far a score scatters.

    Attributes:
        within: variance of one architecture's score over draws.
        between: variance between architectures, without what the noise of draws adds to it; 0 at least.
    """

    within: float
    between: float

    @property
    def share(self) -> float:
        """The part of one draw's variance that lies between architectures."""
        return self.between / (self.between + self.within)


@typed
def score_spread(scores: Num[ArrayLike, "A R"]) -> Spread:
    r"""The variance of a score, split into that over draws and that between architectures.

    With R draws the mean of an architecture holds noise, too, so its share of the noise is taken off:

    .. math:: \sigma^2_{within} = \frac1A \sum_a s^2_a, \qquad
              \sigma^2_{between} = \max\Big(s^2(\bar x_1, \dots, \bar x_A) - \sigma^2_{within} / R,\ 0\Big)

    Args:
        scores: `[A, R]`, A architectures at R draws of weights and images.

    Returns:
        `Spread`.

    Raises:
        InputError: fewer than two architectures or draws, another rank.

    Example:
        >>> score_spread([[1.0, 3.0], [7.0, 9.0]])
        Spread(within=2.0, between=17.0)

    Source: the one-way analysis of variance with random effects (Searle, Casella, McCulloch 1992);
    notebooks/04_metantk_nas.
    """
    scores = draws_of(scores)
    within = float(scores.var(1, ddof=1).mean())
    return Spread(within, max(float(scores.mean(1).var(ddof=1)) - within / scores.shape[1], 0.0))


@typed
def repeatability(scores: Num[ArrayLike, "A R"], size: int = 1) -> Float[np.ndarray, " pairs"]:
    r"""How far two measurements of a score agree on the ranking: Kendall's tau between means of draws.

    Args:
        scores: `[A, R]`, A architectures at R draws.
        size: draws in each of the two means, at most R / 2.

    Returns:
        One tau for each way to take two sets of so many draws that share none.

    Raises:
        InputError: as `score_spread`; another size.

    Example:
        >>> repeatability([[1.0, 1.5, 3.0], [2.0, 2.5, 2.0], [3.0, 3.5, 1.0]]).tolist()
        [1.0, -1.0, -1.0]

    Source: notebooks/04_metantk_nas.
    """
    scores = draws_of(scores)
    size, draws = whole("size", size, 1, scores.shape[1] // 2), range(scores.shape[1])
    pairs = (
        (first, second)
        for first in combinations(draws, size)
        for second in combinations(sorted({*draws[first[0] :]} - {*first}), size)  # each pair once
    )
    return np.array([kendalltau(*(scores[:, list(one)].mean(1) for one in pair)).statistic for pair in pairs])


def draws_of(scores) -> np.ndarray:
    scores = np.asarray(scores, float)
    if scores.ndim != 2 or min(scores.shape) < 2:
        got = f"shape {list(scores.shape)}"
        raise bad_input("scores", "[architectures, draws], two of each at least", got, "draw weights and images again")
    return scores
