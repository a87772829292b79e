"""Commands that are killed while they write: the next run makes what an unbroken one makes, and nothing else stays."""

from __future__ import annotations

import json
import signal

import pytest
from _kills import RESULTS, Commands, home_of, killed, names, trained, unbroken
from _moment import Moment


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return home_of(tmp_path_factory.mktemp("home"))


def test_a_few_of_the_kills(home):
    with Commands(home, ["get", "export"]) as commands:
        assert sum(killed(commands, work, seed=0) for work in ("get", "export")) >= 8


@pytest.fixture(scope="module")
def commands(home):
    with Commands(home) as commands:
        yield commands


@pytest.mark.once
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("work", RESULTS)
def test_a_command_that_is_killed_again_and_again_makes_what_an_unbroken_one_makes(work, seed, commands):
    if work == "evaluate":
        trained(commands)
    count = killed(commands, work, seed)
    print(f"{work}: {count} kills")  # -rP shows them
    assert count


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_data_set_that_is_politely_killed_leaves_a_line_and_nothing_else(home, number, request):
    before = signal.signal(number, signal.SIG_DFL)  # under nohup a closed terminal is switched off
    request.addfinalizer(lambda: signal.signal(number, before))
    with Commands(home, ["get"]) as commands:
        writes = json.loads(unbroken(commands, "get").with_suffix(".json").read_text())
        for at in (writes // 3, writes - 1):  # while it is read and written, and just before its folder has its name
            folder = home / f"get-{number}-{at}"
            ended = commands.run("get", folder, Moment(number, at))
            assert (ended.status, names(folder)) == (128 + number, []), ended.said
            assert ended.said.splitlines()[-1] == "stopped"
