"""Accuracies of architectures as a table of text: of one run, and of the runs that come with the course."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import mlkernels
from mlkernels.errors import bad_input
from mlkernels.nas import Evaluated

RESULTS = Path(mlkernels.__file__).parents[1] / "data" / "results"  # in a checkout


def recorded(pattern: str) -> list[dict]:
    """Results that come with a checkout of the course.

    Args:
        pattern: of file names in data/results, as "nas_table_*".

    Returns:
        The content of each file, by name.

    Raises:
        InputError: no such file.

    Example:
        >>> sorted({run["notebook"] for run in recorded("nas_table_*")})
        ['04_metantk_nas']
    """
    paths = sorted(RESULTS.glob(f"{pattern}.json"))
    if not paths:
        raise bad_input("pattern", f"files in {RESULTS}", f"none for {pattern!r}", "run from a checkout of the course")
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths]


def accuracies(evaluated: Sequence[Evaluated]) -> dict[str, list[float]]:
    """What evaluations of one architecture give, ready for a file.

    Args:
        evaluated: one for each training, all of the same methods and shots.

    Returns:
        "method, n shot" -> the mean accuracy after each training.

    Example:
        >>> accuracies([Evaluated({("centroid", 5): np.array([0.5, 1.0])})])
        {'centroid, 5 shot': [0.75]}

    Source: notebooks/04_metantk_nas.
    """
    return {
        f"{method}, {shot} shot": [each.interval(method, shot).mean for each in evaluated]
        for method, shot in evaluated[0].accuracies
    }


def accuracy_table(title: str, runs: Sequence[dict]) -> str:
    """Accuracies in per cent, mean over trainings and over runs of the same rows.

    Args:
        title: what these runs are.
        runs: contents of result files: settings, device, rows (name -> accuracy by column, parameters if it has any).

    Returns:
        A line with the settings of the first run, two of heads, and one a row.

    Example:
        >>> about = {"settings": {"data": "glyphs", "preset": "quick", "cells": 3, "channels": 4, "train_pixels": 14,
        ...                       "epochs": 1, "seeds": 1}, "device": {"kind": "cpu"}}
        >>> rows = {"searched": {"parameters": 900, "accuracy": {"centroid, 1 shot": [0.5, 0.6]}}}
        >>> print(accuracy_table("one run", [about | {"rows": rows}]))
        one run: glyphs, preset quick, cpu; 3 cells, 4 channels, 14 train_pixels, 1 epochs, 1 seeds
                                                 1 shot
                                   parameters centroid
          searched                        900     55.0

    Source: notebooks/04_metantk_nas.
    """
    about, rows = runs[0]["settings"], runs[0]["rows"]
    columns = list(dict.fromkeys(column for row in rows.values() for column in row["accuracy"]))
    sizes = ", ".join(f"{about[name]} {name}" for name in ("cells", "channels", "train_pixels", "epochs", "seeds"))
    methods, shots = zip(*(column.split(", ") for column in columns), strict=True)
    lines = [
        f"{title}: {about['data']}, preset {about['preset']}, {runs[0]['device']['kind']}; {sizes}",
        f"  {'':36}" + "".join(f"{shot:>9}" for shot in shots),
        f"  {'':25}{'parameters':>11}" + "".join(f"{method:>9}" for method in methods),
    ]
    for name, row in rows.items():
        same = [run["rows"][name] for run in runs]
        size = f"{np.mean([each['parameters'] for each in same]):.0f}" if "parameters" in row else ""
        means = [
            f"{100 * np.mean([each['accuracy'][column] for each in same]):.1f}" if column in row["accuracy"] else ""
            for column in columns
        ]
        lines.append(f"  {name:25}{size:>11}" + "".join(f"{mean:>9}" for mean in means))
    return "\n".join(lines)
