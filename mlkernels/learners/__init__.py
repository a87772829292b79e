"""Meta-learners in parameter space, as pure functions over `(init, apply)`: `maml`."""

from mlkernels.learners import maml

__all__ = ["maml"]
