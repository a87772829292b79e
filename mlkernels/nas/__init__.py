"""MetaNTK-NAS: the search space, the super-network, training-free scores, the search over them, and what comes after.

`search` finds an architecture, `train` trains it on the base classes, `evaluate` classifies few-shot episodes with it.
"""

from mlkernels.nas.engine.gram import sample_kernels
from mlkernels.nas.engine.network import Network
from mlkernels.nas.engine.operations import run_block
from mlkernels.nas.engine.weights import init
from mlkernels.nas.evaluation.evaluate import Evaluated, evaluate, pixels_of
from mlkernels.nas.pictures.search_images import search_tasks
from mlkernels.nas.scores.kernel_scores import condition_score, metantk_score, score_of, task_images
from mlkernels.nas.searching.search import Found, Progress, replay, search
from mlkernels.nas.searching.settings import SearchSettings
from mlkernels.nas.space.cost import flop_count, parameter_count
from mlkernels.nas.space.layout import Layout
from mlkernels.nas.space.search_space import CELL_TYPES, SHORT, SPACES, Genotype, Space, random_genotypes
from mlkernels.nas.training.train import Trained, TrainProgress, TrainSettings, load_trained, train

__all__ = [
    "CELL_TYPES", "SHORT", "SPACES", "Evaluated", "Found", "Genotype", "Layout", "Network", "Progress",
    "SearchSettings", "Space", "TrainProgress", "TrainSettings", "Trained", "condition_score", "evaluate", "flop_count",
    "init", "load_trained", "metantk_score", "parameter_count", "pixels_of", "random_genotypes", "replay", "run_block",
    "sample_kernels", "score_of", "search", "search_tasks", "task_images", "train",
]  # fmt: skip
