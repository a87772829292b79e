"""Training of the derived network: against a plain loop, resumed and killed, on several devices, refused."""

from __future__ import annotations

import functools
import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from _nas_train import TEXT, data, network, settings

from mlkernels.errors import InputError
from mlkernels.learners.outer_loop import checkpoint
from mlkernels.nas import Layout, Network, TrainSettings, load_trained, train
from mlkernels.nas.engine import batch_norm
from mlkernels.nas.engine.network import apply, init
from mlkernels.nas.pictures.augment import augment
from mlkernels.nas.pictures.resized import Pictures, resized

HERE = Path(__file__).parent
MODULE = sys.modules[train.__module__]  # its name in the package is the function's


@functools.cache
def unbroken():
    return train(network(), data(), settings())


def same(one, other) -> None:
    """The same to the bit."""
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(a, b)


def losses(trained):
    return [(row["epoch"], row["loss"], row["accuracy"], row["rate"]) for row in trained.history]


def test_a_training_is_the_loop_written_down():
    """Documented keys and order; torch's SGD; the network differentiated as it is called."""
    net, told, dataset = network(), settings(epochs=2, milestones=(1,), drop_path=0.3), data()
    found = train(net, dataset, told)
    weights, draws = jax.random.split(jax.random.key(told.seed))
    params, statistics = init(net, key=weights, dtype=float)
    speed = jax.tree.map(jnp.zeros_like, params)

    @functools.partial(jax.jit, static_argnums=4)
    @functools.partial(jax.value_and_grad, has_aux=True)
    def loss_of(params, statistics, images, labels, drop, key):
        given = {"drop": drop, "key": key, "train": True}
        outputs, moved = apply(net, type(found.variables)(params, statistics), images, **given)
        return optax.losses.softmax_cross_entropy_with_integer_labels(outputs, labels).mean(), moved

    for epoch in (1, 2):
        key, total = jax.random.fold_in(draws, epoch), []
        order = np.random.default_rng(np.asarray(jax.random.key_data(key)).tolist()).permutation(len(dataset.labels))
        for step in range(len(order) // 16):
            rows = np.sort(order[16 * step : 16 * step + 16])
            look, path = jax.random.split(jax.random.fold_in(key, step))
            images = augment(dataset.images[rows], key=look, mean=dataset.mean, std=dataset.std, padding=1)
            arguments = params, statistics, images, dataset.labels[rows], 0.3 * epoch / 2, path
            with pytest.MonkeyPatch.context() as patch:  # a jit with compiler options is not differentiated through
                patch.setattr("mlkernels.nas.engine.network.forward_block", batch_norm.run)
                (loss, statistics), by_params = loss_of(*arguments)
            decayed = jax.tree.map(lambda g, w: g + 5e-4 * w, by_params, params)
            speed = jax.tree.map(lambda v, g: 0.9 * v + g, speed, decayed)
            rate = 0.1 if epoch == 1 else 0.01
            params = jax.tree.map(lambda w, v, rate=rate: w - rate * v, params, speed)
            total.append(float(loss))
        assert found.history[epoch - 1]["loss"] == pytest.approx(np.mean(total), rel=1e-6)
        assert found.history[epoch - 1]["rate"] == pytest.approx(rate)
    ours, theirs = jax.tree.leaves(found.variables), jax.tree.leaves((params, statistics))
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


def test_compiled_as_a_whole_it_is_the_same_and_it_says_how_far_it_is():
    found, seen = unbroken(), []
    again = train(network(), data(), settings(), compiled="whole", progress=seen.append)
    for a, b in zip(jax.tree.leaves(found.variables), jax.tree.leaves(again.variables), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-10)
    assert [row["epoch"] for row in found.history] == [1, 2, 3, 4]
    assert [row["rate"] for row in found.history] == pytest.approx([0.1, 0.1, 0.01, 0.01])
    ends = [each for each in seen if each.done % 6 == 0]
    assert [(each.done, each.total) for each in ends] == [(6, 24), (12, 24), (18, 24), (24, 24)]
    assert [each.text for each in ends] == [f"epoch {epoch} of 4" for epoch in (1, 2, 3, 4)]
    assert ends[-1].seconds_left == 0.0
    assert ends[0].seconds_left > 0
    assert all(re.fullmatch(r"loss \d\.\d{3}, [1-9]\d* images a second", each.note) for each in ends)


def test_it_learns():
    easy = {"epochs": 10, "milestones": (8,), "jitter": 0.0, "padding": 0, "flip": 0.0, "drop_path": 0.0}
    found = train(network(), data(), settings(**easy))
    assert found.history[-1]["loss"] < 0.6 * found.history[0]["loss"]
    assert found.history[-1]["accuracy"] > 0.5 > found.history[0]["accuracy"]


def test_other_seeds_and_settings_give_others():
    first = losses(unbroken())[0]
    for changes in ({"seed": 4}, {"flip": 0.0}, {"drop_path": 0.0}, {"initialisation": "fan_out"}):
        other = train(network(), data(), settings(**changes), epochs=1)
        assert len(other.history) == 1
        assert losses(other)[0][1] != first[1], changes


def test_it_goes_on_where_it_was_stopped_to_the_bit(tmp_path):
    for done in (1, 3, 4):
        found = train(network(), data(), settings(), out=tmp_path, epochs=1 if done == 1 else 2)
        assert len(found.history) == done
        lines = (tmp_path / "log.jsonl").read_text(encoding="utf-8").splitlines()
        assert [json.loads(line) for line in lines] == list(found.history)
    same(found.variables, unbroken().variables)
    assert losses(found) == losses(unbroken())
    loaded = load_trained(tmp_path)
    assert (loaded.network, loaded.settings, loaded.history) == (network(), settings(), found.history)
    assert loaded.mean == tuple(data().mean)
    assert loaded.data == found.data == "synthetic: 96 images of 8 classes"
    same(loaded.variables, found.variables)
    same(load_trained(tmp_path / "checkpoint.npz").variables, found.variables)
    (tmp_path / "log.jsonl").write_text("".join(line + "\n" for line in lines[:-1]))  # killed between the two files
    assert train(network(), data(), settings(), out=tmp_path).history == found.history  # it is finished
    assert (tmp_path / "log.jsonl").read_text(encoding="utf-8").splitlines() == lines


def test_it_goes_on_in_32_bit_jax_what_it_began_in_64_bits_to_the_bit(tmp_path):
    told = settings(epochs=2, batch=96, dtype="float32")
    train(network(), data(), told, out=tmp_path, epochs=1)
    with jax.enable_x64(False):
        found = train(network(), data(), told, out=tmp_path)
    unbroken = train(network(), data(), told)
    assert losses(found) == losses(unbroken)
    same(found.variables, unbroken.variables)


def run(folder, compiled="auto", flags="", die="0 never"):
    flags = f"{os.environ.get('XLA_FLAGS', '')} {flags}"
    threads = "32"  # simulated devices wait for each other, each in a thread of a pool as large as the machine
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "NPROC": threads,
        "XLA_FLAGS": flags,
        "PYTHONPATH": str(HERE.parent),
        "DIE": die,
    }
    command = [sys.executable, str(HERE / "_nas_train.py"), str(folder), compiled]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_a_training_that_is_killed_again_and_again_ends_the_same(tmp_path):
    for moment in ("1 before", "1 after", "2 before", "1 after"):
        process = run(tmp_path, die=moment)
        out, _ = process.communicate(timeout=900)
        assert process.returncode == -signal.SIGKILL, out
    process = run(tmp_path)
    out, _ = process.communicate(timeout=900)
    assert process.returncode == 0, out
    found = load_trained(tmp_path)
    assert losses(found) == losses(unbroken())
    same(found.variables, unbroken().variables)


