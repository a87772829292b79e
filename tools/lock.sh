#!/bin/sh
# Renews requirements.txt, the lock for Python 3.11 to 3.13 on every system: sh tools/lock.sh PYTHON [--upgrade]
# neural-tangents declares tensorflow and tf2jax, which nothing here uses (2.6 GB): the override drops them.
set -eu

python=$1
shift
tool=build/venvs/lock
[ -x "$tool/bin/uv" ] || { "$python" -m venv "$tool" && "$tool/bin/python" -m pip install --quiet uv; }

override=$(mktemp)
new=requirements.txt.new
trap 'rm -f "$override" "$new"' EXIT
printf "%s ; python_version < '3'\n" tensorflow tf2jax >"$override"
cp requirements.txt "$new" # versions already locked stay, unless --upgrade
"$tool/bin/uv" pip compile pyproject.toml --group dev --universal --python-version 3.11 --generate-hashes \
    --no-emit-index-url --no-header --no-annotate --override "$override" --quiet -o "$new" "$@"
mv "$new" requirements.txt
