"""How much memory a network takes, from shapes alone, before anything is drawn, resized or compiled.

What is counted is held for certain; what the compiler adds is not, so that nothing is refused that would run.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from mlkernels.nas.engine.graph import Join, Run
from mlkernels.nas.engine.network import Network
from mlkernels.nas.space.blocks import Block, Conv, Halves, Norm, through
from mlkernels.nas.space.layout import Layout


def weight_count(blocks: Iterable[Block]) -> int:
    """Weights of blocks, without scales and shifts."""
    return sum(math.prod(shape) for block in blocks for step in block for shape in step.weights)


def own_count(network: Network) -> int:
    """Numbers that are trained, and a head with its bias."""
    norms = sum(2 * step.channels for block in network.blocks for step in block if isinstance(step, Norm))
    return norms + weight_count(network.blocks) + (network.features + 1) * network.classes


def drawn_count(layout: Layout) -> int:
    """Weights that are drawn for any architecture of a layout: those of its super-network."""
    edges = [blocks for cell in layout.stack for edge in cell.edges for operation in edge for blocks in operation]
    return weight_count([layout.first, layout.head, *(pre for cell in layout.stack for pre in cell.pre), *edges])


def scoring_bytes(layout: Layout, images: int, itemsize: int = 4) -> int:
    """How much memory any score of a layout's super-network holds at least: its weights, a block's input and output."""
    sizes = [cell.channels * cell.pixels**2 for cell in layout.stack]
    sizes += [channels * pixels**2 for cell in layout.stack for channels, pixels in cell.before]
    return itemsize * (drawn_count(layout) + 2 * images * max(sizes))


def value_sizes(network: Network) -> list[int]:
    """Numbers in each value of a network's plan for one image, the image itself first."""
    layout = network.layout
    found = [(layout.colours if layout.stem else layout.channels, layout.pixels)]
    for step in network.plan:
        channels, pixels = found[step.sources[0]]
        if isinstance(step, Run):
            made = [each.outputs for each in step.block if isinstance(each, Conv | Halves)]
            found.append((made[-1] if made else channels, through(step.block, pixels)))
        elif isinstance(step, Join):
            found.append((sum(found[source][0] for source in step.sources), pixels))
        else:
            found.append((channels, pixels))
    return [channels * pixels**2 for channels, pixels in found]


def training_bytes(network: Network, batch: int, itemsize: int = 4, computed: int = 4) -> int:
    """About how much memory training holds: weights, momentum, gradients, and all that a batch leaves on the tape.

    Args:
        network: the architecture.
        batch: images of a step on one device.
        itemsize: bytes of a weight.
        computed: bytes of a number that blocks compute.

    Returns:
        A count.

    Example:
        >>> layout = Layout(cells=2, channels=1, pixels=4, norm="batch")
        >>> network = Network(layout, "N: sk<0 mp<1 | sk<1 mp<2 | sk<0 sk<2 R: mp<0 mp<1 | mp<1 sk<2 | sk<2 sk<3")
        >>> training_bytes(network, 20) > training_bytes(network, 10)
        True
    """
    sizes = value_sizes(network)
    tape = {step.sources[0] for step in network.plan if isinstance(step, Run)}
    own = own_count(network)
    weights = max(drawn_count(network.layout) + own, 3 * own)
    return itemsize * weights + computed * batch * (sum(sizes[each] for each in tape) + 2 * max(sizes))


def forward_bytes(network: Network, images: int, itemsize: int = 4, computed: int = 4) -> int:
    """About how much memory it holds to run a trained network on so many images at once."""
    return itemsize * own_count(network) + computed * images * 2 * max(value_sizes(network))
