"""The NTK and the NNGP: at infinite width in closed form, at finite width from gradients, both in plain JAX."""

from mlkernels.kernels.by_neural_tangents import by_neural_tangents
from mlkernels.kernels.empirical import OUTPUTS, check_outputs, empirical_nngp, empirical_ntk, gram
from mlkernels.kernels.infinite import Kernels, infinite_kernels

__all__ = [
    "OUTPUTS", "Kernels", "by_neural_tangents", "check_outputs", "empirical_nngp", "empirical_ntk", "gram",
    "infinite_kernels",
]  # fmt: skip
