"""What a run says while it works: a bar a notebook on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TextIO

_HEARTBEAT = 15.0  # seconds after which a plain line says that a cell is still at work


class Lines:
    """Plain lines: a notebook's start and end, and a sign of life while a cell works for long."""

    def __init__(self, stream: TextIO, width: int = 0):
        self.stream, self.width = stream, width
        self.at: dict[str, tuple[int, int, float]] = {}  # name -> cell, cells, time of the last line

    def start(self, name: str, cells: int) -> None:
        self.at[name] = (0, cells, time.monotonic())
        self.say(name, f"started, {cells} cells")

    def cell(self, name: str, index: int) -> None:
        _, cells, last = self.at[name]
        self.at[name] = (min(index + 1, cells), cells, last)

    def tick(self) -> None:
        now = time.monotonic()
        for name, (cell, cells, last) in self.at.items():
            if now - last >= _HEARTBEAT:
                self.at[name] = (cell, cells, now)
                self.say(name, f"at cell {cell} of {cells}")

    def end(self, name: str, text: str) -> None:
        self.at.pop(name, None)
        self.say(name, text)

    def say(self, name: str, text: str) -> None:
        print(f"{name:<{self.width}}  {text}", file=self.stream, flush=True)

    def close(self) -> None:
        """Nothing to put away."""


class Bars:
    """A tqdm bar a notebook with the cell at work; it becomes a plain line when the notebook ends."""

    def __init__(self, stream: TextIO, width: int = 0):
        self.stream, self.width = stream, width
        self.bars: dict = {}

    def start(self, name: str, cells: int) -> None:
        from tqdm import tqdm

        form = "{desc}  {bar} cell {n_fmt} of {total_fmt}, {elapsed}"
        self.bars[name] = tqdm(
            total=cells,
            desc=f"{name:<{self.width}}",
            bar_format=form,
            leave=False,
            file=self.stream,
            dynamic_ncols=True,
        )

    def cell(self, name: str, index: int) -> None:
        bar = self.bars[name]
        bar.n = min(index + 1, bar.total)
        bar.refresh()

    def tick(self) -> None:
        for bar in self.bars.values():
            bar.refresh()

    def end(self, name: str, text: str) -> None:
        from tqdm import tqdm

        if name in self.bars:
            self.bars.pop(name).close()
        tqdm.write(f"{name:<{self.width}}  {text}", file=self.stream)

    def close(self) -> None:
        for bar in self.bars.values():
            bar.close()
        self.bars.clear()


def progress(names: list[str], stream: TextIO | None = None) -> Lines | Bars:
    """The progress display that fits where it is shown.

    Args:
        names: of the notebooks, for the width of the first column.
        stream: where to; standard error where None.

    Returns:
        `Bars` on a terminal, `Lines` elsewhere.

    Example:
        >>> import io
        >>> type(progress(["01_derive"], io.StringIO())).__name__
        'Lines'
    """
    stream = stream or sys.stderr
    width = max((len(name) for name in names), default=0)
    return Bars(stream, width) if stream.isatty() else Lines(stream, width)
