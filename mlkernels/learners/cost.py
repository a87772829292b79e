"""What an outer step costs: a formula that counts products of matrices, and the counts of the compiled program."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import jax

from mlkernels.errors import bad_input
from mlkernels.inner_loop.descent import gradient_step
from mlkernels.inner_loop.losses import Loss, loss_of, support_loss
from mlkernels.inner_loop.parts import joined, split
from mlkernels.inner_loop.settings import InnerLoop, rates_for
from mlkernels.learners.maml import meta_gradient
from mlkernels.learners.problem import check_inner_loop, problem_of
from mlkernels.support.arguments import whole
from mlkernels.tasks import TaskBatch

# Compiled to be counted, not to be run. Fusion would compute elementwise results anew wherever they are needed, which
# XLA's analysis then counts each time; the rest spares LLVM's time.
_TO_COUNT = {
    "xla_disable_hlo_passes": "fusion",
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
}


class Cost(NamedTuple):
    """What one outer step takes.

    Args:
        gradients: gradients of support losses by w, over all tasks and inner steps.
        hvps: products of a vector with a Hessian, dim(w) x dim(w).
        mixed: products of a vector with the mixed derivatives, dim(phi) x dim(w).
        dim_w, dim_phi: how many parameters adapt, and how many do not.
        flops_of: part -> its floating-point operations, over all tasks and steps: "frozen layers" (forward on the
            support sets, once), "gradients", "Hessian-vector products", "mixed products", "outer gradients".

    Example:
        >>> Cost(2, 2, 0, 10, 0, {"gradients": 3.0, "outer gradients": 4.0}).flops
        7.0
    """

    gradients: int
    hvps: int
    mixed: int
    dim_w: int
    dim_phi: int
    flops_of: dict[str, float]

    @property
    def flops(self) -> float:
        """All parts together."""
        return sum(self.flops_of.values())


def _forward_flops(network, params, input_shape: tuple[int, ...]) -> list[int]:
    """Of each layer, for one point: two (a multiplication and an addition) for each weight at each place it is used."""
    height, width = input_shape[:2] if len(input_shape) == 3 else (1, 1)
    counts = []
    for name in network.layers:
        weights = params[name]["w"]
        counts.append(2 * weights.size * (height * width if weights.ndim == 4 else 1))
        height, width = height // 2, width // 2
    return counts


def cost_formula(network, params, tasks: TaskBatch, inner: InnerLoop) -> Cost:
    r"""Products and floating-point operations of one outer step, by counting matrix products.

    With layers :math:`h_\ell = \sigma(h_{\ell-1} W_\ell)` and :math:`c_\ell` operations for the product of layer l on
    the support set, a gradient step by w takes three products a layer, the lowest adapted layer the first two:

    .. math:: z_\ell = h_{\ell-1} W_\ell, \qquad G_\ell = h_{\ell-1}^\top \delta_\ell, \qquad
              \delta'_{\ell-1} = \delta_\ell W_\ell^\top

    Each has two factors; going back through it takes one product for each factor that varies. Factors that vary with w
    make the Hessian-vector product: :math:`6 c_\ell` a layer, :math:`2 c_\ell` for the lowest. Factors that vary with
    phi alone (the features that enter the lowest adapted layer) make the mixed product, which goes on down through the
    frozen layers: :math:`2 c_\ell` each, :math:`c_1` for the first. So MAML takes N Hessian-vector products of size
    dim(w) + dim(phi); ANIL takes N of size dim(w), and N mixed products.

    Elementwise work (activations, updates) is not counted: it falls as 1 / width beside the products.

    Args:
        network: an `MLP` or a `Conv4` (anything with `layers`, first to last, whose weights are `params[layer]["w"]`).
        params: its parameters, or only their shapes (`jax.eval_shape`).
        tasks: B tasks; only their sizes enter.
        inner: what adapts, the steps, and `first_order`.

    Returns:
        `Cost`: counts of products, dimensions, operations of each part and (`flops`) of all.

    Raises:
        InputError: an unknown layer; something that has no layers.

    Example:
        >>> from mlkernels import networks, tasks
        >>> batch = tasks.sinusoid(tasks=2, support=10, queries=10, key=jax.random.key(0))
        >>> network = networks.MLP(width=32)
        >>> params = network.init(jax.random.key(1), (1,))
        >>> anil = cost_formula(network, params, batch, InnerLoop(0.01, 5, adapt=("head",)))
        >>> full = cost_formula(network, params, batch, InnerLoop(0.01, 5))
        >>> anil.hvps, anil.dim_w, anil.mixed, full.hvps, full.dim_w, full.mixed, anil.flops < full.flops
        (10, 33, 10, 10, 1153, 0, True)

    Source: Ji et al. 2020 for the number of products; notebooks/03_anil_inner_loop_geometry.
    """
    if not hasattr(network, "layers"):
        do = "pass the network itself, not its apply"
        raise bad_input("network", "a network of mlkernels.networks", type(network).__name__, do)
    check_inner_loop(inner)
    rates_for(params, inner, None)
    adapted = network.layers if inner.layers is None else inner.layers
    lowest = min(network.layers.index(name) for name in adapted)
    counts = _forward_flops(network, params, tasks.query_x.shape[2:])

    gradient = hvp = mixed = 0
    for i, (name, c) in enumerate(zip(network.layers, counts, strict=True)):
        if i < lowest:  # the mixed product's way down
            mixed += 2 * c if i else c
            continue
        products = [("h", "W")] + [("h", "delta")] * (name in adapted) + [("delta", "W")] * (i > lowest)
        varies_with = {
            "h": "w" if i > lowest else "phi" if i else None,
            "W": "w" if name in adapted else "phi",
            "delta": "w",
        }
        factors = [varies_with[factor] for product in products for factor in product]
        gradient += c * len(products)
        hvp += c * factors.count("w")
        mixed += c * factors.count("phi")

    w, phi = split(params, inner.layers)
    dim_w, dim_phi = (sum(leaf.size for leaf in jax.tree.leaves(part)) for part in (w, phi))
    loops = tasks.tasks * inner.steps
    second = 0 if inner.first_order else loops
    flops_of = {
        "frozen layers": sum(counts[:lowest]) * tasks.support * tasks.tasks * bool(inner.steps),
        "gradients": gradient * tasks.support * loops,
        "Hessian-vector products": hvp * tasks.support * second,
        "mixed products": mixed * tasks.support * second,
        "outer gradients": (3 * sum(counts) - counts[0]) * tasks.queries * tasks.tasks,
    }
    flops_of = {name: float(count) for name, count in flops_of.items()}
    return Cost(loops, second, second * bool(phi), dim_w, dim_phi, flops_of)


def counted_flops(
    apply: Callable, params, tasks: TaskBatch, inner: InnerLoop, *, outer_loss: Loss = "half_sum_squares"
) -> float:
    """The floating-point operations of one outer step, as XLA's cost analysis counts them in the compiled program.

    The program is automatic differentiation's, with the inner loop unrolled (XLA counts a loop's body once) and
    without rematerialisation or fusion, which compute things twice; one task is compiled, for the CPU, and counted B
    times. It is not run. Compiling takes seconds, and grows with the steps.

    Args:
        apply, params, inner: as in `maml.adapt`; `params` may be shapes only.
        tasks: B tasks; only their sizes enter.
        outer_loss: as in `maml.meta_loss`.

    Returns:
        Operations; an addition, a multiplication or a comparison is one, functions as tanh are none.

    Raises:
        InputError: as `maml.meta_loss`.

    Example:
        >>> from mlkernels import networks, tasks
        >>> batch = tasks.sinusoid(tasks=2, support=20, queries=20, key=jax.random.key(0), dimension=10)
        >>> network = networks.MLP(width=128)
        >>> params = network.init(jax.random.key(1), (10,))
        >>> anil = InnerLoop(0.01, 2, adapt=("head",))
        >>> ratio = counted_flops(network.apply, params, batch, anil) / cost_formula(network, params, batch, anil).flops
        >>> 0.98 < ratio < 1.05
        True

    Source: notebooks/03_anil_inner_loop_geometry.
    """
    check_inner_loop(inner)
    problem_of(apply, params, tasks, inner, None, outer_loss)

    def value(params, task):
        w, phi = split(params, inner.layers)
        support = support_loss(apply, inner.loss, inner.l2, task.support_x, task.support_y)
        for _ in range(inner.steps):
            gradient = jax.grad(support)(w, phi)
            if inner.first_order:
                gradient = jax.lax.stop_gradient(gradient)
            w = gradient_step(w, inner.start_rates(), gradient)
        return loss_of(outer_loss, apply(joined(w, phi), task.query_x), task.query_y)

    return program_flops(jax.value_and_grad(value), params, one_task(tasks)) * tasks.tasks


def one_task(tasks: TaskBatch) -> TaskBatch:
    """The shapes of one task of a batch, without the first axis."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), tasks)


