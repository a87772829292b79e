"""Notebooks are executed, kept, resumed, stopped. Each run is a process of its own, as a user's is."""

from __future__ import annotations

import base64
import io
import json
import math
import os
import re
import signal
import subprocess
import sys

import nbformat
import pytest
from _runs import is_alive, wait_for
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from mlkernels.course.claim_records import CLAIM_MIME
from mlkernels.course.presets import CONFIG_MIME
from mlkernels.runner import jobs as job_plans
from mlkernels.runner import pool, report
from mlkernels.runner.kept import keep

PARAMETERS = 'preset: str = "quick"\nseed: int = 3\nrate: float = 0.1\n'
CLAIM = {
    "id": "meta.rate", "statement": "It falls.", "source": "S", "measured": "m", "expected": "e", "verdict": "holds",
    "why": "", "test": "t", "expected_to_hold": True, "values": {},
}  # fmt: skip
PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()
GOOD = (
    "import json, os, sys\nfrom IPython.display import display\n"
    "print(json.dumps([sys.executable, os.getcwd(), preset, rate, os.environ['JAX_COMPILATION_CACHE_DIR']]))",
    f"display({{'{CONFIG_MIME}': {{'seed': 5, 'settings': {{'w': 1}}}}, 'text/plain': 's'}}, raw=True)",
    f"inf = nan = float('nan')\ndisplay({{'{CLAIM_MIME}': {CLAIM}, 'text/plain': 'claim'}}, raw=True)",
    f"display({{'image/png': '{PNG}', 'text/plain': 'f'}}, metadata={{'image/png': {{'alt': 'A curve'}}}}, raw=True)",
)
FAILS = {**CLAIM, "id": "meta.fails", "verdict": "does not hold", "measured": "7", "expected": "below 1"}
pytestmark = pytest.mark.notebook


def write(folder, name, *sources, parameters=PARAMETERS, tags=None):
    cells = [new_markdown_cell(f"# Notebook {name}")]
    if parameters:
        cells.append(new_code_cell(parameters, metadata={"tags": ["parameters"]}))
    for source in sources:
        cells.append(new_code_cell(source, metadata={"tags": (tags or {}).get(source, [])}))
    folder.mkdir(exist_ok=True)
    notebook = new_notebook(cells=cells)
    notebook.metadata["kernelspec"] = {"name": "no_such_kernel", "display_name": "x", "language": "python"}
    nbformat.write(notebook, folder / f"{name}.ipynb")


def command(folder, *arguments):
    environment = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    line = [sys.executable, "-m", "mlkernels", "run", *arguments, "--notebooks", str(folder)]
    return line, {"text": True, "env": environment, "cwd": folder.parent}


def run(folder, *arguments):
    line, options = command(folder, *arguments)
    return subprocess.run(line, capture_output=True, timeout=1200, **options)


def executed(folder, name, preset="quick"):
    return nbformat.read(folder.parent / "build" / preset / f"{name}.ipynb", as_version=4)


def record(folder, name):
    return executed(folder, name).metadata["mlkernels"]


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """A good notebook, one with a failing cell, one with a failing claim; run two at a time."""
    folder = tmp_path_factory.mktemp("course") / "notebooks"
    write(folder, "00_good", *GOOD)
    write(folder, "01_stops", "print('here')", "\n# first line\nraise ValueError('no <good>\\nmore')", "print('never')")
    write(folder, "02_fails", f"display({{'{CLAIM_MIME}': {FAILS}}}, raw=True)", parameters="")
    return folder, run(folder, "--jobs", "2", "--set", "rate=inf")


def test_a_failing_cell_is_named_and_the_others_run(ran):
    folder, done = ran
    assert done.returncode == 1
    assert "01_stops: cell 4 (In [4]): # first line: ValueError: no <good>" in done.stderr.splitlines()
    assert {name: record(folder, name)["status"] for name in ("00_good", "01_stops", "02_fails")} == {
        "00_good": "finished",
        "01_stops": "failed",
        "02_fails": "finished",
    }
    assert "2 of 3 finished; read build/quick/index.html" in done.stdout


def test_a_failing_notebook_is_kept_up_to_there(ran):
    folder, _ = ran
    notebook = executed(folder, "01_stops")
    texts = ["".join(output.get("text", "")) for cell in notebook.cells for output in cell.get("outputs", [])]
    assert "here\n" in texts
    assert "never\n" not in texts
    assert not [cell for cell in notebook.cells if "papermill-error-cell-tag" in cell.metadata.get("tags", [])]
    page = BeautifulSoup((folder.parent / "build/quick/01_stops.html").read_text(), "html.parser")
    assert "ValueError: no <good>" in page.find(role="alert").get_text()


