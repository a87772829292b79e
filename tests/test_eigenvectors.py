"""Eigenvectors of many matrices: those of JAX, and never as a large batch on a CPU, whose parts may wait for ever."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlkernels import metantk, tasks
from mlkernels.kernels import infinite_kernels
from mlkernels.learners import function_space, rkhs
from mlkernels.networks import MLP
from mlkernels.support.eigenvectors import eigh

LARGE = 40_000  # size cubed times batch


def symmetric(key, *shape):
    x = jax.random.normal(key, (*shape, shape[-1]))
    return (x + jnp.swapaxes(x, -1, -2)) / 2


@pytest.mark.parametrize("shape", [(3,), (4, 3), (60, 10), (0, 3), (2, 30, 10), (2, 0, 3)])
def test_they_are_those_of_jax(shape, key):
    matrices = symmetric(key, *shape)
    values, vectors = eigh(matrices)
    assert values.shape == shape
    assert vectors.shape == matrices.shape
    np.testing.assert_allclose(values, np.linalg.eigvalsh(matrices), rtol=0, atol=1e-12)
    np.testing.assert_allclose(
        vectors * values[..., None, :] @ jnp.swapaxes(vectors, -1, -2), matrices, rtol=0, atol=1e-12
    )


def test_derivatives_go_through_a_large_batch(key):
    matrices = symmetric(key, 60, 10)

    def total(decompose, matrices):
        values, vectors = decompose(matrices)
        return jnp.sum(jnp.sin(values)) + jnp.sum(vectors[..., 0] ** 4)

    ours, theirs = (jax.grad(lambda x: total(f, x))(matrices) for f in (eigh, jnp.linalg.eigh))  # noqa: B023
    np.testing.assert_allclose(ours + ours.mT, theirs + theirs.mT, rtol=0, atol=1e-8 * float(jnp.abs(theirs).max()))


def batches(jaxpr):
    """(size cubed times batch) of each decomposition and each triangular solve in a program, however deep."""
    for equation in jaxpr.eqns:
        if equation.primitive.name in ("eigh", "cholesky", "triangular_solve"):
            *batch, m, _ = equation.invars[0].aval.shape
            yield equation.primitive.name, int(np.prod(batch, dtype=int)), m
        for value in equation.params.values():
            for inner in value if isinstance(value, tuple | list) else (value,):
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    yield from batches(inner)


def programs():
    """Programs of the package with many tasks, as a user may compile them whole."""
    network, draw = MLP(8), lambda seed: tasks.sinusoid(tasks=60, support=10, queries=2, key=jax.random.key(seed))
    params = network.init(jax.random.key(0), (1,))

    def ntk(x1, x2):
        return infinite_kernels(network, x1, x2).ntk

    def regression(train, new):
        loop = {"inner_rate": 1.0, "inner_steps": 2.0, "flow": True}
        return metantk.adapted_outputs(new, ntk, **loop), metantk.analytic_metantk(train, ntk, rows=new, **loop)

    def flows(train, new):
        def adapt(x, y):
            return rkhs.adapt(network.apply, params, x, y, rkhs.ClosedForm(1.0))

        return [jax.vmap(adapt)(part.support_x, part.support_y) for part in (train, new)]

    return {"regression": (regression, draw), "flows": (flows, draw)}


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="an accelerator takes batches as they are")
@pytest.mark.parametrize("name", ["regression", "flows"])
def test_no_program_holds_a_large_batch(name):
    """On two cores the first of these never ended, with JAX 0.10.2."""
    program, draw = programs()[name]
    found = list(batches(jax.make_jaxpr(program)(draw(1), draw(2)).jaxpr))
    assert found
    assert not [one for one in found if one[1] * one[2] ** 3 > LARGE]


def test_function_space_factors_once_forward_and_back(key):
    network = MLP(8)
    params = network.init(key, (1,))
    x, y = jnp.linspace(-1, 1, 5)[:, None], jnp.ones((5, 1))
    inner = function_space.FunctionSpace()

    def loss(params):
        task = function_space.adapt(network.apply, params, x, y, inner)
        return jnp.sum(task.weights**2)

    compiled = jax.jit(jax.grad(loss)).lower(params).compile().as_text()
    assert compiled.count("lapack_dpotrf_ffi") == 1 or jax.default_backend() != "cpu"
    names = [name for name, *_ in batches(jax.make_jaxpr(jax.grad(loss))(params).jaxpr)]
    assert names.count("cholesky") == 1
