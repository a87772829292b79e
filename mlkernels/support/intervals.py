"""Confidence intervals of means and of slopes, written with the digits that they support."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Num

from mlkernels.errors import bad_input
from mlkernels.support.typed import typed


def _written(value: float, low: float, high: float, spec: str) -> tuple[str, ...]:
    """The three numbers, with two significant digits of the interval's half width where no format is given."""
    half = (high - low) / 2
    if not spec:
        spec = ".3g"
        if math.isfinite(half) and half > 0 and 1e-4 <= max(abs(low), abs(high)) < 1e5:
            spec = f".{min(max(1 - math.floor(math.log10(half)), 0), 8)}f"
    return tuple(format(number, spec) for number in (value, low, high))


class _Range:
    """What holds numbers between two ends, and is written as it is formatted."""

    def __contains__(self, value: float) -> bool:
        return bool(self.low <= value <= self.high)

    def __str__(self) -> str:
        return format(self)


@dataclass(frozen=True)
class Interval(_Range):
    """A mean with its confidence interval. `f"{it}"` writes it out, `f"{it:.1%}"` gives that format to each number."""

    mean: float
    low: float
    high: float
    n: int
    level: float = 0.95

    def __format__(self, spec: str) -> str:
        mean, low, high = _written(self.mean, self.low, self.high, spec)
        return f"{mean} ({100 * self.level:g} % interval {low} to {high}, n = {self.n})"


@dataclass(frozen=True)
class Slope(_Range):
    """A fitted slope with its confidence interval; `seeds` counts the repetitions, `n` the points on the x axis."""

    slope: float
    low: float
    high: float
    n: int
    seeds: int
    intercept: float
    level: float = 0.95

    def __format__(self, spec: str) -> str:
        slope, low, high = _written(self.slope, self.low, self.high, spec)
        seeds = f"{self.seeds} seed{'s' if self.seeds > 1 else ''}"
        return f"{slope} ({100 * self.level:g} % interval {low} to {high}, {self.n} points x {seeds})"


def _quantile(level: float, freedom: int) -> float:
    from scipy.stats import t  # scipy.stats takes half a second to import

    if not 0 < level < 1:
        raise bad_input("level", "between 0 and 1", level, "0.95 is usual")
    return float(t.ppf(0.5 + level / 2, freedom))


@typed
def half_width(samples: Num[np.ndarray, "seeds ..."], level: float = 0.95) -> np.ndarray:
    r"""Half the width of the Student t interval of a mean over the first axis, $t_{n-1}\, s / \sqrt n$.

    Args:
        samples: `[n, ...]` with n of at least 2.
        level: coverage, between 0 and 1.

    Returns:
        `[...]`, not negative.

    Example:
        >>> print(half_width([[1.0], [2.0], [3.0]]).round(3))
        [2.484]
    """
    samples = np.asarray(samples, dtype=float)
    n = len(samples)
    return _quantile(level, n - 1) * samples.std(axis=0, ddof=1) / math.sqrt(n)


@typed
def interval(samples: Num[np.ndarray, " n"], level: float = 0.95) -> Interval:
    r"""The mean of independent samples with its Student t interval, $\bar x \pm t_{n-1}\, s / \sqrt n$.

    Args:
        samples: `[n]` finite numbers, n of at least 2: one a seed, or one an episode (its accuracy).
        level: coverage, between 0 and 1.

    Returns:
        `Interval`.

    Raises:
        InputError: fewer than two samples, another rank, NaN or infinity, a level outside (0, 1).

    Example:
        >>> print(interval([0.48, 0.53, 0.52, 0.50, 0.55]))
        0.516 (95 % interval 0.482 to 0.550, n = 5)

    Source: every notebook's claims.
    """
    samples = np.asarray(samples, dtype=float)
    if samples.ndim != 1 or len(samples) < 2:
        do = "measure over more seeds or episodes"
        raise bad_input("samples", "at least two numbers, [n]", f"shape {samples.shape}", do)
    if count := np.sum(~np.isfinite(samples)):
        raise bad_input("samples", "finite numbers", f"{count} that are not", "find out where they come from")
    mean, half = float(samples.mean()), float(half_width(samples, level))
    return Interval(mean, mean - half, mean + half, len(samples), level)


