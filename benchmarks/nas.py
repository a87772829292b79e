"""A candidate of the architecture search, and a whole search: ours, the network written down plainly, PyTorch.

The reference's way is to score every candidate and, beside it, the unpruned network anew, by per-sample gradients, and
to compare all pairs of patterns for the linear regions. Each side of each case is measured in a process of its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from importlib.util import find_spec

import numpy as np

from benchmarks._measure import ROOT, peak_rss, table
from mlkernels.support.memory import keep_freed

OURS, TORCH, PLAIN = "mlkernels", "torch.func vmap(grad)", "jax.vmap(jax.grad), a network each"
OPEN = {"all operations": 7, "three an edge": 3, "one an edge": 1}
CHANNELS = (16, 48)
SCALING = {
    "16 channels, 32 px, 5 cells, 3 tasks": {},
    "32 channels": {"channels": 32},
    "64 px": {"pixels": 64},
    "8 cells": {"cells": 8},
    "6 tasks": {"tasks": 6},
}
GOAL = {"times_faster": 3.0, "peak_bytes": 2_000_000_000}


def gates_with(space, count: int, seed: int) -> np.ndarray:
    """Gates with so many operations open on every edge, the first with weights among them."""
    rng, gates = np.random.default_rng(seed), space.open_gates() & False
    for kind, edge in np.ndindex(gates.shape[:2]):
        gates[kind, edge, rng.permutation(gates.shape[2])[:count]] = True
    return gates


def problem(channels=16, pixels=32, cells=5, tasks=3, seed=0):
    """A super-network, its weights, and images of so many 5-way 1-shot 1-query tasks."""
    import jax

    from mlkernels.nas import Layout
    from mlkernels.nas.engine.weights import init

    layout = Layout(cells=cells, channels=channels, pixels=pixels)
    images = np.random.default_rng(seed).normal(size=(10 * tasks, pixels, pixels, 3)).astype(np.float32)
    return layout, init(layout, key=jax.random.key(seed)), images


def kernel_of(side: str, layout, params, gates, images):
    """The kernel of the candidate by one of the sides."""
    import jax
    import jax.numpy as jnp

    if side == OURS:
        from mlkernels.nas.engine.gram import sample_kernels

        return np.asarray(sample_kernels(layout, params, gates, images).ntk)
    if side == TORCH:
        from benchmarks._nas_torch import Network, sample_kernel

        return sample_kernel(Network(layout, params, gates), images).numpy()
    sys.path.insert(0, str(ROOT / "tests"))
    import _plain_nas as plain

    network = plain.Architecture(layout, gates)
    jacobian = jax.jit(lambda w, x: plain.sample_gradients(network, w, x, jnp.ones(layout.ways, x.dtype)))
    rows = jacobian(network.weights(params), jnp.moveaxis(images, -1, 1))
    return np.asarray(sum(leaf.reshape(len(images), -1) @ leaf.reshape(len(images), -1).T for leaf in rows))


def measured(side: str, count: int, runs: int, **sizes) -> dict:
    """In this process: seconds of the first call and of `runs` more, peak memory, and the kernel."""
    seed = sizes.get("seed", 0)
    if side == OURS:  # as `mlkernels nas search` does
        keep_freed()
    layout, params, images = problem(**sizes)
    gates = gates_with(layout.space, count, seed)
    seconds = []
    for _ in range(1 + runs):
        start = time.perf_counter()
        kernel = kernel_of(side, layout, params, gates, images)
        seconds.append(time.perf_counter() - start)
    return {
        "first_s": round(seconds[0], 3),
        "min_s": round(min(seconds[1:] or seconds), 3),
        "median_s": round(float(np.median(seconds[1:] or seconds)), 3),
        "runs": runs,
        "peak_bytes": peak_rss(),
        "kernel": kernel.tolist(),
    }


def regions_measured(count: int, seed: int, images: int = 3000) -> dict:
    """Seconds of the count of linear regions, ours and by pairwise products of the patterns, and both counts."""
    import jax

    from mlkernels.nas import Layout
    from mlkernels.nas.engine.weights import init
    from mlkernels.nas.scores.regions import Patterns, linear_regions, thin

    layout = thin(Layout())
    params, gates = init(layout, key=jax.random.key(seed)), gates_with(layout.space, count, seed)
    shown = np.random.default_rng(seed).normal(size=(3, images // 3, 3, 3, 1)).astype(np.float32)
    bits: list[np.ndarray] = []
    keep = Patterns.add
    Patterns.add = lambda self, more, where: (bits.append(np.asarray(more)[where]), keep(self, more, where))[1]
    try:
        linear_regions(layout, params, gates, shown)
    finally:
        Patterns.add = keep
    seconds = []
    for _ in range(4):
        start = time.perf_counter()
        ours = linear_regions(layout, params, gates, shown)
        seconds.append(time.perf_counter() - start)
    start = time.perf_counter()
    a = np.concatenate(bits, axis=1).astype(np.float32)
    apart = a @ (1 - a).T + (1 - a) @ a.T
    theirs = round(float((1 / (apart == 0).sum(1)).sum()))
    pairs = time.perf_counter() - start
    return {"ours_s": round(min(seconds[1:]), 4), "pairs_s": round(pairs, 4), "counts": [ours, theirs]}


def in_fresh_process(*arguments) -> dict:
    """A measurement in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.nas", json.dumps(arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def whole_search(found: dict, regions: dict, *, reference: bool) -> float:
    """Seconds of all rounds of a search of three repeats, between the measured counts of operations on a line."""
    from mlkernels.nas import Layout, SearchSettings

    settings, counts = SearchSettings(Layout(), reference_quirks=reference), sorted(OPEN.values())
    times = [found[name]["min_s"] for name in sorted(OPEN, key=OPEN.get)]
    extra = [regions[name]["pairs_s" if reference else "ours_s"] for name in sorted(OPEN, key=OPEN.get)]
    first = max(found[name]["first_s"] - found[name]["min_s"] for name in OPEN)
    total = first
    for number, networks in enumerate(settings.evaluations):
        left = max(7 - number, 1)
        total += networks * (np.interp(left, counts, times) + np.interp(left, counts, extra))
    return round(float(total), 1)


