"""What a cell shows while it works: the super-network of a search that goes on, the line of a training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from IPython.display import display

from mlkernels.course.plots import bundle, to_png
from mlkernels.course.plots.drawings import draw_gates
from mlkernels.nas import Space, replay
from mlkernels.nas.searching.record import LOG
from mlkernels.nas.space.search_space import check_space
from mlkernels.support.progress import Progress
from mlkernels.support.strict_json import loads


class _Live:
    """One output of a cell, replaced whenever there is more to show."""

    _handle = None

    def _show(self, data: dict[str, Any], metadata: dict[str, Any] | None = None) -> None:
        if self._handle is None:
            self._handle = display(data, metadata=metadata, raw=True, display_id=True)
        else:
            self._handle.update(data, metadata=metadata, raw=True)


class SearchPicture(_Live):
    """The super-network of a search, drawn when the search begins and again after each round.

    Args:
        space: that is searched.
        folder: where the search writes its log, its `out`.

    Attributes:
        rounds: how many rounds the picture shows; -1 before there is one.

    Example:
        >>> from mlkernels.nas import SPACES
        >>> SearchPicture(SPACES["darts_fewshot"], "no/such/folder").rounds
        -1

    Source: notebooks/04_metantk_nas, as `nas.search(..., progress=SearchPicture(space, folder))`.
    """

    def __init__(self, space: Space, folder: str | Path) -> None:
        self.space, self.log, self.rounds = check_space(space), Path(folder) / LOG, -1

    def __call__(self, progress: Any = None) -> None:
        """Draw if the log holds more rounds than the picture. What the search reports is not looked at."""
        try:
            text = self.log.read_text(encoding="utf-8") if self.log.exists() else ""
            states = replay([loads(line) for line in text.splitlines()], self.space)
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            return  # a damaged log of before, which the search writes anew after its next round
        if len(states) - 1 == self.rounds:
            return
        self.rounds, fig = len(states) - 1, draw_gates(self.space, states[-1])
        alt = f"The super-network after round {self.rounds}: {states[-1].sum()} operations are open."
        self._show(*bundle(to_png(fig), alt, fig.get_figwidth()))


class TrainingLine(_Live):
    """One line that says how far the training at work is.

    Example:
        >>> line = TrainingLine()
        {'text/plain': 'training'}
        >>> line(Progress(3, 9, "epoch 2 of 3", "loss 1.000, 50 images a second"))
        {'text/plain': 'epoch 2 of 3; loss 1.000, 50 images a second'}

    Source: notebooks/04_metantk_nas, as `nas.train(..., progress=TrainingLine())`.
    """

    def __init__(self) -> None:
        self._show({"text/plain": "training"})

    def __call__(self, now: Progress) -> None:
        """Show the epoch, how long it takes from here, the loss, the speed."""
        self._show({"text/plain": str(now)})
