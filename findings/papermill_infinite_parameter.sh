#!/bin/sh
# papermill 2.7.0 keeps an infinite parameter as a bare Infinity in the executed notebook's metadata. That is no JSON:
# Python's own reader takes it, JavaScript's JSON.parse does not, so JupyterLab cannot open the notebook it has run well.
# A good engineer would guess that papermill refuses the value, or writes a notebook that validates and opens.
# Seen: exit status 0, and "parameters": {"rate": Infinity}.
# sh findings/papermill_infinite_parameter.sh: passes while that is so.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check papermill==2.7.0 ipykernel==7.1.0 nbformat==5.10.4
cd "$folder"
cat >source.py <<'PYTHON'
import nbformat
from nbformat.v4 import new_code_cell, new_notebook

cell = new_code_cell("rate = 0.1", metadata={"tags": ["parameters"]})
kernel = {"name": "python3", "language": "python", "display_name": "Python 3"}
nbformat.write(new_notebook(cells=[cell, new_code_cell("print(rate)")], metadata={"kernelspec": kernel}), "in.ipynb")
PYTHON
venv/bin/python source.py
PATH="$folder/venv/bin:$PATH" venv/bin/papermill --no-progress-bar -y "{rate: .inf}" in.ipynb out.ipynb >/dev/null 2>&1
cat >look.py <<'PYTHON'
import json

text = open("out.ipynb", encoding="utf-8").read()


def refuse(constant):
    raise ValueError(f"{constant} is no JSON")


assert json.loads(text)["metadata"]["papermill"]["parameters"]["rate"] == float("inf")
try:
    json.loads(text, parse_constant=refuse)
except ValueError as error:
    print("as found: a strict reader says", error)
else:
    raise SystemExit("changed: the executed notebook is strict JSON now")
PYTHON
venv/bin/python look.py
