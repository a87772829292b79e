"""CIFAR-FS and FC100: the 100 classes of CIFAR-100 divided for few-shot learning, 32x32 (Krizhevsky 2009)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np

from mlkernels.datasets import folders
from mlkernels.datasets.dataset import Dataset, pixel_statistics
from mlkernels.datasets.importing.reading import Names, all_files, check_images, holds, whole_labels
from mlkernels.datasets.importing.recipe import SPLITS, Download, Expected, Form, Part, Recipe, not_imported
from mlkernels.datasets.lazy_rows import CHUNK
from mlkernels.datasets.safe_pickle import reader
from mlkernels.datasets.safe_pickle.stored import pieces_of
from mlkernels.support.arguments import one_of
from mlkernels.support.words import span

SUPERCLASSES = {
    "aquatic_mammals": "beaver dolphin otter seal whale",
    "fish": "aquarium_fish flatfish ray shark trout",
    "flowers": "orchid poppy rose sunflower tulip",
    "food_containers": "bottle bowl can cup plate",
    "fruit_and_vegetables": "apple mushroom orange pear sweet_pepper",
    "household_electrical_devices": "clock keyboard lamp telephone television",
    "household_furniture": "bed chair couch table wardrobe",
    "insects": "bee beetle butterfly caterpillar cockroach",
    "large_carnivores": "bear leopard lion tiger wolf",
    "large_man-made_outdoor_things": "bridge castle house road skyscraper",
    "large_natural_outdoor_scenes": "cloud forest mountain plain sea",
    "large_omnivores_and_herbivores": "camel cattle chimpanzee elephant kangaroo",
    "medium_mammals": "fox porcupine possum raccoon skunk",
    "non-insect_invertebrates": "crab lobster snail spider worm",
    "people": "baby boy girl man woman",
    "reptiles": "crocodile dinosaur lizard snake turtle",
    "small_mammals": "hamster mouse rabbit shrew squirrel",
    "trees": "maple_tree oak_tree palm_tree pine_tree willow_tree",
    "vehicles_1": "bicycle bus motorcycle pickup_truck train",
    "vehicles_2": "lawn_mower rocket streetcar tank tractor",
}
# CIFAR-100 numbers its classes, and its superclasses, in the order of their names.
CLASSES = tuple(sorted(" ".join(SUPERCLASSES.values()).split()))
SUPERCLASS_OF = tuple(
    next(number for number, some in enumerate(SUPERCLASSES.values()) if one in some.split()) for one in CLASSES
)

# CIFAR-FS (Bertinetto et al. 2019) divides the classes by chance, FC100 (Oreshkin et al. 2018) whole superclasses, so
# that no test class has a near relative among the training classes.
_CIFAR_FS = {
    "val": "beaver otter flatfish shark lamp television beetle butterfly sea camel cattle crab crocodile maple_tree "
    "motorcycle tractor",
    "test": "whale poppy rose sweet_pepper telephone bed table wardrobe leopard plain chimpanzee fox snail worm baby "
    "man woman bicycle pickup_truck rocket",
}
_FC100 = {
    "val": "large_carnivores large_omnivores_and_herbivores non-insect_invertebrates small_mammals",
    "test": "aquatic_mammals insects medium_mammals people",
}
_HELD_OUT = {
    "cifar_fs": _CIFAR_FS,
    "fc100": {split: " ".join(SUPERCLASSES[name] for name in names.split()) for split, names in _FC100.items()},
}


def split_classes(name: str) -> dict[str, tuple[str, ...]]:
    """ "train", "val", "test" of "cifar_fs" or "fc100" -> names of CIFAR-100's fine classes, sorted."""
    chosen = {split: names.split() for split, names in _HELD_OUT[one_of("name", name, _HELD_OUT)].items()}
    chosen["train"] = set(CLASSES).difference(*chosen.values())
    return {split: tuple(sorted(chosen[split])) for split in SPLITS}