@typed
def slope(x: Num[np.ndarray, " n"], ys: Num[np.ndarray, "*seeds n"], level: float = 0.95) -> Slope:
    r"""The least-squares slope b of $y = a + b x$ with its interval.

    With three seeds or more the interval is Student's t over the seeds' own slopes, which holds however the points of
    one seed depend on each other; with fewer it is ordinary least squares' over all points.

    Args:
        x: `[n]` numbers, at least two of them different (three points in all where there are fewer than three seeds).
        ys: `[n]`, or `[seeds, n]`.
        level: coverage, between 0 and 1.

    Returns:
        `Slope`.

    Raises:
        InputError: shapes that do not fit, too few points, NaN or infinity.

    Example:
        >>> print(slope([0, 1, 2, 3], [0.1, 1.9, 4.1, 6.0]))
        1.99 (95 % interval 1.77 to 2.21, 4 points x 1 seed)
    """
    x, ys = np.asarray(x, dtype=float), np.atleast_2d(np.asarray(ys, dtype=float))
    if x.ndim != 1 or ys.ndim != 2 or ys.shape[1] != len(x):
        raise bad_input("ys", "[n] or [seeds, n] with n of x", f"x {x.shape}, ys {ys.shape}", "put the seeds first")
    if not (np.isfinite(x).all() and np.isfinite(ys).all()):
        raise bad_input("x and ys", "finite numbers", "NaN or infinity", "drop or explain these points first")
    seeds, n = ys.shape
    if len(np.unique(x)) < 2 or (seeds < 3 and seeds * n < 3):
        expected = "two different values, and three points"
        raise bad_input("x", expected, f"{seeds} x {n} points", "measure at more places")
    from scipy.stats import linregress

    fit = linregress(np.tile(x, seeds), ys.ravel())
    if seeds >= 3:
        half = half_width([linregress(x, y).slope for y in ys], level)
    else:
        half = _quantile(level, ys.size - 2) * fit.stderr
    best, half = float(fit.slope), float(half)
    return Slope(best, best - half, best + half, n, seeds, float(fit.intercept), level)


@typed
def power_law(x: Num[np.ndarray, " n"], ys: Num[np.ndarray, "*seeds n"], level: float = 0.95) -> Slope:
    r"""The exponent b of $y = c\, x^b$ with its interval: `slope` of $\log y$ on $\log x$.

    Args:
        x: `[n]` positive numbers, for example widths.
        ys: `[n]` or `[seeds, n]` positive numbers, for example errors.
        level: coverage, between 0 and 1.

    Returns:
        `Slope`; the fitted curve is `exp(intercept) * x ** slope`.

    Raises:
        InputError: numbers that are not positive, and as `slope`.

    Example:
        >>> widths = np.array([64, 256, 1024, 4096])
        >>> errors = np.outer([1.0, 1.1, 0.9], widths**-0.5) * [[1, 1, 1, 1.02], [1, 1, 1, 0.98], [1, 1, 1, 1]]
        >>> print(power_law(widths, errors))
        -0.500 (95 % interval -0.511 to -0.489, 4 points x 3 seeds)
        >>> -0.5 in power_law(widths, errors)
        True

    Source: notebook 01, the empirical MetaNTK's rate in the width.
    """
    x, ys = np.asarray(x, dtype=float), np.asarray(ys, dtype=float)
    if not ((x > 0).all() and (ys > 0).all()):
        do = "a power law has no zeros: drop these points"
        raise bad_input("x and ys", "positive numbers", "some that are not", do)
    return slope(np.log(x), np.log(ys), level)
