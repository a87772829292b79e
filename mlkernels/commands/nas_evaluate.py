"""The command `nas evaluate`: a trained network on many few-shot episodes."""

from __future__ import annotations

from dataclasses import asdict

import click

from mlkernels.commands.options import SettingsCommand, data_option, named_dataset, options_of, working
from mlkernels.commands.typed_path import TypedPath
from mlkernels.support import results
from mlkernels.support.files import alone, check_place


def _settings() -> list[click.Option]:
    from mlkernels.nas.evaluation.evaluate import evaluate as run

    names = ("split", "way", "shots", "queries", "episodes", "copies", "methods=--method", "seed")
    return options_of(run, *names)


@click.command(cls=SettingsCommand, settings=_settings)
@click.argument("checkpoint", type=TypedPath())
@data_option("miniimagenet")
@click.option("--pixels/--no-pixels", default=True, show_default=True, help="Also nearest centroid on raw pixels.")
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
    from mlkernels.nas import load_trained, parameter_count, pixels_of

    trained, dataset = load_trained(checkpoint), named_dataset(data)
    out = (checkpoint if checkpoint.is_dir() else checkpoint.parent) / "evaluation.json" if out is None else out
    check_place(out)
    network, done, epochs = trained.network, len(trained.history), trained.settings.epochs
    if done < epochs:
        click.echo(f"the training is not finished: this is its network after epoch {done} of {epochs}")
    with working(alone(out.parent, out.name), "nothing was written") as display:
        rows = run(trained, dataset, progress=display, **told).described()
        if pixels:
            plain = told | {"methods": ("centroid",), "copies": 0, "unit": False}
            found = run(pixels_of, dataset, progress=display, **plain).described()
            rows += [row | {"method": "centroid of pixels"} for row in found]
    for row in rows:
        half = (row["high"] - row["low"]) / 2
        click.echo(f"{told['way']}-way {row['shot']}-shot, {row['method']}: {row['mean']:.2%} ± {half:.2%}")
    result = {
        "genotype": str(network.genotype), "network": asdict(network.layout) | {"space": network.layout.space.name},
        "parameters": parameter_count(network.layout, network.gates, classes=network.classes),
        "trained_on": trained.data, "epochs": done, "training": asdict(trained.settings),
        "evaluation": told | {"data": dataset.name}, "results": rows,
    }  # fmt: skip
    results.save(out, result, seed=told["seed"])
    click.echo(str(out))
    return 0
