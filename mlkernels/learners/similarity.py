"""How much features change: linear centred kernel alignment, layer by layer."""

from __future__ import annotations

import numpy as np
from jaxtyping import Array, ArrayLike, Float, Num

from mlkernels.errors import bad_input
from mlkernels.support.typed import typed


@typed
def linear_cka(a: Num[ArrayLike, "N p"], b: Num[ArrayLike, "N q"]) -> float:
    r"""Linear centred kernel alignment of two sets of features of the same points.

    .. math:: \mathrm{CKA}(A, B) = \frac{\|A^\top B\|_F^2}{\|A^\top A\|_F\, \|B^\top B\|_F}

    with centred columns. 1 for features that are equal up to a rotation, a common scale and a shift; it cannot tell
    these apart. Few points give values near 1 for any features of many units: take more points than units.

    Args:
        a: `[n, ...]`, flattened to n rows; at least 2.
        b: `[n, ...]`; as many rows, any number of units.

    Returns:
        A number from 0 to 1, computed in float64.

    Raises:
        InputError: different numbers of points or fewer than two, numbers that are not finite, features that are
            the same for all points.

    Example:
        >>> a = np.random.default_rng(0).normal(size=(20, 3))
        >>> round(linear_cka(a, 5 * a[:, ::-1] + 1), 12)
        1.0

    Source: Kornblith et al. 2019, equation 4; notebooks/03_anil_inner_loop_geometry.
    """
    a, b = (np.asarray(part, np.float64) for part in (a, b))
    if min(a.ndim, b.ndim) < 2 or len(a) != len(b) or len(a) < 2:
        got = f"{list(a.shape)} and {list(b.shape)}"
        raise bad_input("linear_cka", "features [n, ...] of the same n >= 2 points", got, "put the points first")
    grams = []
    for name, part in (("a", a), ("b", b)):
        if not np.isfinite(part).all():
            raise bad_input(name, "finite features", "infinities or NaN", "look for a diverged loop")
        rows = part.reshape(len(part), -1)
        rows = rows - rows.mean(0)
        gram = rows @ rows.T  # the same number as by the products of features, and small where units are many
        if np.abs(gram).max() <= 1e-24 * max(1.0, np.abs(part).max() ** 2):
            raise bad_input(name, "features that differ between points", "the same for all", "look for dead units")
        grams.append(gram / np.linalg.norm(gram))
    return float(np.clip((grams[0] * grams[1]).sum(), 0.0, 1.0))


@typed
def layer_features(network, params, x: Num[ArrayLike, "N ..."]) -> dict[str, Float[Array, "N ..."]]:
    """What each layer of a network puts out, one row a point.

    Args:
        network: an `MLP` or a `Conv4`: it has `features(params, x)`.
        params: its parameters.
        x: `[n, ...]`.

    Returns:
        layer -> `[n, units]`, first to last; convolutional features are flattened, the head's are the outputs.

    Raises:
        InputError: a network without `features`.

    Example:
        >>> import jax
        >>> from mlkernels.networks import Conv4
        >>> network = Conv4(channels=8, depth=2, outputs=5)
        >>> params = network.init(jax.random.key(0), (8, 8, 1))
        >>> {name: f.shape for name, f in layer_features(network, params, np.ones((3, 8, 8, 1))).items()}
        {'conv1': (3, 128), 'conv2': (3, 32), 'head': (3, 5)}
    """
    if not hasattr(network, "features"):
        do = "pass the network itself, not its apply"
        raise bad_input("network", "a network of mlkernels.networks", type(network).__name__, do)
    return {name: part.reshape(len(part), -1) for name, part in network.features(params, x).items()}
