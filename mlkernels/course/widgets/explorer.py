"""A demo with its controls: sliders that move one image in place, and a run on a button."""

from __future__ import annotations

import base64
import html
import os
import threading
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import ipywidgets

from mlkernels.course.demos.demo import Control, Demo, Frame, RunItem
from mlkernels.course.demos.poster import kept
from mlkernels.course.plots import SCREEN
from mlkernels.course.widgets.background import Background
from mlkernels.errors import InputError, bad_input

# two in a row as soon as there is room for it, beside JupyterLab's open file browser too
_WIDE = {"width": "420px", "max_width": "calc(50% - 16px)", "min_width": "300px"}
_LABEL = 7  # em, the least room for a label; a letter takes about 0.56 of one
UNATTENDED = "MLKERNELS_UNATTENDED"  # set where notebooks are executed with nobody before them
IDLE = 0.3  # seconds without a change of a control before something is compiled for later
_ONE_AT_A_TIME = threading.Lock()
_CLOSE = "margin:4px 0"  # of a paragraph: question, controls, numbers and figure must fit a screen together


def _image(frame: Frame) -> str:
    """The picture as an `img` of known size, so that nothing below it jumps when it is replaced."""
    wide, high = (round(inches * SCREEN) for inches in frame.size)
    data = base64.b64encode(frame.png).decode()
    return (
        f'<img alt="{html.escape(frame.alt, quote=True)}" width="{wide}" height="{high}" decoding="sync" '
        f'style="max-width:100%;height:auto" src="data:image/png;base64,{data}">'
    )


def _alert(head: str, text: str) -> str:
    """An error's one line."""
    return (
        f'<p role="alert" style="{_CLOSE};color:#a40000;border-left:4px solid #a40000;padding-left:.6em">'
        f"<strong>{html.escape(head)}</strong> {html.escape(text)}</p>"
    )


def _words(error: Exception) -> str:
    return str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"


def _widget(control: Control, letters: int = 0) -> ipywidgets.Widget:
    """The widget of a control; each can be reached and moved by keyboard.

    `letters` has the longest label of the demo: with one width for all, tracks stand below each other.
    """
    common = {"options": control.options, "value": control.default, "description": control.label}
    room = max(_LABEL, round(0.56 * max(letters, len(control.label))))
    fixed = {"style": {"description_width": f"{room}em"}, "layout": _WIDE}
    if control.kind == "steps":
        return ipywidgets.SelectionSlider(**common, **fixed, tooltip=control.help, continuous_update=True)
    if len(control.options) <= 4:
        look = {"description_width": "initial", "button_width": "auto"}
        # the label beside the buttons and not above them
        one_line = {"width": "auto", "display": "flex", "flex_flow": "row", "grid_gap": "8px"}
        tips = [control.help] * len(control.options)
        return ipywidgets.ToggleButtons(**common, style=look, layout=one_line, tooltips=tips)
    return ipywidgets.Dropdown(**common, **fixed, tooltip=control.help)


