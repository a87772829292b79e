"""The outer loop: many steps of any optimiser in one compiled chunk, with progress, checkpoints and a way to stop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mlkernels.errors import bad_input
from mlkernels.inner_loop.settings import InnerLoop, form, per_layer, rates_for
from mlkernels.learners.meta_gradient import check_batch, check_reduce, in_sequence
from mlkernels.learners.outer_loop import checkpoint as checkpoints
from mlkernels.learners.outer_loop.divergence import Divergence, DivergenceError, explain
from mlkernels.learners.outer_loop.loop import Loop
from mlkernels.learners.outer_loop.probe import probe
from mlkernels.learners.outer_loop.steps import Plan, State, traceable
from mlkernels.support.arguments import one_of, whole
from mlkernels.tasks import TaskBatch

METHODS = ("maml", "fomaml", "anil", "reptile")


@dataclass(frozen=True, eq=False)
class FitResult:
    """What `fit` returns.

    Args:
        params: the parameters after `steps_done` steps: always finite.
        rates: the inner rates, learned or as given: a scalar or a dictionary layer -> scalar.
        opt_state: the optimiser's state, to go on from.
        losses: float `[recorded]`, the outer loss before the steps 0, record_every, 2 record_every, ...
        steps_done: outer steps in `params`.
        diverged: None, or why the loss became non-finite.
        stopped: whether the callback stopped it.
    """

    params: Any
    rates: Any
    opt_state: Any
    losses: np.ndarray
    steps_done: int
    diverged: Divergence | None = None
    stopped: bool = False


def _method(method: str | None, inner: InnerLoop, learn_rates: bool) -> InnerLoop:
    if method is not None:
        one_of("method", method, METHODS)
    if method == "reptile" and learn_rates:
        raise bad_input("learn_rates", "False with Reptile", True, "choose a method with a gradient by rates")
    if method == "anil" and inner.adapt == "all":
        return replace(inner, adapt=("head",))
    return replace(inner, first_order=True) if method == "fomaml" else inner


def _identity(given) -> dict[str, str]:
    """Texts by name; one alone is called "given"."""
    texts = {} if given is None else dict(given) if isinstance(given, Mapping) else {"given": given}
    if not all(isinstance(part, str) for pair in texts.items() for part in pair):
        raise bad_input("identity", "a text, or several by name", given, "say it in words, as str(...)")
    return texts


def _finite(tree) -> bool:
    return all(bool(np.isfinite(np.asarray(leaf)).all()) for leaf in jax.tree.leaves(tree))


def _numbers(tree):
    """Copies as arrays of a definite type, so that the second chunk finds the types of the first."""
    return jax.tree.map(lambda leaf: jnp.array(leaf, dtype=jnp.result_type(leaf)), tree)


def fit(
    apply: Callable,
    params,
    tasks: TaskBatch | Callable[[jax.Array], TaskBatch],
    inner: InnerLoop,
    optimizer: optax.GradientTransformation,
    *,
    steps: int,
    method: str | None = None,
    rates=None,
    learn_rates: bool = False,
    outer_loss: str = "half_sum_squares",
    reduce: str = "sum",
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
) -> FitResult:
    r"""Run the outer loop.

    .. math:: \theta \leftarrow \theta + \mathrm{optimiser}\big(\nabla_\theta\mathcal{L}(\theta)\big)

    Compiled once for an `apply`, an optimiser (the same object) and the shapes; other numbers of steps, inner rates and
    chunks do not compile anew. For another outer rate without compiling, make the optimiser once by
    `optax.inject_hyperparams` and pass an `opt_state` that holds the rate.

    Args:
        apply, params, inner, rates, outer_loss, reduce, sequential: as in `maml.meta_loss`.
        tasks: a batch, the same in each step; or a function `key -> TaskBatch`, called with
            `jax.random.fold_in(key, step)`.
        optimizer: any of optax. With `learn_rates` it gets the tree `{"params": ..., "rates": ...}`.
        steps: outer steps in all, at least 0; a checkpoint's are among them.
        method: "maml", "fomaml" or "anil" set what they need in `inner`; "reptile" takes Reptile's direction for the
            gradient. None and "maml" take `inner` as it is.
        learn_rates: learn one inner rate for each adapted layer, by the same optimiser, from `inner` or `rates`.
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
            and arrays are compared to the bit. `apply`, a sampler and the optimiser are compared by their names, their
            constants and what they close over, and by what they do at the start, in half of the digits or a third: the
            first batch, the network's outputs on it, the first update. What shows in none of these is not noticed, such
            as a global variable that only later batches or a schedule's later rates depend on: `identity` is for that.
        checkpoint_every: outer steps between writes; None means every 10 seconds or so.
        identity: a text that a checkpoint has to be resumed with, or several by name: what only the caller knows, such
            as the version of the data or of the code, or `datasets.fingerprint.described` of a dataset.
        on_divergence: "raise" a `DivergenceError` (its `result` is the result), or "return" the result.

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
    identity = _identity(identity)
    inner = _method(method, inner, learn_rates)
    check_reduce(reduce)
    if on_divergence not in ("raise", "return"):
        raise bad_input("on_divergence", "'raise' or 'return'", repr(on_divergence), "name one of them")
    if not hasattr(optimizer, "update"):
        raise bad_input("optimizer", "an optax optimiser", type(optimizer).__name__, "make one, as optax.sgd(0.1)")

    if learn_rates and rates is None:
        rates = per_layer(params, inner)
    rates = rates_for(params, inner, rates)
    draw = None
    if callable(tasks) and not isinstance(tasks, TaskBatch):
        if key is None:
            raise bad_input("key", "a JAX key for sampled tasks", None, "pass key=jax.random.key(seed)")
        draw = tasks
    key = jax.random.key(0) if key is None else key
    first = tasks if draw is None else draw(jax.random.fold_in(key, 0))
    check_batch(first, inner, outer_loss)
    if not _finite(first):
        raise bad_input("tasks", "finite numbers", "infinities or NaN", "look at the data and how it is normalised")
    if not _finite((params, rates)):
        raise bad_input("params", "finite numbers", "infinities or NaN", "start from freshly drawn parameters")
    traced = traceable(draw, key, sampler)
    plan = Plan(
        apply, form(inner), optimizer, method == "reptile", learn_rates, outer_loss, reduce,
        in_sequence(params) if sequential is None else bool(sequential), draw if traced else None,
    )  # fmt: skip
    trained = _numbers({"params": params, "rates": rates} if learn_rates else {"params": params})
    begun = plan.tree(trained)
    opt_state = _numbers(optimizer.init(begun) if opt_state is None else opt_state)
    zero = jnp.zeros((), int)
    state = State(trained, opt_state, zero, jnp.ones((), bool), (trained, opt_state))

    about, path, kept = {}, None, np.zeros(0)
    if checkpoint is not None:
        path = Path(checkpoint)
        settings = {f"inner.{f.name}": str(getattr(inner, f.name)) for f in fields(inner) if f.name != "rate"} | {
            "rates": checkpoints.readable(rates),
            "method": str(method),
            "learn_rates": str(learn_rates),
            "outer_loss": outer_loss,
            "reduce": reduce,
            "sequential": str(plan.sequential),
            "network": checkpoints.describe(apply),
            "optimizer": checkpoints.describe(optimizer),
            "params": checkpoints.digest(params),
            "opt_state": checkpoints.digest(opt_state),
            "tasks": checkpoints.digest(tasks) if draw is None else checkpoints.describe(draw),
            "key": checkpoints.describe(key) if draw is not None else "none",
        }
        settings |= {f"identity.{name}": text for name, text in identity.items()}
        seen = probe(apply, params, first, optimizer, opt_state, begun)
        about = {"settings": settings, "seen": seen}
        if (found := checkpoints.load(path, state, **about)) is not None:
            state, kept = found
            if int(state.step) > steps:
                do = "ask for as many or more, or use another path"
                raise bad_input("steps", f"at least {int(state.step)}, as in checkpoint {path}", steps, do)

    loop = Loop(plan, state, kept, first if draw is None else None, draw, key, rates)
    stopped = loop.run(steps, chunk, callback, progress, path, checkpoint_every, about)
    trained, opt_state, done, losses, failure = loop.outcome()
    result = FitResult(
        trained["params"], trained.get("rates", rates), opt_state, losses[::record_every], done, None, stopped
    )
    if failure is None:
        return result
    step, loss = failure
    at = first if draw is None else draw(jax.random.fold_in(key, step))
    last = trained["params"], trained.get("rates", rates)
    diverged = explain(apply, (params, rates), last, at, inner, step, loss)
    result = replace(result, diverged=diverged)
    if on_divergence == "return":
        return result
    message = bad_input("fit", "a finite loss", f"{loss:.4g} at outer step {step}", diverged.cause)
    raise DivergenceError(f"{message} (the last finite state is in this error's .result)", result)
