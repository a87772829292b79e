"""JSON as every reader takes it: without Infinity and NaN, which Python writes and JupyterLab cannot open."""

from __future__ import annotations

import json
import math
import numbers
from collections.abc import Mapping
from typing import Any


def to_json(value: Any) -> Any:
    """Plain values for strict JSON of a scalar, array, mapping, sequence or anything with a `str`.

    JSON has no infinity and no NaN: they become the strings "inf", "-inf" and "nan".
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
    """A value as the text of strict JSON, without a line end; `indent` spaces a level, None for one line."""
    return json.dumps(to_json(value), indent=indent, ensure_ascii=False, allow_nan=False)
