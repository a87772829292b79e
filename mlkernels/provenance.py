"""Where a result comes from: versions, device, and the fingerprint that says whether it is still current.

Imports nothing heavy: the runner asks it without starting JAX, and a notebook's kernel asks it for its device.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
from importlib import metadata
from pathlib import Path

import mlkernels

PACKAGES = ("jax", "jaxlib", "neural-tangents", "numpy")
_HERE = Path(__file__).parent
# settings that change results without showing in the source
_ENVIRONMENT = ("MLKERNELS_", "JAX_", "XLA_")
_NOT_RESULTS = (
    "JAX_COMPILATION_CACHE_DIR",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS",
    "XLA_PYTHON_CLIENT_PREALLOCATE",
)


def version(package: str) -> str:
    """The installed version of a package.

    Args:
        package: its distribution name.

    Returns:
        The version, or "not installed".

    Example:
        >>> version("no-such-package")
        'not installed'
    """
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def versions() -> dict[str, str]:
    """The versions that a result depends on.

    Returns:
        python, jax, jaxlib, neural-tangents, numpy and mlkernels, each as text.

    Example:
        >>> sorted(versions())
        ['jax', 'jaxlib', 'mlkernels', 'neural-tangents', 'numpy', 'python']
    """
    return {
        "python": platform.python_version(),
        **{package: version(package) for package in PACKAGES},
        "mlkernels": mlkernels.__version__,
    }


def device() -> dict:
    """The devices that this process computes on, without starting JAX for the answer.

    Returns:
        `platform`, `kind`, `count`, `x64` and `cores`; platform "none" where JAX has not been imported.

    Example:
        >>> device()["cores"] >= 1
        True
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    jax = sys.modules.get("jax")
    if jax is None:
        return {"platform": "none", "kind": "JAX not used", "count": 0, "x64": False, "cores": cores}
    devices = jax.devices()
    return {
        "platform": str(devices[0].platform),
        "kind": str(devices[0].device_kind),
        "count": len(devices),
        "x64": bool(jax.config.jax_enable_x64),
        "cores": cores,
    }


def here() -> dict:
    """Versions and device of this process, as plain Python values.

    Returns:
        `{"versions": ..., "device": ...}`.

    Example:
        >>> here()["versions"] == versions()
        True
    """
    return {"versions": versions(), "device": device()}


def package_hash(folder: Path = _HERE) -> str:
    """The sha256 over every source file of a package, names included.

    Args:
        folder: the package's folder.

    Returns:
        64 hexadecimal digits; the same on every machine that has the same files.

    Example:
        >>> len(package_hash())
        64
    """
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            content = path.read_bytes()
            digest.update(f"{path.relative_to(folder).as_posix()} {len(content)}\n".encode())
            digest.update(content)
    return digest.hexdigest()


def fingerprint(notebook: dict, parameters: dict, package: str | None = None, data: dict | None = None) -> str:
    """What an executed notebook depends on, in one hash: the same hash, the same result.

    Args:
        notebook: the notebook's content (cells with `cell_type`, `source` and tags count, outputs do not).
        parameters: the values that it is run with.
        package: the package's hash; computed where None.
        data: checksums of the datasets' files, as `datasets.fingerprint.files` finds them; None for none.

    Returns:
        64 hexadecimal digits over the cells, the parameters, the package's source, the versions, the environment
        variables that change results (MLKERNELS_*, JAX_*, XLA_*), and the data.

    Example:
        >>> cell = {"cell_type": "code", "source": "1 + 1", "metadata": {}}
        >>> one = fingerprint({"cells": [cell]}, {"seed": 0})
        >>> one == fingerprint({"cells": [cell]}, {"seed": 1})
        False
    """
    cells = [
        (cell["cell_type"], cell["source"], cell.get("metadata", {}).get("tags", [])) for cell in notebook["cells"]
    ]
    settings = {
        name: value for name, value in os.environ.items() if name.startswith(_ENVIRONMENT) and name not in _NOT_RESULTS
    }
    content = [cells, sorted((name, repr(value)) for name, value in parameters.items())]
    content += [package or package_hash(), versions(), settings, data or {}]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
