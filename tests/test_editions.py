"""Editions of the course: what each holds, how it is written, and that nbgrader and Otter-Grader take theirs.

The graders are not in .venv: `make matrix` makes an environment for them, and runs this file again.
"""

from __future__ import annotations

import ast
import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from _cli import status_of
from _notebooks import read

from mlkernels.course.exercises import check, title_of
from mlkernels.course.judging import OPEN, RIGHT
from mlkernels.errors import InputError
from mlkernels.runner.editions import folder
from mlkernels.runner.editions.exercises import exercises_of
from mlkernels.runner.editions.forms import EDITIONS
from mlkernels.runner.notebooks import read_notebook

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
SHORT = "01_short"
GRADERS = [Path(os.environ.get("MLKERNELS_GRADERS") or "none"), Path(sys.executable).parent]


def made(edition, path):
    """An edition of a notebook, valid, as nbformat has it."""
    notebook = nbformat.from_dict(EDITIONS[edition](read_notebook(path), path.stem))
    nbformat.validate(notebook)
    assert notebook.metadata == read(path).metadata
    return notebook


def names_in(source):
    """All names and definitions in code."""
    nodes = list(ast.walk(ast.parse(source)))
    return {n.id for n in nodes if isinstance(n, ast.Name)} | {n.name for n in nodes if isinstance(n, ast.FunctionDef)}


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


@each_notebook
def test_the_student_has_no_solution_and_nothing_that_needs_one(path):
    source, student = read(path), made("student", path)
    assert student.cells == [cell for cell in source.cells if "solution" not in cell.metadata.get("tags", [])]
    assert not [name for cell in code(student) for name in names_in(cell.source) if name.startswith("solution")]
    assert "SOLUTION" not in json.dumps(student)


@each_notebook
def test_a_solutions_names_are_used_in_its_cell_alone(path):
    """So that the rest of the student's notebook runs: what follows a solution uses nothing of it."""
    cells = code(read(path))
    for place, cell in enumerate(cells):
        if "solution" in cell.metadata.get("tags", []):
            bound = {node.name for node in ast.parse(cell.source).body if isinstance(node, ast.FunctionDef)}
            others = "\n".join(other.source for at, other in enumerate(cells) if at != place)
            assert len(ast.parse(cell.source).body) == 2, "a function and its check"
            assert not bound & names_in(others)


@each_notebook
def test_the_instructor_has_all_of_it_open(path):
    source, instructor = read(path), made("instructor", path)
    assert [cell.source for cell in instructor.cells] == [cell.source for cell in source.cells]
    folded = [cell for cell in instructor.cells if "jupyter" in cell.metadata or "hide-cell" in str(cell.metadata)]
    assert not [cell for cell in folded if "solution" in str(cell.metadata)]
    assert [c for c in instructor.cells if "solution" not in str(c.metadata)] == [
        c for c in source.cells if "solution" not in str(c.metadata)
    ]


@pytest.mark.parametrize("edition", ["nbgrader", "otter"])
@each_notebook
def test_both_graders_get_the_same_answers_right_with_their_solution_and_open_without(path, edition):
    notebook, exercises = made(edition, path), exercises_of(read_notebook(path), path.stem)
    answers = [cell for cell in code(notebook) if "exercise" in cell.metadata.get("tags", [])]
    assert [cell.source for cell in answers] == [exercise.source for exercise in exercises]
    nodes = [node for cell in code(read(path)) for node in ast.parse(cell.source).body]
    imports = "\n".join(ast.unparse(node) for node in nodes if isinstance(node, ast.Import | ast.ImportFrom))
    for exercise, cell in zip(exercises, answers, strict=True):
        emptied = re.sub(r"# BEGIN SOLUTION\n.*# END SOLUTION\n", "...\n", cell.source, flags=re.DOTALL)
        for source, verdict in ((cell.source, RIGHT), (emptied, OPEN)):
            namespace = {}
            exec(f"{imports}\n{source}", namespace)
            outcome = check(exercise.number, namespace[exercise.function])
            assert outcome.verdict == verdict, outcome


@each_notebook
def test_nbgraders_cells_are_of_schema_3(path):
    notebook, exercises = made("nbgrader", path), exercises_of(read_notebook(path), path.stem)
    graded = [cell for cell in notebook.cells if "nbgrader" in cell.metadata]
    metadata = [cell.metadata["nbgrader"] for cell in graded]
    assert [(m.solution, m.grade, m.locked, m.get("points")) for m in metadata] == [
        (True, False, False, None),
        (False, True, True, 1),
    ] * len(exercises)
    assert all((m.schema_version, m.cell_type, m.task) == (3, "code", False) for m in metadata)
    assert len({m.grade_id for m in metadata}) == len(metadata)
    assert all(re.fullmatch(r"[\w-]+", m.grade_id) for m in metadata)
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)
    points = [cell.source.splitlines()[-1] for cell in graded if cell.metadata["nbgrader"].grade]
    assert points == [f'exercises.points("{one.number}", {one.function})' for one in exercises]


