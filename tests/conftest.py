"""Settings that every test shares: float64, quick compilation, keys, real data where there is some."""

from __future__ import annotations

import os
from pathlib import Path

from _compilation import compile_quickly

compile_quickly()

import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_enable_x64", True)

MOST_PROCESSES = 4  # each compiles for itself and takes up to 2 GB
LONGEST = (  # the browser after the notebooks: it reads what they have compiled
    "test_notebooks", "test_nas_search", "test_nas_scores", "test_browser", "test_kernels", "test_miniimagenet",
    "test_maml", "test_wide", "test_benchmarks", "test_nas_supernet", "test_metantk", "test_browser_training",
    "test_cost", "test_anil",
)  # fmt: skip
# Arithmetic, the same under every Python: tools/matrix.sh leaves it to the doctests, for it takes most of the time.
NUMERICS = (
    "test_kernels", "test_metantk", "test_maml", "test_wide", "test_anil", "test_cost", "test_curvature",
    "test_similarity", "test_history", "test_nas_search", "test_nas_scores", "test_nas_supernet", "test_tasks",
)  # fmt: skip


def pytest_xdist_auto_num_workers(config) -> int:
    """How many processes `-n auto` means: one a core that we may use, and no more than a few."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, MOST_PROCESSES)


def pytest_collection_modifyitems(items) -> None:
    """The longest files first, so that no process is left alone with one at the end; arithmetic is marked."""
    for item in items:
        if item.path.stem in NUMERICS:
            item.add_marker("numerics")
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))


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
