"""Measuring: variants in turn on a machine that others may use, with the provenance of the numbers."""

from __future__ import annotations

import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import psutil

from mlkernels.runner import jobs

ROOT = Path(__file__).resolve().parents[1]


def alternate(variants: Mapping[str, Callable[[], Any]], runs: int | Mapping[str, int]) -> dict[str, list[float]]:
    """Wall seconds of each variant; the variants take turns, A B A B.

    Each turn calls the variant twice and times the second call, so that none pays for the memory and the caches that
    the one before it left behind.

    Args:
        variants: name -> a call; what it returns is waited for.
        runs: how many times each, or by name.

    Returns:
        name -> seconds of its runs.

    Example:
        >>> [len(seconds) for seconds in alternate({"a": lambda: 1, "b": lambda: 2}, {"a": 3, "b": 1}).values()]
        [3, 1]
    """
    runs = dict.fromkeys(variants, runs) if isinstance(runs, int) else runs
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(max(runs.values())):
        for name, call in variants.items():
            if turn < runs[name]:
                jax.block_until_ready(call())
                start = time.perf_counter()
                jax.block_until_ready(call())
                seconds[name].append(time.perf_counter() - start)
    return seconds


def summary(seconds: Mapping[str, list[float]]) -> dict[str, dict]:
    """Minimum, median and number of runs of each variant.

    Example:
        >>> summary({"a": [0.2, 0.1, 0.4]})
        {'a': {'min_s': 0.1, 'median_s': 0.2, 'runs': 3}}
    """
    return {
        name: {"min_s": round(min(s), 6), "median_s": round(statistics.median(s), 6), "runs": len(s)}
        for name, s in seconds.items()
    }


def ratios(times: Mapping[str, Mapping], theirs: str, ours: str) -> dict[str, float]:
    """How many times longer `theirs` takes than `ours`, by minimum and by median.

    Example:
        >>> ratios(summary({"a": [0.2, 0.1, 0.4], "b": [0.8, 0.9]}), "b", "a")
        {'min': 8.0, 'median': 4.25}
    """
    pairs = {kind: (times[theirs][f"{kind}_s"], times[ours][f"{kind}_s"]) for kind in ("min", "median")}
    return {kind: round(them / us, 2) for kind, (them, us) in pairs.items()}


def reset_peak() -> bool:
    """Forget this process's peak memory, where the system can (Linux); say whether it did."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def peak_rss() -> int:
    """This process's largest resident memory in bytes, since its start or since `reset_peak`."""
    try:  # not ru_maxrss: on Linux a child begins with its parent's
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        unit = 1 if sys.platform == "darwin" else 1024
        return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def peak_of(call: Callable[[], Any]) -> dict[str, Any]:
    """What a call adds to this process's memory at its peak. Meaningful in a fresh process that has only set up.

    Returns:
        `peak_bytes`, above what is resident before the call; `at_most` is True where set-up had peaked higher and the
        system cannot forget it.
    """
    forgot, before, highest = reset_peak(), psutil.Process().memory_info().rss, peak_rss()
    jax.block_until_ready(call())
    peak = peak_rss()
    return {"peak_bytes": max(0, peak - before), "at_most": not forgot and peak == highest}


def load() -> list[float]:
    """Mean number of processes at work over 1, 5 and 15 minutes: above the cores, the times are too long."""
    return [round(value, 2) for value in os.getloadavg()]


def _git(*arguments: str) -> str | None:
    done = subprocess.run(
        ["git", "--no-optional-locks", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() if done.returncode == 0 else None


def origin() -> dict[str, Any]:
    """What a time depends on besides what every result file says: commit, machine, load."""
    changed = _git("status", "--porcelain", "--", "mlkernels", "benchmarks")
    return {
        "commit": _git("rev-parse", "HEAD"),
        "changed_since_commit": None if changed is None else bool(changed),
        "package_sha256": jobs.package_hash(),
        "machine": {"cpu": platform.processor() or platform.machine(), "memory_bytes": psutil.virtual_memory().total},
        "load_before": load(),
    }


def table(rows: list[list[str]]) -> str:
    """Columns of text, aligned; the first row is the header, numbers stand right.

    Example:
        >>> print(table([["what", "ms"], ["a", "1.0"], ["bcd", "10.0"]]))
        what    ms
        a      1.0
        bcd   10.0
    """
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
