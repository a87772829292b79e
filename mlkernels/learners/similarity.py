"""How much features change, layer by layer: linear centred kernel alignment, canonical correlations."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Num

from mlkernels.errors import bad_input
from mlkernels.networks.layers import flat
from mlkernels.support.arguments import in_short, one_of
from mlkernels.support.array_arguments import real_array
from mlkernels.support.network_arguments import check_params
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
    grams = []
    for rows in _centred("linear_cka", a, b):
        gram = rows @ rows.T  # the same number as by the products of features, and small where units are many
        grams.append(gram / np.linalg.norm(gram))
    return float(np.clip((grams[0] * grams[1]).sum(), 0.0, 1.0))


def _centred(what: str, a, b) -> list[np.ndarray]:
    """Both sets of features in float64, a row a point, with centred columns; or an `InputError`."""
    a, b = (np.asarray(real_array(name, part), np.float64) for name, part in (("a", a), ("b", b)))
    if min(a.ndim, b.ndim) < 2 or len(a) != len(b) or len(a) < 2:
        got = f"{list(a.shape)} and {list(b.shape)}"
        raise bad_input(what, "features [n, ...] of the same n >= 2 points", got, "put the points first")
    centred = []
    for name, part in (("a", a), ("b", b)):
        if not np.isfinite(part).all():
            raise bad_input(name, "finite features", "infinities or NaN", "look for a diverged loop")
        rows = part.reshape(len(part), -1)
        rows = rows - rows.mean(0)
        if (rows**2).sum(1).max() <= 1e-24 * max(1.0, np.abs(part).max() ** 2):
            raise bad_input(name, "features that differ between points", "the same for all", "look for dead units")
        centred.append(rows)
    return centred


def _bases(what: str, a, b) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A's centred columns, and orthonormal ones `[n, rank]` that span A's and B's; rounding spans nothing."""
    bases = []
    for given, rows in zip((a, b), centred := _centred(what, a, b), strict=True):
        kind = given.dtype if jnp.issubdtype(getattr(given, "dtype", int), jnp.floating) else np.float64
        u, size, _ = np.linalg.svd(rows, full_matrices=False)
        bases.append(u[:, size > size[0] * max(rows.shape) * float(jnp.finfo(kind).eps)])
    return centred[0], *bases


@typed
def canonical_correlations(a: Num[ArrayLike, "N p"], b: Num[ArrayLike, "N q"]) -> Float[np.ndarray, " r"]:
    r"""The canonical correlations of two sets of features of the same points, largest first.

    .. math:: \rho_1 \ge \dots \ge \rho_r = \text{singular values of } U_A^\top U_B, \qquad
              r = \min(\mathrm{rank}\, A, \mathrm{rank}\, B)

    with U an orthonormal basis of the span of the centred columns: the cosines of the angles between both spans. No
    ridge: directions whose singular value is below n (or the units, if more) roundings of the largest, in the type in
    which the features come, do not count, so units that are dead, repeated or sums of others change nothing. Features
    in float32 that are made float64 before have their rounding counted as directions, which have nothing in common: of
    fifteen units that are linear in one input, one direction is real and fourteen are noise.

    Args:
        a: `[n, ...]`, flattened to n rows; at least 2.
        b: `[n, ...]`; as many rows, any number of units.

    Returns:
        float64 `[r]`, each from 0 to 1. rank A + rank B - (n - 1) of them at least are 1, whatever the features: take
        more than twice as many points as units.

    Raises:
        InputError: as `linear_cka`.

    Example:
        >>> a = np.random.default_rng(0).normal(size=(20, 3))
        >>> canonical_correlations(a, a[:, :2] @ np.array([[1.0, 2.0], [0.0, 3.0]])).round(12).tolist()
        [1.0, 1.0]

    Source: Björck and Golub 1973 for the computation; notebooks/07_which_weights_adapt.
    """
    _, left, right = _bases("canonical_correlations", a, b)
    return np.clip(np.linalg.svd(left.T @ right, compute_uv=False), 0.0, 1.0)


