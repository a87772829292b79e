"""The empirical NTK of finite networks: time and peak memory against `neural_tangents.empirical_ntk_fn`."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from benchmarks._measure import ROOT, alternate, peak_of, ratios, summary, table
from mlkernels import kernels
from mlkernels.networks import MLP, Conv4

OURS = "mlkernels"
THEIRS = {"neural-tangents 1 (Jacobian contraction)": 1, "neural-tangents 2 (NTK-vector products)": 2}
OUTPUTS = {"trace": (-1,), "full": ()}  # and their trace_axes


@dataclass(frozen=True)
class LaxConv4:
    """`Conv4` with JAX's own convolution, as others write it."""

    inside: Conv4

    @property
    def outputs(self) -> int:
        return self.inside.outputs

    @property
    def init(self) -> Callable:
        return self.inside.init

    def apply(self, params, x) -> Array:
        c = self.inside
        for name in c.layers[:-1]:
            weight = c.w_std / math.sqrt(9 * x.shape[-1]) * params[name]["w"]
            x = jax.lax.conv_general_dilated(x, weight, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
            x = jax.nn.relu(x + c.b_std * params[name]["b"])
            height, width = (2 * (side // 2) for side in x.shape[1:3])
            x = x[:, :height, :width].reshape(len(x), height // 2, 2, width // 2, 2, -1).mean((2, 4))
        x = x.reshape(len(x), -1)
        return c.last_w_std / math.sqrt(x.shape[1]) * x @ params["head"]["w"] + c.b_std * params["head"]["b"]


@dataclass(frozen=True)
class Case:
    """A network, the shape of its inputs, how many points."""

    network: MLP | Conv4 | LaxConv4
    shape: tuple[int, ...]
    points: int

    def data(self, seed: int):
        """Parameters and inputs in float32."""
        key1, key2 = jax.random.split(jax.random.key(seed))
        params = self.network.init(key1, self.shape, jnp.float32)
        return params, jax.random.normal(key2, (self.points, *self.shape), jnp.float32)


CASES = {
    "MLP": Case(MLP(512, depth=2, outputs=10), (64,), 64),
    "Conv-4": Case(Conv4(32, outputs=5), (28, 28, 1), 16),
    "Conv-4 of JAX's convolution": Case(LaxConv4(Conv4(32, outputs=5)), (28, 28, 1), 16),
}
GOALS = {"MLP, trace": 60, "Conv-4, trace": 4}  # times faster than the faster of theirs, by the median
GROWTH = {"points": (16, 32, 64, 128, 256), "width": (128, 256, 512, 1024, 2048), "outputs": (1, 2, 5, 10, 20)}
MIDDLE = {"points": 64, "width": 512, "outputs": 10}  # the others, while one grows


def variant(case: Case, outputs: str, name: str) -> Callable:
    """A jitted function (params, x) -> kernel `[N, N]` or `[N*k, N*k]`; theirs as their documentation advises."""
    apply = case.network.apply
    if name == OURS:
        return jax.jit(lambda params, x: kernels.empirical_ntk(apply, params, x, outputs=outputs))
    from mlkernels.kernels.neural_tangents_bridge import nt

    def f(params, x):
        return apply(params, x)

    kernel_fn = nt.empirical_ntk_fn(f, trace_axes=OUTPUTS[outputs], vmap_axes=0, implementation=THEIRS[name])

    def ntk(params, x) -> Array:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of names that moved in JAX, while it is traced
            kernel = kernel_fn(x, None, params)
        size = len(x) * case.network.outputs
        return kernel if kernel.ndim == 2 else kernel.transpose(0, 2, 1, 3).reshape(size, size)

    return jax.jit(ntk)


def difference(case: Case, outputs: str, seed: int = 0) -> float:
    """The largest difference between ours and theirs, over the kernel's largest entry."""
    params, x = case.data(seed)
    ours = np.asarray(variant(case, outputs, OURS)(params, x))
    theirs = (np.asarray(variant(case, outputs, name)(params, x)) for name in THEIRS)
    return float(max(np.abs(ours - other).max() for other in theirs) / np.abs(ours).max())


def peak_here(case: Case, outputs: str, name: str, seed: int = 0) -> dict:
    """What one run of a compiled variant adds to this process's memory, and XLA's own figure for its buffers."""
    params, x = jax.block_until_ready(case.data(seed))
    compiled = variant(case, outputs, name).lower(params, x).compile()
    sizes = compiled.memory_analysis()
    found = peak_of(lambda: compiled(params, x))
    return {**found, "xla_temporary_bytes": None if sizes is None else int(sizes.temp_size_in_bytes)}


def peak(case: str, outputs: str, name: str, seed: int) -> dict:
    """`peak_here` in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.empirical_ntk", case, outputs, name, str(seed)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def measure(seed: int = 0, runs: int = 5) -> dict:
    """Times in this process, the variants in turn; peak memory each in its own process.

    Returns:
        `settings` and, by case and outputs, `times`, `memory`, `times_faster` than the faster of theirs,
        `times_leaner` than the leaner of theirs, and `max_relative_difference`.
    """
    found = {}
    for label, case in CASES.items():
        params, x = case.data(seed)
        for outputs in OUTPUTS:
            names = (OURS, *THEIRS)
            memory = {name: peak(label, outputs, name, seed) for name in names}
            calls = {name: variant(case, outputs, name) for name in names}
            turns = {name: partial(call, params, x) for name, call in calls.items()}
            times = summary(alternate(turns, runs))
            fastest = min(THEIRS, key=lambda name: times[name]["min_s"])
            found[f"{label}, {outputs}"] = {
                "times": times,
                "memory": memory,
                "times_faster": {"than": fastest, **ratios(times, fastest, OURS)},
                "times_leaner": {kind: _leaner(memory, kind) for kind in ("peak_bytes", "xla_temporary_bytes")},
                "max_relative_difference": difference(case, outputs, seed),
            }
            if goal := GOALS.get(f"{label}, {outputs}"):
                met = found[f"{label}, {outputs}"]["times_faster"]["median"] >= goal
                found[f"{label}, {outputs}"]["goal"] = {"times_faster": goal, "met": met}
    settings = {
        label: {"network": repr(case.network), "input": list(case.shape), "points": case.points}
        for label, case in CASES.items()
    }
    how = (
        "jitted; theirs with vmap_axes=0 and x2=None. peak_bytes: resident memory at the peak of one run above that "
        "before it, in a fresh process that has set up and compiled"
    )
    return {"settings": {**settings, "dtype": "float32", "how": how}, "cases": found, "growth": growth(runs, seed)}


def growth(runs: int, seed: int = 0) -> dict:
    """How the time for an MLP's trace kernel grows: seconds by size, and the exponent of a power law through them."""
    found = {}
    for what, values in GROWTH.items():
        calls = {}
        for value in values:
            now = MIDDLE | {what: value}
            case = Case(MLP(now["width"], depth=2, outputs=now["outputs"]), (64,), now["points"])
            calls[str(value)] = partial(variant(case, "trace", OURS), *case.data(seed))
        times = summary(alternate(calls, runs))
        x, y = np.log([*values]), np.log([time["median_s"] for time in times.values()])
        found[what] = {
            "times": times,
            "exponent": round(float(np.polyfit(x, y, 1)[0]), 2),
            "exponent_of_the_upper_half": round(float(np.polyfit(x[len(x) // 2 :], y[len(x) // 2 :], 1)[0]), 2),
        }
    return found


def _leaner(memory: dict, kind: str) -> dict | None:
    if any(m[kind] is None for m in memory.values()):
        return None
    leanest = min(THEIRS, key=lambda name: memory[name][kind])
    return {"than": leanest, "ratio": round(memory[leanest][kind] / max(1, memory[OURS][kind]), 2)}


def report(result: dict) -> str:
    """The result for people."""
    rows, lines = [["case, way", "min ms", "median ms", "peak MiB", "XLA temporary MiB"]], []
    for label, found in result["cases"].items():
        for name, t in found["times"].items():
            m = found["memory"][name]
            xla = "-" if m["xla_temporary_bytes"] is None else f"{m['xla_temporary_bytes'] / 2**20:.1f}"
            peak_text = f"{'<= ' if m['at_most'] else ''}{m['peak_bytes'] / 2**20:.1f}"
            rows.append([f"{label}  {name}", f"{1e3 * t['min_s']:.1f}", f"{1e3 * t['median_s']:.1f}", peak_text, xla])
        fast, lean = found["times_faster"], found["times_leaner"]["peak_bytes"]
        lines.append(
            f"{label}: {fast['min']} times as fast (median {fast['median']}) as the faster of theirs, "
            f"the leaner of theirs takes {lean['ratio']} times our memory; "
            f"largest difference {found['max_relative_difference']:.1e} of the largest entry"
        )
        if goal := found.get("goal"):
            lines.append(f"  goal, {goal['times_faster']} times as fast: {'met' if goal['met'] else 'NOT met'}")
    for what, grown in result["growth"].items():
        each = ", ".join(f"{value}: {1e3 * t['median_s']:.2f}" for value, t in grown["times"].items())
        lines.append(
            f"MLP, trace, ms by {what}: {each}; exponent {grown['exponent']}, "
            f"of the upper half {grown['exponent_of_the_upper_half']}"
        )
    return "\n".join([table(rows), *lines])


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)  # as the timed process has it; the arrays are float32
    print(json.dumps(peak_here(CASES[sys.argv[1]], sys.argv[2], sys.argv[3], int(sys.argv[4]))))