def test_a_failing_claim_is_named(ran):
    _, done = ran
    assert "02_fails: claim meta.fails does not hold: expected below 1, measured 7" in done.stderr.splitlines()


def test_the_kernel_is_this_interpreter_in_the_notebooks_folder(ran):
    folder, _ = ran
    printed = executed(folder, "00_good").cells[3].outputs[0]["text"]
    interpreter, where, preset, rate, cache = json.loads(printed)
    assert interpreter == sys.executable
    assert where == str(folder.resolve())
    assert (preset, rate) == ("quick", float("inf"))
    assert cache.startswith(str(folder.parent.resolve() / "build" / "jax_cache"))


def test_the_record_says_how_it_was_made(ran):
    folder, _ = ran
    made = record(folder, "00_good")
    assert made["preset"] == "quick"
    assert made["seed"] == 5
    assert made["parameters"] == {"preset": "quick", "rate": "inf"}
    assert made["config"]["settings"] == {"w": 1}
    assert set(made["versions"]) == {"python", "jax", "jaxlib", "neural-tangents", "numpy", "mlkernels"}
    assert made["device"]["kind"] == "JAX not used"
    assert made["wall_seconds"] > 0
    assert made["started"].endswith("+00:00")
    assert len(made["fingerprint"]) == 64
    assert record(folder, "01_stops")["seed"] == 3  # the default in its source
    assert record(folder, "02_fails")["parameters"] == {}


def test_pages_claims_and_index_are_there(ran):
    folder, _ = ran
    out = folder.parent / "build/quick"
    assert [claim["id"] for claim in json.loads((out / "claims.json").read_text())["claims"]] == [
        "meta.rate",
        "meta.fails",
    ]
    images = BeautifulSoup((out / "00_good.html").read_text(), "html.parser").find_all("img")
    assert [image["alt"] for image in images] == ["A curve"]
    index = BeautifulSoup((out / "index.html").read_text(), "html.parser")
    assert [heading.get_text() for heading in index.find_all("h3")] == [
        f"Notebook {n}" for n in ("00_good", "01_stops", "02_fails")
    ]
    assert index.find("img")["alt"] == "A curve"
    assert not [path for path in out.iterdir() if path.name.startswith(".")]


def strict(path):
    """What a JSON file holds, read as a browser reads it: NaN and Infinity are refused."""

    def refuse(constant):
        raise AssertionError(f"{path.name} holds {constant}")

    return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


def test_all_that_a_run_keeps_is_strict_json_also_with_infinite_values(ran):
    folder, _ = ran
    out = folder.parent / "build/quick"
    kept = {path.name: strict(path) for path in out.iterdir() if path.suffix in (".ipynb", ".json")}
    assert set(kept) == {"00_good.ipynb", "01_stops.ipynb", "02_fails.ipynb", "claims.json"}
    assert kept["00_good.ipynb"]["metadata"]["papermill"]["parameters"]["rate"] == "inf"
    assert kept["01_stops.ipynb"]["metadata"]["mlkernels"]["parameters"]["rate"] == "inf"
    assert kept["claims.json"]["notebooks"]["00_good"]["parameters"]["rate"] == "inf"
    assert nbformat.validate(nbformat.from_dict(kept["00_good.ipynb"])) is None


def test_a_report_of_notebooks_that_hold_infinities_is_strict_json(tmp_path):
    told = {"preset": "quick", "seed": 0, "device": {"kind": "x"}, "status": "finished", "failure": None}
    told |= {"started": "2025-01-01T00:00:00+00:00", "wall_seconds": 1.0, "parameters": {"a": math.inf, "b": math.nan}}
    claim = {**CLAIM, "values": {"a": -math.inf, "b": [math.nan]}}
    output = new_output("display_data", data={CLAIM_MIME: claim})
    notebook = new_notebook(cells=[new_code_cell("x", outputs=[output])], metadata={"mlkernels": told})
    keep(notebook, tmp_path / "00_old.ipynb")
    report.write_report(tmp_path, preset="quick", command="mlkernels run")
    result = strict(tmp_path / "claims.json")
    assert result["claims"][0]["values"] == {"a": "-inf", "b": ["nan"]}
    assert result["notebooks"]["00_old"]["parameters"] == {"a": "inf", "b": "nan"}


def test_plain_lines_and_no_noise(ran):
    _, done = ran
    assert "00_good   started, 6 cells" in done.stderr.splitlines()
    known = ("started, ", "finished, ", "failed, ", "01_stops: cell 4", "02_fails: claim meta.fails")
    assert [line for line in done.stderr.splitlines() if not any(words in line for words in known)] == []
    assert done.stdout.count("\n") == 1


