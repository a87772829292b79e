"""A demo's poster: the picture of its defaults, kept beside the code, to be seen while that picture is computed."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from mlkernels.course.demos.demo import Demo, Frame
from mlkernels.course.plots import few_colours
from mlkernels.support.file_faults import one_error
from mlkernels.support.files import write_atomically
from mlkernels.support.strict_json import dumps, loads

__all__ = ["keep", "kept", "place"]

_FOLDER = Path(__file__).with_name("posters")


def place(demo: Demo) -> Path:
    """The poster's file: a PNG with the settings, alt text, line of numbers and size in its text."""
    return _FOLDER / f"{demo.name}.png"


def keep(demo: Demo, path: Path | None = None) -> Path:
    """Draw a demo's defaults and keep them as its poster.

    Source: tools/posters.py calls it; tests/test_demos.py holds each poster against the picture of today.
    """
    frame, text = demo.frame(demo.build()), PngInfo()
    for key, value in _text(demo, frame).items():
        text.add_itxt(key, value)
    path = place(demo) if path is None else path
    write_atomically(path, few_colours(frame.png, 128, optimize=True, pnginfo=text))
    return path


def kept(demo: Demo, path: Path | None = None) -> Frame | None:
    """A demo's poster; None where there is none, or it shows other settings than its defaults of now."""
    path = place(demo) if path is None else path
    try:
        png = path.read_bytes()
        with one_error(), Image.open(io.BytesIO(png)) as image:
            image.load()
            text = dict(image.text)
            size = tuple(map(float, loads(text["size"])))
        if text["settings"] != _settings(demo):
            return None
        return Frame(png, text["alt"], text["readout"], size)
    except (OSError, KeyError, ValueError):  # no poster, or a damaged one: the picture will be there in seconds
        return None


def _text(demo: Demo, frame: Frame) -> dict[str, str]:
    return {"settings": _settings(demo), "alt": frame.alt, "readout": frame.readout, "size": dumps(frame.size)}


def _settings(demo: Demo) -> str:
    return f"{demo.question} {demo.caption()}"