def measure(seed: int = 0, runs: int = 3) -> dict:
    """Time and peak memory a candidate, whole searches from it, and how the cost grows.

    PyTorch is left out where it is not installed. The plain network is measured with one operation an edge alone: it
    is compiled for each candidate, which with all operations takes minutes.

    Returns:
        `settings`, `by_channels` (candidates, regions, whole searches), `scaling`, and whether the goals are met.
    """
    torch = find_spec("torch") is not None
    regions = {name: in_fresh_process("regions", count, seed) for name, count in OPEN.items()}
    by_channels = {}
    for channels in CHANNELS:
        sides: dict[str, dict] = {OURS: {}}
        for name, count in OPEN.items():
            for side in [OURS, *([TORCH] if torch else []), *([PLAIN] if count == 1 else [])]:
                many = runs if side == OURS else (0 if side == PLAIN else 1)
                given = {"channels": channels, "seed": seed}
                sides.setdefault(side, {})[name] = in_fresh_process("candidate", side, count, many, given)
        apart = 0.0
        for side in sides.keys() - {OURS}:
            for name, theirs in sides[side].items():
                ours, theirs = (np.array(each["kernel"]) for each in (sides[OURS][name], theirs))
                apart = max(apart, float(np.linalg.norm(ours - theirs) / np.linalg.norm(ours)))
        for found in sides.values():
            for each in found.values():
                del each["kernel"]
        result = {"candidate": sides, "largest_relative_difference": apart}
        result["search_s"] = {OURS: whole_search(sides[OURS], regions, reference=False)}
        if torch:
            result["search_s"]["the reference's way, PyTorch"] = whole_search(sides[TORCH], regions, reference=True)
        peak = max(each["peak_bytes"] for each in sides[OURS].values())
        ratio = result["search_s"].get("the reference's way, PyTorch", 0) / result["search_s"][OURS] if torch else None
        result["times_faster"], result["peak_bytes"] = ratio and round(ratio, 2), peak
        by_channels[str(channels)] = result
    scaling = {name: in_fresh_process("candidate", OURS, 3, runs, sizes) for name, sizes in SCALING.items()}
    for each in scaling.values():
        del each["kernel"]
    base = next(iter(scaling.values()))["min_s"]
    largest = by_channels[str(CHANNELS[-1])]
    return {
        "settings": {"pixels": 32, "cells": 5, "images": 30, "dtype": "float32", "torch": torch, "open": OPEN},
        "regions": regions,
        "by_channels": by_channels,
        "scaling": {name: each | {"times": round(each["min_s"] / base, 2)} for name, each in scaling.items()},
        "goal": GOAL
        | {
            "faster": None if not torch else largest["times_faster"] >= GOAL["times_faster"],
            "smaller": largest["peak_bytes"] < GOAL["peak_bytes"],
        },
    }


def report(result: dict) -> str:
    """The result for people."""
    rows, lines = [["channels, candidate, side", "first s", "min s", "median s", "peak MB"]], []
    for channels, found in result["by_channels"].items():
        for side, cases in found["candidate"].items():
            for name, t in cases.items():
                numbers = [f"{t['first_s']:.1f}", f"{t['min_s']:.2f}", f"{t['median_s']:.2f}"]
                rows.append([f"{channels}, {name}, {side}", *numbers, f"{t['peak_bytes'] / 1e6:.0f}"])
        for side, seconds in found["search_s"].items():
            lines.append(f"{channels} channels, a whole search, {side}: {seconds / 3600:.2f} h")
        lines.append(
            f"{channels} channels: {found['times_faster']} times faster; kernels differ by at most "
            f"{found['largest_relative_difference']:.1e}; peak {found['peak_bytes'] / 1e6:.0f} MB"
        )
    for name, found in result["regions"].items():
        lines.append(f"regions, {name}: {found['ours_s']} s, pairwise {found['pairs_s']} s, counts {found['counts']}")
    lines += [f"three an edge, {name}: {t['min_s']:.2f} s, {t['times']} times" for name, t in result["scaling"].items()]
    words = {True: "met", False: "NOT met", None: "not tested: PyTorch is not installed"}
    goal = result["goal"]
    lines.append(f"goal {goal['times_faster']:g} times faster: {words[goal['faster']]}; "
                 f"below {goal['peak_bytes'] / 1e9:g} GB: {words[goal['smaller']]}")  # fmt: skip
    return "\n".join([table(rows), *lines])


if __name__ == "__main__":
    import jax

    jax.config.update("jax_enable_x64", True)
    what, *given = json.loads(sys.argv[1])
    if what == "regions":
        print(json.dumps(regions_measured(*given)))
    else:
        print(json.dumps(measured(given[0], given[1], given[2], **given[3])))
