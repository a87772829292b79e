"""Notebook 09: one bilevel problem."""

from __future__ import annotations

import numpy as np

from mlkernels.course.cases.exercise import Exercise, by_definition


def _exact_hypergradient(A, B, b, c, D, x):
    """Differences of F(x) = |y*(x) - c|^2 / 2 + |D x|^2 / 2, exact since it is quadratic."""

    def outer(x):
        y = np.linalg.solve(A, b - B @ x)
        return np.sum((y - c) ** 2) / 2 + np.sum((D @ x) ** 2) / 2

    return np.array([(outer(x + one) - outer(x - one)) / 2 for one in np.eye(len(x))])


def _truncated_jacobian(A, B, rate, T):
    """What each of the last steps adds, as it is shrunk by those after it."""
    shrink, added = np.eye(len(A)) - rate * A, np.zeros_like(B)
    for age in range(T):
        added = added - rate * np.linalg.matrix_power(shrink, age) @ B
    return added


def _covariance_identity(value, direct, score):
    """The covariance from all pairs of samples."""
    pairs = (value[:, None] - value) * (score[:, None] - score)
    return np.mean(direct) - np.mean(pairs) / 2


def _log_objective(l, c, rate, t):
    """The sum of f in logarithms."""
    from scipy.special import logsumexp

    return logsumexp(np.log(l * c**2 / 2) + 2 * t * np.log(np.abs(1 - rate * l))) / t


def _trained(X, y, rate, t):
    """The steps themselves."""
    w = np.zeros(X.shape[1])
    for _ in range(t):
        w = w - rate * X.T @ (X @ w - y) / len(y)
    return w


def _drawn():
    """A problem of more than one dimension: A symmetric, D and B not."""
    draw = np.random.default_rng(0).normal
    root = draw(size=(3, 3))
    return root @ root.T + np.eye(3), draw(size=(3, 2)), draw(size=3), draw(size=3), draw(size=(2, 2)), draw(size=2)


_eye, _single = np.eye(1), np.ones(1)
_A, _B = np.diag([1.0, 0.5]), np.array([[1.0], [2.0]])
_F = np.array([1.0, 2.0, 6.0])
_l, _c = np.array([1.0, 4.0]), np.array([0.6, 0.8])
_X, _y = np.array([[1.0, 0.0, 1.0], [0.0, 2.0, 0.0]]), np.array([1.0, 2.0])

EXERCISES = {
    "09.1": Exercise(
        "the exact hypergradient",
        by_definition(
            _exact_hypergradient,
            (
                (2 * _eye, _eye, 0 * _single, 0 * _single, 0 * _eye, _single),
                "y* = -x / 2 and F = x^2 / 8, so the slope is x / 4",
            ),
            ((2 * _eye, _eye, 0 * _single, 0 * _single, _eye, _single), "D^T D x comes on top"),
            (_drawn(), "B^T, not B"),
        ),
    ),
    "09.2": Exercise(
        "truncation",
        by_definition(
            _truncated_jacobian,
            ((_A, _B, 0.5, 1), "one step: -rate B"),
            ((_A, _B, 0.5, 2), "J <- (I - rate A) J - rate B, from J = 0"),
            ((_A, _B, 0.5, 500), "many steps: -A^-1 B"),
        ),
    ),
    "09.3": Exercise(
        "the covariance identity",
        by_definition(
            _covariance_identity,
            ((_F, np.zeros(3), np.ones(3)), "where all samples' f move alike, the density stays"),
            ((_F, np.full(3, 0.5), np.ones(3)), "then only the direct part is left"),
            ((_F, np.zeros(3), _F), "minus the covariance, which divides by n"),
        ),
    ),
    "09.4": Exercise(
        "the step's variance",
        (
            ((1.0, 1e-3), 1.0, "for small steps that of the Gaussian, 1 / h"),
            ((4.0, 0.5), 1 / 3, "v = (1 - e^2 h / 2)^2 v + e^2"),
            ((1.0, 1.0), 4 / 3, "a large step widens the samples"),
        ),
    ),
    "09.5": Exercise(
        "the logarithm's objective",
        by_definition(
            _log_objective,
            ((_l, _c, 0.1, 1), "f is the sum of l c^2 (1 - rate l)^2t, halved"),
            ((_l, _c, 10.0, 80), "take the largest factor out of the sum first"),
            ((_l, _c, 10.0, 100_000), "39 to the power of 200000 is no number"),
        ),
    ),
    "09.6": Exercise(
        "descent in closed form",
        by_definition(
            _trained,
            ((_X, _y, 0.1, 1), "one step: rate times X^T y / n"),
            ((_X, _y, 0.1, 30), "the gradient at 0 times (1-(1-rl)^t)/l"),
            ((_X, _y, 0.1, 10_000), "flat directions: rate t times nothing"),
        ),
    ),
}
