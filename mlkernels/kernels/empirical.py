"""The NTK and the NNGP of a finite network: layer by layer, from each layer's inputs and its outputs' gradients."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Float, Num

from mlkernels.errors import bad_input
from mlkernels.kernels.layers import Network, Points, network, points
from mlkernels.support.arguments import one_of, whole
from mlkernels.support.array_arguments import traced
from mlkernels.support.memory import require
from mlkernels.support.network_arguments import check_apply, check_params, check_points
from mlkernels.support.typed import typed

OUTPUTS = ("sum", "full", "trace")
UNROLL = 5  # outputs at a time: on a CPU several small convolutions at once fill its cores

_einsum = partial(jnp.einsum, precision="highest")


def _trained(apply, params, part: str | None):
    """The leaves to differentiate by, and the network as a function of them and of its inputs."""
    whole, tree = jax.tree.flatten(params if part is None else params[part])
    floats = [i for i, leaf in enumerate(whole) if jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)]

    def f(leaves, x):
        joined = list(whole)
        for i, leaf in zip(floats, leaves, strict=True):
            joined[i] = leaf
        trained = tree.unflatten(joined)
        return apply(trained if part is None else {**params, part: trained}, x)

    return [jnp.asarray(whole[i]) for i in floats], f


def gram(
    jacobian1: list[Float[Array, "..."]], jacobian2: list[Float[Array, "..."]], outputs: str
) -> Float[Array, "P Q"]:
    """The Gram matrix of two lists of derivatives `[N, k, p]`, leaf by leaf, in highest precision."""
    k = jacobian1[0].shape[1]
    rows = (lambda a: a.reshape(-1, a.shape[-1])) if outputs == "full" else (lambda a: a.reshape(a.shape[0], -1))
    total = sum(jnp.matmul(rows(a), rows(b).T, precision="highest") for a, b in zip(jacobian1, jacobian2, strict=True))
    return total / k if outputs == "trace" else total


def _through_grams(inputs1, inputs2, out: int, pairs: int) -> bool:
    """Whether the product of two Gram matrices is cheaper for a layer than its gradients, and takes no more memory."""
    n, groups, inside, positions = inputs1.shape
    m, size = len(inputs2), inside * out
    grams = n * m * positions**2
    cheaper = grams * (inside + pairs * (out + 1)) < ((n + m) * positions + n * m * pairs) * size
    return cheaper and groups * grams <= max(n * m, (n + m) * groups * size)


def _by_gradients(inputs, delta):
    """A layer's gradients `[N, size]`."""
    rows = jnp.matmul(inputs, delta, precision="highest")
    return rows.reshape(len(rows), math.prod(rows.shape[1:]))


def _along(one: Points, two: Points, direction) -> Array:
    """The Gram matrix `[N, M]` of the gradients along one direction of the outputs, layer by layer."""
    delta1, rest1 = one.gradients(direction)
    delta2, rest2 = (delta1, rest1) if two is one else two.gradients(direction)
    total = sum((_einsum("np,mp->nm", rest1[i], rest2[i]) for i in rest1), jnp.zeros((), one.outputs.dtype))
    for i, d1 in delta1.items():
        h1, h2, d2 = one.inputs[i], two.inputs[i], delta2[i]
        if _through_grams(h1, h2, d1.shape[-1], 1):
            product = _einsum("ngip,mgiq->gnpmq", h1, h2) * _einsum("ngpo,mgqo->gnpmq", d1, d2)
            layer = product.sum((0, 2, 4))
        else:
            g1 = _by_gradients(h1, d1)
            layer = _einsum("np,mp->nm", g1, g1 if two is one else _by_gradients(h2, d2))
        total += layer.astype(total.dtype)
    return total


def _all_pairs(one: Points, two: Points, directions, each: Callable) -> Array:
    """The Gram matrix `[k, N, k, M]` of the gradients of all outputs, layer by layer; `each` is a map over outputs."""
    pairs = partial(_einsum, "knp,lmp->knlm")

    def held(points, direction):
        """Of each layer its gradients where these are smaller than what they are made of, else its delta."""
        delta, rows = points.gradients(direction)
        short = [i for i in delta if points.inputs[i].shape[2] < points.inputs[i].shape[3]]
        return delta, rows | {i: _by_gradients(points.inputs[i], delta.pop(i)) for i in short}

    delta1, rows1 = each(partial(held, one), directions)
    delta2, rows2 = (delta1, rows1) if two is one else each(partial(held, two), directions)
    total = sum((pairs(rows1[i], rows2[i]) for i in rows1), jnp.zeros((), one.outputs.dtype))
    for i, d1 in delta1.items():
        h1, h2, d2 = one.inputs[i], two.inputs[i], delta2[i]
        if _through_grams(h1, h2, d1.shape[-1], len(directions) ** 2):
            h, d = _einsum("ngip,mgiq->gnpmq", h1, h2), _einsum("kngpo,lmgqo->gknplmq", d1, d2)
            layer = (h[:, None, :, :, None] * d).sum((0, 3, 6))
        else:
            g1 = lax.map(partial(_by_gradients, h1), d1)
            layer = pairs(g1, g1 if two is one else lax.map(partial(_by_gradients, h2), d2))
        total += layer.astype(total.dtype)
    return total


