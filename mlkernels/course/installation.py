"""Is everything here that the course needs? Versions, devices, the neural-tangents bridge, widgets, data, memory."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlkernels.errors import InputError
from mlkernels.support.compiled import unreadable
from mlkernels.support.provenance import device, version
from mlkernels.support.strict_json import load

PACKAGES = (
    *("jax", "jaxlib", "neural-tangents", "numpy", "matplotlib"),
    *("jupyterlab", "ipywidgets", "jupyterlab_widgets", "papermill"),
)
SERVED = ("jupyterlab", "jupyterlab_widgets", "papermill")  # not asked for on Colab, whose page shows notebooks itself
PYTHON = ((3, 11), (3, 13))
LEAST_MEMORY = 1.0  # GiB
INSTALL = "install the course's lock: make lab, or pip install --no-deps -r requirements.txt"
# ipywidgets' protocol (kernel side) -> the npm major version that speaks it (JupyterLab side)
_SPEAKS = {"base": {"1": "4", "2": "6"}, "controls": {"1": "3", "2": "5"}}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. `remedy` says what to do where it is not `ok`."""

    name: str
    value: str
    ok: bool = True
    remedy: str = ""

    def __str__(self) -> str:
        return f"{'ok   ' if self.ok else 'WRONG'} {self.name:<20} {self.value}"


def check_python(found: tuple[int, ...] = tuple(sys.version_info[:3])) -> Finding:
    """Whether this Python is one that the course runs on."""
    low, high = ("{}.{}".format(*bound) for bound in PYTHON)
    ok = PYTHON[0] <= found[:2] <= PYTHON[1]
    return Finding("python", ".".join(map(str, found)), ok, "" if ok else f"use Python {low} to {high}")


def check_packages(packages: Sequence[str] = PACKAGES, version: Callable[[str], str] = version) -> list[Finding]:
    """The versions of the packages that the course stands on; `version` gives "not installed", too."""
    found = {package: version(package) for package in packages}
    return [
        Finding(name, v, v != "not installed", INSTALL if v == "not installed" else "") for name, v in found.items()
    ]


def check_bridge(status: dict) -> Finding:
    """Whether neural-tangents works with this JAX, from `neural_tangents_bridge.status()`."""
    pair = f"neural-tangents {status['neural_tangents']} on JAX {status['jax']}"
    if status["ok"]:
        return Finding("bridge", f"{pair} works")
    return Finding(
        "bridge", f"{pair} does not work", False, status["error"] or f"install a JAX from {status['tested']}"
    )


def check_device(found: dict, has_gpu: bool = False) -> list[Finding]:
    """What JAX computes on, how many cores there are, and whether float64 is on; from `provenance.device()`.

    An NVIDIA GPU that JAX does not use is no fault, but worth saying.
    """
    kind = f"{found['count']} x {found['kind']} ({found['platform']})"
    if has_gpu and found["platform"] == "cpu":
        kind += "; this machine's GPU is not used, pip install 'mlkernels[gpu]' changes that"
    precision = "float64" if found["x64"] else "float32 here; notebooks that need float64 switch it on"
    return [Finding("devices", kind), Finding("cores", str(found["cores"])), Finding("precision", precision)]


def check_widgets(kernel: dict[str, str] | None, front: dict[str, str] | None) -> Finding:
    """Whether JupyterLab's widgets speak what the kernel's speak: part ("base", "controls") -> version or range.

    None stands for ipywidgets, or the extension, that is not installed.
    """
    if kernel is None or front is None:
        missing = "ipywidgets" if kernel is None else "jupyterlab_widgets"
        return Finding("widgets", f"{missing} not found", False, f"sliders need it; {INSTALL}")
    said = ", ".join(f"{part} {kernel[part]} with {front.get(part, 'none')}" for part in _SPEAKS)
    needed = [table.get(kernel[part].partition(".")[0]) for part, table in _SPEAKS.items()]
    if needed == [front.get(part, "").lstrip("^~=v").partition(".")[0] for part in _SPEAKS]:
        return Finding("widgets", f"kernel and JupyterLab match ({said})")
    remedy = "install both from one lock: pip install 'ipywidgets>=8.1.5' 'jupyterlab-widgets>=3.0.13', and remove "
    remedy += "older copies from the folders that `jupyter labextension list` shows"
    return Finding("widgets", f"kernel and JupyterLab differ ({said})", False, remedy)


