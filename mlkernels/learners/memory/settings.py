"""The settings of learners that remember; and the moving mean that all of them are made of."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from numbers import Real

import jax
import jax.numpy as jnp

from mlkernels.errors import bad_input
from mlkernels.support.arguments import in_short, is_real, number, one_of, plain, whole
from mlkernels.support.array_arguments import is_real_type

MOVES = ("sampled", "all")


@dataclass(frozen=True)
class Memory:
    r"""The settings of MOML: each task's adapted parameters are remembered, as a moving mean. Hashable.

    .. math:: u_i \leftarrow (1 - \beta)\, u_i + \beta\, \theta_i'(\theta), \qquad
              \mathcal{L} = \sum_{i \in B} \ell_i(u_i)

    for the tasks of a batch, with theta_i' the parameters after the inner loop (one step, in the paper) on the few
    points at hand. What is remembered is a constant: the gradient goes through the new part alone, and has a factor
    beta. With beta = 1 it is MAML.

    With `moves="all"` (MOML-v2) the memories of all T tasks move, for B drawn ones:

    .. math:: u_i \leftarrow (1 - \beta)\, u_i + \beta\, \theta +
              \beta\, \frac{T}{B} \sum_{b:\; i_b = i} \big(\theta_b'(\theta) - \theta\big)

    the sum being empty for tasks that were not drawn.

    A task that is twice in a batch is judged, each time, at a new u of its own, made from the same old one. Kept is
    their mean; with `moves="all"` the sum above: its expectation is what it would be if all tasks were drawn.

    It costs the memory of T networks, and each step of `maml.fit` writes all of it. With `moves="all"` the inner step
    of a drawn task is T / B times as long, and an inner rate that is safe for MAML can diverge.

    Args:
        beta: the share of what is new, above 0 and at most 1.
        moves: "sampled" (MOML) or "all" (MOML-v2).

    Raises:
        InputError: a share out of its range, an unknown name.

    Example:
        >>> Memory(0.3)
        Memory(beta=0.3, moves='sampled')

    Source: Wang, Yuan, Ying and Yang 2023 (MOML), the authors' public code, where a task that is twice in a batch moves
    its memory twice, one after the other; notebooks/08_more_steps_fewer_samples.
    """

    beta: float
    moves: str = "sampled"

    def __post_init__(self) -> None:
        object.__setattr__(self, "beta", share(self.beta))
        one_of("moves", self.moves, MOVES)


@dataclass(frozen=True)
class LocalMemory:
    r"""The settings of LocalMOML: each task takes several steps of its own, on a copy of theta. Hashable.

    .. math:: w_i^0 = \theta, \quad u_i^0 = \theta_i'(\theta; S^0); \qquad
              u_i^h = (1 - \beta)\, u_i^{h-1} + \beta\, \theta_i'(w_i^{h-1}; S^h), \quad
              w_i^h = w_i^{h-1} - \eta\, \nabla_w\, \ell(u_i^h; Q^h)

    for h from 1 to H, and then the mean over the batch's tasks of the copies,

    .. math:: \theta \leftarrow \frac1B \sum_i w_i^H .

    A round begins with a memory made anew: nothing is kept for a task from round to round. In personalised federated
    learning a task is a client, and only w_i^H is sent.

    A support set holds K0 + H K points, and a query set H Q: the first K0 are S^0, the others S^1, ..., S^H in order.
    With a loss that is a sum, like "half_sum_squares", K0 other than K is another inner rate; "mean_squares" is not.

    Args:
        beta: the share of what is new, above 0 and at most 1.
        rate: eta of the local steps, at least 0; or a schedule `outer step -> eta`, as optax has them.
        steps: H, local steps, at least 1.
        start: K0, points that the memory starts from, at least 1.

    Raises:
        InputError: a number out of its range.

    Example:
        >>> LocalMemory(0.3, rate=0.005, steps=5, start=2)
        LocalMemory(beta=0.3, rate=0.005, steps=5, start=2)

    Source: Wang, Yuan, Ying and Yang 2023 (LocalMOML), the authors' public code;
    notebooks/08_more_steps_fewer_samples.
    """

    beta: float
    rate: float | Callable
    steps: int = 5
    start: int = 2

    def __post_init__(self) -> None:
        object.__setattr__(self, "beta", share(self.beta))
        object.__setattr__(self, "steps", whole("steps", self.steps, 1))
        object.__setattr__(self, "start", whole("start", self.start, 1))
        if not callable(self.rate):
            object.__setattr__(self, "rate", number("rate", self.rate))
        elif not isinstance(self.rate, Hashable):
            do = "use a function, as optax's schedules are: JAX compiles once for each"
            raise bad_input("rate", "a number, or a schedule that can be hashed", type(self.rate).__name__, do)

    def rate_at(self, step):
        """Eta at an outer step, which may be traced."""
        if not callable(self.rate):
            return self.rate
        with jax.numpy_dtype_promotion("standard"):  # as optax's optimisers are called in the outer loop
            found = self.rate(step)
        if isinstance(found, jax.core.Tracer) or not isinstance(plain(found), Real):
            known = getattr(found, "shape", None) == () and is_real_type(found.dtype)
            if not known:
                do = "give a schedule as optax has them"
                raise bad_input("rate", "a schedule that gives one number", in_short(found), do)
            return found
        return number("rate", found)


def share(beta) -> float:
    """Beta as Python's float, if it is one."""
    beta = plain(beta)
    if not is_real(beta) or not 0 < beta <= 1:
        raise bad_input(
            "beta", "a number above 0 and at most 1", in_short(beta), "use 1 for no memory, 0.3 for a long one"
        )
    return float(beta)


def moved(beta, old, new):
    r"""The moving mean of two trees, through whose old part no gradient goes; beta may be traced.

    .. math:: (1 - \beta)\, \mathrm{stop}(u) + \beta\, v
    """

    def leaf(u, v):
        b = jnp.asarray(beta, v.dtype)
        return (1 - b) * jax.lax.stop_gradient(u) + b * v

    return jax.tree.map(leaf, old, new)
