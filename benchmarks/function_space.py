"""Adaptation in closed form against MAML's inner loop with five and ten steps: same network and tasks, in turns.

Adaptation alone, and with answers to queries; the pieces of a closed form, which say what limits it; and on sinusoids
the error of each learner after meta-training, from the same starts on the same tasks.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.scipy.linalg import cho_solve

from benchmarks import meta_rkhs
from benchmarks._measure import alternate, ratios, summary, table
from mlkernels.learners import maml, rkhs
from mlkernels.learners.function_space import NTK, RBF, Cosine, FunctionSpace, Linear
from mlkernels.learners.function_space.kernel import Points, wide
from mlkernels.learners.meta_gradient import adapted_to, outputs_of_task
from mlkernels.learners.problem import Problem, form_and_rates
from mlkernels.networks import MLP, Conv4
from mlkernels.tasks import TaskBatch, sinusoid

FIVE, TEN = PEERS = ("MAML, 5 steps", "MAML, 10 steps")
ONE_BY_ONE = ", one by one"
ALONE, WITH_ANSWERS = "adapt", "adapt and answer"
GOAL = f"at least 10 times faster than MAML with 5 and with 10 steps, to {ALONE}, at the same or better loss"
TIMES = 10.0
RATE, TIME = 0.05, 10.0  # of MAML's inner loop, of Meta-RKHS-II
MEAN = {"outer_loss": "mean_squares", "reduce": "mean"}


@dataclass(frozen=True)
class Case:
    """A network and tasks of one size.

    Args:
        network: an MLP has sinusoids, a Conv4 noise images.
        tasks, support, queries: B, m, n.
        shape: of a point.
        runs: how many times each side is timed.
        seeds: how many meta-trainings of each side; 0 where there is nothing to learn.
        steps: outer steps of each.
        held_out: tasks for the error.
    """

    network: MLP | Conv4
    tasks: int = 64
    support: int = 10
    queries: int = 10
    shape: tuple[int, ...] = (1,)
    runs: int = 201
    seeds: int = 3
    steps: int = 300
    held_out: int = 200

    def sides(self) -> dict[str, Any]:
        """What adapts, by name."""
        loop = maml.InnerLoop(RATE, 5, loss="mean_squares")
        kernels = {"RBF": RBF(), "Cosine": Cosine(), "NTK": NTK()}
        found = {FIVE: loop, TEN: replace(loop, steps=10)}
        found |= {f"function space, {name}": FunctionSpace(kernel) for name, kernel in kernels.items()}
        found["ridge-regression head"] = FunctionSpace(Linear(), mean="zero")
        outputs = "full" if self.network.outputs == 1 else "sum"
        return found | {"Meta-RKHS-II": rkhs.ClosedForm(TIME, outputs=outputs)}


CASES = {
    "sinusoid, 2 x 40 units": Case(MLP(40, b_std=1.0, w_std=1.0)),
    "sinusoid, 2 x 160 units": Case(MLP(160, b_std=1.0, w_std=1.0), runs=51),
    "28x28, Conv-4 of 32, 1 shot": Case(Conv4(32, outputs=meta_rkhs.WAY), 16, 5, 10, (28, 28, 1), runs=7, seeds=0),
}


def own(state):
    """Of what adaptation has made, the arrays that each task has for itself: not the parameters that all share."""
    if not hasattr(state, "_replace"):
        return state  # parameters
    shared = {name: None for name in ("params", "numbers", "support_x") if name in state._fields}
    if "support" in state._fields:
        shared["support"] = state.support._replace(x=None)
    return state._replace(**shared)


def _each(problem: Problem, one, tasks: TaskBatch):
    return jax.lax.map(one, tasks) if problem.sequential else jax.vmap(one)(tasks)


def adapted(problem: Problem, params, rates, tasks: TaskBatch):
    """What each task's adaptation makes, of all tasks at once or one by one."""
    return _each(problem, lambda task: own(adapted_to(problem, params, rates, task)), tasks)


def answers(problem: Problem, params, rates, tasks: TaskBatch):
    """The outputs on all queries, `[B, n, k]`."""
    return _each(problem, partial(outputs_of_task, problem, params, rates), tasks)


