"""The layers of any network, found in its jaxpr: where each parameter meets its input.

Where a weight meets a layer's input h in one product, the gradient of an output by the weight is the outer product of h
and of delta, the gradient of that output by the product. So the Gram matrix of such gradients is the Gram matrix of the
h times, entry by entry, that of the delta, and no gradient need be formed. Biases and scales are layers as well: there
one of the two factors is a one.

The function is traced for one point, and its equations are walked through. On its way to its layer a parameter may pass
constant factors, transposes, reshapes and casts. What is used twice, or in any other way, is no layer. A bias that is
added to a layer's product, or to a multiple of it, is the weight of one more input, which is constant.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, Var, jaxpr_as_fun

from mlkernels.errors import bad_input

PRODUCTS = ("dot_general", "conv_general_dilated", "convolve_3x3")
SUMS = ("add", "add_any", "sub")
PERMUTED = ("transpose", "reshape", "squeeze", "expand_dims", "copy", "rev")
INLINED = {"jit": "jaxpr", "pjit": "jaxpr", "closed_call": "call_jaxpr", "checkpoint": "jaxpr", "remat2": "jaxpr"}


@dataclass(frozen=True)
class Value:
    """A value on the way, whether it moves with the input or a parameter, and the leaf that it is a multiple of.

    The leaf may have been repeated: along new axes or axes of one, which are `grown`. `product` says that it is instead
    `factor` times the product in which that leaf has met its input, and that nothing else makes use of it.
    """

    array: Any
    moves: bool = True
    leaf: int | None = None
    factor: Any = None
    grown: tuple[int, ...] = ()
    product: int | None = None


@dataclass(frozen=True)
class Layer:
    """Where a leaf meets its inputs `[groups, in, positions]`, for one point.

    `order` turns the gradient by the product's result into delta, `[groups, positions, out]`. The gradient by the leaf
    is, in each group, the matrix product of the two (in an order of its entries that is the same for all points).
    """

    inputs: Array
    order: Callable[[Array], Array]


@dataclass(frozen=True)
class Site:
    """The one product in which a leaf meets its input: its result's shape for one point, and `Layer.order`."""

    shape: tuple[int, ...]
    dtype: Any
    order: Callable[[Array], Array]


@dataclass(frozen=True)
class Network:
    """A function of leaves and one point, its layers by number of the leaf, and the leaves that are no layers.

    `biases` are leaves that belong to a layer: bias -> the layer's weight.
    """

    jaxpr: ClosedJaxpr
    layers: dict[int, Site]
    biases: dict[int, int]
    rest: tuple[int, ...]


@dataclass(frozen=True)
class Points:
    """The network at N points: outputs `[N, k]`, the layers' inputs `[N, groups, in, positions]`, and their gradients.

    `gradients(direction)`, for a direction `[k]`, gives the layers' delta `[N, groups, positions, out]`, and the
    gradients of the remaining leaves, `[N, size]`.
    """

    outputs: Array
    inputs: dict[int, Array]
    gradients: Callable[[Array], tuple[dict[int, Array], dict[int, Array]]]


def network(f: Callable, leaves: Sequence[Array], x: Array) -> Network:
    """Find the layers of `f(leaves, x) -> [N, k]`, traced for one point of x; an InputError if f is none."""
    one = jax.ShapeDtypeStruct(x.shape[1:], x.dtype)
    jaxpr = jax.make_jaxpr(lambda leaves, one: f(leaves, one[None]))(leaves, one)
    found = [(each.shape, each.dtype) for each in jaxpr.out_avals]
    if len(found) != 1 or len(found[0][0]) != 2 or not jnp.issubdtype(found[0][1], jnp.floating):
        got = ", ".join(f"{dtype} {list(shape)}" for shape, dtype in found)
        do = "return one array of real numbers, the outputs along its second axis"
        raise bad_input("apply", "real outputs [N, k]", f"{got} for one point", do)
    sites: dict[int, list[Site | None]] = {}
    joined: dict[int, tuple[int, Site]] = {}

    def meet(eqn, operands, output):
        product = None
        for at, operand in enumerate(operands):
            if operand.leaf is not None:
                layer = _layer(eqn, operands, at)
                site = layer and Site(output.shape, output.dtype, layer.order)
                sites.setdefault(operand.leaf, []).append(site)
                weight = operands[1 - at].product if site and eqn.primitive.name in SUMS else None
                if weight is not None and _same_order(sites[weight][0], site):
                    joined[operand.leaf] = weight, replace(site, order=sites[weight][0].order)
                product = operand.leaf if site and eqn.primitive.name in PRODUCTS else None
        return output, product

    def walk(leaves, one):
        (y,) = _walk(jaxpr.jaxpr, jaxpr.consts, [*(Value(a, leaf=i) for i, a in enumerate(leaves)), Value(one)], meet)
        if y.leaf is not None:
            sites.setdefault(y.leaf, []).append(None)
        return y.array

    jax.eval_shape(walk, leaves, one)
    layers = {i: found[0] for i, found in sorted(sites.items()) if len(found) == 1 and found[0] is not None}
    rest = tuple(i for i in sorted(sites) if i not in layers)
    biases = {b: weight for b, (weight, _) in joined.items() if b in layers and weight in layers}
    biases = {b: weight for weight, b in {weight: b for b, weight in biases.items()}.items()}  # one a layer
    layers |= {weight: joined[b][1] for b, weight in biases.items()}
    return Network(jaxpr, {i: site for i, site in layers.items() if i not in biases}, biases, rest)