LICENCE = "none stated by its authors (Krizhevsky 2009): research use"
SMALL = "cifar100_120percls.npz"  # 120 images of each class, lossless
OFFICIAL = ("train", "test", "meta")
FOLDER = "cifar-100-python"
READY = {"cifar_fs": "CIFAR_FS_{}.pickle", "fc100": "FC100_{}.pickle"}
SHAPE = (32, 32, 3)


def small() -> Path | None:
    """The npz with 120 images a class, where it lies in a folder that is read; `load_small` opens it as it is."""
    return next(iter(folders.find(SMALL)), None)


def load_small(name: str, path: Path) -> Dataset:
    """The dataset from an npz of fewer images a class than its published form (its source says how many), in memory.

    The arrays are `images` uint8 `[N, 32, 32, 3]`, `labels` int `[N]`, and CIFAR-100's `class_names`.

    Source: Krizhevsky 2009, divided as `split_classes` does.
    """
    images, fine = _read_small(path)
    names = [one for some in split_classes(name).values() for one in some]
    ends = np.cumsum([len(some) for some in split_classes(name).values()])
    splits = dict(zip(SPLITS, np.split(np.arange(len(names)), ends[:-1]), strict=True))
    labels = np.argsort([CLASSES.index(one) for one in names])[fine]
    mean, std = pixel_statistics(images, np.flatnonzero(labels < ends[0]))
    images.flags.writeable = False
    source = f"{path} ({span(np.bincount(labels))} images a class instead of 600)"
    return Dataset(name, images, labels, tuple(names), splits, mean, std, source, LICENCE)


def _official_folder(path: Path) -> Path | None:
    """Where the official files are: at the path, in the folder that the archive unpacks to, or beside one of them."""
    places = (path, path / FOLDER) if path.is_dir() else (path.parent,) if path.name in OFFICIAL else ()
    return next((one for one in places if sum((one / file).is_file() for file in OFFICIAL) >= 2), None)


def _official(name: str, path: Path) -> dict[str, Part]:
    """Each class with all of its images: CIFAR-100's own train set, then its test set."""
    names, folder = {file: (file,) for file in OFFICIAL}, _official_folder(path)
    files = all_files(folder, names)
    _check_meta(files["meta"])
    labels, held = [], []
    for file in (files["train"], files["test"]):
        content = reader.load(file, lazy=True)
        data, fine, coarse = (reader.get(content, key, file) for key in ("data", "fine_labels", "coarse_labels"))
        check_images(data, (3072,), file)
        fine = whole_labels(fine, len(data), file)
        if fine.min() < 0 or fine.max() >= len(CLASSES):
            raise not_imported(file, "fine labels 0 to 99", f"{fine.min()} to {fine.max()}")
        if not np.array_equal(np.array(SUPERCLASS_OF)[fine], whole_labels(coarse, len(data), file)):
            raise not_imported(file, "the superclasses of CIFAR-100", "others")
        file_names = content.get("filenames", content.get(b"filenames"))
        held.append((file, data, list(map(reader.text, file_names)) if isinstance(file_names, list) else []))
        labels.append(fine)
    _check_names(held)

    def images() -> Iterator[np.ndarray]:
        for piece in chain.from_iterable(pieces_of(data, CHUNK) for _, data, _ in held):
            yield piece.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)

    return _divided(name, np.concatenate(labels), images, files=[files[file] for file in OFFICIAL])


def _divided(name: str, fine: np.ndarray, images: Callable[[], Iterator[np.ndarray]], **about) -> dict[str, Part]:
    """The classes of CIFAR-100 by split."""
    parts = {}
    for split, names in split_classes(name).items():
        place = np.full(len(CLASSES), -1)
        place[[CLASSES.index(one) for one in names]] = np.arange(len(names))
        parts[split] = Part(names, place[fine], images, **about)
    return parts


def _check_meta(file: Path) -> None:
    content = reader.load(file)
    for key, names in (("fine_label_names", CLASSES), ("coarse_label_names", tuple(SUPERCLASSES))):
        held = reader.get(content, key, file)
        held = tuple(map(reader.text, held)) if isinstance(held, list) else (type(held).__name__,)
        if held != names:
            raise not_imported(file, f"the {key} of CIFAR-100", f"{', '.join(held[:3])} ...")


