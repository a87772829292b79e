"""Glyphs: invented characters from a seeded stroke generator. Needs no file: stands in where there is no Omniglot."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Float, UInt8

from mlkernels.datasets.dataset import Dataset, pixel_statistics
from mlkernels.support.arguments import whole
from mlkernels.support.typed import typed

SIZE = 28
FINE = 4  # strokes are inked on a grid this much finer, then averaged: anti-aliasing
POINTS = 96  # along a stroke: 3 fine pixels apart or less, but for a few, and the thinnest pen is 3 wide
STROKES = 4
OFFSETS = np.array([(row, column) for row in range(-2, 3) for column in range(-2, 3)])  # a pen's tip, in fine pixels

# How hands differ. Chosen so that nearest centroid on raw pixels does about as well as on Omniglot.
WOBBLE = 0.055  # of each control point, in box heights
STRETCH = 0.17  # of width and height
SLANT = 0.16  # off-diagonal part of the affine map
SHIFT = 0.075  # of the whole character, in box heights

BOX = 19.0  # pixels that a unit of the skeleton's box takes
PEN = (1.45, 2.4)  # radius in fine pixels

# Everything is +, -, *, / and square roots of uniform numbers, so that every platform draws the same pixels.


def available() -> str:
    """Glyphs are always there."""
    return "drawn by mlkernels"


def load(*, seed: int = 0, classes: int = 240, drawings: int = 20) -> Dataset:
    """Invented handwritten characters, 28x28, ink = 255: about as hard as Omniglot for nearest centroid.

    A class is a skeleton of two to four strokes (lines, bows, hooks, waves as cubic Bezier curves that meet at
    common points); a drawing moves its control points a little, stretches, slants and shifts it, and takes another pen.

    Args:
        seed: whole number of at least 0; the same seed gives the same pixels everywhere.
        classes: how many characters, at least 12. 15/24 of them train, 4/24 validate, the others test.
        drawings: of each character, at least 1.

    Returns:
        A `Dataset` with splits train/val/test (150/40/50 of 240), images `[classes*drawings, 28, 28, 1]`. It is kept
        in memory; its arrays are read-only.

    Raises:
        InputError: a number out of its range.

    Example:
        >>> data = load(seed=1, classes=12, drawings=2)
        >>> data.images.shape, data.images.dtype
        ((24, 28, 28, 1), dtype('uint8'))
    """
    return _load(whole("seed", seed), whole("classes", classes, 12), whole("drawings", drawings, 1))


@lru_cache(maxsize=4)
def _load(seed: int, classes: int, drawings: int) -> Dataset:
    random = np.random.default_rng(seed)
    strokes, shown = _skeletons(classes, random)
    images = np.concatenate(
        [
            ink(*_hands(strokes[start : start + 40], shown[start : start + 40], drawings, random))
            for start in range(0, classes, 40)  # 40 classes at a time keep the fine grids small
        ]
    )
    images.flags.writeable = False
    train, val = classes * 15 // 24, classes * 4 // 24
    ids = dict(zip(("train", "val", "test"), np.split(np.arange(classes), [train, train + val]), strict=True))
    labels = np.repeat(np.arange(classes), drawings)
    mean, std = pixel_statistics(images, np.arange(train * drawings))
    names = tuple(f"glyph{number:03d}" for number in range(classes))
    source = f"{available()}, seed {seed}"
    return Dataset("glyphs", images, labels, names, ids, mean, std, source, "MIT (part of mlkernels)")


@typed
def _skeletons(
    classes: int, random: np.random.Generator
) -> tuple[Float[np.ndarray, "n 4 4 2"], Bool[np.ndarray, "n 4"]]:
    """Characters before any hand draws them: Bezier control points float `[classes, 4 strokes, 4 points, 2]` about 0,
    the longer side at most 1, and which strokes a character has (2 to 4): bool `[classes, 4]`.
    """
    grid = np.stack(np.meshgrid([0.0, 0.5, 1.0], [0.0, 0.33, 0.67, 1.0]), axis=-1).reshape(-1, 2)
    anchors = grid + random.uniform(-0.08, 0.08, (classes, len(grid), 2))  # where strokes begin and end
    shown = np.arange(STROKES) < random.choice([2, 3, 4], (classes, 1), p=[0.4, 0.4, 0.2])
    strokes = np.zeros((classes, STROKES, 4, 2))
    rows = np.arange(classes)
    used = np.zeros((classes, len(grid)), dtype=bool)
    joined = np.broadcast_to(np.eye(len(grid), dtype=bool), (classes, len(grid), len(grid))).copy()
    for index in range(STROKES):
        # begin at a used point (so that strokes meet) three times in four
        meets = (random.random((classes, 1)) < 0.75) & used.any(axis=1, keepdims=True)
        first = np.where(meets & ~used, -1.0, random.random(used.shape)).argmax(axis=1)
        start = anchors[rows, first]
        free = (_length(anchors - start[:, None]) > 0.4) & ~joined[rows, first]
        last = np.where(free, random.random(used.shape) - 0.5 * used, -1.0).argmax(axis=1)
        end = anchors[rows, last]
        used[rows, first] = used[rows, last] = True
        joined[rows, first, last] = joined[rows, last, first] = True
        along = end - start
        across = along[:, ::-1] * [-1.0, 1.0]
        # line, bow, hook (one control point far out), wave (to both sides)
        kind = random.choice(4, (classes, 1), p=[0.4, 0.3, 0.18, 0.12])
        bend = random.uniform(0.35, 0.9, (classes, 1)) * random.choice([-1.0, 1.0], (classes, 1))
        one = np.select([kind == 0, kind == 1, kind == 2], [0.0 * bend, bend, 1.6 * bend], bend)
        two = np.select([kind == 0, kind == 1, kind == 2], [0.0 * bend, bend, 0.1 * bend], -bend)
        third = along * 0.33
        strokes[:, index] = np.stack([start, start + third + one * across, end - third + two * across, end], axis=1)
    return _framed(strokes, shown, random.uniform(0.75, 1.0, (classes, 1, 1, 1))), shown


@typed
def _hands(
    strokes: Float[np.ndarray, "n 4 4 2"], shown: Bool[np.ndarray, "n 4"], drawings: int, random: np.random.Generator
) -> tuple[Float[np.ndarray, "N 4 4 2"], Bool[np.ndarray, "N 4"], Float[np.ndarray, " N"]]:
    """Each skeleton drawn by several hands: what `ink` takes, for `classes*drawings` images."""
    count = len(strokes) * drawings
    drawn = np.repeat(strokes, drawings, axis=0)
    shown = np.repeat(shown, drawings, axis=0)
    drawn = drawn + WOBBLE * _bell(random, drawn.shape)
    scale = 1.0 + STRETCH * _bell(random, (count, 1, 1, 2))
    slant = SLANT * _bell(random, (count, 1, 1, 2))
    drawn = drawn * scale + drawn[..., ::-1] * slant
    drawn = drawn + SHIFT * _bell(random, (count, 1, 1, 2))
    pixels = drawn[..., ::-1] * BOX + (SIZE - 1) / 2
    return pixels, shown, random.uniform(*PEN, count)


@typed
def ink(
    strokes: Float[np.ndarray, "N 4 4 2"], shown: Bool[np.ndarray, "N 4"], radius: Float[np.ndarray, " N"]
) -> UInt8[np.ndarray, "N 28 28 1"]:
    """Ink strokes onto paper, anti-aliased: uint8 `[N, 28, 28, 1]`, ink = 255.

    Strokes are Bezier control points in pixels (row, column), `[N, 4, 4, 2]`; the pen's radius is in quarter pixels, at
    most 2.8.
    """
    side = SIZE * FINE
    points = _curve(strokes, POINTS)
    fine = np.rint((points + 0.5) * FINE - 0.5).astype(np.int32)
    drawn = shown[:, :, None] & ((fine >= 2) & (fine < side - 2)).all(axis=-1)  # a pen beyond the margin draws nothing
    image = np.nonzero(drawn)[0]
    row_of, column_of = fine[drawn].T
    flat = (image * side + row_of) * side + column_of
    paper = np.zeros(len(strokes) * side * side, dtype=bool)
    reach = radius * radius
    for row, column in OFFSETS:
        paper[flat[row * row + column * column <= reach[image]] + row * side + column] = True
    counts = paper.reshape(-1, SIZE, FINE, SIZE, FINE).sum(axis=(2, 4), dtype=np.uint16)
    return (counts * 255 // (FINE * FINE)).astype(np.uint8)[..., None]


@typed
def _curve(strokes: Float[np.ndarray, "*strokes 4 2"], points: int) -> Float[np.ndarray, "*strokes points 2"]:
    """Points along Bezier curves."""
    t = np.linspace(0.0, 1.0, points)[:, None]
    u = 1.0 - t
    weights = (u * u * u, 3.0 * u * u * t, 3.0 * u * t * t, t * t * t)
    return sum(weight * strokes[..., index, None, :] for index, weight in enumerate(weights))


def _framed(strokes: np.ndarray, shown: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Centre characters on 0 and make the longer side of each `size`."""
    curve = _curve(strokes, 9)
    low = np.where(shown[..., None, None], curve, np.inf).min(axis=(1, 2))[:, None, None]
    high = np.where(shown[..., None, None], curve, -np.inf).max(axis=(1, 2))[:, None, None]
    return (strokes - (low + high) / 2) * (size / (high - low).max(axis=-1, keepdims=True))


def _bell(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """About standard normal, of three uniform numbers; never beyond 3."""
    return 2.0 * (random.random(shape) + random.random(shape) + random.random(shape) - 1.5)


def _length(vectors: np.ndarray) -> np.ndarray:
    return np.sqrt(vectors[..., 0] * vectors[..., 0] + vectors[..., 1] * vectors[..., 1])
