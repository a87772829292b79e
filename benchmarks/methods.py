"""Methods of the whole course side by side on sinusoids: error on new tasks, and what adaptation and training cost."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks._measure import alternate, summary
from benchmarks.function_space import MEAN, RATE, TIME, adapted, answers, compiled
from mlkernels import kernels, metantk
from mlkernels.course.tables import methods_table
from mlkernels.inner_loop.parts import split
from mlkernels.learners import maml, rkhs
from mlkernels.learners.function_space import Cosine, FunctionSpace, Linear
from mlkernels.learners.function_space.kernel import wide
from mlkernels.learners.meta_gradient import value_and_direction, value_and_gradient
from mlkernels.learners.outer_loop.steps import OuterLoop, State, outer_step
from mlkernels.learners.problem import Problem, form_and_rates
from mlkernels.networks import MLP
from mlkernels.support.intervals import interval
from mlkernels.tasks import sinusoid

METANTK = "MetaNTK regression"


@dataclass(frozen=True)
class Sizes:
    """How much is trained and timed.

    Args:
        seeds, outer_steps: of each training.
        train_tasks: of the regression with the MetaNTK, which has no outer steps.
        held_out: tasks for the error.
        runs: how many times each is timed.
        adapted: tasks that are adapted to at once where that is timed.
        network: of all methods; the MetaNTK's is the infinitely wide one.
    """

    seeds: int
    outer_steps: int
    train_tasks: int
    held_out: int = 100
    runs: int = 51
    adapted: int = 64
    network: MLP = field(default=MLP(40, b_std=1.0, w_std=1.0))


PRESETS = {"quick": Sizes(3, 300, 25), "class": Sizes(5, 1000, 50), "full": Sizes(5, 10_000, 100)}


@dataclass(frozen=True)
class Method:
    """What trains and what adapts at test time; `how` is more of `maml.fit`'s arguments."""

    train: Any
    test: Any
    how: tuple[tuple[str, Any], ...] = ()


def _methods() -> dict[str, Method]:
    """As notebook 05 has them, with the learners of notebook 06; what differs is said in a name."""
    loop = maml.InnerLoop(RATE, 5, loss="mean_squares")
    head, flow = replace(loop, adapt=("head",)), rkhs.ClosedForm(TIME)
    learned = (("learn_rates", True),)
    cosine, ridge = FunctionSpace(Cosine()), FunctionSpace(Linear(), mean="zero")
    return {
        "MAML": Method(loop, loop),
        "FOMAML": Method(replace(loop, first_order=True), loop),
        "ANIL": Method(head, head),
        "Reptile": Method(loop, loop, (("method", "reptile"),)),
        "Meta-RKHS-I": Method(rkhs.Regularised(0.001, loss="mean_squares"), replace(loop, steps=10)),
        "Meta-RKHS-II": Method(flow, flow),
        "function space, Cosine": Method(cosine, cosine, learned),
        "ridge-regression head": Method(ridge, ridge, learned),
    }


METHODS = _methods()
LOOP = {"inner_rate": 1.0, "inner_steps": TIME, "flow": True}  # of the MetaNTK: Meta-RKHS-II's flow
OUTER = {
    "inner_rate": 1.0,
    "inner_steps": math.inf,
    "flow": True,
    "ridge": 10.0,
}  # a ridge that did well on other tasks


def regression(network, train):
    """What training is for the MetaNTK: the weights of the training tasks' queries, `[B*n, k]`."""
    ntk, train = partial(_ntk, network), jax.tree.map(wide, train)
    phi = metantk.analytic_metantk(train, ntk, **LOOP)
    residual = train.query_y - metantk.adapted_outputs(train, ntk, **LOOP)
    return metantk.adaptation_operator(phi, **OUTER) @ residual.reshape(len(phi), -1)


def predicted(network, train, weights, new):
    """The regression's answers on the queries of new tasks, `[B, n, k]`."""
    ntk, (train, new) = partial(_ntk, network), jax.tree.map(wide, (train, new))
    before = metantk.adapted_outputs(new, ntk, **LOOP)
    return before + (metantk.analytic_metantk(train, ntk, rows=new, **LOOP) @ weights).reshape(before.shape)


def _ntk(network, x1, x2):
    return kernels.infinite_kernels(network, x1, x2).ntk


def _error(said, tasks) -> float:
    return round(float(((np.asarray(said) - np.asarray(tasks.query_y)) ** 2).mean()), 5)


def _trained(name: str, sizes: Sizes, seed: int, data: dict, adam) -> list[float]:
    """Errors on new tasks after training, by seed."""
    method, network, how = METHODS[name], sizes.network, dict(METHODS[name].how)
    found = []
    for i in range(sizes.seeds):
        key = jax.random.fold_in(jax.random.key(seed), i)
        start = network.init(key, (1,), jnp.float32)
        fit = partial(maml.fit, network.apply, start, data["fresh"], method.train, adam)
        run = fit(steps=sizes.outer_steps, key=key, sampler="host", **how, **MEAN)
        rates = run.rates if "learn_rates" in how else None
        said = maml.meta_outputs(network.apply, run.params, data["held_out"], method.test, rates=rates)
        found.append(_error(said, data["held_out"]))
    return found


