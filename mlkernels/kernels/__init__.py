"""The NTK and the NNGP: at infinite width from neural-tangents, at finite width from gradients in plain JAX."""

from mlkernels.kernels.empirical import OUTPUTS, check_outputs, empirical_nngp, empirical_ntk, gram
from mlkernels.kernels.infinite import Kernels, infinite_kernels

__all__ = ["OUTPUTS", "Kernels", "check_outputs", "empirical_nngp", "empirical_ntk", "gram", "infinite_kernels"]
