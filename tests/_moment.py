"""A moment at which a process gets a signal: at the n-th of its writes in a folder, or soon after."""

from __future__ import annotations

import os
import sys
import threading
import time
from typing import NamedTuple

WRITES = ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate")


class Moment(NamedTuple):
    """Before the write number `at`, counted from 1, or so many seconds later: in the middle of it, or of the next."""

    signal: int
    at: int
    later: float = 0.0


class Watch:
    """Counts a process's writes in a folder (what opens, makes, renames or removes there), and sends the signal."""

    def __init__(self, folder: str, moment: Moment | None = None):
        self.folder, self.moment, self.count = os.path.abspath(folder), moment, 0
        sys.addaudithook(self._hear)

    def _hear(self, event: str, given: tuple) -> None:
        if event not in WRITES or isinstance(given[0], int) or not self._inside(given[0]):
            return
        if event == "open" and not given[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            return
        self.count += 1
        if self.moment is None or self.count != self.moment.at:
            return
        if self.moment.later:
            threading.Thread(target=self._later, daemon=True).start()
        else:
            os.kill(os.getpid(), self.moment.signal)

    def _inside(self, path) -> bool:
        path = os.path.abspath(os.fsdecode(path))
        return path == self.folder or path.startswith(self.folder + os.sep)

    def _later(self) -> None:
        time.sleep(self.moment.later)
        os.kill(os.getpid(), self.moment.signal)