def compiled(function, problem: Problem, *given):
    """The program of a pure function of `(problem, ...)`, without what a call through `jit` looks up."""
    return jax.jit(function, static_argnums=0).lower(problem, *given).compile()


def pieces(case: Case, params, tasks: TaskBatch) -> dict[str, Any]:
    """What a closed form is made of, as calls: each a program of its own, for all tasks."""
    network, sides = case.network, case.sides()

    def forward(params, x):
        layers = network.features(params, x)
        return layers[network.layers[-2]].reshape(len(x), -1), layers["head"]

    def call(function, *given):  # of each task's arrays
        return partial(jax.jit(jax.vmap(function)).lower(*given).compile(), *given)

    run = jax.jit(jax.vmap(forward, (None, 0))).lower(params, tasks.support_x).compile()
    features, _ = run(params, tasks.support_x)
    found = {"forward on the support": partial(run, params, tasks.support_x)}
    for name in ("RBF", "Cosine"):
        inner = sides[f"function space, {name}"]
        gram = partial(inner.kernel.gram, inner.numbers["kernel"], None, None)  # the numbers compiled in
        found[f"kernel of the features, {name}"] = call(lambda x, gram=gram: gram(Points(x, x)), features)
    kernels = found["kernel of the features, RBF"]() + inner.gamma * jnp.eye(case.support)[None]
    found["Cholesky"] = call(jnp.linalg.cholesky, kernels)
    factors = found["Cholesky"]()
    found["solve"] = call(lambda factor, y: cho_solve((factor, True), y), factors, wide(tasks.support_y))
    one, rates = form_and_rates(params, replace(sides[FIVE], steps=1), None)
    given = params, jnp.asarray(rates), tasks
    found["one step of MAML"] = partial(compiled(adapted, Problem(network.apply, one, **MEAN), *given), *given)
    return found


def errors(case: Case, seed: int) -> dict[str, list[float]]:
    """By side the mean squared error on held-out tasks after meta-training, for each of some seeds."""
    keys = jax.random.split(jax.random.key(seed), 3)
    draw = partial(sinusoid, support=case.support, queries=case.queries, dtype=jnp.float32)
    held_out, fresh = draw(tasks=case.held_out, key=keys[0]), jax.jit(lambda key: draw(tasks=10, key=key))
    network, adam, found = case.network, optax.adam(0.01), {}
    for side, inner in case.sides().items():
        learned = isinstance(inner, FunctionSpace)
        found[side] = []
        for i in range(case.seeds):
            start = network.init(jax.random.fold_in(keys[1], i), case.shape, jnp.float32)
            how = {"steps": case.steps, "key": jax.random.fold_in(keys[2], i), "sampler": "host"}
            run = maml.fit(network.apply, start, fresh, inner, adam, learn_rates=learned, **how, **MEAN)
            rates = run.rates if learned else None
            said = maml.meta_outputs(network.apply, run.params, held_out, inner, rates=rates)
            found[side].append(round(float(((said - held_out.query_y) ** 2).mean()), 5))
    return found