class Explorer(ipywidgets.VBox):
    """A demo's question, controls, read-out and figure, and buttons for its run if it has one. Made by `explore`.

    While a slider is dragged, the front end sends the next value only when the kernel has answered the last one, and
    then the newest: values in between are skipped and none pile up.

    A demo with a poster shows it at once, while the picture itself is computed in the background and then takes its
    place.

    A run goes on in a thread, so that the kernel stays free. Stop leaves on the picture what there is; a control that
    is moved stops it and takes it off.

    Args:
        demo: what to show.

    Attributes:
        controls: setting -> its widget.
        figure: the HTML widget that holds the image, or the error's line.
        train, stop, progress, status: the run's buttons, its bar, its line; not shown where the demo has no run.
        run: the last run, or None.
        warming: computes in the background the picture behind a poster, and compiles what the controls will ask for.
        poster: whether the picture is still the kept one.
        error: the exception that the last change, or the run since, gave, or None.
    """

    def __init__(self, demo: Demo) -> None:
        self.demo = demo
        self.error: Exception | None = None
        self.run: Background | None = None
        letters = max(len(control.label) for control in demo.controls)
        self.controls = {control.name: _widget(control, letters) for control in demo.controls}
        self.readout = ipywidgets.HTML(layout={"min_height": "1.8em"})
        self.figure = ipywidgets.HTML()
        button = ipywidgets.Button
        self.reset = button(description="Reset", icon="undo", tooltip="All controls back to where they began")
        self.train = button(description="Train", icon="play", tooltip="Compute what the picture predicts")
        self.stop = button(description="Stop", icon="stop", tooltip="End the training here", disabled=True)
        self.progress = ipywidgets.FloatProgress(max=1.0, layout={"width": "160px"})
        self.status = ipywidgets.HTML(layout={"min_height": "36px"})  # kept free: nothing below it jumps
        self._lock = threading.RLock()  # stage and widgets: matplotlib draws one thing at a time
        self._stage = demo.build()
        wide, high = self._stage.figure.get_size_inches() * SCREEN
        self._room = f"min-height:{high:.0f}px;max-width:{wide:.0f}px"
        self._quiet, self._said, self._moved = False, [], time.monotonic()
        for widget in self.controls.values():
            widget.observe(lambda _: self._quiet or self._update(), "value")
        self.reset.on_click(lambda _: self.set())
        self.train.on_click(lambda _: self._start())
        self.stop.on_click(lambda _: self._halt())
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
        question = ipywidgets.HTML(f'<p style="{_CLOSE}"><strong>{html.escape(demo.question)}</strong></p>')
        row = {"flex_flow": "row wrap", "grid_gap": "4px 20px"}
        if demo.run is None:
            knobs = [ipywidgets.Box([*self.controls.values(), self.reset], layout=row)]
        else:
            run = [self.train, self.stop, self.reset, self.progress]
            close = {"flex_flow": "row wrap", "grid_gap": "4px 8px", "align_items": "center"}
            knobs = [
                ipywidgets.Box([*self.controls.values()], layout=row),
                ipywidgets.Box(run, layout=close),
                self.status,
            ]
        super().__init__([question, *knobs, self.readout, self.figure])

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
        return {name: widget.value for name, widget in self.controls.items()}

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
            for name, value in values.items():
                self.controls[name].value = value
        finally:
            self._quiet = False
        self._update()

    def _replace(self) -> None:
        """Draw what the poster stands for, unless a control was moved first."""
        if self.poster:
            self._draw(self.values)

    def _update(self) -> None:
        self._moved = time.monotonic()
        with self._lock:
            self._halt()
            self.status.value, self.progress.value, self.progress.bar_style = "", 0.0, ""
            self._draw(self.values)
            self.train.disabled = self.error is not None
        self._moved = time.monotonic()

    def _draw(self, values: dict[str, Any], item: RunItem | None = None) -> None:
        self.poster = False
        try:
            with self._computing:  # lest two threads compile the same
                frame = self.demo.frame(self._stage, item, **values)
        except Exception as error:  # the widget must outlive every error, and the reader must see it
            self.error = error
            self.readout.value = ""
            line = _alert("No picture for these settings.", _words(error))
            self.figure.value = f'<div style="{self._room}">{line}</div>'
            return
        self.error = None
        self._show(frame)

    def _show(self, frame: Frame) -> None:
        self.readout.value = f'<p style="{_CLOSE}">{html.escape(frame.readout)}</p>'
        self.figure.value = _image(frame)

    def _start(self) -> None:
        """Begin the run for the settings that the controls are at."""
        with self._lock:
            self._update()
            if self.error is None:
                self.train.disabled, self.stop.disabled = True, False
                values, self._said = self.values, []
                report = partial(self._report, values)
                self.run = Background(lambda: self.demo.run(**values), report, self._lock, after=self.run)

    def _halt(self) -> None:
        """End a run that goes on, and keep on the picture what there is of it."""
        with self._lock:
            if not self.stop.disabled:
                self.run.stop()
                self.train.disabled, self.stop.disabled = False, True
                self._say(" · ".join(["stopped", *self._said]))

    def _say(self, text: str) -> None:
        self.status.value = f'<p role="status" style="{_CLOSE}">{html.escape(text)}</p>'

    def _report(self, values: dict[str, Any], item: RunItem | None, ended: bool, error: Exception | None) -> None:
        """Show how far the run is; `Background` holds the lock meanwhile."""
        if item is not None:
            self._draw(values, item)
            self.progress.value = item.done
            self._said = [item.text]
            self._say(item.text)
        error = error or self.error
        failed = error is not None or (item is not None and item.failed)
        if failed:
            self.error = error
            self.status.value = (
                _alert("The run has failed.", _words(error)) if error else _alert("The run has ended:", item.text)
            )
        if ended:
            self.train.disabled, self.stop.disabled = False, True
            self.progress.bar_style = "danger" if failed else "success"


def explore(demo: Demo) -> Explorer:
    """Show a demo with its controls.

    Args:
        demo: from `mlkernels.course.demos`.

    Returns:
        `Explorer`, a VBox: the last expression of a cell tagged `widget`.

    Source: every notebook; its static twin stands in the cell below it.
    """
    return Explorer(demo)
