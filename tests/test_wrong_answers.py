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
    ("04", "the size of the space"): {
        "lambda m, k: int(np.prod([(2 + j) * (1 + j) // 2 for j in range(k)]) * m ** (2 * k))": "two edges in each of",
        "lambda m, k: int(np.prod([(2 + j) ** 2 for j in range(k)]) * m ** (2 * k)) ** 2": "nothing to choose",
        "lambda m, k: int(m ** (2 * k)) ** 2": "choose inputs at each node",
        "lambda m, k: int(np.prod([(2 + j) * (1 + j) for j in range(k)]) * m ** (2 * k)) ** 2": "nothing to choose",
        "lambda m, k: 2 * int(np.prod([(2 + j) * (1 + j) // 2 for j in range(k)]) * m ** (2 * k))": "nothing to choose",
    },
    ("04", "an honest condition number"): {
        "lambda values: values.max() / values.min()": "would be the best score",
        "lambda values: values[-1] / values[0]": "largest over smallest",
        "lambda values: np.abs(values).max() / np.abs(values).min()": "would be the best score",
        "lambda values: values.max() / values.min() if values.min() else np.inf": "would be the best score",
        "lambda values: values.max() / values.min() if not values.min() < 0 else np.inf": "has no condition number",
    },
    ("04", "the rank rule"): {
        "lambda condition, regions: int(np.argmax(condition))": "ranks 0, 0, 1",
        "lambda condition, regions: int(np.argmin(condition - regions))": "without 0 kappa falls",
        "lambda condition, regions: int(np.argmin(regions - condition))": "ranks, not sizes",
        "lambda condition, regions: int(np.argmin(np.argsort(np.argsort(-condition)) "
        "+ np.argsort(np.argsort(-regions))))": "ranks 0, 0, 1",
        "lambda condition, regions: int(np.argmin(np.argsort(np.argsort(condition)) "
        "+ np.argsort(np.argsort(regions))))": "ranks 0, 0, 1",
    },
    ("04", "how many networks"): {
        "lambda m, edges, repeats: repeats * sum(edges * left for left in range(2, m + 1))": "and the network itself",
        "lambda m, edges, repeats: repeats * edges * m": "and the network itself",
        "lambda m, edges, repeats: sum(edges * left + 1 for left in range(2, m + 1))": "rounds with 7, 6",
        "lambda m, edges, repeats: repeats * sum(edges * left for left in range(2, m + 1)) + 1": "rounds with 7, 6",
        "lambda m, edges, repeats: repeats * sum(edges * left + 1 for left in range(1, m + 1))": "network itself",
    },
    ("05", "what a mode learns"): {
        "lambda eigenvalue, t, rho: 1 - np.exp(-t * eigenvalue)": "at infinite time",
        "lambda eigenvalue, t, rho: eigenvalue / (eigenvalue + rho) * (1 - np.exp(-t * eigenvalue))": "in the exponent",
        "lambda eigenvalue, t, rho: 1 - np.exp(-t * (eigenvalue + rho))": "at infinite time",
        "lambda eigenvalue, t, rho: (1 - np.exp(-t * (eigenvalue + rho))) / (eigenvalue + rho)": "without a ridge",
        "lambda eigenvalue, t, rho: np.exp(-t * eigenvalue)": "without a ridge",
    },
    ("05", "the largest alpha"): {
        "lambda curvatures: 1 / np.max(curvatures)": "must not be negative",
        "lambda curvatures: 1 / (2 * np.min(curvatures))": "the steepest direction",
        "lambda curvatures: 1 / (2 * np.mean(curvatures))": "the steepest direction",
        "lambda curvatures: 2 / np.max(curvatures)": "must not be negative",
        "lambda curvatures: np.max(curvatures) / 2": "the steepest direction",
    },
    ("05", "the linearised network"): {
        "lambda J, j, f, new, y: new + j @ (J.T @ (y - f))": "H = J J^T",
        "lambda J, j, f, new, y: j @ (J.T @ np.linalg.solve(J @ J.T, y - f))": "the residual is",
        "lambda J, j, f, new, y: new + j @ (J.T @ np.linalg.solve(J @ J.T, y))": "the residual is",
        "lambda J, j, f, new, y: new - j @ (J.T @ np.linalg.solve(J @ J.T, y - f))": "does not move",
        "lambda J, j, f, new, y: f + j @ (J.T @ np.linalg.solve(J @ J.T, y - f))": "it is added to f(x)",
    },
    ("05", "the same time"): {
        "lambda n, k: n": "k times as large",
        "lambda n, k: n * k": "k times as large",
        "lambda n, k: k / n": "n times slower",
        "lambda n, k: n / 2": "n times slower",
        "lambda n, k: 1.0": "n times slower",
    },
    ("06", "leave one out"): {
        "lambda K, gamma, residual: np.linalg.solve(K + gamma * np.eye(len(K)), residual)": "no kernel between",
        "lambda K, gamma, residual: residual - K @ np.linalg.solve(K + gamma * np.eye(len(K)), residual)": "no kernel",
        "lambda K, gamma, residual: np.linalg.solve(K + gamma * np.eye(len(K)), residual) "
        "* np.diag(K + gamma * np.eye(len(K)))": "the first predicts",
        "lambda K, gamma, residual: residual": "the first predicts",
        "lambda K, gamma, residual: np.linalg.solve(K, residual) / np.diag(np.linalg.inv(K))": "the first predicts",
    },
    ("06", "two gradients"): {
        "lambda one, two: 0.5": "the short one counts more",
        "lambda one, two: float(-two @ (one - two) / ((one - two) @ (one - two)))": "w stays within",
        "lambda one, two: float(np.clip(one @ (one - two) / ((one - two) @ (one - two)), 0, 1))": "the short one",
        "lambda one, two: float(np.linalg.norm(one) / (np.linalg.norm(one) + np.linalg.norm(two)))": "the short one",
        "lambda one, two: float(np.linalg.norm(two) / (np.linalg.norm(one) + np.linalg.norm(two)))": "w stays within",
    },
    ("06", "a length scale"): {
        "lambda square, length: square / length**3 * np.exp(-square / (2 * length**2))": "takes one l away",
        "lambda square, length: -square / length**2 * np.exp(-square / (2 * length**2))": "square / l^2",
        "lambda square, length: square / (2 * length**2) * np.exp(-square / (2 * length**2))": "square / l^2",
        "lambda square, length: np.exp(-square / (2 * length**2))": "equal points do not care",
    },
    ("06", "the ridge head"): {
        "lambda x, y, new, gamma: new @ np.linalg.solve(x.T @ x, x.T @ y)": "through the kernel",
        "lambda x, y, new, gamma: new @ np.linalg.solve(x.T @ x / len(x) + gamma * np.eye(x.shape[1]), "
        "x.T @ y / len(x))": "through the kernel",
        "lambda x, y, new, gamma: new @ np.linalg.solve(x.T @ x + gamma**2 * np.eye(x.shape[1]), x.T @ y)": "through",
        "lambda x, y, new, gamma: new @ (x.T @ y) / gamma": "through the kernel",
    },
    ("07", "the cost of a mask"): {
        "lambda mask, f: 3 * f[mask].sum()": "forward 9",
        "lambda mask, f: f.sum() + 2 * f[mask].sum()": "forward 9",
        "lambda mask, f: f.sum() + f[mask].sum()": "two for the first",
        "lambda mask, f: f.sum() + f[mask.argmax() + 1 :].sum() + f[mask].sum()": "no step at all",
    },
    ("07", "the front"): {
        "lambda c, s: s == s.max()": "the second costs more",
        "lambda c, s: np.ones(len(c), bool)": "the second costs more",
        "lambda c, s: ~((c <= c[:, None]) & (s >= s[:, None]) & ~np.eye(len(c), dtype=bool)).any(1)": "equal",
        "lambda c, s: ~((c < c[:, None]) & (s > s[:, None])).any(1)": "as cheap and better",
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
    if title == "the size of the space":
        from mlkernels.nas import SPACES

        return {"paper": SPACES["darts_fewshot"]}
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
