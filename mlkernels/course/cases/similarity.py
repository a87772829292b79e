"""Linear CKA by its definition through Gram matrices, for two notebooks."""

from __future__ import annotations

import numpy as np


def cka_by_gram(a: np.ndarray, b: np.ndarray) -> float:
    """tr(K L) / sqrt(tr(K K) tr(L L)) of the centred Gram matrices K and L of features `[n, p]` and `[n, q]`."""
    centre = np.eye(len(a)) - 1 / len(a)
    K, L = (centre @ x @ x.T @ centre for x in (a, b))
    return np.sum(K * L) / np.sqrt(np.sum(K * K) * np.sum(L * L))
