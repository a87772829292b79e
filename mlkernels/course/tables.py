"""Tables of text: accuracies of architectures, of one run and of those that come with the course; and of methods."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

import mlkernels
from mlkernels.course.presets import PRESETS
from mlkernels.errors import bad_input
from mlkernels.nas import Evaluated
from mlkernels.support import results
from mlkernels.support.arguments import one_of

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
    return [results.read(path) for path in paths]


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


def methods_table(preset: str, recorded: dict | None = None) -> str:
    """The methods of the whole course side by side on sinusoids, as they were measured for a preset.

    Args:
        preset: "quick", "class" or "full".
        recorded: what `benchmarks/methods.py` measured; None is the file that comes with a checkout, if it does.

    Returns:
        Lines of at most 100 columns: the settings, two heads, one a method, and notes; or, where the
        preset was not measured, a line that says so and how to do it.

    Raises:
        InputError: an unknown preset.

    Example:
        >>> print(methods_table("full", {"by_preset": {}}))
        not measured for preset full: python -m benchmarks.run methods --write --presets full

    Source: benchmarks/methods.py; notebooks/06_function_space_adaptation.
    """
    one_of("preset", preset, PRESETS)
    if recorded is None:
        path = RESULTS / "bench_methods.json"
        recorded = results.read(path) if path.exists() else {"by_preset": {}}
    measured = recorded["by_preset"]
    if preset not in measured:
        wanted = " ".join(each for each in PRESETS if each in measured or each == preset)
        return f"not measured for preset {preset}: python -m benchmarks.run methods --write --presets {wanted}"
    about, rows = measured[preset]["settings"], measured[preset]["rows"]
    device = recorded.get("device", {})
    where = f", {device['kind']}, {device['cores']} cores" if "cores" in device else ""
    words = (" mean", "95 % interval", f"{about['adapted']} tasks", "step ms", "step MiB", "numbers")
    lines = [
        f"sinusoids, preset {preset}: {about['seeds']} seeds, {about['outer_steps']} outer steps, "
        f"{about['held_out']} new tasks{where}",
        f"  {'':23}{'error on new tasks':>25}{'adapt ms':>12}{'outer':>10}{'outer':>10}",
        f"  {'':23}{words[0]:>7}{words[1]:>18}" + f"{words[2]:>12}" + "".join(f"{word:>10}" for word in words[3:]),
    ]
    for name, row in rows.items():
        mean, low, high = (row["interval"][part] for part in ("mean", "low", "high"))
        adapt, step, memory = row["adapt"], row["step"], row["step_temporary_bytes"]
        said = f"{low:.3f} to {high:.3f}", f"{1e3 * adapt['min_s']:.2f}"
        outer = f"{1e3 * step['min_s']:.2f}" if step else "-", "-" if memory is None else f"{memory / 2**20:.2f}"
        widths = zip((18, 12, 10, 10), said + outer, strict=True)
        cells = "".join(cell.rjust(width) for width, cell in widths)
        lines.append(f"  {name:23}{mean:7.3f}{cells}{row['numbers']:10}")
    lines += [
        "adapt: to the tasks, and answer their queries; outer: a step of 10 tasks; shortest times, in turns",
        "numbers: parameters that adaptation moves, or what a closed form stores for a task",
    ]
    for name, row in rows.items():
        if row.get("training"):
            kept = f"on {about['train_tasks']} tasks, which it keeps"
            lines.append(f"{name}: no outer steps, trained once in {row['training']['min_s']:.1g} s {kept}")
    return "\n".join(lines)
