"""The state of a training on disk: one npz file without pickle, written whole, and only read by who wrote it.

Who wrote it is known by the text of its functions, and by what they do, in a few numbers, where text does not tell.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mlkernels.datasets import Dataset
from mlkernels.datasets.fingerprint import described
from mlkernels.errors import InputError, bad_input
from mlkernels.support import checked_arrays
from mlkernels.support.file_faults import damaged, in_words, unreadable
from mlkernels.support.strict_json import loads
from mlkernels.tasks import TaskBatch

_FORMAT = 2  # 1 had no checksum
_READ = 1, 2
_AGAIN = "call again to start from the beginning"
_KEPT = 2  # what is compared before a run goes on; 1 compared no drawn batch, and 16 images of a dataset
_PLAIN = bool | int | float | complex | str | bytes
BLOCKS = 1024  # numbers of an array that a sketch keeps at most
_GOLDEN = (5**0.5 - 1) / 2


def digest(tree) -> str:
    """A checksum of arrays: of their names, types, shapes and values."""
    total = hashlib.sha256()
    for path, leaf in jax.tree.leaves_with_path(tree):
        array = np.asarray(leaf)
        total.update(f"{jax.tree_util.keystr(path)}{array.dtype}{array.shape}".encode())
        total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()[:16]


def readable(rates) -> str:
    """Rates in words if they are few numbers, else their checksum."""
    if any(jnp.ndim(rate) for rate in jax.tree.leaves(rates)):
        return digest(rates)
    return str(jax.tree.map(lambda rate: float(f"{float(rate):.9g}"), rates))


def describe(thing: Any, _seen: frozenset = frozenset()) -> str:
    """A function as text that is the same in the next session: its name, its constants and what it closes over.

    Constants are those of functions written inside it, too; an object is known by its attributes. Two optimisers of
    different rates differ by it, and two datasets by their images. It cannot be complete: global variables that a
    function reads, and what it does between its constants, are not looked at.

    Example:
        >>> import optax
        >>> describe(optax.sgd(0.1)) == describe(optax.sgd(0.1)) != describe(optax.sgd(0.2))
        True
    """
    if thing is None or isinstance(thing, _PLAIN):
        return repr(thing)
    if isinstance(thing, type):
        return f"{thing.__module__}.{thing.__qualname__}"
    if isinstance(thing, ModuleType):
        return thing.__name__
    if id(thing) in _seen:
        return "..."
    inside = _seen | {id(thing)}
    if isinstance(thing, jax.Array | np.ndarray | np.generic):
        is_key = isinstance(thing, jax.Array) and jnp.issubdtype(thing.dtype, jax.dtypes.prng_key)
        return digest(jax.random.key_data(thing) if is_key else thing)
    if isinstance(thing, dict):
        return "{" + ", ".join(sorted(f"{name}: {describe(item, inside)}" for name, item in thing.items())) + "}"
    if isinstance(thing, tuple | list | set | frozenset):
        items = [describe(item, inside) for item in thing]  # joined and not quoted again, which doubles each backslash
        return f"{type(thing).__name__}[{', '.join(sorted(items) if isinstance(thing, set | frozenset) else items)}]"
    if isinstance(thing, Dataset):
        return str(described(thing))
    owner = getattr(thing, "__self__", None)
    if owner is not None and hasattr(thing, "__func__"):
        return f"{describe(owner, inside)}.{thing.__name__}"
    code = getattr(thing, "__code__", None)
    if code is not None:
        written = [thing.__module__, thing.__qualname__, _constants(code), list(code.co_names)]
        closed = [cell.cell_contents for cell in thing.__closure__ or () if cell != type(cell)()]
        return describe([*written, thing.__defaults__, thing.__kwdefaults__, closed], inside)
    if hasattr(thing, "func") and hasattr(thing, "args"):  # functools.partial
        return describe(["partial", thing.func, thing.args, thing.keywords], inside)
    if hasattr(thing, "__wrapped__"):  # jitted
        return describe(thing.__wrapped__, inside)
    name = f"{type(thing).__module__}.{type(thing).__qualname__}"
    if is_dataclass(thing):
        return f"{name}{describe({field.name: getattr(thing, field.name) for field in fields(thing)}, inside)}"
    text = repr(thing)
    if " at 0x" not in text:
        return f"{name} {text}"
    held = {} if hasattr(thing, "__array__") else getattr(thing, "__dict__", {})  # arrays may be files of any size
    return f"{name}{describe(dict(held), inside)}"


def _constants(code: CodeType) -> list:
    """The constants in a function's code, with those of the functions that are written in it."""
    plain = [item for item in code.co_consts if isinstance(item, _PLAIN | tuple | frozenset | slice)]
    written = [item for item in code.co_consts if isinstance(item, CodeType)]
    return plain + [[item.co_name, _constants(item), list(item.co_names)] for item in written]


