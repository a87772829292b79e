"""One call on a GPU: the whole search with five cells, training, evaluation, and how much of the device they use.

`python -m benchmarks.run gpu --write --limit 560` stops in time for a machine that is lent for ten minutes: the parts
follow each other until it is over, what is known is written after each, and one that fails stops no other. Without a
GPU it runs small networks on the CPU, to show that it works, and says so. What shapes alone tell of a GPU's work is
reckoned in both cases (`_gpu_known`).

It needs neither neural-tangents nor anything of Jupyter: `mlkernels.nas` imports JAX, optax, jaxtyping, SciPy, psutil,
threadpoolctl and tqdm, the evaluation scikit-learn.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks._gpu_known import known
from benchmarks._gpu_tools import KINDS, PEAKS, Compiled, OutOfTime, Run, Sizes, data_of, memory, share_of, small, timed
from benchmarks._measure import table
from mlkernels import nas
from mlkernels.nas.engine.ahead import compile_ahead
from mlkernels.nas.engine.lowering import lowering
from mlkernels.nas.searching.scorer import Scorer
from mlkernels.support.progress import Progress

GOAL_SECONDS = 120  # the whole search, compilation included
SEARCH_SHARE, TRAIN_SHARE = 0.5, 0.6  # of the time that is left, at most


def peak(run: Run) -> dict:
    """What the device multiplies: by a large product, and by its data sheet; and what a launch costs the host."""
    n, found = run.sizes.matrix, {}
    sheet = PEAKS.get(jax.devices()[0].device_kind, (None,) * len(KINDS))
    for kind, by_sheet in zip(KINDS, sheet, strict=True):
        dtype, precision = (
            ("bfloat16", None) if kind == "bfloat16" else ("float32", "highest" if "exact" in kind else None)
        )
        x = jax.random.normal(jax.random.key(run.seed), (n, n), jnp.float32).astype(dtype)
        product = jax.jit(lambda a, b, how=precision: jnp.matmul(a, b, precision=how))
        found[kind] = {"tflops_measured": round(2 * n**3 / timed(lambda f=product, x=x: f(x, x)) / 1e12, 4)}
        found[kind]["tflops_of_the_data_sheet"] = by_sheet
    plus, one, count = jax.jit(lambda x: x + 1), jnp.zeros(()), 1000

    def many():
        x = one
        for _ in range(count):
            x = plus(x)
        return x

    return {"product": n, "by_kind": found, "microseconds_a_launch": round(1e6 * timed(many) / count, 2)}


def search(run: Run) -> dict:
    """The whole search; or as much as half of the time allows, and what the rest would take."""
    settings = replace(run.sizes.search, seed=run.seed)
    states: list[Progress] = []
    watch = run.watch("search", SEARCH_SHARE)
    found = {"evaluations": sum(settings.evaluations), "candidates_a_pass": Scorer(settings, run.dataset).batch}
    genotype = None
    with Compiled() as compiled:
        try:
            progress = lambda state: (states.append(state), watch(state))  # noqa: E731
            genotype = nas.search(settings, run.dataset, progress=progress).genotype
        except OutOfTime as stopped:
            found |= {"stopped": str(stopped), "about_seconds_left": round(states[-1].seconds_left or 0)}
    seconds = compiled.wall
    flops = sum(n * f for n, f in zip(settings.evaluations, nas.round_flops(settings), strict=True))
    found |= compiled.described() | {"genotype": None if genotype is None else str(genotype)}
    if genotype is not None:
        found |= share_of(run, flops / seconds, KINDS[1]) | {
            "goal_s": GOAL_SECONDS,
            "met": seconds < GOAL_SECONDS if run.result["gpu"] else None,
        }
    return found | memory()


def training(run: Run) -> dict:
    """Two epochs in each type of number and lowering, then as many as fit in the quickest of them."""
    layout = replace(run.sizes.network, ways=len(run.dataset.classes(next(iter(run.dataset.splits)))))
    network = nas.Network(layout, run.sizes.genotype)
    flops, found, histories = 3 * nas.flop_count(layout, network.gates), {}, {}
    stop = time.monotonic() + TRAIN_SHARE * run.left()
    with tempfile.TemporaryDirectory() as folder:

        def trained(compute: str, how: str, epochs: int) -> nas.Trained:
            told = replace(run.sizes.train, seed=run.seed, compute_dtype=compute)
            with lowering(how):
                return nas.train(network, run.dataset, told, out=Path(folder) / f"{compute} {how}", epochs=epochs)

        for compute, how in run.sizes.train_ways:
            if found and time.monotonic() > stop:
                break
            with Compiled() as compiled:
                run.model = trained(compute, how, 2)
            histories[compute, how] = run.model.history
            last = run.model.history[-1]
            speed, kind = last["images_per_second"], KINDS[int(compute == "float32")]
            found[f"{compute}, {how}"] = {"images_a_second": round(speed, 1), "loss": last["loss"]}
            found[f"{compute}, {how}"] |= compiled.described() | share_of(run, flops * speed, kind)
            run.keep({**run.result, "training": {"by_type": found}})
        best = max(histories, key=lambda way: histories[way][-1]["images_per_second"])
        more = int((stop - time.monotonic()) / histories[best][-1]["seconds"])
        run.model = trained(*best, max(1, more))
    history = run.model.history
    speed = median(row["images_per_second"] for row in history[1:])
    return {
        "by_type": found, "flops_an_image": flops, "continued_in": ", ".join(best), "epochs": len(history),
        "of": run.sizes.train.epochs, "images_a_second": round(speed, 1), "loss": history[-1]["loss"],
    } | memory()  # fmt: skip


def evaluation(run: Run) -> dict:
    """The few-shot accuracy of what was trained, by the paper's protocol."""
    if run.model is None:
        raise RuntimeError("nothing was trained")
    given = {"methods": ("logistic", "centroid"), "progress": run.watch("evaluation", 0.9), **run.sizes.evaluate}
    with Compiled() as compiled:
        found = nas.evaluate(run.model, run.dataset, **given)
    rows = {f"{row['method']} at {row['shot']}": row for row in found.described()}
    for row in rows.values():
        del row["accuracies"], row["method"], row["shot"]
    return {"accuracy": rows} | compiled.described()


