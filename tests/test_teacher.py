"""The teacher's page, held against what it speaks of: notebooks, their sections and exercises, demos, commands."""

from __future__ import annotations

import json
import re
from pathlib import Path

import click
import pytest

from benchmarks.sliders import demos
from mlkernels.commands.main import cli
from mlkernels.course.demos.demo import Demo

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "mlkernels" / "runner" / "teacher.md"
TEXT = PAGE.read_text(encoding="utf-8")
NOTEBOOKS = {path.stem[:2]: path for path in sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))}
LECTURES = dict(re.findall(r"^### (\d+)\. .*?\n(.*?)(?=^##)", TEXT, re.M | re.S))
ROW = re.compile(r"^\| (\d+) \| (.+?) \| \[?(\d\d)\b(?:\]\((.+?)\))?(?:, (.+?))? \|$", re.M)


def cells_of(number: str) -> list[dict]:
    return json.loads(NOTEBOOKS[number].read_text(encoding="utf-8"))["cells"]


def counted(text: str) -> list[int]:
    """ "3 to 5", "1 and 2", "6" as numbers."""
    numbers = [int(number) for number in re.findall(r"\d+", text)]
    return list(range(numbers[0], numbers[-1] + 1)) if " to " in text else numbers


def test_lectures_are_numbered_in_order_and_each_has_its_parts():
    assert [*LECTURES] == [str(number) for number in range(1, len(LECTURES) + 1)]
    for number, text in LECTURES.items():
        assert "**Demo** `" in text, number
        assert "**Goes wrong.** " in text, number


@pytest.mark.parametrize("number", LECTURES)
def test_the_minutes_of_a_lecture_add_up(number):
    rows = ROW.findall(LECTURES[number])
    assert len(rows) == len(re.findall(r"^\| \d", LECTURES[number], re.M)), "every row is read"
    assert sum(int(minutes) for minutes, *_ in rows) == 90


@pytest.mark.parametrize("number", LECTURES)
def test_a_lectures_notebooks_and_sections_exist(number):
    linked = set()
    for _, _, notebook, link, where in ROW.findall(LECTURES[number]):
        if link:
            assert (PAGE.parent / link).resolve() == NOTEBOOKS[notebook], link
            linked.add(notebook)
        assert notebook in linked, "the first row of a notebook links it"
        text = "\n".join("".join(cell["source"]) for cell in cells_of(notebook) if cell["cell_type"] == "markdown")
        there = {int(found) for found in re.findall(r"^## (\d+)\. ", text, re.M)}
        assert {*counted(where)} <= there if where and where != "end" else True, (notebook, where)


def test_every_section_is_in_a_lecture_and_every_notebook_linked():
    told: dict[str, set[int]] = {number: set() for number in NOTEBOOKS}
    for text in LECTURES.values():
        for _, _, notebook, _, where in ROW.findall(text):
            told[notebook] |= {*counted(where)} if where and where != "end" else set()
    for number in NOTEBOOKS:
        text = "\n".join("".join(cell["source"]) for cell in cells_of(number) if cell["cell_type"] == "markdown")
        assert {int(found) for found in re.findall(r"^## (\d+)\. ", text, re.M)} == told[number], number


def test_every_exercise_is_set_once():
    given = []
    for first, last in re.findall(r"(\d\d\.\d)(?: (?:to|and) (\d\d\.\d))?", TEXT.partition("## One folder")[0]):
        end = int((last or first)[3:])
        given += [(first[:2], number) for number in range(int(first[3:]), end + 1)]
    there = []
    for notebook in NOTEBOOKS:
        marked = [cell for cell in cells_of(notebook) if "exercise" in cell["metadata"].get("tags", [])]
        there += [(notebook, number) for number in range(1, len(marked) + 1)]
    mentioned_again = [("01", 2)]  # where a lecture says what it is about
    assert sorted(given) == sorted(there + mentioned_again)


def test_the_questions_are_those_of_the_demos():
    asked = re.findall(r"^\*\*Demo\*\* `(\w+)`\. Ask: \*(.+?)\*$", TEXT, re.M)
    own = {demo.name: demo.question for demo in demos() if isinstance(demo, Demo)}
    assert len(asked) == len(own)
    assert dict(asked) == own


def test_the_commands_exist():
    """In code, `mlkernels A B --option`: a command, its own command where it is a group, its options."""
    code = re.findall(r"`([^`\n]+)`", TEXT) + [
        line for block in re.findall(r"```sh\n(.*?)```", TEXT, re.S) for line in block.splitlines()
    ]
    words = [line.split()[1:] for line in code if line.startswith("mlkernels ")]
    assert len(words) > 8
    for line in words:
        command: click.Command = cli
        while isinstance(command, click.Group):
            command = command.commands[line.pop(0)]
        known = {option for each in command.params for option in each.opts} | {"--help"}
        assert {word for word in line if word.startswith("--")} <= known, line
