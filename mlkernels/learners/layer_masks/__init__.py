"""Which layers to update in each inner step: all masks of a network's layers, what they are worth and what they cost.

`scores` runs many masks in one program, `layer_costs` counts what each costs from a few, `pareto_front` and `fastest`
choose.
"""

from mlkernels.learners.layer_masks.costs import (
    CostByDepth,
    LayerCosts,
    cost_by_depth,
    layer_costs,
    measured_seconds,
)
from mlkernels.learners.layer_masks.front import fastest, pareto_front
from mlkernels.learners.layer_masks.masks import all_masks, deepest, layers_of
from mlkernels.learners.layer_masks.scores import scores

__all__ = [
    "CostByDepth",
    "LayerCosts",
    "all_masks",
    "cost_by_depth",
    "deepest",
    "fastest",
    "layer_costs",
    "layers_of",
    "measured_seconds",
    "pareto_front",
    "scores",
]
