#!/bin/sh
# ruff 0.17.5 with jaxtyping 0.3.11: the rule UP037 (quoted annotations), whose fix counts as safe, takes the quotes off
# a shape that parses as an expression, where the module has `from __future__ import annotations`: Float[Array, "..."]
# becomes Float[Array, ...], and "N *k" becomes N *k. Both raise when the annotation is evaluated: AttributeError, NameError.
# A good engineer would guess that a safe fix does not touch a string inside of a subscript that is no type, as "n k" stays.
# Seen: ruff check --select UP037 --fix rewrites the two, leaves "n k" alone, and get_type_hints fails afterwards.
# sh findings/ruff_quoted_shapes.sh: passes while that is so.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check ruff==0.17.5 jaxtyping==0.3.11 numpy==2.4.6
cd "$folder"
cat >shapes.py <<'PYTHON'
from __future__ import annotations

import typing

import numpy as np
from jaxtyping import Float


def anything(x: Float[np.ndarray, "..."]):
    return x


def rows(x: Float[np.ndarray, "N *k"]):
    return x


def matrix(x: Float[np.ndarray, "n k"]):
    return x


if __name__ == "__main__":
    for function in (anything, rows, matrix):
        try:
            typing.get_type_hints(function)
            print(f"{function.__name__}: evaluated")
        except Exception as error:
            print(f"{function.__name__}: {type(error).__name__}")
PYTHON
venv/bin/python shapes.py | tee before.txt
venv/bin/ruff check --isolated --quiet --select UP037 --fix shapes.py
venv/bin/python shapes.py | tee after.txt
[ "$(grep -c ": evaluated" before.txt)" = 3 ] || { echo "changed: the shapes are not valid before"; exit 1; }
grep -q "^anything: AttributeError" after.txt && grep -q "^rows: NameError" after.txt && grep -q "^matrix: evaluated" after.txt ||
    { echo "changed: the fix leaves shapes alone"; exit 1; }
echo "as found: a safe fix breaks shapes"