def _programs(name: str, sizes: Sizes, params, data: dict, adam) -> tuple[Any, Any, tuple, int]:
    """Compiled: adapting to tasks and answering their queries; an outer step; what each is called with; and how many
    numbers a task's adaptation makes.
    """
    method, network, how = METHODS[name], sizes.network, dict(METHODS[name].how)
    form, rates = form_and_rates(params, method.test, None)
    rates = jax.tree.map(jnp.asarray, rates)
    problem, many = Problem(network.apply, form, **MEAN), data["many"]
    state = jax.eval_shape(partial(adapted, problem), params, rates, many)
    moved = split(state, form.layers)[0] if isinstance(form, maml.InnerLoop) else state
    numbers = sum(leaf.size for leaf in jax.tree.leaves(moved)) // many.tasks
    adapt = compiled(answers, problem, params, rates, many)

    form, inner_rates = form_and_rates(params, method.train, None, how.get("learn_rates", False))
    problem = Problem(network.apply, form, learn_rates=how.get("learn_rates", False), **MEAN)
    gradient = value_and_direction if how.get("method") == "reptile" else value_and_gradient
    trained = problem.trained(params, jax.tree.map(jnp.asarray, inner_rates))
    opt = adam.init(trained)
    start = State(trained, opt, jnp.zeros((), int), jnp.ones((), bool), ())
    given = start, inner_rates, data["few"], jax.random.key(0)
    step = compiled(outer_step, OuterLoop(problem, gradient, adam, None), *given)
    return partial(adapt, params, rates, many), step, given, numbers


def _of_preset(sizes: Sizes, seed: int) -> dict:
    keys = jax.random.split(jax.random.key(seed), 5)
    draw = partial(sinusoid, support=10, queries=10, dtype=jnp.float32)
    data = {
        "fresh": jax.jit(lambda key: draw(tasks=10, key=key)),
        "held_out": draw(tasks=sizes.held_out, key=keys[0]),
        "many": draw(tasks=sizes.adapted, key=keys[1]),
        "few": draw(tasks=10, key=keys[2]),
    }
    params, adam = sizes.network.init(keys[3], (1,), jnp.float32), optax.adam(0.01)
    calls, rows = {}, {}
    for name in METHODS:
        adapt, step, given, numbers = _programs(name, sizes, params, data, adam)
        calls[name, "adapt"], calls[name, "step"] = adapt, partial(step, *given)
        temporary = int(step.memory_analysis().temp_size_in_bytes)
        rows[name] = {"numbers": numbers, "step_temporary_bytes": temporary}
    trains = [draw(tasks=sizes.train_tasks, key=jax.random.fold_in(keys[4], i)) for i in range(sizes.seeds)]
    weights = [regression(sizes.network, train) for train in trains]
    calls[METANTK, "adapt"] = partial(predicted, sizes.network, trains[0], weights[0], data["many"])
    calls[METANTK, "training"] = partial(regression, sizes.network, trains[0])
    heavy = {key: max(1, sizes.runs // 10) if METANTK in key else sizes.runs for key in calls}
    times = summary(alternate(calls, heavy))
    support = sum(part[0].size for part in (data["many"].support_x, data["many"].support_y))
    rows[METANTK] = {"numbers": support, "step_temporary_bytes": None}
    errors = {name: _trained(name, sizes, seed, data, adam) for name in METHODS}
    given = zip(trains, weights, strict=True)
    errors[METANTK] = [_error(predicted(sizes.network, *each, data["held_out"]), data["held_out"]) for each in given]
    for name, row in rows.items():
        found = interval(errors[name])
        row |= {
            "test_error": errors[name],
            "interval": {"mean": found.mean, "low": found.low, "high": found.high},
            "adapt": times[name, "adapt"],
            "step": times.get((name, "step")),
            "training": times.get((name, "training")),
        }
    order = [*list(METHODS)[:6], METANTK, *list(METHODS)[6:]]
    settings = {name: getattr(sizes, name) for name in sizes.__dataclass_fields__} | {"network": repr(sizes.network)}
    return {"settings": settings, "rows": {name: rows[name] for name in order}}


def measure(seed: int = 0, presets: tuple[str, ...] = ("quick", "class"), sizes: dict[str, Sizes] = PRESETS) -> dict:
    """Train each method from the same starts on the same tasks, and time them in turn.

    Returns:
        `settings`, and `by_preset`: its `settings` and, by method, `test_error` (mean squared error on new tasks, by
        seed) with its `interval`, `adapt` (times to adapt to 64 tasks and answer their queries), `step` (of an outer
        step of 10 tasks with Adam; None for the regression, whose `training` is timed), `step_temporary_bytes`, and
        `numbers`: what a task's adaptation moves or stores.
    """
    settings = {"dtype": "float32", "support": 10, "queries": 10, "tasks": 10, "adam": 0.01}
    settings |= {"methods": {name: repr(method) for name, method in METHODS.items()}}
    settings["methods"][METANTK] = f"inner {LOOP}, outer {OUTER}"
    return {"settings": settings, "by_preset": {preset: _of_preset(sizes[preset], seed) for preset in presets}}


def report(result: dict) -> str:
    """The result for people."""
    return "\n\n".join(methods_table(preset, result) for preset in result["by_preset"])
