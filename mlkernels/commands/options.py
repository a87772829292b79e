"""What the commands under `nas` share: options, the dataset by its name, and a stop that keeps what is done."""

from __future__ import annotations

import signal
from contextlib import AbstractContextManager

import click

from mlkernels.errors import bad_input


def data_option(default: str):
    """The option --data."""
    return click.option("--data", default=default, show_default=True, metavar="NAME", help="See mlkernels data list.")


def seed_option(default: int = 0):
    """The option --seed."""
    return click.option("--seed", default=default, show_default=True, help="Everything random follows from it.")


def size_options(*, cells: int, channels: int, pixels: int):
    """The options --cells, --channels and --pixels, with their defaults."""

    def add(command):
        for option in (
            click.option("--pixels", default=pixels, show_default=True, help="Side of the images; others are resized."),
            click.option("--channels", default=channels, show_default=True, help="Channels of the first cell."),
            click.option("--cells", default=cells, show_default=True, help="Cells of a network."),
        ):
            command = option(command)
        return command

    return add


def budget_options(*, epochs: int, rate: float):
    """The options --epochs and --rate, with their defaults."""

    def add(command):
        start = "Learning rate of SGD at the start."
        command = click.option("--rate", default=rate, show_default=True, help=start)(command)
        return click.option("--epochs", default=epochs, show_default=True, help="Passes over the images to train on.")(
            command
        )

    return add


def named_dataset(name: str):
    """The dataset, or an `InputError` lists those that there are."""
    from mlkernels import datasets

    known = datasets.names()
    if name not in known:
        raise bad_input("--data", " or ".join(known), name, "see mlkernels data list")
    return datasets.load(name)


def stoppable(work, lock: AbstractContextManager, display=None):
    """Do it under a lock, so that Ctrl-C and a polite kill both raise KeyboardInterrupt; at the end the display closes.

    The lock is `files.alone` of the place that is written to.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        with lock:
            return work()
    finally:
        if display is not None:
            display.close()
