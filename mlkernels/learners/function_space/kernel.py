"""Kernels of features of points and of the network: they add up, multiply and carry their numbers as logarithms."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from mlkernels.errors import bad_input
from mlkernels.kernels import empirical_ntk
from mlkernels.support.arguments import in_short, is_real, plain


class Points(NamedTuple):
    """What a kernel may look at. A pytree.

    Args:
        x: inputs `[n, ...]`: what the NTK sees.
        features: `[n, p]`, what the other kernels see; None where there is no other.
    """

    x: Array
    features: Array | None = None


def positive(name: str, value) -> float:
    """A finite number above 0, as Python's float.

    Example:
        >>> positive("gamma", 0)
        Traceback (most recent call last):
        mlkernels.errors.InputError: gamma: expected a finite number above 0, got 0; use one such as 0.1
    """
    value = plain(value)
    if not is_real(value) or not 0 < value < math.inf:
        raise bad_input(name, "a finite number above 0", in_short(value), "use one such as 0.1")
    return float(value)


def wide(array: Array) -> Array:
    """In 64 bits where JAX has them: what is nearly singular has no digits to lose."""
    return array.astype(jnp.result_type(float))


class Kernel:
    """What all kernels share; those of one's own beside these are not known to `fit`'s checkpoints."""

    of_features = True  # whether it looks at features,
    of_network = False  # and whether at the network, whose type then rounds it

    def __post_init__(self) -> None:
        for field in fields(self):
            object.__setattr__(self, field.name, positive(field.name, getattr(self, field.name)))

    def __add__(self, other: Kernel) -> Sum:
        return Sum((self, other))

    def __mul__(self, other: Kernel) -> Product:
        return Product((self, other))

    def __radd__(self, other) -> Sum:  # of a number: refused in words
        return Sum((other, self))

    def __rmul__(self, other) -> Product:
        return Product((other, self))

    @property
    def numbers(self) -> Any:
        """The logarithms of the hyperparameters, passed beside the form, so that others do not compile anew."""
        return {f"log_{field.name}": np.asarray(math.log(getattr(self, field.name))) for field in fields(self)}

    @property
    def form(self) -> Kernel:
        """The kernel with all hyperparameters 1."""
        return type(self)()

    def at(self, numbers) -> Kernel:
        """The kernel of this form with the hyperparameters that such numbers stand for."""
        return type(self)(**{name.removeprefix("log_"): float(np.exp(value)) for name, value in numbers.items()})

    def gram(self, numbers, apply: Callable, params, a: Points, b: Points | None = None) -> Array:
        """`[n, m]` for n and m points, of numbers in the place of the kernel's own; None is a itself. Unchecked."""
        raise NotImplementedError


def _scale(numbers) -> Array:
    """The squared amplitude."""
    return jnp.exp(2 * wide(jnp.asarray(numbers["log_amplitude"])))


def _pair(a: Points, b: Points | None) -> tuple[Array, Array]:
    return wide(a.features), wide((a if b is None else b).features)


def _narrow(points: Points) -> bool:
    """Whether products of features are exact in the wide type, and no square leaves its range: float32 in float64."""
    return points.features.dtype.itemsize < jnp.result_type(float).itemsize


def _products(one: Array, two: Array, same: bool) -> tuple[Array, Array, Array]:
    """Inner products `[n, m]`, and the squared lengths of both: on its diagonal where both are the same."""
    products = jnp.matmul(one, two.T, precision="highest")
    if same:
        return products, jnp.diagonal(products), jnp.diagonal(products)
    return products, (one**2).sum(-1), (two**2).sum(-1)


