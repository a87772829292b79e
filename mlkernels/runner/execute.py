"""Executes one notebook with papermill, in a process of its own: python -m mlkernels.runner.execute REQUEST.

What it does is told in events, a JSON object a line on standard output; everything else that it or its libraries print
goes to standard error. When standard input closes it stops: it shuts its kernel down and leaves, so no kernel outlives
a runner, however that ended.
"""

from __future__ import annotations

import ast
import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from mlkernels.course.presets import CONFIG_MIME
from mlkernels.errors import InputError, one_line
from mlkernels.runner.kept import keep
from mlkernels.support import provenance
from mlkernels.support.files import is_of_a_place, not_written, scratch_folder
from mlkernels.support.strict_json import dumps, to_json

KERNEL = "python3"
_SOCKET_PATH = 100  # bytes; systems take 103 (macOS) or 107 (Linux)
_HERE = f"__import__('{provenance.__name__}', fromlist=['here']).here()"


@contextlib.contextmanager
def kernel_connection() -> Iterator[dict]:
    """How to talk to a kernel, for its manager: over sockets in a folder that is this kernel's alone.

    Ports are chosen by looking for free ones and closing them again: of kernels that start at the same time, two may
    choose the same, and one dies. Names in a folder of one's own cannot be taken by another. Windows has ports only.
    """
    if os.name == "nt":
        yield {}
        return
    longest = len(os.fsencode(os.path.join(tempfile.gettempdir(), "mlkernels-xxxxxxxx", "kernel-ipc-5")))
    folder = tempfile.mkdtemp(prefix="mlkernels-", dir=None if longest <= _SOCKET_PATH else "/tmp")
    try:
        yield {"transport": "ipc", "connection_file": os.path.join(folder, "kernel.json")}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _engine():
    """A papermill engine whose kernel is this interpreter, whatever kernelspecs are installed."""
    from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager
    from nbclient.exceptions import CellTimeoutError, DeadKernelError
    from nbclient.util import run_sync
    from nbformat.v4 import new_output
    from papermill.clientwrap import PapermillNotebookClient
    from papermill.engines import NBClientEngine

    class ThisInterpreter(KernelSpecManager):
        def get_kernel_spec(self, kernel_name):
            argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
            return KernelSpec(argv=argv, display_name="Python 3", language="python")

    class Client(PapermillNotebookClient):
        origin = None  # versions and device, as the kernel says them
        at = 0

        def execute(self, **start):
            self.reset_execution_trackers()
            try:
                with self.setup_kernel(cleanup_kc=True, **start):
                    try:
                        self.papermill_execute_cells()
                    except (CellTimeoutError, DeadKernelError) as error:
                        self.shutdown_kernel = "immediate"
                        self.give_up(error)
                        return self.nb
                    reply = self.wait_for_reply(self.kc.execute("", silent=True, user_expressions={"here": _HERE}))
                    self.origin = reply["content"]["user_expressions"]["here"].get("data", {}).get("text/plain")
                    self.set_widgets_metadata()
            except KeyboardInterrupt:
                self.shutdown_kernel = "immediate"
                raise
            finally:
                if self.km is not None and self.km.has_kernel:  # stopped while it was starting
                    run_sync(self.km.shutdown_kernel)(now=True)
            return self.nb

        def give_up(self, error):
            """Put what nbclient raises without an output of its own into the cell at work."""
            message = f"the cell took longer than {self.timeout} s"
            if isinstance(error, DeadKernelError):
                message = "the kernel died (out of memory?)"
            output = new_output("error", ename=type(error).__name__, evalue=message, traceback=[message])
            self.nb.cells[self.at].setdefault("outputs", []).append(output)
            self.nb_man.cell_exception(self.nb.cells[self.at], self.at)

    class Engine(NBClientEngine):
        @classmethod
        def execute_managed_notebook(cls, nb_man, kernel_name, *, folder, timeout, on_cell, found, **_):
            def cell_start(cell, cell_index):
                client.at = cell_index
                on_cell(cell_index)

            with kernel_connection() as connection:
                km = AsyncKernelManager(kernel_name=KERNEL, kernel_spec_manager=ThisInterpreter(), **connection)
                client = Client(nb_man, km=km, kernel_name=KERNEL, timeout=timeout, on_cell_start=cell_start)
                try:
                    client.execute(cwd=str(folder))
                finally:
                    with contextlib.suppress(ValueError, TypeError, SyntaxError):
                        found.update(ast.literal_eval(client.origin))

    return Engine


