"""Datasets of few-shot learning by name. Files are found or fetched, checked, and never half-loaded."""

from __future__ import annotations

import inspect
from importlib import import_module

from mlkernels.datasets._dataset import Dataset
from mlkernels.errors import bad_input

__all__ = ["Dataset", "available", "first_available", "load", "names"]

_MODULES = {"omniglot": "mlkernels.datasets.omniglot", "glyphs": "mlkernels.datasets.glyphs"}


def names() -> tuple[str, ...]:
    """The names that `load` knows.

    Example:
        >>> names()
        ('omniglot', 'glyphs')
    """
    return tuple(_MODULES)


def load(name: str, **options) -> Dataset:
    """Load a dataset by name.

    Args:
        name: "omniglot" (options `splits`, `rotations`, `download`: see `datasets.omniglot.load`) or "glyphs" (options
            `seed`, `classes`, `drawings`: see `datasets.glyphs.load`).
        **options: of that dataset.

    Returns:
        A `Dataset`: uint8 images `[N, H, W, C]`, labels, and splits by class.

    Raises:
        InputError: an unknown name or option, data that cannot be found or fetched, or a broken file.

    Example:
        >>> load("glyphs").summary().splitlines()[0]
        'glyphs: 4800 images 28x28x1 of 240 classes (train 150, val 40, test 50)'
    """
    function = _module(name).load
    known = inspect.signature(function).parameters
    if unknown := [option for option in options if option not in known]:
        raise bad_input(f"options of {name}", " or ".join(known), ", ".join(unknown), "leave out what it does not have")
    return function(**options)


def available(name: str) -> str | None:
    """Where `load(name)` would find its data without a download.

    Args:
        name: of a dataset.

    Returns:
        A path (or two), words for data that is made, or None if `load` would have to download.

    Example:
        >>> available("glyphs")
        'drawn by mlkernels'
    """
    return _module(name).available()


def first_available(*choices: str) -> str:
    """The first of these datasets that needs no download; notebooks ask for `first_available("omniglot", "glyphs")`.

    Args:
        *choices: names of datasets, best first.

    Returns:
        One of them.

    Raises:
        InputError: none of them is at hand, or a name is unknown.

    Example:
        >>> first_available("glyphs", "omniglot")
        'glyphs'
    """
    for name in choices:
        if available(name) is not None:
            return name
    do = "add 'glyphs', which is always there, or `datasets.load` one of them"
    raise bad_input("first_available", "a dataset that is here", " and ".join(choices) or "no name", do)


def _module(name: str):
    if name not in _MODULES:
        raise bad_input("dataset", " or ".join(_MODULES), name, "choose one that exists")
    return import_module(_MODULES[name])
