"""miniImageNet: 100 classes of ImageNet, 600 images each, 84x84 (Vinyals et al. 2016), in each of its usual forms."""

from __future__ import annotations

from functools import partial

from mlkernels.datasets.importing.reading import holds
from mlkernels.datasets.importing.recipe import Download, Expected, Form, Recipe
from mlkernels.datasets.miniimagenet import ilsvrc, image_files, parquet, pickles
from mlkernels.datasets.miniimagenet.pickles import CACHE

LICENCE = "ImageNet's terms: non-commercial research and education only (image-net.org/download)"
ZENODO = "https://zenodo.org/record/7978538/files/"
FORMS = {
    "cache": Form(
        "the cache pickles (mini-imagenet-cache-train.pkl, -val or -validation, -test)",
        partial(holds, names=pickles.CACHE_NAMES),
        pickles.cache,
    ),
    "category": Form(
        "the category-split pickles (miniImageNet_category_split_train_phase_train.pickle, val, test)",
        partial(holds, names=pickles.CATEGORY_NAMES),
        pickles.category,
    ),
    "parquet": Form("parquet files (train-*.parquet, validation-*, test-*)", parquet.files_at, parquet.splits_of),
    "ilsvrc": Form(
        "the training images of ILSVRC 2012, in folders or tar files by class", ilsvrc.lies_at, ilsvrc.splits_of
    ),
    "images": Form(
        "image files, in folders by class or named by class, with the split's CSV files or without",
        image_files.lie_at,
        image_files.splits_of,
    ),
}

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
        forms=FORMS,
        downloads=tuple(  # Zenodo's checksums are not known to us: what comes is checked by its contents
            Download(f"{ZENODO}{CACHE.format(name)}", CACHE.format(name)) for name in ("train", "validation", "test")
        ),
        where="zenodo.org/record/7978538 (the cache pickles), or image-net.org (ILSVRC 2012, with an account)",
        wants=(".pkl", ".pickle", ".parquet", ".jpg", ".jpeg", ".png", ".csv"),
    )
}
