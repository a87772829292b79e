"""How far a ranking by noisy measurements can be trusted: agreement of halves, shares of variance, what it takes."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import combinations

import numpy as np
from jaxtyping import Float, Num
from scipy.stats import f as f_distribution
from scipy.stats import kendalltau

from mlkernels.errors import bad_input
from mlkernels.nas.evaluation.compare import draws_of
from mlkernels.support.arguments import number, whole
from mlkernels.support.intervals import Interval
from mlkernels.support.typed import typed


def log_changes(log) -> dict[int, dict[str, np.ndarray]]:
    r"""What each round of operations of a recorded search has measured, of whatever rule it was.

    Args:
        log: the log's lines, as dicts; infinities may be texts.

    Returns:
        Round -> score ("condition", "regions") -> changes of its logarithm :math:`\log(s_{without} / s_{with})`,
        float `[A, repeats]`, 0 where one of the two is infinite. A round of which lines are missing is left out where
        it has fewer than two candidates.

    Example:
        >>> pair = {"with": [2.0, 1.0], "without": [2.0, "inf"]}
        >>> line = {"round": 1, "pruned": "a", "scores": {"a": {"condition": pair}, "b": {"condition": pair}}}
        >>> log_changes([line])[1]["condition"].tolist()
        [[0.0, 0.0], [0.0, 0.0]]

    Source: notebooks/04_metantk_nas.
    """
    found: dict[int, dict[str, list]] = {}
    for line in log:
        if line.get("pruned", "edge") == "edge":
            continue
        for scores in line["scores"].values():
            for name in {"condition", "regions"} & scores.keys():
                pair = (np.array(scores[name][side], float) for side in ("without", "with"))
                with np.errstate(divide="ignore", invalid="ignore"):
                    change = np.subtract(*map(np.log, pair))
                change = np.where(np.isfinite(change), change, 0.0)
                found.setdefault(line["round"], {}).setdefault(name, []).append(change)
    tables = {number: {name: np.array(rows) for name, rows in each.items()} for number, each in found.items()}
    return {number: each for number, each in tables.items() if min(map(len, each.values())) > 1}


@typed
def chance_tau(candidates: int, level: float = 0.95) -> float:
    r"""How far from 0 Kendall's tau of two unrelated rankings without ties stays, with a probability of `level`.

    .. math:: z \sqrt{\frac{2 (2A + 5)}{9 A (A - 1)}}

    Example:
        >>> round(chance_tau(126), 3)
        0.118

    Source: Kendall 1938, the normal limit.
    """
    from scipy.special import ndtri

    A = whole("candidates", candidates, 2)
    return float(ndtri(0.5 + level / 2)) * math.sqrt(2 * (2 * A + 5) / (9 * A * (A - 1)))


@typed
def tau_of_halves(
    changes: Num[np.ndarray, "A R"], size: int, *, splits: int = 200, seed: int = 0,
    mean: Callable[[np.ndarray], np.ndarray] | None = None,
) -> Interval:  # fmt: skip
    """The reliability of a ranking by so many draws: Kendall's tau between the means of two sets that share none.

    Args:
        changes: `[A, R]`, A candidates at R draws.
        size: draws in each of the two sets, at most R / 2.
        splits: random pairs of sets.
        seed: of the sets.
        mean: instead of the mean over draws, a function `[A, size] -> [A]`, as a trimmed mean.

    Returns:
        The mean over the pairs, and the range in which 95 % of them lie. Pairs share draws, so it is no confidence
        interval; `n` is how many pairs of R draws share none.

    Raises:
        InputError: fewer than two candidates or draws, another size.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> signal = rng.normal(size=(50, 1))
        >>> noisy = signal + rng.normal(size=(50, 40))
        >>> tau_of_halves(noisy, 1).mean < tau_of_halves(noisy, 20).mean
        True

    Source: this course.
    """
    changes = draws_of(changes)
    size, total = whole("size", size, 1, changes.shape[1] // 2), changes.shape[1]
    mean = mean or (lambda part: part.mean(1))
    rng, found = np.random.default_rng(seed), []
    for _ in range(whole("splits", splits, 1)):
        order = rng.permutation(total)
        pair = (mean(changes[:, part]) for part in (order[:size], order[size : 2 * size]))
        found.append(kendalltau(*pair).statistic)
    low, high = np.quantile(found, (0.025, 0.975))
    return Interval(float(np.mean(found)), float(low), float(high), total // (2 * size))


@typed
def share_between(changes: Num[np.ndarray, "A R"], level: float = 0.95) -> Interval:
    r"""The part of a single draw's variance over candidates that lies between them, with its interval.

    What a draw adds to all candidates alike moves no rank and does not count:

    .. math:: \rho = \frac{F - 1}{F + R - 1}, \qquad F = \frac{R\, s^2(\bar x_a)}{s^2(x_{ar} - \bar x_a - \bar x_r)}

    Args:
        changes: `[A, R]`, A candidates at R draws.
        level: of the interval, from the distribution of F for normal scores, independent from one to the next; it is
            too narrow where what a draw adds to one has to do with what it adds to others.

    Returns:
        `Interval`; below 0 where candidates differ less than chance would have them.

    Raises:
        InputError: fewer than two candidates or draws.

    Example:
        >>> share_between(np.array([[1.0, 2.0], [3.0, 4.1], [7.0, 8.0]])).mean > 0.99
        True

    Source: Shrout and Fleiss 1979, ICC(3, 1), and its interval.
    """
    x = draws_of(changes)
    A, R = x.shape
    rest = x - x.mean(1, keepdims=True) - x.mean(0) + x.mean()
    freedom = A - 1, (A - 1) * (R - 1)
    within = (rest**2).sum() / freedom[1]
    F = R * x.mean(1).var(ddof=1) / within if within else math.inf
    ends = F / f_distribution.ppf(0.5 + level / 2, *freedom), F * f_distribution.ppf(0.5 + level / 2, *freedom[::-1])
    return Interval(*((1.0 if math.isinf(f) else float((f - 1) / (f + R - 1))) for f in (F, *ends)), R, level)


@typed
def expected_tau(share: float, draws: int) -> float:
    r"""Kendall's tau between two means of so many draws, from the share of a single draw's variance, by theory alone.

    .. math:: \tau = \tfrac2\pi \arcsin r, \qquad r = \frac{n \rho}{1 + (n - 1) \rho}

    Args:
        share: from 0 to 1, as by `share_between`.
        draws: n.

    Example:
        >>> round(expected_tau(0.01, 3), 2), round(expected_tau(0.01, 300), 2)
        (0.02, 0.54)

    Source: Spearman 1910, Brown 1910, for r; Greiner's relation of tau and r, for normal scores.
    """
    share, n = _part("share", share), whole("draws", draws, 1)
    return 2 / math.pi * math.asin(n * share / (1 + (n - 1) * share))


@typed
def draws_for(share: float, tau: float = 0.5) -> float:
    """How many draws it takes for `expected_tau` of so much; infinity where there is no share.

    Example:
        >>> draws_for(0.01, expected_tau(0.01, 300)).__round__()
        300

    Source: as `expected_tau`.
    """
    r = math.sin(math.pi / 2 * _part("tau", tau))
    share = _part("share", share)
    return r * (1 - share) / (share * (1 - r)) if share > 0 and r < 1 else math.inf


def _part(name: str, value) -> float:
    if number(name, value) > 1:
        raise bad_input(name, "a number from 0 to 1", value, "a negative estimate counts as 0")
    return float(value)


@typed
def variance_components(
    values: Num[np.ndarray, "A ..."],
    names: tuple[str, ...],
    *,
    resamples: int = 300,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Interval]:
    r"""What each cause of noise adds to the variance of a candidate's value, from a design in which all are crossed.

    With :math:`S` a set of causes, the candidate's value scatters by :math:`\sigma^2_S` as those of S are drawn anew
    together, beyond what each part of S does:

    .. math:: E\, MS_S = \sum_{T \supseteq S} \sigma^2_T \prod_{f \notin T} n_f

    What moves all candidates alike is left out.

    Args:
        values: `[A, n_1, n_2, ...]`, A candidates at all combinations of levels of the causes, at least two of each.
        names: of the causes, in the order of the axes.
        resamples: of the candidates, for the intervals.
        level: of the intervals.
        seed: of the resampling.

    Returns:
        "candidates" (what is to be measured), each cause, "one x other" for what they do together, by name. Unbiased,
        so that a small one may come out below 0.

    Raises:
        InputError: other names than axes, fewer than two candidates or levels.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> values = rng.normal(size=(40, 1, 1)) + 3 * rng.normal(size=(40, 5, 1)) + 0 * rng.normal(size=(40, 5, 4))
        >>> found = variance_components(values, ("weights", "tasks"))
        >>> list(found), 5 < found["weights"].mean < 15, abs(found["tasks"].mean) < 1e-9
        (['candidates', 'weights', 'tasks', 'weights x tasks'], True, True)

    Source: the analysis of variance with random effects (Searle, Casella, McCulloch 1992).
    """
    values = np.asarray(values, float)
    if values.ndim != 1 + len(names) or min(values.shape) < 2:
        expected = f"[candidates, {', '.join(names)}], two of each at least"
        raise bad_input("values", expected, list(values.shape), "draw each cause anew")
    rng, rows = np.random.default_rng(seed), len(values)
    found = _components(values)
    again = [_components(values[rng.integers(rows, size=rows)]) for _ in range(whole("resamples", resamples, 2))]
    result = {}
    for causes, mean in found.items():
        low, high = np.quantile([each[causes] for each in again], ((1 - level) / 2, (1 + level) / 2))
        name = " x ".join(names[axis - 1] for axis in causes) or "candidates"
        result[name] = Interval(mean, float(low), float(high), rows, level)
    return result


def _components(values: Float[np.ndarray, "A ..."]) -> dict[tuple[int, ...], float]:
    """By the causes' axes; the candidates' own axis belongs to all."""
    sizes, causes = values.shape, range(1, values.ndim)
    squares, found = {}, {}
    for count in range(len(sizes)):
        for part in combinations(causes, count):
            effect = values - values.mean(0, keepdims=True)
            for axis in causes:
                mean = effect.mean(axis, keepdims=True)
                effect = effect - mean if axis in part else mean
            freedom = (sizes[0] - 1) * math.prod(sizes[axis] - 1 for axis in part)
            squares[part] = math.prod(sizes[a] for a in causes if a not in part) * (effect**2).sum() / freedom
    for part in sorted(squares, key=len, reverse=True):
        above = sum(
            value * math.prod(sizes[a] for a in causes if a not in other)
            for other, value in found.items()
            if set(other) > set(part)
        )
        found[part] = float((squares[part] - above) / math.prod(sizes[a] for a in causes if a not in part))
    return {part: found[part] for part in squares}
