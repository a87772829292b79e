#!/bin/sh
# jax 0.10.2 with jaxlib 0.10.2 on a CPU: the gradient of lax.conv_general_dilated by its image is 10 to 30 times slower
# within lax.map, lax.scan or lax.fori_loop than the very same calls written out one after the other. The convolution
# itself is as fast in a loop as outside, and so is the gradient written as a convolution with the turned kernel.
# A good engineer would guess that a loop costs nothing per step, the less so for a product of a millisecond.
# Seen: the compiled program of the loop keeps the kernel's axes as they come from the rule of the transpose (dim_labels
# b01f_01oi->b01f); outside the kernel is transposed first (b01f_01io->b01f), which is the form of the quick routine.
# sh findings/xla_cpu_convolution_in_a_loop.sh: passes while that is so.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check jax==0.10.2 jaxlib==0.10.2
cd "$folder"
cat >loop.py <<'PYTHON'
import re
import time

import jax
import jax.numpy as jnp
from jax import lax

keys = jax.random.split(jax.random.key(0), 2)
w = jax.random.normal(keys[0], (3, 3, 32, 32))
g = jax.random.normal(keys[1], (5, 16, 14, 14, 32))


def convolve(x, w):
    return lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def by_image(w, g):
    return jax.linear_transpose(lambda x: convolve(x, w), g)(g)[0]


def turned(w, g):
    return convolve(g, w[::-1, ::-1].transpose(0, 1, 3, 2))


def seconds(f):
    compiled = jax.jit(f).lower(w, g).compile()
    times = []
    for _ in range(7):
        start = time.perf_counter()
        jax.block_until_ready(compiled(w, g))
        times.append(time.perf_counter() - start)
    return min(times), sorted(set(re.findall(r"convolution\(.*dim_labels=(\S+?),", compiled.as_text())))


ratios = {}
for f in (by_image, turned, lambda w, g: convolve(g, w)):
    name = f.__name__.replace("<lambda>", "convolution")
    (loop, labels), (out, others) = (
        seconds(lambda w, g: lax.map(lambda one: f(w, one), g)),
        seconds(lambda w, g: jnp.stack([f(w, one) for one in g])),
    )
    ratios[name] = loop / out
    print(f"{name}: in a loop {1e3 * loop:.1f} ms {labels}, written out {1e3 * out:.1f} ms {others}")
assert ratios["by_image"] > 4, ratios
assert max(ratios["turned"], ratios["convolution"]) < 3, ratios
PYTHON
"$folder/venv/bin/python" loop.py
echo "still so"
