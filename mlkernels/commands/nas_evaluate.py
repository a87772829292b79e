"""mlkernels nas evaluate."""

from __future__ import annotations

import shlex
import sys
from dataclasses import asdict
from pathlib import Path

import click

from mlkernels.commands.counter import Counter
from mlkernels.commands.options import data_option, named_dataset, seed_option, stoppable
from mlkernels.commands.typed_path import TypedPath
from mlkernels.support.strict_json import dumps


@click.command()
@click.argument("checkpoint", type=TypedPath())
@data_option("miniimagenet")
@click.option("--split", default="test", show_default=True, help="Where episodes come from.")
@click.option("--way", default=5, show_default=True, help="Classes of an episode.")
@click.option("--shots", multiple=True, default=(1, 5), show_default=True, type=int, help="May be repeated.")
@click.option("--queries", default=50, show_default=True, help="Of each class; small classes want 15.")
@click.option("--episodes", default=1000, show_default=True)
@click.option("--copies", default=5, show_default=True, help="Augmented copies of each support image; 0: as it is.")
@click.option(
    "--method", "methods", multiple=True, default=("logistic", "centroid", "metantk"), show_default=True,
    metavar="logistic|centroid|metantk", help="May be repeated.",
)  # fmt: skip
@click.option("--pixels/--no-pixels", default=True, show_default=True, help="Also nearest centroid on raw pixels.")
@seed_option(42)
@click.option(
    "--out", type=TypedPath(dir_okay=False), metavar="FILE",
    help="Where the result goes [evaluation.json beside the checkpoint].",
)  # fmt: skip
def evaluate(checkpoint, data, pixels, out, **told) -> int:
    """Evaluate the network of a CHECKPOINT, the file or the folder that nas train has left, on many episodes.

    Exit status: 0 evaluated, 2 bad usage, 130 stopped by Ctrl-C.
    """
    import jax

    jax.config.update("jax_enable_x64", True)
    from mlkernels.nas import evaluate as run
    from mlkernels.nas.evaluation.evaluate import pixels_of
    from mlkernels.nas.space.cost import parameter_count
    from mlkernels.nas.training.train import load_trained
    from mlkernels.support import provenance
    from mlkernels.support.files import alone, check_place, write_text

    trained, dataset = load_trained(checkpoint), named_dataset(data)
    out = (checkpoint if checkpoint.is_dir() else checkpoint.parent) / "evaluation.json" if out is None else out
    check_place(out)
    network, done, epochs = trained.network, len(trained.history), trained.settings.epochs
    if done < epochs:
        click.echo(f"the training is not finished: this is its network after epoch {done} of {epochs}")
    display = _Evaluation(sys.stderr)

    def both():
        rows = run(trained, dataset, progress=display, **told).described()
        if not pixels:
            return rows
        plain = told | {"methods": ("centroid",), "copies": 0}
        found = run(pixels_of, dataset, unit=False, progress=display, **plain).described()
        return rows + [row | {"method": "centroid of pixels"} for row in found]

    try:
        rows = stoppable(both, alone(out.parent, out.name), display)
    except KeyboardInterrupt:
        click.echo("stopped; nothing was written", err=True)
        return 130
    for row in rows:
        half = (row["high"] - row["low"]) / 2
        click.echo(f"{told['way']}-way {row['shot']}-shot, {row['method']}: {row['mean']:.2%} ± {half:.2%}")
    result = {
        "genotype": str(network.genotype), "network": asdict(network.layout) | {"space": network.layout.space.name},
        "parameters": parameter_count(network.layout, network.gates, classes=network.classes),
        "trained_on": trained.data, "epochs": done, "training": asdict(trained.settings),
        "evaluation": told | {"data": dataset.name}, "results": rows,
        **provenance.here(), "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }  # fmt: skip
    write_text(out, dumps(result, indent=2) + "\n")
    click.echo(str(out))
    return 0


class _Evaluation(Counter):
    """How far an evaluation is."""

    def __call__(self, what: str, done: int, total: int | None) -> None:
        self.show(done, done + 1 if total is None else total, what)
