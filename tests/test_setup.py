"""The set-up: lock, environment file, Makefile, notebooks' frame, and who may import whom."""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import nbformat
import pytest
import yaml
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
PYTHONS = ("3.11", "3.12", "3.13")
UNWANTED = {"tensorflow", "tf2jax", "keras"}
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
DEPENDENCIES = [Requirement(text) for text in PYPROJECT["project"]["dependencies"]]
DEVELOPMENT = [Requirement(text) for text in PYPROJECT["dependency-groups"]["dev"]]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))

# The course's notebooks, also those still to come.
COURSE = {
    "00_start_here",
    "01_derive_metantk",
    "02_maml_linear_rate",
    "03_anil_inner_loop_geometry",
    "04_metantk_nas",
    "05_meta_learning_in_rkhs",
    "06_function_space_adaptation",
    "07_which_weights_adapt",
    "08_more_steps_fewer_samples",
    "09_one_bilevel_problem",
    "10_few_iterations",
}


def sources() -> list[Path]:
    return sorted((ROOT / "mlkernels").rglob("*.py"))


def tracked() -> list[Path]:
    """The files that git tracks or would track; without git, all but what is made."""
    if (ROOT / ".git").exists() and shutil.which("git"):
        command = ["git", "ls-files", "-co", "--exclude-standard", "-z"]
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if listed.returncode == 0:
            return [path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file()]
    made = {".git", ".venv", "build", "__pycache__", ".pytest_cache", ".ruff_cache", ".hypothesis"}
    return [path for path in ROOT.rglob("*") if path.is_file() and not made & set(path.relative_to(ROOT).parts)]


# --- the lock ---------------------------------------------------------------------------------------------------------


@functools.cache
def lock() -> tuple[tuple[Requirement, tuple[str, ...]], ...]:
    """The lock's entries: requirement and hashes."""
    text = (ROOT / "requirements.txt").read_text(encoding="utf-8").replace("\\\n", " ")
    entries = []
    for line in filter(None, map(str.strip, text.splitlines())):
        requirement, *hashes = re.split(r"\s+--hash=", line)
        entries.append((Requirement(requirement), tuple(hashes)))
    return tuple(entries)


def locked(python: str, system: str = "linux") -> dict[str, Version]:
    """What the lock installs on a Python and a system."""
    environment = default_environment() | {
        "python_version": python,
        "python_full_version": f"{python}.9",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        "sys_platform": system,
        "platform_system": {"linux": "Linux", "darwin": "Darwin"}[system],
        "os_name": "posix",
    }
    versions: dict[str, Version] = {}
    for requirement, _ in lock():
        if requirement.marker is None or requirement.marker.evaluate(environment):
            name = canonicalize_name(requirement.name)
            assert name not in versions, f"{name} is locked twice for Python {python}"
            (pin,) = requirement.specifier
            versions[name] = Version(pin.version)
    return versions


def test_every_locked_requirement_is_pinned_and_hashed():
    assert len(lock()) > 100
    for requirement, hashes in lock():
        assert [pin.operator for pin in requirement.specifier] == ["=="], requirement
        assert hashes, requirement
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", digest) for digest in hashes), requirement


def test_the_lock_leaves_tensorflow_out():
    assert not UNWANTED & {canonicalize_name(requirement.name) for requirement, _ in lock()}


@pytest.mark.parametrize("system", ["linux", "darwin"])
@pytest.mark.parametrize("python", PYTHONS)
def test_the_lock_satisfies_pyproject(python, system):
    versions = locked(python, system)
    for requirement in DEPENDENCIES + DEVELOPMENT:
        name = canonicalize_name(requirement.name)
        assert name in versions, f"{name} is not in the lock: make lock"
        assert requirement.specifier.contains(versions[name]), f"{requirement}: locked {versions[name]}: make lock"


def test_what_is_installed_fits_together():
    """As `pip check` would say, but for what neural-tangents declares and nothing here uses."""
    problems = []
    for name in locked(f"{sys.version_info[0]}.{sys.version_info[1]}"):
        try:
            needs = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue  # locked for another system, or this is not the lock's environment
        for requirement in map(Requirement, needs):
            if canonicalize_name(requirement.name) in UNWANTED:
                continue
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                try:
                    version = importlib.metadata.version(requirement.name)
                except importlib.metadata.PackageNotFoundError:
                    version = None
                if version is None or not requirement.specifier.contains(version, prereleases=True):
                    problems.append(f"{name} needs {requirement}, found {version}")
    assert not problems


