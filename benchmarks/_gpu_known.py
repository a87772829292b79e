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

from mlkernels.nas import Layout, Network, SearchSettings, TrainSettings
from mlkernels.nas.engine import network as networks
from mlkernels.nas.engine.batch_norm import fresh
from mlkernels.nas.engine.gram import sample_kernels
from mlkernels.nas.pictures.augment import apply_drawn, augment, draw
from mlkernels.nas.scores import regions
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
        shapes: of what goes in.
    """

    name: str
    program: Any
    shapes: tuple

    @property
    def key(self):
        return self.name, id(self.program) if self.program is not None else self.shapes

    def lower(self, platform: str = "cuda") -> str:
        """The program's text for a platform, which need not be here."""
        program = jax.jit(jaxpr_as_fun(self.program))
        return program.trace(*self.program.in_avals).lower(lowering_platforms=(platform,)).as_text()


@dataclass(frozen=True)
class Traced:
    """What a function of arrays launches, in order, and the most bytes that it holds, arguments left out."""

    launches: tuple[Launch, ...]
    held: int

    def programs(self) -> dict:
        """One launch of each program."""
        return {launch.key: launch for launch in self.launches if launch.program is not None}


def traced(function: Callable, *shapes) -> Traced:
    """Trace a function of arrays that calls jitted ones, on shapes."""
    jaxpr = jax.make_jaxpr(function)(*shapes).jaxpr
    launches = []
    for equation in jaxpr.eqns:
        inner = equation.params.get("jaxpr")
        name = equation.params.get("name", equation.primitive.name) if inner is not None else equation.primitive.name
        launches.append(Launch(name, inner, tuple(str(variable.aval) for variable in equation.invars)))
    return Traced(tuple(launches), held(jaxpr))


def _bytes(variable) -> int:
    aval = variable.aval
    return math.prod(aval.shape) * getattr(aval.dtype, "itemsize", 8)


def held(jaxpr) -> int:
    """The most bytes of the values that a program makes, if each is freed after its last use and nothing is fused."""
    last = {id(variable): number for number, equation in enumerate(jaxpr.eqns) for variable in equation.invars}
    last |= {id(variable): len(jaxpr.eqns) for variable in jaxpr.outvars}
    sizes: dict[int, int] = {}
    now = most = 0
    for number, equation in enumerate(jaxpr.eqns):
        made = sum(map(_bytes, equation.outvars))
        inner = [held(getattr(each, "jaxpr", each)) for each in _inside(equation)]
        now += made
        most = max(most, now + max(0, max(inner, default=0) - made))
        sizes |= {id(variable): _bytes(variable) for variable in equation.outvars}
        for variable in {id(each) for each in (*equation.invars, *equation.outvars)}:
            if last.get(variable, number) <= number:
                now -= sizes.pop(variable, 0)
    return most


def _inside(equation) -> list:
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
    layout = regions.thin(settings.layout)
    images = ShapeDtypeStruct((settings.region_batches, settings.region_images, 3, 3, 1), settings.dtype)
    several = np.stack([gates] * at_once)
    with mock.patch.object(regions, "Patterns", mock.MagicMock()):
        return traced(
            lambda w, x: regions.linear_regions(layout, w, several, x) and None,
            weights_of(layout, settings.dtype),
            images,
        )


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


def known(settings: SearchSettings | None = None, at_once: int = MOST_AT_ONCE) -> dict:
    """What a search, a training step and the evaluation launch and hold at the paper's sizes, as far as shapes tell."""
    settings = settings or SearchSettings()
    with as_on_a_gpu():
        rounds, launches, programs = gates_of_rounds(settings), 0, {}
        by_round = []
        for gates, networks_scored in zip(rounds, settings.evaluations, strict=True):
            kernels, counted = kernel_pass(settings, gates, at_once), regions_pass(settings, gates, at_once)
            passes = settings.repeats * -(-(networks_scored // settings.repeats) // at_once)
            both = len(kernels.launches) + len(counted.launches)
            new = (kernels.programs() | counted.programs()).keys() - programs.keys()
            by_round.append(
                {"passes": passes, "kernel": len(kernels.launches), "regions": len(counted.launches),
                 "launches_a_candidate": round(both / at_once, 1), "new_programs": len(new), "held": kernels.held}
            )  # fmt: skip
            programs |= kernels.programs() | counted.programs()
            launches += passes * both
        needed, network = candidate_bytes(settings), network_of()
        found = {
            "search": {
                "candidates_a_pass": at_once,
                "by_round": {str(number): row for number, row in enumerate(by_round, 1)},
                "launches": launches,
                "programs": dict(Counter(launch.name for launch in programs.values()).most_common()),
                "programs_in_all": len(programs),
                "bytes_a_candidate": {"reckoned": needed, "held": by_round[0]["held"] // at_once},
                "candidates_that_fill_the_card": {
                    "reckoned": CARD // needed, "held": CARD * at_once // by_round[0]["held"],
                },
            },
            "card_bytes": CARD,
        }  # fmt: skip
        for compute in ("float32", "bfloat16"):
            told = TrainSettings(compute_dtype=compute)
            step, features = training_step(network, told), feature_pass(network, told)
            found[f"training step, {compute}"] = {"launches": len(step.launches), "held": step.held}
            found[f"features of {FEATURES} images, {compute}"] = {
                "launches": len(features.launches), "held": features.held,
            }  # fmt: skip
    return found


def programs_of_the_search(settings: SearchSettings | None = None, at_once: int = MOST_AT_ONCE) -> dict:
    """All programs of kernels and regions, by name and what goes in: those of the open network, and of one by one."""
    settings, found = settings or SearchSettings(), {}
    with as_on_a_gpu():
        for gates in gates_of_rounds(settings):
            for one in (kernel_pass, regions_pass):
                found |= one(settings, gates, at_once).programs()
    return found