@each_notebook
def test_otters_raw_cells_are_in_their_order(path):
    notebook, exercises = made("otter", path), exercises_of(read_notebook(path), path.stem)
    raw = [cell.source.splitlines() for cell in notebook.cells if cell.cell_type == "raw"]
    assert raw[0][:2] == ["# ASSIGNMENT CONFIG", f"name: {path.stem}"]
    assert notebook.cells[0].cell_type == "raw"
    question = ["# BEGIN QUESTION", "# BEGIN SOLUTION", "# END SOLUTION", "# BEGIN TESTS", "# END TESTS"]
    assert [lines[0] for lines in raw[1:]] == [*question, "# END QUESTION"] * len(exercises)
    names = [lines[1] for lines in raw if lines[0] == "# BEGIN QUESTION"]
    assert names == [f"name: q{one.number.replace('.', '_')}" for one in exercises]
    tests = [cell for cell in code(notebook) if cell.outputs]
    assert [cell.outputs[0].text for cell in tests] == [f"✓ right: {title_of(one.number)}\n" for one in exercises]
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)


# --- exercises that cannot be exported --------------------------------------------------------------------------------


def short(folder_):
    """A notebook of little more than 01's exercises, in a folder of its own."""
    notebook = read(next(path for path in NOTEBOOKS if path.stem.startswith("01")))
    kept = [cell for cell in notebook.cells if {"exercise", "solution"} & set(cell.metadata.get("tags", []))]
    start = nbformat.v4.new_code_cell("import numpy as np\nfrom mlkernels.course import exercises", id="start")
    notebook.cells = [nbformat.v4.new_markdown_cell("# Exercises", id="title"), start, *kept]
    folder_.mkdir(exist_ok=True)
    nbformat.write(notebook, folder_ / f"{SHORT}.ipynb")
    return notebook


@pytest.mark.parametrize(
    ("cell", "old", "new", "message"),
    [
        (3, "rate, steps)", "rate)", "one number and the same arguments, got gain of 01.1 and solution_gain"),
        (3, '"01.1"', '"01.2"', "one number and the same arguments"),
        (2, "raise NotImplementedError", "print", r"a stub of 01\.1 that ends with raise"),
        (2, "exercises.check", "check", "a function and its exercises.check in an exercise's cell, got 'def gain"),
        (2, '"01.1"', '"01.9"', "one of 01.1, 01.2, 01.3, 01.4, got '01.9'"),
    ],
)
def test_an_exercise_of_another_form_is_refused_before_anything_is_written(tmp_path, cell, old, new, message):
    notebook = short(tmp_path / "notebooks")
    notebook.cells[cell].source = notebook.cells[cell].source.replace(old, new)
    if "01.9" in new:
        notebook.cells[cell + 1].source = notebook.cells[cell + 1].source.replace(old, new)
    nbformat.write(notebook, tmp_path / "notebooks" / f"{SHORT}.ipynb")
    with pytest.raises(InputError, match=message):
        folder.export("student", tmp_path / "out", tmp_path / "notebooks")
    assert not (tmp_path / "out").exists()


def test_a_stub_without_a_solution_is_refused(tmp_path):
    notebook = short(tmp_path)
    del notebook.cells[3]
    nbformat.write(notebook, tmp_path / f"{SHORT}.ipynb")
    with pytest.raises(InputError, match="each exercise with its solution, got exercise, exercise, solution"):
        folder.export("otter", tmp_path / "out", tmp_path)


# --- the folder -------------------------------------------------------------------------------------------------------


@pytest.fixture
def course(tmp_path):
    """A folder with the short notebook."""
    short(tmp_path / "course")
    return tmp_path / "course"


def contents(place):
    return {path.relative_to(place).as_posix(): path.read_bytes() for path in place.rglob("*") if path.is_file()}


@pytest.mark.parametrize("edition", EDITIONS)
def test_an_export_is_there_whole_the_same_each_time_and_renewed(course, tmp_path, edition):
    (notebook,) = folder.export(edition, tmp_path / "out", course)
    assert made(edition, course / f"{SHORT}.ipynb") == read(notebook)
    before = contents(tmp_path / "out")
    folder.export(edition, tmp_path / "out", course)
    assert contents(tmp_path / "out") == before
    notebook.unlink()  # nothing is lost by writing it again
    folder.export(edition, tmp_path / "out", course)
    assert contents(tmp_path / "out") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["course", "out"]


