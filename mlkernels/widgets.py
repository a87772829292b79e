"""Joins a demo to controls: sliders that move one image in place, and the static twin for where no slider works."""

from __future__ import annotations

import base64
import html
import io
import statistics
import time
from typing import Any

import ipywidgets
from matplotlib.font_manager import findfont
from PIL import Image, ImageDraw, ImageFont

from mlkernels.demos._base import Control, Demo, Frame
from mlkernels.errors import InputError, bad_input
from mlkernels.plots import DPI, SCREEN, show_png

# two in a row as soon as there is room for it, beside JupyterLab's open file browser too
_WIDE = {"width": "420px", "max_width": "calc(50% - 16px)", "min_width": "300px"}
_FIXED = {"style": {"description_width": "initial"}, "layout": _WIDE}
_CLOSE = "margin:4px 0"  # of a paragraph: question, controls, numbers and figure must fit a screen together


def _image(frame: Frame) -> str:
    """The picture as an `img` of known size, so that nothing below it jumps when it is replaced."""
    wide, high = (round(inches * SCREEN) for inches in frame.size)
    data = base64.b64encode(frame.png).decode()
    return (
        f'<img alt="{html.escape(frame.alt, quote=True)}" width="{wide}" height="{high}" decoding="sync" '
        f'style="max-width:100%;height:auto" src="data:image/png;base64,{data}">'
    )


def _widget(control: Control) -> ipywidgets.Widget:
    """The widget of a control; each can be reached and moved by keyboard."""
    common = {"options": control.options, "value": control.default, "description": control.label}
    if control.kind == "steps":
        return ipywidgets.SelectionSlider(**common, **_FIXED, tooltip=control.help, continuous_update=True)
    if len(control.options) <= 4:
        look = {"description_width": "initial", "button_width": "auto"}
        # the label beside the buttons and not above them
        one_line = {"width": "auto", "display": "flex", "flex_flow": "row", "grid_gap": "8px"}
        tips = [control.help] * len(control.options)
        return ipywidgets.ToggleButtons(**common, style=look, layout=one_line, tooltips=tips)
    return ipywidgets.Dropdown(**common, **_FIXED, tooltip=control.help)


class Explorer(ipywidgets.VBox):
    """A demo's question, controls, read-out and figure. Made by `explore`.

    While a slider is dragged, the front end sends the next value only when the kernel has answered the last one, and
    then the newest: values in between are skipped and none pile up.

    Args:
        demo: what to show.

    Attributes:
        controls: setting -> its widget.
        figure: the HTML widget that holds the image, or the error's line.
        error: the exception that the last change gave, or None.
    """

    def __init__(self, demo: Demo) -> None:
        self.demo = demo
        self.error: Exception | None = None
        self.controls = {control.name: _widget(control) for control in demo.controls}
        self.readout = ipywidgets.HTML(layout={"min_height": "1.8em"})
        self.figure = ipywidgets.HTML()
        self.reset = ipywidgets.Button(
            description="Reset", icon="undo", tooltip="All controls back to where they began"
        )
        self._stage = demo.build()
        wide, high = self._stage.figure.get_size_inches() * SCREEN
        self._room = f"min-height:{high:.0f}px;max-width:{wide:.0f}px"
        self._quiet = False
        for widget in self.controls.values():
            widget.observe(self._changed, "value")
        self.reset.on_click(lambda _: self.set())
        demo.warm()
        self._update()
        question = ipywidgets.HTML(f'<p style="{_CLOSE}"><strong>{html.escape(demo.question)}</strong></p>')
        knobs = ipywidgets.Box(
            [*self.controls.values(), self.reset], layout={"flex_flow": "row wrap", "grid_gap": "4px 20px"}
        )
        super().__init__([question, knobs, self.readout, self.figure])

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
                raise bad_input(
                    control.name, f"one of {control.values}", values[control.name], "choose one of the stops"
                )
        self._quiet = True
        try:
            for name, value in values.items():
                self.controls[name].value = value
        finally:
            self._quiet = False
        self._update()

    def _changed(self, change: Any) -> None:
        if not self._quiet:
            self._update()

    def _update(self) -> None:
        try:
            frame = self.demo.frame(self._stage, **self.values)
        except Exception as error:  # the widget must outlive every error, and the reader must see it
            self.error = error
            text = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
            self.readout.value = ""
            self.figure.value = (
                f'<div style="{self._room}"><p role="alert" style="color:#a40000;border-left:4px solid #a40000;'
                f'padding-left:.6em"><strong>No picture for these settings.</strong> {html.escape(text)}</p></div>'
            )
            return
        self.error = None
        self.readout.value = f'<p style="{_CLOSE}">{html.escape(frame.readout)}</p>'
        self.figure.value = _image(frame)


