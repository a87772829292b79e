"""Blocks, run and differentiated: small jitted functions, compiled once for each block, shape and number of samples."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, partial

import jax
import jax.numpy as jnp
import jaxlib.version
from jaxtyping import Array, ArrayLike, Float

from mlkernels.kernels import gram
from mlkernels.nas.engine.lowering import conv, current_lowering, lowering, norm, pool, sample_gradients, tap_gradients
from mlkernels.nas.space.blocks import Bent, Block, Constant, Conv, Halves, Mean, Norm, Pool, Relu, Step
from mlkernels.support.array_arguments import traced
from mlkernels.support.typed import typed

# A ReLU's input so near zero is rounding: of one channel, what comes over two edges may cancel exactly.
ROUNDING = 64

# Temporary memory beyond about 32 MB is given back to the system after each call, which then hands it out page by page
# again: a third of the time. A block with larger arrays than WHOLE bytes takes its samples in chunks of at most CHUNK.
WHOLE, CHUNK = 4e6, 2.5e6
_ASKED: ContextVar[dict | None] = ContextVar("asked", default=None)


@typed
def run_block(
    block: Block, weights: tuple[Array, ...], x: Float[ArrayLike, "*A H W C"], seen: list | None = None
) -> Float[Array, "*A _ _ _"]:
    """A block's output `[n, height, width, channels]`.

    Args:
        block: the steps.
        weights: one array for each shape in the steps' `weights`, in order.
        x: `[n, height, width, channels]`.
        seen: a list that gets which ReLUs are on, bool arrays of the shapes of their outputs. One whose input is zero
            but for rounding is off.

    Example:
        >>> from mlkernels.nas.space.blocks import operation
        >>> (block,) = operation("conv_3x3", 4, stride=2)
        >>> weights = [jnp.ones(shape) for step in block for shape in step.weights]
        >>> run_block(block, weights, jnp.ones((2, 7, 7, 4))).shape
        (2, 4, 4, 4)
    """
    left = iter(weights)
    for step in block:
        x = run_step(step, left, x)
        if seen is not None and isinstance(step, Relu):
            seen.append(x > ROUNDING * jnp.finfo(x.dtype).eps)
    return x


def run_step(step: Step, weights: Iterator[Array], x: Array) -> Array:
    """One step's output; it takes its weights from those that are left."""
    match step:
        case Bent():
            return _bent_relu(x, _width(x, next(weights)))
        case Relu():
            return jax.nn.relu(x)
        case Conv():
            return conv(step, next(weights), x)
        case Halves():
            ahead = jnp.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)))[:, 1::2, 1::2]
            return jnp.concatenate([x[:, ::2, ::2] @ next(weights)[0, 0], ahead @ next(weights)[0, 0]], axis=-1)
        case Pool():
            return pool(step, x)
        case Constant():
            x = x[..., :: step.stride[0], :: step.stride[1], :]
            signs = jnp.indices(x.shape[-3:]).sum(0) % 2
            return jnp.broadcast_to(step.value * (1 - 2 * signs).astype(x.dtype), x.shape)
        case Norm():
            return norm(step, x)
        case Mean():
            return x.mean((1, 2), keepdims=True)
    raise TypeError(f"no such step: {step}")


def _width(x: Array, width: Array) -> Array:
    """So many times a sample's root mean square."""
    return width * jnp.sqrt((x * x).mean(tuple(range(1, x.ndim)), keepdims=True))


@jax.custom_jvp
def _bent_relu(x: Array, width: Array) -> Array:
    return jax.nn.relu(x)


@_bent_relu.defjvp
def _(primals, tangents):
    return _bent_relu(*primals), _state(*primals) * tangents[0]


@jax.custom_jvp
def _state(x: Array, width: Array) -> Array:
    return (x > 0).astype(x.dtype)


@_state.defjvp
def _(primals, tangents):
    x, width = primals
    near = (jnp.abs(x) < width).astype(x.dtype)
    return _state(x, width), near / jnp.where(width > 0, 2 * width, 1) * tangents[0]


