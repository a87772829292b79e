"""An architecture as one would write it down: no masks, no tape, `lax.conv`, gradients by `jax.vmap(jax.grad)`.

Shares nothing with `mlkernels.nas` but the drawn weights, so that the two can be held against each other.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jax import lax

DIMENSIONS = ("NCHW", "HWIO", "NCHW")


def convolve(x, w, stride=(1, 1), padding=((0, 0), (0, 0)), dilation=1, groups=1):
    return lax.conv_general_dilated(x, w, stride, padding, None, (dilation, dilation), DIMENSIONS, groups)


def group_norm(x):
    g = x.reshape(len(x), min(16, x.shape[1]), -1)
    g = (g - g.mean(-1, keepdims=True)) / jnp.sqrt(g.var(-1, keepdims=True) + 1e-5)
    return g.reshape(x.shape)


def batch_norm(x):
    return (x - x.mean((0, 2, 3), keepdims=True)) / jnp.sqrt(x.var((0, 2, 3), keepdims=True) + 1e-5)


def relu(x, seen):
    seen.append(x > 64 * jnp.finfo(x.dtype).eps)  # what two paths leave that cancel is rounding
    return jax.nn.relu(x)


def separable(x, weights, k, s, d, norm, seen):
    deep, flat = weights
    p = d * (k // 2)
    y = convolve(relu(x, seen), deep[:, :, None], (s, s), ((p, p), (p, p)), d, x.shape[1])
    return norm(convolve(y, flat))


def reduced(x, weights, norm, seen):
    x = relu(x, seen)
    further = jnp.pad(x, ((0, 0), (0, 0), (0, 1), (0, 1)))[:, :, 1:, 1:]
    return norm(jnp.concatenate([convolve(part, w, (2, 2)) for part, w in zip((x, further), weights, strict=True)], 1))


def pool(x, kind, s):
    window, stride, padding = (1, 1, 3, 3), (1, 1, s, s), ((0, 0), (0, 0), (1, 1), (1, 1))
    if kind == "max":
        return lax.reduce_window(x, -jnp.inf, lax.max, window, stride, padding)
    add = [lax.reduce_window(a, 0.0, lax.add, window, stride, padding) for a in (x, jnp.ones_like(x))]
    return add[0] / add[1]


def operate(name, x, weights, s, norm, seen):
    """One operation; `weights` are those of its blocks."""
    if name == "skip_connect":
        return x if s == 1 else reduced(x, weights[0], norm, seen)
    if name == "conv_3x3":
        return separable(x, weights[0], 3, s, 1, norm, seen)
    if name.startswith("dil"):
        return separable(x, weights[0], int(name[-1]), s, 2, norm, seen)
    if name.startswith("sep"):
        k = int(name[-1])
        return separable(separable(x, weights[0], k, s, 1, norm, seen), weights[1], k, 1, 1, norm, seen)
    if name == "conv_1x5_5x1":
        (across,), (down,) = weights
        y = convolve(relu(x, seen), across, (s, s), ((0, 0), (2, 2)))
        return norm(convolve(y, down, (1, 1), ((2, 2), (0, 0))))
    y = pool(x, name[:3], s)
    return norm(y) if name.endswith("BN") else y


class Architecture:
    """The network that gates leave; its weights are those of what is left alone."""

    def __init__(self, layout, gates):
        self.layout, self.norm = layout, group_norm if layout.norm == "group" else batch_norm
        n = layout.cells
        kinds = [int(i in (n // 3, 2 * n // 3)) for i in range(n)][: layout.depth]
        names, edges = layout.space.operations, layout.space.edges
        self.cells = [
            (kind, [[(o, names[o]) for o in np.flatnonzero(gates[kind, e])] for e in range(len(edges))])
            for kind in kinds
        ]

    def weights(self, params):
        """What is left of a super-network's weights."""
        cells = [
            {"pre": own["pre"], "edges": [[own["edges"][e][o] for o, _ in live] for e, live in enumerate(edges)]}
            for (_, edges), own in zip(self.cells, params["cells"], strict=True)
        ]
        return {"stem": params["stem"], "cells": cells, "head": params["head"]}

    def __call__(self, weights, x, seen=None):
        """Outputs, for images `[n, colours, height, width]`."""
        seen, norm = [] if seen is None else seen, self.norm
        if self.layout.stem:
            x = norm(convolve(x, *weights["stem"], (1, 1), ((1, 1), (1, 1))))
        before, was = (x, x), 0
        for (kind, edges), own in zip(self.cells, weights["cells"], strict=True):
            old, new = before
            first = reduced(old, own["pre"][0], norm, seen) if was else norm(convolve(relu(old, seen), *own["pre"][0]))
            states = [first, norm(convolve(relu(new, seen), *own["pre"][1]))]
            for node in range(self.layout.space.nodes):
                total = 0.0
                for e, (to, source) in enumerate(self.layout.space.edges):
                    s = 1 + (kind and source < 2)
                    for (_, name), w in zip(edges[e], own["edges"][e], strict=True):
                        if to == node and states[source] is not None:
                            total = total + operate(name, states[source], w, s, norm, seen) / len(edges[e])
                states.append(total if not isinstance(total, float) else None)
            shape = next(state for state in states[2:] if state is not None).shape
            nodes = [jnp.zeros(shape, x.dtype) if state is None else state for state in states[2:]]
            before, was = (new, jnp.concatenate(nodes, 1)), kind
        h = relu(norm(before[1]), seen).mean((2, 3))
        return h @ weights["head"][0][0, 0]


def sample_gradients(network, weights, images, direction):
    """Per-sample gradients of the outputs along a direction, by each weight: `[n, ...]` each."""

    def one(weights, image):
        return network(weights, image[None])[0] @ direction

    return jax.tree.leaves(jax.vmap(jax.grad(one), (None, 0))(weights, images))


def jacobian(network, weights, images, direction):
    """Per-sample gradients of the outputs along a direction: one matrix `[n, parameters]`, and the head's alone."""

    def one(weights, image):
        return network(weights, image[None])[0] @ direction

    found = jax.vmap(jax.grad(one), (None, 0))(weights, images)
    rows = [np.asarray(leaf).reshape(len(images), -1) for leaf in jax.tree.leaves(found)]
    return np.concatenate(rows, 1), np.asarray(found["head"][0]).reshape(len(images), -1)


def metantk(ntk, inner, tasks, queries, support, time, ridge):
    """The composite kernel, block by block."""
    q = [slice(i * queries, (i + 1) * queries) for i in range(tasks)]
    s = [slice(tasks * queries + i * support, tasks * queries + (i + 1) * support) for i in range(tasks)]
    A = []
    for i in range(tasks):
        K = inner[s[i], s[i]]
        moved = np.eye(support) if np.isinf(time) else np.eye(support) - scipy.linalg.expm(-time * K)
        A.append(inner[q[i], s[i]] @ np.linalg.inv(K + ridge * np.eye(support)) @ moved)
    return np.block(
        [
            [
                ntk[q[i], q[j]] - A[i] @ ntk[s[i], q[j]] - ntk[q[i], s[j]] @ A[j].T + A[i] @ ntk[s[i], s[j]] @ A[j].T
                for j in range(tasks)
            ]
            for i in range(tasks)
        ]
    )
