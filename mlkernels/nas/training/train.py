"""Training of the derived network on the base classes: SGD, augmentation, drop path; resuming, on all devices."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.sharding import NamedSharding, PartitionSpec

from mlkernels.datasets import Dataset
from mlkernels.datasets.fingerprint import fingerprint
from mlkernels.errors import bad_input
from mlkernels.nas.engine import batch_norm
from mlkernels.nas.engine.devices import mesh_of, placed
from mlkernels.nas.engine.graph import Plan, backward, forward
from mlkernels.nas.engine.lowering import current_lowering, lowering
from mlkernels.nas.engine.memory import training_bytes
from mlkernels.nas.engine.network import Network, Variables, drop_masks, head, init
from mlkernels.nas.pictures.augment import augment
from mlkernels.nas.pictures.resized import Pictures
from mlkernels.nas.training import trained
from mlkernels.nas.training.settings import TrainSettings
from mlkernels.nas.training.trained import Trained, load_trained
from mlkernels.support.arguments import whole
from mlkernels.support.files import check_place
from mlkernels.support.memory import require
from mlkernels.support.progress import Progress

__all__ = ["TrainSettings", "Trained", "load_trained", "train"]

COMPILED = ("blocks", "whole")
_REPORT_SECONDS = 0.2  # between calls of `progress`: reading a loss waits for the device


def train(
    network: Network,
    dataset: Dataset,
    settings: TrainSettings | None = None,
    *,
    out: Path | str | None = None,
    devices: int | None = None,
    compiled: str = "auto",
    epochs: int | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Trained:
    r"""Train a network to tell the base classes apart.

    .. math:: v \leftarrow \mu v + \nabla L(w) + \lambda w, \qquad w \leftarrow w - \eta v

    with the mean cross-entropy L of a batch.

    Args:
        network: the architecture, with as many classes as the dataset's first split has.
        dataset: its first split is trained on; images of another size than the network's are resized.
        settings: None for the published ones.
        out: a folder for `checkpoint.npz` (after each epoch) and `log.jsonl` (a line an epoch). The same call goes on
            where it was stopped, to the same result to the bit.
        devices: how many to spread a batch over; all there are by default. BatchNorm sees the whole batch.
        compiled: "blocks", "whole" or "auto": see `compiled_as`. A second architecture of the same layout then has
            little left to compile.
        epochs: stop after so many in this session.
        progress: is called during an epoch, several times a second at most, and after each.

    Returns:
        `Trained`.

    Raises:
        InputError: classes or sizes that do not fit, a folder of another training or one that cannot be written to, a
            loss or parameters that are not finite.

    Example:
        >>> from mlkernels import datasets
        >>> from mlkernels.nas import Layout, Space
        >>> glyphs = datasets.load("glyphs", classes=12, drawings=4)
        >>> space = Space("two", ("skip_connect", "max_pool_3x3"), 1)
        >>> layout = Layout(space, cells=2, channels=1, pixels=4, ways=7, colours=1, norm="batch")
        >>> network = Network(layout, "N: sk<0 m3<1 R: sk<0 m3<1")
        >>> settings = TrainSettings(epochs=1, batch=10, padding=1, flip=0.0)
        >>> train(network, glyphs, settings).history[0]["epoch"]
        1

    Source: Wang et al. 2022, its code; Tian et al. 2020 (RFS); notebooks/04_metantk_nas.
    """
    settings = TrainSettings() if settings is None else settings
    if jax.process_count() > 1:
        raise bad_input("processes", "one", jax.process_count(), "train on the devices of one machine")
    for name, given, kind in (("network", network, Network), ("settings", settings, TrainSettings)):
        if not isinstance(given, kind):
            raise bad_input(name, f"nas.{kind.__name__}", type(given).__name__, "make one")
    if epochs is not None:
        epochs = whole("epochs", epochs, 1, do="leave it out for all that are left")
    if out is not None:
        check_place(Path(out) / trained.STATE)
    mesh = mesh_of(devices, "batch")
    require_memory(network, settings, mesh.size)
    pictures = Pictures(dataset, next(iter(dataset.splits)), network.layout.pixels)
    _check(network, dataset, pictures, settings, mesh.size)
    data = f"{dataset.name}: {len(pictures)} images of {pictures.classes} classes"
    about = trained.about(network, settings, dataset.mean, dataset.std, data, fingerprint(dataset))

    root = jax.random.key(settings.seed)
    weights, draws = jax.random.split(root)
    fresh = init(network, key=weights, initialisation=settings.initialisation, dtype=settings.dtype)
    state, history = {"variables": fresh, "moving": [_optimiser().init(block) for block in _by_block(fresh.params)]}, []
    if out is not None and (found := trained.load(Path(out), state, about)) is not None:
        state, history = found
    state = jax.device_put(state, NamedSharding(mesh, PartitionSpec()))
    run = _Run(network, pictures, settings, mesh, compiled, dataset, draws)
    clock = _Clock(settings, len(pictures) // settings.batch, progress)
    last = settings.epochs if epochs is None else min(settings.epochs, len(history) + epochs)
    for epoch in range(len(history) + 1, last + 1):
        state, row = run.epoch(epoch, state, clock)
        trained.check_finite(row["loss"], state, epoch, kept=out is not None and epoch > 1)
        history.append(row)
        if out is not None:
            trained.save(Path(out), state, history, about)
    numbers = (tuple(map(float, values)) for values in (dataset.mean, dataset.std))
    return Trained(network, state["variables"], tuple(history), settings, *numbers, data)


def require_memory(network: Network, settings: TrainSettings, devices: int = 1) -> None:
    """Refuse a training that cannot fit, before anything is made for it."""
    itemsize, computed = (
        jnp.dtype(name).itemsize for name in (settings.dtype, settings.compute_dtype or settings.dtype)
    )
    needed = training_bytes(network, -(-settings.batch // devices), itemsize, computed)
    require(needed, "training a network", "take fewer channels, cells or pixels, or a smaller batch")


def _check(network: Network, dataset: Dataset, pictures: Pictures, settings: TrainSettings, devices: int) -> None:
    if network.classes != pictures.classes:
        do = f"make the Layout with ways={pictures.classes}"
        raise bad_input("network", f"{pictures.classes} classes, as in {dataset.name}", network.classes, do)
    if network.layout.colours != dataset.images.shape[-1]:
        do = f"make the Layout with colours={dataset.images.shape[-1]}"
        raise bad_input("network", f"{dataset.images.shape[-1]} colours", network.layout.colours, do)
    if settings.batch > len(pictures):
        raise bad_input("batch", f"at most the {len(pictures)} images", settings.batch, "take a smaller one")
    if settings.batch % devices:
        do = "change the batch, or name fewer devices"
        raise bad_input("batch", f"a multiple of the {devices} devices", settings.batch, do)


class _Run:
    """What stays the same in all epochs."""

    def __init__(self, network, pictures, settings, mesh, compiled, dataset, draws: Array):
        self.network, self.pictures, self.settings, self.draws = network, pictures, settings, draws
        self.mean, self.std = (jnp.asarray(x, settings.dtype) for x in (dataset.mean, dataset.std))
        self.spread = NamedSharding(mesh, PartitionSpec("batch"))
        self.compiled = compiled_as(compiled)

    def epoch(self, epoch: int, state: dict, clock: _Clock) -> tuple[dict, dict]:
        """The state after an epoch, and its line for the history."""
        s, key, start = self.settings, jax.random.fold_in(self.draws, epoch), time.monotonic()
        random = np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel().tolist())
        order = random.permutation(len(self.pictures))
        steps, losses, correct = len(order) // s.batch, [], []
        rate, drop = s.rate_in(epoch), s.drop_in(epoch)
        for step in range(steps):
            rows = np.sort(order[step * s.batch : (step + 1) * s.batch])  # within a batch the order is nothing
            images, labels = (placed(x, self.spread) for x in (self.pictures[rows], self.pictures.labels[rows]))
            state, loss, right = self._step(state, images, labels, jax.random.fold_in(key, step), rate, drop)
            losses.append(loss)
            correct.append(right)
            if step:
                jax.block_until_ready(losses[-2])  # the host is one step ahead, not more: what is queued holds memory
            if not clock.report(epoch, step + 1, loss):
                break  # what follows is not finite either, and neither is the mean below
        loss = float(np.mean(jax.device_get(losses)))
        right, seconds = int(np.sum(jax.device_get(correct))), time.monotonic() - start
        images = steps * s.batch
        values = (epoch, loss, right / images, rate, images / seconds, seconds)
        return state, dict(zip(trained.COLUMNS, values, strict=True))

    def _step(self, state: dict, images, labels, key, rate: float, drop: float):
        s, nodes = self.settings, self.network.nodes if self.settings.drop_path else 0
        how = (s.padding, s.jitter, s.flip, nodes, s.dtype, s.compute_dtype or s.dtype)
        images, masks = _prepared(images, key, self.mean, self.std, drop, *how)
        variables = state["variables"]
        step = gradients(self.network, variables, images, labels, masks, compiled=self.compiled)
        update = _update_all if self.compiled == "whole" else _update_each
        numbers = rate, s.momentum, s.weight_decay
        blocks, moving = update(_by_block(variables.params), state["moving"], _by_block(step.gradients), numbers)
        variables = Variables({"blocks": blocks[:-1], "head": blocks[-1]}, step.statistics)
        return {"variables": variables, "moving": moving}, step.loss, step.correct


@partial(jax.jit, static_argnames=("padding", "jitter", "flip", "nodes", "dtype", "compute"))
def _prepared(images, key, mean, std, drop, padding, jitter, flip, nodes, dtype, compute):
    """A batch as the network is given it, and what is dropped."""
    look, path = jax.random.split(key)
    images = augment(
        images, key=look, mean=mean, std=std, padding=padding, jitter=jitter, flip=flip, dtype=dtype
    ).astype(compute)
    return images, drop_masks(path, drop, nodes, len(images), compute) if nodes else None


def _optimiser(rate=0.0, momentum=0.0, weight_decay=0.0) -> optax.GradientTransformation:
    """torch's SGD: the decay goes into the momentum."""
    return optax.chain(optax.add_decayed_weights(weight_decay), optax.sgd(rate, momentum))


