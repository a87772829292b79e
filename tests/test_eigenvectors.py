"""LAPACK on many matrices: as JAX has it, and never a large batch on a CPU, whose parts may wait for ever."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlkernels import metantk, tasks
from mlkernels.inner_loop import minimum
from mlkernels.kernels import infinite_kernels
from mlkernels.learners import few_iterations, function_space, outer_weights, rkhs
from mlkernels.networks import MLP
from mlkernels.support import cholesky
from mlkernels.support.eigenvectors import eigh

LARGE = 200_000  # the cost of a batch that JAX 0.10 cuts into parts


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


@pytest.mark.parametrize("shape", [(10,), (60, 10)])
@pytest.mark.parametrize(
    "mode", [jax.grad, jax.jacfwd, lambda total: lambda x: jax.lax.map(jax.grad(total), x[None])[0]]
)
def test_derivatives_go_through_one_and_through_a_large_batch(mode, shape, key):
    matrices = symmetric(key, *shape)

    def total(decompose, matrices):
        values, vectors = decompose(matrices)
        return jnp.sum(jnp.sin(values)) + jnp.sum(vectors[..., 0] ** 4)

    ours = mode(lambda x: total(eigh, x))(matrices)
    theirs = jax.grad(lambda x: total(jnp.linalg.eigh, x))(matrices)
    np.testing.assert_allclose(ours + ours.mT, theirs + theirs.mT, rtol=0, atol=1e-8 * float(jnp.abs(theirs).max()))


def test_second_derivatives_are_those_of_jax(key):
    matrix, along = symmetric(key, 4), symmetric(jax.random.fold_in(key, 1), 4)

    def value(decompose, t):
        values, vectors = decompose(matrix + t * along)
        return jnp.sum(values**3) + jnp.sum(vectors[:, 0] ** 4)

    ours, theirs = (jax.grad(jax.grad(lambda t, f=f: value(f, t)))(0.3) for f in (eigh, jnp.linalg.eigh))
    np.testing.assert_allclose(ours, theirs, rtol=1e-8)


@pytest.mark.parametrize("shape", [(), (4,), (700,), (3, 300), (0,), (2, 0)])
@pytest.mark.parametrize(("m", "k"), [(10, 11), (1, 1), (0, 2)])
def test_systems_are_solved_however_many_there_are(shape, m, k, key):
    x, right = jax.random.normal(key, (*shape, m, m)), jax.random.normal(jax.random.fold_in(key, 1), (*shape, m, k))
    matrices = x @ x.mT + jnp.eye(m).reshape(*[1] * len(shape), m, m)

    solved = cholesky.solve
    for _ in shape:
        solved = jax.vmap(solved)
    np.testing.assert_allclose(solved(matrices, right), np.linalg.solve(matrices, right), rtol=0, atol=1e-10)


def test_a_matrix_that_all_share_is_solved_for_each(key):
    x, right = jax.random.normal(key, (5, 5)), jax.random.normal(key, (3, 4, 5, 2))
    matrix = x @ x.T + jnp.eye(5)
    for lower in (None, cholesky.factor(matrix)):
        found = jax.vmap(jax.vmap(lambda right, lower=lower: cholesky.solve(matrix, right, lower)))(right)
        np.testing.assert_allclose(found, np.linalg.solve(matrix, right), rtol=0, atol=1e-12)


def test_a_solve_has_the_derivative_of_the_inverse(key):
    x, right = jax.random.normal(key, (5, 5)), jax.random.normal(key, (5, 2))

    def total(solve, x, right):
        return jnp.sum(jnp.sin(solve(x @ x.T + jnp.eye(5), right)))

    ours, theirs = (jax.grad(total, (1, 2))(solve, x, right) for solve in (cholesky.solve, jnp.linalg.solve))
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-12)


def test_what_is_not_positive_definite_has_no_factor():
    found = jax.vmap(cholesky.factor)(jnp.stack([jnp.eye(2), jnp.array([[1.0, 2.0], [2.0, 1.0]])]))
    assert np.isfinite(found[0]).all()
    assert np.isnan(found[1]).any()


def costs(jaxpr):
    """(name, cost) of each batch of decompositions and of triangular solves in a program, however deep."""
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        if name in ("eigh", "cholesky", "triangular_solve", "lu", "geqrf", "qr"):
            *batch, m, n = equation.invars[0].aval.shape
            cost = {"eigh": 5 * m**3, "cholesky": m**3 / 3, "triangular_solve": m * equation.outvars[0].aval.size}
            cost = cost.get(name, 2 * m * n * min(m, n) / 3)
            cost = cost if name == "triangular_solve" else cost * int(np.prod(batch, dtype=int))
            yield name, cost if int(np.prod(batch, dtype=int)) > 1 else 0  # one matrix is not cut
        for value in equation.params.values():
            for inner in value if isinstance(value, tuple | list) else (value,):
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    yield from costs(inner)


def programs():
    """Programs of the package with many tasks, as a user may compile them whole."""
    network = MLP(8)
    params = network.init(jax.random.key(0), (1,))

    def draw(count):
        return [tasks.sinusoid(tasks=count, support=10, queries=2, key=jax.random.key(seed)) for seed in (1, 2)]

    def ntk(x1, x2):
        return infinite_kernels(network, x1, x2).ntk

    def regression(train, new):
        loop = {"inner_rate": 1.0, "inner_steps": 2.0, "flow": True}
        return metantk.adapted_outputs(new, ntk, **loop), metantk.analytic_metantk(train, ntk, rows=new, **loop)

    def flow(x, y):
        return rkhs.adapt(network.apply, params, x, y, rkhs.ClosedForm(1.0))

    def space(x, y):
        return function_space.adapt(network.apply, params, x, y, function_space.FunctionSpace()).weights

    def left_out(x, y):
        def total(y):
            return (
                function_space.leave_one_out(network.apply, params, x, y, function_space.FunctionSpace()) ** 2
            ).sum()

        return jax.grad(total)(y)

    def mapped(one):
        return lambda *parts: [jax.vmap(one)(part.support_x, part.support_y) for part in parts]

    def mapped_twice(one):  # each of the inner batches is small
        def both(*parts):
            pairs = [[a.reshape(-1, 10, *a.shape[1:]) for a in (part.support_x, part.support_y)] for part in parts]
            return [jax.vmap(jax.vmap(one))(*pair) for pair in pairs]

        return both

    few = few_iterations.FewIterations(ridge=1.0)
    gradients = [jax.random.normal(jax.random.key(seed), (40, 32, 8)) for seed in (1, 2)]
    features = [jax.random.normal(jax.random.key(seed), (9, 10, 64)) for seed in (1, 2)]
    classes = jnp.eye(5)[jnp.arange(10) % 5]

    def weighed(*parts):
        rule, losses = outer_weights.MinNorm(), jnp.ones(32)
        return [jax.vmap(lambda g: rule.weights(losses, g @ g.T))(part) for part in parts]

    def newton(*parts):
        def one(features):
            return minimum.solve(lambda u: features.T @ (features @ u) + u, jnp.ones(64), "eigh")

        return [jax.vmap(one)(part) for part in parts]

    def heads(*parts):
        return [jax.vmap(lambda x: few_iterations.ridge_head(x, classes, few))(part) for part in parts]

    return {
        "min-norm weights": (weighed, gradients),
        "Newton's steps": (newton, features),
        "ridge heads": (heads, features),
        "regression": (regression, draw(60)),
        "flows": (mapped(flow), draw(60)),
        "flows, mapped twice": (mapped_twice(flow), draw(60)),
        "function space": (mapped(space), draw(700)),
        "function space, mapped twice": (mapped_twice(space), draw(700)),
        "leave one out": (mapped(left_out), draw(700)),
        "leave one out, mapped twice": (mapped_twice(left_out), draw(700)),
    }


NAMES = [
    "regression", "flows", "flows, mapped twice", "function space", "function space, mapped twice", "leave one out",
    "leave one out, mapped twice", "min-norm weights", "Newton's steps", "ridge heads",
]  # fmt: skip


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="an accelerator takes batches as they are")
@pytest.mark.parametrize("name", NAMES)
def test_no_program_holds_a_large_batch(name):
    """On two cores the first and the sixth of these never ended, with JAX 0.10.2."""
    program, given = programs()[name]
    found = list(costs(jax.make_jaxpr(program)(*given).jaxpr))
    assert found
    assert not [one for one in found if one[1] > LARGE]


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
    names = [name for name, *_ in costs(jax.make_jaxpr(jax.grad(loss))(params).jaxpr)]
    assert names.count("cholesky") == 1
