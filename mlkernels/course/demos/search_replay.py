"""The second demo of notebook 04: a recorded search, round by round: what is left of both cells, and why the rest went.

`DEMO` replays the search that comes with the course; `make_demo` makes the same of any search's log.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from statistics import fmean

import numpy as np
from matplotlib.ticker import LogLocator, NullLocator

import mlkernels
from mlkernels.course import plots
from mlkernels.course.demos.demo import Demo, Stage, choice, steps
from mlkernels.course.plots.drawings import FAINT, GONE, NAMES, along, colour_of, draw_cell
from mlkernels.errors import bad_input
from mlkernels.nas import CELL_TYPES, SPACES, Space, replay, rule_of
from mlkernels.nas.searching.ranking import RULE, Candidate
from mlkernels.nas.space.search_space import check_space
from mlkernels.support import results

EDGE = "a whole edge"
BOTH = "both"
RATIOS = 0.02, 50.0  # of scores without and with; what lies beyond is drawn there
GLYPHS = Path(mlkernels.__file__).parents[1] / "data" / "results" / "search_glyphs.json"  # in a checkout
MARKS = ("o", "s", "D", "v", "^", "P", "p", "h", "<", ">")  # of the operations, in the space's order
BEAD = 0.14  # from one operation's mark to the next, where a cell's nodes are 1.6 apart
RING = {
    "marker": "o",
    "linestyle": "",
    "color": "black",
    "fillstyle": "none",
    "markersize": 11,
    "markeredgewidth": 1.2,
    "zorder": 4,
}


@dataclass(frozen=True)
class Round:
    """A search after one of its rounds."""

    number: int  # 0 for the start
    rounds: int  # how many there are
    space: Space
    before: np.ndarray  # what is open before it, bool [cell type, edge, operation]
    gates: np.ndarray  # and after it
    had: np.ndarray  # before it, or where an edge was closed even earlier, before that
    candidates: tuple[Candidate, ...]  # what was tried without
    gone: np.ndarray  # bool [candidates], which of them went
    condition: np.ndarray  # [candidates], the condition number without each over that with it; 1 where not used
    regions: np.ndarray  # [candidates], the same of the linear regions
    rule: str = RULE  # by which it went

    @property
    def pruned(self) -> tuple[Candidate, ...]:
        """What went in this round."""
        return tuple(each for each, went in zip(self.candidates, self.gone, strict=True) if went)

    def name(self, candidate: Candidate) -> str:
        """What a candidate is."""
        return EDGE if candidate[2] is None else self.space.operations[candidate[2]]


def rounds_of(log: Sequence[dict], space: Space) -> tuple[Round, ...]:
    """A search after each of its rounds, the open super-network first; an InputError for what is no log of one."""
    check_space(space)
    try:
        states = replay(log, space)
        found = [_round(log, space, states, number) for number in range(len(states))]
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        do = "take the log of nas.search, and the space that it searched"
        raise bad_input("log", f"decisions of a search in {space.name}", f"{error!r}", do) from None
    if len(found) < 2:
        raise bad_input("log", "one round or more", "none", "take the log of nas.search")
    return tuple(found)


def _round(log, space: Space, states: list[np.ndarray], number: int) -> Round:
    rows, pruned = {}, set()
    for line in log:
        if number and line.get("round") == number:
            kind, node = CELL_TYPES.index(line["cell"]), line["node"]
            own = space.edges.index((node, line["input"]))
            whole = line["pruned"] == "edge"
            pruned.add((kind, own, None if whole else space.operations.index(line["pruned"])))
            for name, row in line["scores"].items():
                if whole:
                    rows[kind, space.edges.index((node, int(name))), None] = row
                else:
                    rows[kind, own, space.operations.index(name)] = row
    ratios = {score: np.array([_ratio(row, score) for row in rows.values()]) for score in ("condition", "regions")}
    gone = np.array([candidate in pruned for candidate in rows], bool)
    before = states[max(number - 1, 0)]
    had = before
    for state in reversed(states[: max(number - 1, 0)]):
        had = np.where(had.any(-1, keepdims=True), had, state)
    open_, rule = (before, states[number], had), rule_of(log)
    return Round(number, len(states) - 1, space, *open_, tuple(rows), gone, **ratios, rule=rule)


def _ratio(row: dict, score: str) -> float:
    """A score without over the score with a candidate, as ranked: by the mean change over repeats."""
    if score not in row:
        return 1.0
    (least, most), changes = RATIOS, row[score]["change"]
    infinite = None, "-inf", -math.inf  # null in old logs, text in new ones, a number before they are written
    return float(np.clip(1 - fmean(1 - most if each in infinite else each for each in changes), least, most))


def numbers(rounds: Sequence[Round], round: int, cell: str) -> Round:
    """One round, with the candidates of one cell type alone or of both."""
    found = rounds[round]
    seen = np.array([cell in (BOTH, CELL_TYPES[kind]) for kind, *_ in found.candidates], bool)
    kept = tuple(each for each, shown in zip(found.candidates, seen, strict=True) if shown)
    rest = {name: getattr(found, name)[seen] for name in ("gone", "condition", "regions")}
    return replace(found, candidates=kept, **rest)


def unpack(path: Path = GLYPHS) -> tuple[list[dict], Space]:
    """The log and the search space of a packed search, as `nas.replay` takes them; by default of the course's own."""
    expected, do = "a recorded search", "take data/results/search_glyphs.json, or the log of a search of your own"
    found = results.read(path, expected, do)
    try:
        return found["log"], SPACES[found["settings"]["space"]]
    except (KeyError, TypeError):
        raise bad_input(str(path), f"{expected} in a space that has a name", "something else", do) from None


