"""Where a result comes from: versions, device, command.

Imports nothing heavy: the runner asks it without starting JAX, and a notebook's kernel asks it for its device.
"""

from __future__ import annotations

import os
import platform
import shlex
import sys
from importlib import metadata
from pathlib import Path

import mlkernels

PACKAGES = ("jax", "jaxlib", "neural-tangents", "numpy")


def version(package: str) -> str:
    """The installed version of a package, or "not installed"."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def versions() -> dict[str, str]:
    """The versions that a result depends on."""
    return {
        "python": platform.python_version(),
        **{package: version(package) for package in PACKAGES},
        "mlkernels": mlkernels.__version__,
    }


def device() -> dict:
    """The devices that this process computes on, without starting JAX for the answer.

    `platform` ("none" where JAX has not been imported), `kind`, `count`, `x64` and `cores`.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    jax = sys.modules.get("jax")
    if jax is None:
        return {"platform": "none", "kind": "JAX not used", "count": 0, "x64": False, "cores": cores}
    first, x64 = jax.devices()[0], bool(jax.config.jax_enable_x64)
    kinds = {"platform": str(first.platform), "kind": str(first.device_kind)}
    return {**kinds, "count": len(jax.devices()), "x64": x64, "cores": cores}


def here() -> dict:
    """Versions and device of this process, as plain Python values."""
    return {"versions": versions(), "device": device()}


def command() -> str:
    """What was typed to start this process, as a shell takes it."""
    module = getattr(sys.modules["__main__"], "__spec__", None)  # of python -m, whose argv names a file
    name = Path(sys.argv[0]).name if module is None else module.name.removesuffix(".__main__")
    return shlex.join([name, *sys.argv[1:]])