def gradient_rows(
    apply: Callable, params, x: Float[Array, "n ..."], directions: Float[Array, "d k"]
) -> tuple[Float[Array, "n k"], list[Float[Array, "d n size"]]]:
    """The outputs, and each point's gradients along some directions of them, leaf by leaf (a bias with its weight).

    In an order of entries that is the same for all points: for inner products alone. Unchecked.
    """
    leaves, f = _trained(apply, params, None)
    with jax.default_matmul_precision("highest"):
        at = points(network(f, leaves, x), leaves, x)

        def rows(direction):
            delta, rest = at.gradients(direction)
            return [*(_by_gradients(at.inputs[i], delta[i]) for i in delta), *(rest[i] for i in rest)]

        return at.outputs, [jnp.stack(leaf) for leaf in zip(*map(rows, directions), strict=True)]


def _at_once(f: Callable, xs):
    return jax.vmap(f)(xs)


def _at_once_is_quicker(net: Network) -> bool:
    """Whether all outputs at once are quicker than one after the other, though they take more memory.

    In a loop the gradient of JAX's own convolution by its input is 20 times slower on a CPU
    (findings/xla_cpu_convolution_in_a_loop.sh).
    """
    return "conv_general_dilated" in str(net.jaxpr)


@partial(jax.jit, static_argnums=(0, 4, 5))
def _block(apply, params, x1, x2, outputs, part):
    leaves, f = _trained(apply, params, part)
    with jax.default_matmul_precision("highest"):
        net = network(f, leaves, x1)
        one = points(net, leaves, x1)
        two = one if x2 is None else points(net, leaves, x2)
        (n, k), m = one.outputs.shape, len(two.outputs)
        directions = jnp.ones((1, k)) if outputs == "sum" else jnp.eye(k)
        at_once = _at_once_is_quicker(net)
        if outputs == "full":
            each = _at_once if at_once else lax.map
            total = _all_pairs(one, two, directions, each).transpose(1, 0, 3, 2).reshape(n * k, m * k)
        elif at_once:
            total = _at_once(partial(_along, one, two), directions).mean(0)
        else:  # one output after the other: the gradients of some at a time are held
            start = jnp.zeros((n, m), one.outputs.dtype)
            total, _ = lax.scan(lambda total, d: (total + _along(one, two, d), None), start, directions, unroll=UNROLL)
            total /= len(directions)
    return (total + total.T) / 2 if x2 is None else total


@lru_cache
def _needs(apply, tree, shapes, x1, x2, outputs: str, part: str | None) -> int:
    """The bytes that a block of points takes: the layers' inputs and deltas, and what the largest of them makes."""

    at_once = []

    def held(params, *blocks):
        leaves, f = _trained(apply, params, part)
        net = network(f, leaves, x1)
        at_once.append(_at_once_is_quicker(net))
        both = [points(net, leaves, x) for x in blocks]
        deltas, rest = zip(*(each.gradients(jnp.ones(each.outputs.shape[-1])) for each in both), strict=True)
        one, two, k = both[0], both[-1], both[0].outputs.shape[-1]

        def made(i):
            h1, h2, d1, d2 = one.inputs[i], two.inputs[i], deltas[0][i], deltas[-1][i]
            if not _through_grams(h1, h2, d1.shape[-1], k**2 if outputs == "full" else 1):
                return [_by_gradients(p.inputs[i], d[i]) for p, d in zip(both, deltas, strict=True)]
            return _einsum("ngip,mgiq->gnpmq", h1, h2), _einsum("ngpo,mgqo->gnpmq", d1, d2)

        return one.outputs, [each.inputs for each in both], [deltas, rest], [made(i) for i in net.layers]

    def size(tree) -> int:
        return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))

    blocks = (x1,) if x2 is None else (x1, x2)
    y, inputs, along, layers = jax.eval_shape(held, jax.tree.unflatten(tree, shapes), *blocks)
    directions = y.shape[-1] if outputs == "full" or (outputs == "trace" and at_once[0]) else 1
    return size(inputs) + directions * (size(along) + max(map(size, layers), default=0))


