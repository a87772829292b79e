"""A notebook over a grid: what is refused, what is kept, and that nothing is lost where a part fails or is killed."""

from __future__ import annotations

import collections
import csv
import io
import itertools
import json
import math
import multiprocessing
import os
import platform
import signal
import subprocess
import sys
import threading
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import nbformat
import psutil
import pytest
from _cli import status_of
from _runs import is_alive, wait_for
from nbformat.v4 import new_code_cell, new_notebook
from PIL import Image

from mlkernels.course.plots import verdicts
from mlkernels.errors import InputError
from mlkernels.runner import cores, execute, executors, grid, point, pool, sweep, sweep_table
from mlkernels.runner.kept import keep
from mlkernels.runner.parameters import Parameter

PARAMETERS = """from typing import Optional
preset: str = "quick"
seed: int = 3
rate: float = 0.1
width: Optional[int] = None
name: str = "a"
"""
CHOOSE = 'presets.choose(preset, SIZES, rate=rate, ranges={"rate": (0.0, 10.0), "name": ["a", "A", "b"]})'
# Each point leaves a line in a file when it starts and one when it ends, and its kernel's cores in its output.
WORK = """import os, time
from pathlib import Path
def note(text):
    with open("diary", "a") as diary:
        print(text, seed, rate, os.getpid(), file=diary)
note("start")
print("cores", *sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else "")
while Path(f"wait-{seed}").exists():
    time.sleep(0.05)
if Path(f"bad-{seed}").exists():
    raise ValueError(f"bad seed {seed}")
from mlkernels.course import claims
from IPython.display import display
near = float("inf") if seed else 0.5
display(claims.claim("demo.even", "It is even.", "S", f"{seed}", "an even seed", seed % 2 == 0, test="t",
                     values={"near": near, "seeds": [seed]}))
display(claims.claim("demo.rate", "Untested.", "S", "nothing, so far", "e", None, test="t", why="w"))
note("end")"""


verdict_map = verdicts.verdict_map


def write(folder, *sources, name="03_tiny"):
    folder.mkdir(exist_ok=True)
    cells = [new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]})]
    nbformat.write(new_notebook(cells=cells + [new_code_cell(each) for each in sources]), folder / f"{name}.ipynb")


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "notebooks", WORK)
    return tmp_path / "notebooks"


def planned(folder, *texts, settings=(), preset="quick", out=None):
    return grid.plan(folder, "03", out, preset, settings, texts)


def command(folder, *arguments):
    line = [sys.executable, "-m", "mlkernels", "sweep", "03", "--notebooks", str(folder), *arguments]
    return line, {"text": True, "cwd": folder.parent}


def swept(folder, *arguments):
    line, options = command(folder, *arguments)
    return subprocess.run(line, capture_output=True, timeout=600, **options)


def diary(folder):
    """(word, seed, rate) -> how many times it was written."""
    lines = (folder / "diary").read_text().splitlines() if (folder / "diary").exists() else []
    return collections.Counter(tuple(line.split()[:3]) for line in lines)


def results(folder, name="03_tiny-quick"):
    def refuse(constant):
        raise AssertionError(constant)

    out = folder.parent / "build" / "sweep" / name
    kept = json.loads((out / "sweep.json").read_text(encoding="utf-8"), parse_constant=refuse)
    return kept, list(csv.DictReader(io.StringIO((out / "sweep.csv").read_text(encoding="utf-8"))))


