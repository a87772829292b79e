"""Is a training-free score worth anything? Random architectures, trained on one budget, and how far a score agrees."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from scipy.stats import bootstrap, kendalltau, rankdata

from mlkernels.datasets import Dataset
from mlkernels.datasets.fingerprint import described
from mlkernels.errors import InputError, bad_input
from mlkernels.nas.engine.network import Network
from mlkernels.nas.evaluation.evaluate import evaluate
from mlkernels.nas.space.layout import Layout
from mlkernels.nas.space.search_space import Genotype
from mlkernels.nas.training.train import TrainSettings, train
from mlkernels.support.intervals import Interval
from mlkernels.support.kept_rows import Kept

_WAY = 5  # of the episodes that trained architectures are tested on
_AT_ONCE = 2**20  # pairs of architectures, all resamples of a batch together: about 50 bytes each
# as `train` and `evaluate` say it:
_DIVERGED = re.compile(r"(loss|parameters|statistics|features)\b.*: expected (a )?finite number")


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
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
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
        progress: is called as `progress(done, total)`.

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
                progress(number * seeds + seed - settings.seed + 1, len(genotypes) * seeds)
    return np.array([[kept.rows[f"{g} seed {settings.seed + seed}"] for seed in range(seeds)] for g in genotypes])


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
        InputError: other shapes, fewer than three architectures, NaN.

    Example:
        >>> agreement([1.0, 2.0, 3.0, 4.0], [0.1, 0.2, 0.3, 0.4]).mean
        1.0

    Source: Kendall 1945; notebooks/04_metantk_nas.
    """
    score, accuracy = np.asarray(score, float), np.asarray(accuracy, float)
    if score.shape != accuracy.shape or score.ndim != 1 or len(score) < 3:
        got = f"{list(score.shape)} and {list(accuracy.shape)}"
        raise bad_input("score and accuracy", "one number each for three architectures or more", got, "give as many")
    for name, values in (("score", score), ("accuracy", accuracy)):
        if np.isnan(values).any():
            got = f"NaN for {int(np.isnan(values).sum())} of {len(values)} architectures"
            raise bad_input(name, "numbers or infinities", got, "leave these architectures out")

    order = [np.sign(np.subtract.outer(ranks, ranks)) for ranks in map(rankdata, (score, accuracy))]  # of each pair

    def resampled(rows, axis=-1):  # SciPy's kendalltau, for all resamples at once
        pairs = rows[..., :, None], rows[..., None, :]
        first, second = (signs[pairs].reshape(*rows.shape[:-1], -1) for signs in order)
        norm = np.sqrt((first**2).sum(-1) * (second**2).sum(-1))
        return (first * second).sum(-1) / np.where(norm == 0, 1, norm)  # all ties: nothing is told apart

    rows = np.arange(len(score))
    drawn = bootstrap(
        (rows,), resampled, vectorized=True, n_resamples=2000, confidence_level=level, method="percentile",
        batch=max(1, _AT_ONCE // len(score) ** 2), rng=np.random.default_rng(seed),
    )  # fmt: skip
    low, high = map(float, drawn.confidence_interval)
    tau = kendalltau(score, accuracy).statistic
    return Interval(0.0 if np.isnan(tau) else float(tau), low, high, len(score), level)
