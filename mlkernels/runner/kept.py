"""What a run leaves: an executed notebook and its page, both or neither, and known again if anyone has touched them.

The notebook is written last. It carries the record of its run, in which the SHA-256 of the page stands, and that of the
notebook without this one number. A notebook whose number is another was edited or never finished, and counts as not
there; a page whose number is another is missing, cut or another run's, and is made anew from the notebook.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from mlkernels.runner.pages import heading, render
from mlkernels.support.files import scratch_folder, write_atomically
from mlkernels.support.strict_json import load


def record_of(path: Path) -> dict | None:
    """The record of an executed notebook that is as its run left it, or None."""
    return (intact(path) or {"metadata": {"mlkernels": None}})["metadata"]["mlkernels"]


def intact(path: Path) -> dict | None:
    """An executed notebook, if it is as its run left it; or None."""
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        notebook = load(path)
        if notebook["metadata"]["mlkernels"]["sha256"] == _digest(notebook):
            return notebook
    return None


def touched(path: Path) -> bool:
    """Whether a notebook was executed and is not as its run left it; of one that cannot be read, it is taken so."""
    try:
        executed = "mlkernels" in load(path)["metadata"]
    except (OSError, ValueError, KeyError, TypeError):
        executed = True
    return executed and intact(path) is None


def keep(notebook: dict, target: Path, kept: Callable[[dict], None] = lambda record: None) -> dict:
    """Put an executed notebook and its page into place, in a few renames that Ctrl-C does not come between.

    Args:
        notebook: with its record in metadata["mlkernels"].
        target: its file; the page gets the same name.
        kept: called with the record as soon as they are there, before Ctrl-C is heard again.

    Returns:
        The record, with the numbers.
    """
    record, page, text = _sealed(notebook, target.stem)
    if record["status"] != "finished":
        _save_finished(target)
    write_together({target.with_suffix(".html"): page, target: text}, lambda: kept(record))
    return record


def mend_page(executed: Path) -> bool:
    """Make the page of an intact executed notebook anew unless it is there as its run left it; whether it was made."""
    notebook = intact(executed)
    if notebook is None or _page_holds(executed, notebook):
        return False
    import nbformat

    record, page, text = _sealed(nbformat.from_dict(notebook), executed.stem)
    files = {executed.with_suffix(".html"): page}
    if record["page"] != notebook["metadata"]["mlkernels"]["page"]:  # by another version of what makes pages
        files[executed] = text
    write_together(files)
    return True


def write_together(files: Mapping[Path, str | bytes], done: Callable[[], None] = lambda: None) -> None:
    """Write files beside their places, all of them, and then rename them in order; `done` follows at once.

    No file system renames several files in one step, so the last one has to say which others belong to it.
    """
    *_, last = files
    with scratch_folder(last, shared=True) as scratch:
        waiting = []
        for number, (path, content) in enumerate(files.items()):
            waiting.append((scratch / str(number), path))
            waiting[-1][0].write_bytes(content.encode() if isinstance(content, str) else content)
            path.parent.mkdir(parents=True, exist_ok=True)
        with undisturbed():
            for part, path in waiting:
                os.replace(part, path)
            done()


@contextmanager
def undisturbed() -> Iterator[None]:
    """Let Ctrl-C and a polite kill wait until the block has ended."""
    if threading.current_thread() is not threading.main_thread():  # no other thread hears them
        yield
        return
    came: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda number, frame: came.append(number)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)
    if came:
        signal.raise_signal(came[0])


def _sealed(notebook: dict, name: str) -> tuple[dict, str, str]:
    """The record of an executed notebook, with the numbers; the page; the notebook's text."""
    import nbformat

    notebook = nbformat.reads(nbformat.writes(notebook), as_version=4)  # as every later reader has it, for one page
    page, record = render(notebook, name, heading(notebook)[0]), notebook["metadata"]["mlkernels"]
    record["page"] = hashlib.sha256(page.encode()).hexdigest()
    record["sha256"] = _digest(json.loads(nbformat.writes(notebook)))
    return record, page, nbformat.writes(notebook) + "\n"


def _digest(notebook: dict) -> str:
    """SHA-256 of a notebook as JSON, without the number itself."""
    record = {name: value for name, value in notebook["metadata"]["mlkernels"].items() if name != "sha256"}
    content = {**notebook, "metadata": {**notebook["metadata"], "mlkernels": record}}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _page_holds(executed: Path, notebook: dict) -> bool:
    with suppress(OSError):
        found = executed.with_suffix(".html").read_bytes()
        return hashlib.sha256(found).hexdigest() == notebook["metadata"]["mlkernels"].get("page")
    return False


def _save_finished(target: Path) -> None:
    """Copy a finished notebook and its page to `previous/` beside it, before a failed one takes its place."""
    notebook = intact(target)
    if notebook is None or notebook["metadata"]["mlkernels"]["status"] != "finished":
        return
    page = target.with_suffix(".html")
    for path in (page, target) if _page_holds(target, notebook) else (target,):
        write_atomically(target.parent / "previous" / path.name, path.read_bytes())
