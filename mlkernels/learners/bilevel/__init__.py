"""One bilevel problem behind many methods, and five ways to its hypergradient.

`bilevel` solves the inner problem by descent and differentiates; `Adaptation` and `Ridge` put meta-learning and ridge
tuning in its form. `stochastic` replaces the inner minimum by a distribution, `step_size` tunes the rate of descent on
quadratics.
"""

from mlkernels.learners.bilevel import step_size, stochastic
from mlkernels.learners.bilevel.hypergradient import WAYS, Hypergradient, bilevel
from mlkernels.learners.bilevel.instances import Adaptation, Ridge

__all__ = ["WAYS", "Adaptation", "Hypergradient", "Ridge", "bilevel", "step_size", "stochastic"]
