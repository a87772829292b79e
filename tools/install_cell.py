"""Write the cell tagged `install` into every notebook: `python -m tools.install_cell`.

Where the course lies is said once, in pyproject.toml: under [project.urls], Repository. Without it the cell asks for
the address, by the environment variable MLKERNELS_SOURCE, which comes first in any case.
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

from mlkernels.runner.pages import INSTALL as TAG
from mlkernels.support.files import write_atomically

ROOT = Path(__file__).resolve().parents[1]
CELL = """\
# @title Install the course, where it is missing
# Does nothing where mlkernels is there. Else, as on Colab, it fetches the course by git and adds
# what Python lacks, from the course's lock and so without tensorflow: one to two minutes.
import importlib.metadata
import importlib.util
import os
import subprocess
import sys

if importlib.util.find_spec("mlkernels") is None:
    source = os.environ.get("MLKERNELS_SOURCE", "{repository}")
    folder = os.path.abspath("mlkernels-course")
    if not source:
        raise ModuleNotFoundError(
            "mlkernels is missing: open this notebook by `make lab`; on Colab, say in a cell above "
            "where git finds the course: %env MLKERNELS_SOURCE=https://..."
        )
    if not os.path.isdir(folder):
        subprocess.run(["git", "clone", "--quiet", "--depth=1", source, folder], check=True)
    subprocess.run([sys.executable, f"{folder}/tools/colab.py"], check=True)
    sys.path.insert(0, folder)
    numpy = sys.modules.get("numpy")
    if numpy and numpy.__version__ != importlib.metadata.version("numpy"):
        raise RuntimeError("installed: now restart the session and run all again")
"""


def source(pyproject: str) -> str:
    """The cell's source, with the address that a pyproject.toml gives."""
    urls = tomllib.loads(pyproject)["project"].get("urls", {})
    return CELL.rstrip("\n").replace("{repository}", urls.get("Repository", ""))


def with_cell(notebook: dict, text: str) -> dict:
    """A notebook whose second cell, below its title, is the install cell."""
    cells = [cell for cell in notebook["cells"] if TAG not in cell["metadata"].get("tags", [])]
    metadata = {"cellView": "form", "jupyter": {"source_hidden": True}, "tags": [TAG]}  # folded, on Colab and in Lab
    cell = {"cell_type": "code", "execution_count": None, "id": "install0", "metadata": metadata}
    cell |= {"outputs": [], "source": text.splitlines(keepends=True)}
    return notebook | {"cells": [cells[0], cell, *cells[1:]]}


def main() -> None:
    """Write all of them."""
    text = source((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    for path in sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb")):
        new = with_cell(json.loads(path.read_text(encoding="utf-8")), text)
        write_atomically(path, json.dumps(new, ensure_ascii=False, indent=1) + "\n")


if __name__ == "__main__":
    main()
