r"""MAML of a wide multilayer perceptron without a copy of its weights for each task.

A layer y = a h W + c b has the gradients a H^T D by W and c 1^T D by b: thin products of its inputs H `[m, in]` and of
the loss's gradients D `[m, out]` by its outputs, for m support points. So after any number of inner steps

.. math:: h W' = h W - \lambda a^2\, (h H^\top) D

with the H and D of all steps stacked: the weights are only read, by all tasks at once. A gradient through the inner
loop is gathered in the same way. Zeros ("taps") are added to each product with W; the gradients R `[r, out]` by them
and what was multiplied, L `[r, in]`, give the gradient by W as L^T R. Two such gradients have the inner product

.. math:: \langle L^\top R,\ L'^\top R' \rangle = \sum_{rs} (L L'^\top)_{rs}\, (R R'^\top)_{rs} .

All of it is exact. At width 4096 it is several times faster than plain differentiation, which writes a matrix of 4096 x
4096 for each task and step.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

from mlkernels.networks import MLP
from mlkernels.tasks import TaskBatch

WIDE = 1024  # the width from which this saves more than it costs to compile, in a run of a minute


def network_of(apply, params, tasks: TaskBatch, rows: int) -> MLP | None:
    """The perceptron behind `apply` if it is so wide that `rows` updates of rank one are few beside it, else None.

    None, too, where its parameters are not those of its layers alone, or not of one type with the inputs.
    """
    network = getattr(apply, "network", None)
    if not isinstance(network, MLP) or not isinstance(params, dict) or set(params) != set(network.layers):
        return None
    if len({jnp.result_type(leaf) for leaf in jax.tree.leaves((params, tasks.support_x, tasks.query_x))}) > 1:
        return None
    narrowest = min(network.width) if isinstance(network.width, tuple) else network.width
    return network if narrowest >= max(WIDE, rows) else None


def split(network: MLP, params) -> tuple[dict, dict]:
    """The weights, layer -> `[in, out]`, and the rest, layer -> `{"b": [out]}` or nothing."""
    weights = {name: params[name]["w"] for name in network.layers}
    return weights, {name: {key: b for key, b in params[name].items() if key != "w"} for name in network.layers}


def zero_taps(network: MLP, weights, task: TaskBatch, steps: int) -> tuple[dict, dict, dict]:
    """Taps for one task: of the inner loop's products h W and d W^T, and of the queries' h W."""

    def zeros(points, side, names):
        return {name: jnp.zeros((*points, weights[name].shape[side]), weights[name].dtype) for name in names}

    support, queries = (steps, task.support_x.shape[0]), task.query_x.shape[:1]
    return zeros(support, 1, network.layers), zeros(support, 0, network.layers[1:]), zeros(queries, 1, network.layers)


def adapted_outputs(network: MLP, weights, rest, rate, task: TaskBatch, taps, steps: int, loss: Callable):
    """One task's outputs `[n, k]` on its queries after the inner loop, and what was multiplied with each weight (uses).

    `weights` and `rest` are from `split`, `taps` from `zero_taps`; the task has no first axis, and all layers one rate.
    """
    names, points = network.layers, task.support_x.shape[0]
    rate = jnp.asarray(rate, weights["head"].dtype)

    def layer(name, h, updates, tap):
        (a, c), (inputs, signals) = network.scales(name, weights[name].shape[0]), updates[name]
        y = a * (h @ weights[name] + tap) - rate * a**2 * (h @ inputs.T) @ signals
        return y + c * (rest[name]["b"] - rate * c * signals.sum(0))[None] if "b" in rest[name] else y

    def forward(x, updates, taps):
        inputs, before, h = {}, {}, x.reshape(len(x), math.prod(x.shape[1:]))
        for name in names:
            inputs[name] = h
            before[name] = layer(name, h, updates, taps[name])
            h = before[name] if name == "head" else network.activate(before[name])
        return h, inputs, before

    def step(updates, now):
        number, forward_taps, backward_taps = now
        outputs, inputs, before = forward(task.support_x, updates, forward_taps)
        signal = jax.grad(loss)(outputs, task.support_y)
        signals = {"head": signal}
        for name, below in zip(reversed(names), reversed(names[:-1]), strict=False):
            a, (old_inputs, old_signals) = network.scales(name, weights[name].shape[0])[0], updates[name]
            back = a * (signal @ weights[name].T + backward_taps[name])
            back = back - rate * a**2 * (signal @ old_signals.T) @ old_inputs
            signal = signals[below] = jax.vjp(network.activate, before[below])[1](back)[0]
        put = partial(jax.lax.dynamic_update_slice, start_indices=(number * points, 0))
        return {name: (put(updates[name][0], inputs[name]), put(updates[name][1], signals[name])) for name in names}, (
            inputs,
            signals,
        )

    room = max(steps, 1) * points  # of zeros, which change nothing; without a step they stay
    none = {name: tuple(jnp.zeros((room, size), w.dtype) for size in w.shape) for name, w in weights.items()}
    updates, (inputs, signals) = jax.lax.scan(step, none, (jnp.arange(steps), *taps[:2]))
    outputs, queries, _ = forward(task.query_x, updates, taps[2])
    return outputs, (inputs, signals, queries)


def factors(uses, by_taps) -> dict[str, tuple[Array, Array]]:
    """Layer -> L `[..., r, in]` and R `[..., r, out]` with the gradient L^T R by the weights; leading axes broadcast.

    The gradients by the taps may have more leading axes than the uses of `adapted_outputs`.
    """
    (inputs, signals, queries), (forward, backward, outer) = uses, by_taps

    def stack(parts, lead):  # [..., steps, m, width] and [..., n, width] -> [..., r, width]
        flat = [part.reshape(*part.shape[: part.ndim - 3], -1, part.shape[-1]) for part in parts[:-1]] + parts[-1:]
        return jnp.concatenate([jnp.broadcast_to(part, (*lead, *part.shape[-2:])) for part in flat], axis=-2)

    pairs = {}
    for name in inputs:  # of h W by W: h^T C; of d W^T by W: C^T d
        lead = outer[name].shape[:-2]
        back = ([backward[name]], [signals[name]]) if name in backward else ([], [])
        lefts, rights = [inputs[name], *back[0], queries[name]], [forward[name], *back[1], outer[name]]
        pairs[name] = stack(lefts, lead), stack(rights, lead)
    return pairs