@typed
def cca(a: Num[ArrayLike, "N p"], b: Num[ArrayLike, "N q"], *, weights: str = "mean") -> float:
    r"""Similarity of two sets of features by canonical correlation analysis.

    .. math:: \mathrm{CCA}(A, B) = \frac{1}{r} \sum_{i=1}^r \rho_i, \qquad
              \mathrm{PWCCA}(A, B) = \frac{\sum_i \alpha_i \rho_i}{\sum_i \alpha_i}, \quad
              \alpha_i = \sum_j |h_i^\top a_j|

    with the correlations of `canonical_correlations`, h the canonical variables of A and :math:`a_j` its centred
    columns. 1 for features that span the same functions of the points, up to constants: unlike `linear_cka` it does not
    see any invertible linear map. The projection weighs down directions that A hardly uses, and is not symmetric.

    Args:
        a, b: as in `canonical_correlations`.
        weights: "mean", or "projection" for PWCCA.

    Returns:
        A number from 0 to 1, computed in float64.

    Raises:
        InputError: as `canonical_correlations`; unknown weights.

    Example:
        >>> a = np.random.default_rng(0).normal(size=(20, 3))
        >>> round(cca(a, a @ np.array([[1.0, 2, 3], [0, 1, 5], [0, 0, 9]]) + 4), 12)
        1.0

    Source: Raghu et al. 2017 (the mean), Morcos et al. 2018 (projection weights), Miranda et al. 2021;
    notebooks/07_which_weights_adapt.
    """
    one_of("weights", weights, ("mean", "projection"))
    rows, left, right = _bases("cca", a, b)
    turned, correlations, _ = np.linalg.svd(left.T @ right, full_matrices=False)
    if weights == "mean":
        return float(np.clip(correlations, 0.0, 1.0).mean())
    alpha = np.abs((left @ turned).T @ rows).sum(1)
    return float(np.clip(alpha @ correlations / alpha.sum(), 0.0, 1.0))


@typed
def cca_distance(a: Num[ArrayLike, "N p"], b: Num[ArrayLike, "N q"], *, weights: str = "mean") -> float:
    r"""How much two sets of features differ, by canonical correlation analysis.

    .. math:: d_{\mathrm{CCA}}(A, B) = 1 - \mathrm{CCA}(A, B)

    Args:
        a, b, weights: as in `cca`.

    Returns:
        A number from 0 to 1, computed in float64.

    Raises:
        InputError: as `cca`.

    Example:
        >>> a = np.array([[1.0], [-1.0], [1.0], [-1.0]])
        >>> cca_distance(a, [[1.0], [1.0], [-1.0], [-1.0]])
        1.0

    Source: Miranda et al. 2021, whose figures show it; notebooks/07_which_weights_adapt.
    """
    return 1.0 - cca(a, b, weights=weights)


@typed
def layer_similarities(
    network, before, after, x: Num[ArrayLike, "N ..."], measure: Callable = linear_cka
) -> dict[str, float]:
    r"""How alike each layer's features are before and after something, adaptation as a rule.

    .. math:: s_\ell = S\big(h^\ell(X; \theta), h^\ell(X; \theta')\big)

    Args:
        network: as in `layer_features`.
        before, after: its parameters, of one task.
        x: `[n, ...]`.
        measure: `measure(a [n, p], b [n, q]) -> number`, as `linear_cka`, `cca`, `cca_distance`.

    Returns:
        layer -> number, first to last; the head's is of the outputs.

    Raises:
        InputError: as `layer_features` and the measure, which does not say in which layer.

    Example:
        >>> import jax
        >>> from mlkernels.networks import MLP
        >>> network, x = MLP(4), np.linspace(-1.0, 1.0, 20)[:, None]
        >>> params = network.init(jax.random.key(0), (1,))
        >>> layer_similarities(network, params, params, x, cca_distance).keys()
        dict_keys(['layer1', 'layer2', 'head'])

    Source: Raghu et al. 2020, Miranda et al. 2021; notebooks/07_which_weights_adapt.
    """
    if not callable(measure):
        raise bad_input("measure", "a function of two sets of features", in_short(measure), "give one, as linear_cka")
    first, second = (layer_features(network, params, x) for params in (before, after))
    return {name: measure(first[name], second[name]) for name in first}


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
    if isinstance(network, type) or not hasattr(network, "features"):
        do = "pass the network itself, not its apply"
        raise bad_input("network", "a network of mlkernels.networks", type(network).__name__, do)
    check_params(params)
    return {name: flat(part) for name, part in network.features(params, x).items()}