def _stage(rounds: Sequence[Round]) -> Stage:
    space = rounds[0].space
    boxes = [(0.005, 0.505, 0.645, 0.45), (0.005, 0.005, 0.645, 0.45), (0.725, 0.105, 0.265, 0.665)]
    fig, (*cells, right) = plots.figure(10.5, 5.4, boxes=boxes)
    moving = {}
    for kind, ax, title in zip(CELL_TYPES, cells, NAMES, strict=True):
        cell = draw_cell(ax, title, [(source, 2 + node, "operation") for node, source in space.edges], space.nodes)
        moving[f"{kind} arrows"], moving[f"{kind} labels"] = [*cell.arrows.values()], [*cell.labels.values()]
        moving[f"{kind} beads"] = _marks(ax, space, 6)
        moving[f"{kind} gone"] = ax.plot([], [], **RING)
    moving["scores"] = _marks(right, space, 6)
    moving["scores"] += right.plot([], [], "s", color="black", fillstyle="none", markersize=6, label=EDGE)
    moving["gone"] = right.plot([], [], **RING, label="pruned in this round")
    right.axvline(1, color=FAINT, zorder=0)
    right.axhline(1, color=FAINT, zorder=0)
    right.set(xscale="log", xlim=_limits(rounds, "condition", 1.5), ylim=_limits(rounds, "regions", 1.01))
    right.set(xlabel="condition number, without / with", ylabel="linear regions, without / with")
    low, high = right.get_xlim()
    right.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 500 * low else (1,)))
    right.xaxis.set_major_formatter("{x:g}")
    right.xaxis.set_minor_locator(NullLocator())
    right.text(0.02, 0.97, "↖ not\n   missed", transform=right.transAxes, va="top", fontsize=9, color=GONE)
    right.legend(loc="lower center", bbox_to_anchor=(0.4, 1.0), ncols=2, fontsize=9, columnspacing=1.0,
                 handletextpad=0.2)  # fmt: skip
    return Stage(fig, **moving)


def _marks(ax, space: Space, size: float) -> list:
    """An empty line for each operation, in its colour and with its mark."""
    return [
        ax.plot([], [], MARKS[number % len(MARKS)], color=colour_of(name), markersize=size, markeredgecolor="white",
                markeredgewidth=0.5, label=name, zorder=2)[0]
        for number, name in enumerate(space.operations)
    ]  # fmt: skip


def _limits(rounds: Sequence[Round], score: str, least: float) -> tuple[float, float]:
    """Limits of an axis that hold the ratios of all rounds, and at least such a one."""
    values = np.log(np.concatenate([[1 / least, least], *(getattr(each, score) for each in rounds)]))
    room = 0.05 * np.ptp(values)
    return float(np.exp(values.min() - room)), float(np.exp(values.max() + room))


@lru_cache
def _beads(space: Space) -> np.ndarray:
    """Where each operation's mark stands, side by side around the label's place: `[edge, operation, 2]`."""
    ahead = BEAD * (np.arange(len(space.operations)) - (len(space.operations) - 1) / 2)
    return np.array([[along(source, 2 + node, space.nodes, a) for a in ahead] for node, source in space.edges])


