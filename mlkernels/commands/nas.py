"""The command line's group `nas`: search, train, evaluate, compare. Heavy imports stay inside the commands."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path

import click

from mlkernels.commands.options import SettingsCommand, TypedPath, data_option, named_dataset, options_of, say, working
from mlkernels.errors import bad_input
from mlkernels.support import results
from mlkernels.support.files import alone, check_place
from mlkernels.support.words import readable, seconds


@click.group()
def nas() -> None:
    """Search for an architecture, train it, evaluate it.

    The search trains none of its candidates (MetaNTK-NAS).
    """


def _search_options() -> list[click.Option]:
    from mlkernels.nas import Layout, SearchSettings
    from mlkernels.nas.searching.search import search as run

    names = ("algorithm", "inner_time", "ridge", "condition=--score", "regions", "repeats", "seed", "design")
    names += ("reference_quirks",)
    size = options_of(Layout, "space", "cells", "channels", "pixels")
    return [*size, *options_of(SearchSettings, *names), *options_of(run, "devices")]


@nas.command(cls=SettingsCommand, settings=_search_options)
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
        say(f"networks to score: {cost.evaluations} in {rounds}")
        say(f"floating-point operations: {cost.flops:.2g}, at {rate:.3g} billion a second")
        say(f"memory: about {readable(cost.bytes)} on each device")
        say(f"time: about {seconds(cost.seconds)}, {seconds(cost.compile_seconds)} of it compilation")
    if dry_run:
        return 0
    with working(alone(out), f"{out} keeps what is done: the same command goes on from there") as display:
        found = run(settings, dataset, out=out, devices=devices, progress=display)
    say(str(found.genotype))
    say(repr(found.genotype))
    say(f"{out / 'result.json'}, {out / 'log.jsonl'}")
    return 0


def _train_options() -> list[click.Option]:
    from mlkernels.nas import Layout
    from mlkernels.nas.training.train import TrainSettings
    from mlkernels.nas.training.train import train as run

    names = ("epochs", "rate", "batch", "milestones=--milestone", "drop_path", "weight_decay", "padding", "jitter")
    size = options_of(Layout, "space", "cells", "channels", "pixels", pixels=84)
    made = options_of(TrainSettings, *names, "flip", "seed", "compute_dtype")
    return [*size, *made, *options_of(run, "devices")]


@nas.command(cls=SettingsCommand, settings=_train_options)
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
    say(f"{millions:.3f} M parameters, {ways} classes; {settings.epochs} epochs of {images} images: {cost}")
    with working(alone(out), f"{out} keeps the epochs that are done: the same command goes on from there") as display:
        trained = run(network, dataset, settings, out=out, devices=devices, progress=display)
    last = trained.history[-1]
    say(f"epoch {last['epoch']}: loss {last['loss']:.4g}, accuracy {last['accuracy']:.1%} in training")
    speed = last["images_per_second"]
    rate = f"{flops * speed / 1e9:.3g} billion floating-point operations a second (counted)"
    say(f"{speed:.0f} images a second in that epoch, {rate}")
    say(f"{out / 'checkpoint.npz'}, {out / 'log.jsonl'}")
    return 0


def _genotype(text: str):
    """A genotype, of a search's result where that is named."""
    from mlkernels.nas.space.genotype import Genotype

    path = Path(os.path.expanduser(text))
    if path.suffix != ".json":
        return Genotype.parse(text)
    expected, do = "the result.json of a search", "name such a file, or give the genotype"
    found = results.read(path, expected, do).get("genotype")
    if not isinstance(found, str):
        raise bad_input(text, expected, "something else", do)
    return Genotype.parse(found)


@nas.command()
@click.argument("genotype")
def genotype(genotype) -> int:
    """Write the architecture GENOTYPE, its text or a result.json of nas search, in each notation.

    The short one, the flat one of DARTS, and the one of the published MetaNTK-NAS, a list a node, which that code takes
    as its --genotype.
    """
    found = _genotype(genotype)
    for text in (str(found), repr(found), found.nested):
        say(text)
    return 0


def _evaluate_options() -> list[click.Option]:
    from mlkernels.nas.evaluation.evaluate import evaluate as run

    names = ("split", "way", "shots", "queries", "episodes", "copies", "methods=--method", "seed")
    return options_of(run, *names)


