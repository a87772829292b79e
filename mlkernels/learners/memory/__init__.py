"""Learners that remember: one set of adapted parameters for each task, or for each local round (MOML, LocalMOML).

A `Memory` or a `LocalMemory` stands beside the inner loop in `maml.fit(..., memory=...)`; what comes of it is adapted
and judged as any other.
"""

from mlkernels.learners.memory.local import local_copies, local_direction
from mlkernels.learners.memory.settings import LocalMemory, Memory
from mlkernels.learners.memory.stored import meta_gradient, start

__all__ = ["LocalMemory", "Memory", "local_copies", "local_direction", "meta_gradient", "start"]
