"""A training run that is measured on the way and goes on after a kill: losses, measurements and its clock."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import optax

from mlkernels.errors import bad_input
from mlkernels.inner_loop.settings import InnerLoop
from mlkernels.learners.outer_loop.checkpoint import losses_of
from mlkernels.learners.outer_loop.fit import FitResult, fit
from mlkernels.support import checked
from mlkernels.support.arguments import whole
from mlkernels.support.checked import is_number

_NUMBERS = ("step", "seconds", "value", "loss")


def _check(found: dict) -> None:
    """The form of measurements: each step once, in order, with what was measured there or None."""
    rows = found["rows"]
    steps = [row["step"] for row in rows]
    if not rows or steps != sorted(set(steps)) or not all(type(step) is int and step >= 0 for step in steps):
        raise ValueError(f"measurements at the steps {steps}")
    for row in rows:
        if not is_number(row["seconds"], 0) or not is_number(row["loss"] or 0):
            raise ValueError(f"{row['seconds']!r} seconds and the loss {row['loss']!r} at step {row['step']}")
        if row["value"] is not None:
            np.array(row["value"], float)  # "nan" is a text that it takes


_KIND = checked.Kind(
    "measurements of a training",
    format=1,
    check=_check,
    again="call again to measure from the checkpoint on",
    instead="move it away to measure from the checkpoint on, or use another path",
)


class History(NamedTuple):
    """A run and what was measured on the way.

    Args:
        result: what `maml.fit` returned.
        step: int `[k]`: 0, every, 2 every, ... and the last.
        seconds: float `[k]`: of training alone, without compiling and without measuring; over all sessions of the run.
        value: float `[k]`, or `[k, ...]`: what was measured there.
    """

    result: FitResult
    step: np.ndarray
    seconds: np.ndarray
    value: np.ndarray


def fit_and_measure(
    apply: Callable,
    params,
    tasks,
    inner: InnerLoop,
    optimizer: optax.GradientTransformation,
    *,
    steps: int,
    every: int,
    measure: Callable[[Any], Any],
    checkpoint: str | Path | None = None,
    **settings,
) -> History:
    """`maml.fit`, with a measurement each so many steps and, with a checkpoint, no step and no measurement done twice.

    The first call of the compiled step is made beforehand and thrown away, so that the clock does not count compiling.

    Args:
        apply, params, tasks, inner, optimizer, steps: as in `maml.fit`.
        every: outer steps between measurements, 1 to 1024.
        measure: `measure(params)` -> a number, or an array of them; at step 0 too.
        checkpoint: a file for `maml.fit`; the measurements are beside it in `NAME.history.json`, both written at each
            measurement. A run that was killed goes on from the last one; its clock too. `measure` is not looked at:
            what it depends on, such as test images, belongs into `identity` of `maml.fit`.
        **settings: of `maml.fit`.

    Returns:
        `History`: result, step, seconds, value. A run that diverges (with `on_divergence="return"`) has measurements
        up to there.

    Raises:
        InputError: as `maml.fit`; `every` out of range; a damaged file of measurements (it is kept aside).

    Example:
        >>> import jax
        >>> from mlkernels import networks, tasks
        >>> batch = tasks.sinusoid(tasks=3, support=4, queries=5, key=jax.random.key(0))
        >>> network = networks.MLP(width=16)
        >>> params = network.init(jax.random.key(1), (1,))
        >>> size = lambda params: float((params["head"]["w"] ** 2).sum())
        >>> run = fit_and_measure(
        ...     network.apply, params, batch, InnerLoop(0.01, 3), optax.adam(1e-2), steps=20, every=8, measure=size
        ... )
        >>> run.step.tolist(), run.value.shape, run.result.steps_done
        ([0, 8, 16, 20], (4,), 20)

    Source: notebooks/03_anil_inner_loop_geometry.
    """
    steps, every = whole("steps", steps), whole("every", every, 1)
    if every > 1024:
        raise bad_input("every", "at most 1024", every, "measure more often")
    for name in ("callback", "chunk", "checkpoint_every"):
        if name in settings:
            raise bad_input(name, "nothing: it is set by `every` and `measure`", settings[name], "leave it out")
    path = None if checkpoint is None else Path(checkpoint)
    beside = None if path is None else path.with_name(f"{path.name}.history.json")
    losses = np.zeros(0) if path is None else losses_of(path)
    measured = _load(beside, losses, path) if path is not None and path.exists() else {}
    run = partial(fit, apply, params, tasks, inner, optimizer, checkpoint=path)
    fit(apply, params, tasks, inner, optimizer, **{**settings, "steps": min(steps, 1), "on_divergence": "return"})
    if 0 not in measured:
        measured = {0: (0.0, _listed(measure(params)), None)}
    done = len(losses)
    if done in measured and measured[done][1] is None:  # the session before ended while it measured
        seconds, _, loss = measured[done]
        measured[done] = seconds, _listed(measure(run(steps=done, **settings).params)), loss
    measured = {step: row for step, row in measured.items() if row[1] is not None}
    began, spent = time.perf_counter(), max(seconds for seconds, *_ in measured.values())

    def callback(step, params, loss):
        nonlocal began, spent
        spent += time.perf_counter() - began
        for value in (None, measure):  # the clock first: a kill while measuring shall not stop it
            measured[step] = spent, None if value is None else _listed(measure(params)), float(loss)
            if beside is not None:
                _save(beside, measured)
        began = time.perf_counter()

    result = run(steps=steps, chunk=every, checkpoint_every=every, callback=callback, **settings)
    at = sorted(step for step in measured if step <= steps)
    seconds, values, _ = zip(*(measured[step] for step in at), strict=True)
    return History(result, np.array(at), np.array(seconds), np.array(values, float))


def _listed(value):
    return np.asarray(value, float).tolist()


def _save(path: Path, measured: dict) -> None:
    rows = [dict(zip(_NUMBERS, (step, *measured[step]), strict=True)) for step in sorted(measured)]
    checked.write(path, _KIND, {"rows": rows})


def _load(path: Path, losses: np.ndarray, checkpoint: Path) -> dict[int, tuple]:
    """step -> (seconds, value, loss); none where there is no file. Losses are those of the checkpoint, bit for bit."""
    found = checked.read(path, _KIND)
    rows = [] if found is None else found["rows"]
    measured = {row["step"]: tuple(row[name] for name in _NUMBERS[1:]) for row in rows}
    for step, (_, _, loss) in measured.items():
        if 0 < step <= len(losses) and loss != losses[step - 1]:
            expected = f"the measurements of the run in {checkpoint.name}"
            raise bad_input(str(path), expected, "those of another run", _KIND.instead)
    return measured