def ways(run: Run) -> dict:
    """Kernels of the open network by lowering, precision and candidates a pass: seconds, and how far they are apart."""
    settings, found, first, longest = run.sizes.search, {}, None, 0.0
    layout, space = settings.layout, settings.layout.space
    params = nas.init(layout, key=jax.random.key(run.seed), dtype=settings.dtype)
    count = settings.tasks * layout.ways * (settings.shot + settings.queries)
    size = (count, layout.pixels, layout.pixels, layout.colours)
    images = np.random.default_rng(run.seed).normal(size=size).astype(settings.dtype)
    for at_once, how, precision in run.sizes.ways:
        if run.left() < 1.5 * longest:
            break
        gates, shown = np.stack([space.open_gates()] * at_once), np.stack([images] * at_once)
        began = time.monotonic()

        def kernels(params, shown, gates=gates):
            return nas.sample_kernels(layout, params, gates, shown)

        own = None if precision == "default" else precision  # as the search has it, whose programs then serve
        with lowering(how), jax.default_matmul_precision(own), Compiled() as compiled:
            if jax.default_backend() != "cpu":
                compile_ahead(kernels, params, shown)
            seconds = timed(lambda k=kernels, x=shown: k(params, x), 3)
            kernel = np.asarray(kernels(params, shown).ntk[0])
        first, longest = kernel if first is None else first, max(longest, time.monotonic() - began)
        found[f"{at_once} a pass, {how}, {precision}"] = {
            "seconds_a_candidate": round(seconds / at_once, 5),
            "relative_difference": float(np.linalg.norm(kernel - first) / np.linalg.norm(first)),
            "condition_number": float(np.linalg.cond(kernel)),
        } | compiled.described()
        run.keep({**run.result, "ways": found})
    return {"by_way": found, "differences_from": "the first of them"}


PARTS = {"peak": peak, "search": search, "training": training, "evaluation": evaluation, "ways": ways}