# --- the grid ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("types", "text", "values"),
    [
        (("int",), "1,5,20", [1, 5, 20]),
        (("int",), "0:5", [0, 1, 2, 3, 4]),
        (("int",), "0:10:3", [0, 3, 6, 9]),
        (("int",), "5:0:-2", [5, 3, 1]),
        (("int",), " 7 , 0:2", [7, 0, 1]),
        (("float",), "0.1,1e-3,inf", [0.1, 0.001, math.inf]),
        (("float",), "1:3", [1.0, 2.0]),
        (("int", "None"), "none,4", [None, 4]),
        (("bool",), "true,false", [True, False]),
        (("str",), "0:5,b", ["0:5", "b"]),
    ],
)
def test_texts_of_a_grid(types, text, values):
    found = grid.axes_of("03", {"x": Parameter("x", types, "0")}, [f"x={text}"])["x"]
    assert found == values
    assert list(map(type, found)) == list(map(type, values))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "--grid"),
        (["--grid", "seed"], "--grid: expected key=value, got 'seed'"),
        (["--grid", "sede=1"], "--grid: expected a parameter of 03_tiny, got 'sede'; they have: preset: str"),
        (["--grid", "preset=quick,full"], "got 'preset=quick,full'; use --preset with one of quick, class, full"),
        (["--grid", "seed="], "--grid seed: expected values between commas, got ''"),
        (["--grid", "seed=1,,2"], "--grid seed: expected values between commas"),
        (["--grid", "seed=5:5"], "--grid seed: expected at least one value, got '5:5', an empty range"),
        (["--grid", "seed=0:1.5"], "--grid seed: expected a range of whole numbers as 0:5 or 0:10:2, got '0:1.5'"),
        (["--grid", "seed=0:5:0"], "a range of whole numbers"),
        (["--grid", "seed=:5"], "a range of whole numbers"),
        (["--grid", "seed=1,2.5"], "--grid seed: expected int (default 3), got '2.5'"),
        (["--grid", "seed=3:-2:-1"], "--grid seed: expected a whole number from 0 to 2147483647, got -1"),
        (["--grid", "rate=0.1,11"], "--grid rate: expected a number from 0.0 to 10.0, got 11.0"),
        (["--grid", "name=a,c"], "--grid name: expected a or A or b, got 'c'"),
        (["--grid", "seed=1", "--grid", "seed=2"], "--grid seed: expected each parameter once"),
        (["--grid", "rate=0.1,1e-1"], "--grid rate: expected each value once, got 0.1 twice"),
        (["--grid", "seed=0:2", "--set", "seed=1"], "--grid seed: expected a parameter that --set leaves alone"),
        (["--grid", "seed=0:2", "--set", "rate=11"], "--set rate: expected a number from 0.0 to 10.0"),
        (["--grid", "seed=0:1000000000000"], "--grid: expected at most 10000 points, got 1000000000000 in"),
        (["--grid", "seed=0:1000", "--grid", "width=1:12"], "--grid: expected at most 10000 points, got 11000"),
        (["--grid", "seed=1", "--preset", "huge"], "--preset"),
        (["--grid", "seed=1", "--jobs", "0"], "--jobs"),
        (["--grid", "seed=1", "--jobs", "2", "--dask", "tcp://127.0.0.1:1"], "--jobs: expected either it or --dask"),
        (["--grid", "seed=1", "--dask", "nowhere"], "--dask: expected the "),  # the package, or an address
    ],
)
def test_what_is_refused_gets_one_line_before_anything_runs(folder, capsys, arguments, said):
    write(folder, CHOOSE)
    out = folder.parent / "out"
    assert status_of("sweep", "03", "--notebooks", folder, "--out", out, *arguments) == 2
    shown = capsys.readouterr()
    assert said in shown.err
    assert shown.err.count("\n") == 1
    assert not out.exists()


@pytest.mark.parametrize(
    "address",
    ["", " ", "http://localhost:8786", "udp://localhost:8786", "tcp://", "tcp://localhost", "tcp://localhost:0",
     "tcp://localhost:99999", "tcp://local host:8786", "tcp://localhost:8786/status", ":8786", "localhost:dask"],
)  # fmt: skip
def test_an_address_of_another_protocol_is_refused_before_anything_is_asked(folder, capsys, monkeypatch, address):
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert status_of("sweep", "03", "--notebooks", folder, "--grid", "seed=1", "--dask", address) == 2
    shown = capsys.readouterr().err
    assert f"--dask: expected the address of a scheduler as tcp://host:8786, got {address!r}; start one" in shown
    assert shown.count("\n") == 1
    assert not (folder.parent / "build").exists()


@pytest.mark.parametrize("address", ["tcp://localhost:8786", "tls://h-1.x_y:1", "10.0.0.1:65535", "tcp://[::1]:8786"])
def test_addresses_of_schedulers(address):
    executors.check_address(address)


