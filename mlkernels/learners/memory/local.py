"""LocalMOML: several steps of each task on a copy of its own, and the mean of the copies."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax

from mlkernels.errors import bad_input
from mlkernels.inner_loop.descent import adapted, gradient_step
from mlkernels.inner_loop.losses import Loss, loss_of
from mlkernels.learners.memory.settings import LocalMemory, moved, share
from mlkernels.learners.meta_gradient import add_up, mean_or_sum
from mlkernels.learners.problem import Problem, check_inner_loop, problem_of
from mlkernels.support.arguments import number
from mlkernels.support.array_arguments import known_or_traced
from mlkernels.tasks import NumberedTasks, TaskBatch
from mlkernels.tasks.populations import parted


def of_task(problem: Problem, sizes: tuple[int, int], beta, rate, params, rates, task: TaskBatch):
    """One task's losses at its memory, before each local step `[H]`, and its copy after them; `sizes` is (H, K0)."""
    steps, first = sizes

    def pieces(leaf):
        return leaf.reshape(steps, -1, *leaf.shape[1:])

    x, y = task.support_x, task.support_y
    u = adapted(problem.apply, params, rates, x[:first], y[:first], problem.inner)

    def step(carry, piece):
        w, u = carry
        support_x, support_y, query_x, query_y = piece

        def loss(w):
            fresh = adapted(problem.apply, w, rates, support_x, support_y, problem.inner)
            new = moved(beta, u, fresh)
            return loss_of(problem.outer_loss, problem.apply(new, query_x), query_y), new

        (value, u), gradient = jax.value_and_grad(loss, has_aux=True)(w)
        return (gradient_step(w, rate, gradient), u), value

    parts = [pieces(leaf) for leaf in (x[first:], y[first:], task.query_x, task.query_y)]
    (w, _), losses = jax.lax.scan(step, (params, u), parts)
    return losses, w


def direction(problem: Problem, sizes: tuple[int, int], beta, rate, params, rates, tasks: TaskBatch):
    """The outer loss of the first local steps, and the mean way back from the copies."""

    def one(task):
        losses, w = of_task(problem, sizes, beta, rate, params, rates, task)
        return losses[0], jax.tree.map(lambda p, q: (p - q) / tasks.tasks, params, w)

    loss, way = add_up(one, tasks, problem.sequential)
    return mean_or_sum(problem, loss, tasks), way


def copies(problem: Problem, sizes: tuple[int, int], beta, rate, params, rates, tasks: TaskBatch):
    """The losses `[B, H]` and the copies of all tasks."""
    one = partial(of_task, problem, sizes, beta, rate, params, rates)
    return jax.lax.map(one, tasks) if problem.sequential else jax.vmap(one)(tasks)


_direction, _copies = (jax.jit(function, static_argnums=(0, 1)) for function in (direction, copies))


def local_copies(
    apply: Callable,
    params,
    tasks: TaskBatch | NumberedTasks,
    inner,
    local: LocalMemory,
    *,
    beta=None,
    rate=None,
    rates=None,
    outer_loss: Loss = "half_sum_squares",
    sequential: bool | None = None,
):
    r"""What each task's local steps make of the parameters: `LocalMemory` says how.

    .. math:: w_i^H, \qquad \ell\big(u_i^1; Q^1\big), \dots, \ell\big(u_i^H; Q^H\big)

    Neither beta nor the rates compile anew.

    Args:
        apply, params, inner, rates, outer_loss, sequential: as in `maml.meta_loss`; `inner` an `InnerLoop`.
        tasks: B tasks of K0 + H K support points and H Q queries; their numbers do not enter.
        local: the settings.
        beta, rate: instead of `local.beta` and `local.rate`: numbers that may be traced. A schedule is taken at 0.

    Returns:
        `(losses, copies)`: `[B, H]`, each before the local step that it is made for; and a pytree with leaves
        `[B, ...]`.

    Raises:
        InputError: points that cannot be shared among the local steps; as `maml.meta_loss`.

    Example:
        >>> import jax
        >>> from mlkernels import networks, tasks
        >>> from mlkernels.learners.maml import InnerLoop
        >>> network, inner = networks.MLP(16), InnerLoop(0.01, 1, loss="mean_squares")
        >>> batch = tasks.sinusoid(tasks=3, support=2 + 5, queries=5, key=jax.random.key(0))
        >>> params = network.init(jax.random.key(1), (1,))
        >>> losses, copies = local_copies(network.apply, params, batch, inner, LocalMemory(0.3, rate=0.005))
        >>> losses.shape, copies["head"]["w"].shape
        ((3, 5), (3, 16, 1))

    Source: Wang et al. 2023 (LocalMOML), the authors' public code; notebooks/08_more_steps_fewer_samples.
    """
    given = _prepared(apply, params, tasks, inner, local, beta, rate, rates, outer_loss, "sum", sequential)
    return _copies(*given)


