"""Networks as pairs of pure functions, init and apply: perceptrons and Conv-4, any parametrisation."""

from mlkernels.networks.conv4 import Conv4
from mlkernels.networks.layers import Apply, Params
from mlkernels.networks.mlp import MLP

__all__ = ["MLP", "Apply", "Conv4", "Params"]
