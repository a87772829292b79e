#!/bin/sh
# papermill 2.7.0 --help-notebook leaves out a parameter that is annotated `int | None`, though -p sets it as any other:
# the pattern that finds annotations knows no `|`. `Optional[int]` is listed.
# A good engineer would guess that every assignment in the cell tagged `parameters` is listed.
# Seen: `width` and `depth` are listed, `steps` is not.
# sh findings/papermill_union_parameter.sh: passes while that is so.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check papermill==2.7.0 ipykernel==7.1.0 nbformat==5.10.4
cd "$folder"
cat >source.py <<'PYTHON'
import nbformat
from nbformat.v4 import new_code_cell, new_notebook

lines = "width: int = 64  # units\nsteps: int | None = None  # inner steps\ndepth: Optional[int] = None  # layers"
cells = [new_code_cell("from typing import Optional"), new_code_cell(lines, metadata={"tags": ["parameters"]})]
kernel = {"name": "python3", "language": "python", "display_name": "Python 3"}
nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": kernel}), "in.ipynb")
PYTHON
venv/bin/python source.py
PATH="$folder/venv/bin:$PATH" venv/bin/papermill --help-notebook in.ipynb >help.txt 2>/dev/null
cat help.txt
grep -q "width: int" help.txt && grep -q "depth: Optional" help.txt || { echo "changed: what was listed is not"; exit 1; }
! grep -q "steps" help.txt || { echo "changed: the union is listed"; exit 1; }
echo "as found: steps is not listed"
