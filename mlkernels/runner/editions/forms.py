"""What a notebook is in each edition. The source's own tags stay; nothing in the source is changed."""

from __future__ import annotations

import copy
import hashlib

from mlkernels.course.exercises import title_of
from mlkernels.course.judging import RIGHT, Outcome
from mlkernels.runner.editions.exercises import Exercise, exercises_of

IMPORT = "from mlkernels.course import exercises"  # again, in case the name stands for something else by then
NBGRADER_CONFIG = '''"""nbgrader's settings: a stub has a NotImplementedError of its own, which says what to return."""

c = get_config()
c.ClearSolutions.code_stub = {"python": "# YOUR CODE HERE"}
'''


def student(notebook: dict, name: str) -> dict:
    """Without the solutions' cells. What no student has can be used by no later cell: tests run this edition, too."""
    left_out = {exercise.solution for exercise in exercises_of(notebook, name)}
    cells = [cell for place, cell in enumerate(notebook["cells"]) if place not in left_out]
    return copy.deepcopy(notebook | {"cells": cells})


def instructor(notebook: dict, name: str) -> dict:
    """With the solutions, open."""
    notebook = copy.deepcopy(notebook)
    for exercise in exercises_of(notebook, name):
        metadata = notebook["cells"][exercise.solution]["metadata"]
        metadata["tags"] = [tag for tag in metadata["tags"] if tag != "hide-cell"]
        metadata.pop("jupyter", None)
    return notebook


def nbgrader(notebook: dict, name: str) -> dict:
    """For `nbgrader generate_assignment`: the solution within the stub, then a locked cell that gives a point.

    The locked cell's number is the points: an error, as of an assert, would stop the rest of the notebook.
    """

    def cells(exercise: Exercise, stub: dict) -> list[dict]:
        label = exercise.number.replace(".", "-")
        answer = stub | {"source": exercise.source}
        answer["metadata"] = stub["metadata"] | {"nbgrader": _nbgrader(f"exercise-{label}", solution=True)}
        points = [IMPORT, "", f'exercises.points("{exercise.number}", {exercise.function})']
        return [answer, _code(stub, "points", points, nbgrader=_nbgrader(f"points-{label}", grade=True, points=1))]

    return _with_answers(notebook, name, cells)


def otter(notebook: dict, name: str) -> dict:
    """For `otter assign`: raw cells around each question, its solution within the stub, and its test."""

    def cells(exercise: Exercise, stub: dict) -> list[dict]:
        label = f"q{exercise.number.replace('.', '_')}"

        def raw(text: str) -> dict:
            return _raw(stub, text)

        test = [IMPORT, f'print(exercises.check("{exercise.number}", {exercise.function}))']
        said = {"output_type": "stream", "name": "stdout", "text": f"{Outcome(title_of(exercise.number), RIGHT)}\n"}
        return [
            raw(f"# BEGIN QUESTION\nname: {label}\npoints: 1"),
            *(raw("# BEGIN SOLUTION"), stub | {"source": exercise.source}, raw("# END SOLUTION")),
            *(raw("# BEGIN TESTS"), _code(stub, "test", test) | {"outputs": [said]}, raw("# END TESTS")),
            raw("# END QUESTION"),
        ]

    made = _with_answers(notebook, name, cells)
    config = f"# ASSIGNMENT CONFIG\nname: {name}\nexport_cell:\n  pdf: false"
    return made | {"cells": [_raw(made["cells"][0], config), *made["cells"]]}


EDITIONS = {"student": student, "instructor": instructor, "nbgrader": nbgrader, "otter": otter}


def files_of(edition: str, notebooks: dict[str, dict]) -> dict[str, str | dict]:
    """The files of an edition, by their paths in its folder: notebooks, and texts beside them.

    Args:
        edition: a name in `EDITIONS`.
        notebooks: their contents by name, without outputs.
    """
    made = {name: EDITIONS[edition](notebook, name) for name, notebook in notebooks.items()}
    if edition == "nbgrader":
        return {f"source/{name}/{name}.ipynb": each for name, each in made.items()} | {
            "nbgrader_config.py": NBGRADER_CONFIG
        }
    return {f"{name}.ipynb": each for name, each in made.items()}


def _with_answers(notebook: dict, name: str, cells) -> dict:
    """The notebook, with cells(exercise, stub's cell) in place of each stub and its solution."""
    by_stub = {exercise.stub: exercise for exercise in exercises_of(notebook, name)}
    left_out = {exercise.solution for exercise in by_stub.values()}
    made = []
    for place, cell in enumerate(notebook["cells"]):
        if place in by_stub:
            made += cells(by_stub[place], cell)
        elif place not in left_out:
            made.append(cell)
    return copy.deepcopy(notebook | {"cells": made})


def _nbgrader(grade_id: str, **more) -> dict:
    """A cell's metadata in nbgrader's schema 3; cells that give points are locked."""
    locked = "points" in more
    plain = {"schema_version": 3, "cell_type": "code", "grade_id": grade_id}
    return plain | {"grade": False, "solution": False, "locked": locked, "task": False} | more


def _id(stub: dict, what: str) -> str:
    """An id of a new cell that is the same in each export."""
    return hashlib.sha256(f"{stub.get('id')} {what}".encode()).hexdigest()[:8]


def _code(stub: dict, what: str, lines: list[str], **metadata) -> dict:
    cell = {"cell_type": "code", "execution_count": None, "id": _id(stub, what), "outputs": []}
    return cell | {"metadata": metadata, "source": "\n".join(lines)}


def _raw(stub: dict, text: str) -> dict:
    return {"cell_type": "raw", "id": _id(stub, text), "metadata": {}, "source": text}
