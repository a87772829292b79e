"""Figures as a notebook's outputs: PNG and HTML, always with alt text."""

from __future__ import annotations

import base64
import html
import io
import sys
from typing import Any

from matplotlib.figure import Figure
from PIL import Image

from mlkernels.errors import bad_input

DPI = 160  # of the PNG; it is shown at 96 pixels an inch, so it is sharp on a projector and on a fine screen
SCREEN = 96


def to_png(fig: Figure, dpi: float = DPI) -> bytes:
    """The figure as PNG, lightly compressed (a third faster, a fifth larger than the default)."""
    file = io.BytesIO()
    fig.savefig(file, format="png", dpi=dpi, pil_kwargs={"compress_level": 1})
    return file.getvalue()


def check_alt(alt: str) -> str:
    """The alt text without space around it, or an InputError where there is none."""
    if not isinstance(alt, str) or not alt.strip():
        expected = "one or two sentences on what the picture shows"
        raise bad_input("alt", expected, repr(alt), "write them for who cannot see it")
    return " ".join(alt.split())


def few_colours(png: bytes, colours: int = 256, **options: Any) -> bytes:
    """A PNG in few colours: a third of the size, and no difference to be seen. `options` go to Pillow's `save`."""
    file = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").quantize(colours).save(file, "png", **({"compress_level": 6} | options))
    return file.getvalue()


def img(png: bytes, alt: str, width: float) -> str:
    """A PNG as HTML's `img`, `width` inches wide where there is room: of known size, so that nothing jumps."""
    wide, high = Image.open(io.BytesIO(png)).size
    shown = round(width * SCREEN)
    data = base64.b64encode(png).decode()
    return (
        f'<img alt="{html.escape(alt, quote=True)}" width="{shown}" height="{round(shown * high / wide)}" '
        f'style="max-width:100%;height:auto" src="data:image/png;base64,{data}">'
    )


def bundle(png: bytes, alt: str, width: float) -> tuple[dict[str, Any], dict[str, Any]]:
    """A PNG as an output's data and metadata, `width` inches wide, with its alt text.

    As HTML, since JupyterLab drops the alt text of a PNG; as PNG for what shows no HTML, as LaTeX. Both in few colours,
    and so together smaller than the PNG was.
    """
    alt, png = check_alt(alt), few_colours(png)
    data = {"text/html": img(png, alt, width), "image/png": png, "text/plain": f"[picture: {alt}]"}
    return data, {"image/png": {"alt": alt, "width": round(width * SCREEN)}}


def show_png(png: bytes, alt: str, width: float, *, caption: str = "") -> None:
    """Show a PNG with its alt text, `width` inches wide, below its caption if it has one.

    The caption is an output of its own, since Jupyter and GitHub show a picture without a text. Both are marked in
    their metadata, so that a page can join them to one figure.
    """
    from IPython.display import display

    data, metadata = bundle(png, alt, width)
    if caption:
        texts = {"text/html": f"<p><strong>{html.escape(caption)}</strong></p>", "text/plain": caption}
        display(texts, metadata={"caption_of_next": True}, raw=True)
        metadata["image/png"]["caption"] = caption
    display(data, metadata=metadata, raw=True)


def show(fig: Figure, alt: str, dpi: float = DPI) -> None:
    """Show a figure with its alt text and close it.

    Args:
        fig: any matplotlib figure.
        alt: what the picture shows, for who cannot see it; say the finding, not the colours.
        dpi: pixels an inch of the stored PNG; on the screen it is as wide as the figure's inches.

    Raises:
        InputError: an empty alt text.

    Source: every figure of every notebook.
    """
    check_alt(alt)
    show_png(to_png(fig, dpi), alt, fig.get_figwidth())
    if pyplot := sys.modules.get("matplotlib.pyplot"):
        pyplot.close(fig)  # else the inline backend shows a pyplot figure a second time