@pytest.mark.parametrize("compiled", ["blocks", "whole"])
def test_four_devices_train_as_one_does(tmp_path, compiled):
    process = run(tmp_path, compiled, "--xla_force_host_platform_device_count=4")
    out, _ = process.communicate(timeout=600)
    assert process.returncode == 0, out
    assert out.splitlines()[-1] == "4 devices"
    found = load_trained(tmp_path)
    for a, b in zip(jax.tree.leaves(found.variables), jax.tree.leaves(unbroken().variables), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-9)


def test_half_precision_keeps_float32():
    found, full = (
        train(network(), data(), settings(dtype="float32", compute_dtype=compute), epochs=1)
        for compute in ("bfloat16", None)
    )
    assert {leaf.dtype.name for leaf in jax.tree.leaves(found.variables)} == {"float32"}
    assert found.history[0]["loss"] == pytest.approx(full.history[0]["loss"], rel=0.05)


def test_a_folder_of_another_training_is_refused(tmp_path):
    train(network(), data(), settings(), out=tmp_path, epochs=1)
    with pytest.raises(InputError, match=r"the settings that it was made with \(rate 0.1\), got rate 0.2"):
        train(network(), data(), settings(rate=0.2), out=tmp_path)
    other = replace(data(), images=data().images[::-1])
    with pytest.raises(InputError, match=r"made with \(images \w{8}\), got images \w{8}; use another path"):
        train(network(), other, settings(), out=tmp_path)
    other = Network(network().layout, TEXT.replace("sk<1", "c3<1"))
    with pytest.raises(InputError, match="genotype N: c3<0 c3<1"):
        train(other, data(), settings(), out=tmp_path)
    (tmp_path / "checkpoint.npz").write_bytes(b"nothing")
    with pytest.raises(InputError, match="a whole file"):
        load_trained(tmp_path)
    with pytest.raises(InputError, match="the checkpoint of a training, got none"):
        load_trained(tmp_path)


