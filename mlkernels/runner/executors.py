"""Where a sweep's points run: threads of this process, each waiting for a process of its own, or a Dask cluster."""

from __future__ import annotations

import contextlib
import platform
import re
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor

from mlkernels.errors import bad_input

_WANTED, _START = "the address of a scheduler as tcp://host:8786", "start one: dask scheduler; dask worker ADDRESS"
_ADDRESS = re.compile(r"(?:(?:tcp|tls)://)?(?:\[[0-9A-Fa-f:.%]+\]|[\w.-]+):([0-9]{1,5})")  # an IPv6 host in brackets
_RETRIES = 2  # of a call that raises, which a failing notebook does not: a full disk on one machine, say
_ANSWER = 10  # seconds that a scheduler has to answer


def check_address(address: str) -> None:
    """Refuse what is no address of a scheduler: a client would try another protocol, or make threads that do not end.

    Example:
        >>> check_address("http://localhost:8787")
        Traceback (most recent call last):
        mlkernels.errors.InputError: --dask: expected the address of a scheduler as tcp://host:8786, got 'http://...
    """
    match = _ADDRESS.fullmatch(address)
    if match is None or not 0 < int(match[1]) < 2**16:
        raise bad_input("--dask", _WANTED, repr(address), _START)


@contextlib.contextmanager
def on_this_machine(jobs: int) -> Iterator[tuple[Executor, dict[str, int]]]:
    """An executor that runs `jobs` points at a time, and how many at a time that is on which machine."""
    with ThreadPoolExecutor(jobs, thread_name_prefix="point") as executor:
        yield executor, {platform.node(): jobs}


@contextlib.contextmanager
def on_cluster(address: str) -> Iterator[tuple[Executor, dict[str, int]]]:
    """An executor of a Dask cluster, a point for each thread of its workers; and how many those are on each machine.

    Dask starts the points of a worker that is lost again on another, unless three workers died of it.
    """
    try:
        from distributed import Client
    except ImportError:
        do = "install it: python -m pip install 'mlkernels[sweep]'"
        raise bad_input("--dask", "the package distributed", "none", do) from None
    check_address(address)
    try:
        client = Client(address, timeout=_ANSWER, set_as_default=False)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split()) or "no answer"
        raise bad_input("--dask", _WANTED, f"{address!r}: {reason}", _START) from None
    with client:
        threads, slots = client.nthreads(), Counter()
        for worker, node in client.run(platform.node, on_error="ignore").items():
            slots[node] += threads.get(worker, 1)
        yield client.get_executor(pure=False, retries=_RETRIES), dict(slots)
