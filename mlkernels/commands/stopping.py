"""How a command is stopped: by Ctrl-C, a polite kill, a terminal that is closed. Each unwinds what is at work."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")
_got: list[int] = []


@contextmanager
def listening() -> Iterator[None]:
    """Raise `KeyboardInterrupt` for each of these signals, also where a background shell has switched Ctrl-C off.

    One that `nohup` has switched off stays so: a closed terminal.
    """
    _got.clear()
    numbers = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}
    for number, handler in before.items():
        if number == signal.SIGINT or handler != signal.SIG_IGN:
            signal.signal(number, _stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def status() -> int:
    """The exit status of a command that was stopped, as a shell would give it: 130 of Ctrl-C, 143 of a polite kill."""
    return 128 + (_got[0] if _got else signal.SIGINT)


def _stop(number: int, frame) -> None:
    _got.append(number)
    raise KeyboardInterrupt
