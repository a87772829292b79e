"""One count towards a total, on a terminal or in a log."""

from __future__ import annotations

import time
from typing import TextIO


class Counter:
    """One count towards a total: a bar on a terminal, a line a minute elsewhere."""

    def __init__(self, stream: TextIO):
        self.stream, self.bar, self.said = stream, None, 0.0

    def show(self, done: int, total: int, text: str, note: str = "") -> None:
        """So much is done; text and note say more."""
        if self.stream.isatty():
            from tqdm import tqdm

            if self.bar is None:
                form = "{desc} {bar} {n_fmt} of {total_fmt} {postfix}"
                self.bar = tqdm(total=total, bar_format=form, file=self.stream, dynamic_ncols=True, leave=False)
            self.bar.n, self.bar.total = done, total
            self.bar.set_description_str(text, refresh=False)
            self.bar.set_postfix_str(note)
        elif done == total or time.monotonic() - self.said > 60:
            self.said = time.monotonic()
            print(f"{done} of {total}, {text}{'; ' if note else ''}{note}", file=self.stream, flush=True)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
