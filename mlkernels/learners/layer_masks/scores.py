"""How well tasks are solved after each inner step under many masks: one program for all of them."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Integer

from mlkernels.errors import bad_input
from mlkernels.inner_loop.descent import gradient_step
from mlkernels.inner_loop.losses import Loss, check_loss, loss_of, support_loss
from mlkernels.inner_loop.settings import InnerLoop
from mlkernels.learners.layer_masks.masks import check_adapts_all, check_layers, layers_in_order, of_each_step
from mlkernels.learners.problem import problem_of
from mlkernels.support.typed import typed
from mlkernels.tasks import TaskBatch


def _score_of(score: Loss, outputs: Array, labels: Array) -> Array:
    if score != "accuracy":
        return loss_of(score, outputs, labels)
    right = (outputs.argmax(-1) == labels.argmax(-1)) & jnp.isfinite(outputs).all(-1)  # NaN is right about nothing
    return right.mean(dtype=outputs.dtype)


@partial(jax.jit, static_argnums=(0, 1, 2, 3, 4))
def _scores(apply, layers, inner: InnerLoop, score: Loss, sequential: bool, params, rates, tasks, masks) -> Array:
    def one(mask, task):
        support = support_loss(apply, inner.loss, inner.l2, task.support_x, task.support_y)

        def judged(theta):
            return _score_of(score, apply(theta, task.query_x), task.query_y)

        def step(theta, updated):
            moved = gradient_step(theta, rates, jax.grad(support)(theta, {}))
            # chosen, not multiplied by 0: a frozen layer stays as it is where its gradient is infinite
            chosen = {
                name: jax.tree.map(partial(jnp.where, on), moved[name], theta[name])
                for name, on in zip(layers, updated, strict=True)
            }
            return chosen, judged(chosen)

        _, after = jax.lax.scan(step, params, mask)
        return jnp.concatenate([judged(params)[None], after])

    def of_mask(mask):
        if sequential:
            return jax.lax.map(partial(one, mask), tasks)
        return jax.vmap(partial(one, mask))(tasks)

    return jax.lax.map(of_mask, masks).swapaxes(1, 2)


@typed
def scores(
    network,
    params,
    tasks: TaskBatch,
    inner: InnerLoop,
    masks: Bool[ArrayLike, "M *S L"] | Integer[ArrayLike, "M *S L"],
    *,
    score: Loss = "accuracy",
    rates=None,
    sequential: bool | None = None,
) -> Float[Array, "M points B"]:
    r"""The accuracy or loss on the queries after each inner step, under each mask.

    .. math:: \theta_{s+1} = \theta_s - \lambda\, m_s \odot \nabla_\theta L_S(\theta_s)

    with :math:`m_s` 1 for the layers that the mask updates in step s and 0 for the others. Under one mask for all steps
    that is `maml.adapt` with `InnerLoop(..., adapt=layers_of(network, mask))`, or with rates of 0 for the others. The
    masks are traced, so one program, compiled once, runs them all, one after the other; it computes all gradients for
    each of them, so its time says nothing of theirs.

    Args:
        network: an `MLP` or a `Conv4`: it has `layers`, first to last, and `apply`.
        params: its parameters, trained by any learner.
        tasks: B tasks that it has not seen.
        inner: the inner loop; its `adapt` is "all", for the masks say what adapts.
        masks: bool `[M, L]`, for `inner.steps` steps, or `[M, S, L]`, which say how many steps there are.
        score: "accuracy" (of the largest output, against the largest label; a point whose outputs are not finite is
            wrong), or a loss as in `maml.meta_loss`.
        rates: instead of `inner.rate`, as in `maml.adapt`.
        sequential: as in `maml.meta_loss`.

    Returns:
        `[M, steps + 1, B]`: after 0, 1, ... steps.

    Raises:
        InputError: masks, layers or rates that do not fit; a loss that does not fit the labels.

    Example:
        >>> from mlkernels import networks, tasks
        >>> from mlkernels.learners.layer_masks import all_masks
        >>> network, batch = networks.MLP(16), tasks.sinusoid(tasks=3, support=4, queries=5, key=jax.random.key(0))
        >>> params = network.init(jax.random.key(1), (1,))
        >>> scores(network, params, batch, InnerLoop(0.01, 10), all_masks(3), score="mean_squares").shape
        (8, 11, 3)

    Source: Khabarlak 2022 (Lambda patterns; the abstract alone is known to us); notebooks/07_which_weights_adapt.
    """
    layers = layers_in_order(network)
    check_adapts_all(inner)
    if score != "accuracy":
        check_loss(score, "score")
    outer = "half_sum_squares" if score == "accuracy" else score  # which any labels suit
    problem, rates = problem_of(network.apply, params, tasks, inner, rates, outer, sequential=sequential)
    if score == "accuracy" and tasks.outputs < 2:
        raise bad_input("score", "a loss for tasks of one output", "accuracy", 'take score="mean_squares"')
    check_layers(params, layers)
    masks = of_each_step(masks, len(layers), inner.steps)
    inner = replace(problem.inner, steps=0)  # which the masks say
    return _scores(problem.apply, layers, inner, score, problem.sequential, params, rates, tasks, jnp.asarray(masks))