@pytest.mark.parametrize(
    "place",
    ["sweep.json", "sweep.csv", "sweep.png", ".going", ".lock", "points/03_tiny,quick,seed=1.ipynb",
     "points/03_tiny,quick,seed=1.html"],
)  # fmt: skip
def test_a_folder_in_a_files_place_is_refused_before_anything_runs(folder, capsys, place):
    out = folder.parent / "out"
    (out / place).mkdir(parents=True)
    assert status_of("sweep", "03", "--notebooks", folder, "--out", out, "--grid", "seed=0:3") == 2
    shown = capsys.readouterr().err
    assert "expected a file, got a folder; move it away, or choose another --out" in shown
    assert place in shown
    assert shown.count("\n") == 1
    assert not (folder / "diary").exists()


@pytest.mark.parametrize("place", ["", "points"])
def test_a_file_in_a_folders_place_is_refused_before_anything_runs(folder, capsys, place):
    out = folder.parent / "out"
    if place:
        out.mkdir()
    (out / place).write_text("")
    assert status_of("sweep", "03", "--notebooks", folder, "--out", out, "--grid", "seed=1") == 2
    shown = capsys.readouterr().err
    assert "a folder, got a file" in shown or "Directory" in shown
    assert shown.count("\n") == 1


def test_a_sweep_is_of_one_notebook(folder, capsys):
    write(folder, name="03_other")
    assert status_of("sweep", "03", "--notebooks", folder, "--grid", "seed=1") == 2
    assert "that of 03_other, 03_tiny; write more of it" in capsys.readouterr().err