def test_resume_skips_what_is_unchanged_and_still_fails_for_its_claim(ran):
    folder, _ = ran
    before = (folder.parent / "build/quick/00_good.ipynb").read_bytes()
    done = run(folder, "00", "--resume", "--set", "rate=inf")
    assert (done.returncode, done.stderr) == (0, "00_good  unchanged, kept\n")
    assert (folder.parent / "build/quick/00_good.ipynb").read_bytes() == before
    done = run(folder, "02", "--resume")
    assert done.returncode == 1
    assert "unchanged" in done.stderr
    assert "meta.fails does not hold" in done.stderr


def test_resume_runs_again_what_changed_or_failed(tmp_path):
    folder = tmp_path / "notebooks"
    write(folder, "00_a", "x = 1", parameters="seed: int = 3\n")
    write(folder, "01_b", "import os\nassert os.path.exists('go')", parameters="")
    assert run(folder, "--jobs", "2").returncode == 1
    first = record(folder, "00_a")
    (folder / "go").touch()
    done = run(folder, "--resume", "--jobs", "2", "--set", "seed=4")  # 00 has other parameters, 01 had failed
    assert done.returncode == 0
    assert "unchanged" not in done.stderr
    second = record(folder, "00_a")
    assert (first["seed"], second["seed"]) == (3, 4)
    write(folder, "00_a", "raise SystemError('later')", parameters="seed: int = 3\n")
    done = run(folder, "--resume", "--jobs", "2")
    assert done.returncode == 1
    assert "01_b  unchanged, kept" in done.stderr
    assert "00_a: cell 3 (In [2]): raise SystemError('later'): SystemError: later" in done.stderr
    kept = json.loads((folder.parent / "build/quick/previous/00_a.ipynb").read_text())
    assert kept["metadata"]["mlkernels"]["fingerprint"] == second["fingerprint"]
    assert (folder.parent / "build/quick/previous/00_a.html").exists()


def test_a_cell_that_takes_too_long_or_kills_its_kernel(tmp_path):
    folder = tmp_path / "notebooks"
    write(folder, "00_sleeps", "x = 1", "import time\ntime.sleep(60)", parameters="")
    write(folder, "01_dies", "import os\nos._exit(1)", parameters="")
    write(folder, "02_may_raise", "1 / 0", "print('on')", parameters="", tags={"1 / 0": ["raises-exception"]})
    done = run(folder, "--jobs", "3", "--timeout-cell", "2")
    assert done.returncode == 1
    assert "00_sleeps: cell 3 (In [2]): import time: CellTimeoutError: the cell took longer than 2 s" in done.stderr
    # a kernel may die before it has said which number its cell has
    assert re.search(r"01_dies: cell 2( \(In \[1\]\))?: import os: DeadKernelError: the kernel died", done.stderr)
    assert record(folder, "02_may_raise")["status"] == "finished"
    assert executed(folder, "02_may_raise").cells[-1].outputs[0]["text"] == "on\n"


SLOW = """import os, pathlib, time
pathlib.Path('pid').write_text(str(os.getpid()))
while os.path.exists('wait'): time.sleep(.1)"""


@pytest.fixture
def slow(tmp_path):
    """A quick notebook and one that waits for as long as a file exists; its kernel tells its number in a file."""
    folder = tmp_path / "notebooks"
    write(folder, "00_quick", "x = 1", parameters="")
    write(folder, "01_slow", SLOW, parameters="")
    write(folder, "02_last", "x = 2", parameters="")
    (folder / "wait").touch()
    return folder


def kernel_of(folder):
    wait_for(lambda: (folder / "pid").exists() and (folder / "pid").read_text())
    return int((folder / "pid").read_text())


def test_ctrl_c_keeps_and_names_the_finished_ones_and_resume_goes_on(slow):
    line, options = command(slow)
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)
    kernel = kernel_of(slow)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=600)
    assert process.returncode == 130
    assert "stopped; finished and kept in build/quick: 00_quick\n" in err
    assert f"go on with: mlkernels run --notebooks {slow} --resume" in err
    assert "Traceback" not in out + err
    assert not is_alive(kernel)
    assert record(slow, "00_quick")["status"] == "finished"
    left = {path.name for path in (slow.parent / "build/quick").iterdir()}
    assert left == {"00_quick.ipynb", "00_quick.html", "claims.json", "index.html", "mathjax"}
    (slow / "wait").unlink()
    done = run(slow, "--resume")
    assert done.returncode == 0
    assert "00_quick  unchanged, kept" in done.stderr
    assert "3 of 3 finished" in done.stdout


def test_ctrl_c_gives_130_also_where_the_same_run_had_finished_before(slow):
    """What lies there is the earlier run's, whole, and not this one's result."""
    (slow / "wait").unlink()
    assert run(slow, "01").returncode == 0
    before = {path.name: path.read_bytes() for path in (slow.parent / "build/quick").glob("01*")}
    (slow / "wait").touch()
    (slow / "pid").unlink()
    line, options = command(slow, "01")
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)
    kernel_of(slow)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=600)
    assert process.returncode == 130
    assert "finished and kept in build/quick: none\n" in err
    assert "finished;" not in out
    assert {path.name: path.read_bytes() for path in (slow.parent / "build/quick").glob("01*")} == before


