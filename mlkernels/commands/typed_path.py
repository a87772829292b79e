"""The paths of a command line: the caller's, from the current folder and with ~ for the home folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click


class TypedPath(click.Path):
    """A `click.Path` that expands ~, which a shell leaves alone in --out=~/x, and refuses an empty text."""

    def __init__(self, **options: Any):
        super().__init__(path_type=Path, **options)

    def convert(self, value, param, ctx):
        text = os.fspath(value)
        if not text.strip():
            self.fail("an empty text is no path", param, ctx)
        try:
            return super().convert(Path(text).expanduser(), param, ctx)
        except RuntimeError:
            self.fail(f"{text!r} is of no known user; write ./~ for a ~", param, ctx)
