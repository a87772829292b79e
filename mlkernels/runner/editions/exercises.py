"""A notebook's exercises, found by their tags: the student's stub, and the solution that follows it."""

from __future__ import annotations

import ast
from dataclasses import dataclass

from mlkernels.course.exercises import title_of
from mlkernels.errors import bad_input

BEGIN, END = "# BEGIN SOLUTION", "# END SOLUTION"  # Otter-Grader knows these alone, and nbgrader takes them, too


@dataclass(frozen=True)
class Exercise:
    """One exercise of a notebook.

    Args:
        number: as "01.2".
        function: the name that the student's function has.
        stub, solution: the places of both code cells in the notebook.
        source: the stub's cell with the solution in it, between `BEGIN` and `END`.
    """

    number: str
    function: str
    stub: int
    solution: int
    source: str


def exercises_of(notebook: dict, name: str) -> list[Exercise]:
    """All exercises of a notebook, in order.

    Args:
        notebook: as `notebooks.read_notebook` reads it; nothing in it is changed.
        name: what errors call it.

    Raises:
        InputError: a stub without a solution, or a solution without a stub; or one of them is more than a function
            and its check; or they are not of one exercise.
    """
    code = [i for i, cell in enumerate(notebook["cells"]) if cell["cell_type"] == "code"]
    marked = [(i, kind) for i in code for kind in ("exercise", "solution") if has_tag(notebook["cells"][i], kind)]
    kinds = [kind for _, kind in marked]
    if kinds != ["exercise", "solution"] * (len(kinds) // 2):
        do = "tag the stub's cell exercise, and the solution's, which follows it, solution"
        raise bad_input(name, "each exercise with its solution", ", ".join(kinds), do)
    pairs = [place for place, _ in marked]
    return [_exercise(notebook, name, *pair) for pair in zip(pairs[::2], pairs[1::2], strict=True)]


def has_tag(cell: dict, tag: str) -> bool:
    """Whether a cell has a tag."""
    return tag in cell["metadata"].get("tags", [])


def _exercise(notebook: dict, name: str, stub: int, solution: int) -> Exercise:
    sources = [notebook["cells"][place]["source"] for place in (stub, solution)]
    (number, open_), (same, solved) = (_parts(source, name) for source in sources)
    if number != same or ast.dump(open_.args) != ast.dump(solved.args):
        got = f"{open_.name} of {number} and {solved.name} of {same}"
        raise bad_input(name, "a stub and a solution with one number and the same arguments", got, "mend the solution")
    title_of(number)  # refuses a number that no check knows
    if not isinstance(open_.body[-1], ast.Raise):
        raise bad_input(name, f"a stub of {number} that ends with raise", ast.unparse(open_.body[-1]), "restore it")
    lines, written = sources[0].splitlines(), sources[1].splitlines()
    at, indent = open_.body[-1].lineno - 1, " " * open_.body[-1].col_offset
    answer = [f"{indent}{BEGIN}", *written[solved.body[0].lineno - 1 : solved.end_lineno], f"{indent}{END}"]
    return Exercise(number, open_.name, stub, solution, "\n".join([*lines[:at], *answer, *lines[at:]]))


def _parts(source: str, name: str) -> tuple[str, ast.FunctionDef]:
    """The exercise's number and the function, of a cell that is the function and its check."""
    match ast.parse(source).body:
        case [
            ast.FunctionDef(name=function) as definition,
            ast.Expr(ast.Call(args=[ast.Constant(str(number)), ast.Name(id=checked)]) as call),
        ] if ast.unparse(call.func) == "exercises.check" and checked == function:
            return number, definition
    first = source.strip().partition("\n")[0]
    raise bad_input(name, "a function and its exercises.check in an exercise's cell", repr(first), "mend the cell")