def failure_of(notebook: dict) -> dict | None:
    """Where an executed notebook stopped, or None. A cell tagged `raises-exception` may raise.

    `cell` (counted from 1 as in the source, without papermill's injected cell), `shown` (its number in In [ ]), `id`,
    `line` (the first of its source) and `error`.
    """
    number = 0
    for cell in notebook["cells"]:
        tags = cell["metadata"].get("tags", [])
        number += "injected-parameters" not in tags
        errors = [output for output in cell.get("outputs", []) if output["output_type"] == "error"]
        if errors and "raises-exception" not in tags:
            error = one_line(f"{errors[0]['ename']}: {errors[0]['evalue']}".splitlines()[0]).rstrip(": ")
            line = next((line.strip() for line in "".join(cell["source"]).splitlines() if line.strip()), "")
            shown = cell.get("execution_count")
            return {"cell": number, "shown": shown, "id": cell.get("id"), "line": one_line(line), "error": error}
    return None


def config_of(notebook: dict) -> dict:
    """The effective configuration that an executed notebook emitted last; empty where it emitted none."""
    outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", [])]
    return next((o["data"][CONFIG_MIME] for o in reversed(outputs) if CONFIG_MIME in o.get("data", {})), {})


def run(request: dict, emit: Callable[[dict], None]) -> dict:
    """Execute one notebook, keep it with its record, and render it.

    Args:
        request: `source`, `target` (paths), `parameters`, `seed` (the default in the source), `preset`, `fingerprint`,
            `timeout` (seconds a cell, or None).
        emit: called with each event: {"event": "start", "cells": n}, {"event": "cell", "index": from 0}.

    Returns:
        The record that the executed notebook carries in metadata["mlkernels"]; `emit` has got it, too, as
        {"event": "done", "record": record}. Notebook and page are replaced together (`kept.keep`).
    """
    import nbformat
    import papermill
    from papermill.engines import papermill_engines
    from papermill.exceptions import PapermillExecutionError
    from papermill.execute import remove_error_markers

    source, target = Path(request["source"]), Path(request["target"])
    emit({"event": "start", "cells": len(nbformat.read(source, as_version=4).cells)})
    papermill_engines.register("mlkernels", _engine())
    origin = {"versions": provenance.versions(), "device": {"platform": "unknown"}}
    started, clock = datetime.now(UTC).isoformat(timespec="seconds"), time.monotonic()
    with scratch_folder(target) as folder:
        partial = folder / target.name
        with contextlib.suppress(PapermillExecutionError):  # its notebook is on the disk, and tells more
            papermill.execute_notebook(
                str(source),
                str(partial),
                request["parameters"],
                engine_name="mlkernels",
                kernel_name=KERNEL,
                language="python",
                progress_bar=False,
                folder=source.parent,
                timeout=request["timeout"],
                on_cell=lambda index: emit({"event": "cell", "index": index}),
                found=origin,
            )
        wall = time.monotonic() - clock
        notebook = remove_error_markers(nbformat.read(partial, as_version=4))
    failure, config = failure_of(notebook), config_of(notebook)
    notebook.metadata["mlkernels"] = {
        "status": "failed" if failure else "finished",
        "preset": request["preset"],
        "seed": config.get("seed", request["parameters"].get("seed", request["seed"])),
        "parameters": request["parameters"],
        "config": config,
        **origin,
        "started": started,
        "wall_seconds": round(wall, 2),
        "fingerprint": request["fingerprint"],
        "failure": failure,
    }
    notebook.metadata.get("papermill", {}).update(input_path=source.name, output_path=target.name)
    # papermill's record and what cells have shown may hold Infinity, with which JupyterLab opens no notebook
    notebook = nbformat.from_dict(to_json(notebook))
    return keep(notebook, target, lambda record: emit({"event": "done", "record": record}))


def _stop_with_stdin() -> None:
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGINT)


def main() -> int:
    """Run the request in argv[1]; 0 once the notebook is kept (finished or failed), 2 where it cannot be, 130 when
    stopped.
    """
    sys.modules.setdefault("rfc3987_syntax", None)  # jsonschema can do without; a grammar that takes 1.5 s to build
    events = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)  # what libraries print must not look like an event
    for number in (signal.SIGINT, signal.SIGTERM):  # a background shell has switched the first off
        signal.signal(number, signal.default_int_handler)
    threading.Thread(target=_stop_with_stdin, daemon=True).start()

    def emit(event: dict) -> None:
        print(dumps(event), file=events)

    try:
        run(json.loads(sys.argv[1]), emit)
    except (InputError, OSError) as error:  # of the place: what a cell raises is in the notebook
        if isinstance(error, OSError) and not is_of_a_place(error):
            raise
        target = Path(error.filename or "a file") if isinstance(error, OSError) else None
        emit({"event": "no place", "said": str(not_written(target, error) if target else error)})
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
