"""How much memory there is for this process, by every limit that it has; and how much a network takes."""

from __future__ import annotations

import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from mlkernels.nas import Layout, Network, random_genotypes
from mlkernels.nas.engine import batch_norm, graph
from mlkernels.nas.engine import memory as needed
from mlkernels.nas.engine.network import init
from mlkernels.nas.engine.weights import init as init_supernet
from mlkernels.support import memory

GIB = 2**30


def write(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(content)


@pytest.fixture
def own(tmp_path):
    return tmp_path / "cgroup-of-self"


def test_the_least_that_any_of_the_nested_groups_leaves_counts(tmp_path, own):
    own.write_text("0::/a/b\n")
    write(tmp_path / "a", memory__max=f"{4 * GIB}\n", memory__current=f"{3 * GIB}\n")
    write(tmp_path / "a/b", memory__max="max\n", memory__current="5\n")
    assert memory.left_of_cgroups(tmp_path, own) == [GIB]
    write(tmp_path / "a/b", memory__max=f"{2 * GIB}\n", memory__current=f"{GIB // 2}\n")
    assert min(memory.left_of_cgroups(tmp_path, own)) == GIB
    assert len(memory.left_of_cgroups(tmp_path, own)) == 2


def test_pages_of_files_are_free(tmp_path, own):
    own.write_text("0::/\n")
    stat = f"anon 1\nactive_file {GIB // 2}\ninactive_file {GIB // 2}\nshmem 7\n"
    write(tmp_path, memory__max=f"{4 * GIB}\n", memory__current=f"{3 * GIB}\n", memory__stat=stat)
    assert memory.left_of_cgroups(tmp_path, own) == [2 * GIB]


def test_groups_of_version_1_too_also_where_a_container_sees_its_own_as_the_root(tmp_path, own):
    own.write_text("5:cpu,cpuacct:/x\n4:memory:/docker/0123\n1:name=systemd:/x\n")
    unlimited = {"memory__limit_in_bytes": "9223372036854771712\n", "memory__usage_in_bytes": "0\n"}
    write(tmp_path / "memory", **unlimited)
    assert min(memory.left_of_cgroups(tmp_path, own)) > 2**60
    stat = f"inactive_file 1\ntotal_inactive_file {GIB}\n"
    used = {"memory__limit_in_bytes": f"{3 * GIB}\n", "memory__usage_in_bytes": f"{2 * GIB}\n", "memory__stat": stat}
    write(tmp_path / "memory", **used)
    assert memory.left_of_cgroups(tmp_path, own) == [2 * GIB]


@pytest.mark.parametrize("text", ["", "nonsense\n", "0::/gone\n", "4:memory:/\n"])
def test_no_groups_or_none_that_can_be_read_are_no_limit(tmp_path, own, text):
    own.write_text(text)
    assert memory.left_of_cgroups(tmp_path / "none", own) == []
    assert memory.left_of_cgroups(tmp_path / "none", tmp_path / "none") == []


def test_the_least_limit_counts_and_none_leaves_less_than_nothing(monkeypatch):
    monkeypatch.setattr(memory, "left_of_cgroups", lambda: [3 * GIB, 10])
    assert memory.host_bytes() == 10
    monkeypatch.setattr(memory, "left_of_cgroups", lambda: [-5])
    assert memory.host_bytes() == 0


LIMITED = """
import resource, sys, jax, psutil
from mlkernels.support import memory
jax.devices()  # its threads want room for their stacks, by the machine's cores
before = memory.host_bytes()
limit = getattr(resource, sys.argv[1])
used = psutil.Process().memory_info()
taken = {"RLIMIT_AS": used.vms, "RLIMIT_DATA": used.data}[sys.argv[1]]
resource.setrlimit(limit, (taken + 2**28, resource.getrlimit(limit)[1]))
assert 0 <= memory.host_bytes() <= 2**28 < before, (memory.host_bytes(), before)
try:
    memory.require(2**29, "it", "take less")
except ValueError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what of such a limit is used")
@pytest.mark.parametrize("limit", ["RLIMIT_AS", "RLIMIT_DATA"])
def test_the_limits_of_a_process_count(limit):
    done = subprocess.run([sys.executable, "-c", LIMITED, limit], capture_output=True, text=True, check=False)
    assert done.stdout.startswith("memory for it: expected 512.0 MiB"), done.stderr[-500:]


# --- what a network takes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("space", "cells", "pixels"), [("darts_fewshot", 3, 5), ("darts", 2, 4)])
def test_weights_and_tape_are_counted_as_they_are(space, cells, pixels, key):
    layout = Layout(space, cells=cells, channels=2, pixels=pixels, norm="batch", ways=3)
    (genotype,) = random_genotypes(layout.space, 1, key=key)
    network = Network(layout, genotype)
    variables, drawn = init(network, key=key), init_supernet(layout, key=key)
    assert needed.own_count(network) == sum(leaf.size for leaf in jax.tree.leaves(variables.params))
    assert needed.drawn_count(layout) == sum(leaf.size for leaf in jax.tree.leaves(drawn))

    def tape_of(params, statistics, images):
        tape = {}
        run = lambda *given: batch_norm.forward(True, *given)  # noqa: E731
        graph.forward(network.plan, params["blocks"], statistics, images, run, None, tape)
        return tape

    images = jax.ShapeDtypeStruct((2, pixels, pixels, 3), jnp.float32)
    tape = jax.eval_shape(tape_of, *variables, images)
    sizes = needed.value_sizes(network)
    assert {number: sizes[network.plan[number].sources[0]] for number in tape} == {
        n: x.size // 2 for n, x in tape.items()
    }


def test_published_sizes_are_far_from_what_is_refused():
    """A training at the published size runs on a laptop: what is counted for it must not exceed that."""
    text = "N: s3<0 s3<1 | s3<1 s3<2 | c3<0 s3<2 R: s3<0 s3<1 | f5<1 d3<2 | d3<2 d3<3"
    network = Network(Layout(channels=48, pixels=84, ways=64, norm="batch"), text)
    assert needed.training_bytes(network, 64) < 4 * GIB
    assert needed.training_bytes(network, 64, 4, 2) < needed.training_bytes(network, 64)
    assert needed.forward_bytes(network, 100) < GIB
