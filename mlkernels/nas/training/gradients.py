"""Loss and gradients of the derived network in one step of training: block by block, or compiled as a whole.

Compiled as a whole, a network takes XLA's CPU compiler half a minute, and each architecture anew. Block by block,
architectures share what they are made of: the second one compiles what the first did not have. On an accelerator the
whole is faster, as nothing waits for the host.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from mlkernels.errors import bad_input
from mlkernels.nas.engine import batch_norm
from mlkernels.nas.engine.graph import Plan, backward, forward
from mlkernels.nas.engine.lowering import current_lowering, lowering
from mlkernels.nas.engine.network import Network, Variables, head

COMPILED = ("blocks", "whole")


class Step(NamedTuple):
    """What a batch gives.

    Attributes:
        loss: the mean cross-entropy.
        correct: how many images are classified right, in training mode.
        gradients: by the parameters, in their form.
        statistics: the new running ones.
    """

    loss: Array
    correct: Array
    gradients: dict
    statistics: list


def compiled_as(name: str = "auto") -> str:
    """What is compiled: "blocks" on a CPU, the "whole" step elsewhere, unless `name` says which."""
    if name == "auto":
        return "blocks" if jax.default_backend() == "cpu" else "whole"
    if name not in COMPILED:
        raise bad_input("compiled", "auto, blocks or whole", repr(name), "leave it at auto")
    return name


def gradients(
    network: Network, variables: Variables, images: Array, labels: Array, masks=None, *, compiled: str
) -> Step:
    """Loss and gradients of a batch, in training mode; "blocks" and "whole" give the same numbers but for rounding."""
    arrays = *variables, images, labels, masks
    if compiled == "whole":
        return _whole(network.plan, current_lowering(), *arrays)
    return _by_blocks(network.plan, *arrays)


@partial(jax.jit, static_argnums=(0, 1))
def _whole(plan: Plan, how: str, params: dict, statistics: list, images, labels, masks) -> Step:
    def loss_of(params):
        with lowering(how):
            x, moved = forward(plan, params["blocks"], statistics, images, partial(batch_norm.run, True), masks)
        loss, correct = _loss(params["head"], x, labels)
        return loss, (correct, moved)

    (loss, (correct, moved)), found = jax.value_and_grad(loss_of, has_aux=True)(params)
    return Step(loss, correct, found, moved)


def _by_blocks(plan: Plan, params: dict, statistics: list, images, labels, masks) -> Step:
    tape: dict = {}
    run = partial(batch_norm.forward, True)
    x, moved = forward(plan, params["blocks"], statistics, images, run, masks, tape)
    (loss, correct), (by_head, g) = _loss_and_gradients(params["head"], x, labels)
    found = backward(plan, params["blocks"], statistics, tape, g, batch_norm.backward, masks)
    blocks = [
        jax.tree.map(jnp.zeros_like, own) if each is None else each
        for each, own in zip(found, params["blocks"], strict=True)
    ]
    return Step(loss, correct, {"blocks": blocks, "head": by_head}, moved)


def _loss(head_params, x: Array, labels: Array) -> tuple[Array, Array]:
    outputs = head(head_params, x)
    losses = optax.softmax_cross_entropy_with_integer_labels(outputs, labels)
    return losses.mean(), (outputs.argmax(-1).astype(labels.dtype) == labels).sum()


_loss_and_gradients = jax.jit(jax.value_and_grad(_loss, argnums=(0, 1), has_aux=True))
