"""The cost of an outer step: the formula by hand, and beside what XLA counts in the compiled program."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import pytest

from mlkernels.errors import InputError
from mlkernels.learners import cost, maml
from mlkernels.learners.maml import InnerLoop
from mlkernels.networks import MLP, Conv4
from mlkernels.tasks import TaskBatch, teacher_student

ADAPT = {"ANIL": ("head",), "ANIL, two layers": ("layer2", "head"), "MAML": "all"}
BATCH = teacher_student(tasks=2, support=20, queries=20, key=jax.random.key(0), dtype=jnp.float32)


def shapes(network, *input_shape):
    return jax.eval_shape(lambda key: network.init(key, input_shape, jnp.float32), jax.random.key(0))


def formula(width, inner, batch=BATCH):
    network = MLP(width)
    return cost.cost_formula(network, shapes(network, 10), batch, inner)


# --- the formula ------------------------------------------------------------------------------------------------------


def test_the_formula_by_hand():
    """Widths 10-8-8-1: c = 160, 128 and 16 for a point, 20 points."""
    c1, c2, c3 = 20 * 160, 20 * 128, 20 * 16
    outer = 2 * c1 + 3 * c2 + 3 * c3
    for adapt, frozen, gradient, hvp, mixed in (
        ("all", 0, 2 * c1 + 3 * c2 + 3 * c3, 2 * c1 + 6 * c2 + 6 * c3, 0),
        (("layer2", "head"), c1, 2 * c2 + 3 * c3, 2 * c2 + 6 * c3, c1 + 2 * c2),
        (("head",), c1 + c2, 2 * c3, 2 * c3, c1 + 2 * c2 + 2 * c3),
        # the frozen head lets the signal through, forward and back: its weights vary with phi in two products
        (("layer2",), c1, 2 * c2 + 2 * c3, 2 * c2 + 2 * c3, c1 + 2 * c2 + 2 * c3),
    ):
        inner = InnerLoop(0.1, 3, adapt=adapt)
        found = formula(8, inner)
        per_task = [frozen, 3 * gradient, 3 * hvp, 3 * mixed, outer]
        assert list(found.flops_of.values()) == [2.0 * part for part in per_task], adapt
        assert found.flops == 2 * sum(per_task)
        first = formula(8, replace(inner, first_order=True))
        assert first.flops == 2 * (frozen + 3 * gradient + outer)
        assert (first.gradients, first.hvps, first.mixed) == (6, 0, 0)
        assert formula(8, replace(inner, steps=0)).flops == 2 * outer


def test_the_number_of_products_is_the_published_one():
    """N Hessian-vector products a task: of dim(w) + dim(phi) for MAML; of dim(w), and N mixed ones, for ANIL."""
    for steps in (1, 4):
        anil, full = (formula(8, InnerLoop(0.1, steps, adapt=adapt)) for adapt in (("head",), "all"))
        assert (anil.gradients, anil.hvps, anil.mixed) == (2 * steps, 2 * steps, 2 * steps)
        assert (full.gradients, full.hvps, full.mixed) == (2 * steps, 2 * steps, 0)
        assert (anil.dim_w, anil.dim_phi) == (9, 88 + 72)
        assert (full.dim_w, full.dim_phi) == (9 + 88 + 72, 0)


def test_each_inner_step_costs_the_same_and_more_adapted_layers_cost_more():
    for adapt in ADAPT.values():
        one, two, ten = (formula(64, InnerLoop(0.1, steps, adapt=adapt)).flops for steps in (1, 2, 10))
        assert ten == one + 9 * (two - one)
    costs = [formula(64, InnerLoop(0.1, 5, adapt=adapt)).flops for adapt in ADAPT.values()]
    assert costs == sorted(costs)


def test_a_convolution_counts_at_each_place():
    network = Conv4(8, depth=2, outputs=5)
    batch = TaskBatch(*(jnp.zeros((1, 5, *shape)) for shape in ((12, 10, 3), (5,), (12, 10, 3), (5,))))
    params = shapes(network, 12, 10, 3)
    found = cost.cost_formula(network, params, batch, InnerLoop(0.1, 1, adapt=("head",)))
    assert found.flops_of["frozen layers"] == 5 * 2 * (120 * 27 * 8 + 30 * 72 * 8)


# --- the compiled program ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("adapt", ADAPT.values(), ids=ADAPT)
@pytest.mark.parametrize(("width", "steps"), [(32, 1), (32, 10), (256, 3)])
def test_the_formula_agrees_with_what_xla_counts(width, steps, adapt):
    network, inner = MLP(width), InnerLoop(0.1, steps, "mean_squares", l2=0.05, adapt=adapt)
    counted = cost.counted_flops(network.apply, shapes(network, 10), BATCH, inner)
    assert 1.0 <= counted / formula(width, inner).flops < 1.1


def test_it_agrees_for_first_order_and_without_steps():
    network = MLP(32)
    for inner in (InnerLoop(0.1, 2, first_order=True), InnerLoop(0.1, 0)):
        counted = cost.counted_flops(network.apply, shapes(network, 10), BATCH, inner)
        assert 1.0 <= counted / formula(32, inner).flops < 1.1


def test_it_agrees_for_conv4():
    network, inner = Conv4(16, depth=2, outputs=5), InnerLoop(0.1, 1, "cross_entropy", adapt=("head",))
    batch = TaskBatch(*(jnp.full((1, 5, *shape), 0.2, jnp.float32) for shape in ((8, 8, 3), (5,), (8, 8, 3), (5,))))
    params = shapes(network, 8, 8, 3)
    counted = cost.counted_flops(network.apply, params, batch, inner, outer_loss="cross_entropy")
    assert 1.0 <= counted / cost.cost_formula(network, params, batch, inner).flops < 1.15


def test_anil_takes_less_memory_than_maml_and_rematerialisation_less_still():
    network = MLP(64)
    params = network.init(jax.random.key(0), (10,), jnp.float32)
    full = InnerLoop(0.1, 10, remat=False)
    inners = {"ANIL": replace(full, adapt=("head",)), "MAML": full, "rematerialised": replace(full, remat=True)}
    found = cost.side_by_side(network.apply, params, BATCH, inners, repeats=1)
    assert found["ANIL"].memory < found["MAML"].memory / 2
    assert found["rematerialised"].memory < found["MAML"].memory


def test_side_by_side_measures_what_it_is_asked_to():
    network = MLP(16)
    params = network.init(jax.random.key(0), (10,), jnp.float32)
    inners = {name: InnerLoop(0.1, 2, adapt=adapt) for name, adapt in ADAPT.items()}
    found = cost.side_by_side(network.apply, params, BATCH, inners, repeats=2)
    assert list(found) == list(inners)
    assert all(each.seconds > 0 for each in found.values())
    step = jax.jit(lambda params, tasks: maml.meta_gradient(network.apply, params, tasks, inners["MAML"]))
    stated = step.lower(params, BATCH).compile().memory_analysis()
    assert found["MAML"].memory == stated.temp_size_in_bytes > 0


def test_bad_input_is_named():
    network = MLP(8)
    params = shapes(network, 10)
    with pytest.raises(InputError, match=r"network: expected a network of mlkernels.networks, got Apply"):
        cost.cost_formula(network.apply, params, BATCH, InnerLoop(0.1, 1))
    with pytest.raises(InputError, match=r"adapt: expected layers of the network, got 'tail'"):
        cost.cost_formula(network, params, BATCH, InnerLoop(0.1, 1, adapt=("tail",)))
    with pytest.raises(InputError, match="outer_loss: expected"):
        cost.counted_flops(network.apply, params, BATCH, InnerLoop(0.1, 1), outer_loss="hinge")
    with pytest.raises(InputError, match="repeats: expected a whole number of at least 1"):
        cost.side_by_side(network.apply, params, BATCH, {}, repeats=0)
