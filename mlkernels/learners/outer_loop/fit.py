"""The outer loop: what stands around its compiled steps, from the checks at the door to the result."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from tqdm import tqdm

from mlkernels.errors import bad_input
from mlkernels.inner_loop.implicit import ImplicitLoop
from mlkernels.inner_loop.losses import Loss
from mlkernels.inner_loop.settings import InnerLoop
from mlkernels.learners.function_space.closed_form import FunctionSpace
from mlkernels.learners.memory import local
from mlkernels.learners.memory.settings import LocalMemory, Memory
from mlkernels.learners.meta_gradient import value_and_direction, value_and_gradient
from mlkernels.learners.outer_loop import checkpoint as checkpoints
from mlkernels.learners.outer_loop.checkpoint import probe
from mlkernels.learners.outer_loop.divergence import Divergence, DivergenceError, explain
from mlkernels.learners.outer_loop.memories import check_memory, started, unknown
from mlkernels.learners.outer_loop.steps import OuterLoop, State, outer_steps
from mlkernels.learners.outer_weights import Rule
from mlkernels.learners.problem import check_reduce, problem_of
from mlkernels.support.arguments import one_of, whole
from mlkernels.tasks import NumberedTasks, TaskBatch
from mlkernels.tasks.populations import parted

METHODS = ("maml", "fomaml", "anil", "reptile")
_SIZE = 1024  # losses that a chunk can hold, the same always: chunks of other lengths do not compile anew
_CHUNK_SECONDS = 0.5  # between callbacks, where nobody says: quick enough to be stopped
_SAVE_SECONDS = 10.0  # between checkpoints, where nobody says


@dataclass(frozen=True, eq=False)
class FitResult:
    """What `fit` returns.

    Args:
        params: the parameters after `steps_done` steps: always finite.
        rates: the inner rates, learned or as given: a scalar or a dictionary layer -> scalar. Without an inner loop,
            the numbers by name: time and ridge, or alpha; or of a `FunctionSpace`, learned or as given, logarithms,
            which `FunctionSpace.at` shows as hyperparameters; so of `FewIterations`.
        opt_state: the optimiser's state, to go on from.
        losses: float `[recorded]`, the outer loss before the steps 0, record_every, 2 record_every, ...
        steps_done: outer steps in `params`.
        diverged: None, or why the loss became non-finite.
        stopped: whether the callback stopped it.
        memories: of all tasks, leaves `[T, ...]`, to go on from; None without a `Memory`.
    """

    params: Any
    rates: Any
    opt_state: Any
    losses: np.ndarray
    steps_done: int
    diverged: Divergence | None = None
    stopped: bool = False
    memories: Any = None


@checkpoints.alone_with()
def fit(
    apply: Callable,
    params,
    tasks: TaskBatch | NumberedTasks | Callable[[jax.Array], TaskBatch | NumberedTasks],
    inner: InnerLoop,
    optimizer: optax.GradientTransformation,
    *,
    steps: int,
    method: str | None = None,
    rates=None,
    learn_rates: bool = False,
    outer_loss: Loss = "half_sum_squares",
    reduce: str | Rule = "sum",
    sequential: bool | None = None,
    key: jax.Array | None = None,
    sampler: str = "auto",
    opt_state=None,
    callback: Callable | None = None,
    progress: bool = False,
    chunk: int | None = None,
    record_every: int = 1,
    checkpoint: str | Path | None = None,
    checkpoint_every: int | None = None,
    identity: str | Mapping[str, str] | None = None,
    on_divergence: str = "raise",
    memory: Memory | LocalMemory | None = None,
    memories=None,
) -> FitResult:
    r"""Run the outer loop.

    .. math:: \theta \leftarrow \theta + \mathrm{optimiser}\big(\nabla_\theta\mathcal{L}(\theta)\big)

    Compiled once for an `apply`, an optimiser (the same object) and the shapes; other numbers of steps, inner rates and
    chunks do not compile anew. For another outer rate without compiling, make the optimiser once by
    `optax.inject_hyperparams` and pass an `opt_state` that holds the rate.

    Args:
        apply, params, inner, rates, outer_loss, sequential: as in `maml.meta_loss`.
        reduce: "sum" or "mean" over tasks, or a rule of `learners.outer_weights`, as in `maml.meta_gradient`: `losses`
            are then the means over tasks, whatever their weights.
        tasks: a batch, the same in each step; or a function `key -> TaskBatch`, called with
            `jax.random.fold_in(key, step)`.
        optimizer: any of optax. With `learn_rates` it gets the tree `{"params": ..., "rates": ...}`.
        steps: outer steps in all, at least 0; a checkpoint's are among them.
        method: "maml", "fomaml" or "anil" set what they need in `inner`; "reptile" takes Reptile's direction for the
            gradient. None and "maml" take `inner` as it is.
        learn_rates: learn one inner rate for each adapted layer, by the same optimiser, from `inner` or `rates`. With a
            `function_space.FunctionSpace`: its gamma and its kernel's hyperparameters, as logarithms. With
            `few_iterations.FewIterations`: what its `numbers` are.
        key: for sampled tasks.
        sampler: "traced" compiles the sampler into the loop; "host" calls it before each step; "auto" finds out.
        opt_state: the optimiser's state to start from; None is a fresh one.
        callback: `callback(step, params, loss)` after each chunk; it stops the loop by returning True or raising
            StopIteration. `loss` is that of the last step taken (before it).
        progress: show a bar.
        chunk: outer steps between callbacks; None chooses about half a second's worth. It never changes the result.
        record_every: keep the loss of each so manieth step.
        checkpoint: a file. If it exists, go on from it, bit for bit as if nothing had happened; it is written on the
            way, at the end, and when the loop is interrupted. It is refused where it was not made by this call. Numbers
            and arrays are compared to the bit. `apply`, a sampler, the optimiser and losses that are functions are
            compared by their names (with those of their modules: one that has moved is another), their constants and
            what they close over; and, but for losses, by what they do at the start, in half of the digits or a third:
            the first batch, the network's outputs on it, the first update. What shows in none of these is not noticed,
            such as a global variable that only later batches or a schedule's later rates depend on: `identity` is for
            that.
        checkpoint_every: outer steps between writes; None means every 10 seconds or so.
        identity: a text that a checkpoint has to be resumed with, or several by name: what only the caller knows, such
            as the version of the data or of the code, or `datasets.fingerprint.described` of a dataset.
        on_divergence: "raise" a `DivergenceError` (its `result` is the result), or "return" the result.
        memory: a `memory.Memory` (MOML): each task's adapted parameters are remembered, and `losses` are those at the
            memories; or a `memory.LocalMemory` (LocalMOML), whose direction takes the place of the gradient: its rate
            is that of the local steps, and an optimiser of rate 1, `optax.sgd(1.0)`, takes the mean of the copies.
        memories: with a `Memory`, those to start from, leaves `[T, ...]`: of `memory.start`, or of a result. A draw
            needs them, and gives `NumberedTasks`. With a fixed batch of all tasks, None starts from their support sets.

    Returns:
        A `FitResult`. If the loss becomes non-finite, its `params` are the last ones with a finite loss.

    Raises:
        InputError: a bad setting; a checkpoint that is damaged or belongs to other settings (it says which).
        DivergenceError: a non-finite loss; it says the step and the likely cause.

    Example:
        >>> from mlkernels import networks, tasks
        >>> batch = tasks.sinusoid(tasks=3, support=4, queries=5, key=jax.random.key(0))
        >>> network = networks.MLP(width=16)
        >>> params = network.init(jax.random.key(1), (1,))
        >>> result = fit(network.apply, params, batch, InnerLoop(0.01, 3), optax.adam(1e-2), steps=20)
        >>> result.steps_done, len(result.losses), bool(result.losses[-1] < result.losses[0])
        (20, 20, True)

    Source: Finn et al. 2017; notebooks/02_maml_linear_rate.
    """
    steps, record_every = whole("steps", steps), whole("record_every", record_every, 1)
    chunk = None if chunk is None else whole("chunk", chunk, 1)
    checkpoint_every = None if checkpoint_every is None else whole("checkpoint_every", checkpoint_every, 1)
    identities = {} if identity is None else identity if isinstance(identity, Mapping) else {"given": identity}
    if not all(isinstance(part, str) for pair in identities.items() for part in pair):
        raise bad_input("identity", "a text, or several by name", identity, "say it in words, as str(...)")
    if method is not None:
        one_of("method", method, METHODS)
    if method not in (None, "maml", "reptile", "anil") and isinstance(inner, ImplicitLoop):
        do = "leave it out: its gradient is first-order and exact"
        raise bad_input("method", "None, maml, anil or reptile with ImplicitLoop", repr(method), do)
    if method not in (None, "maml") and not isinstance(inner, InnerLoop):
        raise bad_input(
            "method", f"None with {type(inner).__name__}", repr(method), "leave it out, or use an InnerLoop"
        )
    if method == "reptile" and learn_rates:
        raise bad_input("learn_rates", "False with Reptile", True, "choose a method with a gradient by rates")
    check_memory(memory, memories, inner, method, reduce, learn_rates)
    check_reduce(reduce, rules=method != "reptile")
    if method == "anil" and inner.adapt == "all":
        inner = replace(inner, adapt=("head",))
    if method == "fomaml":
        inner = replace(inner, first_order=True)
    if on_divergence not in ("raise", "return"):
        raise bad_input("on_divergence", "'raise' or 'return'", repr(on_divergence), "name one of them")
    if not hasattr(optimizer, "update"):
        raise bad_input("optimizer", "an optax optimiser", type(optimizer).__name__, "make one, as optax.sgd(0.1)")
    draw = tasks if callable(tasks) and not isinstance(tasks, TaskBatch | NumberedTasks) else None
    if draw is not None and key is None:
        raise bad_input("key", "a JAX key for sampled tasks", None, "pass key=jax.random.key(seed)")
    key = jax.random.key(0) if key is None else key

    def tasks_of(step):
        return tasks if draw is None else draw(jax.random.fold_in(key, step))

    first, numbers = parted(tasks_of(0))
    how = outer_loss, reduce, sequential, learn_rates
    problem, rates = problem_of(apply, params, first, inner, rates, *how, rules=True)
    if not _finite(first):
        raise bad_input("tasks", "finite numbers", "infinities or NaN", "look at the data and how it is normalised")
    if not _finite((params, rates if isinstance(inner, InnerLoop) else ())):  # a time may be infinite
        raise bad_input("params", "finite numbers", "infinities or NaN", "start from freshly drawn parameters")

    if isinstance(memory, Memory):
        memories = started(problem, params, rates, first, numbers, draw is not None, memories)
    elif memory is not None:
        local.check_points(first, memory)
    gradient = value_and_direction if method == "reptile" else value_and_gradient
    loop = OuterLoop(problem, gradient, optimizer, draw if _traceable(draw, key, sampler) else None, memory)
    trained = _arrays(problem.trained(params, rates))
    opt_state = _arrays(optimizer.init(trained) if opt_state is None else opt_state)
    kept = () if memories is None else _arrays(memories)
    state = State(trained, opt_state, jnp.zeros((), int), jnp.ones((), bool), (trained, opt_state, kept), kept)

    path, about, losses = None, {}, np.zeros(0)
    if checkpoint is not None:
        path = Path(checkpoint)
        checkpoints.check_room(path, state)
        apart = ["rate"] if isinstance(inner, InnerLoop) else [*inner.numbers]  # what stands under "rates"
        apart = ["gamma"] if isinstance(inner, FunctionSpace) else apart
        kind = {} if type(inner) is InnerLoop else {"inner": type(inner).__name__}
        texts = kind | {f"inner.{f.name}": getattr(problem.inner, f.name) for f in fields(inner) if f.name not in apart}
        texts |= {
            "rates": checkpoints.readable(rates),
            "method": method,
            "learn_rates": learn_rates,
            "outer_loss": outer_loss,
            "reduce": reduce,
            "sequential": problem.sequential,
            "apply": apply,
            "optimizer": checkpoints.describe(optimizer),
            "params": checkpoints.digest(params),
            "opt_state": checkpoints.digest(opt_state),
            "tasks": checkpoints.digest(tasks) if draw is None else draw,
            "key": checkpoints.describe(key) if draw is not None else "none",
        }
        if memory is not None:
            texts |= {"memory": checkpoints.describe(memory), "memories": checkpoints.digest(kept)}
        texts |= {f"identity.{name}": text for name, text in identities.items()}
        settings = {name: checkpoints.describe(x) if callable(x) else str(x) for name, x in texts.items()}
        about = {"settings": settings, "seen": probe(apply, params, first, optimizer, opt_state, trained)}
        if isinstance(memory, Memory):
            about["seen"]["numbers of the first batch"] = checkpoints.sketch(numbers)
        state, losses = checkpoints.load(path, state, **about) or (state, losses)
        if int(state.step) > steps:
            do = "ask for as many or more, or use another path"
            raise bad_input("steps", f"at least {int(state.step)}, as in checkpoint {path}", steps, do)

    def advance(state, losses, count):
        before, new = int(state.step), jnp.zeros(_SIZE, float)
        if draw is None or loop.draw is not None:
            state, new = outer_steps(loop, state, rates, tasks if draw is None else None, key, new, 0, count)
        else:  # the sampler is called here
            for i in range(count):
                state, new = outer_steps(loop, state, rates, tasks_of(before + i), key, new, i, 1)
        taken = int(state.step) - before + (not state.alive)
        return state, np.concatenate([losses, np.asarray(new, float)[:taken]])

    chunks = _chunks(advance, state, losses, steps, chunk, checkpoint_every)
    stopped, saved, saved_at = False, int(state.step), time.monotonic()
    with tqdm(total=steps, initial=saved, unit="step", disable=not progress) as bar:
        try:
            for state, losses in chunks:
                step = int(state.step)
                bar.update(step - bar.n)
                if not state.alive:
                    break
                bar.set_postfix(loss=f"{losses[-1]:.4g}", refresh=False)
                if callback is not None and (not chunk or step % chunk == 0 or step == steps):
                    now = problem.params_and_rates(state.trained, rates)[0]
                    try:
                        stopped = bool(callback(step, now, float(losses[-1])))
                    except StopIteration:
                        stopped = True
                old = time.monotonic() - saved_at
                if path is not None and (step % checkpoint_every == 0 if checkpoint_every else old > _SAVE_SECONDS):
                    checkpoints.save(path, state, losses, **about)
                    saved, saved_at = step, time.monotonic()
                if stopped:
                    break
        finally:  # the end, a stop, an interrupt, an error in the callback
            if path is not None and state.alive and (int(state.step) > saved or not path.exists()):
                checkpoints.save(path, state, losses, **about)

    (trained, opt_state), kept, step = state[:2], state.memories, int(state.step)
    loss = None if state.alive else float(losses[-1])
    done = step
    if not state.alive and not np.isfinite(loss):  # else the loss was finite, and no finite step came of it
        (trained, opt_state, kept), done, losses = state.previous, max(step - 1, 0), losses[:-1]
    last = problem.params_and_rates(trained, rates)
    kept = kept if isinstance(memory, Memory) else None
    result = FitResult(*last, opt_state, losses[::record_every], done, None, stopped, kept)
    if state.alive:
        return result
    failed = problem.params_and_rates(state.trained, rates)
    batch, numbers = parted(tasks_of(step))
    diverged = unknown(numbers, kept, step, loss) if isinstance(memory, Memory) else None
    moving = "local rate" if isinstance(memory, LocalMemory) else "outer rate"
    diverged = diverged or explain(problem, (params, rates), last, batch, step, loss, failed, moving=moving)
    result = replace(result, diverged=diverged)
    if on_divergence == "return":
        return result
    message = bad_input("fit", "a finite loss", f"{loss:.4g} at outer step {step}", diverged.cause)
    raise DivergenceError(f"{message} (the last finite state is in this error's .result)", result)


def _chunks(advance: Callable, state: State, losses, steps: int, chunk: int | None, save_every: int | None):
    """The state and all losses after each chunk, up to `steps` or to the first loss that is not finite.

    `advance(state, losses, count)` takes `count` steps, or fewer where a loss is not finite.
    """
    count, timed = 1, False
    while (step := int(state.step)) < steps and state.alive:
        ends = [steps, step + (_SIZE if chunk else count)]
        ends += [step - step % every + every for every in (chunk, save_every) if every]
        began = time.monotonic()
        state, losses = advance(state, losses, min(ends) - step)
        if timed:  # the first call compiled
            rate = (int(state.step) - step) / (time.monotonic() - began)
            count = max(1, min(_SIZE, 8 * count, int(_CHUNK_SECONDS * rate)))
        timed = True
        yield state, losses


def _traceable(draw: Callable | None, key, sampler: str) -> bool:
    """Whether a sampler is compiled into the loop: as `sampler` says, or for "auto" if it traces and uses its key."""
    if sampler not in ("auto", "traced", "host"):
        raise bad_input("sampler", "'auto', 'traced' or 'host'", repr(sampler), "name one of them")
    if draw is None or sampler != "auto":
        return draw is not None and sampler == "traced"
    try:
        hash(draw)
        jaxpr = jax.make_jaxpr(draw)(key).jaxpr
    except Exception:  # whatever a sampler that needs real numbers raises when it gets none
        return False
    used = {id(v) for equation in jaxpr.eqns for v in equation.invars}
    return id(jaxpr.invars[0]) in used  # else its result would be compiled in as a constant


def _finite(tree) -> bool:
    return all(bool(np.isfinite(np.asarray(leaf)).all()) for leaf in jax.tree.leaves(tree))


def _arrays(tree):
    """Copies as arrays of a definite type, so that the second chunk finds the types of the first."""
    return jax.tree.map(lambda leaf: jnp.array(leaf, dtype=jnp.result_type(leaf)), tree)
