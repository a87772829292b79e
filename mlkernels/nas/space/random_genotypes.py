"""Architectures drawn at random."""

from __future__ import annotations

import jax
import numpy as np
from jax import Array

from mlkernels.errors import bad_input
from mlkernels.nas.space.search_space import Genotype, Space
from mlkernels.support.array_arguments import sizes


def random_genotypes(space: Space, count: int, *, key: Array) -> list[Genotype]:
    """Architectures drawn at random, all different: at each node two inputs, on each of their edges an operation.

    Args:
        space: a search space.
        count: how many.
        key: a key.

    Raises:
        InputError: more than half of all that there are.

    Example:
        >>> from mlkernels.nas.space.search_space import SPACES
        >>> str(random_genotypes(SPACES["darts_fewshot"], 1, key=jax.random.key(0))[0])[:2]
        'N:'

    Source: notebooks/04_metantk_nas.
    """
    sizes(count=count)
    if 2 * count > space.architectures:
        raise bad_input("count", f"at most half of the {space.architectures} there are", count, "ask for fewer")
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    found: dict[Genotype, None] = {}
    while len(found) < count:
        cells = [
            tuple(
                tuple((str(rng.choice(space.operations)), int(i)) for i in rng.choice(2 + node, 2, replace=False))
                for node in range(space.nodes)
            )
            for _ in range(2)
        ]
        found[Genotype(*cells)] = None
    return list(found)
