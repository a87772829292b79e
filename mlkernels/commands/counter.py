"""A `Progress`, on a terminal or in a log."""

from __future__ import annotations

import time
from typing import TextIO

from mlkernels.support.progress import Progress, bar


class Counter:
    """Shows a `Progress`: a bar on a terminal, a line a minute elsewhere."""

    def __init__(self, stream: TextIO):
        self.stream, self.said = stream, 0.0
        self.bar = bar(stream, bar_format="{n_fmt} of {total_fmt} {bar} {desc}")

    def __call__(self, progress: Progress) -> None:
        done = progress.done
        total = done + 1 if progress.total is None else progress.total
        self.bar.n, self.bar.total = done, total
        self.bar.set_description_str(str(progress))
        if self.bar.disable and (done == total or time.monotonic() - self.said > 60):
            self.said = time.monotonic()
            print(f"{done} of {total}, {progress}", file=self.stream, flush=True)

    def close(self) -> None:
        self.bar.close()
