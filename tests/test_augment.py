"""Augmentation by number: against torchvision's definitions, written down here once more in NumPy, and Pillow's."""

from __future__ import annotations

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance
from scipy import stats

from mlkernels.errors import InputError
from mlkernels.nas.pictures import augment as aug

N, SIDE, PADDING = 12, 20, 3
STATISTICS = {"mean": np.array([0.47, 0.45, 0.40]), "std": np.array([0.28, 0.27, 0.28])}
ORDERS = np.array(list(itertools.permutations(range(3))))
OPERATIONS = ("brightness", "contrast", "saturation")


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """Smooth colour images, two of them black and white."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (N, 5, 5, 3)).astype(np.uint8)
    out = np.stack([np.asarray(Image.fromarray(one).resize((SIDE, SIDE), Image.Resampling.BICUBIC)) for one in coarse])
    out[0], out[1] = 0, 255
    return out


@pytest.fixture(scope="module")
def drawn() -> aug.Draws:
    """Each order twice, factors beyond what is usually drawn, the corners of the corner among the corners."""
    rng = np.random.default_rng(1)
    corners = rng.integers(0, 2 * PADDING + 1, (N, 2))
    corners[:4] = [[0, 0], [0, 2 * PADDING], [2 * PADDING, 0], [PADDING, PADDING]]
    factors = rng.uniform(0.2, 1.9, (N, 3))
    factors[3] = [1, 1, 1]
    factors[4] = [0, 1, 1]
    return aug.Draws(*map(jnp.asarray, (corners, factors, np.tile(ORDERS, (2, 1)), rng.random(N) < 0.5)))


# --- torchvision's definitions, image by image ------------------------------------------------------------------------


def grey_of(image):
    """rgb_to_grayscale: 0.2989 R + 0.587 G + 0.114 B; cut off to whole levels where the image is uint8."""
    if image.shape[2] == 1:
        return image
    red, green, blue = (image[:, :, [channel]].astype(np.float64) for channel in range(3))
    return (0.2989 * red + 0.587 * green + 0.114 * blue).astype(image.dtype)


def blend(image, other, ratio):
    """ratio * image + (1 - ratio) * other, clamped to what the type can be, cut off where it is uint8."""
    top = 255 if image.dtype == np.uint8 else 1
    mixed = ratio * image.astype(np.float64) + (1 - ratio) * np.asarray(other, np.float64)
    return np.minimum(np.maximum(mixed, 0), top).astype(image.dtype)


def adjust(image, operation, factor):
    """adjust_brightness, adjust_contrast, adjust_saturation."""
    if operation == "brightness":
        return blend(image, np.zeros(image.shape), factor)
    if operation == "contrast":
        return blend(image, grey_of(image).astype(np.float64).mean(), factor)
    return image if image.shape[2] == 1 else blend(image, grey_of(image), factor)


def reference_jitter(images, factors, order):
    out = []
    for image, factor, sequence in zip(images, np.asarray(factors), np.asarray(order), strict=True):
        for number in sequence:
            image = adjust(image, OPERATIONS[number], factor[number])
        out.append(image)
    return np.stack(out)


def reference_crop(images, corners, padding):
    out = np.zeros_like(images)
    size = images.shape[1]
    for number, (top, left) in enumerate(np.asarray(corners)):
        for row, column in itertools.product(range(size), repeat=2):
            y, x = row + top - padding, column + left - padding
            if 0 <= y < size and 0 <= x < size:
                out[number, row, column] = images[number, y, x]
    return out


# --- one operation at a time ------------------------------------------------------------------------------------------


def test_crop(images, drawn):
    found = aug.apply_crop(images, drawn.corners, PADDING)
    assert found.dtype == np.uint8
    assert np.array_equal(found, reference_crop(images, drawn.corners, PADDING))
    assert np.array_equal(found[3], images[3])  # the corner (padding, padding) is the image itself
    assert (np.asarray(found[1])[:PADDING] == 0).all()  # and (0, .) moves it down by the padding, below black
    assert np.array_equal(aug.apply_crop(images, jnp.zeros((N, 2), int), 0), images)


@pytest.mark.parametrize("number", range(3), ids=OPERATIONS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_one_operation_is_torchvisions(images, drawn, number, dtype):
    factors = np.ones((N, 3))
    factors[:, number] = drawn.factors[:, number]
    found = aug.apply_jitter(jnp.asarray(images, dtype) / 255, factors, drawn.order)
    expected = np.stack(
        [adjust(x / 255, OPERATIONS[number], f) for x, f in zip(images, factors[:, number], strict=True)]
    )
    assert found.dtype == dtype
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 if dtype == np.float32 else 1e-12)


def test_all_operations_in_every_order(images, drawn):
    unit = images / 255
    found = aug.apply_jitter(unit, drawn.factors, drawn.order)
    np.testing.assert_allclose(found, reference_jitter(unit, drawn.factors, drawn.order), rtol=0, atol=1e-12)
    other = aug.apply_jitter(unit, drawn.factors, drawn.order[::-1])
    assert np.abs(found - other)[5:].max() > 0.05  # the order matters
    assert (found.min(), found.max()) == (0, 1)  # and so did the clamping
    np.testing.assert_allclose(found[3], unit[3], rtol=0, atol=1e-12)  # factors of 1
    assert (np.asarray(found[1])[..., 0] == np.asarray(found[1])[..., 1]).all()  # white stays without colour


def test_one_channel_is_its_own_grey(images, drawn):
    unit = images[..., :1] / 255
    found = aug.apply_jitter(unit, drawn.factors, drawn.order)
    np.testing.assert_allclose(found, reference_jitter(unit, drawn.factors, drawn.order), rtol=0, atol=1e-12)


def test_eight_bit_pipelines_differ_by_a_few_levels(images):
    """The difference that the module's docstring states: uint8 tensors and Pillow images lose levels at each step."""
    enhancers = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    factors = np.random.default_rng(2).uniform(0.6, 1.4, (N, 3))
    order = np.tile(ORDERS, (2, 1))
    pillow = []
    for image, factor, sequence in zip(images, factors, order, strict=True):
        picture = Image.fromarray(image)
        for number in sequence:
            picture = enhancers[number](picture).enhance(factor[number])
        pillow.append(np.asarray(picture))
    found = 255 * np.asarray(aug.apply_jitter(images / 255, factors, order))
    tensor = reference_jitter(images, factors, order)
    assert tensor.dtype == np.uint8
    for eight_bit in (np.stack(pillow), tensor):
        lost = found - eight_bit
        assert 0.3 < np.abs(lost).mean() < 2
        assert np.abs(lost).max() < 4.5


