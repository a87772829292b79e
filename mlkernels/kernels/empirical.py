"""The NTK and the NNGP of a finite network, from gradients in plain JAX."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Num

from mlkernels.errors import bad_input
from mlkernels.support.arguments import one_of
from mlkernels.support.array_arguments import traced
from mlkernels.support.memory import require
from mlkernels.support.typed import typed

OUTPUTS = ("sum", "full", "trace")


def _trained(apply, params, part: str | None):
    """The parameters to differentiate by, and the network as a function of them and of its inputs."""
    if part is None:
        return params, apply
    return params[part], lambda trained, x: apply({**params, part: trained}, x)


def _jacobian(apply, trained, x, outputs: str):
    """Per-sample derivatives: a list of matrices `[N, k, parameters of one leaf]`, k = 1 for "sum"."""

    def f(trained, one):
        y = apply(trained, one[None])[0]
        return y.sum(keepdims=True) if outputs == "sum" else y

    jacobian = jax.vmap(jax.jacrev(f), (None, 0))(trained, x)
    return [leaf.reshape(*leaf.shape[:2], -1) for leaf in jax.tree.leaves(jacobian)]


def gram(
    jacobian1: list[Float[Array, "..."]], jacobian2: list[Float[Array, "..."]], outputs: str
) -> Float[Array, "P Q"]:
    """The Gram matrix of two lists of derivatives `[N, k, p]`, leaf by leaf, in highest precision."""
    k = jacobian1[0].shape[1]
    rows = (lambda a: a.reshape(-1, a.shape[-1])) if outputs == "full" else (lambda a: a.reshape(a.shape[0], -1))
    total = sum(jnp.matmul(rows(a), rows(b).T, precision="highest") for a, b in zip(jacobian1, jacobian2, strict=True))
    return total / k if outputs == "trace" else total


def _once_a_point(trained) -> bool:
    """Whether pushing gradients forward is cheaper than their Gram: only a dense layer's weights meet a point once."""
    return all(leaf.ndim <= 2 for leaf in jax.tree.leaves(trained))


def _pushed(apply, trained, x1, x2, outputs: str) -> Array:
    """The Gram matrix one point of `x2` at a time: its k gradients, pushed forward through the linearisation at `x1`.

    It holds the gradients of one point where the Gram holds those of all, and a "full" kernel costs no more than a
    "trace". About twice as fast as the Gram for an MLP of width 512 (`benchmarks/empirical_ntk.py`).
    """
    with jax.default_matmul_precision("highest"):
        y, push = jax.linearize(lambda moving: apply(moving, x1), trained)
        k = y.shape[-1]
        directions = jnp.ones((1, k), y.dtype) if outputs == "sum" else jnp.eye(k, dtype=y.dtype)

        def column(point):
            _, pull = jax.vjp(lambda moving: apply(moving, point[None]), trained)

            def along(direction):
                moved = push(*pull(direction[None]))
                return moved if outputs == "full" else moved @ direction

            return jax.vmap(along)(directions)

        columns = jax.lax.map(column, x1 if x2 is None else x2)  # [N2, k or 1, N1], and [.., k] for "full"
    if outputs == "full":
        total = columns.transpose(2, 3, 0, 1).reshape(len(x1) * k, -1)
    else:
        total = columns.sum(1).T / len(directions)
    return (total + total.T) / 2 if x2 is None else total


@partial(jax.jit, static_argnums=(0, 4, 5))
def _block(apply, params, x1, x2, outputs, part):
    trained, f = _trained(apply, params, part)
    if _once_a_point(trained):
        return _pushed(f, trained, x1, x2, outputs)
    first = _jacobian(f, trained, x1, outputs)
    return gram(first, first if x2 is None else _jacobian(f, trained, x2, outputs), outputs)


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
        batch_size: points a block; at most two blocks of gradients are held at once (one point's, where all layers are
            dense). None means all points at once.
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
    one_of("outputs", outputs, OUTPUTS)
    if part is not None and not (isinstance(params, dict) and part in params):
        names = sorted(params) if isinstance(params, dict) else "no names"
        raise bad_input("part", f"a layer among {names}", repr(part), "name a layer of params")
    if batch_size is not None and batch_size < 1:
        raise bad_input("batch_size", "at least 1", batch_size, "leave it out to take all points at once")
    k = 1 if outputs == "sum" else jax.eval_shape(apply, params, x1[:1]).shape[-1]
    trained, _ = _trained(apply, params, part)
    n1, n2 = len(x1), 0 if x2 is None else len(x2)
    b1, b2 = min(n1, batch_size or n1), min(n2 or (n1 if batch_size else 0), batch_size or n2)
    row_bytes = k * sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(trained))
    held = 1 if _once_a_point(trained) else b1 + b2
    fewer = "pass a smaller batch_size" if held > 1 and (batch_size or n1) > 1 else "use a narrower network"
    require(held * row_bytes, f"{held} per-sample gradients of {row_bytes} bytes", fewer)
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
