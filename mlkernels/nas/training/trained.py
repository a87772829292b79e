"""A trained network, and the file that it lives in between epochs and afterwards."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import jax
import numpy as np

from mlkernels.errors import bad_input
from mlkernels.learners.outer_loop import checkpoint
from mlkernels.nas.engine.network import Network, Variables, init
from mlkernels.nas.space.genotype import Genotype
from mlkernels.nas.space.layout import Layout
from mlkernels.nas.space.search_space import Space
from mlkernels.nas.training.settings import TrainSettings
from mlkernels.support.files import write_atomically
from mlkernels.support.strict_json import dumps

STATE, LOG = "checkpoint.npz", "log.jsonl"
COLUMNS = ("epoch", "loss", "accuracy", "rate", "images_per_second", "seconds")


@dataclass(frozen=True)
class Trained:
    """A trained network.

    Attributes:
        network: the architecture.
        variables: its parameters and statistics.
        history: one dict an epoch: `epoch`, the mean `loss` and `accuracy` (of augmented images, with drop path), the
            `rate`, `images_per_second` and `seconds`.
        settings: with which it was trained.
        mean, std: with which images are normalised, one number a colour.
        data: on what it was trained: the dataset's name, its images and classes.
    """

    network: Network
    variables: Variables
    history: tuple[dict, ...]
    settings: TrainSettings
    mean: tuple[float, ...]
    std: tuple[float, ...]
    data: str = ""


def about(network: Network, settings: TrainSettings, mean, std, data: str, images: str) -> dict[str, str]:
    """All that a training follows from, as texts; `images` is their fingerprint."""
    layout = {name: json.dumps(value) for name, value in asdict(network.layout).items()}
    numbers = {name: json.dumps([float(x) for x in values]) for name, values in (("mean", mean), ("std", std))}
    known = {"genotype": str(network.genotype), "data": data, "images": images}
    return {**known, **layout, **settings.described(), **numbers}


def from_about(texts: dict[str, str]) -> tuple[Network, TrainSettings, tuple, tuple]:
    """Network, settings, mean and standard deviation."""
    sizes = {name: json.loads(texts[name]) for name in asdict(Layout())}
    space = sizes.pop("space")
    layout = Layout(Space(space["name"], tuple(space["operations"]), space["nodes"]), **sizes)
    mean, std = (tuple(json.loads(texts[name])) for name in ("mean", "std"))
    return Network(layout, Genotype.parse(texts["genotype"])), TrainSettings.from_described(texts), mean, std


def check_finite(loss: float, state: dict, epoch: int, kept: bool) -> None:
    """Refuse an epoch after which nothing can go on; `kept` says whether the one before is on the disk."""
    do = f"lower the rate, for another folder: epoch {epoch - 1} is kept in this one" if kept else "lower the rate"
    if not math.isfinite(loss):
        raise bad_input("loss", "a finite number", f"{loss} in epoch {epoch}", do)
    if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(jax.device_get(state))):
        raise bad_input("parameters and statistics", "finite numbers", f"others after epoch {epoch}", do)


def save(folder: Path, state: dict, history: list[dict], texts: dict[str, str]) -> None:
    """Write the state and the log after an epoch; each file is whole, or as it was before."""
    rows = np.array([[row[name] for name in COLUMNS] for row in history])
    checkpoint.save(folder / STATE, state, rows, texts)
    _log(folder / LOG, history)


def _log(path: Path, history: list[dict]) -> None:
    """Write the log, if it is not there already."""
    lines = "".join(dumps(row) + "\n" for row in history).encode()
    if not path.exists() or path.read_bytes() != lines:
        write_atomically(path, lines)


def load(folder: Path, like: dict, texts: dict[str, str]) -> tuple[dict, list[dict]] | None:
    """State and history, or None where there are none yet; the log is written again where it lacks an epoch.

    Raises:
        InputError: a damaged file, one of an older version, which did not look at all images (`load_trained` still
            reads it), or a training with other settings or data (the message says what differs).
    """
    found = checkpoint.load(folder / STATE, like, texts)
    if found is None:
        return None
    history = rows_of(found[1])
    _log(folder / LOG, history)  # a training that is killed between its two files lacks a line
    return found[0], history


def rows_of(table: np.ndarray) -> list[dict]:
    """The history from its table."""
    rows = [dict(zip(COLUMNS, row, strict=True)) for row in table.tolist()]
    return [row | {"epoch": int(row["epoch"])} for row in rows]


def load_trained(folder: Path | str) -> Trained:
    """A network from the folder that `train` was given, as its last epoch has left it.

    Args:
        folder: with `checkpoint.npz`, or that file.

    Returns:
        `Trained`.

    Raises:
        InputError: no checkpoint there, or a damaged one.

    Source: `train`.
    """
    path = Path(folder)
    path = path if path.name == STATE and not path.is_dir() else path / STATE
    texts = checkpoint.settings_of(path)
    if texts is None or "genotype" not in texts:
        got = "none" if texts is None else "another one"
        raise bad_input(str(path), "the checkpoint of a training", got, "name the folder that train was given")
    network, settings, mean, std = from_about(texts)
    fresh = init(network, key=jax.random.key(0), dtype=settings.dtype)
    found, rows = checkpoint.load(path, {"variables": fresh})
    return Trained(network, found["variables"], tuple(rows_of(rows)), settings, mean, std, texts["data"])