def test_gpu_extras_are_jaxs_own():
    (jax,) = (requirement for requirement in DEPENDENCIES if requirement.name == "jax")
    offered = importlib.metadata.metadata("jax").get_all("Provides-Extra")
    for extra, cuda in {"gpu": "cuda13", "gpu-cuda12": "cuda12"}.items():
        (requirement,) = map(Requirement, PYPROJECT["project"]["optional-dependencies"][extra])
        assert (requirement.name, requirement.extras, requirement.specifier) == ("jax", {cuda}, jax.specifier)
        assert cuda in offered


def test_the_other_extras_are_what_the_tests_use():
    extras = PYPROJECT["project"]["optional-dependencies"]
    asked = [Requirement(text) for name, texts in extras.items() if not name.startswith("gpu") for text in texts]
    development = {requirement.name: requirement.specifier for requirement in DEVELOPMENT}
    assert {each.name: each.specifier for each in asked} == {each.name: development[each.name] for each in asked}
    assert not {each.name for each in asked} & {each.name for each in DEPENDENCIES}


# --- index hosts ------------------------------------------------------------------------------------------------------


def test_no_package_index_is_named_anywhere():
    """Which index to use is the user's business (pip's configuration), and mirrors must work."""
    hosts = ["pypi." + "org", "python" + "hosted.org", "npm" + "js.org", "npm" + "js.com", "deb.deb" + "ian.org"]
    hosts += ["ana" + "conda.org", "ana" + "conda.com", "download.py" + "torch.org", "proxy.go" + "lang.org"]
    hosts += ["--index" + "-url", "--extra-index" + "-url", "--find" + "-links"]
    pattern = re.compile("|".join(map(re.escape, hosts)).encode())
    found = [
        f"{path.relative_to(ROOT)}: {hit[0].decode()}"
        for path in tracked()
        for hit in pattern.finditer(path.read_bytes())
    ]
    assert not found


# --- conda ------------------------------------------------------------------------------------------------------------

CONDA_NAMES = {
    "matplotlib-base": "matplotlib",
    "jupyterlab_widgets": "jupyterlab-widgets",
    "playwright-python": "playwright",
}


def environment() -> tuple[dict[str, SpecifierSet], list[str]]:
    """The environment file's conda packages, by their names for pip, and its pip section."""
    document = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    assert document["channels"][0] == "conda-forge"
    conda: dict[str, SpecifierSet] = {}
    sections = []
    for entry in document["dependencies"]:
        if isinstance(entry, dict):
            sections.append(entry["pip"])
            continue
        name, _, bound = entry.partition(" ")
        name = canonicalize_name(CONDA_NAMES.get(name, name))
        assert name not in conda, f"{name} twice"
        conda[name] = SpecifierSet(bound)
    (pip,) = sections
    return conda, pip


def test_environment_file_and_pyproject_agree():
    conda, pip = environment()
    assert "-e ." in pip
    by_pip = {
        canonicalize_name(r.name): r.specifier for r in map(Requirement, (line for line in pip if line != "-e ."))
    }
    assert not set(conda) & set(by_pip), "a package belongs in one of the two lists"
    assert conda.pop("python") == SpecifierSet(PYPROJECT["project"]["requires-python"])
    conda.pop("pip")
    declared = {canonicalize_name(r.name): r.specifier for r in DEPENDENCIES + DEVELOPMENT}
    assert conda | by_pip == declared


