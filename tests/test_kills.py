"""Commands that are killed while they write: the next run makes what an unbroken one makes, and nothing else stays."""

from __future__ import annotations

import pytest
from _kills import RESULTS, Commands, home_of, killed, trained


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
