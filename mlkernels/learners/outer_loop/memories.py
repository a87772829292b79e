"""What a run of the outer loop asks of memories: that they go with the rest, and with the tasks that are drawn."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from mlkernels.errors import bad_input
from mlkernels.learners.memory import stored
from mlkernels.learners.memory.settings import LocalMemory, Memory
from mlkernels.learners.outer_loop.divergence import Divergence
from mlkernels.learners.outer_weights import Rule
from mlkernels.learners.problem import Problem, check_inner_loop
from mlkernels.tasks import TaskBatch


def check_memory(memory, memories, inner, method, reduce, learn_rates) -> None:
    """Refuse what does not go with a memory; and memories without one."""
    if not isinstance(memory, Memory | LocalMemory | None):
        do = "make one, as memory.Memory(0.3)"
        raise bad_input("memory", "a Memory or a LocalMemory", type(memory).__name__, do)
    if memories is not None and not isinstance(memory, Memory):
        do = "give memory=Memory(...) too, or leave them out"
        raise bad_input("memories", f"none with memory={memory}", "some", do)
    if memory is None:
        return
    check_inner_loop(inner, implicit=True)
    if method == "reptile":
        raise bad_input("method", "None, maml, fomaml or anil with a memory", repr(method), "leave it out")
    if isinstance(reduce, Rule):
        do = "name one of them: the tasks' gradients are not weighed here"
        raise bad_input("reduce", "sum or mean with a memory", reduce, do)
    if learn_rates and isinstance(memory, LocalMemory):
        do = "leave the inner rates as they are: the copies hold parameters alone"
        raise bad_input("learn_rates", "False with a LocalMemory", True, do)


def started(problem: Problem, params, rates, batch: TaskBatch, numbers, drawn: bool, memories):
    """Those of all tasks that a run starts from, which its first batch has to fit."""
    if drawn and numbers is None:
        do = "draw NumberedTasks, as tasks.sinusoid_population does"
        raise bad_input("tasks", "a draw that says which tasks it gives", "a TaskBatch", do)
    if memories is None:
        if drawn or numbers is not None:
            do = "give memory.start(apply, params, all_tasks, inner)"
            raise bad_input("memories", "those of all tasks, as not all are in each batch", None, do)
        memories = stored.all_adapted(problem, params, rates, batch)
    stored.check_memories(memories, params)
    all_of_them = jnp.arange(len(batch)) if numbers is None else numbers
    stored.check_numbers(all_of_them, memories, whole_batch=numbers is None)
    return memories


def unknown(numbers, memories, step: int, loss: float) -> Divergence | None:
    """Why the loss is NaN, if the tasks' numbers are it."""
    total = len(jax.tree.leaves(memories)[0])
    fault = None if numbers is None else stored.beyond(numbers, total)
    if fault is None:
        return None
    cause = f"the tasks of this step have the numbers {fault}, and there are memories of 0 to {total - 1} alone"
    return Divergence(step, loss, "tasks", cause, None, None)
