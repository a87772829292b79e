"""What can be known of a GPU's work without one: which programs it would run, how often, and in how much memory.

A pass of the search, a training step and the features of images are traced with the branches that a GPU takes, on
shapes alone: nothing is computed. What a program's kernels are, and how long they take, only a GPU tells.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest import mock

import jax
import numpy as np
from jax import ShapeDtypeStruct
from jax.extend.core import jaxpr_as_fun

from mlkernels.nas import Layout, Network, SearchSettings, TrainSettings, round_flops
from mlkernels.nas.engine import network as networks
from mlkernels.nas.engine.batch_norm import fresh
from mlkernels.nas.engine.gram import sample_kernels
from mlkernels.nas.pictures.augment import apply_drawn, augment, draw
from mlkernels.nas.scores.regions import linear_regions, thin
from mlkernels.nas.searching.ranking import choose, edges_left, operations_left, without
from mlkernels.nas.searching.scorer import MOST_AT_ONCE, candidate_bytes
from mlkernels.nas.space.blocks import Norm
from mlkernels.nas.training.train import compiled_as, gradients

CARD = 80_000_000_000  # bytes: what a large GPU has
GENOTYPE = "N: s3<0 s3<1 | s3<1 s3<2 | c3<0 s3<2   R: s3<0 s3<1 | f5<1 d3<2 | d3<2 d3<3"  # of the paper, five cells
FEATURES = 100  # images in one call of the evaluation


@contextmanager
def as_on_a_gpu(memory: int = CARD) -> Iterator[None]:
    """What asks for the backend is told "gpu", and that so much of its memory is free."""
    with ExitStack() as patches:
        patches.enter_context(mock.patch.object(jax, "default_backend", return_value="gpu"))
        patches.enter_context(mock.patch("mlkernels.support.memory.available_bytes", return_value=memory))
        yield


@dataclass(frozen=True)
class Launch:
    """A program that is handed to the device.

    Attributes:
        name: the function's, or that of a single operation.
        program: its jaxpr; None for a single operation. Programs that are the same are the same object.
    """

    name: str
    program: Any


@dataclass(frozen=True)
class Traced:
    """What a function of arrays launches, in order, and the most bytes that it holds, arguments left out.

    `held` is what lies there between two launches, `inside` the same with what goes on in a program, were nothing in it
    fused: the compiler needs less for that, and room for its convolutions' work.
    """

    jaxpr: Any
    launches: tuple[Launch, ...]
    held: int
    inside: int

    def programs(self) -> dict:
        """One launch of each program."""
        return {id(launch.program): launch for launch in self.launches if launch.program is not None}

    def lowered(self, platform: str = "cuda") -> str:
        """All of it as a text for a platform, which need not be here: each program is a function in it, once."""
        body = self.jaxpr.jaxpr
        made = [variable for equation in body.eqns for variable in equation.outvars if _bytes(variable)]
        everything = jaxpr_as_fun(self.jaxpr.replace(jaxpr=body.replace(outvars=made)))
        return jax.jit(everything).trace(*self.jaxpr.in_avals).lower(lowering_platforms=(platform,)).as_text()


def traced(function: Callable, *shapes) -> Traced:
    """Trace a function of arrays that calls jitted ones, on shapes."""
    jaxpr, launches = jax.make_jaxpr(function)(*shapes), []
    for equation in jaxpr.eqns:
        inner = equation.params.get("jaxpr")
        name = equation.primitive.name if inner is None else equation.params.get("name", equation.primitive.name)
        launches.append(Launch(name, inner))
    return Traced(jaxpr, tuple(launches), held(jaxpr.jaxpr, False), held(jaxpr.jaxpr))


def _bytes(variable) -> int:
    aval = variable.aval
    return math.prod(aval.shape) * getattr(aval.dtype, "itemsize", 8)


def held(jaxpr, inside: bool = True) -> int:
    """The most bytes of the values that a program makes, if each is freed after its last use and nothing is fused.

    With what is `inside` of the programs that it calls, or without.
    """
    last = {id(variable): number for number, equation in enumerate(jaxpr.eqns) for variable in equation.invars}
    last |= {id(variable): len(jaxpr.eqns) for variable in jaxpr.outvars}
    sizes: dict[int, int] = {}
    now = most = 0
    for number, equation in enumerate(jaxpr.eqns):
        made = sum(map(_bytes, equation.outvars))
        inner = [held(getattr(each, "jaxpr", each)) for each in _called(equation)] if inside else []
        now += made
        most = max(most, now + max(0, max(inner, default=0) - made))
        sizes |= {id(variable): _bytes(variable) for variable in equation.outvars}
        for variable in {id(each) for each in (*equation.invars, *equation.outvars)}:
            if last.get(variable, number) <= number:
                now -= sizes.pop(variable, 0)
    return most


def _called(equation) -> list:
    values = (value for value in equation.params.values())
    return [value for value in values if hasattr(value, "eqns") or hasattr(value, "jaxpr")]


def weights_of(layout: Layout, dtype=np.float32) -> dict:
    """The shapes of a super-network's weights, as `nas.init` draws them."""

    def own(block):
        return tuple(ShapeDtypeStruct(shape, dtype) for step in block for shape in step.weights)

    cells = [
        {"pre": tuple(map(own, cell.pre)), "edges": [[tuple(map(own, blocks)) for blocks in e] for e in cell.edges]}
        for cell in layout.stack
    ]
    return {"stem": own(layout.first), "cells": cells, "head": own(layout.head)}