def test_a_package_that_is_not_there_is_named_with_the_remedy(folder, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert status_of("sweep", "03", "--notebooks", folder, "--grid", "seed=1", "--dask", "tcp://127.0.0.1:1") == 2
    assert "install it: python -m pip install 'mlkernels[sweep]'" in capsys.readouterr().err


def test_points_are_the_product_the_last_parameter_fastest(folder):
    plan = planned(folder, "rate=0.5,1", "seed=0:2", settings=["width=none"])
    assert [each.values for each in plan.points] == [
        {"rate": rate, "seed": seed} for rate in (0.5, 1.0) for seed in (0, 1)
    ]
    assert [each.job.name for each in plan.points][:2] == ["rate=0.5, seed=0", "rate=0.5, seed=1"]
    assert plan.points[0].job.parameters == {"preset": "quick", "seed": 0, "rate": 0.5, "width": None}
    assert plan.out == (folder.parent / "build" / "sweep" / "03_tiny-quick").resolve()
    assert {each.job.target.parent for each in plan.points} == {plan.out / "points"}
    assert len({each.job.fingerprint for each in plan.points}) == 4


def test_a_point_is_the_same_file_in_every_grid_that_has_it_and_no_other_point_is(folder):
    """Else a sweep that grows, or is typed in another order, would run its points again, or overwrite others."""
    small = planned(folder, "rate=0.5", "seed=0:2")
    large = planned(folder, "seed=1:9", "rate=2,0.50")
    both = {each.job.target: each.job.fingerprint for each in small.points}
    again = {each.job.target: each.job.fingerprint for each in large.points}
    (shared,) = set(both) & set(again)
    assert shared.name == "03_tiny,quick,seed=1,rate=0.5.ipynb"
    assert both[shared] == again[shared]
    others = [planned(folder, "seed=1", settings=[text]) for text in ("name=a", "name=A", "name=a/b", "name=a_b")]
    others += [planned(folder, "seed=1", preset="class", settings=["name=a"])]
    others += [planned(folder, "seed=1", settings=["name=" + "long" * 99 + end]) for end in "12"]
    names = [plan.points[0].job.target.name.lower() for plan in others]  # macOS takes A for a
    assert len(set(names)) == len(names)
    assert max(map(len, names)) < 140


def test_values_in_few_letters_that_say_them_exactly():
    for value in (0.1, 1 / 3, 1e-20, 2.0, math.inf, 5e6, 123456789.0):
        assert float(grid.text_of(value)) == value
    assert grid.text_of(2.0) == "2"


# --- cores and connections --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 64])
@pytest.mark.parametrize("slots", [1, 2, 3, 5, 8])
def test_shares_are_disjoint_and_use_all_cores(count, slots):
    shares = [cores.share(list(range(count)), slots, slot) for slot in range(slots)]
    sizes = list(map(len, shares))
    assert set(itertools.chain(*shares)) == set(range(count))
    assert max(sizes) - min(sizes) <= 1
    if slots <= count:
        assert sum(sizes) == count


needs_affinity = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system pins no threads")


@needs_affinity
def test_threads_and_their_children_have_cores_of_their_own(tmp_path):
    mine, seen, both = os.sched_getaffinity(0), [], threading.Barrier(2)
    code = "import os; print(*os.sched_getaffinity(0))"

    def work():
        with cores.pinned(2, folder=tmp_path):
            both.wait(60)
            child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
            seen.append(set(map(int, child.stdout.split())))
            both.wait(60)
        assert os.sched_getaffinity(0) == mine

    with ThreadPoolExecutor(2) as executor:
        for future in [executor.submit(work) for _ in range(2)]:
            future.result()
    assert os.sched_getaffinity(0) == mine
    assert set.union(*seen) == mine
    if len(mine) > 1:
        assert not seen[0] & seen[1]


@needs_affinity
def test_a_share_is_free_again_and_no_share_is_no_obstacle(tmp_path, monkeypatch):
    with cores.pinned(2, folder=tmp_path):
        first = os.sched_getaffinity(0)
    with cores.pinned(2, folder=tmp_path):
        assert os.sched_getaffinity(0) == first
    mine = os.sched_getaffinity(0)
    with cores._taken(1, tmp_path), cores._taken(1, tmp_path) as none:
        assert none is None
    with cores.pinned(2, folder=tmp_path / "none" / "inside"):  # a place where there can be no locks
        assert os.sched_getaffinity(0) <= mine
    with cores.pinned(1, folder=tmp_path / "untouched"):
        assert os.sched_getaffinity(0) == mine
    assert not (tmp_path / "untouched").exists()
    monkeypatch.delattr(os, "sched_setaffinity")
    with cores.pinned(2):
        pass


@pytest.mark.skipif(os.name == "nt", reason="Windows has ports only")
def test_kernels_talk_through_folders_of_their_own(tmp_path, monkeypatch):
    """No two kernels can choose the same port where there are none; a socket's path may not be long."""
    deep = tmp_path / ("deep" * 20)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    with execute.kernel_connection() as one, execute.kernel_connection() as two:
        files = [Path(each["connection_file"]) for each in (one, two)]
        assert {each["transport"] for each in (one, two)} == {"ipc"}
        assert files[0].parent != files[1].parent
        assert all(len(os.fsencode(file.with_name("kernel-ipc-5"))) < 100 for file in files)
        assert all(file.parent.stat().st_mode & 0o77 == 0 for file in files)
    assert not any(file.parent.exists() for file in files)


# --- a sweep ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A sweep with a point that fails, two at a time; and the same command a second time."""
    folder = tmp_path_factory.mktemp("course") / "notebooks"
    write(folder, WORK)
    (folder / "bad-1").touch()
    first = swept(folder, "--grid", "seed=0:3", "--grid", "rate=0.5", "--jobs", "2")
    kept = results(folder)
    once = diary(folder)
    (folder / "bad-1").unlink()
    second = swept(folder, "--grid", "seed=0:3", "--grid", "rate=0.5", "--jobs", "2")
    return folder, first, kept, once, second


@pytest.mark.notebook
def test_a_point_that_fails_is_named_and_the_others_run(done):
    _, first, (kept, _), _, _ = done
    assert first.returncode == 1
    assert "seed=1, rate=0.5: cell 2 (In [3]): import os, time: ValueError: bad seed 1" in first.stderr.splitlines()
    assert "2 of 3 finished; read build/sweep/03_tiny-quick/sweep.png and sweep.csv" in first.stdout
    assert [row["status"] for row in kept["points"]] == ["finished", "failed", "finished"]
    assert kept["counts"] == {"finished": 2, "failed": 1}
    assert "ValueError: bad seed 1" in kept["points"][1]["failure"]


@pytest.mark.notebook
def test_what_is_finished_is_not_run_again_and_what_failed_is(done):
    folder, _, _, once, second = done
    assert once == {("start", s, "0.5"): 1 for s in "012"} | {("end", s, "0.5"): 1 for s in "02"}
    assert second.returncode == 0, second.stderr
    assert diary(folder) == once + collections.Counter([("start", "1", "0.5"), ("end", "1", "0.5")])
    assert second.stderr.count("unchanged, kept") == 2
    assert [row["status"] for row in results(folder)[0]["points"]] == ["finished"] * 3


@pytest.mark.notebook
def test_the_table_says_what_each_point_found_and_how_it_was_made(done):
    folder, _, (kept, lines), _, _ = done
    assert (kept["notebook"], kept["preset"], kept["grid"]) == ("03_tiny", "quick", {"seed": [0, 1, 2], "rate": [0.5]})
    assert kept["command"].startswith("mlkernels sweep 03")
    assert kept["versions"]["python"] == platform.python_version()
    assert kept["device"]["kind"]
    first, failed, last = kept["points"]
    assert first["parameters"] == {"seed": 0, "rate": 0.5}
    assert first["seconds"] > 0
    assert (folder.parent / "build/sweep/03_tiny-quick" / first["notebook"]).is_file()
    assert [claim["verdict"] for claim in first["claims"]] == ["holds", "not tested here"]
    assert last["claims"][0]["values"] == {"near": "inf", "seeds": [2]}  # strict JSON has no infinity
    assert failed["claims"] == []
    assert [(line["seed"], line["rate"], line["status"], line["claim"], line["verdict"]) for line in lines] == [
        ("0", "0.5", "finished", "demo.even", "holds"),
        ("0", "0.5", "finished", "demo.rate", "not tested here"),
        ("1", "0.5", "failed", "", ""),
        ("2", "0.5", "finished", "demo.even", "holds"),
        ("2", "0.5", "finished", "demo.rate", "not tested here"),
    ]
    assert lines[0]["measured"] == "0"
    assert lines[1]["measured"] == "nothing, so far"  # a comma in a cell
    assert json.loads(lines[3]["values"]) == {"near": "inf", "seeds": [2]}
    assert "ValueError" in lines[2]["failure"]


@pytest.mark.notebook
def test_what_a_sweep_leaves(done):
    folder = done[0]
    out = folder.parent / "build/sweep/03_tiny-quick"
    assert {path.name for path in out.iterdir()} == {"points", "sweep.csv", "sweep.json", "sweep.png"}
    names = {f"03_tiny,quick,seed={seed},rate=0.5" for seed in range(3)}
    assert {path.name for path in (out / "points").iterdir()} == {
        f"{name}{end}" for name in names for end in (".ipynb", ".html")
    }
    with Image.open(out / "sweep.png") as picture:
        assert picture.format == "PNG"


@pytest.mark.notebook
@needs_affinity
def test_the_kernels_of_two_points_at_a_time_have_half_of_the_cores_each(done):
    folder, mine = done[0], sorted(os.sched_getaffinity(0))
    shares = [cores.share(mine, 2, slot) for slot in (0, 1)]
    for path in (folder.parent / "build/sweep/03_tiny-quick/points").glob("*.ipynb"):
        said = "".join(out.get("text", "") for out in nbformat.read(path, as_version=4).cells[-1].outputs)
        assert list(map(int, said.split("cores")[1].split())) in shares


@pytest.mark.notebook
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_sweep_that_is_stopped_or_killed_goes_on_with_nothing_lost(folder, how):
    (folder / "wait-1").touch()
    line, options = command(folder, "--grid", "seed=0:3", "--set", "rate=1")
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)
    wait_for(lambda: diary(folder)["start", "1", "1.0"])
    kernel = int((folder / "diary").read_text().split()[-1])
    process.send_signal(how)
    out, err = process.communicate(timeout=600)
    wait_for(lambda: not is_alive(kernel))
    kept, _ = results(folder)  # written after the first point, also where there was no time to say goodbye
    assert [row["status"] for row in kept["points"]] == ["finished", "not finished", "not finished"]
    if how != signal.SIGKILL:
        assert process.returncode == 128 + how
        assert "stopped; finished and kept in build/sweep/03_tiny-quick: 1 of 3 points\n" in err
        assert f"go on with: mlkernels sweep 03 --notebooks {folder} --grid seed=0:3 --set rate=1" in err
        assert "Traceback" not in out + err
        assert not (folder.parent / "build/sweep/03_tiny-quick/.going").exists()
    if how == signal.SIGTERM:  # stopped as by Ctrl-C
        return
    (folder / "wait-1").unlink()
    done = swept(folder, "--grid", "seed=0:3", "--set", "rate=1")
    assert done.returncode == 0, done.stderr
    assert diary(folder) == {
        ("start", "0", "1.0"): 1, ("end", "0", "1.0"): 1, ("start", "1", "1.0"): 2, ("end", "1", "1.0"): 1,
        ("start", "2", "1.0"): 1, ("end", "2", "1.0"): 1,
    }  # fmt: skip
    assert results(folder)[0]["counts"] == {"finished": 3}


