"""The command line's group `nas`: the search for an architecture. Heavy imports stay inside the commands."""

from __future__ import annotations

import click

from mlkernels.commands.nas_compare import compare
from mlkernels.commands.nas_evaluate import evaluate
from mlkernels.commands.nas_train import train
from mlkernels.commands.options import SettingsCommand, data_option, named_dataset, options_of, working
from mlkernels.commands.typed_path import TypedPath
from mlkernels.support.files import alone, check_place
from mlkernels.support.words import readable, seconds


@click.group()
def nas() -> None:
    """Search for an architecture, train it, evaluate it.

    The search trains none of its candidates (MetaNTK-NAS).
    """


def _settings() -> list[click.Option]:
    from mlkernels.nas import Layout, SearchSettings
    from mlkernels.nas.searching.search import search as run

    names = ("algorithm", "inner_time", "ridge", "condition", "regions", "repeats", "seed", "reference_quirks")
    size = options_of(Layout, "space", "cells", "channels", "pixels")
    return [*size, *options_of(SearchSettings, *names), *options_of(run, "devices")]


@nas.command(cls=SettingsCommand, settings=_settings)
@data_option("miniimagenet")
@click.option("--estimate", "asked", is_flag=True, help="First measure and say what it will cost here.")
@click.option("--dry-run", is_flag=True, help="Only say that.")
@click.option(
    "--out", default="build/nas", show_default=True, type=TypedPath(file_okay=False), metavar="DIR",
    help="Where the state, the log and the result go.",
)  # fmt: skip
def search(data, space, cells, channels, pixels, asked, dry_run, devices, out, **options) -> int:
    """Search for an architecture.

    Leaves in DIR: log.jsonl, a line a decision with all scores and ranks; result.json, the genotype and how it was
    found; state.json, from which the same command goes on if it was stopped.

    Exit status: 0 found, 2 bad usage, 130 stopped by Ctrl-C.
    """
    import jax

    from mlkernels.support.memory import keep_freed

    keep_freed()
    jax.config.update("jax_enable_x64", True)
    from mlkernels.nas import Layout, SearchSettings
    from mlkernels.nas import search as run
    from mlkernels.nas.searching.estimate import estimate

    if not dry_run:
        check_place(out / "state.json")
    dataset = named_dataset(data)
    layout = Layout(space, cells=cells, channels=channels, pixels=pixels, colours=int(dataset.images.shape[-1]))
    settings = SearchSettings(layout, **options)
    if asked or dry_run:
        cost = estimate(settings, dataset, devices=devices)
        rate = cost.flops / max(cost.seconds - cost.compile_seconds, 1e-9) / 1e9
        rounds = f"{len(settings.evaluations)} rounds, on {cost.devices} device(s)"
        click.echo(f"networks to score: {cost.evaluations} in {rounds}")
        click.echo(f"floating-point operations: {cost.flops:.2g}, at {rate:.3g} billion a second")
        click.echo(f"memory: about {readable(cost.bytes)} on each device")
        click.echo(f"time: about {seconds(cost.seconds)}, {seconds(cost.compile_seconds)} of it compilation")
    if dry_run:
        return 0
    with working(alone(out), f"{out} keeps what is done: the same command goes on from there") as display:
        found = run(settings, dataset, out=out, devices=devices, progress=display)
    click.echo(str(found.genotype))
    click.echo(repr(found.genotype))
    click.echo(f"{out / 'result.json'}, {out / 'log.jsonl'}")
    return 0


nas.add_command(train)
nas.add_command(evaluate)
nas.add_command(compare)
