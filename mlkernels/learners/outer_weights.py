"""How much each task counts in the outer loop: weights by the tasks' losses and by how their gradients lie together.

A rule stands in the place of `reduce` in `maml.meta_gradient` and `maml.fit`. Its weights are constants of a step:
nothing is differentiated through them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Num

from mlkernels.errors import bad_input
from mlkernels.support.arguments import number
from mlkernels.support.batches import apart
from mlkernels.support.eigenvectors import eigh
from mlkernels.support.typed import typed

_ENTRIES = 10  # times B: how often a task may enter the active set; SciPy's nnls grants 3


@dataclass(frozen=True)
class Rule:
    r"""What all rules share. A rule of one's own is a frozen dataclass made from it, with `of(losses, gram)`.

    .. math:: w = w\big(\ell_1, \dots, \ell_B;\; G\big), \qquad G_{ij} = \langle g_i, g_j \rangle, \qquad
              w \ge 0, \quad \textstyle\sum_i w_i = 1

    Args:
        none: a rule's fields are its settings. It is hashable, and compiled once for each.

    Raises:
        InputError: a rule without `of`, when it is asked for weights.

    Example:
        >>> @dataclass(frozen=True)
        ... class First(Rule):
        ...     def of(self, losses, gram):
        ...         return jnp.eye(len(losses))[0]
        >>> First().weights(jnp.ones(3), jnp.eye(3)).tolist()
        [1.0, 0.0, 0.0]

    Source: our reading of Park and Kang 2024; notebooks/06_function_space_adaptation.
    """

    def of(self, losses: Array, gram: Array) -> Array:
        """The weights, from finite arrays as wide as JAX has them; `gram` is symmetric. Traced."""
        raise bad_input(
            "rule", "one with a method of(losses, gram)", type(self).__name__, "take Uniform(), or write it"
        )

    @typed
    def weights(self, losses: Num[Array, " B"], gram: Num[Array, "B B"]) -> Float[Array, " B"]:
        """The weights of B tasks; computed in float64 where JAX has it, and constant for a derivative.

        Args:
            losses: `[B]`, finite.
            gram: `[B, B]`, finite: the inner products of the tasks' gradients. All of them times one positive number
                gives the same weights.

        Returns:
            `[B]`, none below 0, their sum 1; in the losses' type. NaN where traced numbers are not finite.

        Raises:
            InputError: other shapes; numbers that are not finite, where that can be seen.

        Example:
            >>> w = MinNorm().weights(jnp.ones(2), jnp.array([[1.0, 0.0], [0.0, 4.0]]))
            >>> [round(each, 3) for each in w.tolist()]
            [0.8, 0.2]

        Source: our reading of Park and Kang 2024; notebooks/06_function_space_adaptation.
        """
        losses, gram = jnp.asarray(losses), jnp.asarray(gram)
        if losses.ndim != 1 or not len(losses):
            raise bad_input("losses", "[B], one loss for each task", list(losses.shape), "give a row of numbers")
        if gram.shape != (len(losses), len(losses)):
            expected = f"[{len(losses)}, {len(losses)}], as there are {len(losses)} losses"
            raise bad_input("gram", expected, list(gram.shape), "give the gradients' inner products")
        _check_finite("losses", losses)
        _check_finite("gram", gram)
        kept = losses.dtype if jnp.issubdtype(losses.dtype, jnp.floating) else jnp.result_type(float)
        losses, gram = (jax.lax.stop_gradient(part).astype(jnp.result_type(float)) for part in (losses, gram))
        gram = gram / 2 + gram.T / 2
        finite = jnp.isfinite(losses).all() & jnp.isfinite(gram).all()
        w = jnp.where(finite, self.of(losses, gram), jnp.nan)
        return jax.lax.stop_gradient(w.astype(kept))


@dataclass(frozen=True)
class Uniform(Rule):
    r"""All tasks alike: `reduce="mean"`.

    .. math:: w_i = 1 / B

    Args:
        none: it has no settings.

    Raises:
        InputError: never.

    Example:
        >>> Uniform().weights(jnp.array([1.0, 9.0]), jnp.eye(2)).tolist()
        [0.5, 0.5]

    Source: Finn et al. 2017.
    """

    def of(self, losses: Array, gram: Array) -> Array:
        """The weights `[B]`."""
        return jnp.full(len(losses), 1 / len(losses))


@dataclass(frozen=True)
class SoftmaxCosine(Rule):
    r"""More for tasks whose gradient lies along the mean of all.

    .. math:: w_i \propto \exp\Big(\frac{\cos(g_i, \bar g)}{T}\Big), \qquad \bar g = \frac1B \sum_j g_j

    A gradient of zero has the cosine 0 with anything; so have all where the mean is zero, up to rounding. Tasks that
    go against the majority count less: nothing says that their loss falls.

    Args:
        temperature: T, positive. Small: all weight on the task most along the mean; large: all tasks alike.

    Raises:
        InputError: a temperature that is not positive.

    Example:
        >>> gram = jnp.array([[1.0, 1.0, -1.0], [1.0, 1.0, -1.0], [-1.0, -1.0, 1.0]])  # g, g and -g
        >>> [round(each, 3) for each in SoftmaxCosine(0.5).weights(jnp.ones(3), gram).tolist()]
        [0.495, 0.495, 0.009]

    Source: our reading of Park and Kang 2024; notebooks/06_function_space_adaptation.
    """

    temperature: float = 1.0

    def __post_init__(self) -> None:
        do = "use 1, or a large number for nearly equal weights"
        object.__setattr__(self, "temperature", number("temperature", self.temperature, do=do))
        if not self.temperature:
            raise bad_input("temperature", "a positive number", self.temperature, do)

    def of(self, losses: Array, gram: Array) -> Array:
        """The weights `[B]`."""
        info = jnp.finfo(gram.dtype)
        gram = gram / _or_one(jnp.abs(gram).max())
        along, square, total = gram.sum(1), jnp.diag(gram), gram.sum()  # B g_i . mean, g_i . g_i, (B mean) . (B mean)
        there = (square > 0) & (total > 4 * info.eps * jnp.abs(gram).sum())  # below that, the mean is rounding
        lengths = jnp.sqrt(jnp.where(there, square, 1)) * jnp.sqrt(jnp.where(there, total, 1))
        cosine = jnp.where(there, jnp.clip(along / lengths, -1, 1), 0)
        return jax.nn.softmax((cosine - cosine.max()) / max(self.temperature, float(info.tiny)))


@dataclass(frozen=True)
class InverseLoss(Rule):
    r"""More for tasks that are solved already; the gradients do not enter.

    .. math:: w_i \propto 1 / \ell_i

    which is the gradient of the sum of log-losses, scaled. A loss of 0 takes all the weight, several share it alike:
    the limit for losses that go to 0 together. A loss below 0, which a function of one's own can give, or
    `rkhs.Regularised`, counts as 0.

    Args:
        none: it has no settings.

    Raises:
        InputError: never.

    Example:
        >>> InverseLoss().weights(jnp.array([1.0, 3.0]), jnp.eye(2)).tolist()
        [0.75, 0.25]
        >>> InverseLoss().weights(jnp.array([0.0, 3.0]), jnp.eye(2)).tolist()
        [1.0, 0.0]

    Source: our reading of Park and Kang 2024; notebooks/06_function_space_adaptation.
    """

    def of(self, losses: Array, gram: Array) -> Array:
        """The weights `[B]`."""
        losses = losses / _or_one(jnp.abs(losses).max())
        solved = losses < jnp.finfo(losses.dtype).tiny  # of the largest; below it a machine may not tell it from 0
        least = losses.min()  # on top of each fraction, so that none overflows
        w = jnp.where(solved.any(), solved.astype(losses.dtype), least / jnp.where(solved, 1, losses))
        return w / w.sum()


@dataclass(frozen=True)
class MinNorm(Rule):
    r"""The weights of the shortest vector among all weighted means of the gradients.

    .. math:: w = \arg\min_{w \ge 0,\; \sum w_i = 1} \tfrac12 \Big\| \sum_i w_i g_i \Big\|^2, \qquad
              d = \sum_i w_i g_i: \quad \langle g_i, d \rangle \ge \|d\|^2 \text{ for all } i

    A small step along -d lowers the loss of every task, by as much at least as the square of its length says; d = 0
    where no direction does that, to first order. Long gradients get small weights, and where only some tasks are near
    their minimum the outer loop all but stops.

    The minimum is found exactly, up to rounding, by an active-set method: with s any length, w is u / sum u for the
    least squares

    .. math:: \min_{u \ge 0}\; \frac1{s^2} \Big\| \sum_i u_i g_i \Big\|^2 + \Big(\sum_i u_i - 1\Big)^2 ,

    which Lawson and Hanson's method solves: a task enters, those whose weight would turn negative leave, at most B for
    each that enters; in exact arithmetic no set of tasks comes twice. It ends when no task has reason to enter, and
    after 10 B entries in any case. Where several weights give the same d, one of them is found.

    Args:
        none: it has no settings.

    Raises:
        InputError: never.

    Example:
        >>> g = jnp.array([[1.0, 0.0], [-3.0, 0.0], [4.0, 1.0]])
        >>> w = MinNorm().weights(jnp.ones(3), g @ g.T)
        >>> [round(each, 3) for each in w.tolist()], round(float(jnp.abs(w @ g).max()), 6)
        ([0.75, 0.25, 0.0], 0.0)

    Source: Désidéri 2012 (MGDA), Sener and Koltun 2018; Lawson and Hanson 1974, chapter 23, for the method; that it
    fits here is our reading of Park and Kang 2024; notebooks/06_function_space_adaptation.
    """

    def of(self, losses: Array, gram: Array) -> Array:
        """The weights `[B]`."""
        return shortest(gram)[0]


@typed
def combine(rule: Rule, losses: Num[ArrayLike, " B"], gradients):
    r"""A rule's weights for some tasks, and their gradients put together by them.

    .. math:: d = \sum_i w_i\, g_i, \qquad w = \mathrm{rule}(\ell, G), \quad G_{ij} = \langle g_i, g_j \rangle

    with the inner products over all leaves, in float64 where JAX has it.

    Args:
        rule: one of this module's, or another `Rule`.
        losses: `[B]`.
        gradients: a pytree whose leaves are `[B, ...]`.

    Returns:
        `(w, d)`: `[B]`, and a pytree without the first axis, in the leaves' types; of whole numbers in floats.

    Raises:
        InputError: no rule, no numbers in the leaves, leaves of another first axis; what `weights` refuses.

    Example:
        >>> w, d = combine(MinNorm(), jnp.ones(2), {"w": jnp.array([[1.0, 0.0], [0.0, 2.0]])})
        >>> [round(each, 3) for each in [*w.tolist(), *d["w"].tolist()]]
        [0.8, 0.2, 0.8, 0.4]

    Source: our reading of Park and Kang 2024; notebooks/06_function_space_adaptation.
    """
    if not isinstance(rule, Rule):
        raise bad_input("rule", "a rule of outer_weights", repr(rule), "make one, as outer_weights.MinNorm()")
    losses, shapes = jnp.asarray(losses), [jnp.shape(leaf) for leaf in jax.tree.leaves(gradients)]
    count = losses.shape[:1]
    if not any(map(math.prod, shapes)) or any(shape[:1] != count or not shape for shape in shapes):
        expected = f"leaves [{', '.join(map(str, count))}, ...], a gradient for each of the losses"
        got = [list(shape) for shape in shapes]
        raise bad_input("gradients", expected, got, "stack the tasks' gradients along a first axis")
    _check_finite("gradients", gradients)
    w = rule.weights(losses, gram_of(gradients))

    def together(leaf):
        kept = leaf.dtype if jnp.issubdtype(leaf.dtype, jnp.floating) else jnp.result_type(float)
        return jnp.tensordot(w.astype(kept), leaf.astype(kept), 1, precision="highest")

    return w, jax.tree.map(together, gradients)


def gram_of(gradients) -> Array:
    """Inner products `[B, B]` of trees that are stacked, over the square of their largest entry: tiny ones stay."""
    wide = jnp.result_type(float)
    leaves = [jax.lax.stop_gradient(leaf) for leaf in jax.tree.leaves(gradients)]
    leaves = [leaf.reshape(len(leaf), -1) for leaf in leaves if leaf.size]
    scale = _or_one(jnp.stack([jnp.abs(leaf).max().astype(wide) for leaf in leaves]).max())
    rows = (leaf.astype(wide) / scale for leaf in leaves)  # leaf by leaf: no copy of all of them side by side
    return sum(jnp.einsum("ip,jp->ij", part, part, precision="highest") for part in rows)


def _check_finite(name: str, tree) -> None:
    """Refuse infinities and NaN, but for traced arrays, of which nobody knows."""
    for leaf in jax.tree.leaves(tree):
        if not isinstance(leaf, jax.core.Tracer) and not jnp.isfinite(leaf).all():
            raise bad_input(name, "finite numbers", "infinities or NaN", "look for a diverged loop")


_qr = apart(jnp.linalg.qr, lambda shape: 4 * shape[0] * shape[1] ** 2)  # Householder's, and Q of it


def _or_one(scale: Array) -> Array:
    return jnp.where(scale > 0, scale, 1)


@jax.jit
def shortest(gram: Array) -> tuple[Array, Array]:
    """`MinNorm`'s weights, and how many entries they took.

    Not by normal equations, whose condition number is squared, but by QR, with a root of the gradients' cosines. Each
    gradient is known to its own length so, whatever the others' are, and s is the shortest.
    """
    B, eps = len(gram), float(jnp.finfo(gram.dtype).eps)
    gram = gram / _or_one(jnp.diag(gram).max())
    lengths = jnp.sqrt(jnp.maximum(jnp.diag(gram), 0))
    there = lengths > 0
    safe = jnp.where(there, lengths, 1)
    cosines = jnp.where(there[:, None] & there[None], gram / safe[:, None] / safe[None], 0)
    values, vectors = eigh(cosines)
    values = jnp.where(values > 4 * B * eps * values[-1], values, 0)  # else rounding
    root = jnp.sqrt(values)[:, None] * vectors.T  # root^T root = cosines
    lengths = lengths / jnp.where(there, lengths, jnp.inf).min()
    lengths = jnp.where(there, lengths, 0)

    # Columns (g_i / s; 1), each over its own length: their coefficients are x_i = u_i times that.
    size = jnp.hypot(lengths, jnp.ones_like(lengths))
    columns = jnp.concatenate([root * (lengths / size)[None], 1 / size[None]])
    target = jnp.zeros(B + 1, gram.dtype).at[-1].set(1)

    def solution(active):
        """Least squares over the active columns; the others are replaced by what is orthogonal to all."""
        extended = jnp.concatenate([jnp.where(active[None], columns, 0), jnp.diag(1 - active.astype(gram.dtype))])
        q, r = _qr(extended)
        return jnp.where(active, jax.scipy.linalg.solve_triangular(r, q[: B + 1].T @ target), 0)

    def slopes(x):
        return columns.T @ (target - columns @ x)

    def ready(x, active, blocked, slope):
        """Who may enter: tasks along which the squares fall, by more than rounding."""
        return ~active & ~blocked & (slope > 4 * B * eps * (1 + x.sum()))

    def leave(carry):
        x, active, z = carry
        falls = active & (z <= 0)
        share = jnp.where(falls, x / jnp.where(falls, x - z, 1), jnp.inf)
        x = x + share.min() * (z - x)
        active = active & ~(falls & (x <= 0)) & (jnp.arange(B) != jnp.argmin(share))
        return jnp.where(active, x, 0), active, solution(active)

    def enter(carry):
        x, active, blocked, slope, count = carry
        new = jnp.arange(B) == jnp.argmax(jnp.where(ready(x, active, blocked, slope), slope, -jnp.inf))
        z = solution(active | new)
        # where rounding says the opposite of the slope, it waits until something else has changed
        well = jnp.isfinite(z).all() & (jnp.where(new, z, 0).sum() > 0)
        z = jnp.where(well, z, x)
        start = x, jnp.where(well, active | new, active), z
        _, now, z = jax.lax.while_loop(lambda carry: (carry[1] & (carry[2] <= 0)).any(), leave, start)
        return z, now, jnp.where(well, False, blocked | new), slopes(z), count + 1

    def going(carry):
        return ready(*carry[:4]).any() & (carry[4] < _ENTRIES * B)

    nobody = jnp.zeros(B, bool)
    start = jnp.zeros(B, gram.dtype), nobody, nobody, slopes(jnp.zeros(B, gram.dtype)), jnp.zeros((), int)
    x, *_, count = jax.lax.while_loop(going, enter, start)
    u = x / size
    return u / u.sum(), count
