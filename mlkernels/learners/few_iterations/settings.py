"""The settings of few iterations, and which of their numbers are learned how."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mlkernels.errors import bad_input
from mlkernels.learners.function_space.closed_form import numbers_for
from mlkernels.learners.function_space.kernel import positive
from mlkernels.learners.hidden import check_features
from mlkernels.support.arguments import in_short, is_real, number, one_of, plain, whole

LENGTHS = ("optimal", "fixed")
STARTS = ("means", "zero")


@dataclass(frozen=True)
class FewIterations:
    r"""The settings of a head that is fitted in few iterations, in the place of an inner loop. Hashable.

    .. math:: L(W) = \tfrac12 \sum_{ij} r_{ij}^2 + \tfrac12 \|\rho W\|^2
              + \frac{\lambda}{n} \sum_q H\big(\mathrm{softmax}(\tau\, q^\top W)\big), \qquad
              r_{ij} = \omega_{ij}\, a_{ij}\big(s_{ij} (y_{ij} - x_i^\top W_j)\big), \qquad
              a(z) = \tfrac{1 - c}{2} |z| + \tfrac{1 + c}{2} z

              W \leftarrow W - \alpha g, \qquad \alpha = \frac{\|g\|^2}{\max(10^{-8}, \|J g\|^2 + q) + \delta \|g\|^2}

    x_i are the features of the support set, q those of the n queries; a positive (a label above 0) has the sign s = 1
    and a target y, a weight omega and a slope c of its own, the others s = -1 and theirs. g is the gradient, J the
    Jacobian of all residuals (r, rho W), q in the step the curvature of the entropy along g, as if it were a logistic
    loss. Where a residual is 0 but for rounding, J has the mean of both slopes. Nothing else of the labels enters: this
    is a classifier. The head has no biases, and the network's own head does not enter.

    The authors' code is so, with these targets, weights, slopes, ridge, damping, start and number of steps; it has lam
    = 1000, tests with 10 steps, and gives the start targets of its own, learned apart. Ours are: `entropy` None,
    `length` "fixed", `start` "zero", one pair of targets for start and loss, and what is learned as a logarithm.
    `maml.fit` with `learn_rates=True` learns all numbers but the damping with the network: weights, entropy and
    temperature as logarithms, targets, slopes and the ridge as they are. A ridge of 0 stays there, in theirs as in
    ours: only its square enters.

    Args:
        steps: at least 0. Another number of them takes the same learned numbers.
        targets, weights, slopes: y, omega and c, each a pair: of positives, and of the others. Weights are positive;
            slopes of 1 make plain least squares, of 0 a squared hinge.
        ridge: rho, at least 0; its square is what is called gamma in `FunctionSpace`.
        entropy: lam, positive; or None, and queries do not enter the fit.
        temperature: tau, positive.
        damping: delta, at least 0; with 0, steps of least squares are those of an exact line search. It adds as much to
            the curvature along g: no step is longer than 1 / delta.
        length: "optimal" as above, or "fixed": 1 / (a bound on the curvature of L, its exact largest one for least
            squares of equal weights without an entropy).
        start: "means", such that the mean positive and the mean of the others of each class are given their targets;
            or "zero".
        features: as in `FunctionSpace`.

    Raises:
        InputError: a number out of its range, no pair, an unknown name.

    Example:
        >>> FewIterations(steps=10, ridge=0.1).form.ridge
        0.0

    Source: Tripathi et al. 2021 (FIML), their public code; notebooks/10_few_iterations.
    """

    steps: int = 5
    targets: tuple[float, float] = (5.0, -5.0)
    weights: tuple[float, float] = (1.0, 1.0)
    slopes: tuple[float, float] = (1.0, 1.0)
    ridge: float = 0.0
    entropy: float | None = None
    temperature: float = 1.0
    damping: float = 0.05
    length: str = "optimal"
    start: str = "means"
    features: str | Callable = "hidden"

    def __post_init__(self) -> None:
        found = {"steps": whole("steps", self.steps)}
        for name, check in (("targets", _real), ("weights", positive), ("slopes", _real)):
            pair = getattr(self, name)
            if not isinstance(pair, tuple | list) or len(pair) != 2:
                raise bad_input(name, "a pair: of positives, and of the others", in_short(pair), "give two numbers")
            found[name] = tuple(check(name, each) for each in pair)
        if found["targets"][0] <= found["targets"][1]:
            raise bad_input("targets", "a higher one for positives", self.targets, "turn them round")
        for name in ("ridge", "damping"):
            found[name] = number(name, getattr(self, name))
        for name in ("entropy", "temperature"):
            value = getattr(self, name)
            found[name] = None if name == "entropy" and value is None else positive(name, value)
        for name, value in found.items():
            object.__setattr__(self, name, value)
        one_of("length", self.length, LENGTHS)
        one_of("start", self.start, STARTS)
        check_features(self.features)

    loss = "half_sum_squares"  # any labels pass for it; no field

    @property
    def numbers(self) -> dict[str, Any]:
        """What is passed beside the form, so that other numbers do not compile anew; these are learned."""
        found = {name: tuple(map(np.asarray, getattr(self, name))) for name in ("targets", "slopes")}
        found |= {"log_weights": tuple(map(np.asarray, map(math.log, self.weights))), "ridge": np.asarray(self.ridge)}
        if self.entropy is not None:
            found["log_entropy"] = np.asarray(math.log(self.entropy))
            found["log_temperature"] = np.asarray(math.log(self.temperature))
        return found

    @property
    def form(self) -> FewIterations:
        """All but the numbers."""
        entropy = None if self.entropy is None else 1.0
        plain = {"targets": (1.0, -1.0), "weights": (1.0, 1.0), "slopes": (1.0, 1.0), "ridge": 0.0, "temperature": 1.0}
        return replace(self, entropy=entropy, **plain)

    def at(self, numbers) -> FewIterations:
        """These settings with the numbers that are given, such as learned ones, as they enter: to be read.

        Example:
            >>> FewIterations().at(FewIterations(ridge=0.5, weights=(2.0, 1.0)).numbers).weights
            (2.0, 1.0)
        """
        numbers = numbers_for(self, numbers)
        found = {name: tuple(map(float, numbers[name])) for name in ("targets", "slopes")}
        found |= {"weights": tuple(float(np.exp(each)) for each in numbers["log_weights"])}
        found |= {"ridge": abs(float(numbers["ridge"]))}
        if self.entropy is not None:
            found |= {name: float(np.exp(numbers[f"log_{name}"])) for name in ("entropy", "temperature")}
        return replace(self, **found)


def _real(name: str, value) -> float:
    value = plain(value)
    if not is_real(value) or not math.isfinite(value):
        raise bad_input(name, "finite numbers", in_short(value), "give two numbers")
    return float(value)