@pytest.mark.notebook
def test_a_second_sweep_into_the_same_folder_is_told_who_is_at_work(folder):
    (folder / "wait-0").touch()
    line, options = command(folder, "--grid", "seed=0")
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)
    wait_for(lambda: diary(folder))
    second = swept(folder, "--grid", "seed=1")
    assert (second.returncode, f"got process {process.pid} (" in second.stderr) == (2, True)
    (folder / "wait-0").unlink()
    process.communicate(timeout=600)
    assert process.returncode == 0


@pytest.mark.notebook
def test_any_executor_will_do(folder):
    plan = planned(folder, "seed=0:2")
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as executor:
        outcomes = sweep.run(plan, executor, {platform.node(): 2}, command="c", display=pool.Display([], io.StringIO()))
    assert [outcome.status for outcome in outcomes] == ["finished"] * 2
    assert diary(folder)["end", "0", "0.1"] == diary(folder)["end", "1", "0.1"] == 1


CLUSTER = """import json, os, sys
from distributed import Client, LocalCluster

if __name__ == "__main__":
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
        with Client(cluster) as client:
            print(json.dumps([cluster.scheduler_address, *client.run(os.getpid).values()]), flush=True)
        sys.stdin.read()
"""


@pytest.mark.notebook
def test_a_worker_of_a_cluster_is_killed_in_the_middle_and_nothing_is_lost(folder):
    pytest.importorskip("distributed", reason="distributed is not installed: no cluster to test on")
    script = folder / "cluster.py"
    script.write_text(CLUSTER)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    background = ["sh", "-c", "trap '' INT; exec \"$@\"", "sh"]  # without Ctrl-C, as a shell starts what has a &
    cluster = subprocess.Popen([*background, sys.executable, str(script)], text=True, **pipes)
    try:
        address, *workers = json.loads(cluster.stdout.readline())
        (folder / "wait-2").touch()
        line, options = command(folder, "--grid", "seed=0:6", "--dask", address)
        process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)
        wait_for(lambda: diary(folder)["start", "2", "0.1"] and diary(folder)["end", "1", "0.1"])
        (kernel,) = [int(each.split()[3]) for each in (folder / "diary").read_text().splitlines() if " 2 " in each]
        (worker,) = {each.pid for each in psutil.Process(kernel).parents()} & set(workers)
        os.kill(worker, signal.SIGKILL)
        wait_for(lambda: not is_alive(kernel))  # no kernel outlives its worker
        (folder / "wait-2").unlink()
        out, err = process.communicate(timeout=600)
    finally:
        cluster.stdin.close()
        cluster.wait(60)
        cluster.stdout.close()
    assert process.returncode == 0, err
    assert "6 of 6 finished" in out
    counts = diary(folder)
    assert {seed: counts["end", seed, "0.1"] for seed in "012345"} == dict.fromkeys("012345", 1)
    assert {seed: counts["start", seed, "0.1"] for seed in "012345"} == dict.fromkeys("012345", 1) | {"2": 2}
    assert results(folder)[0]["counts"] == {"finished": 6}


