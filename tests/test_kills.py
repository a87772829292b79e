"""Commands that are killed while they write: the next run makes what an unbroken one makes, and nothing else stays."""

from __future__ import annotations

import nbformat
import numpy as np
import pytest
from _kills import RESULTS, Commands, killed
from _pictures import picture
from _python2 import write_pickle
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from mlkernels.datasets.importing.recipe import SPLITS
from mlkernels.datasets.miniimagenet.classes import classes


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with all that the commands read."""
    home = tmp_path_factory.mktemp("home")
    (home / "copy").mkdir()
    for split in SPLITS:  # miniImageNet in form A with one image a class
        names = [name for name, about in classes().items() if about[0] == split]
        images = np.stack([picture(list(classes()).index(name), 0) for name in names])
        rows = {name: [row] for row, name in enumerate(names)}
        path = home / "copy" / f"mini-imagenet-cache-{ {'val': 'validation'}.get(split, split) }.pkl"
        write_pickle(path, {"image_data": images, "class_dict": rows}, python=2)
    (home / "notebooks").mkdir()
    for name in ("00_a", "01_b"):
        parameters = new_code_cell('preset: str = "quick"\nseed: int = 3', metadata={"tags": ["parameters"]})
        cells = [new_markdown_cell(f"# Notebook {name}"), parameters, new_code_cell("print(seed)")]
        for number, cell in enumerate(cells):
            cell["id"] = f"cell-{number}"
        nbformat.write(new_notebook(cells=cells), home / "notebooks" / f"{name}.ipynb")
    return home


def test_a_few_of_the_kills(home):
    with Commands(["get", "export"]) as commands:
        assert sum(killed(commands, work, home, seed=0) for work in ("get", "export")) >= 8


@pytest.fixture(scope="module")
def commands():
    with Commands() as commands:
        yield commands


@pytest.mark.once
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("work", RESULTS)
def test_a_command_that_is_killed_again_and_again_makes_what_an_unbroken_one_makes(work, seed, home, commands):
    if work == "evaluate" and not (home / "trained").exists():
        assert commands.run("train", home / "trained").status == 0
    assert killed(commands, work, home, seed) > 0
