"""The command `nas train`: an architecture's training on the base classes."""

from __future__ import annotations

import json
import os
from pathlib import Path

import click

from mlkernels.commands.options import SettingsCommand, data_option, named_dataset, options_of, working
from mlkernels.commands.typed_path import TypedPath
from mlkernels.errors import InputError, bad_input
from mlkernels.support.files import alone, check_place


def _settings() -> list[click.Option]:
    from mlkernels.nas import Layout
    from mlkernels.nas.training.train import TrainSettings
    from mlkernels.nas.training.train import train as run

    names = ("epochs", "rate", "batch", "milestones=--milestone", "drop_path", "weight_decay", "padding", "jitter")
    size = options_of(Layout, "space", "cells", "channels", "pixels", pixels=84)
    made = options_of(TrainSettings, *names, "flip", "seed", "compute_dtype")
    return [*size, *made, *options_of(run, "devices")]


@click.command(cls=SettingsCommand, settings=_settings)
@click.argument("genotype")
@data_option("miniimagenet")
@click.option(
    "--out", default="build/nas-train", show_default=True, type=TypedPath(file_okay=False),
    metavar="DIR", help="Where the checkpoint and the log go.",
)  # fmt: skip
def train(genotype, data, space, cells, channels, pixels, devices, out, **options) -> int:
    """Train the architecture GENOTYPE on the base classes: its text, or a result.json of nas search.

    Leaves in DIR: checkpoint.npz after each epoch, from which the same command goes on if it was stopped; log.jsonl, a
    line an epoch.

    Exit status: 0 trained, 2 bad usage, 130 stopped by Ctrl-C.
    """
    from mlkernels.nas import Layout, Network, TrainSettings, flop_count, parameter_count
    from mlkernels.nas import train as run

    text, settings = _genotype(genotype), TrainSettings(**options)
    check_place(out / "checkpoint.npz")
    dataset = named_dataset(data)
    base = dataset.classes(next(iter(dataset.splits)))
    ways, images = len(base), sum(len(dataset.rows_of(number)) for number in base)
    colours = int(dataset.images.shape[-1])
    layout = Layout(space, cells=cells, channels=channels, pixels=pixels, ways=ways, colours=colours, norm="batch")
    network = Network(layout, text)
    millions = parameter_count(layout, network.gates, classes=ways) / 1e6
    flops = 3 * flop_count(layout, network.gates)  # an image: forward, and twice as many backward
    total = flops * settings.epochs * (images // settings.batch * settings.batch)
    cost = f"{total:.2g} floating-point operations (counted, 3 forward passes an image)"
    click.echo(f"{millions:.3f} M parameters, {ways} classes; {settings.epochs} epochs of {images} images: {cost}")
    with working(alone(out), f"{out} keeps the epochs that are done: the same command goes on from there") as display:
        trained = run(network, dataset, settings, out=out, devices=devices, progress=display)
    last = trained.history[-1]
    click.echo(f"epoch {last['epoch']}: loss {last['loss']:.4g}, accuracy {last['accuracy']:.1%} in training")
    speed = last["images_per_second"]
    rate = f"{flops * speed / 1e9:.3g} billion floating-point operations a second (counted)"
    click.echo(f"{speed:.0f} images a second in that epoch, {rate}")
    click.echo(f"{out / 'checkpoint.npz'}, {out / 'log.jsonl'}")
    return 0


def _genotype(text: str):
    """A genotype, of a search's result where that is named."""
    from mlkernels.nas.space.search_space import Genotype

    path = Path(os.path.expanduser(text))
    if path.suffix != ".json":
        return Genotype.parse(text)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["genotype"]
        if not isinstance(found, str):
            raise TypeError
        return Genotype.parse(found)
    except InputError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        got = error.strerror if isinstance(error, OSError) else "something else"
        raise bad_input(text, "the result.json of a search", got, "name such a file, or give the genotype") from None