def _same_order(one: Site, other: Site) -> bool:
    """Whether both have all of the result's entries in the same place."""
    if one.shape != other.shape:
        return False
    entries = np.arange(math.prod(one.shape)).reshape(one.shape)
    return np.array_equal(one.order(entries), other.order(entries))


def points(net: Network, leaves: Sequence[Array], x: Array) -> Points:
    """The network at points x; each layer's product has a zero added to it, by which the outputs are differentiated."""

    def forward(added, one):
        inputs = {}

        def meet(eqn, operands, output):
            product = None
            for at, operand in enumerate(operands):
                if operand.leaf is not None:
                    layer, weight = _layer(eqn, operands, at).inputs, net.biases.get(operand.leaf, operand.leaf)
                    if weight != operand.leaf:  # the layer's one more input
                        inputs[weight] = jnp.concatenate([_times(operands[1 - at].factor, inputs[weight]), layer], 1)
                    else:
                        inputs[weight] = layer
                    if weight == operand.leaf and weight in net.biases.values():
                        product = weight  # until its bias is there
                    else:
                        output = output + added[weight]
            return output, product

        known = {*net.layers, *net.biases}
        values = [Value(leaf, leaf=i if i in known else None) for i, leaf in enumerate(leaves)]
        (y,) = _walk(net.jaxpr.jaxpr, net.jaxpr.consts, [*values, Value(one)], meet)
        return y.array[0], inputs

    zeros = {i: jnp.zeros((len(x), *site.shape), site.dtype) for i, site in net.layers.items()}
    y, pull, inputs = jax.vjp(lambda added: jax.vmap(forward)(added, x), zeros, has_aux=True)

    def along(rest, one, direction):
        whole = [rest.get(i, leaf) for i, leaf in enumerate(leaves)]
        return jaxpr_as_fun(net.jaxpr)(*whole, one)[0][0] @ direction

    def gradients(direction):
        direction = direction.astype(y.dtype)
        (delta,) = pull(jnp.broadcast_to(direction, y.shape))
        delta = {i: jax.vmap(site.order)(delta[i]) for i, site in net.layers.items()}
        by_leaf = jax.vmap(jax.grad(along), (None, 0, None))({i: leaves[i] for i in net.rest}, x, direction)
        return delta, {i: g.reshape(len(x), leaves[i].size).astype(y.dtype) for i, g in by_leaf.items()}

    return Points(y, inputs, gradients)


