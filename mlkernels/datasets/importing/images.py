"""What the readers of images share: decoding, the order of channels, chunks with labels."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from mlkernels.datasets.importing.modes import OtherPixels, as_rgb
from mlkernels.datasets.mapped import CHUNK
from mlkernels.errors import bad_input

FLIPPED = "its channels were blue, green, red; they were turned round"


def decode(data: bytes, side: int, where: str) -> np.ndarray:
    """An image file as uint8 `[side, side, 3]`, squashed to a square where it is none.

    Each pixel is the mean of the area that it covers (Pillow's BOX, OpenCV's INTER_AREA); small images are enlarged
    linearly. An image that has the size already is taken as it is. 16-bit grey is scaled to 8 bits.

    Raises:
        InputError: no image, one that is cut short, or pixels whose 8-bit value is not known (`as_rgb` says which); it
            says which image by `where`.
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


def is_blue_first(pieces: Iterable[np.ndarray]) -> bool:
    """Whether images have the channels blue, green, red: photographs are red on average, so the first is the smallest.

    Args:
        pieces: uint8 `[n, H, W, 3]` each.

    Example:
        >>> is_blue_first([np.array([[[[90, 100, 110]]]], np.uint8)])
        True
    """
    total = np.zeros(3, dtype=np.int64)
    for images in pieces:
        total += images[::10].sum(axis=(0, 1, 2), dtype=np.int64)
    return bool(total[0] < total[1] < total[2])


def labelled(
    pieces: Callable[[], Iterator[np.ndarray]], labels: np.ndarray, flip: bool = False
) -> Callable[[], Iterator[tuple[np.ndarray, np.ndarray]]]:
    """Chunks for a `Part` from images in a row and the label of each; rows of label -1 are left out."""

    def chunks() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        start = 0
        for images in pieces():
            own = labels[start : start + len(images)]
            start += len(images)
            kept = own >= 0
            images = images if kept.all() else images[kept]
            yield images[..., ::-1] if flip else images, own[kept]

    return chunks


def decoded(
    files: Callable[[], Iterator[tuple[bytes, int, str]]], side: int
) -> Callable[[], Iterator[tuple[np.ndarray, np.ndarray]]]:
    """Chunks for a `Part` from image files: `files` gives an iterator over (bytes, label, where it lies)."""

    def chunks() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        images, labels = [], []
        for data, label, where in files():
            images.append(decode(data, side, where))
            labels.append(label)
            if len(images) == CHUNK:
                yield np.stack(images), np.array(labels)
                images, labels = [], []
        if images:
            yield np.stack(images), np.array(labels)

    return chunks


def check_array(images, shape: tuple[int, ...], count: int, path: Path) -> None:
    """It is an array uint8 `[count, *shape]`, or an `InputError` says what it is."""
    found = tuple(getattr(images, "shape", ()))
    if getattr(images, "dtype", None) != np.uint8 or found != (count, *shape):
        got = f"{images.dtype} {list(found)}" if found else type(images).__name__
        expected = f"images uint8 {[count, *shape]}, one for each label"
        raise bad_input(str(path), expected, got, "nothing was imported; give another copy")


def numbered(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labels as 0..classes-1, and what each was before, ascending."""
    values, numbers = np.unique(labels, return_inverse=True)
    return numbers.reshape(np.shape(labels)), values
