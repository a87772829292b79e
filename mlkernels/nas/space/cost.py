"""What a network costs: its parameters and its floating-point operations, counted from its blocks."""

from __future__ import annotations

import math

from mlkernels.nas.space.blocks import Norm
from mlkernels.nas.space.layout import Layout


def parameter_count(layout: Layout, gates, *, classes: int = 0, norms: bool = True) -> int:
    """Trainable parameters of the network that gates leave, as it is trained in the end.

    That network has no normalisation between its last cell and its head; the super-network has one.

    Args:
        layout: the stack.
        gates: bool `[cell type, edge, operation]`.
        classes: outputs of a head with biases (the 64 base classes of miniImageNet, say); 0 counts no head.
        norms: whether to count a scale and a shift for each normalised channel.

    Returns:
        A count.

    Example:
        >>> from mlkernels.nas.space.search_space import Genotype
        >>> genotype = "N: s3<0 s3<1 | s3<1 s3<2 | c3<0 s3<2   R: s3<0 s3<1 | f5<1 d3<2 | d3<2 d3<3"
        >>> layout = Layout(cells=5, channels=48)
        >>> f"{parameter_count(layout, layout.space.gates_of(Genotype.parse(genotype))) / 1e6:.3f} M"
        '1.724 M'

    Source: Wang et al. 2022, its published genotypes.
    """
    steps = [step for block, _ in layout.blocks_of(gates) for step in block]
    count = sum(math.prod(shape) for step in steps for shape in step.weights)
    if norms:
        count += sum(2 * step.channels for step in steps if isinstance(step, Norm))
    return count + (layout.features + 1) * classes


def flop_count(layout: Layout, gates) -> int:
    """Floating-point operations of one image's forward pass: two for every multiply-add of convolutions and head.

    Args:
        layout, gates: as in `parameter_count`.

    Returns:
        A count. Normalisation, pooling and additions are left out, as is usual.

    Example:
        >>> layout = Layout(channels=4, pixels=8)
        >>> closed = layout.space.open_gates() & False
        >>> flop_count(layout, closed) < flop_count(layout, ~closed)
        True
    """
    total = math.prod(layout.head[0].weights[0])
    for block, pixels in layout.blocks_of(gates):
        size = (pixels, pixels)
        for step in block:
            total += step.multiply_adds(size)
            size = step.out(size)
    return 2 * total