@nas.command(cls=SettingsCommand, settings=_evaluate_options)
@click.argument("checkpoint", type=TypedPath())
@data_option("miniimagenet")
@click.option("--pixels/--no-pixels", default=True, show_default=True, help="Also nearest centroid on raw pixels.")
@click.option(
    "--out", type=TypedPath(dir_okay=False), metavar="FILE",
    help="Where the result goes [evaluation.json beside the checkpoint].",
)  # fmt: skip
def evaluate(checkpoint, data, pixels, out, **asked) -> int:
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
        say(f"the training is not finished: this is its network after epoch {done} of {epochs}")
    with working(alone(out.parent, out.name), "nothing was written") as display:
        rows = run(trained, dataset, progress=display, **asked).described()
        if pixels:
            plain = asked | {"methods": ("centroid",), "copies": 0, "unit": False}
            found = run(pixels_of, dataset, progress=display, **plain).described()
            rows += [row | {"method": "centroid of pixels"} for row in found]
    for row in rows:
        half = (row["high"] - row["low"]) / 2
        say(f"{asked['way']}-way {row['shot']}-shot, {row['method']}: {row['mean']:.2%} ± {half:.2%}")
    result = {
        "genotype": str(network.genotype), "network": asdict(network.layout) | {"space": network.layout.space.name},
        "parameters": parameter_count(network.layout, network.gates, classes=network.classes),
        "trained_on": trained.data, "epochs": done, "training": asdict(trained.settings),
        "evaluation": asked | {"data": dataset.name}, "results": rows,
    }  # fmt: skip
    results.save(out, result, seed=asked["seed"])
    say(str(out))
    return 0


def _compare_options() -> list[click.Option]:
    from mlkernels.nas import Layout, TrainSettings
    from mlkernels.nas.scores.training_free import ScoreSettings

    size = options_of(Layout, "cells", "channels", "pixels", cells=3, channels=4, pixels=14)
    budget = options_of(TrainSettings, "epochs", "rate", "seed", epochs=1, rate=0.1)
    return [*size, *budget, *options_of(ScoreSettings, "repeats")]


@nas.command(cls=SettingsCommand, settings=_compare_options)
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
    from mlkernels.nas.evaluation.compare import agreement, check_trainings, trained_accuracies
    from mlkernels.nas.pictures.search_images import LOOK
    from mlkernels.nas.scores.training_free import ScoreSettings, check_scoring, training_free_scores

    check_place(out)
    dataset = named_dataset(data)
    size = {"cells": cells, "channels": channels, "pixels": pixels, "colours": int(dataset.images.shape[-1])}
    drawn, scored = jax.random.split(jax.random.key(seed))
    ways = len(dataset.classes(next(iter(dataset.splits))))
    trained_layout = Layout(**size, ways=ways, norm="batch")
    genotypes = random_genotypes(trained_layout.space, count, key=drawn)
    settings = TrainSettings(epochs=epochs, rate=rate, milestones=(), drop_path=0.0, padding=2, flip=0.0, seed=seed)
    score_settings = ScoreSettings(Layout(**size), repeats=repeats)
    check_trainings(genotypes, dataset, trained_layout, settings)
    check_scoring(dataset, score_settings)
    trained_file, scores_file = (out.with_name(f"{out.name}{end}") for end in (".part", ".scores.part"))
    kept = f"{trained_file} and {scores_file.name} keep what is done: the same command goes on from there"
    with working(alone(out.parent, out.name), kept) as display:
        budget = {"seeds": seeds, "episodes": episodes, "out": trained_file, "progress": display}
        accuracy = trained_accuracies(genotypes, dataset, trained_layout, settings, **budget)
        about = {"key": scored, "out": scores_file, "progress": display}
        scores = training_free_scores(genotypes, dataset, score_settings, **about)
    how = {"data": dataset.name, "episodes": episodes, "seeds": seeds, "repeats": repeats, **size, **asdict(settings)}
    how |= {"reductions": trained_layout.reductions, "images": LOOK}
    diverged = results.read(trained_file).get("diverged", {})
    result = {
        "settings": how, "genotypes": [str(genotype) for genotype in genotypes], "accuracy": accuracy.round(6),
        "diverged": diverged, "scores": scores,
    }  # fmt: skip
    results.save(out, result, seed=seed)  # whatever becomes of the taus
    taus = {name: agreement(values.mean(1), accuracy.mean(1)) for name, values in scores.items()}
    result["tau"] = {name: [tau.mean, tau.low, tau.high] for name, tau in taus.items()}
    results.save(out, result, seed=seed)
    if diverged:
        say(f"{len(diverged)} of {accuracy.size} trainings diverged: they count as the accuracy of chance")
    for name, tau in taus.items():
        say(f"{name:14} tau {tau:.2f}")
    say(str(out))
    return 0