@pytest.mark.slow
def test_pip_section_of_environment_file_installs(tmp_path):
    """In a clean environment, with only what conda would have brought for the build."""
    _, pip = environment()
    variables = re.search(
        r"((?:PIP_\w+=\w+ )+)conda env create", (ROOT / "environment.yml").read_text(encoding="utf-8")
    )
    settings = dict(pair.split("=") for pair in variables[1].split())
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "env")], check=True)
    python = str(tmp_path / "env" / "bin" / "python")
    clean = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "PIP_NO_DEPS"}}
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--retries=1", "--timeout=20"]

    build = [f"{name}=={locked('3.11')[name]}" for name in ("flit-core",)]
    first = subprocess.run([*install, *build], env=clean, capture_output=True, text=True, check=False)
    if first.returncode:
        pytest.skip(f"no package index in reach: {first.stderr.strip().splitlines()[-1]}")
    (tmp_path / "source").mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path / "source" / name)
    shutil.copytree(ROOT / "mlkernels", tmp_path / "source" / "mlkernels")
    lines = tmp_path / "source" / "pip.txt"  # conda too writes the section into a file beside the environment file
    lines.write_text("\n".join(pip), encoding="utf-8")
    second = subprocess.run(
        [*install, "-r", str(lines)],
        env=clean | settings,
        cwd=lines.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert second.returncode == 0, second.stderr
    listed = subprocess.run(
        [python, "-m", "pip", "list", "--format=freeze"], capture_output=True, text=True, check=True
    ).stdout
    names = {canonicalize_name(line.partition("==")[0]) for line in listed.splitlines()}
    assert {"mlkernels", "neural-tangents"} <= names
    assert not UNWANTED & names


# --- make -------------------------------------------------------------------------------------------------------------

# A Python that keeps a diary: `-m venv F` puts a copy of itself into F, `-m pip` fails while BROKEN exists.
STUB = """#!/bin/sh
echo "$*" >>"{folder}/diary"
case "$*" in
    *version_info*) echo {version} ;;
    "-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
    *ensurepip*) {ensurepip} ;;
    "-m pip "*"install --require-hashes"*) [ ! -e "{folder}/BROKEN" ] ;;
esac
"""


@pytest.fixture
def checkout(tmp_path):
    """A checkout with a space in its name, and a stub in the place of Python: (folder, make)."""
    if not shutil.which("make"):
        pytest.skip("make is not installed")
    folder = tmp_path / "a course"
    shutil.copytree(ROOT / "tools", folder / "tools")
    for name in ("Makefile", "requirements.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, folder / name)

    def make(*arguments, version="3.12", ensurepip=":", python=None):
        stub = folder / "stub"
        stub.write_text(STUB.format(folder=folder, version=version, ensurepip=ensurepip), encoding="utf-8")
        stub.chmod(0o755)
        (folder / "diary").unlink(missing_ok=True)
        plain = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
        return subprocess.run(
            ["make", *arguments, f"PYTHON={python or './stub'}"],
            cwd=folder,
            env=plain | {"PYTHONPATH": "/nowhere", "NAME": "not-a-notebook"},
            capture_output=True,
            text=True,
            check=False,
        )

    return folder, make


def test_make_sets_up_once(checkout):
    folder, make = checkout
    first = make("lint")
    assert first.returncode == 0, first.stderr
    assert first.stdout.splitlines()[0].startswith("Setting up .venv")
    assert "install --require-hashes --no-deps -r requirements.txt" in (folder / "diary").read_text()
    assert "install --no-deps --no-build-isolation -e ." in (folder / "diary").read_text()
    second = make("lint")
    assert second.returncode == 0
    ran = (folder / "diary").read_text().splitlines()
    assert ran[:2] == ["-m ruff check .", "-m ruff format --check ."]
    assert "lint_imports_command" in ran[2]
    assert len(ran) == 3


def test_a_new_lock_brings_the_environment_up_to_date(checkout):
    folder, make = checkout
    make("lint")
    (folder / "requirements.txt").write_text("# another\n", encoding="utf-8")
    os.utime(folder / ".venv" / ".installed", (0, 0))
    again = make("lint")
    assert again.stdout.splitlines()[0] == "Bringing .venv up to date"
    assert "-m venv .venv" not in (folder / "diary").read_text()


def test_a_failed_set_up_says_so_and_is_repaired(checkout):
    folder, make = checkout
    (folder / "BROKEN").touch()
    failed = make("lint")
    assert failed.returncode != 0
    assert "The same command tries again" in failed.stderr
    assert not (folder / ".venv" / ".installed").exists()
    (folder / "BROKEN").unlink()
    assert make("lint").returncode == 0
    assert (folder / ".venv" / ".installed").exists()


def test_a_set_up_that_was_cut_off_is_made_anew(checkout):
    folder, make = checkout
    make("lint")
    os.utime(folder / ".venv" / ".installed", (0, 0))
    (folder / ".venv" / ".installed").unlink()
    (folder / ".venv" / ".setting-up").write_text("999999999\n")  # no process has this number
    (folder / ".venv" / "half").touch()
    again = make("lint")
    assert again.returncode == 0, again.stderr
    assert "making it anew" in again.stdout
    assert not (folder / ".venv" / "half").exists()


def test_two_set_ups_do_not_mix(checkout):
    folder, make = checkout
    (folder / ".venv").mkdir()
    (folder / ".venv" / ".setting-up").write_text(f"{os.getpid()}\n")
    refused = make("lint")
    assert refused.returncode != 0
    assert "is being set up" in refused.stderr
    assert (folder / ".venv" / ".setting-up").exists()


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"version": "3.10"}, "is Python 3.10, the course needs 3.11 to 3.13"),
        ({"version": "3.14"}, "is Python 3.14, the course needs 3.11 to 3.13"),
        ({"ensurepip": "exit 1"}, "apt install python3-venv"),
        ({"python": "no-such-python"}, "no-such-python does not run"),
    ],
)
def test_a_python_that_cannot_do_is_named_with_the_remedy(checkout, how, said):
    folder, make = checkout
    refused = make("lab", **how)
    assert refused.returncode != 0
    spoken = [line for line in refused.stderr.splitlines() if not line.startswith("make")]
    assert len(spoken) == 1
    assert said in spoken[0]
    assert not (folder / ".venv").exists()


