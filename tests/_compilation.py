"""How the tests' programs are compiled: most of the suite's time goes into that, and next to none into running them.

They are not worth optimising: without LLVM's optimisations compiling takes about 40 % less, and in XLA's older way of
compiling fusions half of the rest. jaxlib 0.10 has a flag for that; one that does not know a flag stops. The notebooks,
run or in the browser, are compiled as a reader has them.
`JAX_DISABLE_MOST_OPTIMIZATIONS=0 XLA_FLAGS=--xla_cpu_use_fusion_emitters=true make test` compiles all tests so.
"""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Mapping
from pathlib import Path

from mlkernels.runner.worker import kernel_environment

SWITCH = "JAX_DISABLE_MOST_OPTIMIZATIONS"
FLAGS = "XLA_FLAGS"
OLDER_FUSIONS = "--xla_cpu_use_fusion_emitters=false"


def compile_quickly() -> None:
    """Before JAX is imported: for this process and those that it starts, which read what others have compiled."""
    os.environ.update(kernel_environment(Path(__file__).parent.parent))
    os.environ.setdefault(SWITCH, "1")
    flags = os.environ.get(FLAGS, "")
    if OLDER_FUSIONS.split("=")[0] not in flags and importlib.metadata.version("jaxlib").startswith("0.10."):
        os.environ[FLAGS] = f"{flags} {OLDER_FUSIONS}".strip()


def as_a_reader(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """A copy without the switch and the flag."""
    copy = {name: value for name, value in environment.items() if name not in (SWITCH, FLAGS)}
    flags = [flag for flag in environment.get(FLAGS, "").split() if flag != OLDER_FUSIONS]
    return {**copy, FLAGS: " ".join(flags)} if flags else copy
