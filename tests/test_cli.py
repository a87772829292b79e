"""The command line without kernels: usage, what is refused and how, lab, check."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import click
import nbformat
import pytest
from _cli import status_of
from nbformat.v4 import new_code_cell, new_notebook

import mlkernels
from mlkernels import datasets
from mlkernels.commands import main
from mlkernels.commands.options import TypedPath
from mlkernels.course import installation
from mlkernels.errors import InputError
from mlkernels.runner import jobs as job_plans
from mlkernels.runner import notebooks, parameters, pool
from mlkernels.runner.parameters import Parameter

RANGED = """from typing import Optional

seeds: Optional[int] = None
rate: float = 0.1
data: str = "auto"
checkpoints: Optional[str] = None
"""
CHOOSE = """presets.choose(
    preset, SIZES, seeds=seeds, rate=rate, data=data, checkpoints=checkpoints,
    ranges={"seeds": (2, None), "rate": (0.0, 0.5), "data": ["auto", "glyphs"], "checkpoints": "folder"},
)"""
PARAMETERS = """preset: str = "quick"  # quick | class | full
seed: int = 0  # what every key comes from
width: int | None = None  # units in a layer; a == b
rate: float = 0.1
flow: bool = False  # gradient flow
name: "str" = "sine"
steps = 5
limit = math.inf
"""


def write(folder, name, *sources, parameters=PARAMETERS):
    cells = [new_code_cell(source) for source in sources]
    if parameters:
        cells.insert(0, new_code_cell(parameters, metadata={"tags": ["parameters"]}))
    folder.mkdir(exist_ok=True)
    nbformat.write(new_notebook(cells=cells), folder / f"{name}.ipynb")


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "notebooks", "00_start")
    write(tmp_path / "notebooks", "01_derive", parameters=PARAMETERS + "tasks: int = 3\n")
    write(tmp_path / "notebooks", "02_plain", parameters="")
    return tmp_path / "notebooks"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["7"], ["00_start, 01_derive, 02_plain", "'7'"]),
        (["--preset", "huge"], ["quick, class, full", "'huge'"]),
        (["--set", "widht=3"], ["'widht'", "preset: str = 'quick'", "width: int | None = None", "tasks: int = 3"]),
        (["00", "--set", "tasks=3"], ["'tasks'", "seed: int = 0"]),
        (["02", "--set", "seed=3"], ["they have: none"]),
        (["--set", "seed"], ["key=value"]),
        (["--set", "=3"], ["key=value"]),
        (["--set", "preset=full"], ["use --preset full"]),
        (["--set", "preset=quick,class"], ["use --preset with one of quick, class, full"]),
        (["--set", "seed=1.5"], ["--set seed: expected int (default 0), got '1.5'"]),
        (["--set", "seed=none"], ["expected int"]),
        (["--set", "width=wide"], ["int | None".replace("|", "or"), "'wide'"]),
        (["--set", "rate=fast"], ["expected float", "'fast'"]),
        (["--set", "rate=nan"], ["expected float"]),
        (["--set", "flow=maybe"], ["expected bool"]),
        (["--jobs", "0"], ["--jobs"]),
        (["--timeout-cell", "soon"], ["--timeout-cell"]),
        (["--no-such-option"], ["--no-such-option"]),
    ],
)
def test_what_is_refused_gets_one_line_and_status_2(folder, tmp_path, capsys, arguments, said):
    out = tmp_path / "out"
    assert status_of("run", *arguments, "--notebooks", folder, "--out", out) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1
    for words in said:
        assert words in shown.err
    assert not out.exists()


@pytest.fixture
def ranged(tmp_path):
    write(tmp_path / "ranged", "03_ranged", "%matplotlib inline", CHOOSE, parameters=RANGED)
    return tmp_path / "ranged"


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("seeds=1", "--set seeds: expected a whole number of at least 2, got 1; choose such a number"),
        ("rate=inf", "--set rate: expected a number from 0.0 to 0.5, got inf; choose such a number"),
        ("rate=-0.1", "--set rate: expected a number from 0.0 to 0.5, got -0.1; choose such a number"),
        ("data=omniglot", "--set data: expected auto or glyphs, got 'omniglot'; name one of them"),
        ("checkpoints=", "--set checkpoints: expected the path of a folder, got ''; name one"),
        ("checkpoints=~nobody_of_this_name/x", "of no known user; write ./~ for a ~"),
    ],
)
def test_a_value_outside_the_range_that_the_notebook_says_is_refused_at_once(ranged, capsys, setting, said):
    assert status_of("run", "--notebooks", ranged, "--set", setting, "--out", ranged / "out") == 2
    shown = capsys.readouterr().err
    assert said in shown
    assert shown.count("\n") == 1
    assert not (ranged / "out").exists()


def test_a_range_that_is_computed_is_left_to_the_notebook(tmp_path):
    write(tmp_path, "03_computed", CHOOSE.replace("0.5", "limit"), parameters=RANGED)
    (job,), _ = job_plans.plan(tmp_path, [], tmp_path / "out", "quick", ["seeds=1"])
    assert job.parameters == {"seeds": 1}


def test_a_folder_for_a_notebook_is_the_callers(ranged, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for text, path in (("ck", "here/ck"), ("~/ck", "home/ck"), ("../ck", "ck"), (str(tmp_path / "x"), "x")):
        (job,), _ = job_plans.plan(ranged, [], None, "quick", [f"checkpoints={text}"])
        assert os.path.normpath(job.parameters["checkpoints"]) == str(tmp_path / path)
    assert job_plans.plan(ranged, [], None, "quick", ["checkpoints=none"])[0][0].parameters == {"checkpoints": None}


def commands(group=main.cli, name="mlkernels"):
    """(name, command) of all commands."""
    for word, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, f"{name} {word}")
        else:
            yield f"{name} {word}", command


each_command = pytest.mark.parametrize(("name", "command"), [*commands()], ids=[name for name, _ in commands()])


@each_command
def test_bad_usage_points_to_the_commands_own_help(name, command, capsys):
    lab = "ignore_unknown_options" in command.context_settings  # they are JupyterLab's; this one lacks its value
    assert status_of(*name.split()[1:], "--notebooks" if lab else "--no-such-option") == 2
    shown = capsys.readouterr().err
    assert shown.endswith(f"; see {name} --help\n")
    assert shown.count("\n") == 1


@pytest.mark.parametrize("command", ["run 9", "lab 9", "sweep 9 --grid seed=1", "export student 9 --out x"])
def test_a_notebook_that_there_is_not_points_to_no_other_command(folder, capsys, command):
    assert status_of(*command.split(), "--notebooks", folder) == 2
    shown = capsys.readouterr().err
    assert "of 00_start, 01_derive, 02_plain, got '9'" in shown
    assert {*re.findall(r"see mlkernels (\w+)", shown)} <= {command.split()[0]}


@each_command
def test_every_path_of_every_command_is_the_callers(name, command):
    options = command.get_params(click.Context(command))
    paths = [one for one in options if isinstance(one.type, click.Path | click.File)]
    assert [one.name for one in paths if not isinstance(one.type, TypedPath)] == []
    words = ("claims", "checkpoint", "folder", "notebooks", "out", "path", "pictures", "source")
    others = [one.name for one in options if one not in paths and one.name in words]
    assert others == [], "a path by its name and not by its type"


def test_a_tilde_that_the_shell_has_left_is_the_home_folder(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path / "notebooks")
    ran = []
    monkeypatch.setattr(pool, "run", lambda work, **options: ran.extend(work) or [])
    assert status_of("run", "02", "--notebooks", "~/notebooks", "--out", "~/out") == 0
    assert ran[0].target == tmp_path / "out" / "02_plain.ipynb"
    assert (tmp_path / "out" / "claims.json").exists()
    assert not (tmp_path / "notebooks" / "~").exists()
    for arguments in (["--out", ""], ["--out", " "], ["--out", "~nobody_of_this_name/x"]):
        assert status_of("run", "--notebooks", "~/notebooks", *arguments) == 2


def test_a_notebooks_path_means_that_file(folder, tmp_path, monkeypatch, capsys):
    write(tmp_path / "copies", "01_derive", "x = 1")
    monkeypatch.chdir(tmp_path)
    assert status_of("run", "copies/01_derive.ipynb", "--notebooks", folder) == 2
    assert "add --notebooks copies" in capsys.readouterr().err
    (job,), _ = job_plans.plan(tmp_path / "copies", ["copies/01_derive.ipynb"], None, "quick", [])
    assert job.source == tmp_path / "copies" / "01_derive.ipynb"
    (job,), _ = job_plans.plan(folder, ["notebooks/01_derive.ipynb"], None, "quick", [])
    assert job.source == folder / "01_derive.ipynb"


GENOTYPE = "N: sk<0 mp<1 | sk<1 mp<2 | sk<0 sk<2 R: mp<0 mp<1 | mp<1 sk<2 | sk<2 sk<3"


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "--out"],
        ["sweep", "01", "--grid", "seed=0:2", "--out"],
        ["nas", "search", "--data", "glyphs", "--out"],
        ["nas", "train", GENOTYPE, "--data", "glyphs", "--out"],
        ["nas", "compare", "--data", "glyphs", "--out"],
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)
@pytest.mark.parametrize("place", ["file/inside", "file/in/side", "nowhere/inside", "dangling/inside", "x" * 300])
def test_a_place_that_cannot_be_written_to_gets_one_line_and_status_2(folder, tmp_path, capsys, arguments, place):
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to(tmp_path / "none")
    place = Path("/proc/none/inside") if place.startswith("nowhere") and Path("/proc").is_dir() else tmp_path / place
    more = ["--notebooks", folder] if arguments[0] in ("run", "sweep") else []
    assert status_of(*arguments, place, *more) == 2
    shown = capsys.readouterr()
    assert shown.err.count("\n") == 1
    assert shown.err.startswith("mlkernels: ")
    assert shown.out == ""


@pytest.mark.parametrize(
    "arguments",
    [["--episodes", "1"], ["--repeats", "0"], ["--seeds", "0"], ["--channels", "20"], ["--channels", "40960"]],
)
def test_what_a_comparison_cannot_use_is_refused_before_it_trains(tmp_path, monkeypatch, capsys, arguments):
    monkeypatch.setattr(
        "mlkernels.nas.evaluation.compare.trained_accuracies", lambda *given, **told: pytest.fail("it trains")
    )
    assert status_of("nas", "compare", "--data", "glyphs", *arguments, "--out", tmp_path / "out.json") == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"classes": 24, "drawings": 20}, "images: expected at most 300 in 3 batches, got 3000"),
        ({"classes": 250, "drawings": 15}, "shot + queries: expected at most the 15 images of class"),
    ],
)
def test_a_comparison_refuses_data_that_its_last_step_cannot_use_before_the_first(
    tmp_path, monkeypatch, capsys, given, said
):
    few = datasets.load("glyphs", **given)
    monkeypatch.setattr(datasets, "load", lambda name: few)
    monkeypatch.setattr(
        "mlkernels.nas.evaluation.compare.trained_accuracies", lambda *given, **told: pytest.fail("it trains")
    )
    assert status_of("nas", "compare", "--data", "glyphs", "--out", tmp_path / "out.json") == 2
    shown = capsys.readouterr().err
    assert said in shown
    assert shown.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_disk_that_is_full_at_the_end_gets_one_line_and_status_2(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(pool, "run", lambda *given, **options: [])

    def full(*given, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mlkernels.runner.report.write_report", full)
    assert status_of("run", "02", "--notebooks", folder, "--out", tmp_path / "out") == 2
    shown = capsys.readouterr().err
    assert "No space left on device; make room" in shown
    assert shown.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("said", ["INTERNAL: Error dispatching computation:\nOut of memory allocating 8 bytes.", ""])
def test_memory_that_runs_out_in_the_middle_gets_one_line_and_status_2(said, folder, tmp_path, monkeypatch, capsys):
    def take(*given, **options):
        raise RuntimeError(said) if said else MemoryError

    monkeypatch.setattr(pool, "run", take)
    assert status_of("run", "02", "--notebooks", folder, "--out", tmp_path / "out") == 2
    shown = capsys.readouterr().err
    assert shown.startswith("mlkernels: memory: expected")
    assert shown.count("\n") == 1
    monkeypatch.setattr(pool, "run", lambda *given, **options: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main.main(["run", "02", "--notebooks", str(folder), "--out", str(tmp_path / "out")])


def test_no_notebooks_is_said_with_the_folder(tmp_path, capsys):
    assert status_of("run", "--notebooks", tmp_path) == 2
    assert str(tmp_path) in capsys.readouterr().err


def test_a_broken_notebook_file_is_named(folder, capsys):
    (folder / "01_derive.ipynb").write_text('{"cells": [')
    assert status_of("run", "--notebooks", folder) == 2
    shown = capsys.readouterr().err
    assert "01_derive.ipynb" in shown
    assert shown.count("\n") == 1


def test_executed_notebooks_may_not_replace_the_sources(folder, capsys):
    assert status_of("run", "--notebooks", folder, "--out", folder) == 2
    assert "replace the sources" in capsys.readouterr().err


def test_parameters_are_read_with_types_defaults_and_help(folder):
    known = parameters.parameters_of(notebooks.read_notebook(folder / "00_start.ipynb"))
    assert list(known) == ["preset", "seed", "width", "rate", "flow", "name", "steps", "limit"]
    assert known["width"] == Parameter("width", ("int", "None"), "None", "units in a layer; a == b")
    assert known["name"].types == ("str",)
    assert known["steps"].types == ("int",)
    assert known["limit"].types == ("float",)
    assert parameters.parameters_of({"cells": []}) == {}


@pytest.mark.parametrize(
    ("types", "text", "value"),
    [
        (("int",), "-3", -3),
        (("float",), "inf", math.inf),
        (("float",), "1e-3", 1e-3),
        (("float",), "2", 2.0),
        (("str",), "a=b, c", "a=b, c"),
        (("bool",), "True", True),
        (("bool",), "0", False),
        (("int", "None"), "none", None),
        (("None", "float", "int"), "3", 3),
        (("float", "int"), "3.5", 3.5),
        (parameters._types("Optional[int]"), "None", None),
    ],
)
def test_values_get_their_type(types, text, value):
    converted = parameters.convert(Parameter("x", types, "0"), text)
    assert converted == value
    assert type(converted) is type(value)


def test_a_type_that_no_text_has_is_refused():
    with pytest.raises(InputError, match="expected list"):
        parameters.convert(Parameter("x", ("list",), "[]"), "[1]")


def test_settings_go_to_the_notebooks_that_have_them(folder):
    jobs, out = job_plans.plan(folder, [], None, "class", ["tasks=4", "seed=2"])
    assert out == folder.parent / "build" / "class"
    assert [job.parameters for job in jobs] == [
        {"preset": "class", "seed": 2},
        {"preset": "class", "tasks": 4, "seed": 2},
        {},
    ]
    assert [job.seed for job in jobs] == [0, 0, None]


def test_names_are_prefixes_or_paths_in_the_courses_order(folder):
    found = notebooks.find_notebooks(folder)
    assert list(notebooks.choose_notebooks(found, ["01", "00_st"])) == ["00_start", "01_derive"]
    assert list(notebooks.choose_notebooks(found, ["notebooks/02_plain.ipynb", "02"])) == ["02_plain"]


def test_the_fingerprint_follows_all_that_a_result_depends_on(folder, tmp_path, monkeypatch):
    notebook = notebooks.read_notebook(folder / "00_start.ipynb")
    package = tmp_path / "package"
    package.mkdir()
    (package / "a.py").write_text("x = 1")

    def now(**values):
        return job_plans.fingerprint(notebook, values, job_plans.package_hash(package))

    marks = [now(), now(seed=1), now(seed=2), now(seed=2.0)]
    (package / "a.py").write_text("x = 2")
    marks.append(now())
    monkeypatch.setenv("MLKERNELS_DATA", "/somewhere")
    marks.append(now())
    notebook["cells"][0]["source"] += "\n"
    marks.append(now())
    monkeypatch.setattr(job_plans, "versions", lambda: {"jax": "9"})
    marks.append(now())
    marks.append(job_plans.fingerprint(notebook, {}, job_plans.package_hash(package), {"omniglot": "1"}))
    assert len(set(marks)) == len(marks)
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "/elsewhere")
    notebook["cells"][0]["outputs"] = ["new"]
    assert now() == marks[-2]


def test_a_notebook_that_ran_on_other_data_is_not_kept(folder, tmp_path, monkeypatch):
    data = tmp_path / "data"
    data.mkdir()
    monkeypatch.setenv("MLKERNELS_DATA", str(data))

    def marks():
        return [job.fingerprint for job in job_plans.plan(folder, [], None, "quick", [])[0]]

    (data / "omniglot_28.npz").write_bytes(b"one")
    before = marks()
    assert marks() == before
    (data / "omniglot_28.npz").write_bytes(b"two")
    assert not set(marks()) & set(before)


def test_kernels_share_a_cache_of_compiled_code_unless_the_user_has_one(tmp_path, monkeypatch):
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.delenv("XLA_PYTHON_CLIENT_PREALLOCATE", raising=False)
    environment = pool.kernel_environment(tmp_path)
    assert environment["JAX_COMPILATION_CACHE_DIR"].startswith(str(tmp_path / "build" / "jax_cache"))
    assert "XLA_PYTHON_CLIENT_PREALLOCATE" not in environment
    assert pool.kernel_environment(tmp_path, 2)["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "")
    assert pool.kernel_environment(tmp_path)["JAX_COMPILATION_CACHE_DIR"].startswith(str(tmp_path))
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "mine")
    assert pool.kernel_environment(tmp_path)["JAX_COMPILATION_CACHE_DIR"] == "mine"


def test_a_cache_of_the_users_is_where_the_command_was_given_and_not_beside_the_notebooks(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for given, meant in (("mine", str(tmp_path / "mine")), ("gs://bucket/x", "gs://bucket/x")):
        monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", given)
        assert status_of("--version") == 0
        assert os.environ["JAX_COMPILATION_CACHE_DIR"] == meant


def test_a_cache_entry_that_another_process_is_writing_is_no_warning(tmp_path, monkeypatch):
    """JAX compiles anew what it cannot read. All other warnings stay, and so do the user's filters."""
    monkeypatch.setenv("PYTHONWARNINGS", "ignore:mine")
    said = "Error reading persistent compilation cache entry for 'jit_f': incomplete", "mine", "another"
    code = f"import warnings\nfor text in {said}: warnings.warn(text)"
    environment = pool.kernel_environment(tmp_path)
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stderr.count("Warning") == 1
    assert "UserWarning: another" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "name", "extra"),
    [
        ([], "00_start", []),
        (["01"], "01_derive", []),
        (["01", "--", "--no-browser", "--port=1"], "01_derive", ["--no-browser", "--port=1"]),
        (["--", "--no-browser"], "00_start", ["--no-browser"]),
    ],
)
def test_lab_opens_jupyterlab_of_this_interpreter(folder, monkeypatch, arguments, name, extra):
    called = []
    monkeypatch.setattr(main.os, "execve", lambda *call: called.append(call))
    assert status_of("lab", "--notebooks", folder, *arguments) == 0
    command = [sys.executable, "-m", "jupyterlab", str(folder / f"{name}.ipynb"), *extra]
    ((program, given, environment),) = called
    assert (program, given) == (sys.executable, command)
    first, *rest = environment.pop("JUPYTER_CONFIG_PATH").split(os.pathsep)
    assert rest == os.environ.get("JUPYTER_CONFIG_PATH", "").split(os.pathsep)[: len(rest)]
    expected = pool.kernel_environment(folder.resolve().parent)
    expected.pop("JUPYTER_CONFIG_PATH", None)
    assert environment == expected
    defaults = json.loads(Path(first, "labconfig", "default_setting_overrides.json").read_text(encoding="utf-8"))
    assert defaults == {NOTIFICATION: {"fetchNews": "false", "checkForUpdates": False}}


