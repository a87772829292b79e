"""Condition numbers that say what they could not resolve."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import ArrayLike, Float

from mlkernels.errors import bad_input
from mlkernels.support.typed import typed


@dataclass(frozen=True)
class Condition:
    """A condition number and how it came about.

    Attributes:
        value: largest over smallest eigenvalue; over the zero band, where eigenvalues were clipped.
        smallest, largest: the extreme eigenvalues as computed.
        clipped: how many eigenvalues lie in the zero band.
    """

    value: float
    smallest: float
    largest: float
    clipped: int

    @property
    def lower_bound(self) -> bool:
        """Whether eigenvalues were clipped, so that the value is only a lower bound."""
        return self.clipped > 0

    def __str__(self) -> str:
        least = f"at least {self.value:.3g} ({self.clipped} eigenvalues count as zero)"
        return least if self.lower_bound else f"{self.value:.4g}"


@typed
def condition_number(matrix: Float[ArrayLike, "N N"]) -> Condition:
    r"""Largest over smallest eigenvalue of a symmetric positive semidefinite matrix, with what was clipped.

    .. math:: \kappa = \lambda_{max} / \lambda_{min}

    Eigenvalues within `sqrt(eps) * lambda_max` of zero count as zero: where a kernel takes an arc cosine, rounding
    alone puts them there. The value is then `1 / sqrt(eps)`, the largest that can be told, and is said to be a lower
    bound.

    Args:
        matrix: `[N, N]`, symmetric, of concrete numbers; computed in float64.

    Returns:
        A `Condition`: value, smallest and largest eigenvalue, number clipped.

    Raises:
        InputError: not a square matrix, NaN or infinite entries, not symmetric (1e-6 of the largest entry), zero, or
            with an eigenvalue clearly below zero.

    Example:
        >>> import numpy as np
        >>> print(condition_number(np.diag([1.0, 4.0])))
        4
        >>> condition_number(np.diag([0.0, 4.0])).lower_bound
        True

    Source: the trainability score of MetaNTK-NAS, Wang et al. 2022; notebooks/01_derive_metantk.
    """
    M = np.asarray(matrix, dtype=np.float64)
    if M.ndim != 2 or M.shape[0] != M.shape[1] or not M.size:
        raise bad_input("matrix", "a square matrix", list(M.shape), "pass a kernel of points with themselves")
    if not np.isfinite(M).all():
        got = f"{(~np.isfinite(M)).sum()} NaN or infinite"
        raise bad_input("matrix", "finite numbers", got, "look for a diverged loop")
    skew = np.abs(M - M.T).max()
    if skew > 1e-6 * np.abs(M).max():
        got = f"entries that differ by {skew:.3g}"
        raise bad_input("matrix", "a symmetric matrix", got, "use the same points twice")
    eigenvalues = np.linalg.eigvalsh((M + M.T) / 2)
    smallest, largest = float(eigenvalues[0]), float(eigenvalues[-1])
    band = float(np.sqrt(np.finfo(np.float64).eps) * max(largest, 0.0))
    if largest <= 0 or smallest < -band:
        got = f"eigenvalues from {smallest:.3g} to {largest:.3g}"
        raise bad_input(
            "matrix", "a positive semidefinite matrix", got, "use float64 and an inner product for a kernel"
        )
    clipped = int((eigenvalues <= band).sum())
    return Condition(largest / max(smallest, band), smallest, largest, clipped)
