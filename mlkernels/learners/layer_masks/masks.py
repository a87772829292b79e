"""Masks of a network's layers, and of the layers in each of some steps."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Int, Integer

from mlkernels.errors import bad_input
from mlkernels.learners.problem import check_inner_loop
from mlkernels.support.arguments import whole
from mlkernels.support.array_arguments import real_array
from mlkernels.support.typed import typed

_MOST = 20  # bits: a million masks


def layers_in_order(network) -> tuple[str, ...]:
    """The names of a network's layers, first to last; or an `InputError`."""
    if isinstance(network, type) or not hasattr(network, "layers") or not hasattr(network, "apply"):
        do = "pass the network itself, not its apply"
        raise bad_input("network", "a network of mlkernels.networks", type(network).__name__, do)
    return tuple(network.layers)


@typed
def all_masks(layers: int, steps: int | None = None) -> Bool[np.ndarray, "M *steps L"]:
    """All masks of some layers, or all sequences of masks for some steps.

    In the order of binary numbers whose first digit is the first layer (of the first step): the first mask updates
    nothing, the second the head alone (ANIL), the last everything (MAML); and masks whose deepest updated layer is the
    same stand together.

    Args:
        layers: L, at least 1.
        steps: S, at least 1; None is one mask for all steps.

    Returns:
        bool `[2^L, L]`, first layer first; with steps `[2^(S L), S, L]`.

    Raises:
        InputError: no whole number of at least 1, or more than 2^20 masks.

    Example:
        >>> all_masks(2).astype(int).tolist()
        [[0, 0], [0, 1], [1, 0], [1, 1]]
        >>> all_masks(2, steps=3).shape
        (64, 3, 2)

    Source: Khabarlak 2022 (Lambda patterns); notebooks/07_which_weights_adapt.
    """
    layers, steps = whole("layers", layers, 1), None if steps is None else whole("steps", steps, 1)
    bits = layers * (steps or 1)
    if bits > _MOST:
        raise bad_input("all_masks", f"at most {_MOST} layers times steps", bits, "draw some of them instead")
    numbers = np.arange(2**bits)
    masks = (numbers[:, None] >> np.arange(bits)[::-1][None]) & 1 == 1
    return masks if steps is None else masks.reshape(-1, steps, layers)


@typed
def deepest(masks: Bool[ArrayLike, "*M L"] | Integer[ArrayLike, "*M L"]) -> Int[np.ndarray, "*M"]:
    """The deepest layer that each mask updates, counted from the input: how far down the backward pass has to go.

    Args:
        masks: bool `[..., L]`, first layer first.

    Returns:
        int `[...]`, from 0; L where nothing is updated.

    Raises:
        InputError: something else than a mask.

    Example:
        >>> deepest(all_masks(2)).tolist()
        [2, 1, 0, 0]

    Source: Khabarlak 2022; notebooks/07_which_weights_adapt.
    """
    masks = check_masks(masks)
    return np.where(masks.any(-1), masks.argmax(-1), masks.shape[-1])


@typed
def layers_of(network, mask: Bool[ArrayLike, " L"] | Integer[ArrayLike, " L"]) -> tuple[str, ...]:
    """The names of the layers that one mask updates: an `InnerLoop`'s `adapt`, a label in a figure.

    Args:
        network: an `MLP` or a `Conv4`: it has `layers`, first to last.
        mask: bool `[L]`.

    Returns:
        The names, first to last; none for a mask that updates nothing, which no `InnerLoop` takes.

    Raises:
        InputError: a network without layers, a mask for another number of them.

    Example:
        >>> from mlkernels.networks import MLP
        >>> layers_of(MLP(8), [True, False, True])
        ('layer1', 'head')

    Source: notebooks/07_which_weights_adapt.
    """
    names = layers_in_order(network)
    mask = check_masks(mask, len(names))
    if mask.ndim != 1:
        raise bad_input("mask", f"one mask [{len(names)}]", list(mask.shape), "take one of them")
    return tuple(name for name, on in zip(names, mask, strict=True) if on)


def check_masks(masks, layers: int | None = None) -> np.ndarray | Array:
    """Masks as booleans; or an `InputError`. Traced ones pass if their shape does."""
    traced = isinstance(masks, jax.core.Tracer)
    given = masks if traced else np.asarray(real_array("masks", masks))
    bits = given.dtype == bool or (np.issubdtype(given.dtype, np.integer) and (traced or np.isin(given, (0, 1)).all()))
    if not bits:
        raise bad_input("masks", "True and False (or 1 and 0)", f"other {given.dtype} numbers", "say which layers move")
    if not given.ndim or not given.shape[-1] or (layers is not None and given.shape[-1] != layers):
        expected = f"one entry for each of {'some' if layers is None else layers} layers, on the last axis"
        raise bad_input(
            "masks", expected, f"shape {list(given.shape)}", "make them with all_masks(len(network.layers))"
        )
    return given.astype(jnp.bool_)


def of_each_step(masks, layers: int, steps: int | None) -> np.ndarray | Array:
    """Masks `[M, L]` as `[M, steps, L]`; those that have their own steps `[M, S, L]` as they are."""
    masks = check_masks(masks, layers)
    if masks.ndim == 2 and steps is not None:
        shape = (masks.shape[0], steps, layers)
        return (jnp if isinstance(masks, jax.core.Tracer) else np).broadcast_to(masks[:, None], shape)
    if masks.ndim != 3:
        raise bad_input("masks", "masks [M, L], or of each step [M, S, L]", list(masks.shape), "add an axis of masks")
    return masks


def check_adapts_all(inner) -> None:
    """Refuse what is no plain inner loop over all layers: the masks say which of them move."""
    check_inner_loop(inner)
    if inner.layers is not None:
        raise bad_input("inner", 'adapt="all"', f"adapt={inner.adapt}", "leave it out: the masks say what adapts")


def check_layers(params, layers: Sequence[str]) -> None:
    """Refuse parameters that are not a network's."""
    if not isinstance(params, dict) or sorted(params) != sorted(layers):
        got = sorted(params) if isinstance(params, dict) else type(params).__name__
        raise bad_input("params", f"a dictionary of the layers {list(layers)}", got, "give it those of this network")
    for name, layer in params.items():
        if not isinstance(layer, dict) or not all(hasattr(part, "shape") for part in layer.values()):
            raise bad_input("params", "arrays in each layer", f"others in {name}", "give it those of this network")
