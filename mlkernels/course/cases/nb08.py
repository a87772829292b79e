"""Notebook 08: more steps, fewer samples."""

from __future__ import annotations

import math

import numpy as np

from mlkernels.course.cases.exercise import Exercise, by_definition


def _limit_and_steps(c):
    """The factor at a large N; and steps counted until it is above e."""
    steps = 0
    while (1 + c) ** (2 * (steps + 1)) <= math.e:
        steps += 1
    return (1 + c / 1e8) ** 2e8, steps


def _first_bad_rate(mu, L):
    """Where E[(1 - rate h)^2] crosses 1 from below, h of two values."""
    from scipy.optimize import brentq

    share = mu / L
    return brentq(lambda rate: share * (1 - rate * L) ** 2 + (1 - share) - 1, 1 / L, 10 / L, xtol=1e-12)


def _moml_step(w, u, c, h, h_query, rate, outer, beta):
    """A step down the slope, by w, of the query loss at the new u."""

    def new_u(w):
        return (1 - beta) * u + beta * (w - rate * h * (w - c))

    def loss(w):
        return h_query / 2 * (new_u(w) - c) ** 2

    return w - outer * (loss(w + 1) - loss(w - 1)) / 2, new_u(w)  # exact, since the loss is quadratic


def _point_of_rest(optima, mu, v, rate, beta):
    """Minibatches of two equally likely curvatures, the memory at its mean."""
    pulls = np.zeros(len(mu))
    for h in (mu - np.sqrt(v), mu + np.sqrt(v)):
        pulls += (1 - rate * h) * mu * ((1 - beta) * (1 - rate * mu) + beta * (1 - rate * h)) / 2
    return np.average(optima, weights=pulls)


_two, _ones = np.array([-1.0, 1.0]), np.ones(2)

EXERCISES = {
    "08.1": Exercise(
        "the factor",
        by_definition(
            _limit_and_steps,
            ((0.125,), "the logarithm of the second is 2 N log(1 + c)"),
            ((0.5,), "one step may be all"),
            ((0.6,), "log(1 + c) is less than c: a step more fits"),
            ((1.0,), "or none: (1 + 1)^2 is above e"),
        ),
    ),
    "08.2": Exercise(
        "the first bad rate",
        by_definition(
            _first_bad_rate,
            ((1.0, 4.0), "1 - 2 rate mu + rate^2 mu L = 1"),
            ((2.0, 2.0), "without noise it is 2 / L, where gradient descent diverges"),
            ((0.1, 4.0), "how rare the feature is does not matter: it is 2 / L"),
        ),
    ),
    "08.3": Exercise(
        "a step with memory",
        by_definition(
            _moml_step,
            ((1.0, 5.0, 0.0, 1.0, 1.0, 0.5, 0.1, 1.0), "beta = 1 is MAML: the old u is forgotten"),
            ((1.0, 0.0, 0.0, 0.0, 2.0, 0.5, 0.1, 0.5), "h = 0: nothing is learned from the support"),
            ((2.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.1, 0.3), "a derivative of zero: no step"),
        ),
    ),
    "08.4": Exercise(
        "the point of rest",
        by_definition(
            _point_of_rest,
            ((_two, _ones, 0 * _ones, 0.5, 1.0), "equal tasks: the middle"),
            ((_two, _ones, np.array([0.0, 3.0]), 1.0, 1.0), "only noise pulls where 1 - rate mu = 0"),
            ((_two, _ones, np.array([0.0, 1.0]), 0.5, 0.5), "0.25 and 0.25 + 0.5 * 0.25"),
        ),
    ),
}
