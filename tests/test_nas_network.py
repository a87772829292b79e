"""The derived network: against one written down plainly, its parameters, BatchNorm, drop path, and gradients."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from _plain_nas import convolve, operate, reduced
from test_nas_space import ROWS
from test_nas_space import genotype as published

from mlkernels.errors import InputError
from mlkernels.nas import SPACES, Layout, Network, Space
from mlkernels.nas.engine import batch_norm, network
from mlkernels.nas.engine.graph import Add, Run
from mlkernels.nas.engine.lowering import lowering
from mlkernels.nas.engine.network import apply, drop_masks, features, init
from mlkernels.nas.engine.operations import program
from mlkernels.nas.space.blocks import Norm
from mlkernels.nas.space.layout import parameter_count
from mlkernels.nas.training.train import gradients

TEXTS = (
    "N: s3<0 sk<1 | c3<1 mp<2 R: f5<0 sk<1 | d3<0 ap<2",
    "N: c3<0 s3<1 | d3<1 mp<2 R: sk<0 s3<1 | f5<0 c3<2",
)
SPACE = Space("small", SPACES["darts_fewshot"].operations, 2)
LAYOUT = Layout(SPACE, cells=3, channels=4, pixels=9, ways=6, norm="batch")


def draw(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def shaken(net, seed=0):
    """Variables with scales, shifts and statistics that are not at their start."""
    rng = np.random.default_rng(seed)
    fresh = init(net, key=jax.random.key(seed), dtype=float)
    return jax.tree.map(lambda leaf: leaf + 0.1 * jnp.asarray(rng.uniform(0, 1, leaf.shape)), fresh)


class Plain:
    """The network written down: `_plain_nas` does the operations, its normalisation is replaced by this one."""

    def __init__(self, net, variables, train):
        self.net, self.train, self.moved = net, train, []
        self.blocks = list(zip(net.blocks, variables.params["blocks"], variables.statistics, strict=True))
        self.head = variables.params["head"]

    def norm(self, own, running, x):
        (scale, shift), (mean, variance) = own, running
        if self.train:
            count = x.size / x.shape[1]
            now = x.mean((0, 2, 3)), x.var((0, 2, 3))
            self.moved += [0.9 * mean + 0.1 * now[0], 0.9 * variance + 0.1 * now[1] * count / (count - 1)]
            mean, variance = now
        scale, shift, mean, variance = (v[None, None, None] for v in (scale, shift, mean, variance))
        wide = (x.swapaxes(1, 3) - mean) / jnp.sqrt(variance + 1e-5) * scale + shift
        return wide.swapaxes(1, 3)

    def next(self):
        """The next block's weights and its normalisation."""
        block, own, running = self.blocks.pop(0)
        weights = [w for step, w in zip(block, own, strict=True) if not isinstance(step, Norm)]
        norms = [pair for step, *pair in zip(block, own, running, strict=True) if isinstance(step, Norm)]
        return [w for part in weights for w in part], partial(self.norm, *norms[0]) if norms else None

    def operation(self, name, x, stride):
        if name == "skip_connect" and stride == 1:
            return x
        if name == "conv_1x5_5x1":
            (across, _), (down, norm) = self.next(), self.next()
            return operate(name, x, [across, down], stride, norm, [])
        if not name.startswith("sep"):
            weights, norm = self.next()
            return operate(name, x, [weights], stride, norm, [])
        for s in (stride, 1):  # a separable convolution twice, each as "conv_3x3" does it once
            weights, norm = self.next()
            x = operate("conv_3x3", x, [weights], s, norm, [])
        return x

    def __call__(self, images, drops=None):
        """Outputs; `drops[node]` are two arrays `[n]` of factors, or none."""
        (w,), norm = self.next()
        x = norm(convolve(images.swapaxes(1, 3).swapaxes(2, 3), w, (1, 1), ((1, 1), (1, 1))))
        before, was, number = (x, x), 0, 0
        for kind in [int(n in self.net.layout.reductions) for n in range(self.net.layout.cells)]:
            states = []
            for place, x in enumerate(before):
                weights, norm = self.next()
                bring = was and place == 0
                states.append(
                    reduced(x, weights, norm, []) if bring else norm(
                        convolve(jax.nn.relu(x), weights[0])
                    )
                )  # fmt: skip
            for chosen in (self.net.genotype.normal, self.net.genotype.reduce)[kind]:
                total = 0.0
                for edge, (name, source) in enumerate(chosen):
                    stride = 1 + (kind and source < 2)
                    y = self.operation(name, states[source], stride)
                    if drops is not None and not (name == "skip_connect" and stride == 1):
                        y = y * drops[number][edge].reshape(-1, 1, 1, 1)
                    total = total + y
                states.append(total)
                number += 1
            before, was = (before[1], jnp.concatenate(states[2:], 1)), kind
        weights, bias = self.head
        self.features = before[1].mean((2, 3))
        return self.features @ weights + bias[None]


