"""The meta-gradient in PyTorch, in the two usual ways; `benchmarks.maml` compares them with ours."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch.nn import functional

from mlkernels.networks import Conv4


def _tensor(array) -> torch.Tensor:
    return torch.from_numpy(np.array(array, order="C"))


def layout(network, params, image: tuple[int, ...]) -> list[np.ndarray]:
    """Parameters, or a gradient by them, in PyTorch's layout: weight and bias of each layer, first to last."""
    flat = []
    for name in network.layers:
        w = np.asarray(params[name]["w"])
        if isinstance(network, Conv4) and name != "head":
            w = w.transpose(3, 2, 0, 1)
        elif isinstance(network, Conv4):  # rows are (height, width, channel) there, (channel, height, width) here
            side = [size // 2**network.depth for size in image[:2]]
            w = w.reshape(*side, network.channels, -1).transpose(3, 2, 0, 1).reshape(w.shape[1], -1)
        else:
            w = w.T
        flat += [w, np.asarray(params[name]["b"])]
    return flat


def weights(network, params, image: tuple[int, ...]) -> list[torch.Tensor]:
    """Parameters as tensors in that layout."""
    return [_tensor(array).requires_grad_() for array in layout(network, params, image)]


def batch(network, tasks) -> tuple[torch.Tensor, ...]:
    """Support and query, inputs and labels, of all tasks; images with their channels first."""

    def inputs(x):
        return _tensor(np.asarray(x).transpose(0, 1, 4, 2, 3) if isinstance(network, Conv4) else x)

    return inputs(tasks.support_x), _tensor(tasks.support_y), inputs(tasks.query_x), _tensor(tasks.query_y)


def _forward(network):
    def f(p, x):
        for i in range(network.depth):
            if isinstance(network, Conv4):
                layer = functional.conv2d(x, p[2 * i], p[2 * i + 1], padding=1)
                x = functional.avg_pool2d(functional.relu(layer), 2)
            else:
                x = functional.relu(functional.linear(x, p[2 * i], p[2 * i + 1]))
        return functional.linear(x.flatten(1), p[-2], p[-1])

    return f


def _loss(name):
    if name == "cross_entropy":
        return functional.cross_entropy
    return lambda outputs, labels: 0.5 * ((outputs - labels) ** 2).sum()


def loop(network, inner, loss: str):
    """Task after task, `torch.autograd.grad` with `create_graph=True`; the graph of one task at a time."""
    f, ell = _forward(network), _loss(loss)

    def call(p, tasks):
        value, gradient = 0.0, None
        for support_x, support_y, query_x, query_y in zip(*tasks, strict=True):
            theta = p
            for _ in range(inner.steps):
                found = torch.autograd.grad(ell(f(theta, support_x), support_y), theta, create_graph=True)
                theta = [a - inner.rate * g for a, g in zip(theta, found, strict=True)]
            outer = ell(f(theta, query_x), query_y)
            found = torch.autograd.grad(outer, p)
            value = value + outer.detach()
            gradient = found if gradient is None else [a.add_(g) for a, g in zip(gradient, found, strict=True)]
        return value, gradient

    return call


def func(network, inner, loss: str):
    """All tasks at once: `torch.func.grad` inside `vmap` inside `grad_and_value`."""
    f, ell = _forward(network), _loss(loss)

    def one(p, support_x, support_y, query_x, query_y):
        theta = p
        for _ in range(inner.steps):
            found = torch.func.grad(lambda theta: ell(f(theta, support_x), support_y))(theta)
            theta = [a - inner.rate * g for a, g in zip(theta, found, strict=True)]
        return ell(f(theta, query_x), query_y)

    total = torch.func.grad_and_value(lambda p, *tasks: torch.vmap(one, in_dims=(None, 0, 0, 0, 0))(p, *tasks).sum())

    def call(p, tasks):
        gradient, value = total([a.detach() for a in p], *tasks)
        return value, gradient

    return call


def with_threads(count: int, call: Callable[[], tuple]) -> Callable[[], tuple]:
    """The call, on so many threads."""

    def run():
        if torch.get_num_threads() != count:
            torch.set_num_threads(count)
        return call()

    return run


WAYS = {"torch autograd loop": loop, "torch.func vmap": func}
