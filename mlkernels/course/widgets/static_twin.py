"""Joins a demo to controls: sliders that move one image in place, and the static twin for where no slider works."""

from __future__ import annotations

import io
import statistics
import time
from typing import Any

from matplotlib.font_manager import findfont
from PIL import Image, ImageDraw, ImageFont

from mlkernels.course.demos.demo import Demo
from mlkernels.course.plots import DPI, show_png
from mlkernels.course.widgets.explorer import explore
from mlkernels.errors import bad_input


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
    wide, high = pictures[0][1].size
    captions = [_lines(caption, font, wide - 0.2 * dpi) for caption, _ in pictures]
    head = round((0.34 + 0.2 * (max(map(len, captions)) - 1)) * dpi)
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (wide * columns, (high + head) * rows), "white")
    pen = ImageDraw.Draw(sheet)
    for index, (caption, (_, image)) in enumerate(zip(captions, pictures, strict=True)):
        left, top = wide * (index % columns), (high + head) * (index // columns)
        for number, line in enumerate(caption):
            pen.text((left + 0.1 * dpi, top + (0.08 + 0.2 * number) * dpi), line, fill="#222222", font=font)
        sheet.paste(image, (left, top + head))
    return sheet


def _lines(caption: str, font: ImageFont.FreeTypeFont, most: float) -> list[str]:
    """A caption in lines that are at most so wide, broken where one setting ends."""
    lines = [""]
    for part in caption.split(", "):
        longer = f"{lines[-1]}, {part}" if lines[-1] else part
        if font.getlength(longer) <= most or not lines[-1]:
            lines[-1] = longer
        else:
            lines[-1] += ","
            lines.append(part)
    return lines


def twin(demo: Demo) -> None:
    """Show the static twin of a demo: the same picture at three to six settings, for where no slider works.

    A demo with `twin_runs` is run at each of them first.

    Args:
        demo: from `mlkernels.course.demos`.

    Raises:
        InputError: settings that have no picture.

    Source: every notebook, the cell "if you see no slider".
    """
    stage = demo.build()
    runs = [demo.finished(**values) if demo.twin_runs else None for values in demo.twin]
    shown = zip(demo.twin, runs, strict=True)
    frames = [(demo.caption(**values), demo.frame(stage, run, **values)) for values, run in shown]
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
        demo: from `mlkernels.course.demos`.
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
