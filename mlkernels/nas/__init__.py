"""MetaNTK-NAS: the search space, the super-network, training-free scores, and the search over them."""

from mlkernels.nas.cost import flop_count, parameter_count
from mlkernels.nas.layout import Layout
from mlkernels.nas.search import Found, Progress, replay, search
from mlkernels.nas.settings import SearchSettings
from mlkernels.nas.space import CELL_TYPES, SPACES, Genotype, Space

__all__ = [
    "CELL_TYPES",
    "SPACES",
    "Found",
    "Genotype",
    "Layout",
    "Progress",
    "SearchSettings",
    "Space",
    "flop_count",
    "parameter_count",
    "replay",
    "search",
]
