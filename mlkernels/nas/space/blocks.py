"""What the operations of a search space are made of.

A *block* is a tuple of steps (ReLU, convolution, normalisation, ...), the unit that is compiled. An *operation* of the
search space is a tuple of blocks, for instance two for a separable convolution that is done twice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from mlkernels.errors import bad_input

NORMS = ("group", "batch")


@dataclass(frozen=True)
class Step:
    """A step without weights that keeps the size: the base of all, and ReLU as it is."""

    stride = (1, 1)

    @property
    def weights(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of its weights."""
        return ()

    def out(self, size: tuple[int, int]) -> tuple[int, int]:
        """Height and width that come out."""
        return tuple(-(-pixels // step) for pixels, step in zip(size, self.stride, strict=True))

    def multiply_adds(self, size: tuple[int, int]) -> int:
        """Multiply-adds an image, for an input of this height and width."""
        return math.prod(self.out(size)) * sum(math.prod(shape) for shape in self.weights)


class Relu(Step):
    """ReLU."""


@dataclass(frozen=True)
class Bent(Relu):
    """A ReLU of which the state, on or off, is differentiated too: as if it changed evenly within `width` of zero.

    The width is in units of a sample's root mean square.
    """

    width: float


class Mean(Step):
    """The mean over all pixels."""

    def out(self, size: tuple[int, int]) -> tuple[int, int]:
        return 1, 1


@dataclass(frozen=True)
class Conv(Step):
    """A convolution without bias, zero padded so that stride 1 keeps the size.

    Weights `[height, width, inputs, outputs]`; depthwise `[height, width, inputs]`.
    """

    inputs: int
    outputs: int
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    dilation: int = 1
    depthwise: bool = False

    @property
    def weights(self) -> tuple[tuple[int, ...], ...]:
        return ((*self.kernel, self.inputs),) if self.depthwise else ((*self.kernel, self.inputs, self.outputs),)


@dataclass(frozen=True)
class Halves(Step):
    """The convolutions of DARTS' FactorizedReduce: two 1x1 of stride 2, the second one pixel further, side by side."""

    inputs: int
    outputs: int
    stride = (2, 2)

    @property
    def weights(self) -> tuple[tuple[int, ...], ...]:
        half = self.outputs // 2
        return (1, 1, self.inputs, half), (1, 1, self.inputs, self.outputs - half)


@dataclass(frozen=True)
class Constant(Step):
    """Every entry becomes one number: 0 lets nothing through, 1 makes all images alike."""

    value: float
    stride: tuple[int, int] = (1, 1)


@dataclass(frozen=True)
class Pool(Step):
    """3x3 pooling, `kind` "max" or "average"; pixels outside the image do not count."""

    kind: str
    stride: tuple[int, int] = (1, 1)


@dataclass(frozen=True)
class Norm(Step):
    """Normalisation over groups of channels of one sample ("group"), or over the batch ("batch"); in training mode.

    Its scale and shift are at their start, 1 and 0, and are not among the weights.
    """

    channels: int
    kind: str = "group"


Block = tuple[Step, ...]
Operation = tuple[Block, ...]


def operation(name: str, channels: int, stride: int = 1, norm: str = "group") -> Operation:
    """The blocks of an operation of stride 1 or 2, as many channels in as out; none for a skip connection of stride 1.

    Source: Liu et al. 2019 (DARTS), Wang et al. 2022, their code; "conv_3x3" is a separable convolution there too. The
    stride of "conv_1x5_5x1" is in its first convolution, along both axes.
    """
    C, s, normal = channels, (stride, stride), Norm(channels, norm)

    def separable(k: int, dilation: int = 1, step: tuple[int, int] = (1, 1)) -> Block:
        return Relu(), Conv(C, C, (k, k), step, dilation, depthwise=True), Conv(C, C), normal

    match name:
        case "zeros" | "ones":
            return ((Constant(100.0 * (name == "ones"), s),),)
        case "skip_connect":
            return ((Relu(), Halves(C, C), normal),) if stride > 1 else ()
        case "conv_3x3":
            return (separable(3, 1, s),)
        case "dil_conv_3x3" | "dil_conv_5x5":
            return (separable(int(name[-1]), 2, s),)
        case "sep_conv_3x3" | "sep_conv_5x5":
            return separable(int(name[-1]), 1, s), separable(int(name[-1]))
        case "conv_1x5_5x1":
            return (Relu(), Conv(C, C, (1, 5), s)), (Conv(C, C, (5, 1)), normal)
        case "max_pool_3x3" | "avg_pool_3x3":
            return ((Pool("max" if name[0] == "m" else "average", s),),)
        case "max_pool_3x3BN" | "avg_pool_3x3BN":
            return ((Pool("max" if name[0] == "m" else "average", s), normal),)
    raise bad_input("operation", "an operation of a search space", repr(name), "see nas.SPACES")


def through(block: Block, pixels: int) -> int:
    """Pixels a side that come out of a block."""
    size = (pixels, pixels)
    for step in block:
        size = step.out(size)
    return size[0]
