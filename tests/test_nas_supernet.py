"""Blocks and the super-network: each operation against plain JAX, one compile a block, pruned operations never run."""

from __future__ import annotations

import threading

import _plain_nas as plain
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlkernels.errors import InputError
from mlkernels.nas.engine import gram, operations, supernet
from mlkernels.nas.engine.gram import bytes_needed, sample_kernels
from mlkernels.nas.engine.lowering import current_lowering, lowering, sample_gradients, tap_gradients
from mlkernels.nas.engine.supernet import logits
from mlkernels.nas.engine.weights import init
from mlkernels.nas.space.blocks import Conv, operation
from mlkernels.nas.space.layout import Layout
from mlkernels.nas.space.search_space import SPACES

NAMES = sorted({name for space in SPACES.values() for name in space.operations})
LAYOUT = Layout(channels=2, pixels=4, ways=2, depth=2)


def draw(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


@pytest.fixture(params=["shifts", "lax"])
def each_lowering(request):
    with lowering(request.param):
        yield


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.usefixtures("each_lowering")
def test_an_operation_and_its_sample_gradients(name):
    """Stride 2 on an odd and an even side at once, where all paddings differ; stride 1 is among the scores' tests."""
    blocks, x = operation(name, 32, 2), draw(0, 3, 7, 6, 32)
    weights = [tuple(draw(i + 7 * j, *w) for j, s in enumerate(b) for w in s.weights) for i, b in enumerate(blocks)]

    def theirs(weights, x):
        y = plain.operate(name, jnp.moveaxis(x, -1, 1), weights, 2, plain.group_norm, [])
        return jnp.moveaxis(y, 1, -1)

    def ours(weights, x):
        for block, own in zip(blocks, weights, strict=True):
            x = operations.run_block(block, own, x)
        return x

    expected = theirs(weights, x)
    assert expected.shape == (3, 4, 3, 32)
    np.testing.assert_allclose(ours(weights, x), expected, rtol=1e-9, atol=1e-11)
    g = draw(1, *expected.shape)
    by_weights, by_x = jax.vjp(theirs, weights, x)[1](g)
    rows = [jax.vjp(lambda w, i=i: theirs(w, x[i : i + 1]), weights)[1](g[i : i + 1])[0] for i in range(3)]
    rows = np.stack(
        [np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(row)] or [np.zeros(0)]) for row in rows]
    )
    inputs = [x]
    for block, own in zip(blocks, weights, strict=True):
        inputs.append(operations.forward(block, own, inputs[-1]))
    back, kernel, factor = g[None], jnp.ones((1, 3, 3)), 0.5
    for block, own, before in zip(reversed(blocks), reversed(weights), inputs[-2::-1], strict=True):
        into = jnp.full((1, *before.shape), float(before is x))
        back, kernel = operations.backward(block, "sum", own, before, back, factor, into, kernel)
        factor = 1.0
    np.testing.assert_allclose(back[0], 1 + by_x / 2, rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(kernel[0], 1 + rows @ rows.T / 4, rtol=1e-8, atol=1e-8)
    assert len(jax.tree.leaves(by_weights)) == sum(map(len, weights))


@pytest.mark.parametrize("outputs", ["sum", "full"])
@lowering("shifts")
def test_samples_in_parts_give_what_all_at_once_give(outputs, monkeypatch):
    """Where arrays are large a block takes its samples in parts, of equal numbers."""
    k = 1 if outputs == "sum" else 2
    block = operation("sep_conv_3x3", 16)[0]
    weights = tuple(draw(i, *shape) for i, shape in enumerate(shape for step in block for shape in step.weights))
    x, g = draw(2, 6, 5, 5, 16), draw(3, k, 6, 5, 5, 16)
    rows = 3 * (k if outputs == "full" else 1)  # of each of two architectures
    rest = draw(4, 6, 1, 1, 1), draw(5, k, 6, 5, 5, 16), jnp.zeros((2, rows, rows))
    whole = operations.backward(block, outputs, weights, x, g, *rest)
    monkeypatch.setattr(operations, "WHOLE", 1)
    monkeypatch.setattr(operations, "CHUNK", x.nbytes * 0.7)
    assert operations._chunks(x, g) == 2
    for parts, one in zip(operations.backward(block, outputs, weights, x, g, *rest), whole, strict=True):
        np.testing.assert_allclose(parts, one, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kernel", [(1, 1), (1, 5), (5, 1), (3, 3)])
@pytest.mark.parametrize("channels", [2, 70])  # fewer and more than the pixels: one by one, or in one product
def test_a_dense_convolutions_sample_gradients_one_by_one(kernel, channels):
    step = Conv(channels, 3, kernel)
    w, x, g = draw(0, *kernel, channels, 3), draw(1, 2, 6, 7, channels), draw(2, 2, 6, 7, 3)
    with lowering("lax"):
        expected = sample_gradients(step, w, x, g)
    for loop in (True, False):
        taps = np.stack(tap_gradients(step, x, g, loop), axis=1)
        np.testing.assert_allclose(taps.reshape(2, *w.shape), expected, rtol=1e-10, atol=1e-11)


def test_of_equal_pixels_the_first_gets_the_gradient():
    (block,) = operation("max_pool_3x3", 1, 2)
    g = jax.grad(lambda x: operations.run_block(block, (), x).sum())(jnp.zeros((1, 3, 3, 1)))[0, :, :, 0]
    np.testing.assert_array_equal(g, [[1, 1, 0], [1, 1, 0], [0, 0, 0]])


@pytest.fixture
def runs(monkeypatch):
    """Which blocks are run, forwards and backwards."""
    ran = []
    for module, name in ((supernet, "forward"), (gram, "forward"), (gram, "backward")):
        real = getattr(module, name)

        def counted(block, *rest, name=name, real=real):
            ran.append((name, block))
            return real(block, *rest)

        monkeypatch.setattr(module, name, counted)
    return ran


def test_pruned_operations_never_run_and_candidates_compile_nothing(runs):
    params, images = init(LAYOUT, key=jax.random.key(0)), draw(0, 4, 4, 4, 3).astype(np.float32)
    names = LAYOUT.space.operations
    gates = LAYOUT.space.open_gates()
    gates[..., [names.index(name) for name in names if name not in ("conv_3x3", "max_pool_3x3BN")]] = False
    kernel = sample_kernels(LAYOUT, params, gates, images).ntk
    allowed = {block for cell in LAYOUT.stack for edge in cell.edges for o in (4, 6) for block in edge[o]}
    allowed |= {LAYOUT.first, LAYOUT.last, LAYOUT.head, *(pre for cell in LAYOUT.stack for pre in cell.pre)}
    assert {block for _, block in runs} == allowed
    pools = [block for way, block in runs if way == "backward" and not any(step.weights for step in block)]
    assert len(pools) - 1 == 4 + 4  # one a source, not one an edge; and what stands before the head
    programs = [operations.program(f, jax.default_backend()) for f in (operations.run_block, operations._backward)]
    compiled = [each._cache_size() for each in programs]
    for edge in range(9):
        candidate = gates.copy()
        candidate[1, edge, 4] = False
        assert (sample_kernels(LAYOUT, params, candidate, images).ntk != kernel).any()
    assert [each._cache_size() for each in programs] == compiled


AUTO = "shifts" if jax.default_backend() == "cpu" else "lax"


def test_the_lowering_is_a_context_of_its_thread():
    def elsewhere():
        with lowering("lax"):
            seen.append(current_lowering())
            entered.set()
            left.wait(60)
            seen.append(current_lowering())

    seen, entered, left = [], threading.Event(), threading.Event()
    thread = threading.Thread(target=elsewhere)
    assert current_lowering() == AUTO
    with lowering("shifts"):
        thread.start()
        assert entered.wait(60)
        with lowering("lax"), lowering("auto"):
            assert current_lowering() == AUTO
        assert current_lowering() == "shifts"  # the other thread is in its own
        with pytest.raises(RuntimeError, match="within"), lowering("lax"):
            raise RuntimeError("within")
        assert current_lowering() == "shifts"
    left.set()
    thread.join()
    assert seen == ["lax", "lax"]
    assert current_lowering() == AUTO
    with pytest.raises(InputError, match="lowering: expected auto, shifts or lax, got 'im2col'"), lowering("im2col"):
        pass


def test_each_lowering_has_its_own_compilation():
    """The primitive itself is in the one program and not in the other, whichever was compiled first."""
    (block,) = operation("dil_conv_5x5", 3)
    weights = tuple(draw(i, *shape) for i, shape in enumerate(shape for step in block for shape in step.weights))
    x, found = draw(2, 2, 6, 6, 3), {}
    for how in ("lax", "shifts", "lax", "shifts"):
        with lowering(how):
            inside = str(jax.make_jaxpr(lambda x: operations.forward(block, weights, x))(x))
            found.setdefault(how, []).append(operations.forward(block, weights, x))
        assert ("conv_general_dilated" in inside) == (how == "lax")
    np.testing.assert_array_equal(found["lax"][0], found["lax"][1])
    np.testing.assert_array_equal(found["shifts"][0], found["shifts"][1])
    np.testing.assert_allclose(found["lax"][0], found["shifts"][0], rtol=1e-9)
    sizes = operations.program(operations.run_block, jax.default_backend())
    before = sizes._cache_size()
    for how in ("lax", "shifts", AUTO):
        with lowering(how):
            operations.forward(block, weights, x[:1])
    assert sizes._cache_size() == before + 2


def test_logits_may_be_compiled_and_differentiated():
    layout = Layout(channels=2, pixels=2, ways=2, depth=1)
    params, images = init(layout, key=jax.random.key(0), dtype=float), draw(0, 3, 2, 2, 3)
    gates = layout.space.open_gates()
    gates[..., [name not in ("skip_connect", "conv_3x3") for name in layout.space.operations]] = False

    def of(params, images):
        return logits(layout, params, gates, images)

    expected = of(params, images)
    np.testing.assert_allclose(jax.jit(of)(params, images), expected, rtol=1e-9, atol=1e-12)
    along, step = draw(1, *images.shape), 1e-6
    slope = jnp.vdot(jax.grad(lambda images: of(params, images).sum())(images), along)
    ends = (of(params, images + sign * step * along).sum() for sign in (1, -1))
    np.testing.assert_allclose(slope, (next(ends) - next(ends)) / (2 * step), rtol=1e-5)


def test_weights_are_drawn_as_asked():
    layout = Layout(channels=16, pixels=4, depth=1)
    for name, size in (("uniform", 1 / np.sqrt(3)), ("fan_in", np.sqrt(2)), ("fan_out", np.sqrt(2))):
        params = init(layout, key=jax.random.key(0), initialisation=name)
        ((dense,), _), ((deep, flat),) = (params["cells"][0]["edges"][0][o] for o in (5, 6))
        fans = {"fan_out": (5 * 16, 9 * 16, 16)}.get(name, (5 * 16, 9, 16))
        for w, fan in zip((dense, deep, flat), fans, strict=True):
            assert np.sqrt(fan) * float(w.std()) == pytest.approx(size, rel=0.2), name
            assert w.dtype == np.float32
    same, other = (init(layout, key=jax.random.key(key)) for key in (0, 1))
    again = init(layout, key=jax.random.key(0))
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), same, again))
    assert not jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), same, other))


def test_bad_input_is_named():
    with pytest.raises(InputError, match="initialisation: expected"):
        init(LAYOUT, key=jax.random.key(0), initialisation="kaiming_normal")
    with pytest.raises(InputError, match="dtype: expected float32"):
        init(LAYOUT, key=jax.random.key(0), dtype=np.float16)
    params, gates = init(LAYOUT, key=jax.random.key(0)), LAYOUT.space.open_gates()
    for images in (np.zeros((4, 4, 3)), np.zeros((2, 3, 4, 4)), np.zeros((0, 4, 4, 3)), np.zeros((2, 4, 4, 3), int)):
        with pytest.raises(InputError, match="images: expected"):
            logits(LAYOUT, params, gates, images)
    assert bytes_needed(LAYOUT, 8) < bytes_needed(LAYOUT, 16)


def test_too_little_memory_is_said_before(monkeypatch):
    monkeypatch.setattr("mlkernels.support.memory.available_bytes", lambda: 1000)
    with pytest.raises(InputError, match="memory for kernels of 3 images"):
        sample_kernels(LAYOUT, init(LAYOUT, key=jax.random.key(0)), LAYOUT.space.open_gates(), np.zeros((3, 4, 4, 3)))
