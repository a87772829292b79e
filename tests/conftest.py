"""Settings that every test shares: float64, quick compilation, keys, real data where there is some."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import sys
from pathlib import Path

from _compilation import compile_quickly

compile_quickly()

import jax  # noqa: E402
import pytest  # noqa: E402

from mlkernels.support import typed  # noqa: E402

typed.CHECKED = True  # before anything that is annotated is imported

jax.config.update("jax_enable_x64", True)
# Users may set both; where a test needs it otherwise, it says why in a context of its own.
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")

MOST_PROCESSES = 4  # each compiles for itself and takes up to 2 GB
LONGEST = (  # the browser after the notebooks: it reads what they have compiled
    "test_notebooks", "test_nas_search", "test_nas_scores", "test_nas_network", "test_browser", "test_sweep",
    "test_layers", "test_kernels", "test_nas_train", "test_nas_evaluate", "test_miniimagenet", "test_maml", "test_wide",
    "test_benchmarks", "test_nas_supernet", "test_gpu", "test_metantk", "test_cost", "test_anil",
)  # fmt: skip
# Arithmetic, the same under every Python: tools/matrix.sh leaves it to the doctests, for it takes most of the time.
NUMERICS = (
    "test_kernels", "test_layers", "test_metantk", "test_maml", "test_wide", "test_anil", "test_cost", "test_curvature",
    "test_similarity", "test_history", "test_nas_search", "test_nas_scores", "test_nas_supernet", "test_nas_train",
    "test_nas_network", "test_nas_evaluate", "test_nas_compare", "test_gpu", "test_tasks", "test_attacks", "test_rkhs",
    "test_implicit", "test_function_space", "test_outer_weights", "test_bilevel", "test_step_size",
    "test_teacher_networks", "test_layer_masks", "test_few_iterations", "test_memory",
    "test_moments", "test_demo_layer_masks", "test_demo_memory_floor", "test_demo_few_iterations",
    "test_demo_two_minima", "test_demo_step_size", "test_wrong_answers",
)  # fmt: skip


def pytest_xdist_auto_num_workers(config) -> int:
    """How many processes `-n auto` means: one a core that we may use, and no more than a few."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, MOST_PROCESSES)


def pytest_collection_modifyitems(config, items) -> None:
    """The longest files first, so that no process is left alone with one at the end; arithmetic is marked.

    What is marked `once` runs only where -m names it: a default in addopts would be gone with any other -m.
    """
    if "once" not in config.option.markexpr:
        once = [item for item in items if item.get_closest_marker("once")]
        config.hook.pytest_deselected(items=once)
        items[:] = [item for item in items if item not in once]
    for item in items:
        if item.path.stem in NUMERICS:
            item.add_marker("numerics")
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))


@pytest.fixture(scope="module", autouse=True)
def _programs_go_with_their_file():
    """Each compiled program holds some of the 65,530 mappings that Linux grants a process; at the end of them, LLVM
    crashes."""
    yield
    jax.clear_caches()
    gc.collect()


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


@pytest.fixture(scope="session")
def unpacked_miniimagenet(real_data, tmp_path_factory):
    """miniImageNet in form A as the tool beside the data writes it, or a skip."""
    tools = [real_data / "unpack_miniimagenet.py", real_data.parent / "tools" / "unpack_miniimagenet.py"]
    tool = next((path for path in tools if path.is_file()), None)
    archive = real_data / "miniimagenet_avif.npz"
    if tool is None or not archive.is_file():
        pytest.skip(f"no unpack_miniimagenet.py and miniimagenet_avif.npz with {real_data}")
    folder = tmp_path_factory.mktemp("real")
    if shutil.disk_usage(folder).free < 5e9:
        pytest.skip("less than 5 GB of room for miniImageNet")
    command = [sys.executable, str(tool), str(folder / "a"), "--archive", str(archive)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"{tool} does not run here: {done.stderr[-200:]}")
    yield folder / "a"
    shutil.rmtree(folder)


@pytest.fixture
def miniimagenet(unpacked_miniimagenet, tmp_path, monkeypatch):
    """The real miniImageNet, imported, or a skip."""
    from mlkernels import datasets
    from mlkernels.datasets import folders
    from mlkernels.datasets.importing import get

    (tmp_path / "data").mkdir()
    monkeypatch.setenv(folders.VARIABLE, str(tmp_path / "data"))
    get.get(get.recipe_of("miniimagenet"), unpacked_miniimagenet, accept=lambda recipe: True)
    yield datasets.load("miniimagenet")
    shutil.rmtree(tmp_path / "data")