def kernel_pass(settings: SearchSettings, gates, at_once: int) -> Traced:
    """The kernels of so many candidates in one pass."""
    layout, tasks = settings.layout, settings.tasks
    count = tasks * layout.ways * (settings.shot + settings.queries)
    images = ShapeDtypeStruct((at_once, count, layout.pixels, layout.pixels, layout.colours), settings.dtype)
    several = np.stack([gates] * at_once)
    return traced(lambda w, x: sample_kernels(layout, w, several, x), weights_of(layout, settings.dtype), images)


def regions_pass(settings: SearchSettings, gates, at_once: int) -> Traced:
    """Their linear regions in one pass, but for the counting, which the host does."""
    layout = thin(settings.layout)
    images = ShapeDtypeStruct((settings.region_batches, settings.region_images, 3, 3, 1), settings.dtype)
    several = np.stack([gates] * at_once)
    weights = weights_of(layout, settings.dtype)
    return traced(lambda w, x: linear_regions(layout, w, several, x), weights, images)


def network_of(classes: int = 64) -> Network:
    """A published network as it is trained on miniImageNet."""
    return Network(Layout(pixels=84, ways=classes, norm="batch"), GENOTYPE)


def variables_of(network: Network, dtype) -> networks.Variables:
    """The shapes of what a network consists of."""

    def own(step):
        shapes = [(step.channels,)] * 2 if isinstance(step, Norm) else step.weights
        return tuple(ShapeDtypeStruct(shape, dtype) for shape in shapes)

    blocks = [tuple(map(own, block)) for block in network.blocks]
    statistics = jax.eval_shape(lambda: [fresh(block, dtype) for block in network.blocks])
    shapes = (network.features, network.classes), (network.classes,)
    head = tuple(ShapeDtypeStruct(shape, dtype) for shape in shapes)
    return networks.Variables({"blocks": blocks, "head": head}, statistics)


def training_step(network: Network, settings: TrainSettings) -> Traced:
    """Augmentation, loss and gradients of a batch."""
    layout, compute = network.layout, settings.compute_dtype or settings.dtype
    pixels = ShapeDtypeStruct((settings.batch, layout.pixels, layout.pixels, layout.colours), np.uint8)
    labels = ShapeDtypeStruct((settings.batch,), np.int32)
    mean = np.full(layout.colours, 0.5, settings.dtype)

    def step(variables, pixels, labels, key):
        images = augment(pixels, key=key, mean=mean, std=mean, **settings.augmentation, dtype=settings.dtype)
        masks = networks.drop_masks(key, settings.drop_path, network.nodes, len(pixels), compute)
        found = gradients(network, variables, images.astype(compute), labels, masks, compiled=compiled_as())
        return found.loss, found.gradients, found.statistics

    key = jax.eval_shape(lambda: jax.random.key(0))
    return traced(step, variables_of(network, settings.dtype), pixels, labels, key)


