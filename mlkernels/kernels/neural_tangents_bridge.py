"""The kernels of neural-tangents, what ours are held against, and the bridge that carries it to current JAX.

neural-tangents 0.6.5 is its last release. It looks for names where JAX 0.4 kept them, and imports tensorflow for one
experimental sub-package that nothing here uses. While it is being imported this module puts the moved names back and
offers an empty stand-in for that sub-package. Everything else of this package takes neural-tangents from here.

Verified with this bridge: `stax` (Dense, Conv, pooling), `predict.gradient_descent_mse`, `batch`,
`monte_carlo_kernel_fn`, `linearize`, `empirical_ntk_fn` with implementations 1 and 2. Implementation 3 (structured
derivatives) does not work.
"""

from __future__ import annotations

import sys
import types
import warnings
from collections.abc import Callable
from functools import lru_cache
from importlib import import_module, metadata

import jax
from jax import Array

from mlkernels.kernels.infinite import Kernels, check_inputs
from mlkernels.networks import MLP, Conv4

TESTED_JAX = ("0.10.2", "0.12.0.1")
TESTED_RANGE = f"{TESTED_JAX[0]} to {TESTED_JAX[1]}"

# module that neural-tangents looks in -> name -> where that name lives now
_MOVED = {
    "jax.core": {
        "Jaxpr": "jax.extend.core",
        "JaxprEqn": "jax.extend.core",
        "Literal": "jax.extend.core",
        "Var": "jax.extend.core",
        "Primitive": "jax.extend.core",
        "ShapedArray": "jax._src.core",
        "Value": "jax._src.core",
        "AbstractValue": "jax._src.core",
        "eval_context": "jax._src.core",
    },
    "jax.util": {"safe_map": "jax._src.util", "safe_zip": "jax._src.util"},
    "jax.interpreters.ad": {"zeros_like_p": "jax._src.ad_util"},
}


class BridgeError(ImportError):
    """neural-tangents could not be brought to work with the installed JAX."""


def _put_back() -> None:
    """Put every moved name where neural-tangents looks for it, unless JAX still has it there."""
    for home, names in _MOVED.items():
        try:
            module = import_module(home)
        except ModuleNotFoundError:  # jax.util is gone in newer releases
            module = sys.modules[home] = types.ModuleType(home)
            parent, _, child = home.rpartition(".")
            setattr(sys.modules[parent], child, module)
        for name, now in names.items():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # JAX warns while it still forwards the name
                if name not in vars(module):
                    setattr(module, name, getattr(import_module(now), name))


def _import():
    """Import neural-tangents over the bridge, without its tensorflow sub-package."""
    experimental = "neural_tangents.experimental"
    try:
        _put_back()
        if experimental not in sys.modules:
            sys.modules[experimental] = types.ModuleType(experimental)
        with warnings.catch_warnings():
            # its docstrings hold backslashes that newer Pythons complain of
            warnings.simplefilter("ignore", SyntaxWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            return import_module("neural_tangents"), import_module("neural_tangents.stax")
    except Exception as error:
        sys.modules.pop(experimental, None)
        raise BridgeError(
            f"neural-tangents {_version('neural-tangents')} does not work with JAX {_version('jax')}: "
            f"expected a JAX from {TESTED_RANGE} (tested), got {type(error).__name__}: {error}; "
            f"install one of them, for example pip install 'jax=={TESTED_JAX[0]}' 'jaxlib=={TESTED_JAX[0]}'"
        ) from error


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "(not installed)"


def status() -> dict:
    """Whether the bridge works here (`ok`), the versions, the `tested` range of JAX, and `error`: what to install."""
    error = None
    try:
        _import()[1].Relu()
    except Exception as failure:
        error = str(failure)
    return {
        "ok": error is None,
        "neural_tangents": _version("neural-tangents"),
        "jax": _version("jax"),
        "tested": TESTED_RANGE,
        "error": error,
    }


def __getattr__(name: str):
    """Import neural-tangents on first use of `nt` or `stax`, so that reading this module never fails."""
    if name in ("nt", "stax"):
        return _import()[name == "stax"]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@lru_cache(maxsize=32)
def _kernel_fn(network: MLP | Conv4) -> Callable[[Array, Array], Kernels]:
    """The jitted kernel function of one architecture. Width does not enter, so any width may be given to stax."""
    _, stax = _import()
    hidden = {"W_std": network.w_std, "b_std": network.b_std or None}
    if isinstance(network, MLP):
        layers = [stax.Flatten()] + [stax.Dense(1, **hidden), stax.Relu()] * network.depth
    else:
        block = [stax.Conv(1, (3, 3), padding="SAME", **hidden), stax.Relu(), stax.AvgPool((2, 2), (2, 2))]
        layers = block * network.depth + [stax.Flatten()]
    head = stax.Dense(1, W_std=network.last_w_std, b_std=network.b_std or None)
    kernel_fn = stax.serial(*layers, head)[2]
    return jax.jit(lambda x1, x2: Kernels(*kernel_fn(x1, x2, ("nngp", "ntk"))))


def by_neural_tangents(network: MLP | Conv4, x1: Array, x2: Array | None = None) -> Kernels:
    r"""The kernels of `infinite_kernels` as neural-tangents computes them, to compare with.

    .. math:: \sin\varphi = \sqrt{\mathcal{K}(x, x)\,\mathcal{K}(x', x') - \mathcal{K}(x, x')^2}
              \Big/ \sqrt{\mathcal{K}(x, x)\,\mathcal{K}(x', x')}

    This difference loses half of the digits where two points are nearly one: about 1e-8 of the NTK's diagonal in 64
    bits, and 1e-4 in 32. The other entries are equal to some roundings.

    Args:
        network, x1, x2: as `infinite_kernels`.

    Returns:
        `(nngp, ntk)`, each `[N1, N2]`. Compiled once per architecture and shape.

    Raises:
        InputError: as `infinite_kernels`.
        BridgeError: neural-tangents does not work with the installed JAX.

    Example:
        >>> x = jax.random.normal(jax.random.key(0), (4, 6))
        >>> by_neural_tangents(MLP(width=1), x).ntk.shape
        (4, 4)

    Source: Novak et al. 2020; notebooks/01_derive_metantk.
    """
    x1, x2 = check_inputs(network, x1, x2)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):  # it does both, also where strict
        return _kernel_fn(network)(x1, x2)
