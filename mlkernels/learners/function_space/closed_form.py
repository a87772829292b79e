"""Adaptation in function space: a task's correction to the network is the kernel's, and found by one Cholesky."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Num

from mlkernels.errors import InputError, bad_input
from mlkernels.learners.function_space.kernel import RBF, Kernel, Points, positive, wide
from mlkernels.learners.hidden import check_features, features_of, of_points, type_of
from mlkernels.support import cholesky
from mlkernels.support.arguments import in_short, one_of
from mlkernels.support.typed import typed

MEANS = ("network", "zero")
_KERNEL = "RBF, Linear, Cosine, NTK, or sums and products of them"


@dataclass(frozen=True)
class FunctionSpace:
    r"""The settings of adaptation in function space, in the place of an inner loop. Hashable: a static argument.

    .. math:: h^* = \arg\min_h\; \tfrac12 \sum_i \|f(x_i) + h(x_i) - y_i\|^2 + \tfrac{\gamma}{2} \|h\|_K^2, \qquad
              f(x) + h^*(x) = f(x) + k(x, X')\,(K + \gamma I)^{-1}\,(Y' - f(X'))

    f, the network, is what tasks share; h is a task's own correction to it, over all functions of the kernel's space.
    `maml.fit` with `learn_rates=True` learns gamma and the kernel's hyperparameters, as logarithms, with the network.

    Args:
        kernel: `RBF`, `Linear`, `Cosine`, `NTK`, or sums and products of them. k outputs are treated each alike.
        gamma: positive.
        features: what the kernel sees, but for the NTK: "hidden", the outputs of the last hidden layer of a network of
            `mlkernels.networks`; "inputs", x itself; or a function `features(params, x) -> [n, p]`, hashable.
        mean: f: "network", or "zero": then `Linear` is a ridge regression on the features, and the network's own head
            does not enter (R2-D2, without its learned scale of the outputs).

    Raises:
        InputError: a number that is not positive, an unknown name, no kernel.

    Example:
        >>> FunctionSpace(gamma=0.5)
        FunctionSpace(kernel=RBF(length_scale=1.0, amplitude=1.0), gamma=0.5, features='hidden', mean='network')

    Source: our reading of Park and Kang 2024; Bertinetto et al. 2019 for the ridge regression;
    notebooks/06_function_space_adaptation.
    """

    kernel: Kernel = RBF()  # noqa: RUF009, frozen
    gamma: float = 0.1
    features: str | Callable = "hidden"
    mean: str = "network"

    def __post_init__(self) -> None:
        if not isinstance(self.kernel, Kernel):
            raise bad_input("kernel", _KERNEL, repr(self.kernel), "make one, as function_space.RBF(1.0)")
        object.__setattr__(self, "gamma", positive("gamma", self.gamma))
        check_features(self.features)
        one_of("mean", self.mean, MEANS)

    loss = "half_sum_squares"  # which the inner problem is made of; no field

    @property
    def numbers(self) -> dict[str, Any]:
        """What is passed beside the form, so that other numbers do not compile anew; logarithms, to be learned."""
        return {"kernel": self.kernel.numbers, "log_gamma": np.asarray(np.log(self.gamma))}

    @property
    def form(self) -> FunctionSpace:
        """All but the numbers."""
        return replace(self, kernel=self.kernel.form, gamma=1.0)

    def at(self, numbers) -> FunctionSpace:
        """These settings with the numbers that are given, such as learned ones, as hyperparameters: to be read.

        Example:
            >>> FunctionSpace().at({"kernel": {"log_length_scale": 0.0, "log_amplitude": 0.0}, "log_gamma": 0.0}).gamma
            1.0
        """
        numbers = numbers_for(self, numbers)
        return replace(self, kernel=self.kernel.at(numbers["kernel"]), gamma=float(np.exp(numbers["log_gamma"])))


def numbers_for(inner: FunctionSpace, numbers):
    """The numbers in effect: the settings' own for None. An `InputError` where they do not fit; traced ones pass."""
    if numbers is None:
        return inner.numbers
    leaves = jax.tree.leaves(numbers)
    if jax.tree.structure(numbers) != jax.tree.structure(inner.numbers) or any(map(jnp.ndim, leaves)):
        do = "pass the rates of a fit with these settings, or inner.numbers with other numbers in it"
        shapes = jax.tree.map(lambda leaf: list(jnp.shape(leaf)) or "a number", inner.numbers)
        raise bad_input("rates", f"numbers in the form of {shapes}", in_short(numbers), do)
    for leaf in leaves:
        dtype = leaf.dtype if hasattr(leaf, "dtype") else np.asarray(leaf).dtype
        if not (jnp.issubdtype(dtype, jnp.floating) or jnp.issubdtype(dtype, jnp.integer)):
            raise bad_input("rates", "real numbers, logarithms", repr(leaf), "pass inner.numbers with others in it")
        if not isinstance(leaf, jax.core.Tracer) and not np.isfinite(np.asarray(leaf)):
            raise bad_input("rates", "finite numbers", leaf, "lower the rate at which they are learned")
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.result_type(float)), numbers)