def test_one_image_that_differs_is_noticed(tmp_path):
    told = settings(epochs=2, batch=96)
    train(network(), data(), told, out=tmp_path, epochs=1)
    for row in (2, 50):
        images = np.array(data().images)
        images[row] = 255 - images[row]
        with pytest.raises(InputError, match=r"made with \(images \w{8}\), got images \w{8}; use another path"):
            train(network(), replace(data(), images=images), told, out=tmp_path)


def test_a_checkpoint_of_before_all_images_were_looked_at_is_refused_and_still_read(tmp_path, monkeypatch):
    told = settings(epochs=2, batch=96)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "_KEPT", 1)
        found = train(network(), data(), told, out=tmp_path, epochs=1)
    before = (tmp_path / "checkpoint.npz").read_bytes()
    with pytest.raises(InputError, match=r"got one of an older version, .*; use another path"):
        train(network(), data(), told, out=tmp_path)
    assert (tmp_path / "checkpoint.npz").read_bytes() == before
    same(load_trained(tmp_path).variables, found.variables)


def test_a_loss_that_is_not_finite_ends_it_and_the_epoch_before_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(MODULE, "_REPORT_SECONDS", 0)
    told, seen = settings(rate=1e200, milestones=()), []
    with pytest.raises(InputError, match=r"loss: expected a finite number, got nan in epoch 1; lower the rate$"):
        train(network(), data(), told, out=tmp_path, progress=seen.append)
    assert len(seen) < seen[-1].total / told.epochs  # it is not trained to the end of the epoch
    assert not list(tmp_path.iterdir())
    with pytest.raises(InputError, match=r"got nan in epoch 2; lower the rate, .*: epoch 1 is kept in this one"):
        train(network(), data(), replace(told, batch=96), out=tmp_path)
    assert len(load_trained(tmp_path).history) == 1


def test_parameters_that_are_not_finite_are_not_saved(tmp_path):
    told = settings(rate=1e60, batch=96, dtype="float32")  # the loss is of the parameters before
    with pytest.raises(InputError, match=r"parameters and statistics: expected finite numbers, got .* epoch 1; low"):
        train(network(), data(), told, out=tmp_path)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_trained_is_refused_before_it_is(tmp_path, monkeypatch):
    def epoch(*_):
        raise AssertionError("trained")

    monkeypatch.setattr(MODULE._Run, "epoch", epoch)
    (tmp_path / "file").touch()
    for out, said in (("file", "expected a folder, got a file"), ("file/inside", "expected a folder, got a file")):
        with pytest.raises(InputError, match=said):
            train(network(), data(), settings(), out=tmp_path / out)
    for epochs in (-1, 0, 1.5, True):
        with pytest.raises(InputError, match="epochs: expected a whole number of at least 1"):
            train(network(), data(), settings(), epochs=epochs)
    with pytest.raises(InputError, match=r"settings: expected nas\.TrainSettings, got dict"):
        train(network(), data(), {"epochs": 1})
    with pytest.raises(InputError, match=r"network: expected nas\.Network, got str"):
        train(TEXT, data(), settings())