def test_flip(images, drawn):
    found = np.asarray(aug.apply_flip(images, drawn.flipped))
    assert 0 < drawn.flipped.sum() < N
    for before, after, turned in zip(images, found, np.asarray(drawn.flipped), strict=True):
        assert np.array_equal(after, before[:, ::-1] if turned else before)


def test_normalise(images):
    expected = (images / 255 - STATISTICS["mean"]) / STATISTICS["std"]
    np.testing.assert_allclose(aug.normalise(images, **STATISTICS), expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(aug.normalise(images / 255, **STATISTICS), expected, rtol=0, atol=1e-12)
    single = aug.normalise(images, **STATISTICS, dtype=jnp.float32)
    assert single.dtype == jnp.float32
    np.testing.assert_allclose(single, expected, rtol=0, atol=2e-6)


# --- all of it, and what is drawn -------------------------------------------------------------------------------------


def test_augment_is_its_parts(images, key):
    options = {"padding": PADDING, "jitter": (0.4, 0.3, 0.2)}
    found = aug.augment(images, key=key, **STATISTICS, **options)
    drawn = aug.draw(N, key=key, **options)
    cut = reference_crop(images, drawn.corners, PADDING) / 255
    expected = reference_jitter(cut, drawn.factors, drawn.order)  # black padding counts in the mean of the contrast
    expected = np.where(drawn.flipped[:, None, None, None], expected[:, :, ::-1], expected)
    expected = (expected - STATISTICS["mean"]) / STATISTICS["std"]
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


def test_augment_depends_on_its_key_alone_and_compiles_once(images):
    call = partial(aug.augment, **STATISTICS, padding=PADDING, dtype=jnp.float32)
    one = call(images, key=jax.random.key(0))
    compiled = aug._augment._cache_size()
    again, other = (call(jnp.asarray(images), key=jax.random.key(seed)) for seed in (0, 1))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)
    stronger = call(images, key=jax.random.key(0), jitter=0.8, flip=0.1)
    assert not np.array_equal(one, stronger)
    assert aug._augment._cache_size() == compiled  # keys, strengths and rates are data
    twice = call(np.repeat(images[2:3], N, axis=0), key=jax.random.key(0))
    assert len(np.unique(np.asarray(twice).reshape(N, -1), axis=0)) == N  # each image has its own draw
    inside = jax.jit(lambda x, key: call(x, key=key))(images, jax.random.key(0))
    np.testing.assert_allclose(inside, one, rtol=0, atol=1e-5)


def test_nothing_is_changed_where_nothing_is_asked_for(images, key):
    plain = aug.augment(images, key=key, **STATISTICS, padding=0, jitter=0, flip=0)
    np.testing.assert_allclose(plain, aug.normalise(images, **STATISTICS), rtol=0, atol=1e-12)
    mirrored = aug.augment(images, key=key, **STATISTICS, padding=0, jitter=0.0, flip=1)
    np.testing.assert_allclose(mirrored, plain[:, :, ::-1], rtol=0, atol=1e-12)