@pytest.mark.parametrize("text", TEXTS)
def test_the_network_is_the_one_written_down(text):
    net = Network(LAYOUT, text)
    variables, images = shaken(net), draw(1, 5, 9, 9, 3)
    plain = Plain(net, variables, train=False)
    np.testing.assert_allclose(apply(net, variables, images), plain(images), rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(features(net, variables, images), plain.features, rtol=1e-9, atol=1e-11)
    for how in ("shifts", "lax"):
        plain = Plain(net, variables, train=True)
        with lowering(how):
            outputs, moved = apply(net, variables, images, train=True)
        np.testing.assert_allclose(outputs, plain(images), rtol=1e-8, atol=1e-10)
        for ours, theirs in zip(jax.tree.leaves(moved), plain.moved, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-8, atol=1e-11)


def test_drop_path_drops_whole_samples_and_no_identity():
    net = Network(LAYOUT, TEXTS[0])
    variables, images, key = shaken(net), draw(1, 5, 9, 9, 3), jax.random.key(5)
    masks = drop_masks(key, 0.4, net.nodes, 5, float)
    values = np.unique(np.stack(masks))
    np.testing.assert_allclose(values, [0, 1 / 0.6], rtol=1e-6)
    outputs, _ = apply(net, variables, images, drop=0.4, key=key, train=True)
    plain = Plain(net, variables, train=True)(images, masks)
    np.testing.assert_allclose(outputs, plain, rtol=1e-6, atol=1e-8)
    many = np.stack(drop_masks(key, 0.3, 4, 2000, np.float32))
    assert many.mean() == pytest.approx(1, abs=0.02)
    assert (many == 0).mean() == pytest.approx(0.3, abs=0.02)
    kept = [step.dropped for step in net.plan if isinstance(step, Add)]
    assert kept[2] == (True, True)  # f5<0 sk<1 in a reduction cell: a skip of stride 2 is a convolution
    assert kept[0] == (True, False)  # s3<0 sk<1 in a normal cell


def shapes_of(block):
    """Shapes of the arrays that are trained in each step: its weights, or a norm's scale and shift."""
    return [((step.channels,),) * 2 if isinstance(step, Norm) else step.weights for step in block]


@pytest.mark.parametrize("row", ROWS, ids=range(12))
def test_parameters_of_the_published_genotypes_as_they_are_trained(row):
    """Shapes alone, of the whole size."""
    cells, classes = map(int, row[0].split())
    net = Network(Layout(cells=cells, channels=48, pixels=84, ways=classes, norm="batch"), published(row))
    shapes = [shape for block in net.blocks for step in shapes_of(block) for shape in step]
    counted = sum(int(np.prod(shape)) for shape in shapes) + (net.features + 1) * classes
    assert counted == parameter_count(net.layout, net.gates, classes=classes)
    assert f"{counted / 1e6:.3f}" == row[7].split()[1]


@pytest.mark.parametrize("text", TEXTS)
def test_the_pytree_has_these_parameters(text):
    net = Network(LAYOUT, text)
    variables = init(net, key=jax.random.key(0))
    counted = sum(leaf.size for leaf in jax.tree.leaves(variables.params))
    assert counted == parameter_count(LAYOUT, net.gates, classes=6)
    for block, own in zip(net.blocks, variables.params["blocks"], strict=True):
        assert [tuple(leaf.shape for leaf in step) for step in own] == shapes_of(block)
    statistics = sum(leaf.size for leaf in jax.tree.leaves(variables.statistics))
    assert statistics == sum(2 * step.channels for block in net.blocks for step in block if isinstance(step, Norm))


def test_architectures_have_the_same_weights_where_they_are_the_same():
    one, other = (init(Network(LAYOUT, text), key=jax.random.key(3)) for text in TEXTS)
    for a, b in zip(one.params["blocks"][:3], other.params["blocks"][:3], strict=True):  # stem and preprocessing
        jax.tree.map(np.testing.assert_array_equal, a, b)
    assert not np.array_equal(
        one.params["head"][0], init(Network(LAYOUT, TEXTS[0]), key=jax.random.key(4)).params["head"][0]
    )


def test_both_ways_of_compiling_give_the_gradients_of_the_one_written_down():
    net = Network(LAYOUT, TEXTS[0])
    variables, images, labels = shaken(net), draw(1, 6, 9, 9, 3), jnp.arange(6)
    masks = drop_masks(jax.random.key(2), 0.3, net.nodes, 6, float)
    with lowering("shifts"):
        blocks = gradients(net, variables, images, labels, masks, compiled="blocks")
    with lowering("lax"):
        whole = gradients(net, variables, images, labels, masks, compiled="whole")
    for a, b in zip(jax.tree.leaves(blocks), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)

    @jax.jit
    def loss(params):
        outputs = Plain(net, variables._replace(params=params), True)(images, masks)
        return -jax.nn.log_softmax(outputs)[jnp.arange(6), labels].mean()

    value, plain = jax.value_and_grad(loss)(variables.params)
    assert float(value) == pytest.approx(float(blocks.loss), rel=1e-9)
    for a, b in zip(jax.tree.leaves(blocks.gradients), jax.tree.leaves(plain), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-9)


def test_a_block_that_nothing_depends_on_has_no_gradient():
    space = Space("one", ("conv_3x3", "skip_connect"), 1)
    net = Network(Layout(space, cells=5, channels=2, pixels=4, norm="batch"), "N: c3<0 sk<1 R: c3<0 c3<1")
    masked = [drop.at[:, :].set(0) for drop in drop_masks(jax.random.key(0), 0.5, net.nodes, 4, float)]
    masks = tuple(masked)  # everything but identity skips is dropped
    variables, images = shaken(net), draw(1, 4, 4, 4, 3)
    for compiled in ("blocks", "whole"):
        found = gradients(net, variables, images, jnp.zeros(4, int), masks, compiled=compiled).gradients
        assert not any(np.any(leaf) for leaf in jax.tree.leaves(found["blocks"][0]))  # reductions let nothing through
        assert np.any(found["head"][0])


def test_a_second_architecture_compiles_what_the_first_did_not_have():
    images, labels = draw(1, 6, 9, 9, 3).astype(np.float32), jnp.arange(6)

    def compiled():
        programs = (program(f, jax.default_backend()) for f in (batch_norm.run, batch_norm._backward))
        return sum(each._cache_size() for each in programs)

    counts, seen = [], []
    for text in (*TEXTS, TEXTS[0]):
        net = Network(LAYOUT, text)
        variables = init(net, key=jax.random.key(0))
        before = compiled()
        gradients(net, variables, images, labels, compiled="blocks")
        counts.append(compiled() - before)
        sizes = zip(net.blocks, _sizes(net), strict=True)
        seen.append(set(sizes))
    new = len(seen[1] - seen[0])
    assert counts[0] == 2 * len(seen[0])  # forwards and backwards, of each block and size
    assert counts[1] == 2 * new < counts[0]
    assert counts[2] == 0


def _sizes(net):
    """The pixels a side that go into each block, in the plan's order."""
    from mlkernels.nas.space.blocks import through

    values, found = [net.layout.pixels], []
    for step in net.plan:
        size = values[step.sources[0]]
        if isinstance(step, Run):
            found.append(size)
            size = through(step.block, size)
        values.append(size)
    return found


def test_it_is_a_function_like_any_other_to_jax():
    text = "N: sk<0 mp<1 | sk<1 c3<2 R: sk<0 sk<1 | sk<0 sk<2"  # few blocks: what counts is how they are called
    net = Network(Layout(SPACE, cells=2, channels=2, pixels=4, ways=6, norm="batch"), text)
    variables, images, labels = shaken(net), draw(1, 3, 4, 4, 3), jnp.arange(3)
    ways = {
        "apply": partial(apply, net),
        "training": partial(apply, net, train=True),
        "dropping": partial(apply, net, train=True, drop=0.5, key=jax.random.key(1)),
        "features": partial(features, net),
    }
    for name, run in ways.items():
        eager, whole = run(variables, images), jax.jit(run)(variables, images)
        for one, other in zip(*map(jax.tree.leaves, (eager, whole)), strict=True):
            np.testing.assert_allclose(other, one, rtol=1e-9, atol=1e-9, err_msg=name)
    assert jax.eval_shape(lambda: apply(net, variables, images)).shape == (3, 6)  # nothing traced among the arguments
    one_by_one = jax.vmap(lambda image: apply(net, variables, image[None])[0])(images)
    np.testing.assert_allclose(one_by_one, apply(net, variables, images), rtol=1e-9, atol=1e-9)

    def loss(params, images, train=True):
        outputs = apply(net, variables._replace(params=params), images, train=train)
        outputs = outputs[0] if train else outputs
        return -jax.nn.log_softmax(outputs)[labels, labels].mean()

    expected = gradients(net, variables, images, labels, compiled="whole").gradients
    for by in (jax.grad(loss), jax.jit(jax.grad(loss))):
        for one, other in zip(*map(jax.tree.leaves, (by(variables.params, images), expected)), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-8, atol=1e-9)
    along, step = draw(2, *images.shape), 1e-6
    ends = (loss(variables.params, images + sign * step * along, False) for sign in (1, -1))
    slope = jnp.vdot(jax.grad(loss, 1)(variables.params, images, False), along)
    np.testing.assert_allclose(slope, (next(ends) - next(ends)) / (2 * step), rtol=1e-5)


def test_half_precision_stays_close_and_keeps_its_parameters():
    net = Network(LAYOUT, TEXTS[0])
    variables = jax.tree.map(lambda leaf: leaf.astype(np.float32), shaken(net))
    images, labels = draw(1, 6, 9, 9, 3).astype(np.float32), jnp.arange(6)
    with lowering("lax"):
        full = gradients(net, variables, images, labels, compiled="blocks")
        half = gradients(net, variables, images.astype(jnp.bfloat16), labels, compiled="blocks")
    assert {leaf.dtype.name for leaf in jax.tree.leaves((half.gradients, half.statistics))} == {"float32"}
    assert float(half.loss) == pytest.approx(float(full.loss), rel=0.05)
    a, b = (np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(found.gradients)]) for found in (full, half))
    assert a @ b / np.linalg.norm(a) / np.linalg.norm(b) > 0.95


