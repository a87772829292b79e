"""The super-network in PyTorch, as plain as it can be: what the search is timed against."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional


def _tensor(array) -> torch.Tensor:
    return torch.from_numpy(np.array(array, order="C"))


class Network:
    """What gates leave of a super-network, with its weights, for `torch.func`.

    Args:
        layout, params, gates: as in `mlkernels.nas`.
    """

    def __init__(self, layout, params, gates):
        self.layout, self.weights = layout, []
        self.stem = self._own(params["stem"])
        self.cells = []
        for cell, own in zip(layout.stack, params["cells"], strict=True):
            pre = [self._own(weights) for weights in own["pre"]]
            edges = []
            for edge, operations in enumerate(own["edges"]):
                live = np.flatnonzero(gates[cell.kind, edge])
                names = [layout.space.operations[op] for op in live]
                edges.append([(name, [self._own(w) for w in operations[op]]) for name, op in
                              zip(names, live, strict=True)])  # fmt: skip
            self.cells.append((cell.kind, pre, edges))
        self.head = self._own(params["head"])

    def _own(self, weights) -> list[int]:
        """Keep weights, in PyTorch's layout; the numbers by which `self.weights` knows them."""
        numbers = []
        for w in weights:
            w = np.asarray(w)
            w = w.transpose(2, 0, 1)[:, None] if w.ndim == 3 else w.transpose(3, 2, 0, 1)
            numbers.append(len(self.weights))
            self.weights.append(_tensor(w))
        return numbers

    @staticmethod
    def _norm(x):
        return functional.group_norm(x, min(16, x.shape[1]))

    def _operate(self, name, own, w, x, s):
        if name == "skip_connect":
            return x if s == 1 else self._halves(own[0], w, x)
        if name.startswith(("max", "avg")):
            pool = functional.max_pool2d if name[0] == "m" else functional.avg_pool2d
            more = {} if name[0] == "m" else {"count_include_pad": False}
            y = pool(x, 3, s, 1, **more)
            return self._norm(y) if name.endswith("BN") else y
        if name == "conv_1x5_5x1":
            y = functional.conv2d(functional.relu(x), w[own[0][0]], stride=s, padding=(0, 2))
            return self._norm(functional.conv2d(y, w[own[1][0]], padding=(2, 0)))
        k, d = int(name[-1]), 2 if name.startswith("dil") else 1
        for number, (deep, flat) in enumerate(own):
            stride, pad = (s if number == 0 else 1), d * (k // 2)
            y = functional.conv2d(
                functional.relu(x), w[deep], stride=stride, padding=pad, dilation=d, groups=x.shape[1]
            )
            x = self._norm(functional.conv2d(y, w[flat]))
        return x

    def _halves(self, own, w, x):
        x = functional.relu(x)
        ahead = functional.pad(x, (0, 1, 0, 1))[:, :, 1:, 1:]
        parts = [functional.conv2d(part, w[number], stride=2) for part, number in zip((x, ahead), own, strict=True)]
        return self._norm(torch.cat(parts, 1))

    def __call__(self, w, x):
        """Outputs for images `[n, colours, height, width]`."""
        x = self._norm(functional.conv2d(x, w[self.stem[0]], padding=1))
        before, was = (x, x), 0
        for kind, pre, edges in self.cells:
            old, new = before
            first = self._halves(pre[0], w, old) if was else self._norm(functional.conv2d(old.relu(), w[pre[0][0]]))
            states = [first, self._norm(functional.conv2d(new.relu(), w[pre[1][0]]))]
            for node in range(self.layout.space.nodes):
                total = 0
                for edge in self.layout.space.into(node):
                    source = self.layout.space.edges[edge][1]
                    s = 2 if kind and source < 2 else 1
                    for name, own in edges[edge]:
                        total = total + self._operate(name, own, w, states[source], s) / len(edges[edge])
                states.append(total)
            before, was = (new, torch.cat(states[2:], 1)), kind
        features = self._norm(before[1]).relu().mean((2, 3))
        return features @ w[self.head[0]][:, :, 0, 0].T


def sample_kernel(network: Network, images) -> torch.Tensor:
    """The Gram of per-sample gradients of the summed outputs, the whole Jacobian at once."""
    x = _tensor(np.moveaxis(np.asarray(images), -1, 1))

    def one(weights, image):
        return network(weights, image[None]).sum()

    rows = torch.func.vmap(torch.func.grad(one), (None, 0))(tuple(network.weights), x)
    rows = torch.cat([leaf.reshape(len(x), -1) for leaf in rows], 1)
    return rows @ rows.T
