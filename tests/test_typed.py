"""Shapes in annotations: checked in tests, after what a function itself refuses, and a name is one size."""

from __future__ import annotations

import inspect
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from beartype.roar import BeartypeDoorHintViolation
from jaxtyping import Array, ArrayLike, Float, Num

from mlkernels import kernels, metantk, nas, networks, tasks
from mlkernels.course import plots
from mlkernels.errors import InputError, bad_input
from mlkernels.learners import curvature, maml, similarity
from mlkernels.support.typed import typed


@typed
def product(a: Float[ArrayLike, "n m"], b: Float[ArrayLike, " m"], wrong: bool = False) -> Float[Array, " n"]:
    if jnp.ndim(b) != 1:
        raise bad_input("b", "one axis", jnp.ndim(b), "drop axes")
    return jnp.zeros(jnp.shape(a)[0] + 1) if wrong else jnp.asarray(a) @ jnp.asarray(b)


def test_shapes_are_checked_and_a_name_is_one_size():
    a, b = jnp.ones((2, 3)), np.ones(3)
    assert product(a, b).shape == jax.jit(product)(a, b).shape == (2,)
    with pytest.raises(BeartypeDoorHintViolation):
        product(a, b, wrong=True)
    with pytest.raises(BeartypeDoorHintViolation):
        product(jnp.ones((2, 3), int), jnp.ones(3, int))


@typed
def total(x: Num[np.ndarray, " n"], y: Num[np.ndarray, " n"]) -> float:
    return float(np.sum(x) + np.sum(y))


def test_numbers_in_a_row_are_checked_as_arrays():
    assert total([1, 2], (3, 4.0)) == 10
    with pytest.raises(BeartypeDoorHintViolation):
        total([1, 2], (3, 4, 5))
    with pytest.raises(BeartypeDoorHintViolation):
        total([[1], [2]], np.ones(2))


def test_what_a_function_refuses_it_refuses_in_its_own_words():
    with pytest.raises(InputError, match="one axis"):
        product(jnp.ones((2, 3)), jnp.ones((3, 1)))


def test_outside_of_tests_nothing_is_checked():
    code = (
        "from mlkernels.support.typed import typed\n"
        "f = lambda x: x\nassert typed(f) is f\n"
        "import sys\nassert 'beartype' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    "module", [kernels, metantk, maml, curvature, similarity, nas, plots], ids=lambda module: module.__name__
)
def test_arrays_of_public_functions_have_shapes(module):
    """No bare `Array` among what goes in or comes out; what `tasks` and `networks` return are batches and functions."""
    for name in getattr(module, "__all__", ["inner_hessian", "contraction_per_step", "linear_cka", "layer_features"]):
        function = getattr(module, name, None)
        if inspect.isfunction(function) and function.__module__ != "mlkernels.kernels.neural_tangents_bridge":
            for argument, annotation in inspect.get_annotations(inspect.unwrap(function)).items():
                bare = annotation in ("Array", "Array | None", "np.ndarray", "ArrayLike")
                assert not bare or argument == "key", f"{name}: {argument}"


def test_a_task_batch_goes_through():
    batch = tasks.sinusoid(tasks=2, support=4, queries=3, key=jax.random.key(0))
    network = networks.MLP(8)
    params = network.init(jax.random.key(1), (1,))
    assert maml.meta_outputs(network.apply, params, batch, maml.InnerLoop(0.1, 2)).shape == (2, 3, 1)
