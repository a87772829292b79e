"""The course on Binder, on Colab and on SLURM: their commands, held against make's and, with -m once, run in an
environment of their own.

Binder, Colab and SLURM themselves are not in reach of a test.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from mlkernels.runner import pages
from tools import colab, install_cell

ROOT = Path(__file__).resolve().parent.parent
BINDER = ROOT / ".binder"
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
UNWANTED = {"tensorflow", "tf2jax", "keras"}
FILES, FOLDERS = ("requirements.txt", "pyproject.toml", "README.md", "LICENSE"), ("mlkernels", "tools", "notebooks")
CELL = install_cell.source((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def pip_commands(script: str) -> list[str]:
    """What a script asks of pip, without how pip is called and what is about its cache."""
    found = re.findall(r"^pip (install .*)$", script, re.M)
    return [" ".join(sorted(text.replace("--no-cache-dir ", "").split())) for text in found]


def clean_environment(folder: Path) -> tuple[Path, dict[str, str]]:
    """A virtual environment with this Python, and variables in which nothing of this one is left."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    left = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "MLKERNELS_SOURCE")
    clean = {name: value for name, value in os.environ.items() if name not in left}
    return folder / "bin" / "python", clean | {"PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"}


def copy_of_the_course(folder: Path) -> Path:
    """What git would bring, without its history."""
    for name in FILES:
        folder.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    for name in (*FOLDERS, ".binder", "data/results"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints"))
    return folder


def installed(python: Path) -> set[str]:
    listed = subprocess.run([python, "-m", "pip", "list", "--format=json"], capture_output=True, check=True).stdout
    return {each["name"] for each in json.loads(listed)}


# --- Binder -----------------------------------------------------------------------------------------------------------


def test_binder_installs_as_make_does():
    ours = pip_commands((BINDER / "postBuild").read_text(encoding="utf-8"))
    assert len(ours) == 2
    assert ours == pip_commands((ROOT / "tools" / "setup.sh").read_text(encoding="utf-8"))


def test_binder_looks_into_its_folder_alone_and_takes_a_python_of_the_course():
    """Any file of set-up that repo2docker knows in .binder keeps it from environment.yml; its own Python may be old."""
    assert sorted(path.name for path in BINDER.iterdir()) == ["postBuild", "requirements.txt", "runtime.txt"]
    lines = (BINDER / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert not [line for line in lines if not line.startswith("#")], "pip would bring what these declare, too"
    (version,) = re.findall(r"^python-(3\.\d+)$", (BINDER / "runtime.txt").read_text(encoding="utf-8"), re.M)
    assert version in ("3.11", "3.12", "3.13")
    assert os.access(BINDER / "postBuild", os.X_OK)


@pytest.mark.once
def test_binders_commands_in_a_clean_environment(tmp_path):
    course = copy_of_the_course(tmp_path / "course")
    python, clean = clean_environment(tmp_path / "env")
    subprocess.run(["pip", "install", "-r", ".binder/requirements.txt"], cwd=course, env=clean, check=True)
    subprocess.run([".binder/postBuild"], cwd=course, env=clean, check=True)
    assert not UNWANTED & installed(python)
    done = subprocess.run([python, "-m", "mlkernels", "check"], cwd=tmp_path, env=clean, capture_output=True, text=True)
    assert done.stdout.endswith("all is well\n"), done.stdout + done.stderr


# --- Colab ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_each_notebook_begins_with_the_same_install_cell(path):
    """Above the parameters, so that papermill puts its own below it: python -m tools.install_cell."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert install_cell.with_cell(notebook, CELL) == notebook
    marks = [tag for cell in notebook["cells"] for tag in cell["metadata"].get("tags", [])]
    assert marks[:2] == ["install", "parameters"]


def test_no_page_shows_the_cell():
    notebook = json.loads(NOTEBOOKS[0].read_text(encoding="utf-8"))
    assert len(pages.without_widgets(notebook, "00")["cells"]) == len(notebook["cells"]) - 1


def run_cell(monkeypatch, tmp_path, source="", found=None):
    """Run the cell as if mlkernels were `found`: the commands it gave."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: found)
    monkeypatch.setenv("MLKERNELS_SOURCE", source)
    given = []
    monkeypatch.setattr(subprocess, "run", lambda command, check: given.append(command))
    exec(compile(CELL, "install", "exec"), {})
    return given


def test_the_cell_does_nothing_where_the_course_is(monkeypatch, tmp_path):
    assert run_cell(monkeypatch, tmp_path, source="an address", found="a module") == []


def test_the_cell_fetches_the_course_once(monkeypatch, tmp_path):
    folder = str(tmp_path / "mlkernels-course")
    clone, install = run_cell(monkeypatch, tmp_path, source="an address")
    assert clone == ["git", "clone", "--quiet", "--depth=1", "an address", folder]
    assert install == [sys.executable, str(Path(folder, "tools", "colab.py"))]
    Path(folder).mkdir()
    assert run_cell(monkeypatch, tmp_path, source="an address") == [install]


def test_git_brings_the_course_as_the_cell_asks(tmp_path):
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("no checkout by git")
    with pytest.MonkeyPatch.context() as patch:
        clone, (_, script) = run_cell(patch, tmp_path, source=ROOT.as_uri())
    (tmp_path / "settings").write_text("[safe]\n\tdirectory = *\n", encoding="utf-8")  # whoever owns the checkout
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    clean["GIT_CONFIG_GLOBAL"] = str(tmp_path / "settings")

    def said(folder, *words):
        return subprocess.run(["git", *words], cwd=folder, env=clean, capture_output=True, check=True).stdout

    subprocess.run(clone, env=clean, check=True)
    course = tmp_path / "mlkernels-course"
    assert said(course, "rev-list", "--count", "HEAD") == b"1\n", "no more than the course as it is today"
    tree = ("ls-tree", "-r", "HEAD", *FILES, *FOLDERS)
    assert said(course, *tree) == said(ROOT, *tree)
    assert all((course / name).exists() for name in (*FILES, *FOLDERS, "data/results"))
    assert Path(script).is_relative_to(course)
    assert Path(script).is_file()


def test_the_cell_says_what_to_do_where_it_cannot_know(monkeypatch, tmp_path):
    with pytest.raises(ModuleNotFoundError, match=r"make lab.*%env MLKERNELS_SOURCE="):
        run_cell(monkeypatch, tmp_path)


def test_the_cell_asks_for_a_new_session_where_numpy_is_another_now(monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0")
    with pytest.raises(RuntimeError, match="restart the session"):
        run_cell(monkeypatch, tmp_path, source="an address")


def test_the_address_stands_in_pyproject():
    assert 'get("MLKERNELS_SOURCE", "x://y")' in install_cell.source(
        '[project]\nname = "a"\n[project.urls]\nRepository = "x://y"'
    )


class Elsewhere:
    """A Python of others: name -> (version, what it needs)."""

    def __init__(self, monkeypatch, **packages):
        self.packages = packages
        monkeypatch.setattr(importlib.metadata, "distribution", self.distribution)

    def distribution(self, name):
        if name not in self.packages:
            raise importlib.metadata.PackageNotFoundError(name)
        self.version, self.requires = self.packages[name]
        return self


def test_what_is_recent_enough_stays_and_what_it_needs_is_seen_to(monkeypatch):
    lock = dict.fromkeys(("alpha", "beta", "gamma", "delta"), "")
    Elsewhere(monkeypatch, alpha=("2.0", ["beta>=3", "tensorflow", "delta; extra == 'x'"]), beta=("2.9", None))
    assert colab.lacking(["alpha>=1", "papermill>=2"], lock) == {"beta"}, "not locked, of an extra, or not for here"
    assert colab.lacking(["alpha>=3", "gamma; python_version < '3'"], lock) == {"alpha"}


def test_rounds_go_on_until_nothing_is_lacking(monkeypatch):
    there = Elsewhere(monkeypatch)
    lock = colab.locked((ROOT / "requirements.txt").read_text(encoding="utf-8"))
    needs = {"jax": ["jaxlib"], "neural-tangents": ["tensorflow", "tf2jax"], "jaxlib": ["numpy"]}
    rounds = []

    def install(lines):
        names = [line.partition("==")[0] for line in lines]
        assert all("--hash=" in lock[name] for name in names)
        rounds.append(names)
        there.packages |= {name: (lock[name].split()[0].partition("==")[2], needs.get(name)) for name in names}

    done = colab.main(install)
    assert "jax" in rounds[0]
    assert rounds[1] == ["jaxlib"]
    assert len(done) == len({*done})
    assert not {*done} & (UNWANTED | colab.SERVED)
    assert colab.main(install) == []


@pytest.mark.once
def test_the_cells_commands_in_a_clean_environment(tmp_path):
    course = copy_of_the_course(tmp_path / "mlkernels-course")  # as git would have left it
    python, clean = clean_environment(tmp_path / "env")
    # what shows notebooks is there, and a numpy that is too old: as on Colab
    there = ["packaging", "ipykernel==6.17.1", "ipywidgets==7.7.1", "numpy==2.0.2"]
    subprocess.run([python, "-m", "pip", "install", "--quiet", *there], env=clean, check=True)
    script = f"{CELL}\nfrom mlkernels.course.demos import start_here\nfrom mlkernels.course import widgets\n"
    script += "widgets.explore(start_here.DEMO)\nprint(widgets.__file__)\n"
    command = [python, "-c", script]
    done = subprocess.run(
        command, cwd=tmp_path, env=clean | {"MLKERNELS_SOURCE": "none"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert str(course) in done.stdout
    assert not UNWANTED & installed(python)


def test_on_colab_a_demo_says_what_shows_it(monkeypatch):
    """Colab shows no widget of others without an address in the output's metadata."""
    from mlkernels.course.demos import start_here
    from mlkernels.course.widgets import explorer

    shown = []
    monkeypatch.setenv(explorer.UNATTENDED, "1")
    monkeypatch.setattr("IPython.display.display", lambda data, **more: shown.append((data, more.get("metadata"))))
    demo = explorer.explore(start_here.DEMO)
    monkeypatch.setattr(explorer.Explorer, "_repr_mimebundle_", lambda self: ({}, {"a page": "an address"}))
    demo._ipython_display_()
    assert shown[-1][1] == {"a page": "an address"}


# --- SLURM ------------------------------------------------------------------------------------------------------------

PAGE = (ROOT / "mlkernels" / "runner" / "teacher.md").read_text(encoding="utf-8")
(CLUSTER,) = re.findall(r"as `cluster\.py`:\n\n```python\n(.*?)```", PAGE, re.S)
SBATCH = """#!/bin/sh
cp "$1" "$JOBS/job.sh"
sh "$JOBS/job.sh" >"$JOBS/said" 2>&1 &
echo "Submitted batch job 1"
"""


def test_the_teachers_cluster_runs_a_point_a_job_and_says_where_it_is(monkeypatch, capsys):
    made = []

    class SLURMCluster:
        scheduler_address = "tcp://10.0.0.1:40000"

        def __init__(self, **options):
            made.append(options)

        def scale(self, *, jobs):
            made.append(jobs)

    monkeypatch.setitem(sys.modules, "dask_jobqueue", SimpleNamespace(SLURMCluster=SLURMCluster))
    monkeypatch.setattr("builtins.input", lambda prompt: made.append(prompt))
    exec(compile(CLUSTER, "cluster.py", "exec"), {})
    options, jobs, asked = made
    assert (options["cores"], options["python"]) == (1, sys.executable)
    assert jobs > 1
    assert asked.startswith("Enter")
    assert capsys.readouterr().out == f"{SLURMCluster.scheduler_address}\n"


@pytest.mark.once
def test_the_teachers_cluster_hands_its_jobs_to_slurm(tmp_path):
    """A stub of sbatch runs the job script here."""
    distributed = pytest.importorskip("distributed")
    (tmp_path / "packages").mkdir()
    install = ["install", "--quiet", "--no-deps", "--target", str(tmp_path / "packages"), "dask-jobqueue"]
    subprocess.run([sys.executable, "-m", "pip", *install], check=True)
    for name, text in (("sbatch", SBATCH), ("scancel", "#!/bin/sh\n")):
        (tmp_path / name).write_text(text, encoding="utf-8")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "cluster.py").write_text(CLUSTER.replace("jobs=20", "jobs=1"), encoding="utf-8")
    more = {"JOBS": str(tmp_path), "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    more["PYTHONPATH"] = os.pathsep.join(filter(None, [str(tmp_path / "packages"), os.environ.get("PYTHONPATH")]))
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    command = [sys.executable, "-u", "cluster.py"]
    process = subprocess.Popen(command, cwd=tmp_path, env=os.environ | more, text=True, **pipes)
    try:
        with distributed.Client(process.stdout.readline().strip(), timeout=30, set_as_default=False) as client:
            client.wait_for_workers(1, timeout=120)
            assert [*client.nthreads().values()] == [1]
            assert {*client.run(lambda: sys.executable).values()} == {sys.executable}
    finally:
        process.communicate("\n", timeout=60)
    assert process.returncode == 0
    assert "#SBATCH --cpus-per-task=4" in (tmp_path / "job.sh").read_text(encoding="utf-8")