# --- one point, without a kernel --------------------------------------------------------------------------------------


def task_for(plan, number=0, **changes):
    sign = plan.out / ".going"
    sign.parent.mkdir(parents=True, exist_ok=True)
    sign.write_text("token")
    told = {"token": "token", "slots": {}, "package": plan.package, "versions": plan.versions, "settings": {}}
    return point.Task(plan.points[number].job, sign, **(told | changes))


def pretend(job, status="finished", **told):
    """An executed notebook, as if it had been run."""
    record = {"status": status, "fingerprint": job.fingerprint, "wall_seconds": 1.0, "seed": 0, "started": "2025"}
    record |= {"device": {"kind": "x"}, "versions": {"python": "3"}, "failure": None, **told}
    job.target.parent.mkdir(parents=True, exist_ok=True)
    return keep(new_notebook(metadata={"mlkernels": record}), job.target)


def no_worker(monkeypatch):
    monkeypatch.setattr(point, "Worker", lambda *given: pytest.fail("it runs"))


def test_a_finished_point_that_is_asked_for_again_is_not_run(folder, monkeypatch):
    """As Dask asks, when the worker that held a result is lost; and after the sweep has ended, too."""
    no_worker(monkeypatch)
    plan = planned(folder, "seed=0:2")
    record = pretend(plan.points[0].job)
    outcome, claims = point.execute(task_for(plan, token="another"))
    assert (outcome.status, outcome.record, claims) == ("finished", record, [])
    assert point.execute(task_for(plan, 1, token="another"))[0].status == "not started"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"versions": {"jax": "0.0.1"}}, "but 0.0.1 where the sweep was started; install the same"),
        ({"package": "another"}, "the source of mlkernels is not that of the sweep; use one checkout"),
    ],
)
def test_a_machine_on_which_the_fingerprint_would_be_a_lie_runs_nothing(folder, monkeypatch, changes, said):
    no_worker(monkeypatch)
    outcome, _ = point.execute(task_for(planned(folder, "seed=0"), **changes))
    assert outcome.status == "failed"
    assert f"seed=0: on {platform.node()}: " in outcome.detail
    assert outcome.detail.endswith(said)


