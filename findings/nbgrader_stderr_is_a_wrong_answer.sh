#!/bin/sh
# nbgrader 0.9.6 with ipykernel 7.4.0: a test cell that passes, and in which the student's right answer makes a library
# warn that a name is deprecated, gets 0 of its points: any text on the standard error stream counts as an error.
# nbgrader's page on writing assignments says that a test cell passes if no errors are raised; another of its pages
# ("What is nbgrader") says what an error is. A good engineer would guess that asserts that hold earn the points.
# Seen: 2 of 2 points for the quiet answer and for one that prints to standard output, 0 of 2 with the warning. The
# feedback shows the warning's text under the cell, as it shows any output, and the score; neither it nor the log of
# autograde says that the one is the reason of the other. Way out: IgnorePattern, which is off unless it is asked for.
# sh findings/nbgrader_stderr_is_a_wrong_answer.sh: passes while that is so.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check nbgrader==0.9.6 ipykernel==7.4.0
cd "$folder"
unset PYTHONWARNINGS
export PATH="$folder/venv/bin:$PATH" JUPYTER_NO_CONFIG=1 JUPYTER_DATA_DIR="$folder/data" IPYTHONDIR="$folder/ipython"
cat >course.py <<'PYTHON'
import warnings
from pathlib import Path

import nbformat
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_notebook
from traitlets.config import Config

warnings.simplefilter("ignore")  # of this process; the kernels that run the notebooks have filters of their own
from nbgrader.api import Gradebook
from nbgrader.apps import NbGraderAPI

LIBRARY = """import warnings


def total(values):
    return sum(values)


def add(values):
    warnings.warn("add has become total", DeprecationWarning, stacklevel=2)
    return sum(values)
"""
ANSWERS = {
    "quiet": "return library.total(values)",
    "printed": "print('a total'); return library.total(values)",
    "warned": "return library.add(values)",
    "ignored": "return library.add(values)",  # the same, with IgnorePattern
}


def answer(body):
    return f"import library\n\n\ndef total(values):\n    {body}"


def cell(name, source, **role):
    plain = {"schema_version": 3, "grade_id": name, "grade": False, "solution": False, "locked": False, "task": False}
    return new_code_cell(source, metadata={"nbgrader": plain | role})


def course(**ignore):
    config = Config(IgnorePattern=ignore)
    config.CourseDirectory.root = str(Path.cwd())
    return NbGraderAPI(config=config)


def done(result):
    assert result["success"], result
    return result["log"] or ""


def shown(student):
    """The lines that a reader of the feedback sees."""
    page = BeautifulSoup(Path("feedback", student, "week/sums.html").read_text(), "html.parser").body
    for unseen in page(["script", "style"]):
        unseen.decompose()
    return [line.strip() for line in page.get_text().splitlines() if line.strip()]


solution = "### BEGIN SOLUTION\n    return library.total(values)\n    ### END SOLUTION"
cells = [
    cell("answer", answer(solution), solution=True),
    cell("test", "assert total([1, 2]) == 3", grade=True, locked=True, points=2),
]
kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
Path("source/week").mkdir(parents=True)
Path("source/week/library.py").write_text(LIBRARY)
nbformat.write(new_notebook(cells=cells, metadata=kernel), "source/week/sums.ipynb")
done(course().generate_assignment("week"))
logs = {}
for student, body in ANSWERS.items():
    notebook = nbformat.read("release/week/sums.ipynb", as_version=4)
    notebook.cells[0].source = answer(body)
    Path("submitted", student, "week").mkdir(parents=True)
    nbformat.write(notebook, f"submitted/{student}/week/sums.ipynb")
    api = course(enabled=True, pattern="DeprecationWarning") if student == "ignored" else course()
    logs[student] = done(api.autograde("week", student))
    done(api.generate_feedback("week", student))
with Gradebook("sqlite:///gradebook.db") as book:
    graded = {student: book.find_submission_notebook("sums", "week", student) for student in ANSWERS}
    points = {student: (notebook.score, notebook.max_score) for student, notebook in graded.items()}
for student, (score, most) in points.items():
    print(f"{student}: {score:g} of {most:g}")
outputs = nbformat.read("autograded/warned/week/sums.ipynb", as_version=4).cells[1].outputs
print("the test's output:", [(output.output_type, output.get("name")) for output in outputs])
more = [line for line in shown("warned") if line not in shown("quiet")]
print("the feedback has besides:", *more, sep="\n  ")
assert points == {"quiet": (2, 2), "printed": (2, 2), "warned": (0, 2), "ignored": (2, 2)}, points
assert [(output.output_type, output.get("name")) for output in outputs] == [("stream", "stderr")], outputs
known = ("return library.add(values)", "DeprecationWarning: add has become total", "Score: 0.0 / 2.0")
assert all(any(part in line for part in known) for line in more), more
log = logs["warned"]
assert log and all(line.startswith("[INFO]") for line in log.splitlines() if line), log
assert not any(word in log.lower() for word in ("stderr", "deprecat", "point", "score")), log
PYTHON
venv/bin/python course.py
echo "still so"
