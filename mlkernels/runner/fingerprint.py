"""What a notebook's results depend on, in one number: the same number, the same results."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import mlkernels
from mlkernels.support.provenance import versions

_HERE = Path(mlkernels.__file__).parent
# settings that change results without showing in the source
_ENVIRONMENT = ("MLKERNELS_", "JAX_", "XLA_")
_NOT_RESULTS = (
    "JAX_COMPILATION_CACHE_DIR",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS",
    "XLA_PYTHON_CLIENT_PREALLOCATE",
)


def package_hash(folder: Path = _HERE) -> str:
    """The sha256 over every source file of a package, names included: the same on every machine that has the same
    files.
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

    It is over the cells (not their outputs), the parameters, the package's source, the versions, the environment
    variables that change results (MLKERNELS_*, JAX_*, XLA_*), and the data: checksums as `datasets.fingerprint.files`
    finds them.
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
