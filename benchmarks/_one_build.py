"""What `benchmarks.before` runs with the package of one build or another: public names alone, which both have.

Run as a file, with the build's root as PYTHONPATH: `python benchmarks/_one_build.py WHAT`; prints JSON.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from importlib import import_module
from pathlib import Path

DEMOS = ("start_here", "derive_metantk", "maml_linear_rate", "anil_geometry", "cell_editor", "search_replay")
RUNS = 7


def timed(call) -> dict:
    """Milliseconds of the quickest and the middle one of some calls, after one that compiles."""
    import jax

    jax.block_until_ready(call())
    times = []
    for _ in range(RUNS):
        start = time.perf_counter()
        jax.block_until_ready(call())
        times.append(1e3 * (time.perf_counter() - start))
    return {"min_ms": min(times), "median_ms": statistics.median(times)}


def empirical_ntk() -> dict:
    """The kernel of one network, jitted, in float32; and XLA's figure for its buffers."""
    import jax
    import jax.numpy as jnp

    from mlkernels import kernels
    from mlkernels.learners import maml
    from mlkernels.networks import MLP, Conv4

    cases = {"MLP": (MLP(512, depth=2, outputs=10), (64,), 64), "Conv-4": (Conv4(32, outputs=5), (28, 28, 1), 16)}
    found = {}
    for name, (network, shape, points) in cases.items():
        params = network.init(jax.random.key(0), shape, jnp.float32)
        x = jax.random.normal(jax.random.key(1), (points, *shape), jnp.float32)
        for outputs in ("trace", "full"):
            ntk = jax.jit(lambda p, x, a=network.apply, o=outputs: kernels.empirical_ntk(a, p, x, outputs=o))
            compiled = ntk.lower(params, x).compile()
            sizes = compiled.memory_analysis()
            memory = {"temporary_bytes": None if sizes is None else int(sizes.temp_size_in_bytes)}
            found[f"{name}, {outputs}"] = timed(lambda c=compiled, p=params, x=x: c(p, x)) | memory
    network = MLP(512, depth=2, outputs=10)
    params, x = network.init(jax.random.key(0), (64,), jnp.float32), jax.random.normal(jax.random.key(1), (4, 32, 64))
    x = x.astype(jnp.float32)
    nngp = jax.jit(lambda p, x: kernels.empirical_nngp(network.apply, p, x))
    found["MLP, NNGP"] = timed(lambda: nngp(params, x[0]))
    loop, labels = maml.InnerLoop(0.1, 5), jnp.ones((16, 10), jnp.float32)

    @jax.jit
    def adapted(params, x):
        """The kernels of four tasks, each at the parameters that it has adapted."""

        def one(x):
            theta = maml.adapt(network.apply, params, x[:16], labels, loop)
            return kernels.empirical_ntk(network.apply, theta, x[16:], outputs="trace")

        return jax.vmap(one)(x)

    found["MLP, at adapted parameters"] = timed(lambda: adapted(params, x))
    return found


def infinite() -> dict:
    """The analytic MetaNTK of many tasks, the kernels of many points and of some images, in float64."""
    import jax

    from mlkernels import kernels, metantk
    from mlkernels.networks import MLP, Conv4
    from mlkernels.tasks import sinusoid

    def ntk(x1, x2):
        return kernels.infinite_kernels(MLP(1, depth=2), x1, x2).ntk

    def plain(tasks):
        return metantk.analytic_metantk(tasks, ntk, inner_rate=0.01, inner_steps=10)

    found, jitted = {}, jax.jit(plain)
    for count in (32, 64, 128):
        tasks = sinusoid(tasks=count, support=10, queries=10, key=jax.random.key(0))
        found[f"MetaNTK, {count} tasks"] = timed(lambda tasks=tasks: plain(tasks))
        found[f"MetaNTK, {count} tasks, jitted by the user"] = timed(lambda tasks=tasks: jitted(tasks))
    for network, shape in ((MLP(1), (1280, 6)), (Conv4(1), (8, 16, 16, 1))):
        x = jax.random.normal(jax.random.key(0), shape)
        name = f"infinite kernels, {type(network).__name__}, points {list(shape)}"
        found[name] = timed(lambda network=network, x=x: kernels.infinite_kernels(network, x))
    return found


def first_picture(name: str) -> dict:
    """From a demo to what is seen first, and to the picture computed, in a process that has imported it and started
    JAX. Both are one where a build keeps no posters.
    """
    import jax

    from mlkernels.course import widgets

    demo = import_module(f"mlkernels.course.demos.{name}").DEMO
    jax.block_until_ready(jax.jit(lambda: jax.numpy.ones(3))())
    start = time.perf_counter()
    view = widgets.explore(demo)
    seen = computed = time.perf_counter() - start
    while getattr(view, "poster", False):
        time.sleep(0.002)
        computed = time.perf_counter() - start
    return {"ms": 1e3 * seen, "computed_ms": 1e3 * computed}


def sliders(name: str) -> dict:
    """The median answer of each control once all is compiled."""
    from mlkernels.course import widgets

    demo = import_module(f"mlkernels.course.demos.{name}").DEMO
    view = widgets.explore(demo)
    if hasattr(view, "warming"):
        view.warming.join()
    found = {}
    for control in demo.controls:
        view.set()
        path = [*control.values, *control.values[-2:0:-1]]
        here, times = path.index(control.default), []
        for count in range(1, 2 * len(path) + 1):
            start = time.perf_counter()
            value = path[(here + count) % len(path)]
            if hasattr(view, "indices"):
                view.indices = view.indices | {control.name: control.values.index(value)}
            else:  # a build whose controls are widgets of their own
                view.controls[control.name].value = value
            times.append(1e3 * (time.perf_counter() - start))
        found[control.name] = statistics.median(times[len(path) :])  # the second time around
    return found


def candidates(channels: str, runs: str) -> dict:
    """By operations open on an edge: a candidate's kernel, and seconds of some calls after one that compiles.

    The processor's seconds, of all threads, depend less than the wall's on who else is at work.
    """
    from mlkernels.support.memory import keep_freed

    keep_freed()  # as `mlkernels nas search` does

    import jax
    import numpy as np

    from mlkernels.nas import Layout, sample_kernels
    from mlkernels.nas.engine.weights import init

    layout, found = Layout(cells=5, channels=int(channels), pixels=32), {}
    params = init(layout, key=jax.random.key(0))
    images = np.random.default_rng(0).normal(size=(30, 32, 32, 3)).astype(np.float32)
    for count in (7, 3, 1):
        rng, gates = np.random.default_rng(0), layout.space.open_gates() & False
        for kind, edge in np.ndindex(gates.shape[:2]):
            gates[kind, edge, rng.permutation(gates.shape[2])[:count]] = True
        times = []
        for _ in range(1 + int(runs)):
            wall, busy = time.perf_counter(), time.process_time()
            kernel = np.asarray(sample_kernels(layout, params, gates, images).ntk)
            times.append((time.perf_counter() - wall, time.process_time() - busy))
        wall, busy = zip(*times[1:], strict=True)
        first = {"first_wall_s": times[0][0], "first_processor_s": times[0][1]}
        found[str(count)] = first | {"wall_s": wall, "processor_s": busy, "kernel": kernel.tolist()}
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    peak = [1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM")]
    return {"candidates": found, "peak_bytes": peak[0] if peak else None}


if __name__ == "__main__":
    import jax

    jax.config.update("jax_enable_x64", True)
    what, *names = sys.argv[1:]
    print(json.dumps(globals()[what](*names)))