def _check_names(files: list[tuple]) -> None:
    """No image is there twice under one name; that a name comes twice with different pixels proves nothing."""
    counts = Counter(name for _, _, names in files for name in names)
    seen = set()
    for file, data, names in files:
        pieces = pieces_of(data, CHUNK) if any(counts[name] > 1 for name in names) else ()
        for name, image in zip(names, chain.from_iterable(pieces), strict=False):
            if counts[name] > 1:
                if (name, image.tobytes()) in seen:
                    raise not_imported(file, "each image once", f"{name} twice")
                seen.add((name, image.tobytes()))


def _read_small(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images and classes of the npz."""
    what = "uint8 images [N, 32, 32, 3] of the 100 classes of CIFAR-100"
    arrays = folders.read_npz(file, ("images", "labels", "class_names"), what)
    if tuple(arrays["class_names"].tolist()) != CLASSES:
        raise folders.reject(file, what, "other class names")
    check_images(arrays["images"], SHAPE, file)
    labels = whole_labels(arrays["labels"], len(arrays["images"]), file)
    if not np.array_equal(np.unique(labels), np.arange(len(CLASSES))):
        raise folders.reject(file, what, "labels that are not 0 to 99")
    return arrays["images"], labels


def _small(name: str, path: Path) -> dict[str, Part]:
    images, fine = _read_small(path)
    notes = ("This copy holds a part of CIFAR-100.",)
    return _divided(name, fine, partial(pieces_of, images, CHUNK), files=(path,), notes=notes)


def _ready(name: str, names_of: Names, path: Path) -> dict[str, Part]:
    return {split: _ready_split(name, split, file) for split, file in all_files(path, names_of).items()}


def _ready_split(name: str, split: str, file: Path) -> Part:
    """A split from its own pickle, whose labels are any numbers: CIFAR-100's, where they are those of the split."""
    content = reader.load(file, lazy=True)
    data, labels = (reader.get(content, key, file) for key in ("data", "labels"))
    check_images(data, SHAPE, file)
    values, labels = np.unique(whole_labels(labels, len(data), file), return_inverse=True)
    names, numbers, notes = split_classes(name)[split], None, ()
    if values.tolist() != [CLASSES.index(one) for one in names]:
        names, numbers = [f"class {value}" for value in values], values.tolist()
        notes = ("The pickles do not name their classes, which are called by their numbers.",)
    return Part(names, labels, partial(pieces_of, data, CHUNK), numbers=numbers, files=(file,), notes=notes)


def _recipe(name: str, classes: tuple[int, int, int], mean: tuple[float, float, float]) -> Recipe:
    ready = {split: (READY[name].format(split),) for split in SPLITS}
    return Recipe(
        name=name,
        licence=LICENCE,
        restricted=False,
        disk=60000 * 3072,
        expected=Expected(dict(zip(SPLITS, classes, strict=True)), SHAPE, images=600, means={"train": mean}),
        forms={
            "official": Form(f"the official CIFAR-100 ({FOLDER})", _official_folder, partial(_official, name)),
            "ready": Form(
                "one pickle a split, as MetaOptNet gives them",
                partial(holds, names=ready),
                partial(_ready, name, ready),
            ),
            "small": Form(  # a part, and so never taken from a folder unasked
                f"120 images a class of CIFAR-100 ({SMALL})",
                lambda path: path.name == SMALL and path.is_file(),
                partial(_small, name),
            ),
        },
        downloads=(
            Download(
                "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
                "cifar-100-python.tar.gz",
                "85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
            ),
        ),
        where="https://www.cs.toronto.edu/~kriz/cifar.html",
        wants=(*(f"/{file}" for file in OFFICIAL), ".pickle"),
    )


RECIPES = {  # the means are those of 120 images of each training class
    "cifar_fs": _recipe("cifar_fs", (64, 16, 20), (0.508, 0.494, 0.445)),
    "fc100": _recipe("fc100", (60, 20, 20), (0.518, 0.501, 0.461)),
}