def save(path: Path, state, losses: np.ndarray, settings: dict[str, str], seen: dict | None = None) -> None:
    """Write a pytree of arrays, whole or not at all, with numbers that tell how it went, and what `load` compares."""
    arrays = {f"state{jax.tree_util.keystr(key)}": np.asarray(leaf) for key, leaf in jax.tree.leaves_with_path(state)}
    about = json.dumps({"format": _FORMAT, "kept": _KEPT, "settings": settings, "jax": jax.__version__})
    arrays |= {f"seen {name}": numbers for name, numbers in (seen or {}).items()}
    arrays |= {"losses": losses, "about": np.frombuffer(about.encode(), np.uint8)}
    checked_arrays.save(path, arrays)


def load(path: Path, like, settings: dict[str, str] | None = None, seen: dict | None = None):
    """`(state, losses)`, the state in the form of `like`; None where there is no file. Compares if it has settings.

    An `InputError` if the file is damaged (it is kept aside), of an older version that compared less, or written under
    other settings or by functions that do something else (the message says which).
    """
    kept = _read(path)
    if kept is None:
        return None
    arrays, about = kept
    losses = arrays.pop("losses")
    if settings is not None:
        _compare(path, about, arrays, settings, seen or {})

    def restored(key, leaf):
        name = f"state{jax.tree_util.keystr(key)}"
        array = arrays[name]
        if array.dtype.kind == "V":  # numpy's files do not know bfloat16
            array = array.view(leaf.dtype)
        if array.shape != leaf.shape or array.dtype.kind != leaf.dtype.kind:
            raise ValueError(f"{name} is {array.dtype} {list(array.shape)}")
        return jnp.asarray(array, leaf.dtype)

    try:
        return jax.tree.map_with_path(restored, like), losses
    except (KeyError, ValueError, TypeError) as error:
        raise _damaged(path, error) from None


def _compare(path: Path, about: dict, arrays: dict, settings: dict[str, str], seen: dict) -> None:
    """Raise an `InputError` unless a run that is now as `settings` and `seen` say may go on from this file."""
    if about.get("kept", 1) < _KEPT:
        expected = "one that keeps what its run looked at"
        do = "use another path to begin anew; the file stays as it is"
        raise bad_input(f"checkpoint {path}", expected, "one of an older version, which does not", do)
    then = about["settings"]
    differing = [name for name in sorted(then | settings) if then.get(name) != settings.get(name)]
    if differing:

        def short(text):
            return text if len(text) <= 60 else f"#{hashlib.sha256(text.encode()).hexdigest()[:8]}"

        def shown(values):
            return ", ".join(f"{name} {short(values.get(name, 'none'))}" for name in differing)

        do = "use another path, or the settings of the checkpoint"
        expected = f"the settings that it was made with ({shown(then)})"
        raise bad_input(f"checkpoint {path}", expected, shown(settings), do)
    for name, numbers in seen.items():
        if not same(arrays.get(f"seen {name}", np.zeros((2, 0))), numbers):
            do = "use another path, or the functions and the data of the checkpoint"
            raise bad_input(f"checkpoint {path}", f"the {name} that it was made with", "something else", do)


