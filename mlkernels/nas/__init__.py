"""MetaNTK-NAS: the search space, the super-network, training-free scores, the search over them, and what comes after.

`search` finds an architecture, `train` trains it on the base classes, `evaluate` classifies few-shot episodes with it.
"""

from mlkernels.nas.engine.network import Network
from mlkernels.nas.evaluation.evaluate import Evaluated, evaluate, pixels_of
from mlkernels.nas.searching.search import Found, Progress, replay, search
from mlkernels.nas.searching.settings import SearchSettings
from mlkernels.nas.space.cost import flop_count, parameter_count
from mlkernels.nas.space.layout import Layout
from mlkernels.nas.space.search_space import CELL_TYPES, SPACES, Genotype, Space
from mlkernels.nas.training.train import Trained, TrainProgress, TrainSettings, load_trained, train

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
