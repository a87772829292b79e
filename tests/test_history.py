"""A measured run: its measurements, and that a killed one goes on as if nothing had happened."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import jax
import numpy as np
import optax
import pytest

from mlkernels import tasks
from mlkernels.errors import InputError
from mlkernels.learners import fit_and_measure
from mlkernels.learners.maml import InnerLoop
from mlkernels.networks import MLP

NETWORK = MLP(16)
INNER = InnerLoop(0.02, 2, adapt=("head",))
ADAM = optax.adam(1e-2)
FILE = "run.npz"


def draw(key):
    return tasks.sinusoid(tasks=2, support=4, queries=4, key=key)


def size(params):
    return [float((layer["w"] ** 2).sum()) for layer in params.values()]


def run(checkpoint=None, measure=size, steps=12, **settings):
    params = NETWORK.init(jax.random.key(1), (1,))
    settings = {"key": jax.random.key(2)} | settings
    return fit_and_measure(
        NETWORK.apply, params, draw, INNER, ADAM, steps=steps, every=4, measure=measure, checkpoint=checkpoint,
        **settings,
    )  # fmt: skip


@pytest.fixture(scope="module")
def whole_run():
    return run()


def test_it_measures_at_the_start_and_on_the_way(whole_run):
    assert whole_run.step.tolist() == [0, 4, 8, 12]
    assert whole_run.value.shape == (4, 3)
    np.testing.assert_allclose(whole_run.value[-1], size(whole_run.result.params))
    assert whole_run.seconds[0] == 0
    assert (np.diff(whole_run.seconds) > 0).all()


def test_a_run_that_is_interrupted_goes_on(tmp_path, whole_run):
    def until_8(params, calls=[]):  # noqa: B006
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return size(params)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / FILE, until_8)
    left = json.loads((tmp_path / f"{FILE}.history.json").read_text())["rows"]
    assert [(row["step"], row["value"] is None) for row in left] == [(0, False), (4, False), (8, True)]
    seen = []
    again = run(tmp_path / FILE, lambda params: seen.append(1) or size(params))
    np.testing.assert_array_equal(again.result.losses, whole_run.result.losses)
    jax.tree.map(np.testing.assert_array_equal, again.result.params, whole_run.result.params)
    assert again.seconds[:3].tolist() == [row["seconds"] for row in left]
    assert again.seconds[3] > again.seconds[2]
    assert again.step.tolist() == [0, 4, 8, 12]
    np.testing.assert_array_equal(again.value, whole_run.value)
    assert len(seen) == 2  # step 8 was trained and saved, and not measured


def test_a_killed_process_goes_on_with_the_same_numbers(tmp_path, whole_run):
    """SIGKILL in the middle: no handler runs, nothing is tidied up."""
    script = f"""
        import os, signal, sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        import jax
        jax.config.update("jax_enable_x64", True)
        import test_history as here
        calls = []
        def measure(params):
            calls.append(1)
            if len(calls) == 3:
                os.kill(os.getpid(), signal.SIGKILL)
            return here.size(params)
        here.run({str(tmp_path / FILE)!r}, measure)
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    killed = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert (tmp_path / FILE).exists()
    again = run(tmp_path / FILE)
    assert again.step.tolist() == [0, 4, 8, 12]
    np.testing.assert_array_equal(again.value, whole_run.value)
    np.testing.assert_array_equal(again.result.losses, whole_run.result.losses)


def test_a_finished_run_is_not_done_again_and_can_be_made_longer(tmp_path, whole_run):
    first = run(tmp_path / FILE, steps=8)
    same = run(tmp_path / FILE, steps=8)
    np.testing.assert_array_equal(first.seconds, same.seconds)
    longer = run(tmp_path / FILE)
    assert longer.step.tolist() == [0, 4, 8, 12]
    np.testing.assert_array_equal(longer.result.losses, whole_run.result.losses)


def test_another_rate_does_not_go_on_from_the_file(tmp_path):
    run(tmp_path / FILE, steps=4)
    with pytest.raises(InputError, match="rates"):
        run(tmp_path / FILE, rates=0.5)


def test_a_damaged_file_of_measurements_is_kept_aside(tmp_path):
    run(tmp_path / FILE, steps=4)
    beside = tmp_path / f"{FILE}.history.json"
    beside.write_text("[{")
    with pytest.raises(InputError, match="kept as"):
        run(tmp_path / FILE)
    assert beside.with_name(f"{beside.name}.broken-1").read_text() == "[{"
    assert run(tmp_path / FILE).step.tolist() == [0, 8, 12]


def test_a_run_that_diverges_ends_there():
    found = run(rates=1e200, on_divergence="return")
    assert found.result.diverged is not None
    assert found.step[-1] <= found.result.diverged.step


@pytest.mark.parametrize("wrong", [{"every": 0}, {"every": 2000}, {"chunk": 3}, {"callback": print}])
def test_bad_settings_say_so(wrong):
    (name,) = wrong
    with pytest.raises(InputError, match=name):
        fit_and_measure(
            NETWORK.apply, NETWORK.init(jax.random.key(1), (1,)), draw, INNER, ADAM,
            **{"steps": 4, "every": 4, "measure": size, "key": jax.random.key(2)} | wrong,
        )  # fmt: skip
