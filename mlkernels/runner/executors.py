"""Where a sweep's points run: threads of this process, each waiting for a process of its own, or a Dask cluster."""

from __future__ import annotations

import contextlib
import platform
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor

from mlkernels.errors import bad_input

_RETRIES = 2  # of a call that raises, which a failing notebook does not: a full disk on one machine, say
_ANSWER = 10  # seconds that a scheduler has to answer


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
    wanted, do = "the address of a scheduler as tcp://host:8786", "start one: dask scheduler; dask worker ADDRESS"
    if not address.rpartition(":")[2].isdecimal():  # of which a client would make threads that do not end
        raise bad_input("--dask", wanted, repr(address), do)
    try:
        client = Client(address, timeout=_ANSWER, set_as_default=False)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split()) or "no answer"
        raise bad_input("--dask", wanted, f"{address!r}: {reason}", do) from None
    with client:
        threads, slots = client.nthreads(), Counter()
        for worker, node in client.run(platform.node, on_error="ignore").items():
            slots[node] += threads.get(worker, 1)
        yield client.get_executor(pure=False, retries=_RETRIES), dict(slots)
