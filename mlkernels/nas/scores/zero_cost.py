"""Scores from elsewhere, that a condition number has to be held against: of a spectrum, of ReLUs, of paths."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Num

from mlkernels.errors import bad_input
from mlkernels.nas.engine.operations import forward, jitted, observe
from mlkernels.nas.engine.supernet import check_images, run_cells
from mlkernels.nas.space.blocks import Block, Norm
from mlkernels.nas.space.layout import Layout
from mlkernels.support.typed import typed


@typed
def spectral_entropy(kernel: Float[ArrayLike, "N N"]) -> float:
    r"""The entropy of a kernel's spectrum: the larger the better, at most log N where all eigenvalues are equal.

    .. math:: H = -\sum_i p_i \log p_i, \qquad p_i = \lambda_i \Big/ \sum_j \lambda_j

    Of the Gram matrix of per-sample gradients the eigenvalues are the squared singular values of the Jacobian. Those
    below zero count as zero; a kernel that is not finite, or zero, has minus infinity.

    Args:
        kernel: `[N, N]`, symmetric up to rounding.

    Returns:
        Nats, from 0.

    Raises:
        InputError: not a square matrix.

    Example:
        >>> round(spectral_entropy(np.eye(4)) / math.log(4), 3), spectral_entropy(np.ones((4, 4))) < 1e-9
        (1.0, True)

    Source: Kang 2025 (IBFS), of which the abstract alone was at hand: "spectral entropy of the Jacobian at
    initialisation" is read as this formula.
    """
    M = np.asarray(kernel, np.float64)
    if M.ndim != 2 or M.shape[0] != M.shape[1] or not M.size:
        raise bad_input("kernel", "a square matrix", list(M.shape), "pass a kernel of points with themselves")
    if not np.isfinite(M).all():
        return -math.inf
    eigenvalues = np.maximum(np.linalg.eigvalsh((M + M.T) / 2), 0.0)
    if not eigenvalues.sum():
        return -math.inf
    p = eigenvalues[eigenvalues > 0] / eigenvalues.sum()
    return float(-(p * np.log(p)).sum())


@typed
def relu_codes(layout: Layout, params: dict, gates, images) -> Float[np.ndarray, "N N"]:
    """On how many ReLUs, of all in the network that gates leave, two images agree: on in both or off in both.

    A ReLU whose input is zero but for rounding is off.

    Args:
        layout, params, gates, images: as in `supernet.logits`.

    Returns:
        Whole numbers as float64 `[N, N]`, the number of ReLUs on the diagonal.

    Raises:
        InputError: images or gates that do not fit.

    Example:
        >>> from mlkernels.nas.engine.weights import init
        >>> layout = Layout(channels=1, pixels=4, depth=1, colours=1)
        >>> closed = layout.space.open_gates() & False  # leaves the ReLUs of the inputs and the last ones
        >>> images = np.stack([np.eye(4), -np.eye(4)])[..., None]
        >>> relu_codes(layout, init(layout, key=jax.random.key(0)), closed, images).diagonal().tolist()
        [80.0, 80.0]

    Source: Mellor et al. 2021 (NASWOT).
    """
    images = check_images(layout, images).astype(params["head"][0].dtype)
    gates = layout.space.check_gates(gates)[None]
    total = np.zeros((len(images), len(images)))

    def run(block, weights, x, _=None):
        y, on = jitted(observe, block)(weights, x)
        signs = np.where(np.asarray(on), 1.0, -1.0)
        total[:] += (signs @ signs.T + on.shape[1]) / 2
        return y

    last, _ = run_cells(layout, params, gates, images[None], run)
    run(layout.last, (), last)
    return total


@typed
def log_determinant(kernel: Num[ArrayLike, "N N"]) -> float:
    r"""The logarithm of a kernel's determinant: the larger the better.

    .. math:: \log \det K

    Of `relu_codes` it is NASWOT: images that the ReLUs tell apart make it large.

    Args:
        kernel: `[N, N]`.

    Returns:
        A number, minus infinity for a kernel that is singular or not positive.

    Example:
        >>> log_determinant(np.eye(2)), log_determinant(np.ones((2, 2)))
        (0.0, -inf)

    Source: Mellor et al. 2021 (NASWOT).
    """
    sign, value = np.linalg.slogdet(np.asarray(kernel, np.float64))
    return float(value) if sign > 0 else -math.inf


def synflow(layout: Layout, params: dict, gates) -> float:
    r"""The logarithm of synaptic flow: the larger the better. No image is looked at.

    .. math:: \log \sum_w |w|\, \frac{\partial R}{\partial |w|}, \qquad R = \mathbf{1}^\top f_{|W|}(\mathbf{1})

    f is the network without normalisation, with the sizes of all weights, on an image of ones. The sum is the
    derivative of R as all sizes grow alike.

    Args:
        layout, params, gates: as in `supernet.logits`; layout may have either normalisation.

    Returns:
        A number, minus infinity where nothing comes through.

    Raises:
        InputError: gates that do not fit.

    Example:
        >>> from mlkernels.nas.engine.weights import init
        >>> layout = Layout(channels=1, pixels=4, depth=1, colours=1)
        >>> synflow(layout, init(layout, key=jax.random.key(0)), layout.space.open_gates() & False)
        -inf

    Source: Tanaka et al. 2020; Abdelfattah et al. 2021, who leave out normalisation.
    """
    wide = jnp.zeros(0, float).dtype
    sizes = jax.tree.map(lambda w: jnp.abs(jnp.asarray(w, wide)), params)
    gates = layout.space.check_gates(gates)[None]
    colours = layout.colours if layout.stem else layout.channels
    ones = jnp.ones((1, layout.pixels, layout.pixels, colours), wide)

    def flow(scale: Array) -> Array:
        def run(block, weights, x, _=None):
            return forward(_plain(block), tuple(scale * w for w in weights), x)

        x, _ = run_cells(layout, sizes, gates, ones, run)
        return run(layout.head, sizes["head"], run(layout.last, (), x)).sum()

    total = float(jax.grad(flow)(jnp.ones((), wide)))
    return math.log(total) if total > 0 else -math.inf


def _plain(block: Block) -> Block:
    """A block without its normalisation."""
    return tuple(step for step in block if not isinstance(step, Norm))