def _walk(jaxpr: Jaxpr, consts: Sequence, arguments: Sequence[Value], meet: Callable) -> list[Value]:
    """The results of a jaxpr. Where a leaf does not pass an equation, `meet(eqn, operands, output)` gives its result,
    and the leaf whose product it is, or None.
    """
    values = dict(zip(jaxpr.constvars, (Value(c, moves=False) for c in consts), strict=True))
    values |= dict(zip(jaxpr.invars, arguments, strict=True))
    uses = Counter(id(v) for v in (*(v for eqn in jaxpr.eqns for v in eqn.invars), *jaxpr.outvars))

    def read(v) -> Value:
        if isinstance(v, Literal):
            return Value(v.val, moves=False)
        return values[v] if uses[id(v)] == 1 else replace(values[v], product=None)

    for eqn in jaxpr.eqns:
        operands = [read(v) for v in eqn.invars]
        leaves = any(operand.leaf is not None for operand in operands)
        if leaves and eqn.primitive.name in INLINED:
            inner = eqn.params[INLINED[eqn.primitive.name]]
            opened = (inner.jaxpr, inner.consts) if isinstance(inner, ClosedJaxpr) else (inner, ())
            results = _walk(*opened, operands, meet)
        else:
            outputs, product = _computed(jaxpr, eqn, operands), None
            passed = _passed_on(eqn, operands, outputs[0]) if len(outputs) == 1 else None
            if leaves and passed is None:
                first, product = meet(eqn, operands, outputs[0])
                outputs = [first, *outputs[1:]]
            moves = any(operand.moves for operand in operands)
            results = [passed] if passed else [Value(array, moves, product=product) for array in outputs]
        values.update(zip(eqn.outvars, results, strict=True))
    return [read(v) for v in jaxpr.outvars]


def _computed(jaxpr: Jaxpr, eqn, operands: Sequence[Value]) -> list:
    """The results of one of its equations, with its own rules of differentiation; None for those that are not kept."""
    given = {v: o.array for v, o in zip(eqn.invars, operands, strict=True) if not isinstance(v, Literal)}
    kept = [v for v in eqn.outvars if type(v) is Var]
    alone = jaxpr.replace(constvars=[], invars=list(given), outvars=kept, eqns=[eqn])
    results = iter(jaxpr_as_fun(ClosedJaxpr(alone, ()))(*given.values()))
    return [next(results) if type(v) is Var else None for v in eqn.outvars]


def _passed_on(eqn, operands: Sequence[Value], output: Array) -> Value | None:
    """The result of an equation that makes one multiple of a leaf, or of its product, of another; else None."""
    at = next((i for i, o in enumerate(operands) if (o.leaf, o.product) != (None, None)), None)
    if at is None:
        return None
    name, weight, before = eqn.primitive.name, replace(operands[at], array=output), operands[at].array
    if name == "neg":
        return replace(weight, factor=-1 if weight.factor is None else -weight.factor)
    if name in PERMUTED and weight.leaf is not None and not weight.grown:
        return weight
    if name == "convert_element_type" and weight.leaf is not None and jnp.issubdtype(output.dtype, jnp.floating):
        return weight
    if name == "broadcast_in_dim" and weight.leaf is not None and not weight.grown:
        kept = dict(zip(eqn.params["broadcast_dimensions"], before.shape, strict=True))
        return replace(weight, grown=tuple(i for i, n in enumerate(output.shape) if kept.get(i, 1) != n))
    if name not in ("mul", "div") or (name == "div" and at == 1):
        return None
    other = operands[1 - at]
    if other.moves or jnp.size(other.array) != 1 or output.shape != before.shape:
        return None
    number = jnp.reshape(other.array, ())
    number = number if name == "mul" else 1 / number
    return replace(weight, factor=number if weight.factor is None else weight.factor * number)


def _times(factor, array: Array) -> Array:
    """The array times a factor, which is None for one."""
    return array if factor is None else array * jnp.asarray(factor, array.dtype)


def _layer(eqn, operands: Sequence[Value], at: int) -> Layer | None:
    """The layer in which the leaf of operand `at` meets its input in this equation, None where it is no layer."""
    layer = RULES.get(eqn.primitive.name, lambda *_: None)(eqn, operands, at)
    return layer and replace(layer, inputs=_times(operands[at].factor, layer.inputs))


def _sorted(array: Array, *groups: Sequence[int] | None) -> Array:
    """The array with its axes in the order of the groups; None stands for the axes that no group names."""
    named = {axis for group in groups if group is not None for axis in group}
    rest = [axis for axis in range(array.ndim) if axis not in named]
    return array.transpose([axis for group in groups for axis in (rest if group is None else group)])


def _size(shape: Sequence[int], axes: Sequence[int]) -> int:
    return math.prod(shape[axis] for axis in axes)


