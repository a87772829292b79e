"""The classes of CIFAR-100, their superclasses, and how CIFAR-FS and FC100 divide them."""

from __future__ import annotations

from mlkernels.datasets.importing.recipe import SPLITS
from mlkernels.support.arguments import one_of

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
    """The classes of each split of cifar_fs or fc100, sorted."""
    chosen = {split: names.split() for split, names in _HELD_OUT[one_of("name", name, _HELD_OUT)].items()}
    chosen["train"] = set(CLASSES).difference(*chosen.values())
    return {split: tuple(sorted(chosen[split])) for split in SPLITS}