def test_an_empty_folder_is_taken(course, tmp_path):
    (tmp_path / "out" / "empty").mkdir(parents=True)
    folder.export("student", tmp_path / "out", course)
    assert set(contents(tmp_path / "out")) == {f"{SHORT}.ipynb", folder.RECORD}


def spoil(out, what):
    """Do to an export, or to an empty folder, what a user may have done."""
    if what == "other files":
        (out / folder.RECORD).unlink()
    elif what == "no record of ours":
        (out / folder.RECORD).write_text("[]")
    elif what == "changed":
        with (out / f"{SHORT}.ipynb").open("a") as file:
            file.write("\n")
    elif what == "added":
        (out / "release").mkdir()
        (out / "release" / "mine.txt").touch()


@pytest.mark.parametrize(
    ("what", "edition", "message"),
    [
        ("other files", "student", "an empty or a missing folder, got other files, such as 01_short.ipynb"),
        ("no record of ours", "student", "an empty or a missing folder"),
        ("changed", "student", "1 changed or added, such as 01_short.ipynb"),
        ("added", "student", "1 changed or added, such as release/mine.txt"),
        ("another edition", "otter", "an export for otter, got one for student"),
    ],
)
def test_a_folder_in_which_something_would_be_lost_is_refused(course, tmp_path, what, edition, message):
    folder.export("student", tmp_path / "out", course)
    spoil(tmp_path / "out", what)
    before = contents(tmp_path / "out")
    with pytest.raises(InputError, match=message):
        folder.export(edition, tmp_path / "out", course)
    assert contents(tmp_path / "out") == before


def test_a_renewal_drops_no_notebook(course, tmp_path):
    nbformat.write(nbformat.v4.new_notebook(), course / "02_empty.ipynb")
    folder.export("student", tmp_path / "out", course)
    with pytest.raises(InputError, match="no other notebooks, got 02_empty; name all that it shall hold"):
        folder.export("student", tmp_path / "out", course, ["01"])
    folder.export("student", tmp_path / "one", course, ["01"])
    folder.export("student", tmp_path / "one", course)
    assert sorted(contents(tmp_path / "one")) == sorted(contents(tmp_path / "out"))


def test_a_file_is_no_folder(course, tmp_path):
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file" / "inside"):
        with pytest.raises(InputError, match="expected a folder, got"):
            folder.export("student", out, course)


def test_an_export_that_is_cut_off_leaves_what_was_there(course, tmp_path, monkeypatch):
    folder.export("student", tmp_path / "out", course)
    before, replace, calls = contents(tmp_path / "out"), os.replace, []

    def second_fails(source, target):
        calls.append(target)
        if len(calls) == 2:
            raise OSError(28, "No space left on device", str(target))
        replace(source, target)

    monkeypatch.setattr(os, "replace", second_fails)
    with pytest.raises(InputError, match="what was there before is unchanged"):
        folder.export("student", tmp_path / "out", course)
    assert contents(tmp_path / "out") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["course", "out"]


