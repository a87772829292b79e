"""A small training that tests run in processes of their own: python _nas_train.py FOLDER [COMPILED]."""

from __future__ import annotations

import sys

from _nas_search import die_as_told, synthetic

TEXT = "N: c3<0 sk<1 R: mp<0 c3<1"


def network():
    from mlkernels.nas import Layout, Network, Space

    space = Space("tiny", ("skip_connect", "conv_3x3", "max_pool_3x3BN"), 1)
    return Network(Layout(space, cells=3, channels=3, pixels=8, ways=8, norm="batch"), TEXT)


def settings(**changes):
    from mlkernels.nas import TrainSettings

    told = {"epochs": 4, "batch": 16, "rate": 0.1, "milestones": (2,), "padding": 1, "dtype": "float64", "seed": 3}
    return TrainSettings(**(told | changes))


def data():
    return synthetic(each=12)


def main(folder, compiled="auto"):
    import jax

    die_as_told(folder)
    jax.config.update("jax_enable_x64", True)
    from mlkernels.nas import train

    train(network(), data(), settings(), out=folder, compiled=compiled)
    print(f"{len(jax.devices())} devices")


if __name__ == "__main__":
    main(*sys.argv[1:])
