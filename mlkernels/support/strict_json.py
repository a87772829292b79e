"""JSON as every reader takes it: without Infinity and NaN, which Python writes and JupyterLab cannot open."""

from __future__ import annotations

import json
import math
import numbers
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def to_json(value: Any) -> Any:
    """Numbers, arrays and collections as what strict JSON can hold: plain dicts, lists, texts, numbers, booleans, None.

    JSON has no infinity and no NaN: they become the texts "inf", "-inf" and "nan".
    """
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value) if math.isfinite(value) else str(float(value))
    if isinstance(value, Mapping):
        return {str(name): to_json(item) for name, item in value.items()}
    if hasattr(value, "tolist"):  # numpy and JAX arrays and scalars, without importing either
        return to_json(value.tolist())
    if isinstance(value, tuple | list | set | frozenset):
        return [to_json(item) for item in value]
    return str(value)


def dumps(value: Any, indent: int | None = None) -> str:
    """A value as the text of strict JSON, without a line end."""
    return json.dumps(to_json(value), indent=indent, ensure_ascii=False, allow_nan=False)


def loads(text: str) -> Any:
    """What a text of JSON says; all that can be wrong with it is a `ValueError`.

    Example:
        >>> loads("[" * 100_000)
        Traceback (most recent call last):
        ValueError: JSON that is nested too deeply
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("JSON that is nested too deeply") from None


def load(path: Path) -> Any:
    """What a file of JSON says: `loads`, or an `OSError`."""
    return loads(path.read_text(encoding="utf-8"))
