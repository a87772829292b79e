"""Score found architectures beside random ones and the published ones, at the size of the search.

    python -m tools.judge_search data/results/search_miniimagenet_5x48_seed0.json OUT.json [more searches]

What is done is kept in OUT.json, from which the same command goes on; a search that is packed later is added.
"""

from __future__ import annotations

import sys
from pathlib import Path

import jax

from mlkernels import datasets
from mlkernels.errors import bad_input
from mlkernels.nas import PUBLISHED, Genotype, Layout, ScoreSettings, random_genotypes, training_free_scores
from mlkernels.support import results
from mlkernels.support.progress import Progress

RANDOM = 30


def judge(paths: list[Path], out: Path, *, data: str = "miniimagenet", seed: int = 0, progress=None) -> None:
    """Keep the training-free scores of random, published and found architectures in one file.

    Args:
        paths: of packed searches of one size; those not finished are left out.
        out: the file, as `nas.training_free_scores` keeps it: "number: genotype repeat r" -> scores.
        data: dataset of the searches.
        seed: of the random architectures, weights and images.
        progress: as in `nas.training_free_scores`.

    Raises:
        InputError: searches of several sizes.
    """
    found = [results.read(path, "a packed search") for path in paths]
    sizes = {tuple(each["settings"][name] for name in ("cells", "channels", "pixels", "colours")) for each in found}
    if len(sizes) != 1:
        raise bad_input("searches", "of one size", f"sizes {sorted(sizes)}", "judge them apart")
    cells, channels, pixels, colours = sizes.pop()
    layout = Layout(cells=cells, channels=channels, pixels=pixels, colours=colours)
    drawn = random_genotypes(layout.space, RANDOM, key=jax.random.key(seed))
    named = [Genotype.parse(each["genotype"]) for each in found if "genotype" in each]
    all_ = [*drawn, *PUBLISHED[data, cells], *named]
    settings, key = ScoreSettings(layout), jax.random.fold_in(jax.random.key(seed), 1)
    training_free_scores(all_, datasets.load(data), settings, key=key, out=out, progress=progress)


def _tell(progress: Progress) -> None:
    print(f"\r{progress.done} of {progress.total}", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    first, target, *more = map(Path, sys.argv[1:])
    judge([first, *more], target, progress=_tell)
