"""MetaNTK-NAS: the search space, the super-network, training-free scores, the search over them, and what comes after.

`search` finds an architecture, `train` trains it on the base classes, `evaluate` classifies few-shot episodes with it.
"""

from mlkernels.nas.engine.gram import sample_kernels
from mlkernels.nas.engine.network import Network
from mlkernels.nas.engine.operations import run_block
from mlkernels.nas.engine.weights import head as init_head
from mlkernels.nas.engine.weights import init
from mlkernels.nas.evaluation.compare import (
    Spread,
    agreement,
    agreement_gain,
    repeatability,
    score_spread,
    trained_accuracies,
)
from mlkernels.nas.evaluation.evaluate import Evaluated, evaluate, pixels_of
from mlkernels.nas.evaluation.reliability import (
    chance_tau,
    draws_for,
    expected_tau,
    log_changes,
    share_between,
    tau_of_halves,
    variance_components,
)
from mlkernels.nas.pictures.search_images import search_tasks
from mlkernels.nas.scores.kernel_scores import condition_score, metantk_score, score_of
from mlkernels.nas.scores.registry import SCORES, Draw
from mlkernels.nas.scores.training_free import ScoreSettings, training_free_scores
from mlkernels.nas.scores.zero_cost import log_determinant, relu_codes, spectral_entropy, synflow
from mlkernels.nas.searching.estimate import estimate, round_flops
from mlkernels.nas.searching.ranking import dense_ranks
from mlkernels.nas.searching.retrospect import Calls, close_calls, compared, in_common, survivors
from mlkernels.nas.searching.search import Found, replay, rule_of, search
from mlkernels.nas.searching.settings import SearchSettings
from mlkernels.nas.space.genotype import CELL_TYPES, SHORT, Genotype
from mlkernels.nas.space.layout import Layout, flop_count, parameter_count
from mlkernels.nas.space.published import PUBLISHED
from mlkernels.nas.space.search_space import SPACES, Space, random_genotypes
from mlkernels.nas.training.train import Trained, TrainSettings, load_trained, train

__all__ = [
    "CELL_TYPES", "PUBLISHED", "SCORES", "SHORT", "SPACES", "Calls", "Draw", "Evaluated", "Found", "Genotype",
    "Layout", "Network", "ScoreSettings", "SearchSettings", "Space", "Spread", "TrainSettings", "Trained",
    "agreement", "agreement_gain", "chance_tau", "close_calls", "compared", "condition_score", "dense_ranks",
    "draws_for", "estimate", "evaluate", "expected_tau", "flop_count", "in_common", "init", "init_head",
    "load_trained", "log_changes", "log_determinant", "metantk_score", "parameter_count", "pixels_of",
    "random_genotypes", "relu_codes", "repeatability", "replay", "round_flops", "rule_of", "run_block",
    "sample_kernels", "score_of", "score_spread", "search", "search_tasks", "share_between", "spectral_entropy",
    "survivors", "synflow", "tau_of_halves", "train", "trained_accuracies", "training_free_scores",
    "variance_components",
]  # fmt: skip