def settings_of(path: Path) -> dict[str, str] | None:
    """The settings that a state was written with, or None where there is no file."""
    kept = _read(path)
    return None if kept is None else kept[1]["settings"]


def losses_of(path: Path) -> np.ndarray:
    """The losses in a state, one a step; none where there is no file."""
    kept = _read(path)
    return np.zeros(0) if kept is None else kept[0]["losses"]


def _read(path: Path) -> tuple[dict[str, np.ndarray], dict] | None:
    """Arrays, and what is said about them."""
    if not path.exists():
        return None
    try:
        arrays = checked_arrays.load(path)
        about, total = loads(arrays.pop("about").tobytes().decode()), arrays.pop(checked_arrays.SUM, None)
        number, settings = about["format"], about["settings"]
        if total is None and number == _FORMAT:
            raise ValueError("it has no checksum")
        if arrays["losses"].ndim not in (1, 2) or arrays["losses"].dtype.kind != "f":
            raise ValueError(f"losses {arrays['losses'].dtype} {list(arrays['losses'].shape)}")
        if not all(isinstance(text, str) for text in settings.values()):
            raise ValueError("settings that are no texts")
    except OSError as error:
        raise unreadable(path, error) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(path, error) from None
    if number not in _READ:
        raise bad_input(f"checkpoint {path}", f"format {_FORMAT} or before", number, "use another path")
    return arrays, about


def _damaged(path: Path, error: Exception) -> InputError:
    return damaged(path, in_words(error), _AGAIN, what=f"checkpoint {path}")


def sketch(tree, digits: float = 0.5) -> np.ndarray:
    """Sums of a tree's arrays, and how far those of an equal tree may lie from them: `[2, pieces of all arrays]`.

    Each array is cut into `BLOCKS` pieces or fewer, and each piece is added up with weights from 1 to 2, so that an
    exchange of two numbers shows. Floating-point numbers may differ by a share of the array's largest, whole ones not
    at all. The share is eps to the power of `digits`: another machine, which adds in another order, stays far within.
    """
    sketches = [np.zeros((2, 0))]
    for leaf in jax.tree.leaves(tree):
        array = np.asarray(leaf)
        flat, share = array.ravel(), 0.0
        if jnp.issubdtype(array.dtype, jnp.inexact):
            share = float(jnp.finfo(array.dtype).eps) ** digits
        size = max(1, -(-flat.size // BLOCKS))
        weights = 1 + np.arange(size) * _GOLDEN % 1
        pieces = [flat[start : start + size].astype(float) for start in range(0, flat.size, size)]
        largest = max((float(np.abs(piece).max()) for piece in pieces), default=0.0)
        sums = [float(piece @ weights[: len(piece)]) for piece in pieces]
        sketches.append(np.array([sums, [share * largest] * len(sums)]).reshape(2, -1))
    return np.concatenate(sketches, axis=1)


def same(then: np.ndarray, now: np.ndarray) -> bool:
    """Whether two sketches are of equal trees."""
    if then.shape != now.shape:
        return False
    with np.errstate(invalid="ignore"):  # infinities are equal, though their difference is none
        near = np.abs(then[0] - now[0]) <= np.maximum(then[1], now[1])
    return bool((near | (then[0] == now[0]) | (np.isnan(then[0]) & np.isnan(now[0]))).all())


def probe(apply, params, first: TaskBatch, optimizer, opt_state, trained) -> dict[str, np.ndarray]:
    """Sketches of what a run begins with: its first batch, the network's outputs on it, the optimiser's first update.

    The outputs need agree in a third of their digits alone, since some accelerators multiply float32 in fewer bits.
    """
    outputs = apply(params, first.support_x[0])
    gradient = jax.tree.map(lambda leaf: leaf + 1, trained)  # any will do that is the same again
    with jax.numpy_dtype_promotion("standard"):  # as in the outer loop's step
        update = optax.with_extra_args_support(optimizer).update(gradient, opt_state, trained, value=jnp.ones(()))
    return {"first batch": sketch(first), "network's outputs": sketch(outputs, 1 / 3), "first update": sketch(update)}
