"""How the tests' programs are compiled: most of the suite's time goes into that, and next to none into running them.

They are not worth optimising: without LLVM's optimisations compiling takes about 40 % less. The notebooks, run or in
the browser, are compiled as a reader has them. `JAX_DISABLE_MOST_OPTIMIZATIONS=0 make test` compiles all tests so.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from mlkernels.worker import kernel_environment

SWITCH = "JAX_DISABLE_MOST_OPTIMIZATIONS"


def compile_quickly() -> None:
    """Before JAX is imported: for this process and those that it starts, which read what others have compiled."""
    os.environ.update(kernel_environment(Path(__file__).parent.parent))
    os.environ.setdefault(SWITCH, "1")


def as_a_reader(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """A copy without the switch."""
    return {name: value for name, value in environment.items() if name != SWITCH}
