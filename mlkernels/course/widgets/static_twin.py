"""Joins a demo to controls: sliders that move one image in place, and the static twin for where no slider works."""

from __future__ import annotations

import io

from matplotlib.font_manager import findfont
from PIL import Image, ImageDraw, ImageFont

from mlkernels.course.demos.demo import Demo
from mlkernels.course.plots import DPI, show_png


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
