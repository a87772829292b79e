"""Every training-free score by its name: a function of one draw of weights and images, and of the gates."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

import jax
import numpy as np
from jax import Array

from mlkernels.kernels import Kernels
from mlkernels.metantk import all_points
from mlkernels.nas.engine.gram import sample_kernels
from mlkernels.nas.scores.kernel_scores import gradient_norm, score_of
from mlkernels.nas.scores.regions import linear_regions
from mlkernels.nas.scores.zero_cost import log_determinant, relu_codes, spectral_entropy, synflow
from mlkernels.nas.space.layout import Layout, flop_count, parameter_count
from mlkernels.tasks import TaskBatch


@dataclass
class Draw:
    """One draw of weights and images, on which networks are scored; what a score does not look at may be None.

    Attributes:
        layout, params, tasks: the super-network, its weights, a batch of tasks.
        thin, thin_params, patches: the same for the linear regions, with batches of patches.
        luck: a key, for the score that knows nothing.
        inner_loop: algorithm, inner time and ridge of the MetaNTK, as in `kernel_scores.score_of`.

    Example:
        >>> layout = Layout(channels=1, pixels=4, depth=1)
        >>> gates = layout.space.open_gates()
        >>> SCORES["FLOPs"](Draw(layout, {}, None), gates) == flop_count(layout, gates)
        True

    Source: notebooks/04_metantk_nas.
    """

    layout: Layout
    params: dict
    tasks: TaskBatch
    thin: Layout | None = None
    thin_params: dict | None = None
    patches: Array | None = None
    luck: Array | None = None
    inner_loop: dict = field(default_factory=dict)
    _last: tuple[bytes, Kernels] | None = None

    def kernels(self, gates) -> Kernels:
        """Kernels of the network over all images of the tasks; those of the last gates are kept."""
        own = np.packbits(gates).tobytes()
        if self._last is None or self._last[0] != own:
            self._last = own, sample_kernels(self.layout, self.params, gates, all_points(self.tasks))
        return self._last[1]


def _minus_log_condition(draw: Draw, gates, **inner_loop) -> float:
    precision = draw.params["head"][0].dtype
    return -math.log(score_of(draw.kernels(gates), draw.tasks, precision=precision, **inner_loop).value)


def _random(draw: Draw, gates) -> float:
    own = zlib.crc32(np.packbits(gates).tobytes())
    return float(jax.random.uniform(jax.random.fold_in(draw.luck, own)))


Score = Callable[[Draw, np.ndarray], float]
SCORES: dict[str, Score] = {  # each turned so that larger is held to be better
    "metantk": lambda draw, gates: _minus_log_condition(draw, gates, **draw.inner_loop),
    "ntk": lambda draw, gates: _minus_log_condition(draw, gates, algorithm="none"),
    "regions": lambda draw, gates: linear_regions(draw.thin, draw.thin_params, gates, draw.patches),
    "entropy": lambda draw, gates: spectral_entropy(draw.kernels(gates).ntk),
    "naswot": lambda draw, gates: log_determinant(relu_codes(draw.layout, draw.params, gates, all_points(draw.tasks))),
    "synflow": lambda draw, gates: synflow(draw.layout, draw.params, gates),
    "gradient norm": lambda draw, gates: gradient_norm(draw.layout, draw.params, gates, draw.tasks),
    "parameters": lambda draw, gates: parameter_count(draw.layout, gates),
    "FLOPs": lambda draw, gates: flop_count(draw.layout, gates),
    "random": _random,  # what every score has to beat
}
