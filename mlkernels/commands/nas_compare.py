"""The command `nas compare`: do training-free scores know anything of accuracy after training?"""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from mlkernels.commands.options import SettingsCommand, data_option, named_dataset, options_of, working
from mlkernels.commands.typed_path import TypedPath
from mlkernels.support import results
from mlkernels.support.files import alone, check_place


def _settings() -> list[click.Option]:
    from mlkernels.nas import Layout, TrainSettings
    from mlkernels.nas.scores.training_free import ScoreSettings

    size = options_of(Layout, "cells", "channels", "pixels", cells=3, channels=4, pixels=14)
    budget = options_of(TrainSettings, "epochs", "rate", "seed", epochs=1, rate=0.1)
    return [*size, *budget, *options_of(ScoreSettings, "repeats")]


@click.command(cls=SettingsCommand, settings=_settings)
@data_option("omniglot")
@click.option("--count", default=32, show_default=True, type=click.IntRange(min=3), help="Random architectures.")
@click.option("--seeds", default=1, show_default=True, type=click.IntRange(min=1), help="Trainings of each.")
@click.option(
    "--episodes", default=300, show_default=True, type=click.IntRange(min=2), help="5-way 1-shot, for the test."
)
@click.option(
    "--out", default="build/nas-compare.json", show_default=True, metavar="FILE",
    type=TypedPath(dir_okay=False),
    help="Where the result goes; what is done so far is in FILE.part and FILE.scores.part.",
)  # fmt: skip
def compare(data, count, cells, channels, pixels, epochs, rate, seeds, repeats, episodes, seed, out) -> int:
    """Score random architectures without training, train them on one budget, and compare both orders.

    Leaves in FILE all scores, all accuracies, and Kendall's tau between them. A training that diverges counts as the
    accuracy of chance. The same command goes on where it was stopped.

    Exit status: 0 done, 2 bad usage, 130 stopped by Ctrl-C.
    """
    import jax

    from mlkernels.support.memory import keep_freed

    keep_freed()
    jax.config.update("jax_enable_x64", True)
    from mlkernels.nas import Layout, TrainSettings, random_genotypes
    from mlkernels.nas.evaluation.compare import agreement, trained_accuracies
    from mlkernels.nas.scores.training_free import ScoreSettings, training_free_scores

    check_place(out)
    dataset = named_dataset(data)
    size = {"cells": cells, "channels": channels, "pixels": pixels, "colours": int(dataset.images.shape[-1])}
    drawn, scored = jax.random.split(jax.random.key(seed))
    ways = len(dataset.classes(next(iter(dataset.splits))))
    trained_layout = Layout(**size, ways=ways, norm="batch")
    genotypes = random_genotypes(trained_layout.space, count, key=drawn)
    settings = TrainSettings(epochs=epochs, rate=rate, milestones=(), drop_path=0.0, padding=2, flip=0.0, seed=seed)
    score_settings = ScoreSettings(Layout(**size), repeats=repeats)
    trained_file, scores_file = (out.with_name(f"{out.name}{end}") for end in (".part", ".scores.part"))
    kept = f"{trained_file} and {scores_file.name} keep what is done: the same command goes on from there"
    with working(alone(out.parent, out.name), kept) as display:
        budget = {"seeds": seeds, "episodes": episodes, "out": trained_file, "progress": display}
        accuracy = trained_accuracies(genotypes, dataset, trained_layout, settings, **budget)
        about = {"key": scored, "out": scores_file, "progress": display}
        scores = training_free_scores(genotypes, dataset, score_settings, **about)
    told = {"data": dataset.name, "episodes": episodes, "seeds": seeds, "repeats": repeats, **size, **asdict(settings)}
    diverged = json.loads(trained_file.read_text(encoding="utf-8")).get("diverged", {})
    result = {
        "settings": told, "genotypes": [str(genotype) for genotype in genotypes], "accuracy": accuracy.round(6),
        "diverged": diverged, "scores": scores,
    }  # fmt: skip
    results.save(out, result, seed=seed)  # whatever becomes of the taus
    taus = {name: agreement(values.mean(1), accuracy.mean(1)) for name, values in scores.items()}
    result["tau"] = {name: [tau.mean, tau.low, tau.high] for name, tau in taus.items()}
    results.save(out, result, seed=seed)
    if diverged:
        click.echo(f"{len(diverged)} of {accuracy.size} trainings diverged: they count as the accuracy of chance")
    for name, tau in taus.items():
        click.echo(f"{name:14} tau {tau:.2f}")
    click.echo(str(out))
    return 0