def program_flops(function: Callable, *arguments, compiled: bool = True) -> float:
    """The floating-point operations of a function, as XLA's cost analysis counts them in the program for the CPU.

    It is compiled without fusion, which computes things twice, and not run. XLA counts a loop's body once.

    Args:
        function: of arrays or trees of them, without loops.
        arguments: its arguments, of which only the shapes enter.
        compiled: count the compiled program, in which what is computed twice in the same way is there once. False
            counts what would be compiled, in a tenth of the time, for programs that compute nothing twice.

    Returns:
        Operations; an addition, a multiplication or a comparison is one, functions as tanh are none.

    Example:
        >>> a, b = jax.numpy.ones((3, 4)), jax.numpy.ones((4, 5))
        >>> program_flops(jax.numpy.matmul, a, b), program_flops(jax.numpy.matmul, a, b, compiled=False)
        (120.0, 120.0)

    Source: notebooks/03_anil_inner_loop_geometry.
    """
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), arguments)
    cpu = jax.devices("cpu")[:1]  # other compilers hide products in calls that are not counted
    # On a mesh a convolution is a matrix product; of XLA's own, the products with the zeros around it do not count.
    with jax.set_mesh(jax.make_mesh((1,), ("device",), (jax.sharding.AxisType.Auto,), devices=cpu)):
        lowered = jax.jit(function).lower(*shapes)
        counts = (lowered.compile(_TO_COUNT) if compiled else lowered).cost_analysis()
    return float(counts.get("flops", 0.0))  # a program that computes nothing has none


