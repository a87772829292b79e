"""Pictures that know which class they are of and which of its images they are, whatever is done to them; for tests."""

from __future__ import annotations

import io
from functools import cache

import numpy as np
from PIL import Image

SIDE, BITS = 84, 7
DARK, BRIGHT = np.array([90, 60, 30]), np.array([250, 200, 150])  # red before blue, as in photographs


def picture(number: int, index: int, size: tuple[int, int] = (SIDE, SIDE)) -> np.ndarray:
    """An image uint8 `[height, width, 3]`: seven bars, bright or dark, above for the class, below for the image."""
    bits = np.array([[value >> bit & 1 for bit in range(BITS)] for value in (number, index)])
    rows, columns = (np.arange(length) * count // length for length, count in zip(size, bits.shape, strict=True))
    return np.where(bits[rows][:, columns, None] == 1, BRIGHT, DARK).astype(np.uint8)


def known(images: np.ndarray) -> list[tuple[int, int]]:
    """The class and the number of each of some images."""
    bars = images[..., 0].reshape(-1, 2, SIDE // 2, BITS, SIDE // BITS).mean(axis=(2, 4)) > 170
    return [tuple(int(row @ (1 << np.arange(BITS))) for row in one) for one in bars]


@cache
def jpeg(number: int, index: int, size: tuple[int, int] = (SIDE, SIDE)) -> bytes:
    """A picture as a JPEG file."""
    return encoded(picture(number, index, size))


def encoded(image: np.ndarray, kind: str = "JPEG") -> bytes:
    """An image as a file."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind)
    return file.getvalue()