def test_numbers_of_numpy_are_kept_as_those_of_python():
    told = settings(
        epochs=np.int64(1), seed=np.int64(1), rate=np.float32(0.5), flip=np.float32(1), milestones=np.array([2, 3])
    )
    assert told == settings(epochs=1, seed=1, rate=0.5, flip=1.0, milestones=(2, 3))
    assert told.described()["rate"] == "0.5"
    assert TrainSettings.from_described(told.described()) == told
    settings(seed=2**32 - 1, compute_dtype="float64")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"epochs": 0}, "epochs: expected a whole number of at least 1"),
        ({"batch": 1}, "batch: expected a whole number of at least 2"),
        ({"batch": 97}, "batch: expected at most the 96 images"),
        ({"rate": 0.0}, "rate: expected a number above 0"),
        ({"rate": np.float32(0)}, "rate: expected a number above 0, got 0.0"),
        ({"rate": "0.1"}, "rate: expected a number above 0, got '0.1'"),
        ({"momentum": 1.0}, "momentum: expected a number of at least 0 and below 1"),
        ({"flip": 1.5}, "flip: expected a number of at least 0 and at most 1"),
        ({"drop_path": 1.0}, "drop_path: expected"),
        ({"milestones": (0,)}, "milestones: expected"),
        ({"milestones": 60}, "milestones: expected a tuple of whole numbers, got 60"),
        ({"milestones": None}, "milestones: expected a tuple of whole numbers, got None"),
        ({"milestones": "60"}, "milestones: expected a whole number of at least 1, got '6'"),
        ({"padding": -1}, "padding: expected"),
        ({"seed": 2**32}, "seed: expected a whole number from 0 to 4294967295, got 4294967296"),
        ({"seed": -1}, "seed: expected"),
        ({"dtype": "float32", "compute_dtype": "float64"}, "compute_dtype: expected nothing wider than dtype float32"),
        ({"compute_dtype": "float16"}, "compute_dtype: expected None or float32"),
        ({"initialisation": "zeros"}, "initialisation: expected"),
    ],
)
def test_settings_out_of_their_range(changes, said):
    with pytest.raises(InputError, match=said):
        train(network(), data(), settings(**changes))


def test_a_network_that_does_not_fit():
    for changes, said in (({"ways": 7}, "8 classes, as in synthetic, got 7"), ({"colours": 1}, "3 colours, got 1")):
        with pytest.raises(InputError, match=said):
            train(Network(replace(network().layout, **changes), TEXT), data(), settings())
    with pytest.raises(InputError, match="devices: expected"):
        train(network(), data(), settings(), devices=2)
    with pytest.raises(InputError, match="compiled: expected auto, blocks or whole"):
        train(network(), data(), settings(), compiled="half")


def test_the_defaults_are_the_published_training():
    told = TrainSettings()
    assert (told.epochs, told.batch, told.rate, told.milestones) == (100, 64, 0.02, (60, 80))
    assert (told.momentum, told.weight_decay, told.drop_path) == (0.9, 5e-4, 0.2)
    assert told.augmentation == {"padding": 8, "jitter": 0.4, "flip": 0.5}
    assert [told.rate_in(e) for e in (1, 60, 61, 80, 81, 100)] == pytest.approx([2e-2, 2e-2, 2e-3, 2e-3, 2e-4, 2e-4])
    assert [told.drop_in(e) for e in (1, 50, 100)] == pytest.approx([0.002, 0.1, 0.2])
    assert TrainSettings.from_described(told.described()) == told
    assert Layout(cells=5, channels=48, pixels=84, ways=64, norm="batch").features == 576


def test_images_of_another_size_are_resized_once():
    dataset = data()
    small = Pictures(dataset, "train", 4)
    rows = np.array([5, 0, 95])
    expected = dataset.images[rows].reshape(3, 4, 2, 4, 2, 3).mean((2, 4))
    assert abs(small[rows] - expected).max() < 40  # a triangle twice as wide, not a square
    assert small[rows].dtype == np.uint8
    np.testing.assert_array_equal(small[rows], resized(dataset.images[rows], 4))
    flat = resized(np.full((2, 9, 9, 1), 77, np.uint8), 5)
    assert (flat == 77).all()
    np.testing.assert_array_equal(Pictures(dataset, "train", 8)[rows], dataset.images[rows])