def test_make_alone_lists_its_targets(checkout):
    _, make = checkout
    listed = {line.split()[0] for line in make().stdout.splitlines() if line.startswith("  ")}
    assert {"help", "run", "lab", "test", "bench", "lint", "lock", "clean", "gpu"} <= listed


# --- the tree ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_carries_no_outputs_and_has_its_frame(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert path.stem in COURSE
    assert "widgets" not in notebook.metadata, "saved widget state"
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == [], cell.source[:80]
            assert cell.execution_count is None, cell.source[:80]
    (parameters,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    assigned = [node for node in ast.parse(parameters.source).body if isinstance(node, ast.AnnAssign)]
    assert {"preset", "seed"} <= {node.target.id for node in assigned}
    lines = parameters.source.splitlines()
    for node in assigned:
        assert "#" in lines[node.end_lineno - 1], f"{node.target.id} has no comment: papermill shows it as help"


def test_docstrings_name_notebooks_of_the_course():
    for path in sources():
        for name in re.findall(r"notebooks/(\d\d_\w+)", path.read_text(encoding="utf-8")):
            assert name in COURSE, f"{path.name} names notebooks/{name}"


def test_importing_the_package_imports_nothing_heavy():
    heavy = ["jax", "numpy", "matplotlib", "ipywidgets", "papermill", "nbconvert", "neural_tangents", "IPython"]
    code = f"import sys, mlkernels; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def private_imports(root: Path) -> list[str]:
    """Imports of what begins with an underscore, a module or a name in it, from outside its folder."""
    found = []
    for path in (*root.glob("mlkernels/**/*.py"), *root.glob("benchmarks/*.py"), *root.glob("tools/*.py")):
        here = path.relative_to(root).parent.parts
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith("mlkernels"):
                continue
            for name in node.names:
                parts = [*node.module.split("."), name.name]
                place = next((i for i, part in enumerate(parts) if part.startswith("_")), None)
                if place is None or parts[place] == "__version__":
                    continue
                folder = parts[:place]
                if root.joinpath(*folder).with_suffix(".py").is_file():  # a name in a module
                    folder = folder[:-1]
                if list(here[: len(folder)]) != folder:
                    found.append(f"{path.relative_to(root)}:{node.lineno}: {'.'.join(parts)}")
    return found


def test_what_begins_with_an_underscore_is_imported_in_its_own_folder_alone(tmp_path):
    assert private_imports(ROOT) == []
    (tmp_path / "mlkernels" / "a").mkdir(parents=True)
    wrong = "from mlkernels.a._c import d\nfrom mlkernels.a.e import _f\n"
    for name, text in (("a/b", wrong), ("a/e", "_f = 1\n"), ("g", wrong)):
        (tmp_path / "mlkernels" / f"{name}.py").write_text(text)
    found = private_imports(tmp_path)
    assert [text.split(": ")[1] for text in found] == ["mlkernels.a._c.d", "mlkernels.a.e._f"]
    assert all(text.startswith(str(Path("mlkernels") / "g.py")) for text in found)


def test_only_the_bridge_imports_neural_tangents():
    found = {
        path.stem
        for path in sources()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in [getattr(node, "module", None) or "", *(alias.name for alias in node.names)]
        if name.split(".")[0] == "neural_tangents"
    }
    assert found <= {"neural_tangents_bridge"}


def test_dotted_names_in_texts_exist():
    """A name in backticks, or after "see", of a module that has moved would send its reader nowhere."""
    wings = "nas|course|datasets|metantk|kernels|learners|runner|support|inner_loop|tasks|networks|widgets|plots|demos"
    named = re.compile(rf"(?:`|\bsee )((?:mlkernels|{wings})(?:\.[a-z_A-Z]\w*)+)")
    files = [ROOT / "README.md", *(ROOT / "notebooks").glob("*.ipynb"), *(ROOT / "mlkernels").rglob("*.py")]
    names = {name for file in files for name in named.findall(file.read_text(encoding="utf-8"))}
    assert len(names) > 20
    assert not [name for name in sorted(names) if not any(exists(f"{home}{name}") for home in HOMES)]


HOMES = "", "mlkernels.", "mlkernels.course."


def exists(name: str) -> bool:
    """Whether a dotted name is a module, or something in one."""
    module, *rest = name.split(".")
    found = importlib.import_module(module) if module == "mlkernels" else None
    for part in rest:
        if not hasattr(found, part):
            try:
                importlib.import_module(f"{found.__name__}.{part}")
            except (ImportError, AttributeError):
                return False
        found = getattr(found, part)
    return found is not None