@dataclass(frozen=True)
class RBF(Kernel):
    r"""The Gaussian kernel of features: points that look alike have alike labels.

    .. math:: k(x, x') = A^2 \exp\Big(-\frac{\|\varphi(x) - \varphi(x')\|^2}{2\ell^2}\Big)

    Distances are those of differences, feature by feature: 0 at equal points, with a derivative of 0. Of float32
    features they are made of products in float64, which is quicker: seen from the first point of the other side, and
    rounded by about 1e-16 of the square of the largest distance, less than what float32 has rounded already.

    Args:
        length_scale: l, positive.
        amplitude: A, positive.

    Raises:
        InputError: a number that is not positive.

    Example:
        >>> RBF(2.0) * (Linear() + Cosine())
        Product(parts=(RBF(length_scale=2.0, amplitude=1.0), Sum(parts=(Linear(amplitude=1.0), Cosine(amplitude=1.0)))))

    Source: Rasmussen and Williams 2006, section 4.2; notebooks/06_function_space_adaptation.
    """

    length_scale: float = 1.0
    amplitude: float = 1.0

    def gram(self, numbers, apply: Callable, params, a: Points, b: Points | None = None) -> Array:
        one, two = _pair(a, b)
        if _narrow(a):
            origin = jax.lax.stop_gradient(two[:1].sum(0))  # no distance depends on it
            products, lengths, others = _products(one - origin[None], two - origin[None], b is None)
            squares = jnp.maximum(lengths[:, None] + others[None] - 2 * products, 0)
        else:
            squares = ((one[:, None] - two[None]) ** 2).sum(-1)
        return _scale(numbers) * jnp.exp(-squares / 2 * jnp.exp(-2 * wide(jnp.asarray(numbers["log_length_scale"]))))


@dataclass(frozen=True)
class Linear(Kernel):
    r"""Inner products of features: a linear head on them, fitted with a ridge.

    .. math:: k(x, x') = A^2\, \varphi(x) \cdot \varphi(x')

    Args:
        amplitude: A, positive.

    Raises:
        InputError: a number that is not positive.

    Example:
        >>> Linear(0.5)
        Linear(amplitude=0.5)

    Source: Bertinetto et al. 2019 (R2-D2's head); notebooks/06_function_space_adaptation.
    """

    amplitude: float = 1.0

    def gram(self, numbers, apply: Callable, params, a: Points, b: Points | None = None) -> Array:
        one, two = _pair(a, b)
        return _scale(numbers) * jnp.matmul(one, two.T, precision="highest")


@dataclass(frozen=True)
class Cosine(Kernel):
    r"""The cosine of the angle between features, whatever their length.

    .. math:: k(x, x') = A^2\, \frac{\varphi(x) \cdot \varphi(x')}{\|\varphi(x)\|\,\|\varphi(x')\|}

    Where features are all 0 there is no angle; the kernel and its derivative are 0 there.

    Args:
        amplitude: A, positive.

    Raises:
        InputError: a number that is not positive.

    Example:
        >>> Cosine().numbers
        {'log_amplitude': array(0.)}

    Source: Patacchiola et al. 2020 (deep kernel transfer, whose best kernels are of this kind);
    notebooks/06_function_space_adaptation.
    """

    amplitude: float = 1.0

    def gram(self, numbers, apply: Callable, params, a: Points, b: Points | None = None) -> Array:
        one, two = _pair(a, b)
        if _narrow(a):  # no length is lost: the few products are divided, not the many features
            products, *squares = _products(one, two, b is None)
            over, under = map(_over_root, squares)
            return _scale(numbers) * products * over[:, None] * under[None]
        return _scale(numbers) * jnp.matmul(_unit(one), _unit(two).T, precision="highest")


def _over_root(squares: Array) -> Array:
    """One over the root; 0 at 0, with a derivative of 0."""
    there = squares > 0
    return jnp.where(there, 1 / jnp.sqrt(jnp.where(there, squares, 1.0)), 0.0)


def _unit(features: Array) -> Array:
    """Rows of length 1; zero rows stay, with a derivative of 0."""
    largest = jax.lax.stop_gradient(jnp.abs(features).max(-1, keepdims=True, initial=0.0))
    there = largest > 0
    scaled = features / jnp.where(there, largest, 1.0)  # so that no square is lost; the direction does not change
    squares = (scaled**2).sum(-1, keepdims=True)
    return jnp.where(there, scaled / jnp.sqrt(jnp.where(there, squares, 1.0)), 0.0)


