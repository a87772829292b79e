"""Few-shot evaluation of features, as few-shot papers do it: classifiers fitted to each of many episodes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import jax
import numpy as np
from jax import Array
from jaxtyping import ArrayLike, Num
from threadpoolctl import threadpool_limits

from mlkernels.datasets import Dataset
from mlkernels.errors import bad_input
from mlkernels.metantk.operator import float64
from mlkernels.nas.engine.memory import forward_bytes
from mlkernels.nas.engine.network import features
from mlkernels.nas.evaluation.classifiers import METHODS, centroid, logistic, metantk, seen_means
from mlkernels.nas.evaluation.feature_episodes import Features, Look
from mlkernels.nas.training.settings import TrainSettings
from mlkernels.nas.training.train import compiled_as
from mlkernels.nas.training.trained import Trained
from mlkernels.support.arguments import one_of, whole
from mlkernels.support.array_arguments import sizes
from mlkernels.support.intervals import Interval, interval
from mlkernels.support.memory import require
from mlkernels.support.progress import Progress
from mlkernels.support.typed import typed
from mlkernels.tasks.image_episodes import episode_rows

TRAIN_TASKS, TRAIN_QUERIES = 100, 15  # of the base classes, for the MetaNTK


@dataclass(frozen=True)
class Evaluated:
    """What an evaluation found.

    Attributes:
        accuracies: `(method, shot)` -> accuracy in each episode, float `[episodes]`.
    """

    accuracies: dict[tuple[str, int], np.ndarray]

    def interval(self, method: str, shot: int) -> Interval:
        """The mean accuracy with its 95 % interval (Student's t over episodes)."""
        if (method, shot) not in self.accuracies:
            known = ", ".join(f"{name} at {number}" for name, number in self.accuracies)
            raise bad_input("method and shot", known, f"{method} at {shot}", "ask for what was evaluated")
        return interval(self.accuracies[method, shot])

    def described(self) -> list[dict]:
        """As plain values, for a file."""
        rows = []
        for (method, shot), values in self.accuracies.items():
            found = interval(values)
            row = {"method": method, "shot": shot, "mean": found.mean, "low": found.low, "high": found.high}
            rows.append(row | {"episodes": found.n, "accuracies": [round(float(value), 6) for value in values]})
        return rows


def evaluate(
    model: Trained | Callable[[Array], Array],
    dataset: Dataset,
    *,
    split: str = "test",
    way: int = 5,
    shots: Sequence[int] = (1, 5),
    queries: int = 50,
    episodes: int = 1000,
    copies: int = 5,
    methods: Sequence[str] = METHODS,
    seed: int = 42,
    unit: bool = True,
    pixels: int | None = None,
    augmentation: dict | None = None,
    block: int = 100,
    progress: Callable[[Progress], None] | None = None,
) -> Evaluated:
    """Classify the queries of many episodes by features of images.

    Args:
        model: a trained network, or a function of images: float32 `[block, pixels, pixels, colours]`, normalised, to
            features `[block, d]`, row by row.
        dataset: of the first split, the base classes, the "metantk" method is trained.
        split: where the episodes come from.
        way: classes of an episode, two at least.
        shots: support images of each class, for each evaluation.
        queries: query images of each class; small classes want 15.
        episodes: how many, two at least.
        copies: support images are shown in so many augmented copies, as in training, and not as they are; 0 shows them
            as they are. An image has the same copies in all episodes.
        methods: "logistic" regression, nearest "centroid", "metantk" (regression with a linear head on the features,
            meta-trained on 100 episodes of the base classes; in 64-bit JAX).
        seed: everything that is random follows from it. Episodes are the same for all models and methods.
        unit: divide features by their Euclidean norm.
        pixels, augmentation: of a function: side of the images (None: as they are), and arguments for
            `nas.pictures.augment.augment` (None: its defaults). A trained network has its own.
        block: images in one call.
        progress: is called after each block of images, whose total is not known, and after each episode.

    Returns:
        `Evaluated`.

    Raises:
        InputError: an unknown method or split, too few classes or images at any of the shots, images of other colours
            than the network was trained on: all before anything is computed; features that are not finite.

    Example:
        >>> from mlkernels import datasets
        >>> glyphs = datasets.load("glyphs", classes=24, drawings=6)
        >>> small = {"queries": 3, "episodes": 20, "copies": 0, "unit": False, "methods": ["centroid"]}
        >>> evaluate(pixels_of, glyphs, shots=[1], **small).interval("centroid", 1).n
        20

    Source: Tian et al. 2020 (RFS); Wang et al. 2022, its code (1000 episodes, 5 copies, 50 queries, seed 42);
    notebooks/04_metantk_nas.
    """
    shots, methods = _several("shots", shots, "(1, 5)"), _several("methods", methods, f"{METHODS}")
    shots = tuple(whole(f"shots[{i}]", shot, 1) for i, shot in enumerate(shots))
    queries, episodes, block = sizes(queries=queries, episodes=episodes, block=block)
    way, copies, seed = whole("way", way, 2), whole("copies", copies), whole("seed", seed)
    for method in methods:
        one_of("methods", method, METHODS, do="name some of them")
    if episodes < 2 or not shots or not methods:
        got = f"{episodes} episodes, shots {list(shots)}, methods {list(methods)}"
        raise bad_input("evaluation", "two episodes, a shot and a method at least", got, "ask for more")
    look, first = _look_of(model, dataset, pixels, augmentation, copies, unit, block), next(iter(dataset.splits))
    _check_images(dataset, split, way, shots, queries)
    if isinstance(model, Trained):
        computed = np.dtype(model.settings.dtype).itemsize
        needed = forward_bytes(model.network, block, computed, computed)
        require(needed, f"features of {block} images", "take a smaller block")
    if "metantk" in methods:
        float64(1.0, "precision")
        _check_images(dataset, first, way, shots, min(queries, TRAIN_QUERIES))
    function = _function_of(model)
    done = {"images": 0}

    def tell(count: int) -> None:
        done["images"] += count
        if progress is not None:
            progress(Progress(done["images"], None, "images"))

    draws, tasks, base = jax.random.split(jax.random.key(seed), 3)
    shown = Features(function, dataset, split, look, draws, tell)
    trained, found = shown if split == first else None, {}
    for shot in shots:
        classifiers = {"logistic": logistic, "centroid": centroid}
        if "metantk" in methods:
            trained = trained or Features(function, dataset, first, look, draws, tell)
            key = jax.random.fold_in(base, shot)
            train = trained.episodes(way, shot, min(queries, TRAIN_QUERIES), TRAIN_TASKS, key)
            classifiers["metantk"] = metantk(train, seen_means(train, trained.pictures.classes))
        drawn = shown.episodes(way, shot, queries, episodes, jax.random.fold_in(tasks, shot))
        found |= {(method, shot): np.zeros(episodes) for method in methods}
        for number in range(episodes):
            episode = drawn[number]
            with threadpool_limits(1, "blas"):  # on two cores these small matrices take thirty times as long as on one
                for method in methods:
                    found[method, shot][number] = (classifiers[method](episode) == episode.query_labels).mean()
            if progress is not None:
                progress(Progress(number + 1, episodes, f"episodes of {shot} shot"))
    return Evaluated(found)


@typed
def pixels_of(images: Num[ArrayLike, "N H W C"]) -> Num[ArrayLike, "N d"]:
    """The pixels themselves as features: `[n, height * width * colours]`.

    Example:
        >>> pixels_of(np.ones((2, 3, 3, 1))).shape
        (2, 9)
    """
    return images.reshape(len(images), -1)


def _several(name: str, values, example: str) -> tuple:
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise bad_input(name, f"several, as {example}", repr(values), "give a tuple, of one if there is but one")
    return tuple(values)


def _check_images(dataset: Dataset, split: str, way: int, shots: tuple[int, ...], queries: int) -> None:
    """Each shot can be drawn from the split, or an `InputError` says why not."""
    for shot in shots:
        episode_rows(dataset, split, way, shot + queries, 1, jax.random.key(0))


def _look_of(model, dataset: Dataset, pixels, augmentation, copies: int, unit: bool, block: int) -> Look:
    if isinstance(model, Trained):
        colours, expected = dataset.images.shape[-1], model.network.layout.colours
        if colours != expected:
            trained_on = f" ({model.data})" if model.data else ""
            expected = f"images of {expected} colour{'s' * (expected > 1)}, as the network was trained on{trained_on}"
            raise bad_input("dataset", expected, f"{colours} in {dataset.name}", "name the data that it was trained on")
        if pixels is not None or augmentation is not None:
            raise bad_input("pixels, augmentation", "None", "others", "a trained network has its own")
        side, augmentation = model.network.layout.pixels, model.settings.augmentation
        return Look(side, model.mean, model.std, augmentation, copies, unit, block)
    if not callable(model):
        raise bad_input("model", "a trained network or a function of images", model, "see nas.train and nas.pixels_of")
    side = int(dataset.images.shape[1]) if pixels is None else whole("pixels", pixels, 1)
    usual = TrainSettings().augmentation
    if augmentation is not None and not (isinstance(augmentation, Mapping) and set(augmentation) <= set(usual)):
        raise bad_input("augmentation", f"some of {', '.join(usual)}", augmentation, "see nas.pictures.augment")
    augmentation = usual | dict(augmentation or {})
    mean, std = (tuple(map(float, values)) for values in (dataset.mean, dataset.std))
    return Look(side, mean, std, augmentation, copies, unit, block)


def _function_of(model) -> Callable[[Array], Array]:
    if not isinstance(model, Trained):
        return model
    dtype = model.settings.compute_dtype or model.settings.dtype

    def function(variables, images):
        return features(model.network, variables, images.astype(dtype))

    whole_network = compiled_as() == "whole"
    return partial(jax.jit(function) if whole_network else function, model.variables)