class Adapted(NamedTuple):
    """What a task's support set has made of the network; `predict` is a function of it. A pytree.

    Args:
        params: theta.
        numbers: the logarithms of gamma and of the kernel's hyperparameters.
        support: the support set's points.
        weights: `[m, k]`: (K + gamma I)^-1 (Y' - f(X')), in 64 bits where JAX has them.
    """

    params: Any
    numbers: Any
    support: Points
    weights: Array


def _seen(apply: Callable, params, x: Array, inner: FunctionSpace) -> tuple[Points, Array | None]:
    """The points as the kernel sees them, and f there `[n, k]`, None for 0; the network is run once for both."""
    outputs = features = None
    if inner.kernel.of_features:
        features, outputs = features_of(apply, params, x, inner.features)
    if inner.mean == "zero":
        outputs = None
    elif outputs is None:
        outputs = apply(params, x)
    return Points(x, features), outputs


def _residual(outputs: Array | None, labels: Array, points: int) -> Array:
    """Y' - f(X')."""
    if outputs is None:
        if labels.ndim != 2 or len(labels) != points:
            do = "give labels two axes, and one row a point"
            raise bad_input("support_y", f"labels [{points}, k] of {points} points", list(labels.shape), do)
        return wide(labels)
    if labels.shape != outputs.shape:
        expected = f"the shape of the network's outputs {list(outputs.shape)}"
        do = "give the network as many outputs as the labels have, and labels two axes"
        raise bad_input("support_y", expected, list(labels.shape), do)
    return wide(labels) - wide(outputs)


def _rounding(params, inner: FunctionSpace) -> float:
    """The share of its size by which an entry of the kernel is rounded."""
    return float(jnp.finfo(type_of(params) if inner.kernel.of_network else jnp.result_type(float)).eps)


def _system(apply: Callable, params, numbers, support: Points, inner: FunctionSpace) -> tuple[Array, Array, Array]:
    """A = K + gamma I; L of A = L L', constant for a derivative, which goes through A; the largest entry of K.

    No pivot is below gamma but by rounding. Where one is lost in that, L is NaN: not a number of any size.
    """
    kernel = inner.kernel.gram(numbers["kernel"], apply, params, support)
    m, gamma = len(kernel), jnp.exp(wide(jnp.asarray(numbers["log_gamma"])))
    matrix = (kernel + kernel.T) / 2 + gamma * jnp.eye(m, dtype=kernel.dtype)
    factor = cholesky.factor(jax.lax.stop_gradient(matrix))
    least, largest = (jnp.diagonal(factor) ** 2).min(initial=jnp.inf), jnp.diagonal(kernel).max(initial=0.0)
    sound = least > m * _rounding(params, inner) * largest
    return matrix, jnp.where(sound, factor, jnp.nan), jnp.where(jnp.isfinite(kernel).all(), largest, jnp.inf)


def adapted(apply: Callable, params, numbers, support_x, support_y, inner: FunctionSpace) -> Adapted:
    """`adapt` without checks; weights are NaN where rounding hides gamma."""
    support, outputs = _seen(apply, params, support_x, inner)
    residual = _residual(outputs, support_y, len(support_x))
    matrix, factor, _ = _system(apply, params, numbers, support, inner)
    return Adapted(params, numbers, support, cholesky.solve(matrix, residual, factor))


