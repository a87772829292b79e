"""The function-space solution: what a meta-trained wide network predicts."""

from __future__ import annotations

import math

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from mlkernels.metantk.composite import KernelFn, adapted_outputs, analytic_metantk
from mlkernels.metantk.operator import adaptation_operator, check_loop, float64
from mlkernels.support.typed import typed
from mlkernels.tasks import TaskBatch


@typed
def predict(
    tasks: TaskBatch,
    new_tasks: TaskBatch,
    ntk: KernelFn,
    *,
    inner_kernel: KernelFn | None = None,
    inner_rate,
    inner_steps,
    outer_rate=1.0,
    outer_steps=math.inf,
    flow: bool = False,
    outer_flow: bool = True,
    ridge=0.0,
    outer_ridge=0.0,
    initial: tuple[Array, Array] | None = None,
) -> Float[Array, "B n k"]:
    r"""What a meta-trained wide network predicts, after t outer steps, on training or on held-out tasks.

    .. math:: F_t(X) = F_0(X) + \Phi(X, \mathrm{tr})\ \Phi_{\mathrm{tr}}^{-1}
              \big(I - e^{-\eta t \Phi_{\mathrm{tr}}}\big)\ (Y_{\mathrm{tr}} - F_{0,\mathrm{tr}})

    Args:
        tasks: the training tasks.
        new_tasks: the tasks to predict; may be `tasks` itself.
        ntk, inner_kernel, inner_rate, inner_steps, flow, ridge: as in `analytic_metantk`.
        outer_rate: eta, the rate of full-batch gradient descent on half the sum of squares over all queries.
        outer_steps: t; `math.inf` means trained to convergence.
        outer_flow: gradient flow outside (True), or discrete steps `(I - eta Phi)^t`.
        outer_ridge: as `ridge`, for the outer inverse.
        initial: `(F_0 of tasks [B, n, k], F_0 of new_tasks [B2, n2, k])`, the meta-outputs of the network at its start.
            None means the mean over starts, where only the support labels remain: `K(X, X') T Y'`.

    Returns:
        `[B2, n2, k]`, float64.

    Raises:
        InputError: as `analytic_metantk` and `adaptation_operator`.

    Example:
        >>> import jax
        >>> jax.config.update("jax_enable_x64", True)
        >>> from mlkernels import kernels, networks, tasks
        >>> ntk = lambda x1, x2: kernels.infinite_kernels(networks.MLP(1), x1, x2).ntk
        >>> train = tasks.random_labels(tasks=3, support=4, queries=4, key=jax.random.key(0))
        >>> outputs = predict(train, train, ntk, inner_rate=0.05, inner_steps=5)
        >>> bool(abs(outputs - train.query_y).max() < 1e-6)
        True

    Source: Wang et al. 2022, the function-space solution; notebooks/01_derive_metantk.
    """
    K = inner_kernel or ntk
    loop = {"inner_rate": inner_rate, "inner_steps": inner_steps, "flow": flow, "ridge": ridge}
    phi = analytic_metantk(tasks, ntk, inner_kernel=K, **loop)
    phi_new = phi if new_tasks is tasks else analytic_metantk(tasks, ntk, inner_kernel=K, rows=new_tasks, **loop)
    if initial is None:
        start = adapted_outputs(tasks, K, **loop)
        start_new = start if new_tasks is tasks else adapted_outputs(new_tasks, K, **loop)
    else:
        start, start_new = initial
    outer = {"outer_rate": outer_rate, "outer_steps": outer_steps, "flow": outer_flow, "ridge": outer_ridge}
    moved = function_space_step(phi, phi_new, tasks.query_y - start, **outer)
    return start_new + moved.reshape(start_new.shape)


@typed
def function_space_step(
    phi: Float[ArrayLike, "N N"], phi_new: Float[ArrayLike, "M N"], residual: Float[ArrayLike, "*points k"], *,
    outer_rate, outer_steps, flow=True, ridge=0.0,
) -> Float[Array, "M k"]:  # fmt: skip
    r"""How far outer training moves the meta-output: `Phi(., tr) Phi_tr^-1 (I - exp(-eta t Phi_tr)) residual`.

    Args:
        phi: the MetaNTK of the training tasks, `[B*n, B*n]`.
        phi_new: between the tasks to predict and the training tasks, `[B2*n2, B*n]`.
        residual: targets minus meta-outputs at the start, `[B, n, k]` or `[B*n, k]`.
        outer_rate, outer_steps, flow, ridge: the outer loop; the operator is that of the inner loop with Phi for K.

    Returns:
        `[B2*n2, k]`, float64.

    Raises:
        InputError: as `adaptation_operator`.

    Example:
        >>> import jax
        >>> jax.config.update("jax_enable_x64", True)
        >>> eye = jax.numpy.eye(2)
        >>> step = function_space_step(eye, eye, jax.numpy.ones((2, 1)), outer_rate=0.5, outer_steps=1, flow=False)
        >>> [float(s) for s in step[:, 0]]
        [0.5, 0.5]

    Source: Wang et al. 2022; notebooks/01_derive_metantk.
    """
    check_loop(outer_rate, outer_steps, ridge, flow, "outer")
    residual = float64(residual, "residual")
    residual = residual.reshape(-1, residual.shape[-1])
    T = adaptation_operator(phi, inner_rate=outer_rate, inner_steps=outer_steps, flow=flow, ridge=ridge)
    return float64(phi_new, "phi_new") @ (T @ residual)


@typed
def mode_losses(
    phi: Float[ArrayLike, "N N"], residual: Float[ArrayLike, "*points k"], *, outer_rate, outer_steps: int
) -> Float[Array, "steps N"]:
    r"""The predicted meta-loss after every outer step, split into the eigenmodes of the MetaNTK.

    .. math:: L_t = \tfrac12 \sum_i (1 - \eta\lambda_i)^{2t}\, \langle v_i, F_0 - Y\rangle^2

    On a log scale each mode is a straight line; their sum bends until the slowest is all that is left.

    Args:
        phi: the MetaNTK of the training tasks, `[N, N]`.
        residual: meta-outputs at the start minus targets, `[B, n, k]` or `[N, k]`.
        outer_rate: eta; any number, also one at which modes diverge.
        outer_steps: the last step t, a whole number of at least 0.

    Returns:
        `[outer_steps + 1, N]`, float64, modes from the smallest eigenvalue to the largest; sum over them for the loss.

    Raises:
        InputError: a negative rate, a bad number of steps, JAX without float64.

    Example:
        >>> import jax
        >>> jax.config.update("jax_enable_x64", True)
        >>> losses = mode_losses(jax.numpy.eye(2), jax.numpy.ones((2, 1)), outer_rate=0.5, outer_steps=1)
        >>> losses.sum(1).tolist()
        [1.0, 0.25]

    Source: Wang et al. 2022, the linear rate of the theorem; notebooks/02_maml_linear_rate.
    """
    check_loop(outer_rate, outer_steps, 0.0, False, "outer")
    phi, residual = float64(phi, "phi"), float64(residual, "residual")
    values, vectors = jnp.linalg.eigh((phi + phi.T) / 2)
    amplitudes = vectors.T @ residual.reshape(len(phi), -1)
    left = jnp.power((1 - outer_rate * values[None]) ** 2, jnp.arange(outer_steps + 1, dtype=values.dtype)[:, None])
    return 0.5 * left * (amplitudes**2).sum(1)[None]