def test_no_kernel_outlives_a_runner_that_was_killed(slow):
    line, options = command(slow, "01")
    process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options)
    kernel = kernel_of(slow)
    process.kill()
    process.wait()
    wait_for(lambda: not is_alive(kernel))


def test_a_second_run_into_the_same_folder_is_told_who_is_at_work(slow):
    line, options = command(slow, "01")
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)
    kernel_of(slow)
    second = run(slow, "00")
    assert second.returncode == 2
    assert second.stderr.count("\n") == 1
    assert f"got process {process.pid} (" in second.stderr
    assert "at work there; wait until it is done" in second.stderr
    assert run(slow, "00", "--out", "elsewhere").returncode == 0
    (slow / "wait").unlink()
    out, _ = process.communicate(timeout=600)
    assert (process.returncode, "1 of 1 finished" in out) == (0, True)
    left = {path.name for path in (slow.parent / "build/quick").iterdir()}
    assert left == {"01_slow.ipynb", "01_slow.html", "claims.json", "index.html", "mathjax"}


def test_a_run_that_was_killed_leaves_no_lock(slow):
    line, options = command(slow, "01")
    process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options)
    kernel = kernel_of(slow)
    process.kill()
    process.wait()
    (slow / "wait").unlink()
    done = run(slow, "01")
    assert (done.returncode, record(slow, "01_slow")["status"]) == (0, "finished")
    wait_for(lambda: not is_alive(kernel))
    shown = {path.name for path in (slow.parent / "build/quick").iterdir() if path.suffix != ".part"}
    assert shown == {"01_slow.ipynb", "01_slow.html", "claims.json", "index.html", "mathjax"}


def test_unfinished_files_of_two_processes_are_apart(slow):
    """Two runs of one notebook from Python, where nothing locks the folder: both end well, with a page and a record."""
    script = "import sys; from pathlib import Path; from mlkernels.runner import jobs, pool\n"
    script += "work, out = jobs.plan(Path(sys.argv[1]), ['01'], None, 'quick', [])\n"
    script += "sys.exit([outcome.status for outcome in pool.run(work)] != ['finished'])"
    both = [subprocess.Popen([sys.executable, "-c", script, str(slow)], stderr=subprocess.PIPE) for _ in range(2)]
    places = slow.parent / "build/quick"
    wait_for(lambda: len(list(places.glob(".01_slow.ipynb.*.part/*.ipynb"))) == 2)
    (slow / "wait").unlink()
    assert [(process.communicate(timeout=600), process.returncode)[1] for process in both] == [0, 0]
    assert {path.name for path in places.iterdir()} == {"01_slow.ipynb", "01_slow.html"}


def test_a_failed_start_destroys_nothing(tmp_path, monkeypatch):
    write(tmp_path / "notebooks", "00_a", "x = 1", parameters="")
    jobs, out = job_plans.plan(tmp_path / "notebooks", [], None, "quick", [])
    out.mkdir(parents=True)
    jobs[0].target.write_text('{"metadata": {"mlkernels": {"status": "finished"}}}')
    monkeypatch.setattr(sys, "executable", "/bin/false")
    stream = io.StringIO()
    (outcome,) = pool.run(jobs, display=pool.Display([], stream))
    assert outcome.status == "failed"
    assert "ended without a result" in outcome.detail
    assert "finished" in jobs[0].target.read_text()


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_bar_a_notebook_on_a_terminal():
    stream = Terminal()
    display = pool.Display(["00_a", "01_long"], stream)
    display.start("00_a", 4)
    display.cell("00_a", 1)
    display.tick()
    assert "00_a   " in stream.getvalue()
    assert "cell 2 of 4" in stream.getvalue()
    display.end("00_a", "finished, 1.0 s")
    display.end("01_long", "unchanged, kept")
    display.start("01_long", 2)
    display.close()
    assert "00_a     finished, 1.0 s\n" in stream.getvalue()


def test_a_plain_line_says_now_and_then_that_a_cell_is_at_work(monkeypatch):
    stream, clock = io.StringIO(), iter([0.0, 1.0, 100.0, 100.0, 101.0])
    monkeypatch.setattr(pool.time, "monotonic", lambda: next(clock))
    display = pool.Display(["00_a"], stream)
    display.start("00_a", 4)
    display.cell("00_a", 2)
    for _ in range(3):
        display.tick()
    assert stream.getvalue().splitlines() == ["00_a  started, 4 cells", "00_a  at cell 3 of 4"]
