"""Runs at work, as a test sees them from outside."""

from __future__ import annotations

import contextlib
import os
import time


def wait_for(condition, seconds=600.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def is_alive(pid):
    with contextlib.suppress(OSError):
        os.kill(pid, 0)
        try:
            with open(f"/proc/{pid}/stat") as stream:
                return stream.read().rpartition(")")[2].split()[0] != "Z"
        except FileNotFoundError:
            return os.path.exists("/proc") is False
    return False
