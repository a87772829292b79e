"""miniImageNet's 100 classes and their splits."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

SPELLINGS = {"train": ("train",), "val": ("val", "validation", "valid"), "test": ("test",)}


@lru_cache(maxsize=1)
def classes() -> Mapping[str, tuple[str, str]]:
    """The 100 classes: wnid -> split and name, in the split of Ravi and Larochelle."""
    text = Path(__file__).with_name("miniimagenet_classes.txt").read_text(encoding="utf-8")
    rows = (line.split(" ", 2) for line in text.splitlines() if not line.startswith("#"))
    return {wnid: (split, name) for split, wnid, name in rows}
