"""A demo with its controls: sliders that move one image in place, and a run on a button."""

from __future__ import annotations

import asyncio
import html
import os
import threading
import time
import uuid
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from mlkernels.course.demos.demo import Demo, Frame, RunItem
from mlkernels.course.demos.poster import kept
from mlkernels.course.plots import SCREEN, few_colours, img
from mlkernels.course.widgets.background import Background
from mlkernels.errors import InputError, bad_input

UNATTENDED = "MLKERNELS_UNATTENDED"  # set where notebooks are executed with nobody before them
IDLE = 0.3  # seconds without a change of a control before something is compiled for later
RENEW = 1.0  # seconds without a new picture before the still one in the output follows
STILL = "mlk-still"  # the class of that still one, and the mark of its output
RUN_AGAIN = "Run this cell to move the sliders."
_ONE_AT_A_TIME = threading.Lock()
_WIDGET = "application/vnd.jupyter.widget-view+json"
# beside a still picture, JupyterLab's "Loading widget..." and "model not found" (a text and no element) are idle
_HIDE = (
    f".jp-OutputArea-child:has(.{STILL}) + .jp-OutputArea-child > .jp-OutputArea-output"
    ":not([data-mime-type]):not(:has(*)) { display: none; }"
)


def spec(demo: Demo, width: int, height: int) -> dict[str, Any]:
    """A demo's controls as the front end (explorer.js) builds them; width and height of its picture in CSS pixels."""
    controls = [
        {
            "name": control.name,
            "kind": control.kind,
            "label": control.label,
            "help": control.help,
            "texts": [text for text, _ in control.options],
            "index": control.values.index(control.default),
        }
        for control in demo.controls
    ]
    shown = {"name": demo.name, "question": demo.question, "controls": controls, "run": demo.run is not None}
    return shown | {"width": width, "height": height}


def page_script() -> str:
    """`explorerView` of explorer.js without anywidget's part: for a page's own script.

    Source: the course's pages, and the tests of the controls in a browser.
    """
    return Path(__file__).with_suffix(".js").read_text(encoding="utf-8").partition("// --- for anywidget alone")[0]


def _words(error: Exception) -> str:
    return str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"


def _synced(kind: type[traitlets.TraitType], *default: Any) -> Any:
    return kind(*default).tag(sync=True)