def _dot(eqn, operands, at: int) -> Layer | None:
    """A `dot_general` of the weight and anything else; its batch dimensions are groups."""
    if operands[at].grown:
        return None
    (contracted, batched), h = eqn.params["dimension_numbers"], operands[1 - at].array
    inside, groups = contracted[1 - at], batched[1 - at]
    n_groups, n_inside, free = _size(h.shape, groups), _size(h.shape, inside), h.ndim - len(groups) - len(inside)
    positions = math.prod(n for axis, n in enumerate(h.shape) if axis not in (*groups, *inside))

    def order(delta):
        first, last = len(groups), delta.ndim  # of the result's axes: groups, then those of the left side
        positioned = range(first, first + free) if at == 1 else range(last - free, last)
        return _sorted(delta, range(first), positioned, None).reshape(n_groups, positions, -1)

    return Layer(_sorted(h, groups, inside, None).reshape(n_groups, n_inside, positions), order)


def _windows(x: Array, window, strides, padding, lhs_dilation, rhs_dilation) -> Array:
    """What each place of a convolution sees of x `[*pixels, channels]`: `[*places, *window, channels]`."""
    around = [(low, high, step - 1) for (low, high), step in zip(padding, lhs_dilation, strict=True)]
    x = lax.pad(x, jnp.zeros((), x.dtype), [*around, (0, 0, 0)])
    for axis, (size, stride, step) in enumerate(zip(window, strides, rhs_dilation, strict=True)):
        last = (x.shape[axis] - 1 - (size - 1) * step) // stride * stride + 1  # of the places, for the first tap
        taps = [lax.slice_in_dim(x, i * step, i * step + last, stride, axis) for i in range(size)]
        x = jnp.stack(taps, axis=len(window) + axis)
    return x


def _convolved(h: Array, window, groups: int, **how) -> Array:
    """The inputs `[groups, in, positions]` of a convolution of one image h `[*pixels, channels]`."""
    seen = _windows(h, window, **how)
    places = math.prod(seen.shape[: len(window)])
    return seen.reshape(places, math.prod(window), groups, -1).transpose(2, 1, 3, 0).reshape(groups, -1, places)


def _conv(eqn, operands, at: int) -> Layer | None:
    """A `conv_general_dilated` of one point's image, with the weight as its kernel."""
    settings, image = eqn.params, operands[0].array
    lhs, rhs, out = settings["dimension_numbers"]
    if at == 0 or operands[1].grown or settings["batch_group_count"] > 1 or image.shape[lhs[0]] != 1:
        return None
    groups, window = settings["feature_group_count"], [operands[1].array.shape[axis] for axis in rhs[2:]]
    how = {name: settings[name] for name in ("padding", "lhs_dilation", "rhs_dilation")}
    image = image.transpose((lhs[0], *lhs[2:], lhs[1]))[0]

    def order(delta):
        delta = delta.transpose((out[0], *out[2:], out[1]))
        return delta.reshape(-1, groups, delta.shape[-1] // groups).swapaxes(0, 1)

    return Layer(_convolved(image, window, groups, strides=settings["window_strides"], **how), order)


def _conv3x3(eqn, operands, at: int) -> Layer | None:
    """The convolution of `networks.conv3x3`, of one point's image."""
    image = operands[0].array
    if at == 0 or operands[1].grown or image.shape[0] != 1:
        return None
    one = (1, 1)
    inputs = _convolved(image[0], (3, 3), 1, strides=one, padding=(one, one), lhs_dilation=one, rhs_dilation=one)
    return Layer(inputs, lambda delta: delta.reshape(1, -1, delta.shape[-1]))


def _by_entries(eqn, operands, at: int) -> Layer | None:
    """A weight that is added to, or multiplied with, something entry by entry; positions are those it is repeated at.

    A bias's inputs are ones, and all its entries are outputs of one group; each entry of a scale is a group of its own.
    """
    weight, out = operands[at], eqn.outvars[0].aval
    shape = weight.array.shape
    if len(shape) != len(out.shape):
        return None
    grown = [axis for axis, n in enumerate(out.shape) if axis in weight.grown or shape[axis] != n]
    places = _size(out.shape, grown)

    def order(delta):
        return _sorted(delta, grown, None).reshape(places, -1)

    if eqn.primitive.name != "mul":
        return Layer(jnp.ones((1, 1, places), out.dtype), lambda delta: order(delta)[None])
    scaled = order(jnp.broadcast_to(operands[1 - at].array, out.shape))
    return Layer(scaled.T[:, None], lambda delta: order(delta).T[..., None])


RULES = {
    "dot_general": _dot,
    "conv_general_dilated": _conv,
    "convolve_3x3": _conv3x3,
    **dict.fromkeys((*SUMS, "mul"), _by_entries),
}