def widget_versions() -> tuple[dict[str, str] | None, dict[str, str] | None]:
    """What `check_widgets` compares: the kernel's versions, and those of the extension that JupyterLab loads."""
    try:
        from ipywidgets import _version

        kernel = {part: getattr(_version, f"__jupyter_widgets_{part}_version__") for part in _SPEAKS}
    except (ImportError, AttributeError):
        kernel = None
    from jupyter_core.paths import jupyter_path

    front = None
    for folder in jupyter_path("labextensions", "@jupyter-widgets", "jupyterlab-manager"):
        path = Path(folder) / "package.json"
        if path.exists():  # JupyterLab takes the first, so an old one in the home folder hides the right one
            try:
                needs = load(path).get("dependencies", {})
                front = {part: needs.get(f"@jupyter-widgets/{part}", "") for part in _SPEAKS}
            except (OSError, ValueError, AttributeError):  # damaged, which JupyterLab cannot read either
                front = None
            break
    return kernel, front


def check_datasets(names: Sequence[str], available: Callable[[str], str | None]) -> list[Finding]:
    """Which datasets are found; `available` never downloads.

    One that is missing is no fault: notebooks fall back on data that they make.
    """
    return [Finding(f"data: {name}", str(available(name) or "not found (optional)")) for name in names]


def check_memory(free: float) -> Finding:
    """Whether there is memory, in GiB, for the quick preset."""
    remedy = "" if free >= LEAST_MEMORY else f"close other programs: {LEAST_MEMORY:.0f} GiB or more is needed"
    return Finding("free memory", f"{free:.1f} GiB", not remedy, remedy)


def check_cache(folder: Path) -> Finding:
    """What JAX has compiled for the notebooks, and how much of that a full disk has damaged: no fault, for it goes."""
    count, damaged = sum(1 for _ in folder.glob("*-cache")), len(unreadable(folder))
    words = f", {damaged} of them damaged: the next mlkernels run removes them" if damaged else ""
    return Finding("compiled", f"{count} programs in {folder}{words}")


def check() -> list[Finding]:
    """Look at everything.

    Returns:
        A finding for each thing; starts JAX, downloads nothing.
    """
    on_colab = "google.colab" in sys.modules
    packages = [name for name in PACKAGES if not (on_colab and name in SERVED)]
    findings = [check_python(), *check_packages(packages)]
    try:
        from mlkernels.kernels.neural_tangents_bridge import status

        findings.append(check_bridge(status()))
        import jax  # noqa: F401  (device() asks a JAX that is loaded)

        findings += check_device(device(), has_gpu=shutil.which("nvidia-smi") is not None)
    except Exception as error:
        findings.append(Finding("devices", f"JAX does not start: {_reason(error)}", False, INSTALL))
    findings.append(Finding("widgets", "Colab's own") if on_colab else check_widgets(*widget_versions()))
    try:
        from mlkernels import datasets

        findings += check_datasets(datasets.names(), datasets.available)
    except InputError as error:  # whose last words are what to do
        reason, _, remedy = str(error).rpartition("; ")
        findings.append(Finding("data", reason, False, remedy))
    except Exception as error:
        findings.append(Finding("data", _reason(error), False, "see data/README.md for where each dataset goes"))
    try:
        from mlkernels.support.memory import host_bytes

        findings.append(check_memory(host_bytes() / 2**30))
    except ImportError:
        findings.append(Finding("free memory", "psutil not found", False, INSTALL))
    findings.append(Finding("machine", f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors"))
    return findings


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]
