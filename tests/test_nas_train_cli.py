"""mlkernels nas train and nas evaluate: what they leave, what they say, what they refuse and how."""

from __future__ import annotations

import json
import sys

import click
import pytest
from test_nas_cli import status_of

from mlkernels import datasets, nas
from mlkernels.commands import nas as commands
from mlkernels.commands.options import Counter
from mlkernels.errors import InputError
from mlkernels.nas import Layout, TrainSettings
from mlkernels.nas.training import train as training
from mlkernels.support.progress import Progress

TEXT = "N: sk<0 mp<1 | sk<1 mp<2 | sk<0 sk<2 R: mp<0 mp<1 | mp<1 sk<2 | sk<2 sk<3"
SMALL = ["--data", "glyphs", "--cells", "2", "--channels", "2", "--pixels", "8", "--epochs", "2", "--batch", "50"]
FEW = ["--data", "glyphs", "--queries", "5", "--episodes", "10", "--copies", "0"]


@pytest.fixture
def few_glyphs(monkeypatch):
    few, load = datasets.load("glyphs", classes=24, drawings=12), datasets.load
    monkeypatch.setattr(datasets, "load", lambda name: few if name == "glyphs" else load(name))


def test_a_search_is_trained_and_evaluated(few_glyphs, capsys, tmp_path):
    result, out, found = tmp_path / "result.json", tmp_path / "out", tmp_path / "evaluation.json"
    result.write_text(json.dumps({"genotype": repr(nas.Genotype.parse(TEXT))}), encoding="utf-8")
    assert status_of("nas", "train", result, *SMALL, "--out", out) == 0
    told = capsys.readouterr()
    layout, gates = layout_of_small(), nas.Network(layout_of_small(), TEXT).gates
    flops = 3 * nas.flop_count(layout, gates)
    cost = f"{flops * 2 * 150:.2g} floating-point operations (counted, 3 forward passes an image)"
    assert f"M parameters, 15 classes; 2 epochs of 180 images: {cost}" in told.out
    last = json.loads((out / "log.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    speed = last["images_per_second"]
    assert f"{speed:.0f} images a second in that epoch, {flops * speed / 1e9:.3g} billion floating-point" in told.out
    assert "epoch 2: loss" in told.out
    assert "6 of 6, epoch 2 of 2, 0.0 s left; loss" in told.err
    assert "images a second" in told.err
    assert len((out / "log.jsonl").read_text(encoding="utf-8").splitlines()) == 2
    assert status_of("nas", "train", TEXT, *SMALL, "--out", out) == 0  # the same, and finished
    capsys.readouterr()
    assert status_of("nas", "evaluate", out, *FEW, "--out", found, "--method", "centroid", "--method", "metantk") == 0
    told = capsys.readouterr()
    for words in ("5-way 1-shot, metantk:", "5-way 5-shot, centroid:", "5-way 1-shot, centroid of pixels:", "±"):
        assert words in told.out
    written = json.loads(found.read_text(encoding="utf-8"))
    assert nas.Genotype.parse(written["genotype"]) == nas.Genotype.parse(TEXT)
    assert written["training"]["batch"] == 50
    shape = {"space": "darts_fewshot", "cells": 2, "channels": 2, "pixels": 8, "ways": 15, "colours": 1}
    assert shape.items() <= written["network"].items()
    assert written["parameters"] == nas.parameter_count(layout, gates, classes=15)
    assert written["trained_on"] == "glyphs: 180 images of 15 classes"
    assert written["evaluation"]["episodes"] == 10
    assert {"jax", "numpy"} <= written["versions"].keys()
    assert [(row["shot"], row["method"]) for row in written["results"]] == [
        (1, "centroid"), (1, "metantk"), (5, "centroid"), (5, "metantk"),
        (1, "centroid of pixels"), (5, "centroid of pixels"),
    ]  # fmt: skip
    assert all(row["low"] <= row["mean"] <= row["high"] for row in written["results"])


def layout_of_small():
    return Layout(cells=2, channels=2, pixels=8, ways=15, colours=1, norm="batch")


def test_the_file_that_nas_train_names_is_evaluated_beside_it_also_when_training_goes_on(few_glyphs, capsys, tmp_path):
    settings = TrainSettings(epochs=2, batch=50)
    nas.train(nas.Network(layout_of_small(), TEXT), datasets.load("glyphs"), settings, out=tmp_path, epochs=1)
    few = [*FEW, "--method", "centroid", "--shots", "1", "--no-pixels"]
    for given in (tmp_path / "checkpoint.npz", tmp_path):
        assert status_of("nas", "evaluate", given, *few) == 0
        told = capsys.readouterr().out.splitlines()
        assert told[0] == "the training is not finished: this is its network after epoch 1 of 2"
        assert told[-1] == str(tmp_path / "evaluation.json")
        (tmp_path / "evaluation.json").unlink()


def test_a_place_that_cannot_be_written_is_refused_before_the_work(few_glyphs, capsys, tmp_path, monkeypatch):
    def never(*arguments, **options):
        raise AssertionError("refused first")

    settings = TrainSettings(epochs=2, batch=50)
    nas.train(nas.Network(layout_of_small(), TEXT), datasets.load("glyphs"), settings, out=tmp_path, epochs=1)
    monkeypatch.setattr(nas, "evaluate", never)
    monkeypatch.setattr(nas, "train", never)
    (file := tmp_path / "file").touch()
    assert status_of("nas", "evaluate", tmp_path, *FEW, "--out", file / "new" / "found.json") == 2
    assert "file: expected a folder, got a file; name another place" in " ".join(capsys.readouterr().err.split())
    (tmp_path / "evaluation.json").mkdir()
    assert status_of("nas", "evaluate", tmp_path, *FEW) == 2
    assert "evaluation.json: expected a file, got a folder" in " ".join(capsys.readouterr().err.split())
    assert status_of("nas", "train", TEXT, *SMALL, "--out", file / "new") == 2
    assert "file: expected a folder, got a file; name another place" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("size", [["--channels", "40960"], ["--channels", "4096", "--pixels", "4096"]])
def test_a_training_that_cannot_fit_is_refused_before_anything_is_made(size, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(training, "Pictures", lambda *given: pytest.fail("it resizes all images"))
    assert status_of("nas", "train", TEXT, "--data", "glyphs", *size, "--out", tmp_path) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("mlkernels: memory for training a network: expected ")
    assert shown.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_an_evaluation_that_cannot_fit_is_refused_before_an_image_is_looked_at(few_glyphs, tmp_path, monkeypatch):
    network = nas.Network(layout_of_small(), TEXT)
    trained = nas.train(network, datasets.load("glyphs"), TrainSettings(epochs=1, batch=50))
    monkeypatch.setattr("mlkernels.support.memory.available_bytes", lambda: 10**5)
    said = "memory for features of 100 images: expected .* free, got 97.7 KiB; take a smaller block"
    with pytest.raises(InputError, match=said):
        nas.evaluate(trained, datasets.load("glyphs"), queries=5, episodes=10)


@pytest.mark.parametrize(("error", "status"), [(InputError("loss: expected"), 2), (KeyboardInterrupt(), 130)])
def test_however_a_training_ends_its_display_is_closed(error, status, few_glyphs, tmp_path, monkeypatch):
    def stop(*arguments, **options):
        raise error

    closed = []
    monkeypatch.setattr(nas, "train", stop)
    monkeypatch.setattr(Counter, "close", lambda self: closed.append(self))
    assert status_of("nas", "train", TEXT, *SMALL, "--out", tmp_path) == status
    assert len(closed) == 1


def test_a_result_whose_genotype_is_no_text(capsys, tmp_path):
    for content in ({"genotype": {"normal": []}}, {"genotype": None}, []):
        (tmp_path / "bad.json").write_text(json.dumps(content), encoding="utf-8")
        assert status_of("nas", "train", tmp_path / "bad.json", *SMALL, "--out", tmp_path / "out") == 2
        said = " ".join(capsys.readouterr().err.split())
        assert "bad.json: expected the result.json of a search, got something else" in said


def test_ctrl_c_says_how_to_go_on(few_glyphs, capsys, tmp_path, monkeypatch):
    def stop(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(nas, "train", stop)
    assert status_of("nas", "train", TEXT, *SMALL, "--out", tmp_path) == 130
    assert "the same command goes on from there" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([TEXT, "--data", "imagenet"], "--data: expected omniglot or glyphs or"),
        (["N: sk<0"], "genotype: expected Genotype("),
        (["missing.json"], "missing.json: expected the result.json of a search, got No such file"),
        ([TEXT, "--cells", "1"], "cells: expected a whole number from 2 to 1000, got 1"),
        ([TEXT, "--epochs", "0"], "epochs: expected a whole number of at least 1, got 0"),
        ([TEXT, "--compute-dtype", "int8"], "compute_dtype: expected None or float32"),
        ([TEXT, "--devices", "9"], "devices: expected a whole number from 1 to 1, got 9"),
    ],
)
def test_what_is_refused_is_said_in_one_line(arguments, said, capsys, tmp_path):
    genotype, *rest = arguments
    assert status_of("nas", "train", genotype, *SMALL, *rest, "--out", tmp_path / "out") == 2
    told = " ".join(capsys.readouterr().err.split())
    assert told.startswith("mlkernels: ")
    assert said in told


def test_no_checkpoint_there(capsys, tmp_path):
    assert status_of("nas", "evaluate", tmp_path, *FEW) == 2
    assert "expected the checkpoint of a training, got none" in " ".join(capsys.readouterr().err.split())


def test_options_have_the_published_defaults():
    train, evaluate = ({option.name: option.default for option in command.get_params(click.Context(command))}
                       for command in (commands.train, commands.evaluate))  # fmt: skip
    told = TrainSettings()
    for name in ("epochs", "batch", "rate", "milestones", "drop_path", "weight_decay", "padding", "jitter", "flip"):
        assert train[name] == getattr(told, name), name
    assert (train["cells"], train["channels"], train["pixels"]) == (Layout().cells, Layout().channels, 84)
    published = {"way": 5, "shots": (1, 5), "queries": 50, "episodes": 1000, "copies": 5, "seed": 42, "split": "test"}
    assert published.items() <= evaluate.items()
    assert evaluate["methods"] == ("logistic", "centroid", "metantk")


def test_what_is_shown_of_a_training(capsys):
    display = Counter(sys.stderr)
    display(Progress(1, 60000, "epoch 1 of 100", "loss 2.500"))
    display.said = 0.0
    display(Progress(1800, 60000, "epoch 3 of 100", "loss 1.234, 813 images a second", 75.0))
    display(Progress(60000, 60000, "epoch 100 of 100", "loss 0.500, 813 images a second", 0.0))
    assert capsys.readouterr().err.splitlines() == [
        "1 of 60000, epoch 1 of 100; loss 2.500",
        "1800 of 60000, epoch 3 of 100, 1 min 15 s left; loss 1.234, 813 images a second",
        "60000 of 60000, epoch 100 of 100, 0.0 s left; loss 0.500, 813 images a second",
    ]