def measure(
    seed: int = 0, limit: float = 560.0, data: str = "auto", keep: Callable[[dict], object] = lambda result: None,
    sizes: Sizes | None = None, reckon: Callable[[], dict] = known,
) -> dict:  # fmt: skip
    """All parts that fit into so many seconds.

    Args:
        seed: everything that is random follows from it.
        limit: seconds from now, after which no part begins; what takes long looks at the clock.
        data: "miniimagenet", "glyphs", or "auto": the first where it is found.
        keep: is called with what is known so far, after each part and now and then within.
        sizes: None for the paper's on a GPU and for small ones elsewhere.
        reckon: what is known without a GPU.

    Returns:
        `gpu`, `data`, one entry a part and `known_without_a_gpu`. A part that failed or found no time says so.
    """
    gpu = jax.default_backend() not in ("cpu", "tpu")
    start = time.monotonic()
    dataset, words = data_of(data, little=not gpu)
    about = "the paper's sizes" if gpu else "NO GPU: small sizes on this CPU, which say nothing about a GPU"
    result = {"gpu": gpu, "about": about, "data": words, "limit_s": limit}
    run = Run(sizes or (Sizes() if gpu else small()), dataset, seed, start + limit, keep, result)
    for name, part in PARTS.items():
        if run.left() <= 0:
            result[name] = {"left_out": "no time was left"}
            continue
        try:
            result[name] = part(run)
        except OutOfTime as stopped:
            result[name] = {"stopped": str(stopped)}
        except Exception as fault:  # the others are worth their time all the same
            result[name] = {"failed": f"{type(fault).__name__}: {fault}"[:2000]}
        result[name]["ended_after_s"] = round(time.monotonic() - start, 1)
        keep(result)
    try:
        result["known_without_a_gpu"] = reckon()
    except Exception as fault:
        result["known_without_a_gpu"] = {"failed": f"{type(fault).__name__}: {fault}"[:2000]}
    return result


def report(result: dict) -> str:
    """The result for people."""
    lines = [f"{result['about']}; {result['data']}"]
    for name in (*PARTS, "known_without_a_gpu"):
        part = result[name]
        if words := [
            f"{key.replace('_', ' ')}: {part[key]}" for key in ("left_out", "stopped", "failed") if key in part
        ]:
            lines.append(f"{name}: {'; '.join(words)}")
    if "by_kind" in result["peak"]:
        rows = [["product of matrices", "TFLOP/s", "by the data sheet"]]
        for kind, found in result["peak"]["by_kind"].items():
            rows.append([kind, str(found["tflops_measured"]), str(found["tflops_of_the_data_sheet"] or "not known")])
        lines += [table(rows), f"a launch costs the host {result['peak']['microseconds_a_launch']} microseconds"]
    if "met" in (found := result["search"]):
        goal = f"goal of {found['goal_s']} s {'met' if found['met'] else 'NOT met'}"
        goal = goal if result["gpu"] else "the goal is one of a GPU"
        lines.append(
            f"search: {found['evaluations']} networks in {found['wall_s']} s, {found['candidates_a_pass']} a pass, "
            f"{found['programs_compiled']} programs compiled; {goal}; {found['genotype']}"
        )
    for compute, found in result["training"].get("by_type", {}).items():
        share = found["share_of_measured_peak"]
        share = "" if share is None else f", {share:.2%} of the peak that was measured"
        lines.append(f"training in {compute}: {found['images_a_second']} images a second{share}")
    if "epochs" in (found := result["training"]):
        lines.append(f"trained {found['epochs']} of {found['of']} epochs in {found['continued_in']}")
    for name, row in result["evaluation"].get("accuracy", {}).items():
        lines.append(f"{name} shot: {row['mean']:.4f} ({row['low']:.4f} to {row['high']:.4f}, n = {row['episodes']})")
    for name, found in result["ways"].get("by_way", {}).items():
        lines.append(f"{name}: {found['seconds_a_candidate']} s a candidate, off by {found['relative_difference']:.1e}")
    if reckoned := result["known_without_a_gpu"].get("search"):
        lines.append(
            f"known without a GPU: {reckoned['programs_in_all']} programs, {reckoned['launches']} launches a search; "
            f"{reckoned['candidates_that_fill_the_card']['reckoned']} candidates a pass fill 80 GB"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    import sys

    from benchmarks.run import main

    main(["gpu", *sys.argv[1:]])
