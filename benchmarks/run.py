"""Run the benchmarks: `python -m benchmarks.run [NAME...] [--write]`, which is what `make bench` calls."""

from __future__ import annotations

import argparse
from importlib import import_module

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


def main(arguments: list[str] | None = None) -> None:
    """Measure, print tables, write `bench_NAME.json` into build/bench, or into data/results with --write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; all if none is named")
    parser.add_argument("--write", action="store_true", help="into data/results, the results that the course quotes")
    parser.add_argument("--seed", type=int, default=0)
    presets = ("quick", "class", "full")
    words = "of methods, the one benchmark that has presets: which are measured, and in the file then"
    parser.add_argument(
        "--presets", nargs="+", choices=presets, metavar="PRESET", help=f"{words}: {', '.join(presets)}"
    )
    chosen = parser.parse_args(arguments)
    if unknown := sorted(set(chosen.names) - set(NAMES)):
        parser.error(f"unknown {', '.join(unknown)}: expected {', '.join(NAMES)}")
    if chosen.presets and chosen.names != ["methods"]:
        parser.error("there are no presets but for methods: name it alone")

    import jax

    from benchmarks._measure import ROOT, load, origin
    from mlkernels.support import provenance, results

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
        where, device, path = origin(), provenance.device(), folder / f"bench_{name}.json"
        busy = where["load_before"][0]
        print(f"\n== {name} ({device['platform']}, {device['cores']} cores, load {busy})", flush=True)
        result = benchmark.measure(seed=chosen.seed, **options)
        where["load_after"] = load()
        results.save(path, {"benchmark": name, **where, **result}, seed=chosen.seed, command=" ".join(words))
        print(benchmark.report(result))
        print(f"written: {path.relative_to(ROOT)}", flush=True)


if __name__ == "__main__":
    main()
