"""What students plausibly write instead of the answer is told wrong, with the hint that fits."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import nbformat
import numpy as np
import pytest

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"

# notebook, title of the exercise -> {what is written: the hint, or a piece of it}
WRONG = {
    ("01", "the eigenvalue of T"): {
        "lambda mu, rate, steps: 1 - (1 - rate * mu) ** steps": "divide by mu",
        "lambda mu, rate, steps: rate * steps * np.ones_like(mu)": "each further step sees the residual",
        "lambda mu, rate, steps: (1 - rate * mu) ** steps / mu": "one step moves the output",
        "lambda mu, rate, steps: (1 - np.exp(-rate * steps * mu)) / mu": "one step moves the output",
    },
    ("01", "the rate of an averaged loss"): {
        "lambda rate, m: rate / m": "compare the two gradients",
        "lambda rate, m: rate * m / 2": "compare the two gradients",
        "lambda rate, m: rate / (2 * m)": "compare the two gradients",
        "lambda rate, m: rate": "compare the two gradients",
    },
    ("01", "the MetaNTK of one task"): {
        "lambda qq, qs, ss, A: qq - 2 * A @ qs.T + A @ ss @ A.T": "both cross terms",
        "lambda qq, qs, ss, A: qq - A @ qs.T - qs @ A.T": "the last term is added",
        "lambda qq, qs, ss, A: qq - A @ qs.T - qs @ A.T - A @ ss @ A.T": "the last term is added",
        "lambda qq, qs, ss, A: qq + A @ qs.T + qs @ A.T + A @ ss @ A.T": "both cross terms",
        "lambda qq, qs, ss, A: qq - A @ ss @ A.T": "the last term is added",
    },
    ("01", "the best contraction"): {
        "lambda kappa: (kappa - 1) / 4": "divided by the smaller",
        "lambda kappa: 1 - 1 / kappa": "put eta into",
        "lambda kappa: 1 / kappa": "all modes alike",
        "lambda kappa: (kappa + 1) / (kappa - 1) if kappa > 1 else 0.0": "put eta into",
        "lambda kappa: ((kappa - 1) / (kappa + 1)) ** 2": "put eta into",
    },
    ("02", "steps to fall by a factor"): {
        "lambda eigenvalue, rate, factor: np.log(factor) / -np.log(1 - rate * eigenvalue)": "divides the loss by four",
        "lambda eigenvalue, rate, factor: np.log(factor) / (2 * rate * eigenvalue)": "divides the loss by four",
        "lambda eigenvalue, rate, factor: np.log(factor) / (2 * np.log(1 - rate * eigenvalue))": "divides the loss by",
        "lambda eigenvalue, rate, factor: factor / (2 * rate * eigenvalue)": "divides the loss by four",
    },
    ("02", "the best rate"): {
        "lambda smallest, largest: np.array([1 / (largest - smallest), 0.5])": "put the rate into",
        "lambda smallest, largest: np.array([1 / largest, 1 - smallest / largest])": "must shrink by the same factor",
        "lambda smallest, largest: np.array([2 / largest, 1 - 2 * smallest / largest])": "must shrink by the same",
        "lambda smallest, largest: np.array([2 / (smallest + largest), ((largest - smallest) / (largest + smallest)) "
        "** 2])": "must shrink by the same factor",
        "lambda smallest, largest: np.array([2 / (1 + largest), (largest - 1) / (largest + 1)])": "twice the eigenv",
    },
    ("02", "centred outputs"): {
        "lambda labels, start: labels - start": "compare the two residuals",
        "lambda labels, start: labels": "compare the two residuals",
        "lambda labels, start: start - labels": "compare the two residuals",
        "lambda labels, start: start": "compare the two residuals",
    },
    ("03", "the gradient by the start"): {
        "lambda hessian, g, rate, steps: (np.eye(len(g)) - rate * hessian) ** steps @ g": "power of the *matrix*",
        "lambda hessian, g, rate, steps: g - rate * steps * hessian @ g": "dies in one step",
        "lambda hessian, g, rate, steps: (np.eye(len(g)) - rate * hessian) @ g": "dies in one step",
        "lambda hessian, g, rate, steps: np.clip(1 - rate * np.diag(hessian), 0, 1) ** steps * g": "a direction grows",
        "lambda hessian, g, rate, steps: (1 - rate * np.diag(hessian)) ** steps * g": "power of the *matrix*",
    },
    ("03", "the inner minimum"): {
        "lambda x, y, beta: np.linalg.solve(x.T @ x + beta * np.eye(x.shape[1]), x.T @ y)": "before both",
        "lambda x, y, beta: np.linalg.solve(x.T @ x / len(x) + beta * np.eye(x.shape[1]), x.T @ y / len(x))": "set the",
        "lambda x, y, beta: np.linalg.solve(2 / len(x) * x.T @ x + beta * np.eye(x.shape[1]), x.T @ y)": "before both",
        "lambda x, y, beta: np.linalg.lstsq(x, y)[0]": "set the gradient",
        "lambda x, y, beta: np.linalg.solve(2 / len(x) * (x.T @ x + beta * np.eye(x.shape[1])), 2 / len(x) * x.T @ y)":
        "before both",
    },
    ("03", "why 1/N"): {
        "lambda c, smoothness: 1 + c * smoothness": "rises to a limit",
        "lambda c, smoothness: np.inf": "rises to a limit",
        "lambda c, smoothness: np.exp(c)": "the limit is exp",
        "lambda c, smoothness: (1 + c * smoothness / 1000) ** 1000": "rises to a limit",
        "lambda c, smoothness: np.exp(c / smoothness)": "the limit is exp",
    },
}  # fmt: skip
ATTEMPTS = [
    pytest.param(notebook, title, attempt, hint, id=f"{notebook}-{title.replace(' ', '_')}-{i}")
    for (notebook, title), wrong in WRONG.items()
    for i, (attempt, hint) in enumerate(wrong.items())
]


def exercise(notebook: str, title: str) -> tuple[ast.Module, str]:
    """The cell of an exercise without its check, and the name of the student's function."""
    (path,) = NOTEBOOKS.glob(f"{notebook}_*.ipynb")
    for cell in nbformat.read(path, as_version=4).cells:
        if "exercise" in cell.metadata.get("tags", []) and f'check("{title}"' in cell.source:
            tree = ast.parse(cell.source)
            call = tree.body.pop().value
            tree.body.append(ast.Expr(call))
            return tree, call.args[1].id
    raise AssertionError(f"{notebook} has no exercise {title!r}")


