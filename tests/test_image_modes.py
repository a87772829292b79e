"""Images of every mode of Pillow: their right value in 8 bits, or a refusal that names the mode."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from mlkernels.datasets.decoding import OtherPixels, as_rgb
from mlkernels.datasets.importing.reading import decode
from mlkernels.errors import InputError

SIDE = 4


def saved(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def read(image: Image.Image, kind: str = "PNG", **options) -> list[int]:
    """The first pixel of an image that is written and read again."""
    pixels = decode(saved(image, kind, **options), SIDE, "a.png")
    assert pixels.shape == (SIDE, SIDE, 3)
    assert pixels.dtype == np.uint8
    return pixels[0, 0].tolist()


def plain(mode: str, value) -> Image.Image:
    return Image.new(mode, (SIDE, SIDE), value)


def coloured(mode: str = "P") -> Image.Image:
    """Pixels of palette entry 1, which is (10, 20, 30); one of entry 0."""
    image = Image.new("P", (SIDE, SIDE), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    image.putpixel((3, 3), 0)
    return image.convert(mode)


def test_16_bit_grey_is_scaled():
    ramp = np.linspace(0, 65535, 84 * 84).astype(np.uint16).reshape(84, 84)
    pixels = decode(saved(Image.fromarray(ramp)), 84, "a.png")
    assert abs(pixels.mean() - 127.5) < 0.1
    np.testing.assert_array_equal(pixels[..., 0], np.round(ramp / 257).astype(np.uint8))
    assert (pixels == pixels[..., :1]).all()


def test_16_bit_grey_is_scaled_before_it_is_squashed():
    board = (np.indices((20, 20)).sum(axis=0) % 2 * 65535).astype(np.uint16)  # each pixel covers black and white alike
    assert abs(decode(saved(Image.fromarray(board)), 10, "a.png").mean() - 127.5) < 1


RIGHT = {
    "1": (plain("1", 1), "PNG", {}, [255, 255, 255]),
    "L": (plain("L", 100), "PNG", {}, [100, 100, 100]),
    "L of 4 bits": (plain("L", 5), "PNG", {"bits": 4}, [85, 85, 85]),
    "LA": (plain("LA", (100, 255)), "PNG", {}, [100, 100, 100]),
    "P": (coloured(), "PNG", {}, [10, 20, 30]),
    "P with a transparent entry that no pixel has": (plain("P", 1), "PNG", {"transparency": 0}, None),
    "RGB": (plain("RGB", (1, 2, 3)), "PNG", {}, [1, 2, 3]),
    "RGB with a transparent colour that no pixel has": (
        plain("RGB", (1, 2, 3)),
        "PNG",
        {"transparency": (1, 2, 4)},
        [1, 2, 3],
    ),
    "RGBA": (plain("RGBA", (1, 2, 3, 255)), "PNG", {}, [1, 2, 3]),
    "CMYK": (plain("CMYK", (0, 255, 0, 0)), "TIFF", {}, [255, 0, 255]),
    "CMYK as JPEG": (plain("CMYK", (0, 0, 0, 155)), "JPEG", {}, [100, 100, 100]),
    "YCbCr": (plain("YCbCr", (76, 85, 255)), "TIFF", {}, [254, 0, 0]),
    "I;16": (plain("I;16", 32639), "PNG", {}, [127, 127, 127]),
    "16 bits in a PGM, mode I": (plain("I;16", 32639), "PPM", {}, [127, 127, 127]),
}


@pytest.mark.parametrize("what", RIGHT)
def test_a_file_has_the_value_that_it_shows(what):
    image, kind, options, value = RIGHT[what]
    expected = np.array(value or image.convert("RGB").getpixel((0, 0)))
    np.testing.assert_allclose(read(image, kind, **options), expected, atol=1 if "Y" in what else 0)


REFUSED = {
    "LA": (plain("LA", (100, 3)), "PNG", {}, "mode LA with 16 transparent pixels"),
    "RGBA": (plain("RGBA", (1, 2, 3, 254)), "PNG", {}, "mode RGBA with 16 transparent pixels"),
    "P": (coloured(), "PNG", {"transparency": 0}, "mode P with 1 transparent pixels"),
    "L": (plain("L", 7), "PNG", {"transparency": 7}, "mode L with 16 transparent pixels"),
    "RGB": (plain("RGB", (1, 2, 3)), "PNG", {"transparency": (1, 2, 3)}, "mode RGB with 16 transparent pixels"),
    "I;16": (plain("I;16", 700), "PNG", {"transparency": 700}, "mode I;16 with 16 transparent pixels"),
    "F": (plain("F", 0.5), "TIFF", {}, "mode F, which does not say what is white"),
    "I": (plain("I", 70000), "TIFF", {}, "mode I, which does not say what is white"),
    "I;16 of no fixed range": (plain("I;16", 4095), "TIFF", {}, "mode I;16, which does not say what is white"),
    "LAB": (plain("LAB", (100, 1, 1)), "TIFF", {}, "mode LAB, whose colours are not converted"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_has_no_known_value_is_refused_by_name(what):
    image, kind, options, words = REFUSED[what]
    with pytest.raises(InputError, match=f"row 3 of a: expected an image of 8 bits.*, got {words}; .* as 8-bit RGB"):
        decode(saved(image, kind, **options), SIDE, "row 3 of a")


HELD = {  # what no file of ours comes as, but Pillow reports
    "La": (plain("LA", (100, 255)).convert("La"), (100, 100, 100)),
    "RGBa": (plain("RGBA", (1, 2, 3, 255)).convert("RGBa"), (1, 2, 3)),
    "RGBX": (plain("RGBX", (1, 2, 3, 0)), (1, 2, 3)),
    "PA": (coloured("PA"), (10, 20, 30)),
    "HSV": (plain("HSV", (0, 255, 255)), (255, 0, 0)),
    "YCbCr": (plain("YCbCr", (100, 128, 128)), (100, 100, 100)),
    "I;16B": (plain("I;16B", 32639), None),
    "I;16L": (plain("I;16L", 32639), None),
    "I;16N": (plain("I;16N", 32639), None),
    "I": (plain("I", 127), None),
    "F": (plain("F", 127), None),
}


@pytest.mark.parametrize("mode", HELD)
def test_a_mode_is_converted_or_refused(mode):
    image, value = HELD[mode]
    assert image.mode == mode
    if value is None:
        with pytest.raises(OtherPixels, match=f"mode {mode}, which does not say what is white"):
            as_rgb(image)
    else:
        assert as_rgb(image).getpixel((0, 0)) == value


def test_transparent_pixels_are_none_whatever_they_hide():
    for image in (plain("LA", (100, 0)).convert("La"), plain("RGBA", (1, 2, 3, 9)).convert("RGBa")):
        with pytest.raises(OtherPixels, match=f"mode {image.mode} with 16 transparent pixels"):
            as_rgb(image)
