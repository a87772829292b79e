"""The NTK and the NNGP: at infinite width in closed form, at finite width from gradients, both in plain JAX."""

from mlkernels.kernels.empirical import OUTPUTS, empirical_nngp, empirical_ntk, gram
from mlkernels.kernels.infinite import Kernels, infinite_kernels
from mlkernels.kernels.neural_tangents_bridge import by_neural_tangents

__all__ = [
    "OUTPUTS", "Kernels", "by_neural_tangents", "empirical_nngp", "empirical_ntk", "gram",
    "infinite_kernels",
]  # fmt: skip
