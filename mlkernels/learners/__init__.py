"""Meta-learners as pure functions over `(init, apply)`: `maml` in parameter space, `rkhs` and `function_space` by
kernels, of the NTK alone and of others, `few_iterations` by a head; and what is known about them.

`anil` writes the meta-gradient out, `curvature` measures what its inner loop's geometry is, `cost` counts what an outer
step takes, `moments` looks at a meta-gradient's noise, `similarity` at how much features change, `layer_masks` asks
which layers are worth adapting, `attacks` moves inputs to where a learner errs; `fit_and_measure` is `maml.fit` with
measurements on the way. `outer_weights` says how much each task counts in an outer step, `memory` lets the outer loop
remember what each task was adapted to. `bilevel` sees them all as one problem, with five ways to its gradient.
"""

from mlkernels.learners import (
    anil,
    attacks,
    bilevel,
    cost,
    curvature,
    few_iterations,
    function_space,
    layer_masks,
    maml,
    memory,
    moments,
    outer_weights,
    rkhs,
    similarity,
)
from mlkernels.learners.outer_loop.history import History, fit_and_measure

__all__ = [
    "History",
    "anil",
    "attacks",
    "bilevel",
    "cost",
    "curvature",
    "few_iterations",
    "fit_and_measure",
    "function_space",
    "layer_masks",
    "maml",
    "memory",
    "moments",
    "outer_weights",
    "rkhs",
    "similarity",
]
