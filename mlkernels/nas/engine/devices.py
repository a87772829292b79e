"""Arrays and words over devices, those of other processes too: all that knows of several processes but the record."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.experimental import multihost_utils
from jax.sharding import Mesh, SingleDeviceSharding

from mlkernels.errors import bad_input
from mlkernels.support.arguments import whole


def placed(array: np.ndarray, sharding) -> Array:
    """An array of the host on devices, those of other processes too (which hold the same array).

    On a single device it is not tied to it: blocks would be compiled anew for each mix of what is tied and what is not.
    Without a sharding, of images that are traced, it goes where they will be.
    """
    if sharding is None or isinstance(sharding, SingleDeviceSharding):
        return jnp.asarray(array)
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def sharding_of(array: Array):
    """Where an array lies, for `placed`; None of one that is traced."""
    return None if isinstance(array, jax.core.Tracer) else array.sharding


def mesh_of(devices: int | None, axis: str = "candidates") -> Mesh:
    """A mesh of one axis over so many devices, or over all there are.

    Raises:
        InputError: more devices than there are, or some of several processes' devices.
    """
    there = jax.devices()
    count = len(there) if devices is None else whole("devices", devices, 1, len(there), do="leave it out to take all")
    if jax.process_count() > 1 and count != len(there):
        raise bad_input("devices", f"all {len(there)} of {jax.process_count()} processes", count, "leave it out")
    return Mesh(np.array(there[:count]), (axis,))


def gathered(arrays):
    """Arrays of all processes on this host: whole, where they are spread over devices, else one after the other."""
    return multihost_utils.process_allgather(arrays, tiled=True)


def from_first_process(content):
    """What the first process has read, in all of them."""
    data = np.frombuffer(json.dumps(content).encode(), np.uint8)
    length = int(multihost_utils.broadcast_one_to_all(np.int64(len(data))))
    return json.loads(bytes(np.asarray(multihost_utils.broadcast_one_to_all(np.resize(data, length)))))
