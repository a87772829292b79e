"""Image files as 8-bit RGB, whatever mode Pillow reports, or a refusal that names the mode: no value is guessed."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8

from mlkernels.errors import bad_input
from mlkernels.support.typed import typed

if TYPE_CHECKING:
    from PIL.Image import Image

PLAIN = {"1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "HSV"}  # Pillow's own conversion keeps their values
KEYED = {"1", "L", "P", "RGB"}  # in which a file may name a colour that is transparent
ALPHA = {"LA", "La", "PA", "RGBA", "RGBa"}
SIXTEEN = {"I;16", "I;16L", "I;16B", "I;16N", "I"}
FULL_RANGE = {"PNG", "PPM"}  # whose grey of more than 8 bits reaches from 0 to 65535, whatever Pillow calls its mode


class OtherPixels(ValueError):
    """Pixels whose value in 8 bits is not known; the message names the mode."""


def as_rgb(image: Image) -> Image:
    """An opened image in mode RGB, or `OtherPixels` where range or colours are not known or pixels are transparent.

    8-bit modes as Pillow converts them; 16-bit grey divided by 257 and rounded. An opaque alpha channel is dropped.
    """
    from PIL import Image

    mode = image.mode
    if mode in SIXTEEN and image.format in FULL_RANGE:
        values = np.asarray(image).astype(np.int64)
        _refuse_transparent(mode, values == image.info.get("transparency", -1))
        return Image.fromarray(((values + 128) // 257).astype(np.uint8)).convert("RGB")
    if mode in ALPHA or (mode in KEYED and "transparency" in image.info):
        image = image.convert("LA") if mode == "La" else image  # which Pillow takes no further at once
        image = image.convert("RGBA")
        _refuse_transparent(mode, np.asarray(image)[..., 3] < 255)
    elif mode not in PLAIN:
        why = "whose colours are not converted" if mode == "LAB" else "which does not say what is white"
        raise OtherPixels(f"mode {mode}, {why}")
    return image.convert("RGB")


@typed
def decode(data: bytes, side: int, where: str) -> UInt8[np.ndarray, "side side 3"]:
    """An image file as a square; an `InputError` says which image (`where`) is none, cut short or of unknown pixels.

    Each pixel is the mean of the area that it covers (Pillow's BOX, OpenCV's INTER_AREA); small images are enlarged
    linearly. An image that has the size already is taken as it is. 16-bit grey is scaled to 8 bits.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as image:
            picture = as_rgb(image)
            if picture.size != (side, side):
                smaller = min(picture.size) >= side
                picture = picture.resize((side, side), Image.Resampling.BOX if smaller else Image.Resampling.BILINEAR)
            return np.asarray(picture)
    except OtherPixels as error:
        do = "nothing was imported; save it as 8-bit RGB"
        raise bad_input(where, "an image of 8 bits, or a PNG of 16-bit grey", error, do) from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        got = "an empty file" if not data else f"{str(error).partition(chr(10))[0][:80] or type(error).__name__}"
        raise bad_input(where, "an image", got, "nothing was imported; get it again") from None


def _refuse_transparent(mode: str, pixels: np.ndarray) -> None:
    if pixels.any():
        raise OtherPixels(f"mode {mode} with {int(pixels.sum())} transparent pixels")
