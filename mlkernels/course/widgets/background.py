"""A computation in a thread of its own that reports its newest item a few times a second, until it is stopped."""

from __future__ import annotations

import asyncio
import atexit
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from typing import Any

_AT_WORK: weakref.WeakSet[Background] = weakref.WeakSet()


@atexit.register
def _end() -> None:
    """A thread that compiles while the interpreter is taken down would crash it."""
    for each in list(_AT_WORK):
        each.stop()
    for each in list(_AT_WORK):
        each.join(10)


class Background:
    """Runs through an iterable in a daemon thread. Items in between two reports are skipped; the last never is.

    In a notebook the reports are made in the event loop in which this was started, between the kernel's other work;
    where no loop runs, in the thread.

    Args:
        make: () -> the iterable; called in the thread.
        report: (item or None, ended, error or None) -> None. The error is what the iterable raised, and ends it.
        lock: held during each report and by `stop`: whoever holds it is alone with what `report` touches.
        after: another computation, already stopped, to wait for: two at a time would only slow each other.
        pause: seconds between two reports, at least.
    """

    def __init__(
        self,
        make: Callable[[], Iterable],
        report: Callable[[Any, bool, Exception | None], None],
        lock: threading.RLock,
        *,
        after: Background | None = None,
        pause: float = 0.2,
    ) -> None:
        self._make, self._report, self._lock, self._after, self._pause = make, report, lock, after, pause
        self._item: Any = None
        self._error: Exception | None = None
        self._ended = self._told = self._waiting = False
        self._stopped = threading.Event()
        try:
            self._loop = asyncio.get_running_loop()
        except RuntimeError:
            self._loop = None
        self._thread = threading.Thread(target=self._work, name="mlkernels-run", daemon=True)
        _AT_WORK.add(self)
        self._thread.start()

    def stop(self) -> None:
        """End it after the item that it is at. From when this returns nothing is reported any more."""
        with self._lock:
            self._stopped.set()

    def join(self, timeout: float | None = None) -> bool:
        """Wait for the thread; whether it has ended."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _work(self) -> None:
        if self._after is not None:
            self._after.join()
            self._after = None  # else every run would keep all that were before it
        last = -self._pause
        try:
            if not self._stopped.is_set():
                for item in self._make():
                    self._item = item
                    if self._stopped.is_set():
                        break
                    if time.monotonic() - last >= self._pause:
                        self._offer()
                        last = time.monotonic()
        except Exception as error:  # the reader must see it, wherever it arose
            self._error = error
        self._ended = True
        self._offer()

    def _offer(self) -> None:
        """Report here, or ask the loop to do so as soon as it can; not twice for one report."""
        if self._loop is None:
            self._tell()
        elif not self._waiting:
            self._waiting = True
            try:
                self._loop.call_soon_threadsafe(self._tell)
            except RuntimeError:  # the loop is closed: the kernel ends
                self._stopped.set()

    def _tell(self) -> None:
        with self._lock:
            self._waiting = False
            ended = self._ended
            if not self._stopped.is_set() and not self._told:
                self._told = ended
                self._report(self._item, ended, self._error)