def _by_block(params: dict) -> list:
    """One for each block, and the head: what is updated by itself, so that architectures share what is compiled."""
    return [*params["blocks"], params["head"]]


def _updated(params, moving, gradient, numbers):
    updates, moving = _optimiser(*numbers).update(gradient, moving, params)
    return optax.apply_updates(params, updates), moving


_update = jax.jit(_updated)


def _update_each(blocks: list, moving: list, by_block: list, numbers, update: Callable = _update) -> tuple[list, list]:
    pairs = [update(*block, numbers) for block in zip(blocks, moving, by_block, strict=True)]
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


_update_all = jax.jit(partial(_update_each, update=_updated))


class _Clock:
    """Time left, and who is told."""

    def __init__(self, settings: TrainSettings, steps: int, progress):
        self.settings, self.steps, self.progress = settings, steps, progress
        self.done, self.began, self.reported = 0, 0.0, 0.0

    def report(self, epoch: int, step: int, loss: Array) -> bool:
        """Whether the loss is finite, as far as it is looked at."""
        now, self.done = time.monotonic(), self.done + 1
        if self.done == 1:
            self.began = now  # the first step compiles
        if self.progress is None or (step < self.steps and now - self.reported < _REPORT_SECONDS):
            return True
        value = float(loss)
        now = self.reported = time.monotonic()
        speed = (self.done - 1) / (now - self.began) if self.done > 1 else 0.0
        epochs, images = self.settings.epochs, speed * self.settings.batch
        done, total = (epoch - 1) * self.steps + step, epochs * self.steps
        note = f"loss {value:.3f}" + (f", {images:.0f} images a second" if speed else "")
        left = (total - done) / speed if speed else None
        self.progress(Progress(done, total, f"epoch {epoch} of {epochs}", note, left))
        return math.isfinite(value)


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
    network: Network, variables: Variables, images: Array, labels: Array, masks=None, *, compiled: str,
) -> Step:  # fmt: skip
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