def measure(seed: int = 0, cases: dict[str, Case] = CASES) -> dict:
    """Time each side on each case, in turn, and train them where there is something to learn.

    Returns:
        `settings` and, by case, `times` of each side to adapt and to adapt and answer, `temporary_bytes` (XLA's figure
        for buffers beside arguments and results), `times_faster` than MAML with five and with ten steps, of all tasks
        at once or one by one, whichever is quicker, `pieces`, `test_error` (by seed; empty where nothing is learned)
        and `goal`: by peer and side, whether it is met in time and in loss; and `most`: how many times faster a closed
        form could be that did nothing but run the network on the support set.
    """
    by_case = {}
    for name, case in cases.items():
        params, tasks = data(case, seed)
        programs, calls = {}, {}
        for side, inner in case.sides().items():
            form, rates = form_and_rates(params, inner, None)
            rates = jax.tree.map(jnp.asarray, rates)  # as training leaves them: each of NumPy's takes 10 us to go in
            problem, given = Problem(case.network.apply, form, **MEAN), (params, rates, tasks)
            how_of = {side: problem}
            if side in PEERS:  # large networks, whose parameters each task has for itself, are quicker so on a CPU
                how_of[side + ONE_BY_ONE] = replace(problem, sequential=True)
            for way, how in how_of.items():
                for what, function in ((ALONE, adapted), (WITH_ANSWERS, answers)):
                    programs[what, way] = compiled(function, how, *given)
                    calls[what, way] = partial(programs[what, way], *given)
        parts = pieces(case, params, tasks)
        times = summary(alternate(calls | parts, case.runs))
        ways, whats = [way for what, way in programs if what == ALONE], (ALONE, WITH_ANSWERS)
        ours = [side for side in case.sides() if side not in PEERS]
        best = {
            (what, peer): min((peer, peer + ONE_BY_ONE), key=lambda way: times[what, way]["median_s"])
            for what in whats
            for peer in PEERS
        }
        faster = {
            what: {
                peer: {side: ratios(times, (what, best[what, peer]), (what, side)) for side in ours} for peer in PEERS
            }
            for what in whats
        }
        error = errors(case, seed) if case.seeds else {}
        memory = {key: int(program.memory_analysis().temp_size_in_bytes) for key, program in programs.items()}
        by_case[name] = {
            "times": {what: {way: times[what, way] for way in ways} for what in whats},
            "temporary_bytes": {what: {way: memory[what, way] for way in ways} for what in whats},
            "times_faster": faster,
            "pieces": {part: times[part] for part in parts},
            "most": {peer: ratios(times, (ALONE, best[ALONE, peer]), "forward on the support") for peer in PEERS},
            "test_error": error,
            "goal": met(faster[ALONE], error),
        }
    settings = {"dtype": "float32", "inner_rate": RATE, "time": TIME, "goal": GOAL}
    return {"settings": settings | {"cases": {name: repr(case) for name, case in cases.items()}}, "by_case": by_case}


def met(faster: dict, error: dict) -> dict:
    """By peer and side: whether it is fast enough and, where that was measured, not worse on average."""
    found: dict[str, dict] = {}
    for peer, sides in faster.items():
        found[peer] = {}
        for side, ratio in sides.items():
            fast = ratio["median"] >= TIMES
            good = bool(np.mean(error[side]) <= np.mean(error[peer])) if error else None
            found[peer][side] = {"fast": fast, "as_good": good, "met": fast and good is not False}
    return found


def data(case: Case, seed: int) -> tuple[dict, TaskBatch]:
    """Parameters and tasks in float32: sinusoids, or noise images of five classes."""
    like = meta_rkhs.Case(case.network, case.tasks, case.support, case.queries, case.shape, case.runs, TIMES)
    return like.data(seed)


def report(result: dict) -> str:
    """The result for people."""
    rows = [["case, side", "adapt ms", "median", "answer ms", "MiB", "x MAML-5", "x MAML-10", "error", "met"]]
    for case, found in result["by_case"].items():
        rows.append([case, *[""] * 8])
        alone, error = found["times"][ALONE], found["test_error"]
        for side, time in alone.items():
            faster = [found["times_faster"][ALONE][peer].get(side, {}).get("median") for peer in PEERS]
            goals = [found["goal"][peer][side]["met"] for peer in PEERS if side in found["goal"][peer]]
            goals = " ".join("yes" if each else "NO" for each in goals)
            rows.append([
                f"  {side}", f"{1e3 * time['min_s']:.3f}", f"{1e3 * time['median_s']:.3f}",
                f"{1e3 * found['times'][WITH_ANSWERS][side]['min_s']:.3f}",
                f"{found['temporary_bytes'][ALONE][side] / 2**20:.2f}",
                *("" if ratio is None else f"{ratio:.1f}" for ratio in faster),
                f"{np.mean(error[side]):.3f}" if side in error else "", goals,
            ])  # fmt: skip
        for part, time in found["pieces"].items():
            rows.append([f"    {part}", f"{1e3 * time['min_s']:.3f}", f"{1e3 * time['median_s']:.3f}", *[""] * 6])
        bounds = [f"{found['most'][peer]['median']:.1f}" for peer in PEERS]
        rows.append(["    (nothing but the forward pass)", *[""] * 4, *bounds, "", ""])
    return f"{table(rows)}\ngoal: {result['settings']['goal']}"
