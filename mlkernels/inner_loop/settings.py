"""The inner loop: its settings, and a task's parameters after it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Real

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from mlkernels.errors import bad_input
from mlkernels.inner_loop.losses import Loss, check_loss
from mlkernels.inner_loop.parts import split
from mlkernels.support.arguments import flag, in_short, number, whole
from mlkernels.support.array_arguments import real_array
from mlkernels.support.network_arguments import check_params


@dataclass(frozen=True)
class InnerLoop:
    r"""The settings of the inner loop: gradient descent on the support set of a task. Hashable: a static argument.

    .. math:: \theta \leftarrow \theta - \lambda\, \nabla_\theta
              \big[\ell(f(X'; \theta), Y') + \tfrac{\beta}{2}\|\theta\|^2\big]

    over the adapted layers' parameters alone.

    Args:
        rate: lambda, a finite number of at least 0; or a dictionary with one for each adapted layer.
        steps: a whole number of at least 0.
        loss: "half_sum_squares", "mean_squares" (over points and outputs) or "cross_entropy" (mean over points); or a
            function `loss(outputs, labels) -> scalar` of one task's points, hashable.
        l2: beta, at least 0.
        adapt: "all", or the names of top-level layers: ("head",) is ANIL.
        first_order: treat the inner gradients as constants (first-order MAML).
        remat: hold one inner step at a time in the reverse pass and compute it anew. It never changes the result, and
            mattered little to the time where it was measured; memory grows with the steps without it.

    Raises:
        InputError: a number out of its range, an unknown loss.

    Example:
        >>> InnerLoop(0.1, 5, adapt=("head",))
        InnerLoop(rate=0.1, steps=5, loss='half_sum_squares', l2=0.0, adapt=('head',), first_order=False, remat=True)

    Source: Finn et al. 2017 (MAML); notebooks/02_maml_linear_rate.
    """

    rate: float | Mapping[str, float] | tuple[tuple[str, float], ...]
    steps: int
    loss: Loss = "half_sum_squares"
    l2: float = 0.0
    adapt: str | tuple[str, ...] = "all"
    first_order: bool = False
    remat: bool = True

    def __post_init__(self) -> None:
        def keep(name, value):
            object.__setattr__(self, name, value)

        pairs = tuple(self.rate.items()) if isinstance(self.rate, Mapping) else self.rate
        if isinstance(pairs, tuple) and all(isinstance(pair, tuple) and len(pair) == 2 for pair in pairs):
            keep("rate", tuple(sorted((name, number("rate", rate)) for name, rate in pairs)))
        else:
            keep("rate", number("rate", self.rate))
        keep("steps", whole("steps", self.steps))
        keep("l2", number("l2", self.l2))
        for name in ("first_order", "remat"):
            keep(name, flag(name, getattr(self, name)))
        check_loss(self.loss, "loss")
        if self.adapt != "all":
            names = (self.adapt,) if isinstance(self.adapt, str) else self.adapt
            names = tuple(names) if isinstance(names, Sequence) else ()
            if not names or not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
                got, do = in_short(self.adapt), "name what is to adapt"
                raise bad_input("adapt", "'all' or different names of layers", got, do)
            keep("adapt", names)

    @property
    def layers(self) -> tuple[str, ...] | None:
        """Names of the adapted layers; None for all."""
        return None if self.adapt == "all" else self.adapt

    def start_rates(self):
        """The rates as a tree: the number, or a dictionary."""
        return dict(self.rate) if isinstance(self.rate, tuple) else self.rate


def per_layer(params, inner: InnerLoop) -> dict | Array:
    """The rates of the inner loop as arrays, one for each adapted layer, to be learned with the parameters.

    Args:
        params: the parameters.
        inner: the inner loop.

    Returns:
        A dictionary layer -> scalar array; one scalar where the parameters are no dictionary of layers.

    Example:
        >>> rates = per_layer({"body": jnp.ones(2), "head": jnp.ones(2)}, InnerLoop(0.5, 1))
        >>> {name: float(rate) for name, rate in rates.items()}
        {'body': 0.5, 'head': 0.5}
    """
    rates = rates_for(params, inner, None)
    moving = split(params, inner.layers)[0]
    dtype = jnp.result_type(*jax.tree.leaves(moving))
    if not isinstance(rates, dict) and isinstance(moving, dict):
        rates = dict.fromkeys(moving, rates)
    return jax.tree.map(lambda rate: jnp.asarray(rate, dtype), rates)


def rates_for(params, inner: InnerLoop, rates):
    """The rates in effect, arrays in a tree that fits the adapted layers; an `InputError` where none does."""
    if not isinstance(inner, InnerLoop):
        do = "make one, as maml.InnerLoop(0.1, 5); what is no loop adapts by the `adapt` of its own module"
        raise bad_input("inner", "an InnerLoop", type(inner).__name__, do)
    check_params(params)
    if inner.layers is not None:
        names = sorted(params) if isinstance(params, dict) else []
        for name in inner.layers:
            if name not in names:
                got = f"{name!r} beside {names}" if names else f"{name!r} for a {type(params).__name__}"
                raise bad_input("adapt", "layers of the network", got, "name layers of params, or 'all'")
    rates = inner.start_rates() if rates is None else rates
    moving = split(params, inner.layers)[0]
    if isinstance(rates, Mapping):
        names = sorted(moving) if isinstance(moving, dict) else "one number: params has no layers"
        if not isinstance(moving, dict) or sorted(rates) != names:
            raise bad_input("rates", f"one for each adapted layer, {names}", sorted(rates), "name each layer once")
        rates = dict(rates)
    for rate in jax.tree.leaves(rates):
        known = isinstance(rate, Real) or real_array("rates", rate, "an array") is not None
        if known and not isinstance(rate, jax.core.Tracer) and not np.isfinite(np.asarray(rate)).all():
            raise bad_input("rates", "finite numbers", rate, "lower the rate at which the rates are learned")
    if not _all_scalars(rates):
        _check_fit(rates, moving)
    dtype = jnp.result_type(*jax.tree.leaves(moving))

    def typed(rate):  # a number stays on the host until it is used: a tenth of a millisecond, as much as a small step
        return np.asarray(rate, dtype) if isinstance(rate, Real) else jnp.asarray(rate, dtype)

    return jax.tree.map(typed, rates)


def _all_scalars(rates) -> bool:
    """Whether it is one number, or a dictionary with one for each layer, which fit whatever moves."""
    parts = rates.values() if isinstance(rates, dict) else [rates]
    return all(isinstance(part, Real) or getattr(part, "shape", None) == () for part in parts)


def _check_fit(rates, moving) -> None:
    """Refuse rates that are no tree of the layers' form, or whose shapes are not those of the parameters."""

    def fits(rate, part):
        for leaf in jax.tree.leaves(part):
            if np.broadcast_shapes(np.shape(rate), np.shape(leaf)) != np.shape(leaf):
                raise ValueError(np.shape(rate))

    try:
        jax.tree.map(fits, rates, moving)
    except ValueError:
        got = f"shapes {jax.tree.map(lambda rate: list(np.shape(rate)), rates)}"
        do = "give one number, one for each layer, or a tree like the adapted layers"
        raise bad_input("rates", "numbers that fit the adapted layers", in_short(got).strip("'\""), do) from None


def form(inner: InnerLoop) -> InnerLoop:
    """The inner loop without its rate, which is passed beside it, so that another rate does not compile anew."""
    return replace(inner, rate=0.0)