def jitted(function: Callable, *static) -> Callable:
    """`function(*static, *arrays)` as a function of the arrays, jitted as it suits this backend and `lowering`.

    Within another program, be it `jax.jit`'s or `jax.grad`'s, it is a part of that: options are for a program of its
    own.
    """
    how, asked = current_lowering(), _ASKED.get()
    run = partial(program(function, None if traced() else jax.default_backend()), how, static)
    if asked is None:
        return run

    def noted(*arrays):
        leaves, form = jax.tree.flatten(arrays)
        shapes = [_shape(leaf) for leaf in leaves]
        key = function, how, static, form, tuple(map(repr, shapes))
        asked[key] = function, (how, static, *jax.tree.unflatten(form, shapes))
        return run(*arrays)

    return noted


@contextmanager
def asked_for() -> Iterator[dict]:
    """A context, of this thread alone, that notes what `jitted` functions are called with: the dict's values.

    They are `(function, (lowering, static, *shapes))`, what `program` takes and its `lower`, one a program.
    """
    asked: dict = {}
    before = _ASKED.set(asked)
    try:
        yield asked
    finally:
        _ASKED.reset(before)


def _shape(leaf):
    """An array's shape and type; a number, which has its own rules of type, as it is."""
    if not hasattr(leaf, "shape"):
        return leaf
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, weak_type=getattr(leaf, "weak_type", False))


@cache
def program(function: Callable, backend: str | None) -> Callable:
    """`run(lowering, static, *arrays)`, jitted for a backend, or for None within another program.

    On a CPU without LLVM's expensive passes: blocks compile twice as fast, and time is spent in matrix products anyway.
    jaxlib before 0.11 also has an older way to compile fusions: a third faster, and what comes out is no slower.
    """
    options = {"xla_llvm_disable_expensive_passes": True} if backend == "cpu" else None
    if options and jaxlib.version.__version_info__ < (0, 11):
        options["xla_cpu_use_fusion_emitters"] = False

    def run(how, static, *arrays):
        with lowering(how):
            return function(*static, *arrays)

    run.__name__ = function.__name__  # in profiles
    return jax.jit(run, static_argnums=(0, 1), compiler_options=options)


def forward(block: Block, weights, x: Array) -> Array:
    """`run_block`, jitted."""
    return jitted(run_block, block)(weights, x)


def observe(block: Block, weights, x: Array) -> tuple[Array, Array]:
    """`run_block` for batches `[B, n, ...]`, and which of its ReLUs are on, bool `[B*n, units]`."""

    def one(x):
        seen = []
        y = run_block(block, weights, x, seen)
        return y, jnp.concatenate([jnp.zeros((len(x), 0), bool), *(on.reshape(len(x), -1) for on in seen)], axis=1)

    y, seen = jax.vmap(one)(x)
    return y, seen.reshape(math.prod(seen.shape[:-1]), seen.shape[-1])


def _over(x: Array, scale) -> Array:
    """Factors of samples, or one for all, with as many axes as x, whose first ones may count outputs."""
    return jnp.reshape(scale, (*[1] * (x.ndim - jnp.ndim(scale)), *jnp.shape(scale)))


@jax.jit
def scaled(x: Array, scale) -> Array:
    """`scale * x`."""
    return x * _over(x, scale)


@jax.jit
def added(total: Array, x: Array, scale) -> Array:
    """`total + scale * x`."""
    return total + x * _over(x, scale)


@partial(jax.jit, static_argnums=1)
def nothing(images: Array, shape: tuple[int, ...]) -> Array:
    """Zeros `[..., *shape]` for images `[..., height, width, colours]`, on the devices where they are."""
    return jnp.zeros((*images.shape[:-3], *shape), images.dtype)


@partial(jax.jit, static_argnums=1)
def no_gradient(x: Array, outputs: int) -> Array:
    """Zeros `[outputs, *x.shape]`."""
    return jnp.zeros((outputs, *x.shape), x.dtype)


@jax.jit
def joined(*arrays: Array) -> Array:
    """Arrays side by side, along the channels."""
    return jnp.concatenate(arrays, axis=-1)


