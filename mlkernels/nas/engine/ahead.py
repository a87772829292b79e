"""The programs of a pass, compiled before it, several at a time: on an accelerator a first pass is mostly compilation.

Blocks are compiled one after the other as a pass comes to them, which leaves all cores of the host but one idle.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import jax

from mlkernels.nas.engine.operations import asked_for, program


def compile_ahead(function: Callable, *arrays) -> int:
    """Compile the blocks that `function(*arrays)` will run on one accelerator; how many programs those are.

    The function is traced, so that nothing is computed. JAX then finds the programs by what goes into them. One that
    cannot be compiled is left to the pass, which says so when it comes to it. (On a CPU blocks with large arrays take
    their samples in chunks: theirs are other programs.)

    Args:
        function: of arrays, which calls `operations.jitted`.
        *arrays: pytrees of arrays, or of their shapes.

    Example:
        >>> import jax.numpy as jnp
        >>> from mlkernels.nas.engine.operations import forward
        >>> from mlkernels.nas.space.blocks import Relu
        >>> compile_ahead(lambda x: forward((Relu(),), (), x), jnp.ones((1, 2, 2, 1)))
        1
    """
    with asked_for() as programs:
        jax.eval_shape(function, *arrays)
    backend = jax.default_backend()
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # lowered here: what JAX is set to may be this thread's alone
        lowered = (program(function, backend).lower(*given) for function, given in programs.values())
        compiled = [pool.submit(each.compile) for each in lowered]
    return sum(each.exception() is None for each in compiled)
