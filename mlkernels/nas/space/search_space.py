"""Search spaces of cells: operations on edges, which of them are open, and the architectures that are left at the end.

A cell has two inputs (the outputs of the two cells before it, 0 and 1) and a few nodes (2, 3, ...). Each node adds up
what comes over its edges, one from every input and every earlier node; the nodes side by side are the cell's output. On
a *super-network's* edge several operations are open, and their outputs are averaged. An architecture, a *genotype*, has
two edges into each node and one operation on each, for the normal cell and for the reduction cell.
"""

from __future__ import annotations

import ast
import math
from dataclasses import dataclass
from functools import cached_property

import jax
import numpy as np
from jax import Array
from jaxtyping import Bool

from mlkernels.errors import InputError, bad_input
from mlkernels.support.array_arguments import sizes
from mlkernels.support.typed import typed

CELL_TYPES = ("normal", "reduce")
SHORT = {
    "skip_connect": "sk",
    "sep_conv_3x3": "s3",
    "sep_conv_5x5": "s5",
    "dil_conv_3x3": "d3",
    "dil_conv_5x5": "d5",
    "conv_3x3": "c3",
    "conv_1x5_5x1": "f5",
    "avg_pool_3x3BN": "ap",
    "max_pool_3x3BN": "mp",
    "avg_pool_3x3": "a3",
    "max_pool_3x3": "m3",
    "zeros": "zs",  # this and the next in no space: what a search must not choose
    "ones": "on",
}
_LONG = {short: name for name, short in SHORT.items()}


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


@dataclass(frozen=True)
class Genotype:
    """An architecture: for both cell types and each node, its two `(operation, input)` pairs.

    Args:
        normal, reduce: a tuple with one entry a node, each two `(operation, input)` pairs of different inputs, kept in
            the inputs' order; inputs 0 and 1 are the two cells before, 2 and up the nodes of the cell.

    Raises:
        InputError: an unknown operation, an input that is not before its node, a node without two different inputs.

    Example:
        >>> genotype = Genotype.parse("N: s3<0 s3<1 | s3<1 mp<2 R: sk<0 s3<1 | f5<1 d3<2")
        >>> genotype.reduce[0]
        (('skip_connect', 0), ('sep_conv_3x3', 1))
        >>> Genotype.parse(repr(genotype)) == Genotype.parse(str(genotype)) == genotype
        True

    Source: Liu et al. 2019, for the notation `Genotype(normal=[('sep_conv_3x3', 0), ...], normal_concat=...)`.
    """

    normal: tuple[tuple[tuple[str, int], ...], ...]
    reduce: tuple[tuple[tuple[str, int], ...], ...]

    def __post_init__(self) -> None:
        if len(self.normal) != len(self.reduce) or not self.normal:
            got = f"{len(self.normal)} and {len(self.reduce)}"
            raise bad_input("genotype", "as many nodes in the normal as in the reduction cell", got, "correct it")
        for name in CELL_TYPES:
            cell = tuple(tuple(sorted(map(tuple, chosen), key=lambda pair: pair[1])) for chosen in getattr(self, name))
            for node, chosen in enumerate(cell):
                _check_node(node, chosen)
            object.__setattr__(self, name, cell)

    @property
    def nodes(self) -> int:
        """Nodes of a cell."""
        return len(self.normal)

    @property
    def file_name(self) -> str:
        """The short notation as a name that every file system takes: an underscore for all but letters and digits."""
        return "".join(sign if sign.isalnum() else "_" for sign in str(self))

    @classmethod
    def parse(cls, text: str) -> Genotype:
        """Read either notation: the published one, as `repr` writes it, or the short one of `str`.

        Raises:
            InputError: text that is neither.
        """
        text = text.strip()
        try:
            return cls(*(_parse_published if text.startswith("Genotype") else _parse_short)(text))
        except InputError:
            raise
        except (SyntaxError, KeyError, TypeError, IndexError, AttributeError, ValueError) as error:
            expected = "Genotype(normal=[('sep_conv_3x3', 0), ...], ...) or 'N: s3<0 s3<1 | ... R: ...'"
            got = text[:80] + ("..." if len(text) > 80 else "")
            do = f"mend it: {error}" if isinstance(error, SyntaxError) else "write it in one of these notations"
            raise bad_input("genotype", expected, repr(got), do) from None

    def __str__(self) -> str:
        normal, reduce = (
            " | ".join(" ".join(f"{SHORT[op]}<{source}" for op, source in chosen) for chosen in cell)
            for cell in (self.normal, self.reduce)
        )
        return f"N: {normal} R: {reduce}"

    def __repr__(self) -> str:
        flat = [[pair for chosen in cell for pair in chosen] for cell in (self.normal, self.reduce)]
        concat = list(range(2, 2 + self.nodes))
        return f"Genotype(normal={flat[0]}, normal_concat={concat}, reduce={flat[1]}, reduce_concat={concat})"


