"""Settings of a search."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property, partial

import jax
from jax import Array

from mlkernels.errors import bad_input
from mlkernels.kernels import OUTPUTS
from mlkernels.nas.engine.weights import INITIALISATIONS
from mlkernels.nas.scores.kernel_scores import ALGORITHMS
from mlkernels.nas.scores.registry import SCORES
from mlkernels.nas.searching.ranking import log_change, relative_change
from mlkernels.nas.space.layout import Layout
from mlkernels.support.arguments import number, one_of, whole

CONDITION_NUMBERS = ("metantk", "ntk")
DESIGNS = ("published", "roles", "derivative")
PASSES = 6  # a derivative costs about as much as so many networks that are scored (benchmarks/nas_designs.py)
CONDITIONS = (*CONDITION_NUMBERS, *(name for name in SCORES if name not in (*CONDITION_NUMBERS, "regions")), "none")


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
        condition: the score that candidates are ranked by beside the regions. The condition number of the "metantk" or
            of the plain "ntk", another one of `SCORES`, or "none".
        regions: whether they are ranked by linear regions too.
        shot, queries, tasks: of the batch of tasks; their way is the layout's.
        region_batches, region_images: of 3x3 patches for the regions.
        initialisation: as in `weights.init`.
        dtype: "float32", or "float64" in 64-bit JAX, of the networks; kernels are added up in float64 always.
        design: how candidates are compared, "published", "roles" or "derivative". The first scores the network without
            each, in every repeat. The others are this course's own. "roles" does so too, but takes the mean of the
            logarithm of the condition number over many ways to make support and queries of the same images, which costs
            next to nothing. "derivative" has the changes by all operations to first order from one derivative, but for
            how ReLUs change their states, so that a repeat's time is spent on many draws of weights and images; edges
            are scored as with "roles".
        reference_quirks: do as the published code does where it is careless. The table says where.

    | quirk                                       | effect                                              | reproduced |
    |---------------------------------------------|-----------------------------------------------------|------------|
    | asks for an initialisation of unknown name  | a round's repeats share weights, all edge rounds do | yes        |
    | new tasks and patches for each candidate    | the unpruned network is scored again beside each    | yes        |
    | a new head for each network (MetaNTK)       | the two that are compared differ in it, too         | yes        |
    | new thin weights for each candidate         | regions of candidates are of different networks     | yes        |
    | edges are closed in the origin at the end   | condition numbers (not regions) of later nodes are  | yes        |
    |                                             | compared with one that has edges that are gone      |            |
    | eigenvalues are divided blindly             | NaN is 1e5; a negative one makes the best of all    | yes        |
    | features that are all zero are an error     | 1e5 without normalisation, else the search stops    | always 1e5 |
    | 1000 episodes, each fixed by its number     | the same tasks may come back                        | no         |
    | kernels and eigenvalues in float32          | the sign of a singular kernel's last one is chance  | no         |
    | regions added up as float32 fractions       | a count is whole but for rounding                   | no         |

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
    design: str = "published"
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
            ("design", DESIGNS),
        ):
            one_of(name, getattr(self, name), known)
        if self.condition == "none" and not self.regions:
            raise bad_input("condition", "a score to rank by", "none, and no regions", "rank by one of them at least")
        if self.design != "published":
            self._check_design()
        least = dict.fromkeys(("repeats", "precision", "shot", "queries", "tasks", "region_batches"), 1)
        for name, low in (least | {"seed": 0, "region_images": 2}).items():
            object.__setattr__(self, name, whole(name, getattr(self, name), low, do="correct it"))
        for name in ("inner_time", "ridge"):
            number(name, getattr(self, name), infinite=name == "inner_time", do="correct it")

    def _check_design(self) -> None:
        """It is of a condition number of the sum of outputs; the published code knows no such thing."""
        for name, known in (("condition", CONDITION_NUMBERS), ("outputs", ("sum",)), ("reference_quirks", (False,))):
            if getattr(self, name) not in known:
                do = "leave it at its default, or take the published design"
                expected = f"{' or '.join(map(str, known))} with the design {self.design}"
                raise bad_input(name, expected, getattr(self, name), do)

    @property
    def larger(self) -> bool:
        """Whether of `condition` the larger value is the better one."""
        return self.condition not in CONDITION_NUMBERS

    def change(self, score: str) -> Callable[[float, float], float]:
        """How the change of a score, "condition" or "regions", is counted: `relative_change` of it.

        With another design than the published one it is the fall of the logarithm, of which the mean is taken.
        """
        if self.design != "published" and score == "condition":
            return log_change
        larger = self.larger and score == "condition"
        return partial(relative_change, larger=larger, blind=self.reference_quirks)

    @property
    def key(self) -> Array:
        """The key from which all others follow."""
        return jax.random.key(self.seed)

    @cached_property
    def candidates(self) -> tuple[int, ...]:
        """How many candidates each round has: of operations while an edge has two, then of edges, a node a round."""
        space = self.layout.space
        operations, edges = len(space.operations), 2 * len(space.edges)
        nodes = [2 + node for _ in range(2) for node in range(1, space.nodes)]
        return (*(edges * left for left in range(operations, 1, -1)), *nodes)

    @property
    def edge_round(self) -> int:
        """The first round in which edges go, counted from 1."""
        return len(self.layout.space.operations)

    @cached_property
    def draws(self) -> tuple[int, ...]:
        """How often weights and images are drawn in each round: the repeats, or derivatives that cost as much."""
        most = self.edge_round - 1 if self.design == "derivative" else 0
        return tuple(
            self.repeats * (max(1, (n + 1) // PASSES) if number < most else 1)
            for number, n in enumerate(self.candidates)
        )

    @property
    def evaluations(self) -> tuple[int, ...]:
        """How many networks are scored in each round, the unpruned one and the repeats counted.

        A derivative counts as all networks that it says something about.
        """
        extra = (lambda n: 2 * n) if self.reference_quirks else (lambda n: n + 1)
        return tuple(draws * extra(n) for draws, n in zip(self.draws, self.candidates, strict=True))

    @property
    def cost(self) -> tuple[int, ...]:
        """What each round costs, in networks that are scored: `evaluations`, but for derivatives.

        Linear regions are counted for every network all the same; that is left out here.
        """
        first = self.edge_round - 1 if self.design == "derivative" else 0
        return tuple(
            self.draws[number] * PASSES if number < first else count for number, count in enumerate(self.evaluations)
        )

    def described(self) -> dict:
        """As plain values, for a file."""
        layout = asdict(self.layout) | {"space": self.layout.space.described}
        own = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "layout"}
        return layout | own