class Measured(NamedTuple):
    """What one outer step took.

    Args:
        seconds: of wall time; the median of its runs.
        memory: bytes that it needs beside its arguments and results, as the compiled program states it.
    """

    seconds: float
    memory: int


def in_turns(calls: Mapping[str, Callable], *, repeats: int = 7) -> dict[str, list[float]]:
    """Wall time of some calls, measured in turns, after one of each that does not count: it compiles.

    In turns, so that whatever else slows the machine down slows all of them: compare within one call, not across.

    Args:
        calls: name -> a function without arguments, whose result is waited for.
        repeats: runs of each, at least 1.

    Returns:
        name -> seconds of each run.

    Raises:
        InputError: no whole number of at least 1.

    Example:
        >>> took = in_turns({"one": lambda: jax.numpy.ones(3), "two": lambda: jax.numpy.ones(9)}, repeats=5)
        >>> {name: len(seconds) for name, seconds in took.items()}
        {'one': 5, 'two': 5}

    Source: notebooks/06_function_space_adaptation.
    """
    repeats = whole("repeats", repeats, 1)
    seconds = {name: [] for name in calls}
    for _ in range(repeats + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            jax.block_until_ready(call())
            seconds[name].append(time.perf_counter() - start)
    return {name: each[1:] for name, each in seconds.items()}


def side_by_side(
    apply: Callable,
    params,
    tasks: TaskBatch,
    inners: Mapping[str, InnerLoop],
    *,
    outer_loss: Loss = "half_sum_squares",
    sequential: bool | None = None,
    repeats: int = 7,
) -> dict[str, Measured]:
    """Wall time and peak memory of one outer step under several inner loops, measured by `in_turns`.

    Args:
        apply, params, tasks, outer_loss, sequential: as in `maml.meta_loss`.
        inners: name -> inner loop, or what stands in its place; an inner loop's `remat` matters to the memory.
        repeats: runs of each, after one that does not count; at least 1.

    Returns:
        name -> `Measured`: seconds, memory.

    Raises:
        InputError: as `maml.meta_loss`.

    Example:
        >>> from mlkernels import networks, tasks
        >>> batch = tasks.sinusoid(tasks=2, support=20, queries=20, key=jax.random.key(0))
        >>> network = networks.MLP(width=32)
        >>> params = network.init(jax.random.key(1), (1,))
        >>> inners = {"ANIL": InnerLoop(0.01, 5, adapt=("head",)), "MAML": InnerLoop(0.01, 5)}
        >>> measured = side_by_side(network.apply, params, batch, inners, repeats=3)
        >>> measured["MAML"].seconds > 0, measured["ANIL"].memory < measured["MAML"].memory
        (True, True)

    Source: notebooks/03_anil_inner_loop_geometry.
    """
    repeats = whole("repeats", repeats, 1)
    how = {"outer_loss": outer_loss, "sequential": sequential}
    steps = {
        name: jax.jit(partial(meta_gradient, apply, inner=inner, **how)).lower(params, tasks).compile()
        for name, inner in inners.items()
    }
    seconds = in_turns({name: partial(step, params, tasks) for name, step in steps.items()}, repeats=repeats)
    return {
        name: Measured(statistics.median(seconds[name]), int(step.memory_analysis().temp_size_in_bytes))
        for name, step in steps.items()
    }
