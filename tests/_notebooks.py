"""Notebooks, read and cut down: for test_notebooks.py and test_browser.py."""

from __future__ import annotations

import dis
import types

import nbformat

READS = ("LOAD_NAME", "LOAD_GLOBAL")


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
    """The global names that a cell sets, and those that it reads without having set them before."""
    code = compile(source, "cell", "exec")
    told, read = set(), set()
    for step in dis.get_instructions(code):
        if step.opname == "STORE_NAME":
            told.add(step.argval)
        elif step.opname in READS and step.argval not in told:
            read.add(step.argval)
    inner = [part for part in code.co_consts if isinstance(part, types.CodeType)]
    for part in inner:  # functions are called once all is set
        inner += [deeper for deeper in part.co_consts if isinstance(deeper, types.CodeType)]
        read |= {step.argval for step in dis.get_instructions(part) if step.opname in READS} - told
    return told, read


def begins(cell):
    """Whether every run of a notebook needs this cell: its parameters, or its settings."""
    return "parameters" in cell.metadata.get("tags", []) or "presets.choose(" in cell.source