def test_draws_are_distributed_as_promised():
    count = 20000
    drawn = aug.draw(count, key=jax.random.key(7), padding=4, jitter=(0.4, 0.8, 1.5), flip=0.3)
    corners = np.asarray(drawn.corners)
    cells = np.bincount(corners[:, 0] * 9 + corners[:, 1], minlength=81)
    assert (corners.min(), corners.max(), len(cells)) == (0, 8, 81)
    assert stats.chisquare(cells).pvalue > 1e-3
    for factor, (low, high) in zip(np.asarray(drawn.factors).T, ((0.6, 1.4), (0.2, 1.8), (0, 2.5)), strict=True):
        assert low <= factor.min() < factor.max() <= high
        assert stats.kstest((factor - low) / (high - low), "uniform").pvalue > 1e-3
    ranks = np.bincount(np.asarray(drawn.order) @ [9, 3, 1], minlength=27)
    assert np.flatnonzero(ranks).tolist() == sorted(ORDERS @ [9, 3, 1])  # permutations, and all six
    assert stats.chisquare(ranks[ranks > 0]).pvalue > 1e-3
    flips = np.asarray(drawn.flipped)
    assert stats.binomtest(int(flips.sum()), count, 0.3).pvalue > 1e-3
    columns = np.column_stack([corners, drawn.factors, drawn.order[:, 0], flips])
    correlations = np.corrcoef(columns, rowvar=False)[np.triu_indices(columns.shape[1], 1)]
    assert np.abs(correlations).max() < 5 / np.sqrt(count)  # and each on its own


@pytest.mark.parametrize("flip", [0.5, 0.3])
def test_draws_are_the_same_in_32_and_64_bit_jax(images, key, flip):
    options = {"key": key, "flip": flip, "dtype": jnp.float32}
    with jax.enable_x64(False):
        single = aug.draw(200, **options), aug.augment(images, **STATISTICS, **options)
    double = aug.draw(200, **options), aug.augment(images, **STATISTICS, **options)
    jax.tree.map(np.testing.assert_array_equal, single, double)
    assert double[0].corners[:3].tolist() == [[3, 0], [10, 4], [5, 12]]  # a training goes on as it began
    assert double[0].order[:3].tolist() == [[1, 2, 0], [2, 0, 1], [2, 1, 0]]


# --- bad input --------------------------------------------------------------------------------------------------------

GOOD = np.zeros((2, 8, 8, 3), np.uint8)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"images": GOOD / 255}, "images: expected uint8, got float64"),
        ({"images": GOOD[0]}, r"images: expected an array \[N, H, W, C\] of 1 or 3 channels, got \[8, 8, 3\]"),
        ({"images": GOOD.transpose(0, 3, 1, 2)}, r"got \[2, 3, 8, 8\]; give a batch, channels last"),
        ({"images": [1]}, "images: .*got list"),
        ({"key": 3}, "key: expected one JAX key, got int"),
        ({"mean": [0.5]}, r"mean: expected \[3\], one number a channel, got \[1\]"),
        ({"std": [0.5, 0.5, 0]}, "std: expected numbers above 0"),
        ({"padding": -1}, "padding: expected a whole number of at least 0, got -1"),
        ({"padding": 1.0}, "padding"),
        ({"jitter": -0.1}, "jitter: expected one strength of at least 0"),
        ({"jitter": (0.4, 0.4)}, "jitter"),
        ({"flip": 2}, "flip: expected a probability from 0 to 1, got 2"),
        ({"dtype": int}, "dtype: expected a floating type"),
    ],
)
def test_bad_input_is_refused(change, words, key):
    options = {"images": GOOD, "key": key, **STATISTICS, **change}
    with pytest.raises(InputError, match=words):
        aug.augment(options.pop("images"), **options)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: aug.draw(0, key=jax.random.key(0)), "count"),
        (lambda: aug.apply_crop(GOOD, jnp.zeros((3, 2), int), 1), r"corners: expected an array \[2, 2\]"),
        (lambda: aug.apply_jitter(GOOD, jnp.ones((2, 3)), jnp.zeros((2, 3), int)), r"floats in \[0, 1\], got uint8"),
        (lambda: aug.apply_jitter(GOOD / 255, jnp.ones(3), jnp.zeros((2, 3), int)), r"factors.*got \[3\]"),
        (lambda: aug.apply_jitter(GOOD / 255, jnp.ones((2, 3)), [0, 1, 2]), "order.*got list"),
        (lambda: aug.apply_flip(GOOD, jnp.array([True])), "flipped"),
        (lambda: aug.normalise(GOOD.astype(np.int32), **STATISTICS), "images: expected uint8, or floats"),
    ],
)
def test_bad_draws_are_refused(call, words):
    with pytest.raises(InputError, match=words):
        call()