def test_one_number_has_no_variance():
    net = Network(Layout(SPACE, cells=3, channels=4, pixels=4, ways=6, norm="batch"), TEXTS[0])
    variables = init(net, key=jax.random.key(0))
    with pytest.raises(InputError, match="images: expected two pixels or more at each norm, in training, got 1"):
        apply(net, variables, jnp.ones((1, 4, 4, 3)), train=True)
    assert np.isfinite(apply(net, variables, jnp.ones((1, 4, 4, 3)))).all()
    _, moved = apply(net, variables, jnp.ones((2, 4, 4, 3)), train=True)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(moved))


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda net, v, x: Network(Layout(), TEXTS[0]), "layout: expected a whole Layout with norm='batch'"),
        (lambda net, v, x: Network(LAYOUT, "N: sk<0 sk<1 R: sk<0 sk<1"), "2 nodes a cell"),
        (lambda net, v, x: Network(LAYOUT, None), "genotype: expected a Genotype or its text, got None"),
        (lambda net, v, x: apply(net, v, x[:, 1:]), r"images: expected \[n, 9, 9, 3\]"),
        (lambda net, v, x: apply(net, v, x, drop=1.0, train=True), "drop: expected a probability"),
        (lambda net, v, x: apply(net, v, x, drop=0.5, train=True), "key: expected one JAX key"),
        (lambda net, v, x: init(net, key=0), "key: expected one JAX key"),
        (
            lambda net, v, x: network.init(net, key=jax.random.key(0), initialisation="zeros"),
            "initialisation: expected",
        ),
    ],
)
def test_bad_input_is_named(call, said):
    net = Network(LAYOUT, TEXTS[0])
    with pytest.raises(InputError, match=said):
        call(net, init(net, key=jax.random.key(0)), draw(0, 2, 9, 9, 3))
