"""Datasets of few-shot learning by name. Files are found or fetched, checked, and never half-loaded.

dataset.py says what a dataset is once loaded, lazy_rows.py how its images are read; folders.py where files lie and
fetch.py how they are downloaded. omniglot.py and glyphs.py make their data when it is asked for. miniimagenet/,
tieredimagenet.py and cifar.py say how to read the copies that people have; importing/ writes them once in the form that
prepared.py opens. decoding.py and safe_pickle/ read what strangers wrote; fingerprint.py and equal_pixels.py compare.
"""

from __future__ import annotations

import inspect
from importlib import import_module

from mlkernels.datasets import folders
from mlkernels.datasets.dataset import Dataset
from mlkernels.errors import bad_input
from mlkernels.support.arguments import one_of

__all__ = ["Dataset", "available", "first_available", "load", "names"]

MADE = ("omniglot", "glyphs")  # with a `load` of their own
RECIPE_MODULES = {  # of all others, where their recipe is
    "miniimagenet": "miniimagenet.recipe",
    "tieredimagenet": "tieredimagenet",
    "cifar_fs": "cifar",
    "fc100": "cifar",
}


def names() -> tuple[str, ...]:
    """The names that `load` knows.

    Example:
        >>> names()
        ('omniglot', 'glyphs', 'miniimagenet', 'tieredimagenet', 'cifar_fs', 'fc100')
    """
    return (*MADE, *RECIPE_MODULES)


def load(name: str, split: str | None = None, **options) -> Dataset:
    """Load a dataset by name.

    Args:
        name: one of `names()`. All but omniglot and glyphs are first imported with `mlkernels data get`; then they are
            opened in well under a second, and only what an episode needs is read.
        split: load this split alone, its classes numbered from 0; None loads all splits.
        **options: of omniglot (`splits`, `rotations`, `download`: see `datasets.omniglot.load`) and of glyphs (`seed`,
            `classes`, `drawings`: see `datasets.glyphs.load`).

    Returns:
        A `Dataset`: uint8 images `[N, H, W, C]`, labels, and splits by class.

    Raises:
        InputError: an unknown name, split or option, data that cannot be found or fetched, or a broken file.

    Example:
        >>> load("glyphs").summary().splitlines()[0]
        'glyphs: 4800 images 28x28x1 of 240 classes (train 150, val 40, test 50)'
        >>> load("glyphs", "test")
        Dataset(glyphs: 50 classes, 1000 images 28x28x1)
    """
    one_of("dataset", name, names(), do="choose one that exists")
    function = import_module(f"mlkernels.datasets.{name}").load if name in MADE else None
    known = inspect.signature(function).parameters if function else {}
    if unknown := [option for option in options if option not in known]:
        expected = " or ".join(["split", *known]) if known else "split alone"
        raise bad_input(f"options of {name}", expected, ", ".join(unknown), "leave out what it does not have")
    if function:
        data = function(**options)
    elif folder := folders.find_folder(name):
        return import_module("mlkernels.datasets.prepared").open_prepared(folder, split, name)
    elif path := _small(name):
        data = import_module(f"mlkernels.datasets.{RECIPE_MODULES[name]}").load_small(name, path)
    else:
        do = f"get it with `mlkernels data get {name}`; data/README.md says what it takes"
        raise bad_input(name, "a prepared copy", f"none in {folders.where_looked()}", do)
    return data if split is None else data.only(split)


def available(name: str) -> str | None:
    """Where `load(name)` would find its data without a download.

    Args:
        name: of a dataset.

    Returns:
        A path (or two), words for data that is made, or None if `load` would have to download or cannot.

    Example:
        >>> available("glyphs")
        'drawn by mlkernels'
    """
    one_of("dataset", name, names(), do="choose one that exists")
    if name in MADE:
        return import_module(f"mlkernels.datasets.{name}").available()
    place = folders.find_folder(name) or _small(name)
    return place and str(place)


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
    do = "add 'glyphs', which is always there, or get one of them: `mlkernels data list`"
    raise bad_input("first_available", "a dataset that is here", " and ".join(choices) or "no name", do)


def _small(name: str):
    """A file that holds a part of the dataset and is read as it is, where the dataset's module knows of one."""
    module = import_module(f"mlkernels.datasets.{RECIPE_MODULES[name]}")
    return module.small() if hasattr(module, "small") else None
