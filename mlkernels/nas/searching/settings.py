"""Settings of a search."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property

import jax
from jax import Array

from mlkernels.errors import bad_input
from mlkernels.kernels import OUTPUTS
from mlkernels.nas.engine.weights import INITIALISATIONS
from mlkernels.nas.scores.kernel_scores import ALGORITHMS
from mlkernels.nas.space.layout import Layout
from mlkernels.support.arguments import number, one_of, whole

CONDITIONS = ("metantk", "ntk", "none")


@dataclass(frozen=True)
class SearchSettings:
    """Settings of a search; the defaults are those of the published search on miniImageNet with five cells.

    Args:
        layout: the super-network, with group normalisation.
        algorithm: "maml" or "anil": the kernel in which the inner loop moves.
        inner_time: rate times steps of the inner loop; infinity allowed.
        ridge: added to the inner kernel in the inverse, on the scale of that kernel.
        seed: everything that is random follows from it.
        repeats: how often each candidate is scored, with other weights and images each time.
        precision: digits that changes are rounded to, in the ranks.
        outputs: "sum", "trace" or "full": how gradients of several outputs make a kernel.
        condition: the condition number that candidates are ranked by: of the "metantk", the plain "ntk", or "none".
        regions: whether they are ranked by linear regions too.
        shot, queries, tasks: of the batch of tasks; their way is the layout's.
        region_batches, region_images: of 3x3 patches for the regions.
        initialisation: as in `weights.init`.
        dtype: "float32", or "float64" in 64-bit JAX, of the networks; kernels are added up in float64 always.
        reference_quirks: do as the published code does where it is careless. The weights then stay the same in all of
            a round's repeats; each candidate has images of its own, on which the unpruned network is scored again; a
            condition number of a spectrum that has none is 1e5 if it is NaN and negative, so the best, if an eigenvalue
            is.

    Raises:
        InputError: a setting out of its range.

    Example:
        >>> settings = SearchSettings(Layout(channels=8, pixels=16), seed=3)
        >>> settings.inner_time, settings.candidates[0]
        (inf, 126)

    Source: Wang et al. 2022, its code.
    """

    layout: Layout = field(default_factory=Layout)
    algorithm: str = "maml"
    inner_time: float = math.inf
    ridge: float = 1e-3
    seed: int = 0
    repeats: int = 3
    precision: int = 3
    outputs: str = "sum"
    condition: str = "metantk"
    regions: bool = True
    shot: int = 1
    queries: int = 1
    tasks: int = 3
    region_batches: int = 3
    region_images: int = 1000
    initialisation: str = "uniform"
    dtype: str = "float32"
    reference_quirks: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.layout, Layout) or self.layout.norm != "group" or self.layout.depth is not None:
            raise bad_input("layout", "a whole Layout with group normalisation", self.layout, "make one: nas.Layout()")
        one_of("outputs", self.outputs, OUTPUTS)
        for name, known in (
            ("algorithm", ALGORITHMS),
            ("condition", CONDITIONS),
            ("initialisation", INITIALISATIONS),
            ("dtype", ("float32", "float64")),
        ):
            one_of(name, getattr(self, name), known)
        if self.condition == "none" and not self.regions:
            raise bad_input("condition", "a score to rank by", "none, and no regions", "rank by one of them at least")
        least = dict.fromkeys(("repeats", "precision", "shot", "queries", "tasks", "region_batches"), 1)
        for name, low in (least | {"seed": 0, "region_images": 2}).items():
            object.__setattr__(self, name, whole(name, getattr(self, name), low, do="correct it"))
        for name in ("inner_time", "ridge"):
            number(name, getattr(self, name), infinite=name == "inner_time", do="correct it")

    @property
    def key(self) -> Array:
        """The key from which all others follow."""
        return jax.random.key(self.seed)

    @cached_property
    def candidates(self) -> tuple[int, ...]:
        """How many candidates each round has, if every edge keeps to one operation a round; the last is of edges."""
        space = self.layout.space
        operations, edges = len(space.operations), 2 * len(space.edges)
        spare = 2 * sum(2 + node for node in range(1, space.nodes))
        return (*(edges * left for left in range(operations, 1, -1)), *([spare] if spare else []))

    @property
    def evaluations(self) -> tuple[int, ...]:
        """How many networks are scored in each round, the unpruned one and the repeats counted."""
        extra = (lambda n: 2 * n) if self.reference_quirks else (lambda n: n + 1)
        return tuple(self.repeats * extra(n) for n in self.candidates)

    def described(self) -> dict:
        """As plain values, for a file."""
        layout = asdict(self.layout) | {"space": self.layout.space.described}
        own = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "layout"}
        return layout | own