def _move(stage: Stage, n: Round) -> None:
    for kind, name in enumerate(CELL_TYPES):
        marks, gone = [[] for _ in n.space.operations], []
        artists = zip(stage[f"{name} arrows"], stage[f"{name} labels"], _beads(n.space), strict=True)
        for (arrow, label, beads), before, after in zip(artists, n.had[kind], n.gates[kind], strict=True):
            colour, text = _edge(n, before, after)
            arrow.set(color=colour if after.any() else FAINT, linestyle="-" if after.any() else ":")
            label.set(text=text, color=colour)
            for number in () if text else np.flatnonzero(before):
                marks[number].append(beads[number])
                gone += [] if after[number] else [beads[number]]
        for line, places in zip(stage[f"{name} beads"], marks, strict=True):
            line.set_data(*_columns(places))
        stage[f"{name} gone"][0].set_data(*_columns(gone))
    spots = np.stack([n.condition, n.regions], 1)
    kinds = np.array([len(n.space.operations) if each[2] is None else each[2] for each in n.candidates], int)
    for number, line in enumerate(stage["scores"]):
        line.set_data(*_columns(spots[kinds == number]))
    stage["gone"][0].set_data(*_columns(spots[n.gone]))


def _columns(places) -> np.ndarray:
    return np.asarray(places, float).reshape(-1, 2).T


def _edge(n: Round, before: np.ndarray, after: np.ndarray) -> tuple[str, str]:
    """The colour of an edge and its label: none, while marks say what is open and what went."""
    names, last = ([n.space.operations[number] for number in np.flatnonzero(open_)] for open_ in (after, before))
    if not names:
        return GONE, "".join(f"✗ {name}" for name in last)
    colour = colour_of(names[0]) if len(names) == 1 else "#555555"
    return colour, names[0] if len(names) == 1 and (len(last) == 1 or n.number == n.rounds) else ""


def _what_went(n: Round) -> str:
    """What went in this round, how often, as in "6 conv_3x3, 2 skip_connect"."""
    return ", ".join(f"{count} {name}" for name, count in Counter(map(n.name, n.pruned)).most_common())


def _readout(n: Round) -> str:
    left = f"{int(n.gates.sum())} of {n.space.open_gates().sum()} operations are open"
    if not n.number:
        return f"before the first round: {left}"
    if not n.candidates:
        return f"after round {n.number} of {n.rounds}: {left} · nothing was tried in this cell"
    ratios = [f"{np.median(n.condition[which]):.2g}" if which.any() else "none" for which in (n.gone, ~n.gone)]
    return (
        f"after round {n.number} of {n.rounds}: {left} · {len(n.candidates)} candidates, {len(n.pruned)} pruned: "
        f"{_what_went(n)} · condition number without / with, median: pruned {ratios[0]}, others {ratios[1]}"
        f"{'' if n.rule == RULE else f' · pruned by an older rule: {n.rule}'}"
    )


def _describe(n: Round) -> str:
    cells = ", ".join(
        f"{int(gates.any(-1).sum())} edges with {int(gates.sum())} operations in the {name}"
        for name, gates in zip(NAMES, n.gates, strict=True)
    )
    if not n.candidates:
        return f"Both cells of the search {'before its first round' if not n.number else 'after a round'}: {cells}."
    return (
        f"Both cells of the search after round {n.number} of {n.rounds}: {cells}. Beside them {len(n.candidates)} "
        f"candidates by the condition number and the linear regions without each over those with it, and marked the "
        f"{len(n.pruned)} that went: {_what_went(n)}."
    )


def make_demo(log: Sequence[dict], space: Space, name: str = "search_replay") -> Demo:
    """The replay of a search.

    Args:
        log: lines as `nas.search` logs them: `Found.log`, or of a `log.jsonl`.
        space: the search space.
        name: the demo's.

    Returns:
        A `Demo`, for `widgets.explore` and `widgets.twin`.

    Raises:
        InputError: as `rounds_of`.

    Example:
        >>> from mlkernels.nas import SPACES
        >>> row = {"condition": {"change": [0.1]}}
        >>> line = {"round": 1, "cell": "normal", "node": 0, "input": 1, "pruned": "conv_3x3"}
        >>> make_demo([line | {"scores": {"conv_3x3": row}}], SPACES["darts_fewshot"]).compute(1, "both").condition
        array([0.9])

    Source: notebooks/04_metantk_nas.
    """
    rounds = rounds_of(log, space)
    last = len(rounds) - 1
    shown = [{"round": number} for number in sorted({1, last // 2, last - 1, last})]
    return Demo(
        name=name,
        question="Which operations go first and which stay to the end, and do the candidates that go lie apart?",
        controls=(
            steps("round", "round", range(len(rounds)), 1, "what the cells look like after it, and what was tried"),
            choice("cell", "scores of", (BOTH, *CELL_TYPES), BOTH, "which cell's candidates are shown"),
        ),
        compute=partial(numbers, rounds),
        stage=partial(_stage, rounds),
        move=_move,
        describe=_describe,
        readout=_readout,
        twin=(*shown, *({"cell": kind} for kind in CELL_TYPES))[: max(3, len(shown))],
    )


# the results are not part of an installed package
DEMO = make_demo(*unpack()) if GLYPHS.exists() else None
