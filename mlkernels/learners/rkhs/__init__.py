"""Meta-learning in the RKHS of the NTK: `Regularised` (Meta-RKHS-I) and `ClosedForm` (Meta-RKHS-II).

Both take the place of an `InnerLoop` in `maml.meta_loss`, `maml.meta_gradient` and `maml.fit`.
"""

from mlkernels.learners.rkhs.closed_form import Adapted, ClosedForm, adapt, predict, predictor
from mlkernels.learners.rkhs.flow import flow_operator
from mlkernels.learners.rkhs.regularised import Regularised

__all__ = ["Adapted", "ClosedForm", "Regularised", "adapt", "flow_operator", "predict", "predictor"]