def feature_pass(network: Network, settings: TrainSettings, images: int = FEATURES) -> Traced:
    """The features of augmented images, as the evaluation asks for them."""
    layout = network.layout
    pixels = ShapeDtypeStruct((images, layout.pixels, layout.pixels, layout.colours), np.uint8)
    mean = np.full(layout.colours, 0.5, np.float32)
    function = jax.jit(partial(networks.features, network))

    def shown(variables, pixels, key):
        drawn = draw(images, key=key, **settings.augmentation, dtype=np.float32)
        seen = apply_drawn(pixels, drawn, mean=mean, std=mean, padding=settings.padding, dtype=np.float32)
        return function(variables, seen.astype(settings.compute_dtype or settings.dtype))

    key = jax.eval_shape(lambda: jax.random.key(0))
    return traced(shown, variables_of(network, settings.dtype), pixels, key)


def gates_of_rounds(settings: SearchSettings) -> list[np.ndarray]:
    """The gates that the rounds of a search begin with, were the first operations and edges to go always."""
    space, gates, found = settings.layout.space, settings.layout.space.open_gates(), []
    while left := operations_left(gates) or edges_left(space, gates):
        found.append(gates)
        for each in choose(left, range(len(left))):
            gates = without(gates, each)
    return found


def known(settings: SearchSettings | None = None, at_once: int = MOST_AT_ONCE, network: Network | None = None) -> dict:
    """What a search, a training step and the evaluation launch and hold at the paper's sizes, as far as shapes tell.

    All that the first pass launches is lowered for CUDA, too, as are a step and the features.

    Returns:
        `search`, `training`, `evaluation`, by type of number, and `card_bytes`.
    """
    settings, network = settings or SearchSettings(), network or network_of()
    with as_on_a_gpu():
        found = {"search": known_of_the_search(settings, at_once), "training": {}, "evaluation": {}}
        for compute in ("float32", "bfloat16"):
            told = TrainSettings(compute_dtype=compute)
            for part, one in (("training", training_step(network, told)), ("evaluation", feature_pass(network, told))):
                found[part][compute] = {
                    "launches": len(one.launches),
                    "held_bytes": one.held,
                    "unfused_bytes": one.inside,
                    "cuda_text_bytes": len(one.lowered()),
                }
    return found | {"images": {"training": told.batch, "evaluation": FEATURES}, "card_bytes": CARD}


def known_of_the_search(settings: SearchSettings, at_once: int) -> dict:
    rows, launches, programs, first = {}, 0, {}, None
    for number, (gates, scored) in enumerate(zip(gates_of_rounds(settings), settings.evaluations, strict=True), 1):
        pair = [one(settings, gates, at_once) for one in (kernel_pass, regions_pass)]
        passes = settings.repeats * -(-scored // settings.repeats // at_once)
        counts, mine = [len(one.launches) for one in pair], pair[0].programs() | pair[1].programs()
        rows[str(number)] = {
            "passes": passes, "launches_kernel": counts[0], "launches_regions": counts[1],
            "launches_a_candidate": round(sum(counts) / at_once, 1),
            "programs_new_in_it": len(mine.keys() - programs.keys()), "held_bytes": pair[0].held,
            "unfused_bytes": pair[0].inside,
        }  # fmt: skip
        first = first or pair
        launches, programs = launches + passes * sum(counts), programs | mine
    needed, most = candidate_bytes(settings), first[0].inside
    return {
        "candidates_a_pass": at_once,
        "flops": sum(n * flops for n, flops in zip(settings.evaluations, round_flops(settings), strict=True)),
        "launches": launches,
        "programs_in_all": len(programs),
        "programs": dict(Counter(launch.name for launch in programs.values()).most_common()),
        "cuda_text_bytes": sum(len(one.lowered()) for one in first),
        "bytes_a_candidate": {"reckoned": needed, "held": first[0].held // at_once, "unfused": most // at_once},
        "candidates_that_fill_the_card": {"reckoned": CARD // needed, "unfused": CARD * at_once // most},
        "by_round": rows,
    }
