"""Chunk after chunk: how long each is, what is told and saved between them, and what is left at the end."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from mlkernels.learners.outer_loop import checkpoint
from mlkernels.learners.outer_loop.steps import SIZE, Plan, State, run_chunk

_CHUNK_SECONDS = 0.5  # between callbacks, where nobody says: quick enough to be stopped
_SAVE_SECONDS = 10.0  # between checkpoints, where nobody says


class Loop:
    """The host's side of `fit`.

    Args:
        plan, state: of the compiled loop.
        losses: those of the steps already taken.
        tasks: the batch, or None.
        draw: the sampler, or None.
        key: for the sampler.
        rates: of the inner loop.
    """

    def __init__(self, plan: Plan, state: State, losses: np.ndarray, tasks, draw: Callable | None, key, rates):
        self.plan, self.state, self.losses = plan, state, losses
        self.tasks, self.key, self.rates = tasks, key, rates
        self.draw = draw if plan.draw is None else None  # on the host, that is
        self.step = int(state.step)

    def advance(self, count: int) -> None:
        """Take `count` steps, at most `SIZE`; fewer if a loss is not finite."""
        losses, state = jnp.zeros(SIZE, float), self.state
        if self.draw is None:
            state, losses = run_chunk(self.plan, state, self.rates, self.tasks, self.key, losses, 0, count)
        else:
            for i in range(count):
                batch = self.draw(jax.random.fold_in(self.key, self.step + i))
                state, losses = run_chunk(self.plan, state, self.rates, batch, self.key, losses, i, 1)
        step, alive = int(state.step), bool(state.alive)
        taken = step - self.step + (not alive)
        self.losses = np.concatenate([self.losses, np.asarray(losses, float)[:taken]])
        self.state, self.step = state, step

    def run(
        self,
        steps: int,
        chunk: int | None,
        callback: Callable | None,
        progress: bool,
        path: Path | None,
        save_every: int | None,
        about: dict,
    ) -> bool:
        """Go to `steps`; arguments are `fit`'s, `about` is what a checkpoint says. Returns whether it was stopped."""
        from tqdm import tqdm

        count, saved, saved_at, timed = 1, self.step, time.monotonic(), False
        stopped = False
        with tqdm(total=steps, initial=self.step, unit="step", disable=not progress) as bar:
            try:
                while self.step < steps and bool(self.state.alive) and not stopped:
                    ends = [steps, self.step + (SIZE if chunk else count)]
                    ends += [self.step - self.step % every + every for every in (chunk, save_every) if every]
                    before, began = self.step, time.monotonic()
                    self.advance(min(ends) - before)
                    elapsed = time.monotonic() - began
                    if timed:  # the first call compiled
                        count = max(1, min(SIZE, 8 * count, int(_CHUNK_SECONDS * (self.step - before) / elapsed)))
                    timed = True
                    bar.update(self.step - before)
                    if not bool(self.state.alive):
                        break
                    bar.set_postfix(loss=f"{self.losses[-1]:.4g}", refresh=False)
                    if callback is not None and (not chunk or self.step % chunk == 0 or self.step == steps):
                        stopped = self._tell(callback)
                    due = self.step % save_every == 0 if save_every else time.monotonic() - saved_at > _SAVE_SECONDS
                    if path is not None and due:
                        self._save(path, about)
                        saved, saved_at = self.step, time.monotonic()
            finally:  # the end, a stop, an interrupt, an error in the callback
                if path is not None and bool(self.state.alive) and (self.step > saved or not path.exists()):
                    self._save(path, about)
        return stopped

    def _tell(self, callback: Callable) -> bool:
        try:
            return bool(callback(self.step, self.state.trained["params"], float(self.losses[-1])))
        except StopIteration:
            return True

    def _save(self, path: Path, about: dict) -> None:
        checkpoint.save(path, self.state, self.losses, **about)

    def outcome(self):
        """`(trained, opt_state, steps done, finite losses, failure)`, failure None or `(step, loss)`."""
        state = self.state
        if bool(state.alive):
            return state.trained, state.opt_state, self.step, self.losses, None
        loss = float(self.losses[-1])
        if np.isfinite(loss):  # of which no finite step came
            return state.trained, state.opt_state, self.step, self.losses, (self.step, loss)
        return *state.previous, max(self.step - 1, 0), self.losses[:-1], (self.step, loss)