def predict(apply: Callable, task: Adapted, x: Array, inner: FunctionSpace) -> Array:
    """The adapted predictor at inputs `[n, ...]`, `[n, k]`; unchecked, for `jit`, `grad` and attacks."""
    points, outputs = _seen(apply, task.params, x, inner)
    kernel = inner.kernel.gram(task.numbers["kernel"], apply, task.params, points, task.support)
    moved = jnp.matmul(kernel, task.weights, precision="highest")
    return moved.astype(type_of(task.params)) if outputs is None else (wide(outputs) + moved).astype(outputs.dtype)


def left_out(apply: Callable, params, numbers, support_x, support_y, inner: FunctionSpace) -> Array:
    """`leave_one_out` without checks."""
    support, outputs = _seen(apply, params, support_x, inner)
    residual = _residual(outputs, support_y, len(support_x))
    matrix, factor, _ = _system(apply, params, numbers, support, inner)
    m = len(matrix)
    both = cholesky.solve(matrix, jnp.concatenate([jnp.eye(m, dtype=matrix.dtype), residual], 1), factor)
    found = both[:, m:] / jnp.diagonal(both)[:, None]
    return found.astype(type_of(params) if outputs is None else outputs.dtype)


_adapted, _left_out = (jax.jit(function, static_argnums=(0, 5)) for function in (adapted, left_out))
_predict = partial(jax.jit, static_argnums=(0, 3))(predict)


@partial(jax.jit, static_argnums=(0, 4))
def _diagnosed(apply: Callable, params, numbers, support_x, inner: FunctionSpace) -> tuple[Array, Array]:
    """Whether K + gamma I can be solved, and the largest entry of K, infinite where one is not finite."""
    _, factor, largest = _system(apply, params, numbers, _seen(apply, params, support_x, inner)[0], inner)
    return ~jnp.isnan(factor).any(), largest


def fault(apply: Callable, params, numbers, support_x, inner: FunctionSpace) -> InputError | None:
    """Why one task has no weights; None if that is not the kernel's or gamma's fault. Takes settings or their form."""
    if not jnp.isfinite(jnp.exp(wide(jnp.asarray(numbers["log_gamma"])))):
        return bad_input("gamma", "a finite number", f"exp({float(numbers['log_gamma']):.4g})", "lower its logarithm")
    well, largest = map(np.asarray, _diagnosed(apply, params, numbers, support_x, inner.form))
    if well:
        return None
    if not np.isfinite(largest):
        do = "look at the parameters, at the support set and at the kernel's hyperparameters"
        return bad_input("kernel", "finite entries", "infinities or NaN", do)
    bits = type_of(params) if inner.kernel.of_network else jnp.result_type(float)
    expected = f"a gamma that rounding in {bits} does not hide beside a kernel of entries up to {float(largest):.4g}"
    do = "raise gamma"
    if jnp.result_type(float) == jnp.float32:
        do += ', or call jax.config.update("jax_enable_x64", True) first'
    elif bits != jnp.float64:
        do += ", or draw the network's parameters in float64"
    return bad_input("gamma", expected, f"{float(np.exp(numbers['log_gamma'])):.4g}", do)


def fault_of_tasks(apply: Callable, params, numbers, support_sets, inner: FunctionSpace) -> InputError | None:
    """`fault` of the first task that has one."""
    return next(filter(None, (fault(apply, params, numbers, x, inner) for x in support_sets)), None)


def _checked(found: Array, *given) -> None:
    """Raise where a task's arrays came out as NaN; traced ones pass."""
    if isinstance(found, jax.core.Tracer) or bool(jnp.isfinite(found).all()):
        return
    error = fault(*given)
    raise error or bad_input("support_y", "finite residuals", "infinities or NaN", "look at labels and parameters")


def _given(inner, rates, support_x, support_y):
    if not isinstance(inner, FunctionSpace):
        do = "use maml.adapt for an inner loop, rkhs.adapt for a ClosedForm"
        raise bad_input("inner", "a function_space.FunctionSpace", type(inner).__name__, do)
    return numbers_for(inner, rates), jnp.asarray(support_x), jnp.asarray(support_y)