def test_the_command(course, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert status_of("export", "student", "--notebooks", course, "--out", "out") == 0
    assert capsys.readouterr().out == "1 notebook for student in out\n"
    assert status_of("export", "nbgrader", "--notebooks", course, "--out", "out") == 2
    assert "expected an export for nbgrader, got one for student" in capsys.readouterr().err
    assert status_of("export", "teacher", "--notebooks", course, "--out", "new") == 2
    assert "edition: expected student or instructor or nbgrader or otter, got 'teacher'" in capsys.readouterr().err
    assert status_of("export", "student", "7", "--notebooks", course, "--out", "new") == 2
    assert not (tmp_path / "new").exists()


@pytest.mark.notebook
def test_the_students_notebook_runs_with_all_stubs_open(course, tmp_path):
    folder.export("student", tmp_path / "student", course)
    command = [sys.executable, "-m", "jupyter", "nbconvert", "--to", "notebook", "--execute", "--inplace"]
    ended = subprocess.run(
        [*command, tmp_path / "student" / f"{SHORT}.ipynb"],
        capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    cells = code(read(tmp_path / "student" / f"{SHORT}.ipynb"))[1:]
    said = [cell.outputs[0].data["text/plain"].partition(":")[0] for cell in cells]
    assert said == ["○ not done yet"] * 4


# --- the graders ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def graders():
    """The programs of an environment with both graders, or a skip."""
    for place in GRADERS:
        if all((place / name).exists() for name in ("python", "nbgrader", "otter")):
            return place
    pytest.skip("the group grading (nbgrader, otter-grader) is neither here nor in MLKERNELS_GRADERS: see make matrix")


def call(graders, home, *command, script=None):
    """Run one of the graders' programs in `home`, with settings and kernels of its own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("JUPYTER", "PYTHON"))}
    own = {f"JUPYTER_{kind}_DIR": str(home / ".jupyter" / kind.lower()) for kind in ("CONFIG", "DATA", "RUNTIME")}
    own |= {"PATH": f"{graders}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    own |= {"IPYTHONDIR": str(home / ".ipython"), "HOME": str(home), "JUPYTER_PREFER_ENV_PATH": "1"}
    ended = subprocess.run(
        [graders / command[0], *map(str, command[1:])],
        cwd=home, env=kept | own, input=script, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, f"{command}: {ended.stdout}\n{ended.stderr}"
    return ended.stdout + ended.stderr


RELEASE_ALL = """
import sys
from nbgrader.apps import NbGraderAPI
from traitlets.config.loader import PyFileConfigLoader
api = NbGraderAPI(config=PyFileConfigLoader("nbgrader_config.py").load_config())
for name in sys.argv[1:]:
    made = api.generate_assignment(name)
    assert made["success"], made["error"]
"""
ASSIGN_ALL = """
import sys
from otter.assign import main
for name in sys.argv[1:]:
    main(f"{name}.ipynb", f"made/{name}", no_run_tests=True)
"""
ANSWERS = {  # two right, one of them with a warning, one wrong, one open
    "gain": "import warnings; warnings.warn('mind this'); return (1 - (1 - rate * mu) ** steps) / mu",
    "equivalent_rate": "return rate",
    "contraction": "return (kappa - 1) / (kappa + 1)",
}


def answer(source, target, mark):
    """Write a student's answers into a notebook where its mark stands."""
    notebook = read(source)
    for cell in code(notebook):
        for function, line in ANSWERS.items():
            if cell.source.startswith(f"def {function}("):
                assert f"    {mark}\n    raise NotImplementedError(" in cell.source
                cell.source = cell.source.replace(mark, line)
    target.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, target)


def check_release(path, source):
    """A student's notebook by a grader: every stub open, with its own words, and no solution."""
    stubs = [cell.source for cell in code(read(path)) if "exercise" in cell.metadata.get("tags", [])]
    exercises = exercises_of(read_notebook(source), source.stem)
    assert len(stubs) == len(exercises)
    for stub in stubs:
        assert re.search(r'    raise NotImplementedError\("return .*"\)\n\n\nexercises\.check', stub)
    text = path.read_text(encoding="utf-8")
    assert "SOLUTION" not in text
    assert "solution_" not in text


def test_nbgrader_releases_every_notebook_and_grades_one(graders, course, tmp_path):
    names = [path.stem for path in NOTEBOOKS]
    folder.export("nbgrader", tmp_path / "all")
    call(graders, tmp_path / "all", "python", "-", *names, script=RELEASE_ALL)
    for path in NOTEBOOKS:
        check_release(tmp_path / "all" / "release" / path.stem / path.name, path)
    out = tmp_path / "short"
    folder.export("nbgrader", out, course)
    call(graders, out, "nbgrader", "generate_assignment", SHORT)
    answer(
        out / "release" / SHORT / f"{SHORT}.ipynb",
        out / "submitted/anna" / SHORT / f"{SHORT}.ipynb",
        "# YOUR CODE HERE",
    )
    call(graders, out, "nbgrader", "autograde", SHORT)
    call(graders, out, "nbgrader", "export")
    (row,) = csv.DictReader((out / "grades.csv").read_text(encoding="utf-8").splitlines())
    assert (row["student_id"], float(row["score"]), float(row["max_score"])) == ("anna", 2, 4)


def test_otter_assigns_every_notebook_and_grades_one(graders, course, tmp_path):
    folder.export("otter", tmp_path / "all")
    call(graders, tmp_path / "all", "python", "-", *(path.stem for path in NOTEBOOKS), script=ASSIGN_ALL)
    for path in NOTEBOOKS:
        check_release(tmp_path / "all" / "made" / path.stem / "student" / path.name, path)
    out = tmp_path / "short"
    folder.export("otter", out, course)
    call(graders, out, "otter", "assign", f"{SHORT}.ipynb", "made")  # runs the solutions: all must have all points
    answer(out / "made" / "student" / f"{SHORT}.ipynb", out / "anna.ipynb", "...")
    (archive,) = (out / "made" / "autograder").glob("*.zip")
    (out / "graded").mkdir()
    call(graders, out, "otter", "run", "--no-logo", "-a", archive, "-o", "graded", "anna.ipynb")
    result = json.loads((out / "graded" / "results.json").read_text(encoding="utf-8"))
    scores = {test["name"]: test["score"] for test in result["tests"] if test["name"].startswith("q01")}
    assert scores == {"q01_1": 1, "q01_2": 0, "q01_3": 0, "q01_4": 1}
