"""Draw the posters of demos anew, after a change of what they show: `python -m tools.posters [NAME ...]`."""

from __future__ import annotations

import sys
from itertools import islice

import jax

from benchmarks.sliders import demos
from mlkernels.course.demos import poster


def main(*names: str) -> None:
    """Keep the posters of these demos, or of all that have something to compile."""
    jax.config.update("jax_enable_x64", True)
    for demo in demos():
        if demo.name in names or (not names and [*islice(demo.warm(), 1)]):
            print(poster.keep(demo))


if __name__ == "__main__":
    main(*sys.argv[1:])
