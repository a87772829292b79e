"""Methods as instances of one bilevel problem: what is outer, what is inner, where the inner descent starts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mlkernels.errors import bad_input
from mlkernels.inner_loop.losses import Loss, check_loss, loss_of, support_loss
from mlkernels.inner_loop.parts import joined, split
from mlkernels.inner_loop.settings import InnerLoop
from mlkernels.support.arguments import number
from mlkernels.support.array_arguments import real_array
from mlkernels.support.network_arguments import check_apply, check_params
from mlkernels.support.typed import typed
from mlkernels.tasks import TaskBatch
from mlkernels.tasks.batch import check_types


def _check_task(task) -> None:
    """Refuse what is no task without the axis of tasks."""
    if not isinstance(task, TaskBatch) or not all(hasattr(leaf, "ndim") for leaf in vars(task).values()):
        raise bad_input("task", "a TaskBatch of one task", type(task).__name__, "make one with mlkernels.tasks")
    if task.support_y.ndim != 2:
        raise bad_input("task", "one task", f"a batch of {len(task)}", "vmap over the batch")
    check_types(task)


@dataclass(frozen=True)
class Adaptation:
    r"""Meta-learning of a network on one task, as a bilevel problem in x = (w, phi), all parameters, and y = w'.

    .. math:: F(x, y) = \ell_D(f(X; y, \varphi), Y), \qquad
              f(x, y) = \ell_S(f(X'; y, \varphi), Y') + \tfrac{\beta}{2}\|y\|^2
              + \tfrac{\lambda}{2}\|y - w\|^2, \qquad y_0 = w

    With all layers adapted it is MAML, with `("head",)` ANIL, each by "reverse"; with a strength and "implicit" iMAML.

    Args:
        apply: `apply(params, x) -> [N, k]`, hashable.
        loss, l2, adapt: the inner loss and what adapts, as in `maml.InnerLoop`.
        outer_loss: as in `maml.meta_loss`.
        strength: lambda, at least 0, as in `maml.ImplicitLoop`; 0 is without a proximal term.

    Raises:
        InputError: as `maml.InnerLoop`.

    Example:
        >>> from mlkernels import networks, tasks
        >>> from mlkernels.learners.bilevel import bilevel
        >>> network, batch = networks.MLP(16), tasks.sinusoid(tasks=3, support=4, queries=5, key=jax.random.key(0))
        >>> params = network.init(jax.random.key(1), (1,))
        >>> find = bilevel(*Adaptation(network.apply).parts, steps=3, rate=0.01)
        >>> jax.vmap(find, (None, 0))(params, batch).value.shape
        (3,)

    Source: Liu and Liu 2020 (BOML), their meta-initialisation and meta-feature based methods;
    notebooks/09_one_bilevel_problem.
    """

    apply: Callable
    loss: Loss = "half_sum_squares"
    outer_loss: Loss = "half_sum_squares"
    l2: float = 0.0
    adapt: str | tuple[str, ...] = "all"
    strength: float = 0.0

    def __post_init__(self) -> None:
        check_apply(self.apply)
        checked = InnerLoop(0.0, 0, self.loss, self.l2, self.adapt)
        check_loss(self.outer_loss, "outer_loss")
        object.__setattr__(self, "l2", checked.l2)
        object.__setattr__(self, "adapt", checked.adapt)
        object.__setattr__(self, "strength", number("strength", self.strength))

    @property
    def layers(self) -> tuple[str, ...] | None:
        """Names of the adapted layers; None for all."""
        return None if self.adapt == "all" else self.adapt

    @property
    def parts(self) -> tuple[Callable, Callable, Callable]:
        """`(outer, inner, start)`, for `bilevel`."""
        return self.outer, self.inner, self.start

    def outer(self, params, w, task: TaskBatch) -> Array:
        """The loss on one task's queries with the adapted layers w."""
        adapted = joined(w, split(params, self.layers)[1])
        return loss_of(self.outer_loss, self.apply(adapted, task.query_x), task.query_y)

    def inner(self, params, w, task: TaskBatch) -> Array:
        """The loss on its support set, with the L2 and the proximal term."""
        w0, phi = split(params, self.layers)
        fit = support_loss(self.apply, self.loss, self.l2, task.support_x, task.support_y)(w, phi)
        if not self.strength:
            return fit
        squares = jax.tree.map(lambda a, b: jnp.sum((a - b) ** 2), w, w0)
        return fit + self.strength / 2 * sum(jax.tree.leaves(squares))

    def start(self, params, task: TaskBatch):
        """The adapted layers as they are."""
        check_params(params)
        missing = [name for name in self.layers or () if not isinstance(params, dict) or name not in params]
        if missing:
            raise bad_input("adapt", "layers of the network", missing, "name layers of params, or 'all'")
        _check_task(task)
        return split(params, self.layers)[0]


@dataclass(frozen=True)
class Ridge:
    r"""Tuning the ridge of a linear regression on validation points, as a bilevel problem in x = log rho and y = W.

    .. math:: F(x, W) = \tfrac12\|X W - Y\|^2, \qquad
              f(x, W) = \tfrac12\|X' W - Y'\|^2 + \tfrac{e^x}{2}\|W\|^2, \qquad W_0 = 0

    Support is what is trained on, queries are the validation points.

    Args:
        none: the problem has no settings.

    Raises:
        InputError: never.

    Example:
        >>> from mlkernels.learners.bilevel import bilevel
        >>> x, y = jnp.eye(2), jnp.ones((2, 1))
        >>> task = jax.tree.map(lambda leaf: leaf[0], TaskBatch(x[None], y[None], x[None], y[None]))
        >>> found = bilevel(*Ridge().parts, hypergradient="implicit", steps=60, rate=0.5)(jnp.array(0.0), task)
        >>> round(float(found.gradient), 6), round(float(Ridge().exact(jnp.array(0.0), task)[1]), 6)
        (0.25, 0.25)

    Source: Liu and Liu 2020 (BOML); Franceschi et al. 2018; notebooks/09_one_bilevel_problem.
    """

    @property
    def parts(self) -> tuple[Callable, Callable, Callable]:
        """`(outer, inner, start)`, for `bilevel`."""
        return self.outer, self.inner, self.start

    def outer(self, log_ridge, w, task: TaskBatch) -> Array:
        """The loss of the validation points."""
        return 0.5 * jnp.sum((task.query_x @ w - task.query_y) ** 2)

    def inner(self, log_ridge, w, task: TaskBatch) -> Array:
        """The loss of the training points, with the ridge."""
        return 0.5 * jnp.sum((task.support_x @ w - task.support_y) ** 2) + 0.5 * jnp.exp(log_ridge) * jnp.sum(w**2)

    def start(self, log_ridge, task: TaskBatch) -> Array:
        """Zeros."""
        _check_task(task)
        return jnp.zeros((task.support_x.shape[-1], task.support_y.shape[-1]), task.support_x.dtype)

    @typed
    def exact(self, log_ridge, task: TaskBatch) -> tuple[Float[Array, ""], Float[Array, ""]]:
        r"""The value and its derivative by log rho at the minimum, in closed form.

        .. math:: W = A^{-1} X'^\top Y', \qquad \frac{dF}{dx} = -\rho\, \langle X^\top (X W - Y),\, A^{-1} W \rangle,
                  \qquad A = X'^\top X' + \rho I

        Args:
            log_ridge: x, a scalar.
            task: one task, features `[m, d]` and `[n, d]`, labels `[m, k]` and `[n, k]`.

        Returns:
            Two scalars.

        Raises:
            InputError: a batch of tasks.

        Example:
            >>> x, y = jnp.eye(2), jnp.ones((2, 1))
            >>> task = jax.tree.map(lambda leaf: leaf[0], TaskBatch(x[None], y[None], x[None], y[None]))
            >>> [round(float(each), 6) for each in Ridge().exact(jnp.array(0.0), task)]
            [0.25, 0.25]

        Source: derived here; notebooks/09_one_bilevel_problem.
        """
        _check_task(task)
        if task.support_x.ndim != 2:
            raise bad_input("task", "features [m, d]", list(task.support_x.shape), "flatten them")
        log_ridge = jnp.asarray(real_array("log_ridge", log_ridge))
        if log_ridge.ndim:
            raise bad_input("log_ridge", "one number", list(log_ridge.shape), "give one, or vmap")
        X, ridge = task.support_x, jnp.exp(log_ridge)
        A = jax.scipy.linalg.cho_factor(X.T @ X + ridge * jnp.eye(X.shape[1], dtype=X.dtype))
        w = jax.scipy.linalg.cho_solve(A, X.T @ task.support_y)
        residual = task.query_x @ w - task.query_y
        slope = -ridge * jnp.sum((task.query_x.T @ residual) * jax.scipy.linalg.cho_solve(A, w))
        return 0.5 * jnp.sum(residual**2), slope
