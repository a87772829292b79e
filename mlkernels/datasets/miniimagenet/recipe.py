"""miniImageNet: 100 classes of ImageNet, 600 images each, 84x84 (Vinyals et al. 2016), in each of its usual forms."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mlkernels.datasets.importing.recipe import Download, Expected, Part, Recipe
from mlkernels.datasets.miniimagenet.classes import SPELLINGS, SPLITS
from mlkernels.errors import bad_input

LICENCE = "ImageNet's terms: non-commercial research and education only (image-net.org/download)"
CACHE, CATEGORY = "mini-imagenet-cache-{}.pkl", "miniImageNet_category_split_{}.pickle"
FORMS = {
    "cache": "the cache pickles (mini-imagenet-cache-train.pkl, -val or -validation, -test)",
    "category": "the category-split pickles (miniImageNet_category_split_train_phase_train.pickle, val, test)",
    "parquet": "parquet files (train-*.parquet, validation-*, test-*)",
    "images": "image files, in folders by class or named by class, with the split's CSV files or without",
    "ilsvrc": "the training images of ILSVRC 2012, in folders or tar files by class",
}
ZENODO = "https://zenodo.org/record/7978538/files/"


def recognise(path: Path) -> str | None:
    """Which of `FORMS` lies at a path: a folder, one of its files, or ILSVRC's tar file."""
    from mlkernels.datasets.miniimagenet import ilsvrc, image_files

    folder = path if path.is_dir() else path.parent
    for form, found in (("cache", cache_files(folder)), ("category", category_files(folder))):
        if found and (path.is_dir() or path in found.values()):
            return form
    if parquet_files(path):
        return "parquet"
    if ilsvrc.found(path):
        return "ilsvrc"
    return "images" if image_files.found(path) else None


def parts(path: Path, form: str) -> dict[str, Part]:
    """The splits of miniImageNet as they lie at a path in one of `FORMS`."""
    from mlkernels.datasets.miniimagenet import ilsvrc, image_files, parquet, pickles

    folder = path if path.is_dir() else path.parent
    if form == "cache":
        found = pickles.cache(_all_three(cache_files(folder), folder, CACHE))
    elif form == "category":
        found = pickles.category(_all_three(category_files(folder), folder, CATEGORY))
    elif form == "parquet":
        found = parquet.parts(_all_three(parquet_files(path), folder, "{}-*.parquet"))
    else:
        found = ilsvrc.parts(path) if form == "ilsvrc" else image_files.parts(path)
    return {split: found[split] for split in SPLITS if split in found}


def cache_files(folder: Path) -> dict[str, Path]:
    """The cache pickles that lie in a folder, by split."""
    return _by_split(folder, CACHE, SPELLINGS)


def category_files(folder: Path) -> dict[str, Path]:
    """The category-split pickles in a folder. train_phase_val and _test hold other images of the training classes."""
    return _by_split(folder, CATEGORY, {**SPELLINGS, "train": ("train_phase_train", "train")})


def parquet_files(path: Path) -> dict[str, list[Path]]:
    """The parquet files at a path or in its folder `data`, by split."""
    if path.is_file():
        path = path.parent if path.suffix == ".parquet" else path
    for folder in (path, path / "data"):
        files = sorted(folder.glob("*.parquet")) if folder.is_dir() else []
        named = {
            split: [f for f in files if f.name.split("-")[0].split(".")[0] in SPELLINGS[split]] for split in SPLITS
        }
        if any(named.values()):
            return {split: found for split, found in named.items() if found}
    return {}


def _by_split(folder: Path, pattern: str, spellings: Mapping[str, tuple[str, ...]]) -> dict[str, Path]:
    found = {
        split: next((folder / pattern.format(n) for n in names if (folder / pattern.format(n)).is_file()), None)
        for split, names in spellings.items()
    }
    return {split: path for split, path in found.items() if path is not None}


def _all_three(found: dict, folder: Path, pattern: str) -> dict:
    missing = [pattern.format(split) for split in SPLITS if split not in found]
    if missing:
        do = "put the files of all three splits into one folder"
        raise bad_input(str(folder), ", ".join(pattern.format(split) for split in SPLITS), f"no {missing[0]}", do)
    return found


def _wants(member: str) -> bool:
    """Of an archive: pickles, parquet files, images, CSV files."""
    return member.lower().endswith((".pkl", ".pickle", ".parquet", ".jpg", ".jpeg", ".png", ".csv"))


RECIPES = {
    "miniimagenet": Recipe(
        name="miniimagenet",
        licence=LICENCE,
        restricted=True,
        disk=60000 * 84 * 84 * 3,
        expected=Expected(
            classes={"train": 64, "val": 16, "test": 20},
            shape=(84, 84, 3),
            images=600,
            means={"train": (0.472, 0.453, 0.410), "val": (0.4746, 0.4670, 0.4360), "test": (0.4748, 0.4268, 0.3709)},
        ),
        recognise=recognise,
        parts=parts,
        forms=FORMS,
        downloads=tuple(  # Zenodo's checksums are not known to us: what comes is checked by its contents
            Download(f"{ZENODO}{CACHE.format(name)}", CACHE.format(name)) for name in ("train", "validation", "test")
        ),
        where="zenodo.org/record/7978538 (the cache pickles), or image-net.org (ILSVRC 2012, with an account)",
        wants=_wants,
    )
}
