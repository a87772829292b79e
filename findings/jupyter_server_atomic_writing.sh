#!/bin/sh
# jupyter-server 2.21.1 saves notebooks through atomic_writing, which copies the old file aside and then truncates and
# writes the notebook's own file: whoever reads it meanwhile gets half a notebook or nothing, and so does the server's own
# contents API (status 400). The old content comes back only if the write fails.
# A good engineer would guess from the name, and from the option use_atomic_writing that is on by default, that a reader
# sees the old file or the new one: a temporary file that is renamed at the end.
# Seen: amid a save a reader finds an empty file; after it, the new content.
# sh findings/jupyter_server_atomic_writing.sh: passes while that is so.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check jupyter-server==2.21.1
cd "$folder"
cat >save.py <<'PYTHON'
from pathlib import Path

from jupyter_server.services.contents.fileio import atomic_writing

notebook = Path("notebook.ipynb").resolve()
notebook.write_text("old")
with atomic_writing(str(notebook)) as file:
    file.write("new")
    print(f"amid a save a reader finds {notebook.read_text()!r}")
print(f"after it, {notebook.read_text()!r}")
PYTHON
venv/bin/python save.py | tee said.txt
grep -q "amid a save a reader finds ''" said.txt || { echo "changed: a reader finds a whole file"; exit 1; }
grep -q "after it, 'new'" said.txt
echo "as found: the file is written in place"
