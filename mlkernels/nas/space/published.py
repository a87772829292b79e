"""The architectures that the published code of MetaNTK-NAS found, as its scripts carry them."""

from __future__ import annotations

from mlkernels.nas.space.genotype import Genotype

_TEXTS = {
    ("miniimagenet", 5): (
        "N: s3<0 s3<1 | s3<1 s3<2 | c3<0 s3<2  R: s3<0 s3<1 | f5<1 d3<2 | d3<2 d3<3",
        "N: s3<0 s3<1 | s3<1 s3<2 | c3<2 s3<3  R: s3<0 d3<1 | f5<1 s3<2 | s3<1 f5<3",
        "N: s3<0 s3<1 | s3<0 mp<2 | d3<2 s3<3  R: d3<0 s3<1 | c3<1 s3<2 | s3<2 s3<3",
    ),
    ("miniimagenet", 8): (
        "N: s3<0 mp<1 | f5<0 s3<1 | s3<2 c3<3  R: sk<0 s3<1 | c3<1 s3<2 | d3<0 f5<1",
        "N: c3<0 s3<1 | f5<0 c3<1 | s3<0 d3<2  R: s3<0 s3<1 | s3<0 s3<2 | s3<0 s3<2",
        "N: s3<0 f5<1 | s3<0 s3<1 | c3<0 s3<1  R: s3<0 s3<1 | f5<1 s3<2 | c3<0 s3<3",
    ),
    ("tieredimagenet", 5): (
        "N: c3<0 d3<1 | s3<1 s3<2 | s3<0 s3<3  R: sk<0 d3<1 | s3<0 f5<2 | mp<2 f5<3",
        "N: s3<0 s3<1 | s3<1 mp<2 | c3<2 c3<3  R: d3<0 f5<1 | c3<0 s3<1 | s3<2 s3<3",
        "N: s3<0 f5<1 | d3<0 s3<2 | s3<0 mp<3  R: s3<0 s3<1 | f5<0 f5<2 | d3<1 s3<3",
    ),
    ("tieredimagenet", 8): (
        "N: f5<0 s3<1 | f5<0 f5<1 | s3<0 f5<2  R: sk<0 c3<1 | c3<0 f5<1 | s3<0 s3<3",
        "N: f5<0 d3<1 | s3<0 s3<1 | s3<0 c3<2  R: c3<0 s3<1 | s3<1 s3<2 | c3<0 s3<1",
        "N: f5<0 f5<1 | s3<0 f5<2 | s3<2 s3<3  R: c3<0 c3<1 | s3<0 s3<1 | s3<1 f5<3",
    ),
}

# (dataset, cells of the network) -> what the script of that setting names, in its order.
PUBLISHED: dict[tuple[str, int], tuple[Genotype, ...]] = {
    setting: tuple(map(Genotype.parse, texts)) for setting, texts in _TEXTS.items()
}