def test_a_machine_that_sees_another_disk_says_so(folder, monkeypatch):
    no_worker(monkeypatch)
    plan = planned(folder, "seed=0")
    task = task_for(plan)
    (folder / "03_tiny.ipynb").unlink()
    assert "must lie on a disk that all machines see" in point.execute(task)[0].detail


def test_variables_that_change_results_are_those_of_the_sweep(folder, monkeypatch):
    monkeypatch.setenv("JAX_ENABLE_X64", "1")
    monkeypatch.setenv("HOME_OF_THIS_MACHINE", "here")
    task = task_for(planned(folder, "seed=0"), settings={"XLA_FLAGS": "theirs"})
    environment = point._environment(task, 1)
    assert "JAX_ENABLE_X64" not in environment
    assert environment["XLA_FLAGS"] == "theirs"
    assert environment["HOME_OF_THIS_MACHINE"] == "here"
    assert environment["JAX_COMPILATION_CACHE_DIR"]


class Broken(Executor):
    """Gives results that are errors, and none, in turn."""

    def __init__(self):
        self.count = 0

    def submit(self, call, task):
        future = Future()
        self.count += 1
        if self.count == 1:
            future.set_exception(MemoryError("no room\nat all"))
        elif self.count == 2:
            future.cancel()
            future.set_running_or_notify_cancel()
        elif self.count == 3:
            future.set_result((sweep.Outcome(task.job.name, "not started"), []))
        else:
            pretend(task.job)
            future.set_result(call(task))
        return future


def test_what_fails_outside_the_notebook_is_the_points_and_the_others_go_on(folder):
    plan = planned(folder, "seed=0:4")
    stream = io.StringIO()
    outcomes = sweep.run(plan, Broken(), {}, command="c", display=pool.Display([], stream))
    assert [outcome.status for outcome in outcomes] == ["failed", "failed", "failed", "finished"]
    assert outcomes[0].detail == "seed=0: MemoryError: no room"
    assert outcomes[1].detail == "seed=1: given up by the executor"
    assert "another folder" in outcomes[2].detail
    assert "seed=3  finished, 1.0 s (" in stream.getvalue()
    kept = json.loads((plan.out / "sweep.json").read_text())
    assert kept["points"][0]["failure"] == "MemoryError: no room"