@partial(jax.jit, static_argnums=1)
def split(x: Array, count: int) -> list[Array]:
    """The inverse of `joined`."""
    return jnp.split(x, count, axis=-1)


def backward(block: Block, outputs: str, weights, x: Array, g: Array, scale, into: Array, total: Array):
    """Back through a block, sample by sample: add the Gram of its weights' gradients to a kernel.

    The block is run again from its input, so that nothing but inputs need be held between forward and backward.

    Args:
        outputs: how gradients of several outputs make a kernel, as in `kernels.gram`.
        g: `[k, n, height, width, channels]`, gradients by the block's output, of k outputs of each sample.
        scale: factors on `g`, `[n, 1, 1, 1]`, or one for all.
        into: what the gradient by the input is added to, `[k, n, ...]`.
        total: the kernels so far, `[architectures, rows, rows]`, each of as many samples.

    Returns:
        The gradient by the input, `[k, n, ...]`, and the kernel.
    """
    return jitted(_backward, block, outputs, _chunks(x, g))(weights, x, g, scale, into, total)


def _chunks(x: Array, g: Array) -> int:
    """In how many chunks of equal size a block's samples are taken; 0 where they may not be taken one by one."""
    largest = max(x.nbytes, g.nbytes // len(g))
    here = jax.default_backend() == "cpu" and current_lowering() == "shifts"
    if not here or traced() or len(x.sharding.device_set) > 1:
        return 0
    if largest <= WHOLE:
        return 1
    most = max(int(len(x) * CHUNK / largest), 1)  # samples
    return len(x) // next(count for count in range(most, 0, -1) if len(x) % count == 0)


def _backward(block, outputs, chunks, weights, x, g, scale, into, total):
    def back(chunk):
        x, g = chunk
        one = pullback(block, weights, x, loop=chunks > 0)
        if g.shape[1] == 1:  # vmap would cost time
            found, by_input = one(g[:, 0])
            return [leaf[:, None] for leaf in found], by_input[:, None]
        return jax.vmap(one, 1, 1)(g)

    cut = (x, jnp.moveaxis(g * _over(g, scale), 0, 1))
    if chunks <= 1:
        found, by_input = back(cut)
    else:
        cut = jax.tree.map(lambda a: a.reshape(chunks, -1, *a.shape[1:]), cut)
        found, by_input = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), jax.lax.map(back, cut))
    into = into + jnp.moveaxis(by_input, 1, 0)
    if not found:
        return into, total
    rows = [leaf.reshape(len(total), -1, leaf.shape[1], math.prod(leaf.shape[2:])) for leaf in found]
    kernel = jax.vmap(lambda rows: gram(rows, rows, outputs))(rows)  # of each architecture
    return into, total + kernel.astype(total.dtype)


def pullback(block: Block, weights, x: Array, loop: bool = False) -> Callable:
    """A block is run; from the gradient by its output a function gives those by its weights, leaves `[n, ...]`, sample
    by sample, and that by its input; with `loop` as in `tap_gradients`.
    """
    left, inputs = iter(weights), []  # per step: what went in and the weights
    for step in block:
        own = [next(left) for _ in step.weights]
        inputs.append((x, own))
        x = run_step(step, iter(own), x)

    def one(g):
        found = []
        for step, (x, own) in zip(reversed(block), reversed(inputs), strict=True):
            found += [*_sample_gradients(step, own, x, g, loop)]
            g = jax.vjp(lambda x, step=step, own=own: run_step(step, iter(own), x), x)[1](g)[0]
        return found, g

    return one


def _sample_gradients(step, weights, x: Array, g: Array, loop: bool = False) -> list[Array]:
    if isinstance(step, Conv):
        return [sample_gradients(step, *weights, x, g)] if step.depthwise else tap_gradients(step, x, g, loop)
    if isinstance(step, Halves):
        ahead = jnp.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)))[:, 1::2, 1::2]
        pairs = (x[:, ::2, ::2], ahead), jnp.split(g, [step.outputs // 2], axis=-1)
        return [jnp.einsum("nhwi,nhwo->nio", *pair) for pair in zip(*pairs, strict=True)]
    return []
