"""Notebooks, read and cut down: for test_notebooks.py and test_browser.py."""

from __future__ import annotations

import ast

import nbformat

from mlkernels.course.claim_records import claims_of


def read(path):
    return nbformat.read(path, as_version=4)


def outputs(notebook):
    """(number of the cell, output) for all outputs."""
    return [(index, output) for index, cell in enumerate(notebook.cells, 1) for output in cell.get("outputs", [])]


def needed(notebook, wanted):
    """A notebook's cells of code that `wanted` names, and those that set what these read, in order."""
    kept, names = [], set()
    for cell in reversed([cell for cell in notebook.cells if cell.cell_type == "code"]):
        nodes = list(ast.walk(ast.parse(cell.source)))
        told = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
        told |= {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        imports = [alias for node in nodes if isinstance(node, ast.Import | ast.ImportFrom) for alias in node.names]
        told |= {(alias.asname or alias.name).partition(".")[0] for alias in imports}
        if wanted(cell) or told & names:
            kept.insert(0, cell)
            names |= {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    return kept


def check_real_omniglot(notebook):
    """Notebook 01 has taken real Omniglot, and says so where it prints and in its claims."""
    printed = "\n".join(output.get("text", "") for _, output in outputs(notebook))
    assert "omniglot" in printed.lower()
    assert "glyphs:" not in printed
    sources = [claim["source"].lower() for claim in claims_of(notebook) if claim["id"].startswith("metantk.images")]
    assert sources, "no claim on images"
    assert all("omniglot" in source for source in sources), sources