def explore(demo: Demo) -> Explorer:
    """Show a demo with its controls.

    Args:
        demo: from `mlkernels.demos`.

    Returns:
        `Explorer`, a VBox: the last expression of a cell tagged `widget`.

    Source: every notebook; its static twin stands in the cell below it.
    """
    return Explorer(demo)


def compose(pictures: list[tuple[str, Image.Image]], columns: int, dpi: float = DPI) -> Image.Image:
    """Put pictures of one size into a grid, each under its caption.

    Args:
        pictures: (caption, image).
        columns: pictures a row.
        dpi: of the images, for the size of the captions.

    Returns:
        One image.
    """
    font = ImageFont.truetype(findfont("DejaVu Sans:bold"), round(11 * dpi / 72))
    head = round(0.34 * dpi)
    wide, high = pictures[0][1].size
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (wide * columns, (high + head) * rows), "white")
    pen = ImageDraw.Draw(sheet)
    for index, (caption, image) in enumerate(pictures):
        left, top = wide * (index % columns), (high + head) * (index // columns)
        pen.text((left + 0.1 * dpi, top + 0.08 * dpi), caption, fill="#222222", font=font)
        sheet.paste(image, (left, top + head))
    return sheet


def twin(demo: Demo) -> None:
    """Show the static twin of a demo: the same picture at three to six settings, for where no slider works.

    Args:
        demo: from `mlkernels.demos`.

    Raises:
        InputError: settings that have no picture.

    Source: every notebook, the cell "if you see no slider".
    """
    stage = demo.build()
    frames = [(demo.caption(**values), demo.frame(stage, **values)) for values in demo.twin]
    wide, high = frames[0][1].size
    columns = 1 if wide > 1.6 * high else 2
    sheet = compose([(caption, Image.open(io.BytesIO(frame.png))) for caption, frame in frames], columns)
    file = io.BytesIO()
    sheet.save(file, "png", compress_level=6)
    alt = f"{len(frames)} pictures. " + " ".join(f"{caption}: {frame.alt}" for caption, frame in frames)
    show_png(file.getvalue(), alt, wide * columns)


def latency(demo: Demo, repeats: int = 20) -> dict[str, Any]:
    """How long a demo takes to answer a change of a control, through the very path that a reader's change takes.

    Args:
        demo: from `mlkernels.demos`.
        repeats: changes of each control, at least 1; a slider goes up and down its stops.

    Returns:
        demo, changes, first_ms (making it, compilation included), min_ms, median_ms, max_ms, and median_ms by control.

    Raises:
        InputError: repeats below 1. An error of the demo itself is raised as it is.

    Source: `make bench`.
    """
    if repeats < 1:
        raise bad_input("repeats", "at least 1", repeats, "measure once or more")
    start = time.perf_counter()
    view = explore(demo)
    first = time.perf_counter() - start
    times: dict[str, list[float]] = {}
    for control in demo.controls:
        view.set()
        path = [*control.values, *control.values[-2:0:-1]]  # up and down again
        here = path.index(control.default)
        for count in range(1, repeats + 1):
            value = path[(here + count) % len(path)]
            start = time.perf_counter()
            view.controls[control.name].value = value
            times.setdefault(control.name, []).append(1e3 * (time.perf_counter() - start))
            if view.error is not None:
                raise view.error
    every = [ms for each in times.values() for ms in each]
    return {
        "demo": demo.name,
        "changes": len(every),
        "first_ms": round(1e3 * first, 1),
        "min_ms": round(min(every), 2),
        "median_ms": round(statistics.median(every), 2),
        "max_ms": round(max(every), 2),
        "by_control_ms": {name: round(statistics.median(each), 2) for name, each in times.items()},
    }