@typed
def adapt(
    apply: Callable,
    params,
    support_x: Num[ArrayLike, "m ..."],
    support_y: Num[ArrayLike, "m k"],
    inner: FunctionSpace,
    *,
    rates=None,
) -> Adapted:
    r"""Adapt to one task in function space.

    .. math:: a = (K + \gamma I)^{-1}\,(Y' - f(X'))

    Args:
        apply, params: as in `maml.adapt`.
        support_x: `[m, ...]`.
        support_y: `[m, k]`.
        inner: the settings; other numbers do not compile anew.
        rates: numbers in the place of the settings', in the form of `inner.numbers`: those that `maml.fit` learned.

    Returns:
        `Adapted`, for `predictor`. Within `jax.jit`, where nothing can be raised for a gamma that rounding hides, its
        weights are NaN then.

    Raises:
        InputError: labels that do not fit the outputs; hidden features of a network that is not of
            `mlkernels.networks`; a gamma that rounding hides, where the kernel is singular; numbers of another form.

    Example:
        >>> from mlkernels import networks
        >>> network = networks.MLP(width=32)
        >>> params = network.init(jax.random.key(0), (1,))
        >>> x, y = jnp.array([[0.0], [1.0]]), jnp.array([[1.0], [-1.0]])
        >>> adapt(network.apply, params, x, y, FunctionSpace()).weights.shape
        (2, 1)

    Source: our reading of Park and Kang 2024; notebooks/06_function_space_adaptation.
    """
    numbers, x, y = _given(inner, rates, support_x, support_y)
    found = _adapted(apply, params, numbers, x, y, inner.form)
    _checked(found.weights, apply, params, numbers, x, inner)
    return found


def predictor(
    apply: Callable, params, support_x, support_y, inner: FunctionSpace, *, rates=None
) -> Callable[[Num[ArrayLike, "n ..."]], Float[Array, "n k"]]:
    r"""One task's adapted predictor as a function of inputs: what is evaluated, drawn and attacked.

    .. math:: x \mapsto f(x) + k(x, X')\, a

    Args:
        apply, params, support_x, support_y, inner, rates: as in `adapt`.

    Returns:
        `x [n, ...] -> [n, k]`, compiled, differentiable by x; the support set is held fixed.

    Raises:
        InputError: as `adapt`; the predictor itself for points of another shape than the support's.

    Example:
        >>> from mlkernels import networks
        >>> network = networks.MLP(width=32)
        >>> params = network.init(jax.random.key(0), (1,))
        >>> x, y = jnp.array([[0.0], [1.0]]), jnp.array([[1.0], [-1.0]])
        >>> say = predictor(network.apply, params, x, y, FunctionSpace(gamma=1e-6))
        >>> say(x).round(4).ravel().tolist()
        [1.0, -1.0]

    Source: our reading of Park and Kang 2024; notebooks/06_function_space_adaptation.
    """
    found = adapt(apply, params, support_x, support_y, inner, rates=rates)
    form = inner.form
    return of_points(lambda x: _predict(apply, found, x, form), found.support.x.shape[1:])


@typed
def leave_one_out(
    apply: Callable,
    params,
    support_x: Num[ArrayLike, "m ..."],
    support_y: Num[ArrayLike, "m k"],
    inner: FunctionSpace,
    *,
    rates=None,
) -> Float[Array, "m k"]:
    r"""What each support point is missed by when the others alone have adapted the network: of one Cholesky, not m.

    .. math:: y_i - f_{-i}(x_i) = \frac{a_i}{\big[(K + \gamma I)^{-1}\big]_{ii}}, \qquad
              a = (K + \gamma I)^{-1}\,(Y' - f(X'))

    f is held fixed, and may have seen the point in meta-training. Differentiable by the parameters and `rates`.

    Args:
        apply, params, support_x, support_y, inner, rates: as in `adapt`.

    Returns:
        `[m, k]`, labels less predictions.

    Raises:
        InputError: as `adapt`.

    Example:
        >>> from mlkernels import networks
        >>> network = networks.MLP(width=32)
        >>> params = network.init(jax.random.key(0), (1,))
        >>> x = jnp.linspace(-1, 1, 6)[:, None]
        >>> leave_one_out(network.apply, params, x, x**2, FunctionSpace()).shape
        (6, 1)

    Source: Rasmussen and Williams 2006, eq. 5.12; notebooks/06_function_space_adaptation.
    """
    numbers, x, y = _given(inner, rates, support_x, support_y)
    found = _left_out(apply, params, numbers, x, y, inner.form)
    _checked(found, apply, params, numbers, x, inner)
    return found
