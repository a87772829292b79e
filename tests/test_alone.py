"""One process or thread at a time: whatever writes into a folder refuses the second one before it has begun."""

from __future__ import annotations

import jax
import optax
import pytest
from _nas_search import settings, synthetic
from _nas_train import data, network
from _nas_train import settings as train_settings

from mlkernels import networks, tasks
from mlkernels.errors import InputError
from mlkernels.inner_loop.settings import InnerLoop
from mlkernels.learners import fit_and_measure, maml
from mlkernels.nas import search, train
from mlkernels.runner.editions import folder as editions
from mlkernels.support.files import alone
from mlkernels.support.kept_rows import alone_with

BATCH = tasks.sinusoid(tasks=2, support=3, queries=3, key=jax.random.key(0))
NETWORK = networks.MLP(width=4)
GIVEN = (NETWORK.apply, NETWORK.init(jax.random.key(1), (1,)), BATCH, InnerLoop(0.01, 1), optax.sgd(1e-3))


def measured(path):
    fit_and_measure(*GIVEN, steps=2, every=1, measure=lambda params: 0.0, checkpoint=path)


WRITERS = {
    "search": (lambda out: search(settings(), synthetic(), out=out), ""),
    "train": (lambda out: train(network(), data(), train_settings(), out=out), ""),
    "fit": (lambda out: maml.fit(*GIVEN, steps=1, checkpoint=out / "run.npz"), "run.npz"),
    "fit_and_measure": (lambda out: measured(out / "run.npz"), "run.npz.history.json"),
    "export": (lambda out: editions.export("student", out / "class", names=["00"]), "class"),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_the_second_is_refused_with_the_first_ones_number_and_command(writer, tmp_path):
    write, name = WRITERS[writer]
    with alone(tmp_path, name):
        before = sorted(tmp_path.iterdir())
        with pytest.raises(InputError, match=r"expected one process at a time, got process \d+ \(.+\) at work there"):
            write(tmp_path)
        assert sorted(tmp_path.iterdir()) == before


def test_rows_are_kept_by_one_at_a_time(tmp_path):
    path = tmp_path / "rows.json"
    with alone_with(path, "scores", {}) as kept:
        kept.add("a", {"x": 1.0})
        with pytest.raises(InputError, match="one process at a time"), alone_with(path, "scores", {}):
            pass
    with alone_with(path, "scores", {}) as kept, alone_with(None, "scores", {}):
        assert kept.rows == {"a": {"x": 1.0}}


def test_a_folder_is_free_again_after_the_work_and_after_an_error(tmp_path):
    def fail(step, params, loss):
        raise RuntimeError

    for _ in range(2):
        with pytest.raises(RuntimeError):
            maml.fit(*GIVEN, steps=2, checkpoint=tmp_path / "run.npz", callback=fail)
    assert maml.fit(*GIVEN, steps=2, checkpoint=tmp_path / "run.npz").steps_done == 2
    assert [path.name for path in tmp_path.iterdir()] == ["run.npz"]


def test_a_place_without_room_for_a_state_is_refused_before_the_first_step(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("Usage", (), {"free": 10})())
    with pytest.raises(InputError, match=r"run.npz: expected .* of room for it, got 10 B there; make room"):
        maml.fit(*GIVEN, steps=2, checkpoint=tmp_path / "run.npz", callback=lambda *_: pytest.fail("it goes"))
    with pytest.raises(InputError, match="of room for it, got 10 B there"):
        search(settings(), synthetic(), out=tmp_path, progress=lambda _: pytest.fail("it goes"))
    with pytest.raises(InputError, match="of room for it, got 10 B there"):
        train(network(), data(), train_settings(), out=tmp_path, progress=lambda _: pytest.fail("it goes"))
    assert not list(tmp_path.iterdir())
