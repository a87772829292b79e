"""Few iterations: a task's head is fitted by a few steps of steepest descent, each as long as is best along it.

`FewIterations` takes the place of an `InnerLoop` in `maml.meta_loss`, `maml.meta_gradient` and `maml.fit`. `descend`,
`ridge_head` and `head_loss` are the same on features alone, without a network.
"""

from mlkernels.learners.few_iterations.descent import Descent, descend, head_loss, ridge_head
from mlkernels.learners.few_iterations.learner import Adapted, adapt, predictor
from mlkernels.learners.few_iterations.settings import FewIterations

__all__ = ["Adapted", "Descent", "FewIterations", "adapt", "descend", "head_loss", "predictor", "ridge_head"]
