"""The Meta Neural Tangent Kernel: the inner loop as an operator, the composite kernel, its Jacobian definition.

Everything here is for the half sum of squares, inside and outside: `1/2 ||f - Y||^2` over all points. A loss averaged
over m points is the same with the rate divided by m.
"""

from mlkernels.metantk.composite import adapted_outputs, all_points, analytic_metantk
from mlkernels.metantk.empirical import empirical_metantk
from mlkernels.metantk.operator import adaptation_operator
from mlkernels.metantk.prediction import function_space_step, mode_losses, predict
from mlkernels.metantk.spectrum import Condition, condition_number

__all__ = [
    "Condition",
    "adaptation_operator",
    "adapted_outputs",
    "all_points",
    "analytic_metantk",
    "condition_number",
    "empirical_metantk",
    "function_space_step",
    "mode_losses",
    "predict",
]
