"""Notebooks, read and cut down: for test_notebooks.py and test_browser.py."""

from __future__ import annotations

import ast
import symtable

import nbformat


def read(path):
    return nbformat.read(path, as_version=4)


def outputs(notebook):
    """(number of the cell, output) for all outputs."""
    return [(index, output) for index, cell in enumerate(notebook.cells, 1) for output in cell.get("outputs", [])]


def needed(notebook, wanted):
    """A notebook's cells of code that `wanted` names, and those that last set what these read, in order."""
    kept, names = [], set()
    for cell in reversed([cell for cell in notebook.cells if cell.cell_type == "code"]):
        told, read = _names(cell.source)
        if wanted(cell) or told & names:
            kept.insert(0, cell)
            names = (names - told) | read
    return kept


def _names(source):
    """The global names that a cell sets, and those that it reads, some of which it may have set itself."""
    top = symtable.symtable(source, "cell", "exec")
    told = {symbol.get_name() for symbol in top.get_symbols() if symbol.is_assigned() or symbol.is_imported()}
    tables = [top]
    for table in tables:
        tables += table.get_children()
    read = {
        symbol.get_name()
        for table in tables
        for symbol in table.get_symbols()
        if symbol.is_referenced() and (table is top or symbol.is_global())
    }
    nodes = [node.target for node in ast.walk(ast.parse(source)) if isinstance(node, ast.AugAssign)]
    return told, read | {node.id for node in nodes if isinstance(node, ast.Name)}


def begins(cell):
    """Whether every run of a notebook needs this cell: its parameters, or its settings."""
    return "parameters" in cell.metadata.get("tags", []) or "presets.choose(" in cell.source
