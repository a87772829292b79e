"""Search spaces of cells: operations on edges, which of them are open, and the architectures that are left at the end.

A cell has two inputs (the outputs of the two cells before it, 0 and 1) and a few nodes (2, 3, ...). Each node adds up
what comes over its edges, one from every input and every earlier node; the nodes side by side are the cell's output. On
a *super-network's* edge several operations are open, and their outputs are averaged. An architecture, a *genotype*, has
two edges into each node and one operation on each, for the normal cell and for the reduction cell.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import jax
import numpy as np
from jax import Array
from jaxtyping import Bool

from mlkernels.errors import bad_input
from mlkernels.nas.space.genotype import CELL_TYPES, Genotype
from mlkernels.support.arguments import in_short
from mlkernels.support.array_arguments import sizes
from mlkernels.support.typed import typed


@dataclass(frozen=True)
class Space:
    """A search space: operations that an edge may have, and how many nodes a cell has.

    Args:
        name: what `SPACES` calls it.
        operations: names of the candidates, in the order of the gates' last axis.
        nodes: intermediate nodes of a cell, at least 1.

    Example:
        >>> space = SPACES["darts_fewshot"]
        >>> len(space.operations), len(space.edges), space.open_gates().shape
        (7, 9, (2, 9, 7))

    Source: Wang et al. 2022, its code (space "darts_fewshot"); Liu et al. 2019 ("darts").
    """

    name: str
    operations: tuple[str, ...]
    nodes: int

    @cached_property
    def edges(self) -> tuple[tuple[int, int], ...]:
        """`(node, input)` of each edge, node by node; nodes count from 0, inputs from the cell's two inputs."""
        return tuple((node, source) for node in range(self.nodes) for source in range(2 + node))

    @property
    def architectures(self) -> int:
        """How many genotypes there are: at each node two inputs, an operation on each of their edges, in both cells."""
        pairs = math.prod(math.comb(2 + node, 2) for node in range(self.nodes))
        return (pairs * len(self.operations) ** (2 * self.nodes)) ** len(CELL_TYPES)

    @property
    def described(self) -> str:
        """As text, for a file: its name, with its operations too unless it is the one that `SPACES` calls so."""
        known = SPACES.get(self.name) == self
        return self.name if known else f"{self.name}: {self.nodes} nodes of {' '.join(self.operations)}"

    def into(self, node: int) -> tuple[int, ...]:
        """Numbers of the edges into a node."""
        return tuple(number for number, (to, _) in enumerate(self.edges) if to == node)

    @typed
    def open_gates(self) -> Bool[np.ndarray, "2 edges operations"]:
        """All operations open: bool `[cell type, edge, operation]`."""
        return np.ones((len(CELL_TYPES), len(self.edges), len(self.operations)), bool)

    def check_gates(self, gates) -> np.ndarray:
        """Gates as a bool array of this space's shape, or an `InputError`."""
        gates, shape = np.asarray(gates), self.open_gates().shape
        if gates.shape != shape or gates.dtype != bool:
            got = f"{gates.dtype} {list(gates.shape)}"
            raise bad_input("gates", f"bool {list(shape)}", got, f"begin with SPACES[{self.name!r}].open_gates()")
        return gates

    @typed
    def gates_of(self, genotype: Genotype) -> Bool[np.ndarray, "2 edges operations"]:
        """The gates that leave exactly this architecture open; the inverse of `genotype_of`."""
        gates = np.zeros_like(self.open_gates())
        for kind, cell in enumerate((genotype.normal, genotype.reduce)):
            if len(cell) != self.nodes:
                do = f"take a space with {len(cell)} nodes"
                raise bad_input("genotype", f"{self.nodes} nodes a cell", f"{len(cell)}", do)
            for node, chosen in enumerate(cell):
                for operation, source in chosen:
                    if operation not in self.operations or (node, source) not in self.edges:
                        expected = f"operations of {self.name} and inputs before the node"
                        raise bad_input("genotype", expected, f"{operation}<{source} at node {node}", "correct it")
                    gates[kind, self.edges.index((node, source)), self.operations.index(operation)] = True
        return gates

    def genotype_of(self, gates) -> Genotype:
        """The architecture that is left, where every edge has at most one operation and every node two edges."""
        gates = self.check_gates(gates)
        if (gates.sum(-1) > 1).any():
            do = "prune to one operation an edge first"
            raise bad_input("gates", "at most one operation an edge", f"{int(gates.sum(-1).max())} on one", do)
        cells = []
        for kind in gates:
            cell = []
            for node in range(self.nodes):
                live = [edge for edge in self.into(node) if kind[edge].any()]
                if len(live) != 2:
                    raise bad_input("gates", "two edges into each node", f"{len(live)} into node {node}", "prune edges")
                cell.append(tuple((self.operations[int(kind[e].argmax())], self.edges[e][1]) for e in live))
            cells.append(tuple(cell))
        return Genotype(*cells)


SPACES = {
    "darts_fewshot": Space(
        "darts_fewshot",
        (
            "skip_connect",
            "sep_conv_3x3",
            "dil_conv_3x3",
            "avg_pool_3x3BN",
            "max_pool_3x3BN",
            "conv_1x5_5x1",
            "conv_3x3",
        ),
        3,
    ),
    "darts": Space(
        "darts",
        (
            "skip_connect",
            "sep_conv_3x3",
            "sep_conv_5x5",
            "dil_conv_3x3",
            "dil_conv_5x5",
            "avg_pool_3x3",
            "max_pool_3x3",
        ),
        4,
    ),
}


def check_space(space: Space) -> Space:
    """A search space, or an `InputError` that says where one is.

    Example:
        >>> check_space("darts")
        Traceback (most recent call last):
        mlkernels.errors.InputError: space: expected a Space, got 'darts'; give SPACES['darts']
    """
    if not isinstance(space, Space):
        known = isinstance(space, str) and space in SPACES
        do = f"give SPACES[{space!r}]" if known else f"give one of SPACES: {', '.join(SPACES)}"
        raise bad_input("space", "a Space", in_short(space), do)
    return space


def random_genotypes(space: Space, count: int, *, key: Array) -> list[Genotype]:
    """Architectures drawn at random, all different: at each node two inputs, on each of their edges an operation.

    Args:
        space: a search space.
        count: how many.
        key: a key.

    Raises:
        InputError: more than half of all that there are; what is no `Space`.

    Example:
        >>> str(random_genotypes(SPACES["darts_fewshot"], 1, key=jax.random.key(0))[0])[:2]
        'N:'

    Source: notebooks/04_metantk_nas.
    """
    (count,) = sizes(count=count)
    if 2 * count > check_space(space).architectures:
        raise bad_input("count", f"at most half of the {space.architectures} there are", count, "ask for fewer")
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    found: dict[Genotype, None] = {}
    while len(found) < count:
        cells = [
            tuple(
                tuple((str(rng.choice(space.operations)), int(i)) for i in rng.choice(2 + node, 2, replace=False))
                for node in range(space.nodes)
            )
            for _ in range(2)
        ]
        found[Genotype(*cells)] = None
    return list(found)