class Explorer(anywidget.AnyWidget):
    """A demo's question, controls, read-out and figure, and a button for its run if it has one. Made by `explore`.

    The front end, explorer.js, shows what the traits say and sets `indices`. While a slider is dragged it sends the
    next value only when the kernel has answered the last one, and then the newest: values in between are skipped and
    none pile up.

    A demo with a poster shows it at once, while the picture itself is computed in the background and then takes its
    place.

    A run goes on in a thread, so that the kernel stays free. Stop leaves on the picture what there is; a control that
    is moved stops it and takes it off.

    Beside the widget the output holds its newest picture as HTML, for every viewer that has no kernel; the front end
    hides that while it lives.

    Args:
        demo: what to show.

    Attributes:
        spec: what the front end builds once.
        indices: setting -> index of its control's stop; setting it moves the controls and draws.
        frame, alt, readout: the picture as PNG, and its two texts.
        refusal: why there is no picture for the settings, or ""; the frame is then the last one that there was.
        running, progress, status: of the run; progress is (0 to 1, "" or "success" or "danger").
        note: a line above the controls, or "".
        run: the last run, or None.
        warming: computes in the background the picture behind a poster, and compiles what the controls will ask for.
        poster: whether the picture is still the kept one.
        error: the exception that the last change, or the run since, gave, or None.
    """

    _esm = Path(__file__).with_suffix(".js")
    _css = Path(__file__).with_suffix(".css")
    spec = _synced(traitlets.Dict)
    indices = _synced(traitlets.Dict)
    frame = _synced(traitlets.Bytes)
    alt = _synced(traitlets.Unicode)
    readout = _synced(traitlets.Unicode)
    refusal = _synced(traitlets.Unicode)
    running = _synced(traitlets.Bool)
    progress = _synced(traitlets.List, [0.0, ""])
    status = _synced(traitlets.Unicode)
    note = _synced(traitlets.Unicode)

    def __init__(self, demo: Demo) -> None:
        self.demo = demo
        self.error: Exception | None = None
        self.run: Background | None = None
        self._lock = threading.RLock()  # stage and traits: matplotlib draws one thing at a time
        self._stage = demo.build()
        self._quiet, self._said, self._moved = False, [], time.monotonic()
        self._shown, self._renewal, self._id = False, None, f"mlk-{uuid.uuid4().hex[:12]}"
        try:
            self._loop = asyncio.get_running_loop()
        except RuntimeError:
            self._loop = None
        wide, high = (round(inches * SCREEN) for inches in self._stage.figure.get_size_inches())
        shown = spec(demo, wide, high) | {"id": self._id}
        super().__init__(spec=shown, indices={control["name"]: control["index"] for control in shown["controls"]})
        self.observe(lambda _: self._quiet or self._update(), "indices")
        self.on_msg(lambda _, message, __: self._hear(message))
        # where nobody moves a slider, nothing is compiled for one, and a picture is what was computed there
        unattended = os.environ.get(UNATTENDED)
        poster = None if unattended else kept(demo)
        self.poster, self._computing = poster is not None, threading.Lock()
        if poster is None:
            self._update()
        else:
            self._show(poster)
        pieces = () if unattended else self._pieces(self.poster)
        self.warming = Background(lambda: pieces, lambda *_: self._replace(), self._lock)

    def _pieces(self, poster: bool) -> Iterator:
        """What a poster stands for; then what the demo compiles for later, one piece at a time in all explorers, and
        none while a control is moved.
        """
        if poster:
            with self._computing:
                self.demo.compute(**self.demo.settings())
            yield
        pieces = iter(self.demo.warm())
        while True:
            while (left := self._moved + IDLE - time.monotonic()) > 0:
                time.sleep(min(left, 0.05))
                yield  # where it may be stopped
            with _ONE_AT_A_TIME:
                try:
                    item = next(pieces)
                except StopIteration:
                    return
            yield item

    @property
    def values(self) -> dict[str, Any]:
        """The settings that the controls are at."""
        return {control.name: control.values[self.indices[control.name]] for control in self.demo.controls}

    def set(self, **values: Any) -> None:
        """Move the controls to these values and all others to their defaults, and draw once.

        Raises:
            InputError: an unknown setting, or a value that is no stop of its control.
        """
        values = self.demo.settings(**values)
        for control in self.demo.controls:
            if values[control.name] not in control.values:
                got, do = values[control.name], "choose one of the stops"
                raise bad_input(control.name, f"one of {control.values}", got, do)
        self._quiet = True
        try:
            self.indices = {each.name: each.values.index(values[each.name]) for each in self.demo.controls}
        finally:
            self._quiet = False
        self._update()

    def start(self) -> None:
        """Begin the run for the settings that the controls are at; where they have no picture there is none."""
        with self._lock:
            self._update()
            if self.error is None:
                self.running, self._said = True, []
                values = self.values
                report = partial(self._report, values)
                self.run = Background(lambda: self.demo.run(**values), report, self._lock, after=self.run)

    def stop(self) -> None:
        """End a run that goes on, and keep on the picture what there is of it."""
        with self._lock:
            if self.running:
                self.run.stop()
                self.running, self.status = False, " · ".join(["stopped", *self._said])

    def _hear(self, message: dict[str, Any]) -> None:
        """A press of a button; a run that goes on hears no second Train."""
        act = {"reset": self.set, "stop": self.stop, "run": self.start}.get(message.get("do"))
        if act is not None and not (self.running and act == self.start):
            act()

    def _replace(self) -> None:
        """Draw what the poster stands for, unless a control was moved first."""
        if self.poster:
            self._draw(self.values)

    def _update(self) -> None:
        self._moved = time.monotonic()
        with self._lock, self.hold_sync():
            self.stop()
            self.status, self.progress = "", [0.0, ""]
            self._draw(self.values)
        self._moved = time.monotonic()

    def _draw(self, values: dict[str, Any], item: RunItem | None = None) -> None:
        self.poster = False
        try:
            with self._computing:  # lest two threads compile the same
                frame = self.demo.frame(self._stage, item, **values)
        except Exception as error:  # the widget must outlive every error, and the reader must see it
            self.error = error
            self.refusal = f"No picture for these settings. {_words(error)}"
            return
        self.error = None
        self._show(frame)

    def _show(self, frame: Frame) -> None:
        with self.hold_sync():  # one message
            self.frame, self.alt, self.readout, self.refusal = frame.png, frame.alt, frame.readout, ""
        self._renew_soon()

    def _report(self, values: dict[str, Any], item: RunItem | None, ended: bool, error: Exception | None) -> None:
        """Show how far the run is; `Background` holds the lock meanwhile."""
        with self.hold_sync():
            if item is not None:
                self._draw(values, item)
                self._said = [item.text]
                self.status, self.progress = item.text, [item.done, ""]
            error = error or self.error
            failed = error is not None or (item is not None and item.failed)
            if failed:
                self.error = error
                self.status = f"The run has failed. {_words(error)}" if error else f"The run has ended: {item.text}"
            if ended:
                self.running = False
                self.progress = [self.progress[0], "danger" if failed else "success"]

    # --- the output in the notebook

    def _still(self) -> dict[str, str]:
        """The newest picture, or why there is none, and what to do, for viewers that have no widget."""
        picture = img(few_colours(self.frame), self.alt, self.spec["width"] / SCREEN) if self.frame else ""
        said = self.readout or ("" if self.frame else self.refusal)
        words = "" if said == "" else f"<p>{html.escape(said)}</p>"
        head = f"<style>{_HIDE}</style><p><strong>{html.escape(self.demo.question)}</strong></p><p>{RUN_AGAIN}</p>"
        shown = f'<div class="{STILL}" data-demo="{self._id}">{head}{words}{picture}</div>'
        return {"text/html": shown, "text/plain": f"[picture: {self.alt if self.frame else said}] {RUN_AGAIN}"}

    def _ipython_display_(self) -> None:
        from IPython.display import display

        display(self._still(), raw=True, metadata={STILL: True}, display_id=self._id)
        widget = {"version_major": 2, "version_minor": 0, "model_id": self.model_id}
        _, metadata = self._repr_mimebundle_()  # on Colab it says what shows a widget; elsewhere it is empty
        display({_WIDGET: widget, "text/plain": ""}, metadata=metadata, raw=True)
        self._shown = True

    def _renew_soon(self) -> None:
        """Let the still picture follow, once the controls rest."""
        if self._loop is not None and self._shown and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._renew_later)

    def _renew_later(self) -> None:
        if self._renewal is not None:
            self._renewal.cancel()
        self._renewal = self._loop.call_later(RENEW, self._renew)

    def _renew(self) -> None:
        from IPython.display import display

        display(self._still(), raw=True, metadata={STILL: True}, display_id=self._id, update=True)


def explore(demo: Demo) -> Explorer:
    """Show a demo with its controls.

    Args:
        demo: from `mlkernels.course.demos`.

    Returns:
        `Explorer`: the last expression of a cell tagged `widget`.

    Raises:
        InputError: what is no demo, such as its module.

    Source: every notebook; its static twin stands in the cell below it.
    """
    return Explorer(Demo.check(demo))
