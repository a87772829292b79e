"""Choices between what is good and what is cheap."""

from __future__ import annotations

import numpy as np
from jaxtyping import ArrayLike, Int, Num

from mlkernels.errors import bad_input
from mlkernels.support.arguments import in_short, is_real, number, plain
from mlkernels.support.array_arguments import real_array
from mlkernels.support.typed import typed


def _costs_and_scores(costs, scores) -> tuple[np.ndarray, np.ndarray]:
    given = (("costs", costs), ("scores", scores))
    costs, scores = (np.asarray(real_array(name, part), float) for name, part in given)
    if costs.ndim != 1 or costs.shape != scores.shape or not len(costs):
        got = f"{list(costs.shape)} and {list(scores.shape)}"
        raise bad_input(
            "costs and scores", "two rows of the same length, of at least 1", got, "give one of each a mask"
        )
    for name, part in (("costs", costs), ("scores", scores)):
        if np.isnan(part).any():
            do = "give what diverged a score of -inf" if name == "scores" else "leave these out"
            raise bad_input(name, "numbers", f"NaN at {np.flatnonzero(np.isnan(part))[0]}", do)
    return costs, scores


@typed
def pareto_front(costs: Num[ArrayLike, " M"], scores: Num[ArrayLike, " M"]) -> Int[np.ndarray, " F"]:
    r"""Those that no other beats: none costs as little or less and scores as much or more, and differs in one.

    .. math:: \{i : \nexists j \;\; c_j \le c_i,\ s_j \ge s_i,\ (c_j, s_j) \ne (c_i, s_i)\}

    Args:
        costs: `[M]`, less is better.
        scores: `[M]`, more is better: an accuracy, minus a loss; -inf for what diverged.

    Returns:
        Indices, int `[F]`, cheapest first; of equal ones all, in their order.

    Raises:
        InputError: rows of different lengths, or of none; NaN.

    Example:
        >>> pareto_front([3.0, 1.0, 2.0, 2.0], [0.9, 0.5, 0.4, 0.9]).tolist()
        [1, 3]

    Source: notebooks/07_which_weights_adapt.
    """
    costs, scores = _costs_and_scores(costs, scores)
    order = np.lexsort((-scores, costs))  # by cost, of one cost the best first; else as they came
    c, s = costs[order], scores[order]
    before = np.concatenate([[-np.inf], np.maximum.accumulate(s)[:-1]])
    better = s > before
    better[0] = True
    kept = np.maximum.accumulate(np.where(better, np.arange(len(s)), 0))  # the last that was better
    return order[(c == c[kept]) & (s == s[kept])]


@typed
def fastest(
    costs: Num[ArrayLike, " M"], scores: Num[ArrayLike, " M"], *, drop: float, reference: float | None = None
) -> int:
    r"""The cheapest one whose score is within an allowed drop.

    .. math:: \arg\min_i c_i \quad \text{subject to} \quad s_i \ge s_{ref} - \text{drop}

    Args:
        costs, scores: as in `pareto_front`.
        drop: how much less is allowed, in the units of the score, at least 0.
        reference: the score from which it is counted, as that of the full mask; None is the best of all.

    Returns:
        Its index; of several of one cost that of the best, and of equal ones the first.

    Raises:
        InputError: as `pareto_front`; a negative drop; none within it.

    Example:
        >>> fastest([3.0, 1.0, 2.0], [0.90, 0.50, 0.89], drop=0.02)
        2

    Source: Khabarlak 2022, whose patterns are chosen so; notebooks/07_which_weights_adapt.
    """
    costs, scores = _costs_and_scores(costs, scores)
    drop = number("drop", drop, do="say how much less is allowed")
    reference = scores.max() if reference is None else plain(reference)
    if not is_real(reference) or np.isnan(reference):
        raise bad_input("reference", "a number, or None for the best", in_short(reference), "give a score")
    least = reference - drop
    within = np.flatnonzero(scores >= least)
    if not len(within):
        got = f"{scores.max():.4g} at best"
        raise bad_input("scores", f"one of at least {least:.4g}", got, "allow a larger drop")
    return int(within[np.lexsort((-scores[within], costs[within]))[0]])
