"""A candidate of the architecture search in this build and in an earlier one, in turns and fresh processes.

What was tried and did not pay, at 48 channels, 32 pixels, 30 images and with all operations open, in processor seconds
of single runs on a busy machine (hints, not measurements to build on):

- The Gram of a layer through Grams of pixels takes n^2 P^2 (C + D) products, gradients take (n P + n^2) T C D, T taps:
  with 8x8 pixels and 192 channels, the best case here, it is 14 times as many at 1x1 and 2.7 times at 5x1.
- What a candidate leaves unchanged is in the forward pass of the first cell of its kind, and before it: backwards every
  gradient is another one. The forward pass is a sixth of a candidate.
- XLA's other ways to compile: AVX-512 vectors, LLVM's expensive passes, its newer fusions; a barrier between a block's
  steps, which XLA takes out before it fuses. Its first level of optimisation compiles in three quarters of the time;
  blocks ran up to a twelfth slower.
- Dense 1x5 and 5x1 convolutions, with all that comes back, run at 80 to 100 GFLOP/s, separable ones at 45 to 65, where
  a product of two matrices of 2048 rows reaches 205 on the same two cores. At that rate the dense ones, 45 % of a
  candidate, would make it 1.3 times as quick, and cores that never wait 1.1 times: less than 1.7 in all.
- Compiling the 81 programs of a first pass in two threads, and all of them before it: 21 to 23 s for that pass however
  it is done, 16 of them compilation, for XLA gives the parts of one program to all cores already.
- Two candidates at once, a thread each, and one candidate in two halves, a thread each: no second of the processor is
  lost, and the peak was 2.4 and 2.2 GB.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

import numpy as np

from benchmarks._measure import ROOT, table
from benchmarks.before import NOW, THEN, one, worktree
from benchmarks.nas import CHANNELS, OPEN

COMMIT = "a31f4a4"  # before dense convolutions' gradients were taken sample by sample
TIMES = ("wall_s", "processor_s")


def condition(kernel) -> float:
    """The largest eigenvalue by the smallest."""
    eigenvalues = np.linalg.eigvalsh(np.asarray(kernel))
    return float(eigenvalues[-1] / eigenvalues[0])


def whole_search(seconds: dict[str, float]) -> float:
    """Seconds of all rounds of a search of three repeats without its regions, from those of candidates."""
    from mlkernels.nas import Layout, SearchSettings

    counts = sorted(map(int, seconds))
    times = [seconds[str(count)] for count in counts]
    rounds = enumerate(SearchSettings(Layout()).evaluations)
    return float(sum(networks * np.interp(max(7 - number, 1), counts, times) for number, networks in rounds))


def measure(seed: int = 0, commit: str = COMMIT, turns: int = 2, runs: int = 2, channels=CHANNELS) -> dict:
    """Both builds in turns, `turns` processes each, in which each candidate is scored `runs` times once it is compiled.

    Programs are kept from turn to turn.

    Returns:
        `by_channels`: of each build and number of open operations the least and the middle wall and processor seconds,
        how many times less the new one needs, for a whole search too, and how far kernels are apart.
    """
    found = {}
    with worktree(commit) as then, tempfile.TemporaryDirectory() as cache:
        builds = {THEN: then, NOW: ROOT}
        for each in channels:
            taken: dict[str, list] = {name: [] for name in builds}
            for _ in range(turns):
                for name, root in builds.items():
                    kept = Path(cache) / name
                    kept.mkdir(exist_ok=True)
                    taken[name].append(one(root, "candidates", str(each), str(runs), cache=kept))
            found[str(each)] = _compared(taken)
    return {"settings": {"before": commit, "turns": turns, "runs": runs, "seed": seed}, "by_channels": found}


def _compared(taken: dict[str, list]) -> dict:
    rows, apart = {}, {}
    for name, processes in taken.items():
        rows[name] = {"first": {}, "peak_bytes": max(each["peak_bytes"] or 0 for each in processes) or None}
        rows[name]["first"] = {
            kind: round(processes[0]["candidates"]["7"][f"first_{kind}"], 2) for kind in TIMES
        }  # with compilation
        for count in map(str, OPEN.values()):
            mine = [each["candidates"][count] for each in processes]
            rows[name][count] = {
                kind: {"min": round(min(all_), 3), "median": round(statistics.median(all_), 3)}
                for kind in TIMES
                for all_ in [[second for each in mine for second in each[kind]]]
            }
    for count in map(str, OPEN.values()):
        then, now = (np.array(taken[name][0]["candidates"][count]["kernel"]) for name in (THEN, NOW))
        apart[count] = {
            "kernel": float(np.linalg.norm(now - then) / np.linalg.norm(then)),
            "condition_number": abs(condition(now) / condition(then) - 1),
        }
    search = {
        name: {kind: round(whole_search({c: row[c][kind]["min"] for c in apart}), 1) for kind in TIMES}
        for name, row in rows.items()
    }
    faster = {
        count: {kind: round(rows[THEN][count][kind]["min"] / rows[NOW][count][kind]["min"], 2) for kind in TIMES}
        for count in apart
    }
    faster["a whole search"] = {kind: round(search[THEN][kind] / search[NOW][kind], 2) for kind in TIMES}
    return {"candidates": rows, "search_s": search, "times_faster": faster, "relative_difference": apart}


def report(result: dict) -> str:
    """The result for people."""
    rows = [["channels, open operations", "before, processor s", "now", "times less", "wall: times less", "kernels"]]
    for channels, found in result["by_channels"].items():
        for case, faster in found["times_faster"].items():
            if case in found["relative_difference"]:
                times = [found["candidates"][name][case]["processor_s"]["min"] for name in (THEN, NOW)]
                apart = f"{found['relative_difference'][case]['kernel']:.1e}"
            else:
                times, apart = [found["search_s"][name]["processor_s"] for name in (THEN, NOW)], ""
            ratios = [str(faster[kind]) for kind in reversed(TIMES)]
            rows.append([f"{channels}, {case}", *(f"{each:.2f}" for each in times), *ratios, apart])
    return table(rows)