def imports(notebook: str) -> str:
    """What the notebook imports, as code."""
    (path,) = NOTEBOOKS.glob(f"{notebook}_*.ipynb")
    cells = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    nodes = [node for cell in cells for node in ast.parse(cell).body if isinstance(node, ast.Import | ast.ImportFrom)]
    return "\n".join(map(ast.unparse, nodes))


def given(notebook: str, title: str) -> dict:
    """What the notebook has computed by then and the exercise's cases use."""
    if title == "the MetaNTK of one task":
        rng = np.random.default_rng(0)
        every = rng.normal(size=(8, 12))
        points = every.T @ every  # the kernel of four queries and eight support points
        A = points[:4, 4:] @ np.linalg.inv(points[4:, 4:] + np.eye(8))
        phi = points[:4, :4] - A @ points[4:, :4] - points[:4, 4:] @ A.T + A @ points[4:, 4:] @ A.T
        named = {"q": slice(4), "s": slice(4, 12)}

        class Batch:
            query_x, support_x = ["q"], ["s"]

        return {
            "batch": Batch,
            "ntk": lambda a, b: points[named[a], named[b]],
            "T_of": lambda K: np.linalg.inv(K + np.eye(8)),
            "pictures": {"MAML": phi},
        }
    return {}


@pytest.mark.parametrize(("notebook", "title", "attempt", "hint"), ATTEMPTS)
def test_a_plausible_wrong_answer_is_told_wrong_with_the_hint_that_fits(notebook, title, attempt, hint):
    tree, name = exercise(notebook, title)
    check = ast.Expression(tree.body.pop().value)
    namespace = given(notebook, title)
    exec(imports(notebook), namespace)
    exec(compile(tree, title, "exec"), namespace)
    namespace[name] = eval(attempt, namespace)
    outcome = eval(compile(ast.fix_missing_locations(check), title, "eval"), namespace)
    assert outcome.verdict == "wrong", f"{attempt} is told {outcome.verdict}"
    assert re.search(re.escape(hint), outcome.lines[-1]), outcome


def test_each_of_these_exercises_has_four_wrong_answers():
    assert all(len(wrong) >= 4 for wrong in WRONG.values())
