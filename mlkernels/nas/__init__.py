"""MetaNTK-NAS: the search space, the super-network, training-free scores, the search over them, and what comes after.

`search` finds an architecture, `train` trains it on the base classes, `evaluate` classifies few-shot episodes with it.
"""

from mlkernels.nas.cost import flop_count, parameter_count
from mlkernels.nas.evaluate import Evaluated, evaluate, pixels_of
from mlkernels.nas.layout import Layout
from mlkernels.nas.network import Network
from mlkernels.nas.search import Found, Progress, replay, search
from mlkernels.nas.settings import SearchSettings
from mlkernels.nas.space import CELL_TYPES, SPACES, Genotype, Space
from mlkernels.nas.train import Trained, TrainProgress, TrainSettings, load_trained, train

__all__ = [
    "CELL_TYPES",
    "SPACES",
    "Evaluated",
    "Found",
    "Genotype",
    "Layout",
    "Network",
    "Progress",
    "SearchSettings",
    "Space",
    "TrainProgress",
    "TrainSettings",
    "Trained",
    "evaluate",
    "flop_count",
    "load_trained",
    "parameter_count",
    "pixels_of",
    "replay",
    "search",
    "train",
]
