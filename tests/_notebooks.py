"""Executed notebooks, read: for test_notebooks.py and test_browser.py."""

from __future__ import annotations

import nbformat

from mlkernels.course.claim_records import claims_of


def read(path):
    return nbformat.read(path, as_version=4)


def outputs(notebook):
    """(number of the cell, output) for all outputs."""
    return [(index, output) for index, cell in enumerate(notebook.cells, 1) for output in cell.get("outputs", [])]


def check_real_omniglot(notebook):
    """Notebook 01 has taken real Omniglot, and says so where it prints and in its claims."""
    printed = "\n".join(output.get("text", "") for _, output in outputs(notebook))
    assert "omniglot" in printed.lower()
    assert "glyphs:" not in printed
    sources = [claim["source"].lower() for claim in claims_of(notebook) if claim["id"].startswith("metantk.images")]
    assert sources, "no claim on images"
    assert all("omniglot" in source for source in sources), sources
