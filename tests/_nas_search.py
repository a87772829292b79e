"""A small search that tests run in processes of their own: python _nas_search.py FOLDER [PORT PROCESS]."""

from __future__ import annotations

import os
import signal
import sys

import numpy as np

from mlkernels.datasets import Dataset


def synthetic(seed=0, classes=8, each=150, pixels=8):
    """Noisy images around one random image a class."""
    rng = np.random.default_rng(seed)
    means = rng.uniform(60, 190, (classes, 1, pixels, pixels, 3))
    x = means + rng.normal(0, 30, (classes, each, pixels, pixels, 3))
    x = np.clip(x, 0, 255).astype(np.uint8).reshape(-1, pixels, pixels, 3)
    labels, names = np.repeat(np.arange(classes), each), tuple(map(str, range(classes)))
    moments = (x / 255).mean((0, 1, 2)), (x / 255).std((0, 1, 2))
    return Dataset("synthetic", x, labels, names, {"train": np.arange(classes)}, *moments, "made here", "none")


def settings(**changes):
    from mlkernels.nas import Layout, SearchSettings, Space

    space = Space("small", ("skip_connect", "conv_3x3", "max_pool_3x3"), 2)
    layout = Layout(space, cells=3, channels=4, pixels=8, ways=3)
    return SearchSettings(
        **({"layout": layout, "repeats": 2, "region_images": 40, "tasks": 2, "seed": 1, "dtype": "float64"} | changes)
    )


def die_as_told(folder) -> None:
    """With DIE="2 before" or "2 after": SIGKILL just before or after the second file of a folder gets its name."""
    number, side = os.environ.get("DIE", "0 never").split()
    replace, done = os.replace, []

    def counted(*given):
        done.extend(given[1:] if str(given[1]).startswith(str(folder)) else [])  # and not what JAX keeps elsewhere
        last = len(done) == int(number)
        if last and side == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        replace(*given)
        if last:
            os.kill(os.getpid(), signal.SIGKILL)

    os.replace = counted


def main(folder, port=None, process=None):
    import jax

    die_as_told(folder)

    jax.config.update("jax_enable_x64", True)
    if port is not None:
        jax.distributed.initialize(f"localhost:{port}", 2, int(process))
    from mlkernels.nas import search

    found = search(settings(), synthetic(), out=folder)
    print(f"{len(jax.devices())} devices: {found.genotype}")


if __name__ == "__main__":
    main(*sys.argv[1:])