def test_a_failed_point_shows_as_failed_also_with_claims_from_before(folder, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        verdicts,
        "verdict_map",
        lambda columns, rows, title: drawn.append((columns, rows)) or verdict_map(columns, rows),
    )
    plan = planned(folder, "seed=0:3", "rate=0.5,1")
    table = sweep_table.SweepTable(plan, "c")
    claim = {"id": "demo.one", "verdict": "holds", "measured": "m", "expected": "e", "values": {}}
    for number, status in ((0, "finished"), (1, "failed"), (2, "unchanged")):
        record = pretend(plan.points[number].job)
        table.add(sweep.Outcome(plan.points[number].job.name, status, record=record), [claim] if number < 2 else [])
    table.save(at_once=True)
    assert drawn == [
        (
            {"seed": ["0", "0", "1", "1", "2", "2"], "rate": ["0.5", "1"] * 3},
            {"demo.one": ["holds", "failed", "", "not finished", "not finished", "not finished"]},
        )
    ]


def test_writing_takes_a_small_part_of_the_time(monkeypatch):
    now, done = [0.0], []

    def work():
        done.append(now[0])
        now[0] += 1.0

    monkeypatch.setattr(sweep_table.time, "monotonic", lambda: now[0])
    write = sweep_table._Seldom(work)
    for _ in range(200):
        write(False)
        now[0] += 0.5
    assert len(done) <= 1 + now[0] / 20
    assert len(done) > 3
    write(True)
    assert done[-1] == now[0] - 1.0


# --- the picture ------------------------------------------------------------------------------------------------------


def test_a_map_names_parameters_values_and_claims_and_says_each_verdict_by_a_sign():
    columns = {"steps": ["1", "1", "5", "5"], "seed": ["0", "1", "0", "1"]}
    fig = verdict_map(columns, {"a.b": ["holds", "does not hold", "failed", ""]}, title="03, preset quick")
    block, legend = fig.axes
    assert [text.get_text() for text in block.texts] == ["steps", "1", "5", "seed", "0", "1", "0", "1", "a.b"]
    assert [text.get_text() for text in legend.texts] == ["holds", "does not hold", "failed"]
    assert fig.texts[0].get_text() == "03, preset quick"
    signs = [each for each in block.collections if type(each).__name__ == "PathCollection"]
    assert [each.get_offsets()[0].tolist() for each in signs] == [[0.5, 0.5], [1.5, 0.5], [2.5, 0.5]]


def test_many_points_stand_in_blocks_and_what_is_left_out_is_said():
    count = verdicts.MOST + 5
    fig = verdict_map({"seed": [str(n) for n in range(count)]}, {"a.b": ["holds"] * count}, title="t")
    assert len(fig.axes) == verdicts.MOST // verdicts.BLOCK + 1
    assert fig.texts[0].get_text() == f"t: the first {verdicts.MOST} of {count} points"


def test_long_values_stand_upright_and_all_stays_inside():
    values = ["a_value_of_many_letters_" + end for end in "abc"]
    fig = verdict_map({"name": values, "seed": list("012")}, {"word.of_a_long_claim": ["holds"] * 3})
    texts = {text.get_text(): text for text in fig.axes[0].texts}
    assert [text.get_rotation() for text in texts.values()].count(90) == 1  # cut alike, they are one in this dict
    assert texts["0"].get_rotation() == 0
    renderer = fig.canvas.get_renderer()
    for text in fig.axes[0].texts:
        box = text.get_window_extent(renderer)
        assert 0 <= box.x0 < box.x1 <= fig.bbox.width
        assert 0 <= box.y0 < box.y1 <= fig.bbox.height


@pytest.mark.parametrize(
    ("columns", "rows"), [({"seed": []}, {"a": []}), ({"seed": ["1"]}, {}), ({"seed": ["1"]}, {"a": ["holds"] * 2})]
)
def test_a_map_of_nothing_is_refused(columns, rows):
    with pytest.raises(InputError, match="as many verdicts as points"):
        verdict_map(columns, rows)
