"""How the tests' programs are compiled: most of the suite's time goes into that, and next to none into running them.

On a CPU XLA compiles the scores of an architecture in a quarter of the time without LLVM's optimisations and without
its newer emitter of fused loops. What is computed stays the same up to rounding. The notebooks and the browser's tests
compile as a reader does.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

from mlkernels.worker import kernel_environment

SWITCH = "JAX_DISABLE_MOST_OPTIMIZATIONS"  # set to 0 before the tests, they compile as a reader does
FLAG = "--xla_cpu_use_fusion_emitters=false"


def compile_quickly() -> None:
    """Before JAX is imported: for this process and those that it starts, which read what others have compiled."""
    os.environ.update(kernel_environment(Path(__file__).parent.parent))
    if SWITCH not in os.environ:
        os.environ[SWITCH] = "1"
        if version("jaxlib").startswith("0.10."):  # XLA ends at a flag that it does not know, as from 0.11 on
            os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {FLAG}".strip()


def as_a_reader(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """A copy without what `compile_quickly` has set."""
    flags = environment.get("XLA_FLAGS", "").replace(FLAG, "").strip()
    kept = {name: value for name, value in environment.items() if name not in (SWITCH, "XLA_FLAGS")}
    return kept | ({"XLA_FLAGS": flags} if flags else {})
