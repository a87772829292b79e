"""A notebook's page in the site: its demos move by the page's own script, its pictures are files beside it."""

from __future__ import annotations

import ast
import base64
import copy
import hashlib
import html
import io
import re
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from PIL import Image

from mlkernels.course.demos.demo import Demo
from mlkernels.course.widgets import explorer
from mlkernels.runner.pages import TEMPLATES, heading, render
from mlkernels.runner.site_frames import GROUND
from mlkernels.support.files import write_atomically
from mlkernels.support.strict_json import dumps

_DEMOS = "mlkernels.course.demos"
_STYLE = re.compile(r"<style[^>]*>(.*?)</style>\s*", re.S)


def demos_of(notebook: Mapping) -> dict[int, Demo]:
    """The demos that a notebook explores: number of the cell tagged `widget` -> the demo.

    A cell names the module that the notebook has imported from `mlkernels.course.demos`; of a demo that is made while
    the notebook runs, it is the one that comes with the course.
    """
    modules, found = {}, {}
    for number, cell in enumerate(notebook["cells"]):
        if cell["cell_type"] != "code":
            continue
        try:
            nodes = list(ast.walk(ast.parse("".join(cell["source"]))))
        except SyntaxError:  # a magic, or an exercise not yet done
            continue
        for node in nodes:
            if isinstance(node, ast.ImportFrom) and node.module == _DEMOS:
                modules |= {alias.asname or alias.name: alias.name for alias in node.names}
        if "widget" in cell["metadata"].get("tags", []):
            named = [node.id for node in nodes if isinstance(node, ast.Name) and node.id in modules]
            demo = import_module(f"{_DEMOS}.{modules[named[0]]}").DEMO if named else None
            if demo is not None:
                found[number] = demo
    return found


def script() -> str:
    """The one script of a page: the controls that JupyterLab has, too, and what moves the pictures."""
    return explorer.page_script() + (TEMPLATES / "site.js").read_text(encoding="utf-8")


def style() -> str:
    """The controls' look."""
    return Path(explorer.__file__).with_suffix(".css").read_text(encoding="utf-8")


def picture(content: bytes, out: Path) -> tuple[str, int, int]:
    """Keep a PNG as lossless WebP in `pictures`, by its content: its address, width and height in pixels."""
    name = f"pictures/{hashlib.sha256(content).hexdigest()[:12]}.webp"
    image = Image.open(io.BytesIO(content))
    if not _shows(out / name, image):
        file = io.BytesIO()
        image.save(file, "webp", lossless=True, method=4)
        write_atomically(out / name, file.getvalue())
    return name, *image.size


def _shows(path: Path, image: Image.Image) -> bool:
    """Whether a file is there, whole, and shows an image to the bit."""
    try:
        with Image.open(path) as kept:
            return kept.size == image.size and kept.convert("RGBA").tobytes() == image.convert("RGBA").tobytes()
    except (OSError, SyntaxError, ValueError):  # missing, cut, something else
        return False


def _pictures_apart(notebook: dict, out: Path) -> None:
    """Put a notebook's pictures into files, with width and height, so that nothing jumps when they come."""
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            content = output.get("data", {}).get("image/png")
            if content:
                src, wide, high = picture(base64.b64decode("".join(content)), out)
                about = output.setdefault("metadata", {}).setdefault("image/png", {})
                about["width"] = about.get("width", wide)
                about |= {"src": src, "height": round(about["width"] * high / wide)}


def _place(demo: Demo, table: Mapping[str, Any], name: str, made_here: bool) -> str:
    """Where a demo's controls will be, with what they show."""
    number = name.partition("_")[0]
    notes = [*table["left"]]
    if made_here:
        notes.insert(0, "This is the search that comes with the course; the notebook shows its own.")
    note = f"In this page: {' '.join(notes)} The notebook has all: mlkernels lab {number}." if notes else ""
    below = f'<p class="demo-note">{html.escape(note)}</p>' if notes else ""
    about = {
        key: value for key, value in table.items() if key not in ("left", "bytes", "fingerprint", "ground", "sha256")
    }
    about |= {"folder": f"demos/{demo.name}", "ground": GROUND, "run": demo.run is not None}
    data = dumps(about).replace("<", "\\u003c")  # no text ends the script, or opens a comment in it
    return (
        f'<div class="demo" id="demo-{demo.name}"><div class="demo-view"></div>{below}\n'
        f'<p class="widget-note">With scripts on, this demo moves here; below it are still pictures. In '
        f"JupyterLab: <code>mlkernels lab {html.escape(number)}</code></p>\n"
        f'<script type="application/json">{data}</script></div>'
    )


def with_demos(notebook: dict, tables: Mapping[str, Mapping], name: str) -> dict:
    """A copy of an executed notebook whose demos have their place, and whose still pictures fold up below them.

    Args:
        notebook: executed.
        tables: demo -> what `site_frames.frames` gave.
        name: the notebook's, for the note on where all settings are.
    """
    notebook = copy.deepcopy(notebook)
    cells = notebook["cells"]
    for number, demo in demos_of(notebook).items():
        table = tables[demo.name]
        made_here = "make_demo" in "".join(cells[number]["source"])
        place = _place(demo, table, name, made_here)
        cells[number]["outputs"] = [
            {"output_type": "display_data", "data": {"text/html": place, "text/plain": demo.question}, "metadata": {}}
        ]
        last = next((n for n in range(number + 1, len(cells)) if "widgets.twin(" in "".join(cells[n]["source"])), None)
        if last is not None:
            what = "Still pictures of this notebook's own search" if made_here else "The same as still pictures"
            opening = f'<details class="twin" id="twin-demo-{demo.name}" open><summary>{what}</summary>'
            cells[number + 1]["metadata"]["before"] = opening
            cells[last]["metadata"]["after"] = "</details>"
    return notebook


def write_notebook(
    notebook: dict, name: str, out: Path, nav: list[tuple[str, str]], tables: Mapping[str, Mapping]
) -> None:
    """The page of an executed notebook in the site `out`, whose styles are a file that all pages share."""
    notebook = with_demos(notebook, tables, name)
    _pictures_apart(notebook, out)
    course = {"nav": nav, "here": f"{name}.html", "script": script(), "style": style()}
    page = render(notebook, name, heading(notebook)[0], course=course)
    head, _, rest = page.partition("</head>")
    styles = "\n".join(_STYLE.findall(head))
    sheet = f"styles/{hashlib.sha256(styles.encode()).hexdigest()[:12]}.css"
    write_atomically(out / sheet, styles)
    link = f'<link rel="stylesheet" href="{sheet}">\n'
    write_atomically(out / f"{name}.html", f"{_STYLE.sub('', head)}{link}</head>{rest}")
