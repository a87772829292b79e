"""Fast adaptation in function space: a task's predictor is the network plus a function of a kernel's space.

`FunctionSpace` takes the place of an `InnerLoop` in `maml.meta_loss`, `maml.meta_gradient` and `maml.fit`.
"""

from mlkernels.learners.function_space.closed_form import Adapted, FunctionSpace, adapt, leave_one_out, predictor
from mlkernels.learners.function_space.kernel import NTK, RBF, Cosine, Linear

__all__ = ["NTK", "RBF", "Adapted", "Cosine", "FunctionSpace", "Linear", "adapt", "leave_one_out", "predictor"]