@typed
def empirical_ntk(
    apply: Callable,
    params,
    x1: Num[ArrayLike, "N1 ..."],
    x2: Num[ArrayLike, "N2 ..."] | None = None,
    *,
    outputs: str = "sum",
    batch_size: int | None = None,
    part: str | None = None,
) -> Float[Array, "P Q"]:
    r"""The NTK of a finite network at given parameters: inner products of its per-sample gradients.

    .. math:: \hat\Theta(x, x') = \partial_\theta f(x)\, \partial_\theta f(x')^\top

    Args:
        apply: `apply(params, x) -> [N, k]`; hashable (a function, or a method of a frozen dataclass).
        params: the parameters, any pytree.
        x1: inputs `[N1, ...]`.
        x2: inputs `[N2, ...]`; None means `x1`.
        outputs: "sum" takes the gradient of the sum of the k outputs; "full" keeps all outputs; "trace" averages the k
            diagonal blocks of "full". At infinite width "full" is `ntk (x) I_k`, "trace" is `ntk`, "sum" is `k * ntk`.
        batch_size: points a block; two blocks are held at once, each as its layers' inputs and the gradients of one
            layer. None means all points at once.
        part: the name of the one layer to differentiate, None for all.

    Returns:
        `[N1, N2]`; for "full" `[N1*k, N2*k]`, sample first, then output.

    Raises:
        InputError: unknown `outputs` or `part`, a batch size below 1, or more memory needed than there is (the message
            says how many bytes).

    Example:
        >>> import jax
        >>> from mlkernels.networks import MLP
        >>> network = MLP(width=32, outputs=3)
        >>> params = network.init(jax.random.key(0), (6,))
        >>> x = jax.random.normal(jax.random.key(1), (4, 6))
        >>> empirical_ntk(network.apply, params, x, outputs="full").shape
        (12, 12)

    Source: Jacot et al. 2018; notebooks/01_derive_metantk.
    """
    check_apply(apply)
    check_params(params, constants=True)
    one_of("outputs", outputs, OUTPUTS)
    if part is not None and not (isinstance(params, dict) and part in params):
        names = sorted(params) if isinstance(params, dict) else "no names"
        raise bad_input("part", f"a layer among {names}", repr(part), "name a layer of params")
    if batch_size is not None:
        batch_size = whole("batch_size", batch_size, 1, do="leave it out to take all points at once")
    x1, x2 = check_points(x1, x2)
    n1, n2 = len(x1), 0 if x2 is None else len(x2)
    b1, b2 = min(n1, batch_size or n1), min(n2 or (n1 if batch_size else 0), batch_size or n2)
    one, two = (jax.ShapeDtypeStruct((b, *x1.shape[1:]), x1.dtype) for b in (b1, b2))
    leaves, tree = jax.tree.flatten(params)
    shapes = tuple(jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.result_type(leaf)) for leaf in leaves)
    needed = _needs(apply, tree, shapes, one, two if b2 else None, outputs, part)
    fewer = "pass a smaller batch_size" if (batch_size or n1) > 1 else "use a narrower network"
    require(needed, f"the gradients of {b1 + b2} points", fewer)
    if batch_size is None or max(n1, n2) <= batch_size:
        return _block(apply, params, x1, x2, outputs, part)
    return _blockwise(apply, params, x1, x2, outputs, part, batch_size)


def _blockwise(apply, params, x1, x2, outputs, part, batch_size) -> Array:
    """The same, one pair of blocks after the other; for `x2` None the lower blocks are the upper ones transposed."""
    starts1 = range(0, len(x1), batch_size)
    second = x1 if x2 is None else x2
    starts2 = range(0, len(second), batch_size)
    blocks: dict[tuple[int, int], np.ndarray | Array] = {}
    for i in starts1:
        for j in starts2:
            if x2 is None and j < i:
                blocks[i, j] = blocks[j, i].T
                continue
            other = None if x2 is None and i == j else second[j : j + batch_size]
            block = _block(apply, params, x1[i : i + batch_size], other, outputs, part)
            blocks[i, j] = block if traced() else np.asarray(block)  # waits, so that no more than one is at work
    joined = (jnp if traced() else np).block([[blocks[i, j] for j in starts2] for i in starts1])
    return jnp.asarray(joined)


@typed
def empirical_nngp(
    apply: Callable,
    params,
    x1: Num[ArrayLike, "N1 ..."],
    x2: Num[ArrayLike, "N2 ..."] | None = None,
    *,
    head: str = "head",
    outputs: str = "trace",
    batch_size: int | None = None,
) -> Float[Array, "P Q"]:
    r"""The NNGP as a finite network sees it: the NTK of its last layer alone.

    .. math:: \hat{\mathcal{K}}(x, x') = \partial_{head} f(x)\, \partial_{head} f(x')^\top
              = \tfrac{\sigma_{last}^2}{n} \langle h(x), h(x')\rangle + \sigma_b^2

    It is the kernel in which ANIL's inner loop moves, and tends to the NNGP of the output with width. (The product
    `f(x) f(x')` has the same mean but does not settle down with width: it is one sample.)

    Args:
        apply, params, x1, x2, outputs, batch_size: as in `empirical_ntk`; here `outputs` is "trace" by default, which
            tends to the NNGP itself.
        head: the name of the last layer in `params`.

    Returns:
        `[N1, N2]`; for "full" `[N1*k, N2*k]`.

    Raises:
        InputError: as `empirical_ntk`.

    Example:
        >>> import jax
        >>> from mlkernels.networks import MLP
        >>> network = MLP(width=32)
        >>> params = network.init(jax.random.key(0), (6,))
        >>> empirical_nngp(network.apply, params, jax.numpy.ones((4, 6))).shape
        (4, 4)

    Source: Lee et al. 2018; notebooks/01_derive_metantk.
    """
    return empirical_ntk(apply, params, x1, x2, outputs=outputs, batch_size=batch_size, part=head)