NOTIFICATION = "@jupyterlab/apputils-extension:notification"


def test_jupyterlab_finds_the_defaults_that_lab_gives_it(monkeypatch):
    from jupyterlab_server.settings_utils import _get_overrides

    monkeypatch.setenv("JUPYTER_CONFIG_PATH", str(Path(main.__file__).with_name("jupyter")))
    overrides, error = _get_overrides("no/such/folder")
    assert not error
    assert overrides[NOTIFICATION]["fetchNews"] == "false"


def test_lab_with_an_unknown_name(folder, capsys):
    assert status_of("lab", "9", "--notebooks", folder) == 2
    assert "00_start, 01_derive" in capsys.readouterr().err


def test_check_prints_remedies_and_status(monkeypatch, capsys):
    monkeypatch.setattr(installation, "check", lambda: [installation.Finding("a", "1")])
    assert status_of("check") == 0
    assert "all is well" in capsys.readouterr().out
    monkeypatch.setattr(
        installation,
        "check",
        lambda: [installation.Finding("a", "1"), installation.Finding("b", "2", False, "do this")],
    )
    assert status_of("check") == 1
    shown = capsys.readouterr()
    assert shown.err == "b: do this\n"
    assert "WRONG b" in shown.out


def test_version_and_help(capsys):
    assert status_of("--version") == 0
    assert mlkernels.__version__ in capsys.readouterr().out
    assert status_of("--help") == 0
    shown = capsys.readouterr().out
    assert all(command in shown for command in ("run", "sweep", "lab", "data", "nas", "check"))
    assert "..." not in shown.split("Commands:")[1]
    assert status_of() == 2


def test_the_tree_is_told_alike_by_the_package_the_readme_and_the_command(capsys):
    tree = [line.strip() for line in mlkernels.__doc__.splitlines() if line.startswith("    ")]
    folders = sorted(path.parent.name for path in Path(mlkernels.__file__).parent.glob("*/__init__.py"))
    assert sorted(re.findall(r"(\w+)/ ", " ".join(tree))) == folders
    assert len(tree) <= 10
    status_of()
    shown = capsys.readouterr()
    readme = (Path(mlkernels.__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    for line in tree:
        assert line in shown.out + shown.err
        assert line in readme


def test_the_command_line_starts_without_anything_heavy():
    heavy = ("jax", "numpy", "papermill", "nbconvert", "nbformat", "IPython", "ipywidgets", "matplotlib", "jinja2")
    imports = "import sys, mlkernels.commands.main, mlkernels.runner.pool"
    script = f"{imports}; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_python_m_mlkernels():
    done = subprocess.run([sys.executable, "-m", "mlkernels", "--version"], capture_output=True, text=True, check=True)
    assert mlkernels.__version__ in done.stdout
