"""The course's notebooks: found, chosen, read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import mlkernels
from mlkernels.errors import bad_input
from mlkernels.support.strict_json import load


def find_notebooks(folder: Path | None = None) -> dict[str, Path]:
    """The course's notebooks, name ("01_derive_metantk") -> path, in order.

    They are in `notebooks/` of the checkout, found from the package or the current folder, if no folder is given.
    """
    candidates = [Path(mlkernels.__file__).parents[1] / "notebooks", Path.cwd() / "notebooks", Path.cwd()]
    for place in [Path(folder)] if folder is not None else candidates:
        found = {path.stem: path.resolve() for path in sorted(place.glob("[0-9][0-9]_*.ipynb"))}
        if found:
            return found
    where = folder if folder is not None else " or ".join(str(place) for place in candidates)
    raise bad_input("notebooks", f"NN_name.ipynb files in {where}", "none", "give the folder with --notebooks DIR")


def choose_notebooks(found: dict[str, Path], prefixes: Sequence[str]) -> dict[str, Path]:
    """The notebooks, of those found, that the command line names: by beginnings of names or paths to them; none means
    all.
    """
    chosen = set() if prefixes else set(found)
    for prefix in prefixes:
        beginning = Path(prefix).stem if prefix.endswith(".ipynb") else prefix
        matching = [name for name in found if beginning and name.startswith(beginning)]
        if not matching:
            expected = f"the beginning of one of {', '.join(found)}"
            raise bad_input("notebook", expected, repr(prefix), "name one of them")
        path = Path(prefix).expanduser() if prefix.endswith(".ipynb") else None
        if path and path.exists() and path.resolve() not in [found[name] for name in matching]:
            do = f"add --notebooks {path.parent}"
            raise bad_input("notebook", f"one in {found[matching[0]].parent}", prefix, do)
        chosen.update(matching)
    return {name: path for name, path in found.items() if name in chosen}


def read_notebook(path: Path) -> dict:
    """The content of a notebook file, checked only as far as the runner needs.

    Raises:
        InputError: the file is no notebook.
    """
    try:
        notebook = load(Path(path))
        for cell in notebook["cells"]:
            cell["source"] = "".join(cell["source"])  # a list of lines or one string: both are allowed
    except OSError as error:  # a folder of that name, a link to nothing
        raise bad_input(str(path), "a notebook (nbformat 4)", error.strerror, "restore the file") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise bad_input(str(path), "a notebook (nbformat 4)", reason, "restore the file") from None
    return notebook
