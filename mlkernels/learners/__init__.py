"""Meta-learners in parameter space, as pure functions over `(init, apply)`: `maml`; and what is known about them.

`anil` writes the meta-gradient out, `curvature` measures what its inner loop's geometry is, `cost` counts what an outer
step takes, `similarity` how much features change.
"""

from mlkernels.learners import anil, cost, curvature, maml, similarity

__all__ = ["anil", "cost", "curvature", "maml", "similarity"]
