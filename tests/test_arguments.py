"""The checks at the door that many functions share: numbers, ranges, arrays, keys, a network's function and params."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from _refused import assert_refused

from mlkernels.networks import MLP
from mlkernels.support import array_arguments as arrays
from mlkernels.support.arguments import flag, number, one_of, plain, span, whole
from mlkernels.support.network_arguments import check_apply, check_params


@pytest.mark.parametrize("two", [2, np.int64(2), np.asarray(2), jnp.asarray(2)])
def test_scalars_of_numpy_and_jax_are_numbers(two):
    assert type(whole("n", two)) is int
    assert type(number("n", two)) is float
    assert span("n", (two, two)) == (2.0, 2.0)
    assert arrays.sizes(n=two) == [2]


MINUS = -1


@pytest.mark.parametrize("bad", [None, "2", True, 1j, math.nan, MINUS, [2], np.ones(2), jnp.asarray(True), object()])
def test_what_is_no_number_is_refused(bad):
    assert_refused(lambda: whole("n", bad), "n: expected a whole number of at least 0")
    assert_refused(lambda: number("n", bad), "n: expected a finite number of at least 0")
    if bad is not MINUS:
        assert_refused(lambda: span("n", (bad, bad)), "n: expected two finite numbers, the smaller first")


def test_a_traced_number_is_refused_where_it_would_have_to_be_known():
    assert_refused(lambda: jax.jit(lambda n: whole("n", n))(3), "n: expected a whole number")
    assert arrays.known_or_traced("n", jnp.asarray(0.5), lambda n: number("n", n)) == 0.5
    assert jax.jit(lambda n: arrays.known_or_traced("n", n, None))(0.5) == 0.5
    assert_refused(lambda: jax.jit(lambda n: arrays.known_or_traced("n", n, None))(jnp.ones(2)), "one number")


@pytest.mark.parametrize("bad", [None, 1.0, "ab", (1.0,), (1, 2, 3), (2, 1), (0, math.nan), ("a", "b"), (None, 1)])
def test_ranges(bad):
    assert_refused(lambda: span("x_range", bad), "x_range: expected two finite numbers, the smaller first")


def test_names_and_flags():
    for bad in (None, 3, ["a"], np.ones(2), jnp.ones(2), "c"):
        assert_refused(lambda bad=bad: one_of("name", bad, ("a", "b")), "name: expected a or b")
    assert one_of("dtype", None, (None, "float32")) is None
    assert one_of("width", np.int64(4), [2, 4]) == 4
    for bad in (None, "yes", 1, np.ones(2)):
        assert_refused(lambda bad=bad: flag("replace", bad), "replace: expected True or False")
    assert [flag("f", each) for each in (True, np.bool_(False), jnp.asarray(True))] == [True, False, True]
    assert plain("a") == "a"


BAD_ARRAYS = [None, "a", [[1.0], [1.0, 2.0]], ["a"], [None], [1j], jax.random.key(0), object()]


@pytest.mark.parametrize("bad", BAD_ARRAYS)
def test_what_are_no_real_numbers_is_refused(bad):
    assert_refused(lambda: arrays.real_array("x", bad), "x: expected an array of real numbers")
    assert_refused(lambda: arrays.real_arrays(x=(bad, "n")), "x: expected an array [n] of real numbers")
    if not isinstance(bad, list):  # which is a tree itself
        assert_refused(lambda: arrays.real_tree("x", {"a": bad}), "x: expected a pytree")


def test_axes_of_one_name_are_of_one_length():
    given = {"x": (np.ones((3, 2, 2)), "m *d"), "y": ([[1], [2], [3]], "m k"), "q": (jnp.ones((5, 2, 2)), "n *d")}
    assert [array.shape for array in arrays.real_arrays(**given)] == [(3, 2, 2), (3, 1), (5, 2, 2)]
    assert_refused(lambda: arrays.real_arrays(**given | {"y": (np.ones((4, 1)), "m k")}), "y: expected an array [m, k]")
    assert_refused(lambda: arrays.real_arrays(**given | {"y": (np.ones(3), "m k")}), "give it 2 axes")
    assert_refused(lambda: arrays.real_arrays(**given | {"q": (np.ones((5, 4)), "n *d")}), "with d = [2, 2]")
    assert jax.jit(lambda x: arrays.real_arrays(x=([x, x], "n"))[0].sum())(1.5) == 3.0  # traced numbers in a list


@pytest.mark.parametrize("bad", [None, 0, "key", jnp.zeros(3, jnp.uint32), jnp.zeros(2), np.zeros(2, np.uint32)])
def test_keys(bad):
    assert_refused(lambda: arrays.one_key(bad), "key: expected one JAX key")
    arrays.one_key(jax.random.PRNGKey(0))


@pytest.mark.parametrize("bad", ["float33", 3, int, complex, object])
def test_float_types(bad):
    assert_refused(lambda: arrays.float_type(bad), "dtype: expected a floating type")


@pytest.mark.parametrize("bad", [None, "apply", 3, [], MLP(2)])
def test_functions_of_networks(bad):
    assert_refused(lambda: check_apply(bad), "apply: expected a function apply(params, x)")


def test_functions_that_cannot_be_hashed():
    class Callable:
        __hash__ = None

        def __call__(self, params, x):
            return x

    assert_refused(lambda: check_apply(Callable()), "apply: expected a function that can be hashed, got Callable")


@pytest.mark.parametrize("bad", [None, "p", {}, 3, {"w": "a"}, {"w": np.arange(2)}, {"w": 1j * np.ones(2)}, MLP(2)])
def test_parameters(bad):
    assert_refused(lambda: check_params(bad), "params: expected a pytree of floats")
    check_params({"w": jax.ShapeDtypeStruct((2,), jnp.float32), "b": 1.0})
