"""What masks of layers cost: counted for all from a few compiled programs, measured, and by the deepest layer."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import ArrayLike, Bool, Float, Integer, Num

from mlkernels.errors import bad_input
from mlkernels.inner_loop.descent import adapted, gradient_step
from mlkernels.inner_loop.losses import support_loss
from mlkernels.inner_loop.parts import split
from mlkernels.inner_loop.settings import InnerLoop, form, rates_for
from mlkernels.learners.cost import in_turns, one_task, program_flops
from mlkernels.learners.layer_masks.masks import (
    check_adapts_all,
    check_layers,
    check_masks,
    deepest,
    layers_in_order,
    layers_of,
    of_each_step,
)
from mlkernels.learners.problem import in_sequence, problem_of
from mlkernels.support.arguments import flag, whole
from mlkernels.support.array_arguments import real_array, real_arrays
from mlkernels.support.typed import typed
from mlkernels.tasks import TaskBatch


@dataclass(frozen=True, eq=False)
class LayerCosts:
    r"""Floating-point operations of the parts of an inner step, from which those of any mask are sums.

    .. math:: c(m) = \sum_\ell f_\ell + b_d + \sum_{\ell > d} m_\ell\, g_\ell, \qquad d = \text{deepest layer in } m

    Args:
        forward: f, `[L]`, each layer's forward pass.
        backward: b, `[L]`, for each layer the backward pass that updates it alone: the signal's way down to it through
            the layers above, its gradient and its update.
        update: g, `[L]`, for each layer its gradient and update, where the signal passes anyway; 0 for the first, which
            it reaches only to update it.

    Example:
        >>> costs = LayerCosts(np.array([4.0, 1.0]), np.array([6.0, 2.0]), np.array([0.0, 2.0]))
        >>> costs.of([[0, 0], [0, 1], [1, 0], [1, 1]]).tolist()
        [0.0, 7.0, 11.0, 13.0]
        >>> costs.of([[0, 1]], steps=3).tolist(), costs.of([[0, 1]], steps=3, keep=False).tolist()
        ([13.0], [21.0])

    Source: notebooks/07_which_weights_adapt.
    """

    forward: Float[np.ndarray, " L"]
    backward: Float[np.ndarray, " L"]
    update: Float[np.ndarray, " L"]

    def __post_init__(self) -> None:
        names = ("forward", "backward", "update")
        for name, part in zip(names, real_arrays(**{name: (getattr(self, name), "L") for name in names}), strict=True):
            object.__setattr__(self, name, np.asarray(part, float))

    def of(
        self, masks: Bool[ArrayLike, "M *S L"] | Integer[ArrayLike, "M *S L"], steps: int = 1, *, keep: bool = True
    ) -> Float[np.ndarray, " M"]:
        """The operations of the whole adaptation under each mask.

        Args:
            masks: bool `[M, L]`, for all steps, or `[M, S, L]`.
            steps: of masks `[M, L]`, at least 0.
            keep: keep the features that the steps before have not changed, as a compiled program does: layers below
                the deepest updated one are computed once. False computes them anew in each step, as most code does.

        Returns:
            `[M]`; a step that updates nothing costs nothing.

        Raises:
            InputError: masks for another number of layers.
        """
        keep = flag("keep", keep)
        masks = of_each_step(masks, len(self.forward), whole("steps", steps))
        depth, at = deepest(masks), np.arange(len(self.forward))
        below = np.concatenate([[0.0], np.cumsum(self.forward)])  # the forward pass below each layer
        backward = np.append(self.backward, 0.0)[depth]
        backward = backward + (self.update[None, None] * masks * (at[None, None] > depth[..., None])).sum(-1)
        total, known = np.zeros(len(masks)), np.zeros(len(masks), int)  # layers whose features are up to date
        for step in range(masks.shape[1]):
            moves = depth[:, step] < len(at)
            total += np.where(moves, below[-1] - below[known] + backward[:, step], 0.0)
            if keep:
                known = np.where(moves, depth[:, step], known)
        return total


def layer_costs(network, params, tasks: TaskBatch, inner: InnerLoop, *, compiled: bool = True) -> LayerCosts:
    r"""Operations of the parts of an inner step over all tasks' support sets, as XLA counts them in its programs.

    3L - 1 programs for all :math:`2^L` masks, none of which is run: the forward pass up to each layer, a step that
    updates one layer alone, and one that updates it and all above. The sums were within 0.1% of what was counted in the
    compiled program of each mask that was tried, of one step and of several.

    Args:
        network: an `MLP` or a `Conv4`: it has `layers`, `apply` and `features`.
        params: its parameters, or only their shapes (`jax.eval_shape`).
        tasks: B tasks; only their sizes enter.
        inner: the inner loop, with `adapt="all"`; its loss and L2 term enter, neither its rate nor its steps.
        compiled: count the compiled programs. False counts what would be compiled, in a twentieth of the time; a step
            computes next to nothing twice: 1% more for an MLP of width 32, 0.001% for Conv-4.

    Returns:
        `LayerCosts`, whose `of` gives any masks' operations.

    Raises:
        InputError: parameters that are not the network's; labels that the loss cannot work with.

    Example:
        >>> from mlkernels import networks, tasks
        >>> from mlkernels.learners.layer_masks import all_masks
        >>> batch = tasks.sinusoid(tasks=2, support=10, queries=10, key=jax.random.key(0))
        >>> network = networks.MLP(width=32)
        >>> params = network.init(jax.random.key(1), (1,))
        >>> found = layer_costs(network, params, batch, InnerLoop(0.01, 1)).of(all_masks(3))
        >>> head, above_the_first, everything = found[[0b001, 0b011, 0b111]]
        >>> bool(head < above_the_first < everything)
        True

    Source: Khabarlak 2022, whose claim is about time; `cost.cost_formula` counts the same products by hand;
    notebooks/07_which_weights_adapt.
    """
    layers = layers_in_order(network)
    if not hasattr(network, "features"):
        do = "pass a network that says what each layer puts out"
        raise bad_input("network", "a network of mlkernels.networks", type(network).__name__, do)
    check_adapts_all(inner)
    compiled = flag("compiled", compiled)
    inner = replace(inner, rate=0.1)
    problem_of(network.apply, params, tasks, inner, None, "half_sum_squares")
    check_layers(params, layers)
    task = one_task(tasks)

    def up_to(name):
        return program_flops(
            lambda params, x: network.features(params, x)[name], params, task.support_x, compiled=compiled
        )

    def step(*names):
        def moved(params, task):
            w, phi = split(params, names)
            support = support_loss(network.apply, inner.loss, inner.l2, task.support_x, task.support_y)
            return gradient_step(w, inner.rate, jax.grad(support)(w, phi))

        return program_flops(moved, params, task, compiled=compiled)

    forward = np.array([up_to(name) for name in layers])
    alone = np.array([step(name) for name in layers])
    with_above = np.array([*(step(*layers[i:]) for i in range(len(layers) - 1)), alone[-1]])
    above = with_above - alone  # the updates of all layers above each
    update = np.concatenate([[0.0], above[:-1] - above[1:]])
    parts = np.diff(forward, prepend=0.0), alone - forward[-1], update
    return LayerCosts(*(tasks.tasks * part for part in parts))


class CostByDepth(NamedTuple):
    """How far the deepest updated layer sets what a mask costs.

    Args:
        low, high: `[L + 1]`, the least and the most that masks of each depth cost; the last entry is of the mask that
            updates nothing. NaN where there is no such mask.
        explained: the share of the costs' variance over the masks that lies between depths, from 0 to 1: 1 where the
            depth alone sets the cost.
    """

    low: Float[np.ndarray, " depths"]
    high: Float[np.ndarray, " depths"]
    explained: float


@typed
def cost_by_depth(
    masks: Bool[ArrayLike, "M L"] | Integer[ArrayLike, "M L"], costs: Num[ArrayLike, " M"]
) -> CostByDepth:
    r"""Whether the deepest updated layer sets a mask's cost: ranges, and the share of variance.

    .. math:: R^2 = 1 - \frac{\sum_m (c_m - \bar c_{d(m)})^2}{\sum_m (c_m - \bar c)^2}

    Masks of one depth differ by the gradients of the layers above it, for each of them one product of three: forward,
    the signal's way through, the gradient. So the dearest costs half as much again as the cheapest, at most; and it may
    cost more than a mask that goes one layer deeper, if that layer is small.

    Args:
        masks: bool `[M, L]`.
        costs: `[M]`, counted or measured.

    Returns:
        `CostByDepth`: low, high, explained.

    Raises:
        InputError: masks and costs of different numbers; costs that are not finite or all the same.

    Example:
        >>> found = cost_by_depth([[0, 1], [1, 0], [1, 1]], [1.0, 4.0, 5.0])
        >>> found.low.tolist(), found.high.tolist(), round(found.explained, 2)
        ([4.0, 1.0, nan], [5.0, 1.0, nan], 0.94)

    Source: Khabarlak 2022, whose fast patterns leave the deep layers alone; notebooks/07_which_weights_adapt.
    """
    masks, costs = check_masks(masks), np.asarray(real_array("costs", costs), float)
    if masks.ndim != 2 or costs.shape != masks.shape[:1]:
        got = f"{list(masks.shape)} and {list(costs.shape)}"
        raise bad_input("costs", "masks [M, L] and costs [M]", got, "give one cost for each mask")
    if not np.isfinite(costs).all() or np.ptp(costs) == 0:
        got = "the same everywhere" if np.isfinite(costs).all() else "infinities or NaN"
        raise bad_input("costs", "finite numbers that differ", got, "give the costs of several masks")
    depth, depths = deepest(masks), masks.shape[1] + 1
    low, high, within = np.full(depths, np.nan), np.full(depths, np.nan), 0.0
    for each in np.unique(depth):
        of_depth = costs[depth == each]
        low[each], high[each] = of_depth.min(), of_depth.max()
        within += ((of_depth - of_depth.mean()) ** 2).sum()
    return CostByDepth(low, high, float(1 - within / ((costs - costs.mean()) ** 2).sum()))


@partial(jax.jit, static_argnums=(0, 1, 2))
def _adapted_layers(apply, inner: InnerLoop, sequential: bool, params, rates, tasks) -> dict:
    def one(task):
        theta = adapted(apply, params, rates, task.support_x, task.support_y, inner)
        return split(theta, inner.layers)[0]

    return jax.lax.map(one, tasks) if sequential else jax.vmap(one)(tasks)


@typed
def measured_seconds(
    network,
    params,
    tasks: TaskBatch,
    inner: InnerLoop,
    masks: Bool[ArrayLike, "M L"] | Integer[ArrayLike, "M L"],
    *,
    sequential: bool | None = None,
    repeats: int = 7,
) -> Float[np.ndarray, " M"]:
    """Wall time of adapting to all tasks under each mask, measured in turns (`cost.in_turns`).

    Each mask has a program of its own, that of its `InnerLoop`: choose few, as one for each deepest layer.

    Args:
        network, params, tasks: as in `scores`.
        inner: the inner loop, with `adapt="all"`.
        masks: bool `[M, L]`, each of which updates something.
        sequential: as in `maml.meta_loss`.
        repeats: runs of each, after one that does not count; at least 1.

    Returns:
        `[M]`, seconds: the median of the runs.

    Raises:
        InputError: as `scores`; a mask that updates nothing.

    Example:
        >>> from mlkernels import networks, tasks
        >>> batch = tasks.sinusoid(tasks=2, support=10, queries=10, key=jax.random.key(0))
        >>> network = networks.MLP(width=32)
        >>> params = network.init(jax.random.key(1), (1,))
        >>> seconds = measured_seconds(network, params, batch, InnerLoop(0.01, 5), [[0, 0, 1], [1, 1, 1]], repeats=2)
        >>> seconds.shape, bool((seconds > 0).all())
        ((2,), True)

    Source: Khabarlak 2022, whose claim is about time; notebooks/07_which_weights_adapt.
    """
    layers = layers_in_order(network)
    check_adapts_all(inner)
    problem_of(network.apply, params, tasks, inner, None, "half_sum_squares")
    check_layers(params, layers)
    masks = check_masks(masks, len(layers))
    if masks.ndim != 2 or not masks.any(-1).all():
        got = f"masks of shape {list(masks.shape)}" if masks.ndim != 2 else "one that updates nothing"
        raise bad_input("masks", "masks [M, L] that update something", got, "leave it out: it takes no time")
    sequential = in_sequence(params) if sequential is None else flag("sequential", sequential)
    rates = rates_for(params, inner, None)

    def call(names: Sequence[str]):
        own = {name: rates[name] for name in names} if isinstance(rates, dict) else rates
        how = replace(form(inner), adapt=tuple(names))
        return partial(_adapted_layers, network.apply, how, sequential, params, own, tasks)

    calls = {str(i): call(layers_of(network, mask)) for i, mask in enumerate(masks)}
    return np.array([statistics.median(each) for each in in_turns(calls, repeats=repeats).values()])