def local_direction(
    apply: Callable,
    params,
    tasks: TaskBatch | NumberedTasks,
    inner,
    local: LocalMemory,
    *,
    beta=None,
    rate=None,
    rates=None,
    outer_loss: Loss = "half_sum_squares",
    reduce: str = "sum",
    sequential: bool | None = None,
):
    r"""LocalMOML's pseudo-gradient, for any optimiser: the mean way back from the tasks' copies.

    .. math:: \frac1B \sum_i (\theta - w_i^H)

    Gradient descent at rate 1 goes to the mean of the copies. With H = 1 and beta = 1 it is eta times MAML's gradient,
    averaged over tasks.

    Args:
        apply, params, tasks, inner, local, beta, rate, rates, outer_loss, sequential: as in `local_copies`.
        reduce: "sum" or "mean" over tasks, of the loss alone.

    Returns:
        `(loss, direction)`: the loss of the first local steps; and a pytree like `params`.

    Raises:
        InputError: as `local_copies`.

    Example:
        >>> import jax
        >>> from mlkernels import networks, tasks
        >>> from mlkernels.learners.maml import InnerLoop
        >>> network, inner = networks.MLP(16), InnerLoop(0.01, 1, loss="mean_squares")
        >>> batch = tasks.sinusoid(tasks=3, support=2 + 5, queries=5, key=jax.random.key(0))
        >>> params = network.init(jax.random.key(1), (1,))
        >>> loss, direction = local_direction(network.apply, params, batch, inner, LocalMemory(0.3, rate=0.005))
        >>> loss.shape, sorted(direction)
        ((), ['head', 'layer1', 'layer2'])

    Source: Wang et al. 2023 (LocalMOML), the authors' public code; notebooks/08_more_steps_fewer_samples.
    """
    return _direction(*_prepared(apply, params, tasks, inner, local, beta, rate, rates, outer_loss, reduce, sequential))


def _prepared(apply, params, tasks, inner, local, beta, rate, rates, outer_loss, reduce, sequential) -> tuple:
    """The arguments of `copies` and `direction`, checked."""
    check_inner_loop(inner, implicit=True)
    if not isinstance(local, LocalMemory):
        do = "make one, as memory.LocalMemory(0.3, rate=0.005)"
        raise bad_input("local", "a LocalMemory", type(local).__name__, do)
    batch = parted(tasks)[0]
    problem, rates = problem_of(apply, params, batch, inner, rates, outer_loss, reduce, sequential)
    check_points(batch, local)
    beta = local.beta if beta is None else known_or_traced("beta", beta, share)
    rate = local.rate_at(0) if rate is None else known_or_traced("rate", rate, partial(number, "rate"))
    return problem, sizes(local), beta, rate, params, rates, batch


def sizes(local: LocalMemory) -> tuple[int, int]:
    """What of the settings is compiled in, whatever the numbers are."""
    return local.steps, local.start


def check_points(tasks: TaskBatch, local: LocalMemory) -> None:
    """Refuse sets that cannot be shared among the local steps."""
    H, do = local.steps, "draw K0 + H K support points and H Q queries"
    left = tasks.support - local.start
    if left < 1 or left % H:
        expected = f"{local.start} support points and a multiple of {H} more"
        raise bad_input("tasks", expected, tasks.support, do)
    if tasks.queries % H:
        raise bad_input("tasks", f"queries that are a multiple of {H}", tasks.queries, do)
