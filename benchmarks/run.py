"""Run the benchmarks: `python -m benchmarks.run [NAME...] [--write]`, which is what `make bench` calls."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from functools import partial
from importlib import import_module
from pathlib import Path

NAMES = (
    "metantk",
    "sliders",
    "empirical_ntk",
    "before",
    "datasets",
    "maml",
    "meta_rkhs",
    "function_space",
    "methods",
    "nas",
    "nas_before",
    "site",
)
ALONE = ("gpu",)  # those that run where they are named: this one wants a GPU, and says next to nothing without


def main(arguments: list[str] | None = None) -> None:
    """Measure, print tables, write `bench_NAME.json` into build/bench, or into data/results with --write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; all if none is named; or {', '.join(ALONE)}"
    )
    parser.add_argument("--write", action="store_true", help="into data/results, the results that the course quotes")
    parser.add_argument("--seed", type=int, default=0)
    presets = ("quick", "class", "full")
    words = "of methods, the one benchmark that has presets: which are measured, and in the file then"
    parser.add_argument(
        "--presets", nargs="+", choices=presets, metavar="PRESET", help=f"{words}: {', '.join(presets)}"
    )
    parser.add_argument("--limit", type=float, metavar="SECONDS", help="of gpu: how long it may take")
    words = "of gpu: what it trains on; miniImageNet where MLKERNELS_DATA has it, if nothing is said"
    parser.add_argument("--data", choices=("miniimagenet", "glyphs"), help=words)
    chosen = parser.parse_args(arguments)
    if unknown := sorted(set(chosen.names) - {*NAMES, *ALONE}):
        parser.error(f"unknown {', '.join(unknown)}: expected {', '.join((*NAMES, *ALONE))}")
    if (chosen.limit or chosen.data) and chosen.names != ["gpu"]:
        parser.error("a limit and data are of gpu: name it alone")
    if chosen.presets and chosen.names != ["methods"]:
        parser.error("there are no presets but for methods: name it alone")

    import jax

    from benchmarks._measure import ROOT, origin
    from mlkernels.support import provenance

    jax.config.update("jax_enable_x64", True)
    folder = ROOT / "data" / "results" if chosen.write else ROOT / "build" / "bench"
    for name in chosen.names or NAMES:
        words = ["python -m benchmarks.run", name, *(["--write"] if chosen.write else [])]
        words += [f"--seed {chosen.seed}"] if chosen.seed else []
        benchmark = import_module(f"benchmarks.{name}")
        options = {}
        if chosen.presets:
            words.append(f"--presets {' '.join(chosen.presets)}")
            options["presets"] = tuple(chosen.presets)
        for option in ("limit", "data"):
            if (given := getattr(chosen, option)) is not None:
                words.append(f"--{option} {given:g}" if option == "limit" else f"--{option} {given}")
                options[option] = given
        where, device, path = origin(), provenance.device(), folder / f"bench_{name}.json"
        busy = where["load_before"][0]
        print(f"\n== {name} ({device['platform']}, {device['cores']} cores, load {busy})", flush=True)
        keep = partial(_keep, path, {"benchmark": name, **where}, seed=chosen.seed, command=" ".join(words))
        if name in ALONE:  # it may be stopped: what it knows is written as it goes
            options["keep"] = keep
        result = benchmark.measure(seed=chosen.seed, **options)
        keep(result)
        print(benchmark.report(result))
        print(f"written: {path.relative_to(ROOT)}", flush=True)


def _keep(path: Path, about: Mapping, result: Mapping, **origin) -> None:
    from benchmarks._measure import load
    from mlkernels.support import results

    results.save(path, {**about, "load_after": load(), **result}, **origin)


if __name__ == "__main__":
    main()
