"""Add to a Python that others have set up, as Colab's, what the notebooks lack: `python tools/colab.py`.

The cell tagged `install` at each notebook's start runs it where mlkernels is missing. What is there and recent enough
stays; the rest comes from the lock, so without tensorflow. What serves notebooks is the other side's business, and
ipywidgets must match its page. Needs nothing but `packaging`, and does nothing where nothing is missing.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterable
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
SERVED = {  # what runs and shows notebooks; no cell of the course imports it
    *("ipykernel", "ipywidgets", "jupyterlab", "jupyterlab-widgets", "jupyter-server-mathjax"),
    *("nbclient", "nbconvert", "nbformat", "papermill"),
}


def locked(text: str) -> dict[str, str]:
    """The lines of a lock, name -> requirement with its hashes, that are meant for this Python and system."""
    found = {}
    for line in text.replace("\\\n", " ").splitlines():
        if line.strip():
            requirement = Requirement(re.split(r"\s--hash=", line)[0])
            if requirement.marker is None or requirement.marker.evaluate():
                found[canonicalize_name(requirement.name)] = line
    return found


def declared(pyproject: str) -> list[str]:
    """What the course needs of a Python that already shows notebooks."""
    needs = tomllib.loads(pyproject)["project"]["dependencies"]
    return [text for text in needs if canonicalize_name(Requirement(text).name) not in SERVED]


def lacking(needs: Iterable[str], lock: dict[str, str]) -> set[str]:
    """The names, of those in the lock, that these requirements ask for and that are missing here or too old.

    It goes on to what the packages that are here need themselves; what one that is still missing needs is known once
    it is installed.
    """
    found, seen, left = set(), set(), list(needs)
    while left:
        text = left.pop()
        requirement = Requirement(text)
        name = canonicalize_name(requirement.name)
        wanted = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if text in seen or not wanted or name not in lock or name in SERVED:
            continue
        seen.add(text)
        try:
            there = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            found.add(name)
            continue
        if requirement.specifier.contains(there.version, prereleases=True):
            left += there.requires or []
        else:
            found.add(name)
    return found


def pip_install(lines: Iterable[str]) -> None:
    """Install these lines of the lock, and nothing with them."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "requirements.txt"
        path.write_text("\n".join(lines), encoding="utf-8")
        options = ["--quiet", "--disable-pip-version-check", "--require-hashes", "--no-deps"]
        subprocess.run([sys.executable, "-m", "pip", "install", *options, "-r", str(path)], check=True)


def main(install: Callable[[Iterable[str]], None] = pip_install) -> list[str]:
    """Install what is lacking, then what that needs, until nothing is; the names, in order."""
    lock = locked((ROOT / "requirements.txt").read_text(encoding="utf-8"))
    needs = declared((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    done: list[str] = []
    while names := sorted(lacking(needs, lock) - {*done}):
        print("installing", ", ".join(names), flush=True)
        install(lock[name] for name in names)
        importlib.invalidate_caches()
        done += names
    return done


if __name__ == "__main__":
    main()
