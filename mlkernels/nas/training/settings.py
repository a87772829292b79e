"""Settings of a training."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, fields
from numbers import Real

from mlkernels.errors import bad_input
from mlkernels.nas.engine.weights import INITIALISATIONS
from mlkernels.support.arguments import one_of, whole

DTYPES = ("float32", "float64")
COMPUTE = (*DTYPES, "bfloat16")


@dataclass(frozen=True)
class TrainSettings:
    """Settings of a training; the defaults are those of the published networks on miniImageNet.

    The size of the images is the layout's.

    Args:
        epochs: passes over the images to train on, at least 1.
        batch: images a step, at least 2. What is left over at the end of an epoch waits for another one, as in the
            reference: a smaller batch would be compiled anew.
        rate: learning rate of SGD, for the first epochs.
        milestones: epochs, counted from 1, after which the rate is multiplied by `decay`, a tenth.
        decay: above 0.
        momentum: of SGD, from 0 to below 1.
        weight_decay: this times the parameter is added to each gradient, norms and biases included.
        drop_path: p_max, of the last epoch: in epoch e of E, an operation's output is dropped with probability
            p_max e / E.
        padding: black pixels around an image for the random crop.
        jitter: of brightness, contrast and saturation.
        flip: probability of a mirror image.
        seed: from 0 to 2**32 - 1; everything that is random follows from it.
        initialisation: as in `network.init`.
        dtype: "float32", or "float64" in 64-bit JAX, of parameters and statistics.
        compute_dtype: "float32" or, for accelerators, "bfloat16": what blocks compute in. None is `dtype`, and nothing
            wider is taken; norms take their means in `dtype` in any case.

    Raises:
        InputError: a setting out of its range.

    Example:
        >>> settings = TrainSettings(epochs=100)
        >>> [f"{settings.rate_in(epoch):.4f}" for epoch in (60, 61, 81)]
        ['0.0200', '0.0020', '0.0002']

    Source: Wang et al. 2022, its code; torch's SGD; notebooks/04_metantk_nas.
    """

    epochs: int = 100
    batch: int = 64
    rate: float = 0.02
    milestones: tuple[int, ...] = (60, 80)
    decay: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    drop_path: float = 0.2
    padding: int = 8
    jitter: float = 0.4
    flip: float = 0.5
    seed: int = 0
    initialisation: str = "uniform"
    dtype: str = "float32"
    compute_dtype: str | None = None

    def __post_init__(self) -> None:
        try:
            milestones = tuple(self.milestones)
        except TypeError:
            do = "give a tuple, such as (60, 80), or () for none"
            raise bad_input("milestones", "a tuple of whole numbers", self.milestones, do) from None
        milestones = tuple(whole("milestones", milestone, 1, do="correct it") for milestone in milestones)
        object.__setattr__(self, "milestones", milestones)
        most = 2**32 - 1  # 32-bit JAX cuts a larger seed off
        for name, span in {"epochs": (1,), "batch": (2,), "padding": (0,), "seed": (0, most)}.items():
            object.__setattr__(self, name, whole(name, getattr(self, name), *span, do="correct it"))
        spans = dict.fromkeys(("weight_decay", "jitter"), (0, math.inf))
        spans |= {"momentum": (0, 1), "drop_path": (0, 1), "flip": (0, math.nextafter(1, 2))}
        spans |= dict.fromkeys(("rate", "decay"), (math.ulp(0), math.inf))
        for name, span in spans.items():
            object.__setattr__(self, name, _number(name, getattr(self, name), *span))
        choices = {"initialisation": INITIALISATIONS, "dtype": DTYPES, "compute_dtype": (None, *COMPUTE)}
        for name, known in choices.items():
            one_of(name, getattr(self, name), known)
        if self.compute_dtype == "float64" != self.dtype:
            do = "leave it out, or set dtype='float64' too"
            raise bad_input("compute_dtype", f"nothing wider than dtype {self.dtype}", "float64", do)

    def rate_in(self, epoch: int) -> float:
        """The learning rate in an epoch, counted from 1."""
        return self.rate * self.decay ** sum(epoch > milestone for milestone in self.milestones)

    def drop_in(self, epoch: int) -> float:
        """The probability of drop path in an epoch, counted from 1."""
        return self.drop_path * epoch / self.epochs

    @property
    def augmentation(self) -> dict:
        """Arguments for `nas.pictures.augment.augment`."""
        return {"padding": self.padding, "jitter": self.jitter, "flip": self.flip}

    def described(self) -> dict[str, str]:
        """As texts, for a file; the inverse of `from_described`."""
        return {name: json.dumps(value) for name, value in asdict(self).items()}

    @classmethod
    def from_described(cls, texts: dict[str, str]) -> TrainSettings:
        """From such texts; others beside them are left out."""
        return cls(**{field.name: json.loads(texts[field.name]) for field in fields(cls)})


def _number(name: str, value, low: float, below: float) -> float:
    """From `low` to below `below`, as Python's float."""
    real = isinstance(value, Real) and not isinstance(value, bool)
    if not real or not low <= float(value) < below:  # NumPy would round the limits to the type of the value
        expected = "a number above 0" if low > 0 else "a number of at least 0"
        expected += "" if below == math.inf else f" and {'at most' if below > 1 else 'below'} 1"
        raise bad_input(name, expected, repr(value) if isinstance(value, str) else value, "correct it")
    return float(value)
