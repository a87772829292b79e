"""The state of a training on disk: one npz file without pickle, written whole, and only read by who wrote it."""

from __future__ import annotations

import hashlib
import json
import zipfile
import zlib
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mlkernels.datasets._store import fault_of
from mlkernels.errors import InputError, bad_input
from mlkernels.files import set_aside, write_atomically

_FORMAT = 1


def digest(tree) -> str:
    """A checksum of arrays: of their names, types, shapes and values.

    Example:
        >>> digest({"w": jnp.ones(2)}) == digest({"w": jnp.ones(2)}) != digest({"w": jnp.zeros(2)})
        True
    """
    total = hashlib.sha256()
    for path, leaf in jax.tree.leaves_with_path(tree):
        array = np.asarray(leaf)
        total.update(f"{jax.tree_util.keystr(path)}{array.dtype}{array.shape}".encode())
        total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()[:16]


def readable(rates) -> str:
    """Rates in words if they are few numbers, else their checksum.

    Example:
        >>> readable({"head": jnp.asarray(0.5)})
        "{'head': 0.5}"
    """
    if any(jnp.ndim(rate) for rate in jax.tree.leaves(rates)):
        return digest(rates)
    return str(jax.tree.map(lambda rate: float(f"{float(rate):.9g}"), rates))


def describe(thing: Any, _seen: frozenset = frozenset()) -> str:
    """A function as text that is the same in the next session: its name, its constants and what it closes over.

    Two optimisers of different rates differ by it. Global variables that a function reads are not looked at.

    Example:
        >>> import optax
        >>> describe(optax.sgd(0.1)) == describe(optax.sgd(0.1)) != describe(optax.sgd(0.2))
        True
    """
    if thing is None or isinstance(thing, bool | int | float | complex | str | bytes):
        return repr(thing)
    if id(thing) in _seen:
        return "..."
    inside = _seen | {id(thing)}
    if isinstance(thing, jax.Array | np.ndarray | np.generic):
        is_key = isinstance(thing, jax.Array) and jnp.issubdtype(thing.dtype, jax.dtypes.prng_key)
        return digest(jax.random.key_data(thing) if is_key else thing)
    if isinstance(thing, dict):
        return str(sorted((str(name), describe(item, inside)) for name, item in thing.items()))
    if isinstance(thing, tuple | list | set | frozenset):
        return f"{type(thing).__name__}{[describe(item, inside) for item in thing]}"
    owner = getattr(thing, "__self__", None)
    if owner is not None and hasattr(thing, "__func__"):
        return f"{describe(owner, inside)}.{thing.__name__}"
    code = getattr(thing, "__code__", None)
    if code is not None:
        constants = [item for item in code.co_consts if isinstance(item, bool | int | float | str)]
        parts = [thing.__module__, thing.__qualname__, constants, list(code.co_names)]
        closed = [cell.cell_contents for cell in thing.__closure__ or () if cell != type(cell)()]
        return describe([*parts, thing.__defaults__, thing.__kwdefaults__, closed], inside)
    if hasattr(thing, "func") and hasattr(thing, "args"):  # functools.partial
        return describe(["partial", thing.func, thing.args, thing.keywords], inside)
    if hasattr(thing, "__wrapped__"):  # jitted
        return describe(thing.__wrapped__, inside)
    name = f"{type(thing).__module__}.{type(thing).__qualname__}"
    if is_dataclass(thing) and not isinstance(thing, type):
        return f"{name}{describe(vars(thing), inside)}"
    return name


def save(path: Path, state, losses: np.ndarray, settings: dict[str, str]) -> None:
    """Write a state: `path` is whole, or as it was before.

    Args:
        path: the file.
        state: a pytree of arrays.
        losses: `[steps]`, or any other array of numbers that tell how it went.
        settings: name -> text, which must be the same at `load`.

    Raises:
        InputError: the file cannot be written.
    """
    arrays = {f"state{jax.tree_util.keystr(key)}": np.asarray(leaf) for key, leaf in jax.tree.leaves_with_path(state)}
    about = json.dumps({"format": _FORMAT, "settings": settings, "jax": jax.__version__})
    arrays |= {"losses": losses, "about": np.frombuffer(about.encode(), np.uint8)}

    def write(temporary: Path) -> None:
        with open(temporary, "wb") as file:
            np.savez(file, allow_pickle=False, **arrays)

    write_atomically(path, write)


def load(path: Path, like, settings: dict[str, str]):
    """Read a state back.

    Args:
        path: the file.
        like: a state of the same form.
        settings: as they are now.

    Returns:
        `(state, losses)`, or None where there is no file.

    Raises:
        InputError: the file is damaged (it is kept aside) or was written under other settings (the message says which).
    """
    found = _read(path)
    if found is None:
        return None
    arrays, then = found
    losses = arrays.pop("losses")
    differing = [name for name in sorted(then | settings) if then.get(name) != settings.get(name)]
    if differing:

        def shown(values):
            return ", ".join(f"{name} {_short(values.get(name, 'none'))}" for name in differing)

        do = "use another path, or the settings of the checkpoint"
        expected = f"the settings that it was made with ({shown(then)})"
        raise bad_input(f"checkpoint {path}", expected, shown(settings), do)

    def restored(key, leaf):
        array = arrays[f"state{jax.tree_util.keystr(key)}"]
        if array.dtype.kind == "V":  # numpy's files do not know bfloat16
            array = array.view(leaf.dtype)
        return jnp.asarray(array, leaf.dtype)

    try:
        return jax.tree.map_with_path(restored, like), losses
    except KeyError as error:
        raise _set_aside(path, f"a file without {error.args[0]}") from None


def settings_of(path: Path) -> dict[str, str] | None:
    """The settings that a state was written with, or None where there is no file.

    Raises:
        InputError: the file is damaged (it is kept aside).
    """
    found = _read(path)
    return None if found is None else found[1]


def _read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]] | None:
    """Arrays and settings."""
    if not path.exists():
        return None
    fault = fault_of(path)
    try:
        if fault is None:
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            about = json.loads(arrays.pop("about").tobytes())
            if "losses" not in arrays:
                raise KeyError("losses")
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        fault = f"a damaged file ({str(error).splitlines()[0]})"
    if fault is not None:
        raise _set_aside(path, fault)
    if about["format"] != _FORMAT:
        raise bad_input(f"checkpoint {path}", f"format {_FORMAT}", about["format"], "use another path")
    return arrays, about["settings"]


def _short(text: str) -> str:
    """A setting for a message: itself, or a checksum of what is long."""
    return text if len(text) <= 60 else f"#{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _set_aside(path: Path, fault: str) -> InputError:
    """The error for a damaged file, which is renamed so that it is kept and no longer in the way."""
    try:
        aside = set_aside(path)
    except OSError as error:
        return bad_input(f"checkpoint {path}", "a whole file", fault, f"move it away yourself ({error.strerror})")
    do = f"it is kept as {aside.name}; call again to start from the beginning"
    return bad_input(f"checkpoint {path}", "a whole file", fault, do)
