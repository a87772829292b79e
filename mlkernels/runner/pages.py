"""Executed notebooks as web pages that need no network: alt text kept, equations by local MathJax, solutions folded."""

from __future__ import annotations

import base64
import contextlib
import copy
import filecmp
import html
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlkernels.support.files import scratch_folder, write_atomically

TEMPLATES = Path(__file__).parent / "templates"
WIDGET = "application/vnd.jupyter.widget-view+json"
STILL = "mlk-still"  # marks the output that explorers put before their widget
MATHJAX = "mathjax/MathJax.js"
INSTALL = "install"  # the tag of the cell that fetches the course where it is missing: nothing for a page
_ALT_MISSING = "First figure of this notebook"
# what the pages use of MathJax: TeX in, HTML out; not the menus' translations or the speech engine
_MATHJAX_PARTS = ("MathJax.js", "LICENSE", "config", "extensions", "fonts", "jax")


def copy_mathjax(out: Path) -> Path:
    """Put MathJax beside the pages, or what is missing or damaged of one that is there; its entry script's path."""
    from importlib.util import find_spec

    script, origin = out / MATHJAX, Path(find_spec("jupyter_server_mathjax").origin).parent / "static"
    if not script.parent.exists():
        with scratch_folder(script.parent, shared=True) as fresh:
            for name in _mathjax_files(origin):
                (fresh / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(origin / name, fresh / name)
            with contextlib.suppress(OSError):  # another run put it there first
                os.replace(fresh, script.parent)
    for name in _mathjax_files(origin):
        with contextlib.suppress(OSError):
            if filecmp.cmp(origin / name, script.parent / name, shallow=False):
                continue
        write_atomically(script.parent / name, (origin / name).read_bytes())
    return script


def _mathjax_files(origin: Path) -> list[Path]:
    """What the pages use of MathJax, relative to its folder."""
    parts = [origin / part for part in _MATHJAX_PARTS]
    found = [path for part in parts for path in ([part] if part.is_file() else sorted(part.rglob("*")))]
    names = [path.relative_to(origin) for path in found if path.is_file()]
    return [name for name in names if "a11y" not in name.parts]


def without_widgets(notebook: dict, number: str) -> dict:
    """A copy of an executed notebook whose widgets, which need a kernel, are replaced by a note ("01" opens it).

    Widget state is gone as well, since only scripts from the network could show it, and so are outputs that are a
    record only, and the cell that installs the course.
    """
    notebook = copy.deepcopy(notebook)
    notebook["metadata"].pop("widgets", None)
    notebook["cells"] = [cell for cell in notebook["cells"] if INSTALL not in cell["metadata"].get("tags", [])]
    command = html.escape(f"mlkernels lab {number}")
    note = f'<p class="widget-note">Interactive in JupyterLab: <code>{command}</code></p>'
    for cell in notebook["cells"]:
        if "outputs" in cell:  # a record without a text beside it shows nothing, and nbconvert warns of it
            cell["outputs"] = [output for output in cell["outputs"] if not _unseen(output)]
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):  # a page has its own way to show it
                output["data"].pop("text/html", None)
            if WIDGET in output.get("data", {}):
                output["data"].clear()
                output["data"]["text/html"] = note
                output["metadata"] = {}
    return notebook


def heading(notebook: dict) -> tuple[str, str]:
    """The text of a notebook's H1, and the first sentence of its first paragraph; empty where it has none."""
    text = "\n\n".join("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "markdown")
    title = re.search(r"^# +(.+?)\s*#*$", text, re.M)
    for paragraph in re.split(r"\n\s*\n", text[title.end() :] if title else text):
        if paragraph.strip() and not re.match(r"\s*([#!<|>]|[-*+] |\d+\. |\$\$|```)", paragraph):
            sentence = re.split(r"(?<=[.!?])\s+(?=[A-Z*_`$\[])", " ".join(paragraph.split()), maxsplit=1)[0]
            return _plain(title[1]) if title else "", _plain(sentence)
    return _plain(title[1]) if title else "", ""


def _plain(markdown: str) -> str:
    """Markdown without its marks; what stands between dollars stays as it is."""
    parts = re.split(r"(\$[^$]+\$)", markdown)
    for index in range(0, len(parts), 2):
        part = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", parts[index])
        parts[index] = re.sub(r"(\*\*|\*|`|(?<!\w)_|_(?!\w))", "", part)
    return "".join(parts)


def first_figure(notebook: dict) -> tuple[str, bytes, str] | None:
    """The first picture that an executed notebook shows: suffix (".png" or ".svg"), content, alt text."""
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            for mime, suffix in (("image/png", ".png"), ("image/svg+xml", ".svg")):
                if mime in output.get("data", {}):
                    content = "".join(output["data"][mime])
                    alt = output.get("metadata", {}).get(mime, {}).get("alt") or _ALT_MISSING
                    return suffix, base64.b64decode(content) if suffix == ".png" else content.encode(), alt
    return None


def _unseen(output: dict) -> bool:
    """Whether an output has no place of its own in a page.

    A record only; the still picture that stands before a widget; a caption, which stands in its figure.
    """
    record = bool(output.get("data")) and all(mime.startswith("application/vnd.mlkernels.") for mime in output["data"])
    metadata = output.get("metadata", {})
    return record or metadata.get(STILL, False) or metadata.get("caption_of_next", False)


def render(notebook: dict, name: str, title: str = "", course: Mapping[str, Any] | None = None) -> str:
    """The page of an executed notebook: HTML that loads nothing but mathjax/MathJax.js beside it.

    The number of its name opens it in `mlkernels lab`. A page of a whole site, `course`, has `nav` ((address, text)
    each), its own address `here`, and a `style` and `script` beside the ones that all pages have.
    """
    import logging

    import nbformat
    from nbconvert.exporters import HTMLExporter

    exporter = HTMLExporter(extra_template_basedirs=[str(TEMPLATES)], template_name="course", mathjax_url=MATHJAX)
    exporter.log.setLevel(logging.ERROR)  # it warns of images without alt text; a test of the notebooks refuses them
    page = without_widgets(notebook, name.partition("_")[0])
    page["metadata"]["title"] = title or name
    body, _ = exporter.from_notebook_node(
        nbformat.from_dict(page), resources={"metadata": {"name": name}, "course": course}
    )
    return with_named_tables(body)


def with_named_tables(page: str) -> str:
    """HTML whose tables have a caption, unseen the heading above where they have none, and header cells that say of
    what. Markdown has no way to write either.

    Example:
        >>> with_named_tables("<h2>Cost</h2><table><tr><th>a</th></tr></table>")
        '<h2>Cost</h2><table><caption class="unseen">Cost</caption><tr><th scope="row">a</th></tr></table>'
    """
    title, scope = "", "row"

    def better(found: re.Match) -> str:
        nonlocal title, scope
        tag = found[0]
        if found["title"] is not None:
            title = re.sub(r"<a class=\"anchor-link\".*?</a>|<[^>]+>", "", found["title"]).strip()
        elif tag.endswith("thead>"):
            scope = "row" if tag.startswith("</") else "col"
        elif tag.startswith("<table"):
            return tag if found["captioned"] or not title else f'{tag}<caption class="unseen">{title}</caption>'
        elif tag.startswith("<th") and "scope=" not in tag:
            return tag.replace("<th", f'<th scope="{scope}"', 1)
        return tag

    parts = r"<h[1-6][^>]*>(?P<title>.*?)</h[1-6]>|</?thead>|<table[^>]*>(?P<captioned>\s*<caption)?|<th(?: [^>]*)?>"
    return re.sub(parts, better, page, flags=re.S)
