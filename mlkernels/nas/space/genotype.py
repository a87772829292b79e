"""An architecture, and the notations in which it is written: the published ones and a short one."""

from __future__ import annotations

import ast
from dataclasses import dataclass

from mlkernels.errors import InputError, bad_input

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
        >>> {Genotype.parse(text) for text in (str(genotype), repr(genotype), genotype.nested)} == {genotype}
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
        """Read a notation: the published one, flat as `repr` writes it or `nested`, or the short one of `str`.

        The published ones may have an assignment in front, as in the source where they stand.

        Raises:
            InputError: text that is none of these; a cell whose output leaves out nodes.

        Example:
            >>> text = "MINE = Genotype(normal=[[('skip_connect', 0), ('conv_3x3', 1)]], normal_concat=[2], "
            >>> str(Genotype.parse(text + "reduce=[('conv_3x3', 0), ('conv_3x3', 1)], reduce_concat=range(2, 3))"))
            'N: sk<0 c3<1 R: c3<0 c3<1'
        """
        text = text.strip()
        try:
            return cls(*(_parse_published if "Genotype(" in text else _parse_short)(text))
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
        return self._published(*([pair for chosen in cell for pair in chosen] for cell in (self.normal, self.reduce)))

    @property
    def nested(self) -> str:
        """The published notation with a list a node, which the published code's `--genotype` takes.

        Example:
            >>> Genotype.parse("N: sk<0 c3<1 R: c3<0 c3<1").nested[:62]
            "Genotype(normal=[[('skip_connect', 0), ('conv_3x3', 1)]], norm"

        Source: Wang et al. 2022, its code (Liu et al. 2019 write one list a cell, as `repr` does).
        """
        return self._published(*(list(map(list, cell)) for cell in (self.normal, self.reduce)))

    def _published(self, normal: list, reduce: list) -> str:
        concat = list(range(2, 2 + self.nodes))
        return f"Genotype(normal={normal}, normal_concat={concat}, reduce={reduce}, reduce_concat={concat})"


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
    normal, *reduce = text.removeprefix("N:").split("R:")
    if len(reduce) > 1:
        raise SyntaxError("R: stands more than once")
    cells = (normal, *reduce, "")[:2]
    for kind, cell in zip(("N part is missing, the normal", "R part is missing, the reduction"), cells, strict=True):
        if not cell.strip():
            raise SyntaxError(f"its {kind} cell")

    def pair(word):
        short, source = word.split("<") if "<" in word else (word, "")
        if not source.isdigit():
            raise SyntaxError(f"{word!r} is not operation<input")
        if short not in _LONG:
            raise bad_input("genotype", f"operations {', '.join(_LONG)}", repr(short), "name one of them, as s3<0")
        return _LONG[short], int(source)

    return [tuple(tuple(map(pair, node.split())) for node in cell.split("|")) for cell in cells]


def _parse_published(text: str) -> list:
    (statement,) = ast.parse(text).body  # a ValueError for several
    named = {keyword.arg: keyword.value for keyword in statement.value.keywords}
    cells = []
    for kind in CELL_TYPES:
        if kind not in named:
            raise SyntaxError(f"{kind}=[...] is missing")
        cell = ast.literal_eval(named[kind])
        if cell and isinstance(cell[0][0], str):  # one list a cell, two pairs a node
            if len(cell) % 2:
                raise SyntaxError(f"{len(cell)} edges in the {kind} cell: two a node are expected")
            cell = [cell[i : i + 2] for i in range(0, len(cell), 2)]
        cells.append(tuple(tuple((str(op), int(source)) for op, source in chosen) for chosen in cell))
        concat = named.get(f"{kind}_concat")
        joined, nodes = None if concat is None else _integers(concat), list(range(2, 2 + len(cells[-1])))
        if joined not in (None, nodes):
            do = "take another one: all nodes of a cell, side by side, are its output in every network here"
            raise bad_input("genotype", f"{kind}_concat={nodes}", joined, do)
    return cells


def _integers(node: ast.expr) -> list[int]:
    """A list of numbers, or `range(2, 6)`, as both are published."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "range":
        return list(range(*(ast.literal_eval(argument) for argument in node.args)))
    return list(ast.literal_eval(node))
