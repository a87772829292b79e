"""Settings that every test shares: float64, strict rank promotion, keys, real data where there is some."""

from __future__ import annotations

import os
from pathlib import Path

import jax
import pytest

jax.config.update("jax_enable_x64", True)


@pytest.fixture
def key():
    """A key that is the same for a test in every run."""
    return jax.random.key(0)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data named by MLKERNELS_DATA, or a skip that says so."""
    folder = os.environ.get("MLKERNELS_DATA")
    if not folder:
        pytest.skip("MLKERNELS_DATA is not set: no real data to test on")
    for part in folder.split(os.pathsep):
        if (Path(part) / "omniglot_28.npz").exists():
            return Path(part)
    pytest.skip(f"no omniglot_28.npz in MLKERNELS_DATA={folder}")
