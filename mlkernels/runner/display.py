"""What a run says while it works: a bar a notebook on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import TextIO

from mlkernels.support.progress import bar

_HEARTBEAT = 15.0  # seconds after which a plain line says that a cell is still at work


class Display:
    """A bar a notebook on a terminal; elsewhere lines: its start, its end, a sign of life in a long cell."""

    def __init__(self, names: Sequence[str] = (), stream: TextIO | None = None):
        self.stream, self.width = stream or sys.stderr, max(map(len, names), default=0)
        self.bars, self.said = {}, {}  # by the notebook's name; said: the time of its last line

    def start(self, name: str, cells: int) -> None:
        form = "{desc}  {bar} cell {n_fmt} of {total_fmt}, {elapsed}"
        self.bars[name] = bar(self.stream, bar_format=form, total=cells, desc=f"{name:<{self.width}}")
        if self.bars[name].disable:
            self.say(name, f"started, {cells} cells")

    def cell(self, name: str, index: int) -> None:
        self.bars[name].n = min(index + 1, self.bars[name].total)
        self.bars[name].refresh()

    def tick(self) -> None:
        for name, shown in self.bars.items():
            shown.refresh()
            if shown.disable and time.monotonic() - self.said[name] >= _HEARTBEAT:
                self.say(name, f"at cell {shown.n} of {shown.total}")

    def end(self, name: str, text: str) -> None:
        if name in self.bars:
            self.bars.pop(name).close()
        self.say(name, text)

    def say(self, name: str, text: str) -> None:
        from tqdm import tqdm

        self.said[name] = time.monotonic()
        tqdm.write(f"{name:<{self.width}}  {text}", file=self.stream)

    def close(self) -> None:
        while self.bars:
            self.bars.popitem()[1].close()