@dataclass(frozen=True)
class NTK(Kernel):
    r"""The empirical NTK of the network itself, at the parameters: the functions that it reaches at first order.

    .. math:: k(x, x') = \frac{A^2}{k} \sum_{c=1}^{k} \partial_\theta f_c(x) \cdot \partial_\theta f_c(x')

    Args:
        amplitude: A, positive.

    Raises:
        InputError: a number that is not positive.

    Example:
        >>> (NTK() + RBF()).of_features, NTK().of_features
        (True, False)

    Source: Jacot et al. 2018; `kernels.empirical_ntk` of outputs "trace"; notebooks/06_function_space_adaptation.
    """

    amplitude: float = 1.0
    of_features = False
    of_network = True

    def gram(self, numbers, apply: Callable, params, a: Points, b: Points | None = None) -> Array:
        kernel = empirical_ntk(apply, params, a.x, None if b is None else b.x, outputs="trace")
        return _scale(numbers) * wide(kernel)


@dataclass(frozen=True)
class _Several(Kernel):
    parts: tuple[Kernel, ...]

    def __post_init__(self) -> None:
        parts = self.parts if isinstance(self.parts, tuple | list) else (self.parts,)
        for part in parts:
            if not isinstance(part, Kernel):
                do = "put together RBF, Linear, Cosine and NTK; a factor is an amplitude squared"
                raise bad_input("kernel", "kernels as parts", repr(part), do)
        if not parts:
            raise bad_input("kernel", "kernels as parts", "none", "put together RBF, Linear, Cosine and NTK")
        flattened = (part.parts if type(part) is type(self) else (part,) for part in parts)
        object.__setattr__(self, "parts", sum(flattened, ()))

    @property
    def of_features(self) -> bool:
        return any(part.of_features for part in self.parts)

    @property
    def of_network(self) -> bool:
        return any(part.of_network for part in self.parts)

    @property
    def numbers(self) -> tuple:
        return tuple(part.numbers for part in self.parts)

    @property
    def form(self) -> Kernel:
        return type(self)(tuple(part.form for part in self.parts))

    def at(self, numbers) -> Kernel:
        return type(self)(tuple(part.at(each) for part, each in zip(self.parts, numbers, strict=True)))

    def grams(self, numbers, *given):
        return (part.gram(each, *given) for part, each in zip(self.parts, numbers, strict=True))


@dataclass(frozen=True)
class Sum(_Several):
    r"""The sum of kernels, as `+` makes it: its functions are sums of theirs.

    .. math:: k = k_1 + k_2 + \dots

    Args:
        parts: kernels; sums among them are taken apart.

    Raises:
        InputError: no parts, or one that is no kernel.

    Example:
        >>> len((RBF() + Linear() + Cosine()).parts)
        3

    Source: Rasmussen and Williams 2006, section 4.2.4; notebooks/06_function_space_adaptation.
    """

    def gram(self, numbers, apply: Callable, params, a: Points, b: Points | None = None) -> Array:
        return sum(self.grams(numbers, apply, params, a, b))


@dataclass(frozen=True)
class Product(_Several):
    r"""The product of kernels, as `*` makes it: alike only where all of them say so.

    .. math:: k = k_1\, k_2 \cdots

    Args:
        parts: kernels; products among them are taken apart.

    Raises:
        InputError: no parts, or one that is no kernel.

    Example:
        >>> (RBF(2.0) * NTK()).form
        Product(parts=(RBF(length_scale=1.0, amplitude=1.0), NTK(amplitude=1.0)))

    Source: Rasmussen and Williams 2006, section 4.2.4; notebooks/06_function_space_adaptation.
    """

    def gram(self, numbers, apply: Callable, params, a: Points, b: Points | None = None) -> Array:
        return math.prod(self.grams(numbers, apply, params, a, b))