def _check_node(node: int, chosen: tuple) -> None:
    sources = [source for _, source in chosen]
    if len(set(sources)) != 2 or len(sources) != 2:
        raise bad_input("genotype", f"two edges from different inputs at node {node + 1}", sources, "name two inputs")
    for operation, source in chosen:
        if operation not in SHORT:
            raise bad_input("genotype", " or ".join(SHORT), repr(operation), "name an operation")
        if not 0 <= source < 2 + node:
            expected = f"inputs from 0 to {1 + node} at node {node + 1}"
            raise bad_input("genotype", expected, source, "a node sees the inputs and earlier nodes alone")


def _parse_short(text: str) -> list:
    normal, reduce = text.removeprefix("N:").split("R:") if text.count("R:") == 1 else (text, None)

    def pair(word):
        short, source = word.split("<") if "<" in word else (word, "")
        if not source.isdigit():
            raise SyntaxError(f"{word!r} is not operation<input")
        if short not in _LONG:
            raise bad_input("genotype", f"operations {', '.join(_LONG)}", repr(short), "name one of them, as s3<0")
        return _LONG[short], int(source)

    return [tuple(tuple(map(pair, node.split())) for node in cell.split("|")) for cell in (normal, reduce)]


def _parse_published(text: str) -> list:
    call = ast.parse(text, mode="eval").body
    named = {keyword.arg: keyword.value for keyword in call.keywords}
    cells = []
    for kind in CELL_TYPES:
        pairs = [(str(op), int(source)) for op, source in ast.literal_eval(named[kind])]
        if len(pairs) % 2:
            raise SyntaxError(f"{len(pairs)} edges in the {kind} cell: two a node are expected")
        cells.append(tuple((pairs[i], pairs[i + 1]) for i in range(0, len(pairs), 2)))
        concat = named.get(f"{kind}_concat")
        joined = _integers(concat) if concat is not None else None
        if joined not in (None, list(range(2, 2 + len(cells[-1])))):
            raise SyntaxError(f"{kind}_concat is {joined}: all nodes side by side are expected")
    return cells


def _integers(node: ast.expr) -> list[int]:
    """A list of numbers, or `range(2, 6)`, as both are published."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "range":
        return list(range(*(ast.literal_eval(argument) for argument in node.args)))
    return list(ast.literal_eval(node))


def random_genotypes(space: Space, count: int, *, key: Array) -> list[Genotype]:
    """Architectures drawn at random, all different: at each node two inputs, on each of their edges an operation.

    Args:
        space: a search space.
        count: how many.
        key: a key.

    Raises:
        InputError: more than half of all that there are.

    Example:
        >>> str(random_genotypes(SPACES["darts_fewshot"], 1, key=jax.random.key(0))[0])[:2]
        'N:'

    Source: notebooks/04_metantk_nas.
    """
    (count,) = sizes(count=count)
    if 2 * count > space.architectures:
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
