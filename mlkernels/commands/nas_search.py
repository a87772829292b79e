"""The command line's group `nas`: the search for an architecture. Heavy imports stay inside the commands."""

from __future__ import annotations

import sys

import click

from mlkernels.commands.counter import Counter
from mlkernels.commands.nas_compare import compare
from mlkernels.commands.nas_evaluate import evaluate
from mlkernels.commands.nas_train import train
from mlkernels.commands.options import data_option, named_dataset, seed_option, size_options, stoppable
from mlkernels.commands.typed_path import TypedPath
from mlkernels.support.words import seconds


class Time(click.ParamType):
    """A number of at least 0, or inf."""

    name = "number|inf"

    def convert(self, value, param, ctx):
        try:
            return float(value)
        except ValueError:
            self.fail(f"{value!r} is no number, nor inf", param, ctx)


@click.group()
def nas() -> None:
    """Search for an architecture, train it, evaluate it.

    The search trains none of its candidates (MetaNTK-NAS).
    """


@nas.command()
@data_option("miniimagenet")
@click.option("--space", default="darts_fewshot", show_default=True, metavar="darts_fewshot|darts")
@size_options(cells=5, channels=48, pixels=32)
@click.option("--algorithm", default="maml", show_default=True, metavar="maml|anil", help="Whose MetaNTK.")
@click.option("--inner-time", default="inf", show_default=True, type=Time(), help="Rate times steps of the inner loop.")
@click.option("--ridge", default=1e-3, show_default=True, help="Added to the inner kernel in the inverse.")
@click.option(
    "--condition", default="metantk", show_default=True, metavar="metantk|ntk|none", help="What is ranked by."
)
@click.option("--regions/--no-regions", default=True, show_default=True, help="Rank by linear regions too.")
@click.option("--repeats", default=3, show_default=True, help="How often each candidate is scored.")
@seed_option()
@click.option("--reference-quirks", is_flag=True, help="Do as the published code does where it is careless.")
@click.option("--devices", type=int, metavar="N", help="How many devices candidates are spread over [all].")
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
    from mlkernels.support.files import alone, check_place

    if not dry_run:
        check_place(out / "state.json")
    dataset = named_dataset(data)
    layout = Layout(space, cells=cells, channels=channels, pixels=pixels, colours=int(dataset.images.shape[-1]))
    settings = SearchSettings(layout, **options)
    if asked or dry_run:
        for line in _described(estimate(settings, dataset, devices=devices), settings):
            click.echo(line)
    if dry_run:
        return 0
    display = _Display(sys.stderr)
    try:
        found = stoppable(
            lambda: run(settings, dataset, out=out, devices=devices, progress=display), alone(out), display
        )
    except KeyboardInterrupt:
        click.echo(f"stopped; {out} keeps what is done: the same command goes on from there", err=True)
        return 130
    click.echo(str(found.genotype))
    click.echo(repr(found.genotype))
    click.echo(f"{out / 'result.json'}, {out / 'log.jsonl'}")
    return 0


def _described(cost, settings) -> list[str]:
    from mlkernels.support.words import readable

    rate = cost.flops / max(cost.seconds - cost.compile_seconds, 1e-9) / 1e9
    return [
        f"networks to score: {cost.evaluations} in {len(settings.evaluations)} rounds, on {cost.devices} device(s)",
        f"floating-point operations: {cost.flops:.2g}, at {rate:.3g} billion a second",
        f"memory: about {readable(cost.bytes)} on each device",
        f"time: about {seconds(cost.seconds)}, {seconds(cost.compile_seconds)} of it compilation",
    ]


class _Display(Counter):
    """How far a search is."""

    def __call__(self, progress) -> None:
        left = "" if progress.seconds_left is None else f", {seconds(progress.seconds_left)} left"
        text = f"round {progress.round} of {progress.rounds}{left}"
        self.show(progress.done, progress.total, text, progress.best)


nas.add_command(train)
nas.add_command(evaluate)
nas.add_command(compare)
