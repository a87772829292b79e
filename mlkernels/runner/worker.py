"""The process that executes one notebook, as the runner sees it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import queue
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from mlkernels.errors import one_line
from mlkernels.runner.jobs import Job
from mlkernels.support import compiled


def kernel_environment(root: Path, jobs: int = 1) -> dict[str, str]:
    """The environment that the notebooks' kernels get: this one, and a cache of what JAX has compiled.

    A second run of a notebook then compiles little (a quarter of the time, measured on small networks). The cache, in
    the checkout's build/jax_cache, is kept apart by processor, because compiled code of one may not run on another.
    Settings of the user's own win. Of several jobs at a time no kernel may take the whole GPU.
    """
    cpu = platform.machine() + platform.processor()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        cpu += "".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))
    mark = hashlib.sha256(cpu.encode()).hexdigest()[:12]
    environment = dict(os.environ)
    if not environment.get("JAX_COMPILATION_CACHE_DIR"):  # an empty one would be the current folder
        environment["JAX_COMPILATION_CACHE_DIR"] = str(root / "build" / "jax_cache" / mark)
        environment.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    # JAX writes the cache's entries in place: what another process reads half-written is compiled anew, and no more
    quiet = [f"ignore:Error {doing} persistent compilation cache entry" for doing in ("reading", "writing")]
    environment["PYTHONWARNINGS"] = ",".join([environment.get("PYTHONWARNINGS", ""), *quiet]).strip(",")
    if jobs > 1:
        environment.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    return environment


def tidy_cache(root: Path) -> str | None:
    """Remove what a full disk has damaged in the kernels' cache; a line that says so, None where all is whole."""
    folder = Path(kernel_environment(root)["JAX_COMPILATION_CACHE_DIR"])
    count = compiled.remove_unreadable(folder)
    return f"removed {count} damaged entries of JAX's cache in {folder}; they are compiled anew" if count else None


class Worker:
    """A process that executes one notebook, and the thread that passes its events on."""

    def __init__(self, job: Job, timeout: float | None, environment: dict[str, str], events: queue.Queue):
        # a setting may be inf, which JSON knows in Python's dialect
        request = {name: getattr(job, name) for name in ("preset", "parameters", "seed", "fingerprint")}
        request |= {"source": str(job.source), "target": str(job.target), "timeout": timeout}
        self.job = job
        self.noise = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mlkernels.runner.execute", json.dumps(request)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.noise,
            text=True,
            encoding="utf-8",
            env=environment | {"MLKERNELS_UNATTENDED": "1"},
            start_new_session=True,  # Ctrl-C reaches the runner only; it closes standard input to stop a worker
        )
        self.thread = threading.Thread(target=self._pass_on, args=(events,), daemon=True)
        self.thread.start()

    def _pass_on(self, events: queue.Queue) -> None:
        for line in self.process.stdout:
            events.put((self, json.loads(line)))
        events.put((self, {"event": "end", "code": self.process.wait()}))

    def stop(self) -> None:
        with contextlib.suppress(OSError):
            self.process.stdin.close()

    def close(self) -> None:
        self.stop()
        self.process.wait()
        self.thread.join()
        self.process.stdout.close()
        self.noise.close()

    def last_words(self) -> str:
        self.noise.seek(0)
        lines = [line.strip() for line in self.noise.read().splitlines() if line.strip()]
        return one_line(lines[-1]) if lines else "no message"
